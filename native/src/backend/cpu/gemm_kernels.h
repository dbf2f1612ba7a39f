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
    const void * next_a;  // the block of A that will be read next, of the same shape, or null: fetched into the second-level cache
};

void kernel_bf16_amx(const KernelArgs & args);  // only when has_amx_bf16(), after amx_configure_thread()
void kernel_bf16_simd(const KernelArgs & args);
void kernel_f32_simd(const KernelArgs & args);

// y = c, or residual + c when residual is given, over rows x n elements; strides in elements.
struct StoreArgs {
    const float * c;
    int64_t ldc;
    const float * residual;
    int64_t residual_stride;
    void * y;
    int64_t y_stride;
    int64_t rows, n;
};
void store_block_bf16(const StoreArgs & args);
void store_block_f32(const StoreArgs & args);

void convert_f32_to_bf16(const float * x, uint16_t * y, int64_t n);
void convert_bf16_to_f32(const uint16_t * x, float * y, int64_t n);

// sum of a[i] b[i] in f32, for single rows; either side bf16 or f32.
float dot_f32(const float * a, const float * b, int64_t n);

}  // namespace lorica::cpu
