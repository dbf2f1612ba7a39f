// A few rows of x in the forms in which decoding's kernels read them.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/gemm.h"

// Of a target of Highway: whether the processor adds products of bytes to sums of 32 bits (VNNI).
#define LORICA_DOT_BYTES (HWY_TARGET <= HWY_AVX3_DL)

namespace lorica::cpu {

constexpr int64_t dot_max_rows = 16;

// Activations in bf16 are also there as integers of 16 bits, one unit for a whole row: x is about ints * unit. A unit
// is 1/32639 of the largest |x|, so that what is lost stays below what keeping activations in bf16 loses.
struct DotInput {
    // What a sum of products of integers with codes starts from, so that a code counts as code - 8, - 32 or - 128.
    struct Starts {
        int32_t of_4_bits;     // -8 times the sum of 32 ints
        int32_t of_6_bits[2];  // -32 times those of the first and the second 16
        int32_t of_8_bits;     // -128 times that of 32
    };

    int64_t rows = 0, cols = 0;
    const float * values = nullptr;  // [rows, cols]
    // What follows is null where x is f32 or not finite: its integers, with zeros behind cols. Each row starts `stride`
    // elements after the one before.
    const float * sums = nullptr;     // [rows, stride / 16]: of 16 ints each
    const Starts * starts = nullptr;  // [rows, stride / 32]
    // Where the kernels multiply bytes (LORICA_DOT_BYTES): the integers in their order, and as bytes,
    // ints = 256 upper + lower. By 128 elements: upper bytes of the first 16 of each 32 and of the second 16, then the
    // lower ones.
    const int16_t * ints = nullptr;   // [rows, stride]
    const int8_t * planes = nullptr;  // [rows, 2 * stride]
    // Elsewhere: of each four elements the first and the third, then the second and the fourth.
    const int16_t * pairs = nullptr;  // [rows, stride]
    int64_t stride = 0;
    float unit[dot_max_rows] = {};

    bool has_ints() const { return sums != nullptr; }

    static constexpr int64_t lower_plane = 128;
    // Where the upper bytes of elements i to i + 15 begin, i a multiple of 16; their lower ones are lower_plane bytes
    // behind.
    static constexpr int64_t plane_offset(int64_t i) { return i / 128 * 256 + i % 32 / 16 * 64 + i % 128 / 32 * 16; }
};

// In scratch memory.
DotInput prepare_dot_input(const Matrix & x, Scratch & scratch);

}  // namespace lorica::cpu
