// Linear layers for a few rows of x, as in decoding: bound by reading the weights, so each row of W is expanded once,
// in registers, and multiplied with every row of x there. No panels. Interleaved copies are read instead where there
// are any.
#pragma once

#include "backend/cpu/linear.h"

namespace lorica::cpu {

constexpr int64_t matvec_max_rows = 4;

void linear_few_rows(const Context & context, Matrix x, std::span<const LinearForward> layers);

}  // namespace lorica::cpu
