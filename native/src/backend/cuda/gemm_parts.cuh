// What products have in common that make one tile of c in a block of threads: tiles may be made in parts along k, where
// there are too few of them for all multiprocessors.
#pragma once

#include "backend/cuda/gemm_result.cuh"
#include "backend/cuda/launch.h"

namespace lorica::cuda {

struct GemmInParts {
    Gemm gemm;
    int64_t iterations = 0;     // steps along k, of all terms
    bool with_blocks = false;   // a term has
    int n_splits = 1;           // block (x, y) makes part y of tile x
    float * partial = nullptr;  // [n_splits, m, n] when n_splits > 1
    bool eights = false;        // see has_eights()
};

// A warp's sums, of operands of 16 rows from row `warp_m` of the tile and of 8 columns from `warp_n` on: rows g and g +
// 8, columns 2t and 2t + 1 of each fragment.
template <typename Result, int frags_m, int frags_n>
__device__ __forceinline__ void put_sums(const Result & result, const float (&sums)[frags_m][frags_n][4], int warp_m,
                                         int warp_n) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int fm = 0; fm < frags_m; ++fm) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int fn = 0; fn < frags_n; ++fn) {
                result.put(warp_m + fm * 16 + half * 8 + lane / 4, warp_n + fn * 8 + lane % 4 * 2,
                           sums[fm][fn][2 * half], sums[fm][fn][2 * half + 1]);
            }
        }
    }
}

// Stores a tile, or this block's part of it.
template <int rows, int cols, int n_threads>
__device__ __forceinline__ void store_part(const ResultTile<rows, cols, n_threads> & result, const GemmInParts & p,
                                           int64_t m0, int64_t n0) {
    if (p.n_splits == 1) return result.store_all(p.gemm, m0, n0, p.eights);
    const auto m_left = static_cast<int>(min(p.gemm.m - m0, int64_t{rows}));
    const auto n_left = static_cast<int>(min(p.gemm.n - n0, int64_t{cols}));
    float * partial = p.partial + blockIdx.y * p.gemm.m * p.gemm.n;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * cols; i += n_threads) {
        const int row = i / cols, col = i % cols;
        if (row < m_left && col < n_left)
            partial[(m0 + row) * p.gemm.n + n0 + col] = result.data[row * result.stride + col];
    }
}

// In how many parts so many tiles are made, which is at most one for every min_iterations.
int splits_of(const Context & context, const GemmInParts & p, int64_t tiles, int64_t min_iterations);
// Adds the parts of all tiles in order.
void add_splits(const Context & context, const GemmInParts & p);

// launch_tiles(p) with the number of parts and their place in the workspace; then they are added.
template <typename F>
void launch_in_parts(const Context & context, GemmInParts p, int64_t tiles, int64_t min_iterations, F launch_tiles) {
    const Workspace::Mark mark(context.workspace);
    p.n_splits = splits_of(context, p, tiles, min_iterations);
    if (p.n_splits > 1) p.partial = context.workspace.take<float>(p.n_splits * p.gemm.m * p.gemm.n);
    launch_tiles(p);
    if (p.n_splits > 1) add_splits(context, p);
}

// gemm_few_rows.cu: products with the blocks of weights, all of one shape of tile.
constexpr int few_rows = 64, few_rows_cols = 128;
void gemm_few_rows(const Context & context, const GemmInParts & p, const char * name);

}  // namespace lorica::cuda
