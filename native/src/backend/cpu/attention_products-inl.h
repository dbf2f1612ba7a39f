// How attention packs its operands and multiplies them, for every instruction set; attention_kernels.h describes the
// layout. Included once per target.
#if defined(LORICA_CPU_ATTENTION_PRODUCTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_CPU_ATTENTION_PRODUCTS_INL_H
#undef LORICA_CPU_ATTENTION_PRODUCTS_INL_H
#else
#define LORICA_CPU_ATTENTION_PRODUCTS_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/dot_bf16-inl.h"
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

inline void transpose(const uint32_t * in, int64_t in_stride, int64_t rows, int64_t cols, uint32_t * out,
                      int64_t out_stride) {
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

// The pragma takes no parameter of a template before g++ 14; loops that are shorter are unrolled whole.
#undef LORICA_UNROLL
#if HWY_COMPILER_GCC_ACTUAL && HWY_COMPILER_GCC_ACTUAL < 1400
#define LORICA_UNROLL(n) HWY_UNROLL(16)
#else
#define LORICA_UNROLL(n) HWY_UNROLL(n)
#endif

// C[Rows][32] (+)= A[Rows][k] B[k][32]; element (i, k) of A is at a[i * row_stride + k * k_stride].
template <int Rows>
HWY_INLINE void fma_rows(const float * HWY_RESTRICT a, int64_t row_stride, int64_t k_stride,
                         const float * HWY_RESTRICT b, int64_t k, float * HWY_RESTRICT c, bool accumulate) {
    const Floats d;
    Vec s0[Rows], s1[Rows];
    LORICA_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        s0[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes) : hn::Zero(d);
        s1[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes + lanes) : hn::Zero(d);
    }
    for (int64_t j = 0; j < k; ++j) {
        const Vec b0 = hn::LoadU(d, b + j * panel_lanes), b1 = hn::LoadU(d, b + j * panel_lanes + lanes);
        LORICA_UNROLL(Rows)
        for (int i = 0; i < Rows; ++i) {
            const Vec x = hn::Set(d, a[i * row_stride + j * k_stride]);
            s0[i] = hn::MulAdd(x, b0, s0[i]);
            s1[i] = hn::MulAdd(x, b1, s1[i]);
        }
    }
    LORICA_UNROLL(Rows)
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

inline void fma_multiply(const float * a, int64_t row_stride, int64_t k_stride, const float * b, int64_t k, float * c,
                         int64_t rows, bool accumulate) {
    for (int64_t column = 0; column < panel_lanes; column += 2 * lanes) {
        for_row_groups(rows, [&](int64_t i, auto count) {
            fma_rows<count.value>(a + i * row_stride, row_stride, k_stride, b + column, k, c + i * panel_lanes + column,
                                  accumulate);
        });
    }
}

#if LORICA_DOT_BF16
// As fma_rows with pairs of bf16. A's row i is at a + i * row_stride, its 32 elements of step s at + s * step.
template <int Rows>
HWY_INLINE void dot_rows(const uint16_t * HWY_RESTRICT a, int64_t row_stride, int64_t step,
                         const uint32_t * HWY_RESTRICT b, int64_t steps, float * HWY_RESTRICT c, bool accumulate) {
    const Floats d;
    const Words du;
    const hn::Repartition<hwy::bfloat16_t, Floats> db;
    Vec s0[Rows], s1[Rows];
    LORICA_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        s0[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes) : hn::Zero(d);
        s1[i] = accumulate ? hn::LoadU(d, c + i * panel_lanes + lanes) : hn::Zero(d);
    }
    Vec unused = hn::Zero(d);  // the native instruction adds each pair to its own lane
    for (int64_t s = 0; s < steps; ++s, a += step) {
        for (int64_t pair = 0; pair < 16; ++pair, b += panel_lanes) {
            const auto b0 = hn::BitCast(db, hn::LoadU(du, b)), b1 = hn::BitCast(db, hn::LoadU(du, b + lanes));
            LORICA_UNROLL(Rows)
            for (int i = 0; i < Rows; ++i) {
                uint32_t word;
                std::memcpy(&word, a + i * row_stride + 2 * pair, sizeof(word));
                const auto x = hn::BitCast(db, hn::Set(du, word));
                s0[i] = hn::ReorderWidenMulAccumulate(d, x, b0, s0[i], unused);
                s1[i] = hn::ReorderWidenMulAccumulate(d, x, b1, s1[i], unused);
            }
        }
    }
    LORICA_UNROLL(Rows)
    for (int i = 0; i < Rows; ++i) {
        hn::StoreU(s0[i], d, c + i * panel_lanes);
        hn::StoreU(s1[i], d, c + i * panel_lanes + lanes);
    }
}

inline void dot_multiply(const uint16_t * a, int64_t row_stride, int64_t step, const uint32_t * b, float * c,
                         int64_t rows, int64_t steps, bool accumulate) {
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
    // out[dimension / 32][chunk_keys][32 dimensions] += scores rows; n_until(panel) keys of a panel count, fewer than
    // of the next, and its scores are panel_words behind those of the panel before.
    template <typename Until>
    void gather(const uint32_t * scores, int64_t panel_words, const Until & n_until, int64_t n_rows,
                const uint32_t * rows, float * out) const {
        for (int64_t column = 0; column < d; column += panel_lanes) {
            for (int64_t first = 0; first < n_rows; first += panel_lanes) {
                fma_multiply(f(scores) + first / panel_lanes * panel_words, panel_lanes, 1,
                             f(rows) + (column * block_rows + first * panel_lanes),
                             std::min(panel_lanes, n_rows - first), out + column * chunk_keys,
                             n_until(first / panel_lanes), true);
            }
        }
    }

    static const float * f(const uint32_t * words) { return reinterpret_cast<const float *>(words); }
};

#if LORICA_DOT_BF16
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
        std::memset(static_cast<void *>(to), 0, static_cast<size_t>((round_up(n, 16) - n) * d) * 2);
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
        std::memset(static_cast<void *>(to), 0, static_cast<size_t>((panel_lanes - n) * d) * 2);
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
    template <typename Until>
    void gather(const uint32_t * scores, int64_t panel_words, const Until & n_until, int64_t n_rows,
                const uint32_t * rows, float * out) const {
        const int64_t n_panels = round_up(n_rows, panel_lanes) / panel_lanes;
        for (int64_t column = 0; column < d; column += panel_lanes) {
            multiply(scores, panel_lanes, 2 * panel_words, rows + column * (block_rows / 2), out + column * chunk_keys,
                     n_until(n_panels - 1), n_panels, true);
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

template <typename F> HWY_INLINE void with_products(const AttentionOperands & x, const F & f) {
    const int64_t head_dim = x.shape.head_dim, d = round_up(head_dim, panel_lanes);
    if (x.q.type == Dtype::f32) return f(Fma<float>{x.units, head_dim, d});
#if LORICA_DOT_BF16
    if (x.units != AttentionUnits::fma) return f(Pairs{x.units, head_dim, d});
#endif
    f(Fma<Bf16>{x.units, head_dim, d});
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
