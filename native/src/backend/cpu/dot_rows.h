// Products of a few rows of x with rows of a quantized weight, one sum each: the inside of decoding.
#pragma once

#include <cstdint>

#include "backend/cpu/dot_input.h"

namespace lorica::cpu {

// out[t * stride + i] = row first + i of W times row t of x, for count rows of W.
// scratch: w.in floats, used by types without vector code.
void dot_rows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out,
              int64_t stride);

}  // namespace lorica::cpu
