// The innermost products: a block of up to 32 rows of A with packed groups of B, accumulated into C in scratch memory.
#pragma once

#include <cstdint>

namespace lorica::cpu {

// C[rows, 16 * groups] (row stride ldc) = or += A[rows, k] (row stride lda, in elements) B. rows <= 32, k a multiple of 32 in bf16.
// In bf16 all 32 rows of A must be readable.
struct KernelArgs {
    const void * a;
    int64_t lda;
    const void * panel;
    int64_t group_stride;  // elements from one group of the panel to the next
    int64_t k;
    int64_t groups;
    int64_t rows;
    float * c;
    int64_t ldc;
    bool accumulate;
};

void kernel_bf16_amx(const KernelArgs & args);  // only when has_amx_bf16(), after amx_configure_thread()
void kernel_bf16_simd(const KernelArgs & args);
void kernel_f32_simd(const KernelArgs & args);

// y[i] = c[i], or residual[i] + c[i] when residual is given; y in bf16 or f32.
void store_row_bf16(const float * c, const float * residual, uint16_t * y, int64_t n);
void store_row_f32(const float * c, const float * residual, float * y, int64_t n);

void convert_f32_to_bf16(const float * x, uint16_t * y, int64_t n);
void convert_bf16_to_f32(const uint16_t * x, float * y, int64_t n);

// sum of a[i] b[i] in f32, for single rows; either side bf16 or f32.
float dot_f32(const float * a, const float * b, int64_t n);

}  // namespace lorica::cpu
