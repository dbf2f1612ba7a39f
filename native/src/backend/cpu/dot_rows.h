// Products of a few rows of x with rows of a quantized weight, one sum each: the inside of decoding.
#pragma once

#include <cstdint>

#include "backend/cpu/dot_input.h"

namespace lorica::cpu {

constexpr int64_t dot_scratch_rows = 4;

// out[t * stride + i] = row first + i of W times row t of x, for count rows of W. A row of x gets the same sums beside
// any others. scratch: dot_scratch_rows * w.in floats.
void dot_rows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out,
              int64_t stride);

}  // namespace lorica::cpu
