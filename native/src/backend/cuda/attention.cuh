// What the attention kernels share. Scores, probabilities and sums are f32; a warp owns 16 rows of a tile, so that a
// softmax needs no other warp, and the probabilities it made are the operand of its next product without leaving
// registers.
#pragma once

#include "backend/cuda/attention_plan.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/tile.cuh"
#include "backend/cuda/view.cuh"

namespace lorica::cuda {

constexpr int attention_threads = 128;
constexpr float log2_e = 1.4426950408889634f;

// A matrix of heads as kernels take it.
template <typename T> struct HeadsOf {
    T * data;
    int64_t stride;

    __device__ __forceinline__ T * at(int64_t row, int64_t head, int dim) const {
        return data + row * stride + head * dim;
    }
};
template <typename T> HeadsOf<T> heads_of(const Matrix & x) { return {x.as<T>(), x.stride}; }
using Heads = HeadsOf<bf16>;
inline Heads heads(const Matrix & x) { return heads_of<bf16>(x); }

// attention_plain.cu serves what the tensor-core kernels do not: f32, heads of more than 128 elements, and a cache of
// more rows than there are queries whose heads do not begin at multiples of 16 bytes.
bool is_plain_attention(const Context & context, const AttentionShape & shape, const Matrix & q, const Matrix & k,
                        const Matrix & v);
void attention_forward_plain(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionTiles & q_tiles,
                             const AttentionShape & shape, Matrix o, Matrix lse);
void attention_backward_plain(const Context & context, Matrix q, Matrix k, Matrix v, Matrix lse, Matrix d_o,
                              const AttentionTiles & q_tiles, const AttentionTiles & kv_tiles,
                              const AttentionShape & shape, const float * delta, Matrix dq, Matrix dk, Matrix dv);
// delta[h, t] = o_th . do_th
void attention_delta(const Context & context, Matrix o, Matrix d_o, const AttentionShape & shape, float * delta);
constexpr int max_head_dim = 256;

// Calls f(std::integral_constant<int, n>) with the elements of a head that each lane of a warp has.
template <typename F> void with_lane_elements(int32_t head_dim, F f) {
    if (head_dim <= 128) return f(std::integral_constant<int, 4>());
    if (head_dim <= max_head_dim) return f(std::integral_constant<int, max_head_dim / warp_size>());
    fail(LORICA_ERROR_UNSUPPORTED, "heads of ", head_dim, " elements: the cuda device computes up to ", max_head_dim);
}

// True when rows of every head can be copied by 16 bytes.
inline bool heads_are_aligned(std::initializer_list<Matrix> matrices, int32_t head_dim) {
    for (const Matrix & x : matrices) {
        if (reinterpret_cast<uintptr_t>(x.data) % 16 || x.stride % 8) return false;
    }
    return head_dim % 8 == 0;
}
// An operand of the tensor-core kernels: its rows of every head begin at multiples of 16 bytes, and zeros fill them up
// to a multiple of eight elements, head_pitch(). A copy in the workspace where the matrix is not like that.
inline int head_pitch(const AttentionShape & shape) { return static_cast<int>(round_up(shape.head_dim, 8)); }
Heads head_operand(const Context & context, const Matrix & x, int32_t n_heads, const AttentionShape & shape);

// What a score is before its softmax, from the product q . k: times factor, or softcap tanh(scale / softcap q . k). As
// exponents are made it is in units of log2(e).
struct Scores {
    float to_tanh;  // scale / softcap, or 0: without one
    float factor;   // scale or softcap, in those units
    float natural;  // the same, not in those units
    float scale;    // of the derivative

    static Scores of(const AttentionShape & shape) {
        Scores s{};
        const bool capped = shape.softcap > 0;
        s.scale = static_cast<float>(shape.scale);
        s.to_tanh = capped ? static_cast<float>(shape.scale / shape.softcap) : 0.0f;
        s.natural = capped ? static_cast<float>(shape.softcap) : s.scale;
        s.factor = s.natural * log2_e;
        return s;
    }
    // tanh of all products, where there is a softcap.
    template <int frags, int n> __device__ __forceinline__ void cap(float (&s)[frags][n][4]) const {
        if (to_tanh == 0) return;
#pragma unroll
        for (int r = 0; r < frags; ++r) {
#pragma unroll
            for (int f = 0; f < n; ++f) {
#pragma unroll
                for (int e = 0; e < 4; ++e) s[r][f][e] = capped(s[r][f][e]);
            }
        }
    }
    __device__ __forceinline__ float capped(float product) const {
        return to_tanh == 0 ? product : 1.0f - 2.0f / (1.0f + expf(2.0f * product * to_tanh));
    }
    // The derivative of `natural` capped(product) by the product, over `scale`.
    __device__ __forceinline__ float slope(float capped) const { return to_tanh == 0 ? 1.0f : 1.0f - capped * capped; }
};

// Accumulators c[16 x 16 n] (two neighbours of 8 columns each) as operand a of columns 16 i to 16 i + 15.
template <int n> __device__ __forceinline__ void as_operand(uint32_t (&a)[4], const float (&c)[n][4], int i) {
    a[0] = pack_bf16(c[2 * i][0], c[2 * i][1]);
    a[1] = pack_bf16(c[2 * i][2], c[2 * i][3]);
    a[2] = pack_bf16(c[2 * i + 1][0], c[2 * i + 1][1]);
    a[3] = pack_bf16(c[2 * i + 1][2], c[2 * i + 1][3]);
}

// Zero, which the compiler does not know. Where it is part of a column, addresses are computed in each step rather than
// kept in registers, when these are short.
__device__ __forceinline__ int unknown_zero() {
    int zero = 0;
    asm volatile("" : "+r"(zero));
    return zero;
}

// c[r] = rows [row + 16 r, + 16) of `left` times all rows of `right`, transposed.
template <int cols, int frags, typename Left, typename Right>
__device__ __forceinline__ void multiply_transposed(float (&c)[frags][cols / 8][4], const Left & left, int row,
                                                    const Right & right, int zero = 0) {
#pragma unroll
    for (int r = 0; r < frags; ++r) {
#pragma unroll
        for (int f = 0; f < cols / 8; ++f) c[r][f][0] = c[r][f][1] = c[r][f][2] = c[r][f][3] = 0;
    }
#pragma unroll
    for (int k = 0; k < Left::cols; k += 16) {
        uint32_t a[frags][4];
#pragma unroll
        for (int r = 0; r < frags; ++r) left.operand_a(a[r], row + 16 * r, k ^ zero);
#pragma unroll
        for (int f = 0; f < cols / 16; ++f) {
            uint32_t b[4];
            right.operands_b(b, f * 16, k ^ zero);
#pragma unroll
            for (int r = 0; r < frags; ++r) {
                multiply_add(c[r][2 * f], a[r], b[0], b[1]);
                multiply_add(c[r][2 * f + 1], a[r], b[2], b[3]);
            }
        }
    }
}

// c[r][16 x cols] += p[r][16 x depth] times the tile `right`[depth, cols].
template <int depth, int cols, int frags, typename Right>
__device__ __forceinline__ void multiply_add_rows(float (&c)[frags][cols / 8][4], const float (&p)[frags][depth / 8][4],
                                                  const Right & right, int zero = 0) {
#pragma unroll
    for (int k = 0; k < depth / 16; ++k) {
        uint32_t a[frags][4];
#pragma unroll
        for (int r = 0; r < frags; ++r) as_operand(a[r], p[r], k);
#pragma unroll
        for (int f = 0; f < cols / 16; ++f) {
            uint32_t b[4];
            right.operands_b_by_rows(b, k * 16, f * 16, zero);
#pragma unroll
            for (int r = 0; r < frags; ++r) {
                multiply_add(c[r][2 * f], a[r], b[0], b[1]);
                multiply_add(c[r][2 * f + 1], a[r], b[2], b[3]);
            }
        }
    }
}

// Stores the warp's 16 rows of c, of which those below n_rows are there, times a factor for rows g and one for rows g
// + 8.
template <int cols>
__device__ __forceinline__ void store_rows(bf16 * to, int64_t stride, int row, int n_rows, int n_cols,
                                           const float (&c)[cols / 8][4], float factor0, float factor1) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int r = row + lane / 4 + 8 * half;
        if (r >= n_rows) continue;
        bf16 * out = to + r * stride;
        const float factor = half ? factor1 : factor0;
        const bool pairs = reinterpret_cast<uintptr_t>(out) % 4 == 0;
#pragma unroll
        for (int f = 0; f < cols / 8; ++f) {
            const int col = f * 8 + lane % 4 * 2;
            const float first = c[f][2 * half] * factor, second = c[f][2 * half + 1] * factor;
            if (pairs && col + 1 < n_cols) {
                *reinterpret_cast<uint32_t *>(out + col) = pack_bf16(first, second);
            } else {
                if (col < n_cols) out[col] = to_bf16(first);
                if (col + 1 < n_cols) out[col + 1] = to_bf16(second);
            }
        }
    }
}

}  // namespace lorica::cuda
