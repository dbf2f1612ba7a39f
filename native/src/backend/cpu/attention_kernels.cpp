// One task of attention on one thread, written once for every instruction set; attention_kernels.h describes the
// layout.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_kernels.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/simd-inl.h"
#include "backend/cpu/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Words = hn::RebindToUnsigned<Floats>;
using Ints = hn::RebindToSigned<Floats>;
using WordVec = hn::Vec<Words>;
constexpr int64_t lanes = n_lanes;

// Rows of C whose sums, two vectors wide, stay in registers.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE2
constexpr int kernel_rows = 6;
#else
constexpr int kernel_rows = 12;
#endif

// ---- moving data

// out[c][r] = load(r, c), a vector of words from column c on; rows and cols multiples of 16.
template <typename Load>
HWY_INLINE void transpose_loaded(const Load & load, int64_t rows, int64_t cols, uint32_t * out, int64_t out_stride) {
#if LORICA_WIDE_WORDS
    for (int64_t c = 0; c < cols; c += 16) {
        for (int64_t r = 0; r < rows; r += 16) {
            __m512i sixteen[16];
            HWY_UNROLL(16)
            for (int i = 0; i < 16; ++i) sixteen[i] = load(r + i, c).raw;
            store_transposed(sixteen, out + c * out_stride + r, out_stride);
        }
    }
#else
    const Words d;
    const hn::FixedTag<uint32_t, 4> d4;
    for (int64_t c = 0; c < cols; c += lanes) {
        for (int64_t r = 0; r < rows; r += 4) {
            const WordVec a0 = load(r, c), a1 = load(r + 1, c), a2 = load(r + 2, c), a3 = load(r + 3, c);
            // 4 x 4 within each block of 128 bits.
            const WordVec even_low = hn::InterleaveLower(d, a0, a2), odd_low = hn::InterleaveLower(d, a1, a3);
            const WordVec even_high = hn::InterleaveUpper(d, a0, a2), odd_high = hn::InterleaveUpper(d, a1, a3);
            const WordVec t0 = hn::InterleaveLower(d, even_low, odd_low),
                          t1 = hn::InterleaveUpper(d, even_low, odd_low);
            const WordVec t2 = hn::InterleaveLower(d, even_high, odd_high),
                          t3 = hn::InterleaveUpper(d, even_high, odd_high);
            const auto put = [&](auto block) {
                if constexpr (block.value < lanes / 4) {
                    uint32_t * to = out + (c + 4 * block.value) * out_stride + r;
                    hn::StoreU(hn::ExtractBlock<block.value>(t0), d4, to);
                    hn::StoreU(hn::ExtractBlock<block.value>(t1), d4, to + out_stride);
                    hn::StoreU(hn::ExtractBlock<block.value>(t2), d4, to + 2 * out_stride);
                    hn::StoreU(hn::ExtractBlock<block.value>(t3), d4, to + 3 * out_stride);
                }
            };
            put(std::integral_constant<int, 0>());
            put(std::integral_constant<int, 1>());
            put(std::integral_constant<int, 2>());
            put(std::integral_constant<int, 3>());
        }
    }
#endif
}

void transpose(const uint32_t * in, int64_t in_stride, int64_t rows, int64_t cols, uint32_t * out, int64_t out_stride) {
    transpose_loaded([&](int64_t r, int64_t c) { return hn::LoadU(Words(), in + r * in_stride + c); }, rows, cols, out,
                     out_stride);
}

// A row of n elements and zeros behind it.
HWY_INLINE void copy_row(const Bf16 * row, int64_t n, Bf16 * out, int64_t padded) {
    const hn::CappedTag<uint16_t, 32> d;
    constexpr int64_t step = hn::MaxLanes(d);
    const auto * from = reinterpret_cast<const uint16_t *>(row);
    auto * to = reinterpret_cast<uint16_t *>(out);
    int64_t i = 0;
    for (; i + step <= n; i += step) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    for (; i < n; ++i) to[i] = from[i];
    std::fill(to + n, to + padded, uint16_t{0});
}

// out[0, padded) = the n elements of a row as floats, then zeros.
template <typename T> HWY_INLINE void widen_row(const T * row, int64_t n, float * out, int64_t padded) {
    for_lanes(n, [&](int64_t i, auto part) { hn::StoreU(part.get(row + i), Floats(), out + i); });
    // A partial vector may have been written over the end; what follows it is set anew.
    std::memset(out + n, 0, static_cast<size_t>(padded - n) * sizeof(float));
}

// out[i] = a[i] in the lower half, b[i] in the upper half; zeros up to `padded`.
HWY_INLINE void pair_rows(const Bf16 * a, const Bf16 * b, int64_t n, uint32_t * out, int64_t padded) {
    const Words d;
    const hn::Rebind<uint16_t, Words> d16;
    const auto * a16 = reinterpret_cast<const uint16_t *>(a);
    const auto * b16 = reinterpret_cast<const uint16_t *>(b);
    const auto join = [&](auto low, auto high) {
        return hn::Or(hn::PromoteTo(d, low), hn::ShiftLeft<16>(hn::PromoteTo(d, high)));
    };
    int64_t i = 0;
    if (b) {
        for (; i + lanes <= n; i += lanes) {
            hn::StoreU(join(hn::LoadU(d16, a16 + i), hn::LoadU(d16, b16 + i)), d, out + i);
        }
    } else {
        for (; i + lanes <= n; i += lanes) hn::StoreU(hn::PromoteTo(d, hn::LoadU(d16, a16 + i)), d, out + i);
    }
    for (; i < n; ++i) out[i] = a[i].bits | (b ? static_cast<uint32_t>(b[i].bits) << 16 : 0u);
    std::memset(out + n, 0, static_cast<size_t>(padded - n) * sizeof(uint32_t));
}

// Two floats as bf16 in one word, the first in the lower half. Halves are rounded up: the operands of a product carry
// no systematic tie.
HWY_INLINE WordVec to_pair(Vec low, Vec high) {
    const Words d;
    const WordVec half = hn::Set(d, 0x8000u);
    const WordVec l = hn::ShiftRight<16>(hn::Add(hn::BitCast(d, low), half));
    return hn::OrAnd(l, hn::Add(hn::BitCast(d, high), half), hn::Set(d, 0xffff0000u));
}

// ---- products

// C[Rows][32] (+)= A[Rows][k] B[k][32]; element (i, k) of A is at a[i * row_stride + k * k_stride].
template <int Rows>
HWY_INLINE void fma_rows(const float * HWY_RESTRICT a, int64_t row_stride, int64_t k_stride,
                         const float * HWY_RESTRICT b, int64_t k, float * HWY_RESTRICT c, bool accumulate) {
    const Floats d;
    Vec s0[Rows], s1[Rows];
    HWY_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        s0[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes) : hn::Zero(d);
        s1[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes + lanes) : hn::Zero(d);
    }
    for (int64_t j = 0; j < k; ++j) {
        const Vec b0 = hn::LoadU(d, b + j * panel_lanes), b1 = hn::LoadU(d, b + j * panel_lanes + lanes);
        HWY_UNROLL(Rows)
        for (int i = 0; i < Rows; ++i) {
            const Vec x = hn::Set(d, a[i * row_stride + j * k_stride]);
            s0[i] = hn::MulAdd(x, b0, s0[i]);
            s1[i] = hn::MulAdd(x, b1, s1[i]);
        }
    }
    HWY_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        hn::StoreU(s0[i], d, c + i * panel_lanes);
        hn::StoreU(s1[i], d, c + i * panel_lanes + lanes);
    }
}

// Calls f(row, count) with constant counts that add up to n.
template <typename F> HWY_INLINE void for_row_groups(int64_t n, const F & f) {
    int64_t i = 0;
    for (; i + kernel_rows <= n; i += kernel_rows) f(i, std::integral_constant<int, kernel_rows>());
    if constexpr (kernel_rows > 8) {
        if (i + 8 <= n) f(i, std::integral_constant<int, 8>()), i += 8;
    }
    if (i + 4 <= n) f(i, std::integral_constant<int, 4>()), i += 4;
    if (i + 2 <= n) f(i, std::integral_constant<int, 2>()), i += 2;
    if (i < n) f(i, std::integral_constant<int, 1>());
}

void fma_multiply(const float * a, int64_t row_stride, int64_t k_stride, const float * b, int64_t k, float * c,
                  int64_t rows, bool accumulate) {
    for (int64_t column = 0; column < panel_lanes; column += 2 * lanes) {
        for_row_groups(rows, [&](int64_t i, auto count) {
            fma_rows<count.value>(a + i * row_stride, row_stride, k_stride, b + column, k, c + i * panel_lanes + column,
                                  accumulate);
        });
    }
}

#if HWY_NATIVE_DOT_BF16
// As fma_rows with pairs of bf16. A's row i is at a + i * row_stride, its 32 elements of step s at + s * step.
template <int Rows>
HWY_INLINE void dot_rows(const uint16_t * HWY_RESTRICT a, int64_t row_stride, int64_t step,
                         const uint32_t * HWY_RESTRICT b, int64_t steps, float * HWY_RESTRICT c, bool accumulate) {
    const Floats d;
    const Words du;
    const hn::Repartition<hwy::bfloat16_t, Floats> db;
    Vec s0[Rows], s1[Rows];
    HWY_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        s0[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes) : hn::Zero(d);
        s1[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes + lanes) : hn::Zero(d);
    }
    Vec unused = hn::Zero(d);  // the native instruction adds each pair to its own lane
    for (int64_t s = 0; s < steps; ++s, a += step) {
        for (int64_t pair = 0; pair < 16; ++pair, b += panel_lanes) {
            const auto b0 = hn::BitCast(db, hn::LoadU(du, b)), b1 = hn::BitCast(db, hn::LoadU(du, b + lanes));
            HWY_UNROLL(Rows)
            for (int i = 0; i < Rows; ++i) {
                uint32_t word;
                std::memcpy(&word, a + i * row_stride + 2 * pair, sizeof(word));
                const auto x = hn::BitCast(db, hn::Set(du, word));
                s0[i] = hn::ReorderWidenMulAccumulate(d, x, b0, s0[i], unused);
                s1[i] = hn::ReorderWidenMulAccumulate(d, x, b1, s1[i], unused);
            }
        }
    }
    HWY_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        hn::StoreU(s0[i], d, c + i * panel_lanes);
        hn::StoreU(s1[i], d, c + i * panel_lanes + lanes);
    }
}

void dot_multiply(const uint16_t * a, int64_t row_stride, int64_t step, const uint32_t * b, float * c, int64_t rows,
                  int64_t steps, bool accumulate) {
    for (int64_t column = 0; column < panel_lanes; column += 2 * lanes) {
        for_row_groups(rows, [&](int64_t i, auto count) {
            dot_rows<count.value>(a + i * row_stride, row_stride, step, b + column, steps, c + i * panel_lanes + column,
                                  accumulate);
        });
    }
}
#endif

// ---- the two ways to multiply, with the layouts they need
//
// keys       K and V by key:        A operand of S^T = K Q^T and dP^T = V dO^T
// keys_t     K and V by dimension:  A operand of O^T += V^T P^T and dQ^T += K^T dS^T
// rows_t     Q and dO transposed:   B operand [dimension][32 rows] of S^T and dP^T
// rows       Q and dO:              B operand [dimension / 32][row][32 dimensions] of dK += dS^T Q and dV += P^T dO
// scores     P^T and dS^T as A operand, [panel][key][32 rows]
// scores_b   P^T and dS^T as B operand, [key][32 rows]

// Keys as A operand: element (i, dimension) is number i * stride + dimension.
struct Keys {
    const uint32_t * data;
    int64_t stride;
};

// f32 products. bf16 is widened when it is packed; one layout by key serves as keys and keys_t, scores and scores_b are
// the same.
template <typename T> struct Fma {
    using Element = T;
    static constexpr bool pairs = false;

    AttentionUnits units;
    int64_t head_dim, d;

    // To be called a few hundred cycles after the last product or call.
    void stay_awake() const {}

    static int64_t padded_keys(int64_t n) { return n; }
    // The column of dQ^T that belongs to row i of a panel.
    static int64_t slot(int64_t i) { return i; }

    void pack_keys(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t * out) const {
        for (int64_t i = 0; i < n; ++i) {
            widen_row(m.row_as<T>(first + i) + column, head_dim, reinterpret_cast<float *>(out) + i * d, d);
        }
    }
    Keys keys(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t * memory) const {
        pack_keys(m, first, column, n, memory);
        return {memory, d};
    }
    void pack_keys_t(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t *, uint32_t * out) const {
        pack_keys(m, first, column, n, out);
    }
    // row(i) returns the i-th of n <= 32 rows.
    template <typename Row> void pack_rows_t(const Row & row, int64_t n, uint32_t * staging, uint32_t * out) const {
        for (int64_t i = 0; i < n; ++i) widen_row(row(i), head_dim, reinterpret_cast<float *>(staging) + i * d, d);
        std::memset(staging + n * d, 0, static_cast<size_t>((panel_lanes - n) * d) * 4);
        transpose(staging, d, panel_lanes, d, out, panel_lanes);
    }
    template <typename Row> void pack_rows(const Row & row, int64_t n, uint32_t * staging, uint32_t * out) const {
        for (int64_t i = 0; i < n; ++i) {
            widen_row(row(i), head_dim, reinterpret_cast<float *>(staging), d);
            for (int64_t column = 0; column < d; column += panel_lanes) {
                std::memcpy(out + column * block_rows + i * panel_lanes, staging + column, panel_lanes * 4);
            }
        }
    }

    // S^T = keys rows_t
    void score(const Keys & keys, int64_t n, const uint32_t * rows_t, float * s) const {
        fma_multiply(f(keys.data), keys.stride, 1, f(rows_t), head_dim, s, n, false);
    }
    // out[dimension][32 rows] (+)= keys_t scores_b
    void weigh(const uint32_t * keys_t, const uint32_t * scores_b, int64_t n, float * out, bool accumulate) const {
        fma_multiply(f(keys_t), 1, d, f(scores_b), n, out, head_dim, accumulate);
    }
    // out[dimension / 32][chunk_keys][32 dimensions] += scores rows; n_visible(panel) keys of a panel count, and its
    // scores are panel_words behind those of the panel before.
    template <typename Visible>
    void gather(const uint32_t * scores, int64_t panel_words, const Visible & n_visible, int64_t n_rows,
                const uint32_t * rows, float * out) const {
        for (int64_t column = 0; column < d; column += panel_lanes) {
            for (int64_t first = 0; first < n_rows; first += panel_lanes) {
                fma_multiply(f(scores) + first / panel_lanes * panel_words, panel_lanes, 1,
                             f(rows) + (column * block_rows + first * panel_lanes),
                             std::min(panel_lanes, n_rows - first), out + column * chunk_keys,
                             n_visible(first / panel_lanes), true);
            }
        }
    }

    static const float * f(const uint32_t * words) { return reinterpret_cast<const float *>(words); }
};

#if HWY_NATIVE_DOT_BF16
// bf16 products with f32 sums: AMX tiles or dot products of pairs. What is summed over is padded with zeros to 32.
struct Pairs {
    using Element = Bf16;
    static constexpr bool pairs = true;

    AttentionUnits units;
    int64_t head_dim, d;

    HWY_INLINE void stay_awake() const {
        if (units == AttentionUnits::amx) keep_tiles_awake();
    }

    static int64_t padded_keys(int64_t n) { return round_up(n, 32); }
    // What interleaving two vectors within blocks of 128 bits makes of their order.
    static int64_t slot(int64_t i) {
        const int64_t in_two = i % (2 * lanes);
        return i - in_two + in_two % 8 / 4 * lanes + in_two / 8 * 4 + in_two % 4;
    }

    void pack_keys(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t * out) const {
        auto * to = reinterpret_cast<Bf16 *>(out);
        for (int64_t i = 0; i < n; ++i, to += d) copy_row(m.row_as<Bf16>(first + i) + column, head_dim, to, d);
        std::memset(to, 0, static_cast<size_t>((round_up(n, 16) - n) * d) * 2);
    }
    // Where they lie, if whole tiles can be read there. What belongs to other keys gives scores that nobody looks at.
    Keys keys(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t * memory) const {
        if (head_dim == d && first + round_up(n, 16) <= m.rows)
            return {reinterpret_cast<uint32_t *>(m.row_as<Bf16>(first) + column), m.stride};
        pack_keys(m, first, column, n, memory);
        return {memory, d};
    }
    // [dimension][64 keys]
    void pack_keys_t(Matrix m, int64_t first, int64_t column, int64_t n, uint32_t * staging, uint32_t * out) const {
        const int64_t n_pairs = round_up(n, 32) / 2;
        stay_awake();
        for (int64_t pair = 0; pair < n_pairs; ++pair) {
            const int64_t key = 2 * pair;
            uint32_t * to = staging + pair * d;
            if (key >= n) {
                std::memset(to, 0, static_cast<size_t>(d) * 4);
            } else {
                pair_rows(m.row_as<Bf16>(first + key) + column,
                          key + 1 < n ? m.row_as<Bf16>(first + key + 1) + column : nullptr, head_dim, to, d);
            }
        }
        stay_awake();
        transpose(staging, d, n_pairs, d, out, block_keys / 2);
    }
    template <typename Row> void pack_rows_t(const Row & row, int64_t n, uint32_t * staging, uint32_t * out) const {
        stay_awake();
        if (head_dim == d) {
            const uint32_t * rows[panel_lanes];
            for (int64_t i = 0; i < n; ++i) rows[i] = reinterpret_cast<const uint32_t *>(row(i));
            const Words words;
            const auto load = [&](int64_t i, int64_t c)
                                  HWY_ATTR { return i < n ? hn::LoadU(words, rows[i] + c) : hn::Zero(words); };
            return transpose_loaded(load, panel_lanes, d / 2, out, panel_lanes);
        }
        auto * to = reinterpret_cast<Bf16 *>(staging);
        for (int64_t i = 0; i < n; ++i, to += d) copy_row(row(i), head_dim, to, d);
        std::memset(to, 0, static_cast<size_t>((panel_lanes - n) * d) * 2);
        transpose(staging, d / 2, panel_lanes, d / 2, out, panel_lanes);
    }
    template <typename Row> void pack_rows(const Row & row, int64_t n, uint32_t * staging, uint32_t * out) const {
        stay_awake();
        for (int64_t i = 0; i < panel_lanes; i += 2) {
            if (i < n) {
                pair_rows(row(i), i + 1 < n ? row(i + 1) : nullptr, head_dim, staging, d);
            } else {
                std::memset(staging, 0, static_cast<size_t>(d) * 4);
            }
            for (int64_t column = 0; column < d; column += panel_lanes) {
                std::memcpy(out + column * (block_rows / 2) + i / 2 * panel_lanes, staging + column, panel_lanes * 4);
            }
        }
    }

    void score(const Keys & keys, int64_t n, const uint32_t * rows_t, float * s) const {
        multiply(keys.data, keys.stride, 32, rows_t, s, n, d / 32, false);
    }
    void weigh(const uint32_t * keys_t, const uint32_t * scores_b, int64_t n, float * out, bool accumulate) const {
        multiply(keys_t, block_keys, 32, scores_b, out, head_dim, round_up(n, 32) / 32, accumulate);
    }
    // All panels at once: sums are loaded and stored once. Keys that a panel does not see are zeros in its scores.
    template <typename Visible>
    void gather(const uint32_t * scores, int64_t panel_words, const Visible & n_visible, int64_t n_rows,
                const uint32_t * rows, float * out) const {
        const int64_t n_panels = round_up(n_rows, panel_lanes) / panel_lanes;
        for (int64_t column = 0; column < d; column += panel_lanes) {
            multiply(scores, panel_lanes, 2 * panel_words, rows + column * (block_rows / 2), out + column * chunk_keys,
                     n_visible(n_panels - 1), n_panels, true);
        }
    }

    // Strides in bf16 elements.
    void multiply(const uint32_t * a, int64_t row_stride, int64_t step, const uint32_t * b, float * c, int64_t rows,
                  int64_t steps, bool accumulate) const {
        if (units == AttentionUnits::amx) {
            amx_multiply(a, row_stride * 2, step * 2, b, c, rows, steps, accumulate);
        } else {
            dot_multiply(reinterpret_cast<const uint16_t *>(a), row_stride, step, b, c, rows, steps, accumulate);
        }
    }
};
#endif

// ---- forward

struct PanelStatistics {
    float *max, *sum, *alpha;
    const int32_t * limit;
};

// P^T = 2^(scale S^T log2 e - max) over n keys from n0, with the sum of each row and about its maximum; alpha is what
// sums of earlier keys are to be multiplied with.
template <typename P>
void softmax_panel(const P & products, const float * s, int64_t n, int64_t n0, bool masked, float scale_value,
                   const PanelStatistics & statistics, uint32_t * p) {
    const Floats d;
    const Ints di;
    const Vec scale2 = hn::Set(d, scale_value * log2_e);
    const Vec minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (int64_t lane = 0; lane < panel_lanes; lane += lanes) {
        if (lane > 0) products.stay_awake();
        const float * column = s + lane;
        const auto limit = hn::LoadU(di, statistics.limit + lane);
        const auto visible = [&](int64_t i) {
            return hn::RebindMask(d, hn::Ge(limit, hn::Set(di, static_cast<int32_t>(n0 + i))));
        };
        const auto score = [&](int64_t i) { return hn::LoadU(d, column + i * panel_lanes); };

        Vec highest = minus_infinity;  // score; the scale is positive
        int64_t i = 0;
        if (masked) {
            for (; i < n; ++i) highest = hn::Max(highest, hn::IfThenElse(visible(i), score(i), minus_infinity));
        } else {
            Vec m1 = highest, m2 = highest, m3 = highest;
            for (; i + 4 <= n; i += 4) {
                highest = hn::Max(highest, score(i));
                m1 = hn::Max(m1, score(i + 1));
                m2 = hn::Max(m2, score(i + 2));
                m3 = hn::Max(m3, score(i + 3));
            }
            for (; i < n; ++i) highest = hn::Max(highest, score(i));
            highest = hn::Max(hn::Max(highest, m1), hn::Max(m2, m3));
        }
        // Sums are scaled anew only where the maximum has grown by more than this: until then weights are at most 2^10,
        // and what all of them are relative to does not matter.
        const Vec old_max = hn::LoadU(d, statistics.max + lane), new_max = hn::Mul(highest, scale2);
        const Vec max = hn::IfThenElse(hn::Gt(new_max, hn::Add(old_max, hn::Set(d, 10.0f))), new_max, old_max);

        const auto weight = [&](int64_t key) {
            const Vec e = exp2_clamped(hn::MulSub(score(key), scale2, max));
            return masked ? hn::IfThenElseZero(visible(key), e) : e;
        };
        Vec sum = hn::Zero(d);
        if constexpr (P::pairs) {
            const Words du;
            for (i = 0; i + 2 <= n; i += 2) {
                const Vec e0 = weight(i), e1 = weight(i + 1);
                sum = hn::Add(sum, hn::Add(e0, e1));
                hn::StoreU(to_pair(e0, e1), du, p + i / 2 * panel_lanes + lane);
            }
            if (i < n) {
                const Vec e0 = weight(i);
                sum = hn::Add(sum, e0);
                hn::StoreU(to_pair(e0, hn::Zero(d)), du, p + i / 2 * panel_lanes + lane);
                i += 2;
            }
            for (; i < P::padded_keys(n); i += 2) hn::StoreU(hn::Zero(du), du, p + i / 2 * panel_lanes + lane);
        } else {
            for (i = 0; i < n; ++i) {
                const Vec e = weight(i);
                sum = hn::Add(sum, e);
                hn::StoreU(e, d, reinterpret_cast<float *>(p) + i * panel_lanes + lane);
            }
        }
        const Vec alpha = exp2_clamped(hn::Sub(old_max, max));
        hn::StoreU(max, d, statistics.max + lane);
        hn::StoreU(alpha, d, statistics.alpha + lane);
        hn::StoreU(hn::MulAdd(hn::LoadU(d, statistics.sum + lane), alpha, sum), d, statistics.sum + lane);
    }
}

// x[n][32] *= alpha[32]; nothing to do when the maxima stayed.
void rescale_panel(float * x, int64_t n, const float * alpha) {
    const Floats d;
    for (int64_t lane = 0; lane < panel_lanes; lane += lanes) {
        const Vec factor = hn::LoadU(d, alpha + lane);
        if (hn::AllTrue(d, hn::Eq(factor, hn::Set(d, 1.0f)))) continue;
        for (int64_t i = 0; i < n; ++i) {
            float * at = x + i * panel_lanes + lane;
            hn::StoreU(hn::Mul(hn::LoadU(d, at), factor), d, at);
        }
    }
}

// Where the rows of a block are, without a division for each.
class Block {
public:
    Block(const AttentionOperands & x, const AttentionTask & task, int64_t first, int64_t count) : count_(count) {
        const int64_t g = x.group();
        int64_t query = first / g, head = first % g;
        for (int64_t r = 0; r < count; ++r) {
            token_[r] = static_cast<int32_t>(task.segment.q_begin + query);
            head_[r] = static_cast<int32_t>(task.kv_head * g + head);
            limit_[r] = static_cast<int32_t>(query + task.segment.kv_len - task.segment.q_len);
            if (++head == g) head = 0, ++query;
        }
        // Rows that pad a panel see what the last row sees.
        for (int64_t r = count; r < round_up(count, panel_lanes); ++r) limit_[r] = limit_[count - 1];
    }

    int64_t count() const { return count_; }
    int64_t n_panels() const { return round_up(count_, panel_lanes) / panel_lanes; }
    int64_t panel_rows(int64_t panel) const { return std::min(panel_lanes, count_ - panel * panel_lanes); }
    // For each row the last key that it sees.
    const int32_t * limits(int64_t panel) const { return limit_ + panel * panel_lanes; }
    int64_t n_keys() const { return limit_[count_ - 1] + 1; }
    // Of n keys from n0, those that any row of the panel sees.
    int64_t n_visible(int64_t panel, int64_t n0, int64_t n) const {
        return std::clamp<int64_t>(limits(panel)[panel_lanes - 1] + 1 - n0, 0, n);
    }
    // False when every row of the panel sees all n keys from n0.
    bool masked(int64_t panel, int64_t n0, int64_t n) const { return n0 + n - 1 > *limits(panel); }

    template <typename T> T * row(const Matrix & m, int64_t r, int64_t head_dim) const {
        return m.row_as<T>(token_[r]) + head_[r] * head_dim;
    }
    float & lse(const Matrix & m, int64_t r) const { return m.row_as<float>(token_[r])[head_[r]]; }

private:
    int64_t count_;
    int32_t token_[block_rows], head_[block_rows], limit_[block_rows];
};

// to[i] = factor * from[i] for n elements.
template <typename T> HWY_INLINE void store_scaled(const float * from, int64_t n, Vec factor, T * to) {
    for_lanes(n, [&](int64_t i, auto part) { part.put(hn::Mul(part.get(from + i), factor), to + i); });
}

template <typename P>
void forward(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    using T = typename P::Element;
    const ForwardScratch w(scratch, products.d);
    const Block block(x, task, task.first, task.count);
    const int64_t d = products.d, head_dim = products.head_dim, column = task.kv_head * head_dim;
    const auto scale = static_cast<float>(x.shape.scale);

    std::fill_n(w.max, block_rows, -std::numeric_limits<float>::infinity());
    std::fill_n(w.sum, block_rows, 0.0f);
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        const int64_t first = panel * panel_lanes;
        products.pack_rows_t([&](int64_t i) { return block.row<T>(x.q, first + i, head_dim); }, block.panel_rows(panel),
                             w.staging, w.q_t + first * d);
    }

    for (int64_t n0 = 0; n0 < block.n_keys(); n0 += block_keys) {
        // The sums of a panel wait for the scores of the next one: tiles cannot read what is still on its way into the
        // cache.
        struct {
            float * o_t;
            int64_t n;
        } waiting{};
        const auto weigh_waiting = [&] {
            if (!waiting.o_t) return;
            if (n0 > 0) rescale_panel(waiting.o_t, head_dim, w.alpha);
            products.weigh(w.values, w.p, waiting.n, waiting.o_t, n0 > 0);
            waiting.o_t = nullptr;
        };
        const int64_t n_block = std::min(block_keys, block.n_keys() - n0), first_key = task.segment.kv_begin + n0;
        const Keys keys = products.keys(x.k, first_key, column, n_block, w.keys);
        products.pack_keys_t(x.v, first_key, column, n_block, w.staging, w.values);
        for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
            const int64_t first = panel * panel_lanes, n = block.n_visible(panel, n0, n_block);
            if (n == 0) continue;
            products.score(keys, n, w.q_t + first * d, w.s);
            weigh_waiting();
            softmax_panel(products, w.s, n, n0, block.masked(panel, n0, n), scale,
                          {w.max + first, w.sum + first, w.alpha, block.limits(panel)}, w.p);
            waiting = {w.o_t + first * d, n};
        }
        weigh_waiting();
    }

    const auto * rows = reinterpret_cast<const float *>(w.staging);
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        products.stay_awake();
        const int64_t first = panel * panel_lanes;
        transpose(reinterpret_cast<const uint32_t *>(w.o_t + first * d), panel_lanes, d, panel_lanes, w.staging, d);
        for (int64_t i = 0; i < block.panel_rows(panel); ++i) {
            const int64_t r = first + i;
            store_scaled(rows + i * d, head_dim, hn::Set(Floats(), 1 / w.sum[r]), block.row<T>(x.o, r, head_dim));
        }
    }
    if (!x.lse) return;
    const Floats floats;
    for (int64_t r = 0; r < block.n_panels() * panel_lanes; r += lanes) {
        const Vec sum = hn::LoadU(floats, w.sum + r),
                  max = hn::Mul(hn::LoadU(floats, w.max + r), hn::Set(floats, ln_2));
        // Log makes a number of NaN.
        const Vec log = hn::IfThenElse(hn::IsNaN(sum), sum, hn::Log(floats, sum));
        hn::StoreU(hn::Add(max, log), floats, w.max + r);
    }
    for (int64_t r = 0; r < block.count(); ++r) block.lse(x.lse, r) = w.max[r];
}

// ---- backward (Dao 2023, algorithm 2, with rows as lanes)

template <typename T> HWY_INLINE float dot(const T * a, const T * b, int64_t n) {
    Vec sum = hn::Zero(Floats());
    for_lanes(n, [&](int64_t i, auto part) { sum = hn::MulAdd(part.get(a + i), part.get(b + i), sum); });
    return hn::ReduceSum(Floats(), sum);
}

// Packs Q and dO of a block's rows with their statistics; by_row: also as operands of dK and dV.
template <typename P>
void pack_block(const P & products, const AttentionOperands & x, const Block & block, bool by_row,
                const BackwardScratch & w) {
    using T = typename P::Element;
    const int64_t d = products.d, head_dim = products.head_dim;
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        const int64_t first = panel * panel_lanes, n = block.panel_rows(panel);
        const auto q = [&](int64_t i) { return block.row<T>(x.q, first + i, head_dim); };
        const auto d_o = [&](int64_t i) { return block.row<T>(x.d_o, first + i, head_dim); };
        products.pack_rows_t(q, n, w.staging, w.q_t + first * d);
        products.pack_rows_t(d_o, n, w.staging, w.do_t + first * d);
        if (by_row) {
            const int64_t at = P::pairs ? first / 2 * panel_lanes : first * panel_lanes;
            products.pack_rows(q, n, w.staging, w.q_rows + at);
            products.pack_rows(d_o, n, w.staging, w.do_rows + at);
        }
        products.stay_awake();
        for (int64_t i = 0; i < panel_lanes; ++i) {
            const int64_t r = first + i;
            const bool pads = i >= n;  // then p is 1, but q and dO are zero
            w.lse[r] = pads ? 0 : block.lse(x.lse, r);
            w.delta[r] = pads ? 0 : dot<T>(d_o(i), block.row<T>(x.o, r, head_dim), head_dim);
        }
    }
}

// P^T = e^(scale S^T - lse) and dS^T = P^T (dP^T - delta) for n keys from n0 of one panel. p_a, ds_a: as A operands,
// zero up to n_fill keys; ds_b: dS^T as B operand, its columns in the order of P::slot; null: not wanted.
template <typename P>
void softmax_backward_panel(const P & products, const float * s, const float * dp, int64_t n, int64_t n_fill,
                            int64_t n0, bool masked, float scale_value, const float * lse, const float * delta,
                            const int32_t * limits, uint32_t * p_a, uint32_t * ds_a, uint32_t * ds_b) {
    constexpr int64_t vectors = panel_lanes / lanes;
    const Floats d;
    const Ints di;
    const Vec scale2 = hn::Set(d, scale_value * log2_e);
    Vec row_lse2[vectors], row_delta[vectors];
    for (int64_t v = 0; v < vectors; ++v) {
        row_lse2[v] = hn::Mul(hn::LoadU(d, lse + v * lanes), hn::Set(d, log2_e));
        row_delta[v] = hn::LoadU(d, delta + v * lanes);
    }
    // Of key i and one vector of rows.
    const auto weight = [&](int64_t i, int64_t v) HWY_ATTR {
        const Vec e = exp2_clamped(hn::MulSub(hn::LoadU(d, s + i * panel_lanes + v * lanes), scale2, row_lse2[v]));
        if (!masked) return e;
        const auto limit = hn::LoadU(di, limits + v * lanes);
        return hn::IfThenElseZero(hn::RebindMask(d, hn::Ge(limit, hn::Set(di, static_cast<int32_t>(n0 + i)))), e);
    };
    const auto gradient = [&](Vec e, int64_t i, int64_t v) HWY_ATTR {
        return hn::Mul(e, hn::Sub(hn::LoadU(d, dp + i * panel_lanes + v * lanes), row_delta[v]));
    };
    if constexpr (P::pairs) {
        const hn::Repartition<hwy::bfloat16_t, Floats> half;
        using Halves = hn::Vec<decltype(half)>;
        // dS^T of key i, a vector for two of the rows; stores what is wanted as A operand.
        const auto key = [&](int64_t i, Halves * gradients) HWY_ATTR {
            for (int64_t v = 0; v < vectors; v += 2) {
                const Vec e0 = weight(i, v), e1 = weight(i, v + 1);
                gradients[v / 2] = hn::OrderedDemote2To(half, gradient(e0, i, v), gradient(e1, i, v + 1));
                if (!p_a) continue;
                const int64_t at = i * panel_lanes + v * lanes;
                hn::StoreU(hn::OrderedDemote2To(half, e0, e1), half, reinterpret_cast<hwy::bfloat16_t *>(p_a) + at);
                hn::StoreU(gradients[v / 2], half, reinterpret_cast<hwy::bfloat16_t *>(ds_a) + at);
            }
        };
        const Words du;
        int64_t i = 0;
        for (; i < n; i += 2) {
            if (i % 20 == 0 && i > 0) products.stay_awake();
            Halves even[vectors / 2], odd[vectors / 2];
            key(i, even);
            if (i + 1 < n) {
                key(i + 1, odd);
            } else {
                for (Halves & zero : odd) zero = hn::Zero(half);
            }
            if (!ds_b) continue;
            for (int64_t v = 0; v < vectors; v += 2) {
                uint32_t * to = ds_b + i / 2 * panel_lanes + v * lanes;
                hn::StoreU(hn::BitCast(du, hn::InterleaveLower(half, even[v / 2], odd[v / 2])), du, to);
                hn::StoreU(hn::BitCast(du, hn::InterleaveUpper(half, even[v / 2], odd[v / 2])), du, to + lanes);
            }
        }
        if (ds_b && i < P::padded_keys(n)) {
            std::memset(ds_b + i / 2 * panel_lanes, 0,
                        static_cast<size_t>((P::padded_keys(n) - i) / 2 * panel_lanes) * 4);
        }
        if (p_a && n < n_fill) {
            const auto bytes = static_cast<size_t>((n_fill - n) * panel_lanes) * 2;
            std::memset(reinterpret_cast<Bf16 *>(p_a) + n * panel_lanes, 0, bytes);
            std::memset(reinterpret_cast<Bf16 *>(ds_a) + n * panel_lanes, 0, bytes);
        }
    } else {
        for (int64_t i = 0; i < n; ++i) {
            for (int64_t v = 0; v < vectors; ++v) {
                const int64_t at = i * panel_lanes + v * lanes;
                const Vec e = weight(i, v);
                hn::StoreU(e, d, reinterpret_cast<float *>(p_a) + at);
                hn::StoreU(gradient(e, i, v), d, reinterpret_cast<float *>(ds_a) + at);
            }
        }
    }
}

// One block of rows, packed in w, against `count` keys from n0. dk and dv (+=) when given; dq_t (= from the first key,
// then +=) when given.
template <typename P>
void backward_block(const P & products, const AttentionOperands & x, const Block & block, const BackwardScratch & w,
                    int64_t n0, int64_t count, bool with_keys, float * dq_t) {
    const int64_t d = products.d, n_panels = block.n_panels(), n_any = block.n_visible(n_panels - 1, n0, count);
    constexpr int64_t panel_words = P::pairs ? block_keys * panel_lanes / 2 : block_keys * panel_lanes;  // of scores
    const bool as_a = with_keys || !P::pairs;
    const auto scores = [&](uint32_t * of, int64_t key, int64_t panel) {
        return as_a ? of + (key / block_keys * n_panels + panel) * panel_words : nullptr;
    };
    const auto keys_t = [&](int64_t key) { return P::pairs ? w.keys_t + key * (d / 2) : w.keys + key * d; };

    // A panel meets all keys before the next one does: its operands and its dQ stay in the first-level cache. dQ waits
    // for the scores of the next keys, see forward().
    for (int64_t panel = 0; panel < n_panels; ++panel) {
        const int64_t first = panel * panel_lanes;
        int64_t waiting = -1, n_waiting = 0;
        const auto weigh_waiting = [&] {
            if (waiting < 0) return;
            const uint32_t * of = P::pairs ? w.ds_b : scores(w.ds, waiting, panel);
            products.weigh(keys_t(waiting), of, n_waiting, dq_t + first * d, n0 + waiting > 0);
            waiting = -1;
        };
        for (int64_t key = 0; key < n_any; key += block_keys) {
            const int64_t n_block = std::min(block_keys, n_any - key), n = block.n_visible(panel, n0 + key, n_block);
            if (n > 0) {
                products.score({w.keys + key * d, d}, n, w.q_t + first * d, w.s);
                products.score({w.values + key * d, d}, n, w.do_t + first * d, w.dp);
            }
            weigh_waiting();
            // Tiles read whole rows of 16 keys.
            softmax_backward_panel(products, w.s, w.dp, n, round_up(n_block, 16), n0 + key,
                                   block.masked(panel, n0 + key, n), static_cast<float>(x.shape.scale), w.lse + first,
                                   w.delta + first, block.limits(panel), scores(w.p, key, panel),
                                   scores(w.ds, key, panel), dq_t ? w.ds_b : nullptr);
            if (dq_t && n > 0) waiting = key, n_waiting = n;
        }
        weigh_waiting();
    }
    if (!with_keys) return;
    for (int64_t key = 0; key < n_any; key += block_keys) {
        const auto visible = [&](int64_t panel) {
            return block.n_visible(panel, n0 + key, std::min(block_keys, n_any - key));
        };
        products.gather(scores(w.p, key, 0), panel_words, visible, block.count(), w.do_rows, w.dv + key * panel_lanes);
        products.gather(scores(w.ds, key, 0), panel_words, visible, block.count(), w.q_rows, w.dk + key * panel_lanes);
    }
}

template <typename P>
void store_dq(const P & products, const AttentionOperands & x, const Block & block, const BackwardScratch & w) {
    using T = typename P::Element;
    const int64_t d = products.d;
    const Vec scale = hn::Set(Floats(), static_cast<float>(x.shape.scale));
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        products.stay_awake();
        const int64_t first = panel * panel_lanes;
        transpose(reinterpret_cast<const uint32_t *>(w.dq_t + first * d), panel_lanes, d, panel_lanes, w.staging, d);
        for (int64_t i = 0; i < block.panel_rows(panel); ++i) {
            store_scaled(reinterpret_cast<const float *>(w.staging) + P::slot(i) * d, products.head_dim, scale,
                         block.row<T>(x.dq, first + i, products.head_dim));
        }
    }
}

template <typename P>
void store_key_gradient(const P & products, const AttentionTask & task, const float * sums, double scale, Matrix out) {
    using T = typename P::Element;
    for (int64_t i = 0; i < task.count; ++i) {
        T * to = out.row_as<T>(task.segment.kv_begin + task.first + i) + task.kv_head * products.head_dim;
        for (int64_t column = 0; column < products.head_dim; column += panel_lanes) {
            store_scaled(sums + column * chunk_keys + i * panel_lanes,
                         std::min(panel_lanes, products.head_dim - column),
                         hn::Set(Floats(), static_cast<float>(scale)), to + column);
        }
    }
}

// Packs the keys and values from `first` on, in blocks.
template <typename P>
void pack_chunk(const P & products, const AttentionOperands & x, const AttentionTask & task, int64_t first,
                int64_t count, bool with_dq, const BackwardScratch & w) {
    const int64_t d = products.d, column = task.kv_head * products.head_dim;
    for (int64_t key = 0; key < count; key += block_keys) {
        const int64_t n = std::min(block_keys, count - key), at = task.segment.kv_begin + first + key;
        products.pack_keys(x.k, at, column, n, w.keys + key * d);
        products.pack_keys(x.v, at, column, n, w.values + key * d);
        if (P::pairs && with_dq) products.pack_keys_t(x.k, at, column, n, w.staging, w.keys_t + key * (d / 2));
    }
}

// dK and dV of one chunk of keys; when the chunk is the whole segment also dQ, from the same scores.
template <typename P>
void backward_keys(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    const BackwardScratch w(scratch, products.d);
    const bool with_dq = task.count == task.segment.kv_len;
    pack_chunk(products, x, task, task.first, task.count, with_dq, w);
    for (int64_t at = 0; at < products.d; at += panel_lanes) {
        std::fill_n(w.dk + at * chunk_keys, task.count * panel_lanes, 0.0f);
        std::fill_n(w.dv + at * chunk_keys, task.count * panel_lanes, 0.0f);
    }

    // The first query that sees the chunk's first key.
    const int64_t first_query = std::max<int64_t>(0, task.first - (task.segment.kv_len - task.segment.q_len));
    const int64_t n_rows = task.segment.q_len * x.group();
    for (int64_t row = first_query * x.group(); row < n_rows; row += block_rows) {
        const Block block(x, task, row, std::min(block_rows, n_rows - row));
        pack_block(products, x, block, true, w);
        backward_block(products, x, block, w, task.first, task.count, true, with_dq ? w.dq_t : nullptr);
        if (with_dq) store_dq(products, x, block, w);
    }
    store_key_gradient(products, task, w.dk, x.shape.scale, x.dk);
    store_key_gradient(products, task, w.dv, 1, x.dv);
}

// dQ of one block of rows of a segment that is longer than a chunk.
template <typename P>
void backward_queries(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    const BackwardScratch w(scratch, products.d);
    const Block block(x, task, task.first, task.count);
    pack_block(products, x, block, false, w);
    for (int64_t n0 = 0; n0 < block.n_keys(); n0 += chunk_keys) {
        const int64_t count = std::min(chunk_keys, block.n_keys() - n0);
        pack_chunk(products, x, task, n0, count, true, w);
        backward_block(products, x, block, w, n0, count, false, w.dq_t);
    }
    store_dq(products, x, block, w);
}

// ---- decoding: few rows over many keys, bound by reading K and V once

constexpr int64_t rows_at_once = 4, keys_at_once = 4;
// Vectors of a row of V whose sums for four rows stay in registers.
constexpr int64_t vectors_at_once = kernel_rows > 6 ? 4 : 2;

// The sum of the blocks of four lanes.
template <typename V, typename D = hn::DFromV<V>> HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sum_of_blocks(V v) {
    if constexpr (HWY_MAX_LANES_D(D) == 4) {
        return v;
    } else {
        const hn::Half<D> half;
        return sum_of_blocks(hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
    }
}

// The sums of four vectors.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sums_of(Vec a, Vec b, Vec c, Vec e) {
    const Floats d;
    const hn::RepartitionToWide<Floats> d2;
    const auto add_pairs = [&](Vec x, Vec y) HWY_ATTR {
        return hn::BitCast(d2, hn::Add(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y)));
    };
    const auto ab = add_pairs(a, b), ce = add_pairs(c, e);
    return sum_of_blocks(
        hn::Add(hn::BitCast(d, hn::InterleaveLower(d2, ab, ce)), hn::BitCast(d, hn::InterleaveUpper(d2, ab, ce))));
}

// The lines of a row of K or V that will be read soon: heads are strided, and the cache of each layer was last read a
// token ago.
template <typename T> HWY_INLINE void prefetch_row(const T * row, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(T))) hwy::Prefetch(row + i);
}

// scores[row][key] for four keys of K from `key` on and four rows of q from `first` on; what is past the last repeats
// it.
template <typename T>
HWY_INLINE void score_four(const T * k, int64_t stride, int64_t key, int64_t n_keys, const float * q, int64_t padded,
                           int64_t first, int64_t n_rows, int64_t head_dim, float scale, float * scores) {
    const T * keys[keys_at_once];
    for (int64_t i = 0; i < keys_at_once; ++i) keys[i] = k + std::min(key + i, n_keys - 1) * stride;
    const float * rows[rows_at_once];
    for (int64_t r = 0; r < rows_at_once; ++r) rows[r] = q + std::min(first + r, n_rows - 1) * padded;
    Vec sums[rows_at_once][keys_at_once];
    for (auto & of_row : sums) {
        for (Vec & sum : of_row) sum = hn::Zero(Floats());
    }
    for_lanes(head_dim, [&](int64_t at, auto part) HWY_ATTR {
        Vec values[keys_at_once];
        for (int64_t i = 0; i < keys_at_once; ++i) values[i] = part.get(keys[i] + at);
        for (int64_t r = 0; r < rows_at_once; ++r) {
            const Vec of_q = load(rows[r] + at);  // zeros behind head_dim
            for (int64_t i = 0; i < keys_at_once; ++i) sums[r][i] = hn::MulAdd(values[i], of_q, sums[r][i]);
        }
    });
    const hn::FixedTag<float, 4> d4;
    for (int64_t r = 0; r < std::min(rows_at_once, n_rows - first); ++r) {
        const auto products = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        hn::StoreU(hn::Mul(products, hn::Set(d4, scale)), d4, scores + (first + r) * decode_keys + key);
    }
}

// o[row] = sum over keys of scores[row][key] V[key] for up to four rows: n_all keys for all of them, then n[row] in
// all.
template <typename T>
void weigh_four(const T * v, int64_t stride, const float * scores, int64_t n_rows, const int64_t * n, int64_t head_dim,
                float * o, int64_t o_stride) {
    const int64_t n_all = *std::min_element(n, n + n_rows), n_any = *std::max_element(n, n + n_rows);
    const float * of[rows_at_once];
    for (int64_t r = 0; r < rows_at_once; ++r) of[r] = scores + std::min(r, n_rows - 1) * decode_keys;
    const auto weigh = [&](auto vectors, int64_t at, auto part) HWY_ATTR {
        constexpr int64_t count = vectors.value;
        Vec sums[rows_at_once][count];
        for (auto & of_row : sums) {
            for (Vec & sum : of_row) sum = hn::Zero(Floats());
        }
        for (int64_t i = 0; i < n_any; ++i) {
            Vec values[count];
            for (int64_t j = 0; j < count; ++j) values[j] = part.get(v + i * stride + at + j * lanes);
            for (int64_t r = 0; r < rows_at_once; ++r) {
                if (i >= n_all && (r >= n_rows || i >= n[r])) continue;  // not times zero: V may not be finite
                const Vec e = hn::Set(Floats(), of[r][i]);
                for (int64_t j = 0; j < count; ++j) sums[r][j] = hn::MulAdd(e, values[j], sums[r][j]);
            }
        }
        for (int64_t r = 0; r < n_rows; ++r) {
            for (int64_t j = 0; j < count; ++j) part.put(sums[r][j], o + r * o_stride + at + j * lanes);
        }
    };
    int64_t at = 0;
    for (; at + vectors_at_once * lanes <= head_dim; at += vectors_at_once * lanes) {
        weigh(std::integral_constant<int64_t, vectors_at_once>(), at, Whole{});
    }
    for_lanes(head_dim - at,
              [&](int64_t rest, auto part) HWY_ATTR { weigh(std::integral_constant<int64_t, 1>(), at + rest, part); });
}

template <typename T>
void decode_typed(const AttentionOperands & x, const AttentionTask & task, void * scratch, float * parts) {
    const Floats d;
    const int64_t head_dim = x.shape.head_dim, padded = round_up(head_dim, panel_lanes);
    const DecodeScratch w(scratch, padded);
    const int64_t n_rows = task.segment.q_len * x.group(), column = task.kv_head * head_dim;
    const int64_t first_key = task.segment.kv_begin + task.first;
    const T * k = x.k.row_as<T>(first_key) + column;
    const T * v = x.v.row_as<T>(first_key) + column;

    const Block block(x, task, 0, n_rows);
    for (int64_t r = 0; r < n_rows; ++r) widen_row(block.row<T>(x.q, r, head_dim), head_dim, w.q + r * padded, padded);
    constexpr int64_t ahead = 12;  // keys
    for (int64_t key = 0; key < std::min(ahead, task.count); ++key) prefetch_row(k + key * x.k.stride, head_dim);
    for (int64_t key = 0; key < task.count; key += keys_at_once) {
        for (int64_t i = key; i < std::min(key + keys_at_once, task.count); ++i) {
            if (i + ahead < task.count) prefetch_row(k + (i + ahead) * x.k.stride, head_dim);
            prefetch_row(v + i * x.v.stride, head_dim);
        }
        for (int64_t r = 0; r < n_rows; r += rows_at_once) {
            score_four(k, x.k.stride, key, task.count, w.q, padded, r, n_rows, head_dim,
                       static_cast<float>(x.shape.scale), w.scores);
        }
    }

    int64_t n[decode_max_rows];
    for (int64_t r = 0; r < n_rows; ++r) {
        float * scores = w.scores + r * decode_keys;
        n[r] = std::clamp<int64_t>(block.limits(0)[r] + 1 - task.first, 0, task.count);
        Vec max = hn::Set(d, -std::numeric_limits<float>::infinity());
        const int64_t in_vectors = n[r] / lanes * lanes;
        for (int64_t i = 0; i < in_vectors; i += lanes) max = hn::Max(max, load(scores + i));
        for (int64_t i = in_vectors; i < n[r]; ++i) max = hn::Max(max, hn::Set(d, scores[i]));
        max = hn::MaxOfLanes(d, max);
        Vec total = hn::Zero(d);
        for_lanes(n[r], [&](int64_t i, auto lane) {
            const Vec e = exp_clamped(hn::Sub(lane.get(scores + i), max));
            lane.put(e, scores + i);
            total = hn::Add(total, lane.get(scores + i));
        });
        float * part = parts + r * decode_part_floats(head_dim);
        part[0] = hn::GetLane(max);
        part[1] = hn::ReduceSum(d, total);
    }
    for (int64_t r = 0; r < n_rows; r += rows_at_once) {
        weigh_four(v, x.v.stride, w.scores + r * decode_keys, std::min(rows_at_once, n_rows - r), n + r, head_dim,
                   parts + r * decode_part_floats(head_dim) + 2, decode_part_floats(head_dim));
    }
}

// Adds the parts of all rows of a (segment, kv head) in the order of their keys. parts: [part][row]; their maxima are
// overwritten.
template <typename T>
void merge_typed(const AttentionOperands & x, const AttentionTask & task, float * parts, int64_t n_parts,
                 int64_t part_stride) {
    const int64_t head_dim = x.shape.head_dim;
    const Block block(x, task, 0, task.segment.q_len * x.group());
    for (int64_t r = 0; r < block.count(); ++r) {
        float * row = parts + r * decode_part_floats(head_dim);
        float max = row[0], sum = 0;
        for (int64_t i = 1; i < n_parts; ++i) max = std::max(max, row[i * part_stride]);
        for (int64_t i = 0; i < n_parts; ++i) {
            float * part = row + i * part_stride;
            part[0] = std::exp(part[0] - max);
            sum += part[1] * part[0];
        }
        T * o = block.row<T>(x.o, r, head_dim);
        const Vec normalized = hn::Set(Floats(), 1 / sum);
        for_lanes(head_dim, [&](int64_t at, auto lane) {
            Vec total = hn::Zero(Floats());
            for (int64_t i = 0; i < n_parts; ++i) {
                const float * part = row + i * part_stride;
                total = hn::MulAdd(hn::Set(Floats(), part[0]), lane.get(part + 2 + at), total);
            }
            lane.put(hn::Mul(total, normalized), o + at);
        });
        if (x.lse) block.lse(x.lse, r) = max + std::log(sum);
    }
}

// ---- entry points

template <typename F> HWY_INLINE void with_products(const AttentionOperands & x, const F & f) {
    const int64_t head_dim = x.shape.head_dim, d = round_up(head_dim, panel_lanes);
    if (x.q.type == Dtype::f32) return f(Fma<float>{x.units, head_dim, d});
#if HWY_NATIVE_DOT_BF16
    if (x.units != AttentionUnits::fma) return f(Pairs{x.units, head_dim, d});
#endif
    f(Fma<Bf16>{x.units, head_dim, d});
}

bool multiplies_pairs() { return HWY_NATIVE_DOT_BF16; }

void forward_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { forward(products, x, task, scratch); });
}

void backward_keys_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { backward_keys(products, x, task, scratch); });
}

void backward_queries_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { backward_queries(products, x, task, scratch); });
}

void decode_task(const AttentionOperands & x, const AttentionTask & task, void * scratch, float * parts) {
    with_type(x.q.type, [&]<typename T>(T *) { decode_typed<T>(x, task, scratch, parts); });
}

void decode_merge_task(const AttentionOperands & x, const AttentionTask & task, float * parts, int64_t n_parts,
                       int64_t part_stride) {
    with_type(x.q.type, [&]<typename T>(T *) { merge_typed<T>(x, task, parts, n_parts, part_stride); });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(multiplies_pairs);
HWY_EXPORT(forward_task);
HWY_EXPORT(backward_keys_task);
HWY_EXPORT(backward_queries_task);
HWY_EXPORT(decode_task);
HWY_EXPORT(decode_merge_task);

AttentionKernels attention_kernels() {
    return {HWY_DYNAMIC_DISPATCH(multiplies_pairs)(), HWY_DYNAMIC_POINTER(forward_task),
            HWY_DYNAMIC_POINTER(backward_keys_task),  HWY_DYNAMIC_POINTER(backward_queries_task),
            HWY_DYNAMIC_POINTER(decode_task),         HWY_DYNAMIC_POINTER(decode_merge_task)};
}

}  // namespace lorica::cpu
#endif
