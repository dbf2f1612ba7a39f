// Sums over tokens, out += scale narrow^T wide: the gradients of a LoRA. A is dA = v^T x, B is dB = (scale u)^T dy
// (backend.h).
#pragma once

#include <span>

#include "backend/cpu/linear.h"

namespace lorica::cpu {

struct TokenSum {
    Matrix narrow;  // [n_tokens, rank], act
    float scale;
    Matrix wide;  // [n_tokens, n], act
    Matrix out;   // f32 [rank, n], or [n, rank] when transposed
    bool transposed;
    const Norm * norm =
        nullptr;  // of wide, which is f32 then: the sum is over what this makes of it, a plain rms with statistics
};

// Whether sums can take a norm into account.
bool token_sums_take_norms(const Context & context);

// Every element is summed by one thread in the order of the tokens.
void add_token_sums(const Context & context, std::span<const TokenSum> sums);

}  // namespace lorica::cpu
