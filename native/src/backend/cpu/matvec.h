// Linear layers for a few rows of x, as in decoding: bound by reading the weights, so a few rows of W at a time meet
// every row of x, by the same sums as if it were the only one. No panels. Interleaved copies are read instead where
// there are any.
#pragma once

#include "backend/cpu/linear.h"

namespace lorica::cpu {

constexpr int64_t matvec_max_rows = 16;

void linear_few_rows(const Context & context, Matrix x, std::span<const LinearForward> layers);

}  // namespace lorica::cpu
