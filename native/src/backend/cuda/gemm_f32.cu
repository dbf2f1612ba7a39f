// The matrix product of f32 operands, for precision f32: exact arithmetic matters there, and speed does not. A block of
// threads makes 64 x 64 elements of c, a thread 4 x 4 of them.
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_result.cuh"
#include "backend/cuda/launch.h"

namespace lorica::cuda {

namespace {

constexpr int threads = 256, edge = 64, depth = 16, own = 4;

// Element (i, k) of an operand lies at i * of_row + k * of_k.
struct Steps {
    int64_t of_row, of_k;
};

// tile[k][i] = elements [first, + edge) x [k, + depth), 0 outside of the operand.
__device__ __forceinline__ void load(float (*tile)[edge], const float * from, const Steps & steps, int64_t first,
                                     int64_t n, int64_t k, int64_t n_k) {
    for (int at = static_cast<int>(threadIdx.x); at < edge * depth; at += threads) {
        // Neighbouring threads read neighbouring elements, whichever way the operand lies.
        const int i = steps.of_k == 1 ? at / depth : at % edge, kk = steps.of_k == 1 ? at % depth : at / edge;
        const bool there = first + i < n && k + kk < n_k;
        tile[kk][i] = there ? from[(first + i) * steps.of_row + (k + kk) * steps.of_k] : 0.0f;
    }
}

__global__ void __launch_bounds__(threads) gemm_f32_kernel(const __grid_constant__ Gemm p) {
    auto * a_tile = reinterpret_cast<float(*)[edge]>(shared_memory());
    auto * b_tile = a_tile + depth;
    const int64_t n_tiles = (p.n + edge - 1) / edge;
    const int64_t m0 = blockIdx.x / n_tiles * edge, n0 = blockIdx.x % n_tiles * edge;
    const int row = static_cast<int>(threadIdx.x) / 16, col = static_cast<int>(threadIdx.x) % 16;
    const bool a_by_columns = p.layout == GemmLayout::gradient, b_by_rows = p.layout != GemmLayout::forward;
    float sums[own][own] = {};
    for (int t = 0; t < p.n_terms; ++t) {
        const GemmTerm & term = p.terms[t];
        const Steps a_steps = a_by_columns ? Steps{1, term.a_stride} : Steps{term.a_stride, 1};
        const Steps b_steps = b_by_rows ? Steps{1, term.b_stride} : Steps{term.b_stride, 1};
        for (int64_t k = 0; k < term.k; k += depth) {
            __syncthreads();
            load(a_tile, static_cast<const float *>(term.a), a_steps, m0, p.m, k, term.k);
            load(b_tile, static_cast<const float *>(term.b), b_steps, n0, p.n, k, term.k);
            __syncthreads();
            for (int kk = 0; kk < depth; ++kk) {
#pragma unroll
                for (int i = 0; i < own; ++i) {
#pragma unroll
                    for (int j = 0; j < own; ++j) {
                        sums[i][j] += a_tile[kk][row + i * 16] * b_tile[kk][col + j * 16];
                    }
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < own; ++i) {
#pragma unroll
        for (int j = 0; j < own; ++j) {
            const int64_t m = m0 + row + i * 16, n = n0 + col + j * 16;
            if (m < p.m && n < p.n) store(p, m, n, sums[i][j]);
        }
    }
}

}  // namespace

void gemm_f32(const Context & context, const Gemm & problem) {
    const int64_t tiles = divide_up(problem.m, edge) * divide_up(problem.n, edge);
    launch("gemm_f32", context.stream, gemm_f32_kernel,
           {dim3(static_cast<unsigned>(tiles)), threads, size_t{2} * depth * edge * sizeof(float)}, problem);
}

}  // namespace lorica::cuda
