// The innermost products: a block of up to 32 rows of A with packed groups of B, accumulated into C in scratch memory.
#pragma once

#include <cstdint>
#include <span>

namespace lorica::cpu {

// One term of a sum of products: A[rows, k] (row stride lda, in elements) times groups of a packed panel. k is a
// multiple of 32 in bf16, and all 32 rows of A must be readable then. A is in the format of the panel, but see
// kernel_bf16_simd().
struct KernelSegment {
    const void * a;
    int64_t lda;
    const void * panel;
    int64_t group_stride;  // elements from one group of the panel to the next
    int64_t k;
    const void * next_a;  // the block of A that will be read next, of the same shape, or null: fetched into the
                          // second-level cache
};

// C[rows, 16 * groups] (row stride ldc) = or += the segments' products with the groups from first_group on. rows <= 32.
struct KernelArgs {
    std::span<const KernelSegment> segments;
    int64_t first_group, groups;
    int64_t all_groups;  // of the panel: the calls that share one block of A share the work of fetching the next one
    int64_t rows;
    float * c;
    int64_t ldc;
    bool accumulate;
};

void kernel_bf16_amx(const KernelArgs & args);  // only when has_amx_bf16(), after amx_configure_thread()
// Bytes of an element of A: 2, or 4 (f32) where there is no instruction for products of bf16.
void kernel_bf16_simd(const KernelArgs & args);
int64_t kernel_bf16_simd_a_element();
void kernel_f32_simd(const KernelArgs & args);
// The HWY_TARGET whose vector kernels run here.
int64_t kernel_target();

// C[sides][16][narrow_columns] = A B over k tokens for up to narrow_sides A, on AMX. A: tiles of 16 rows x 32 tokens,
// one after another, zeros behind the last token. B[k][columns] in bf16 as it lies in memory, row stride ldb; columns
// <= narrow_columns, the others of C are zero.
constexpr int64_t narrow_columns = 64, narrow_sides = 3;
struct NarrowArgs {
    const uint16_t * a[narrow_sides];
    int64_t sides;
    const void * b;
    int64_t ldb, k, columns;
    float * c;
    // B is what rmsnorm makes of f32 at b: row t times row_scales[t] times column_scales, rounded. Or null.
    const float * row_scales;
    int64_t row_scale_stride;
    const float * column_scales;
};
void narrow_product_amx(const NarrowArgs & args);  // only when has_amx_bf16(), after amx_configure_thread()

// y = c, or residual + c when residual is given, over rows x n elements; strides in elements.
struct StoreArgs {
    const float * c;
    int64_t ldc;
    const float * residual;
    int64_t residual_stride;
    void * y;
    int64_t y_stride;
    int64_t rows, n;
    bool
        stream;  // past the caches, where y's lines are written whole; then stores_done() before another thread reads y
    bool amx;    // between products of tiles: keeps them awake
    const float * bias = nullptr;  // of the n columns: added as well
    bool accumulate = false;       // to what y holds
};
// Of GemmSoftmax, for columns that begin at a multiple of softmax_columns.
struct SoftmaxStoreArgs {
    const float * c;
    int64_t ldc;
    const float * reference;  // of the rows, or null
    float * sums;
    int64_t sums_stride;  // from one softmax_columns to the next
    void * y;             // null: not wanted
    int64_t y_stride;
    bool y_is_bf16;
    int64_t rows, n;
    bool stream, amx;  // as in StoreArgs
    // Of what becomes of C first, see LogitSpec; y are the numerators times the slope that a cap has there.
    float scale = 1, cap = 0;
};
void store_softmax(const SoftmaxStoreArgs & args);
void store_block_bf16(const StoreArgs & args);
void store_block_f32(const StoreArgs & args);
void stores_done();

void convert_f32_to_bf16(const float * x, uint16_t * y, int64_t n);
void convert_bf16_to_f32(const uint16_t * x, float * y, int64_t n);

// sum of a[i] b[i] in f32, for single rows; either side bf16 or f32.
float dot_f32(const float * a, const float * b, int64_t n);
// y[i] += scale * dot_f32(x, rows + i * n, n) for i < n_rows: the B of a LoRA with one u.
void add_row_dots_f32(const float * rows, int64_t n_rows, const float * x, int64_t n, float scale, float * y);

}  // namespace lorica::cpu
