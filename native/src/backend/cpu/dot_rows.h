// Products of a few rows of x with rows of a quantized weight, one sum each: the inside of decoding.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/gemm.h"

namespace lorica::cpu {

constexpr int64_t dot_max_rows = 4;

// A few rows of x in the forms in which the kernels read them. They live in scratch memory.
struct DotInput {
    int64_t rows = 0, cols = 0;
    const float * values = nullptr;  // [rows, cols]
    // Where integers are multiplied, else null. x is about ints * unit; each row starts `stride` elements after the one before.
    const int16_t * ints = nullptr;  // [rows, stride], zeros behind cols
    const float * sums = nullptr;    // [rows, stride / 16]: of 16 ints each
    // As bytes: ints = 256 upper + lower. By 128 elements: upper bytes of the first 16 of each 32 and of the second 16, then the lower ones.
    const int8_t * planes = nullptr;   // [rows, 2 * stride]
    const int32_t * starts = nullptr;  // [rows, stride / 8]: by 32 elements four numbers whose sum is -8 times theirs
    int64_t stride = 0;
    float unit[dot_max_rows] = {};
};

DotInput prepare_dot_input(const Matrix & x, Scratch & scratch);

// out[i * dot_max_rows + t] = row first + i of W times row t of x, for count rows of W.
// scratch: w.in floats, used by types without vector code.
void dot_rows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out);

}  // namespace lorica::cpu
