// Vector helpers that the kernels share: elements of f32 or bf16 seen as f32 lanes, exp, a transposition. Included once
// per target.
#if defined(LORICA_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_CPU_SIMD_INL_H
#undef LORICA_CPU_SIMD_INL_H
#else
#define LORICA_CPU_SIMD_INL_H
#endif

#include <hwy/highway.h>

// Vectors of 16 words and their permutations.
#undef LORICA_WIDE_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define LORICA_WIDE_WORDS 1
#include <immintrin.h>
#else
#define LORICA_WIDE_WORDS 0
#endif

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "common/bf16.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a padding to 16 elements fits every target.
using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
constexpr size_t n_lanes = HWY_MAX_LANES_D(Floats);

HWY_INLINE const hwy::bfloat16_t * as_hwy(const Bf16 * p) { return reinterpret_cast<const hwy::bfloat16_t *>(p); }
HWY_INLINE hwy::bfloat16_t * as_hwy(Bf16 * p) { return reinterpret_cast<hwy::bfloat16_t *>(p); }

HWY_INLINE Vec load(const float * p) { return hn::LoadU(Floats(), p); }
HWY_INLINE Vec load(const Bf16 * p) {
    return hn::PromoteTo(Floats(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, Floats>(), as_hwy(p)));
}
HWY_INLINE void store(Vec v, float * p) { hn::StoreU(v, Floats(), p); }
HWY_INLINE void store(Vec v, Bf16 * p) {
    const hn::Rebind<hwy::bfloat16_t, Floats> d;
    hn::StoreU(hn::DemoteTo(d, v), d, as_hwy(p));
}

// Two vectors past the caches, to an address aligned to what they fill: for lines that are written whole and read much
// later, if ever, by this core.
HWY_INLINE void stream(Vec a, Vec b, float * p) {
    hn::Stream(a, Floats(), p);
    hn::Stream(b, Floats(), p + n_lanes);
}
HWY_INLINE void stream(Vec a, Vec b, Bf16 * p) {
    const hn::Repartition<hwy::bfloat16_t, Floats> d;
    const hn::Repartition<uint16_t, Floats> bits;
    hn::Stream(hn::BitCast(bits, hn::OrderedDemote2To(d, a, b)), bits, reinterpret_cast<uint16_t *>(p));
}

// The first n lanes; the others are zero, and not touched in memory.
HWY_INLINE Vec load_n(const float * p, size_t n) { return hn::LoadN(Floats(), p, n); }
HWY_INLINE Vec load_n(const Bf16 * p, size_t n) {
    return hn::PromoteTo(Floats(), hn::LoadN(hn::Rebind<hwy::bfloat16_t, Floats>(), as_hwy(p), n));
}
HWY_INLINE void store_n(Vec v, float * p, size_t n) { hn::StoreN(v, Floats(), p, n); }
HWY_INLINE void store_n(Vec v, Bf16 * p, size_t n) {
    const hn::Rebind<hwy::bfloat16_t, Floats> d;
    hn::StoreN(hn::DemoteTo(d, v), d, as_hwy(p), n);
}

// Calls f(offset, lanes) over n elements, lanes being Whole{} for whole vectors and Part{count} for the rest. f loads
// and stores through it, so that an element's arithmetic does not depend on where it stands.
struct Whole {
    template <typename T> HWY_INLINE Vec get(const T * p) const { return load(p); }
    template <typename T> HWY_INLINE void put(Vec v, T * p) const { store(v, p); }
};
struct Part {
    size_t n;
    template <typename T> HWY_INLINE Vec get(const T * p) const { return load_n(p, n); }
    template <typename T> HWY_INLINE void put(Vec v, T * p) const { store_n(v, p, n); }
};
template <typename F> HWY_INLINE void for_lanes(int64_t n, const F & f) {
    int64_t i = 0;
    for (; i + static_cast<int64_t>(n_lanes) <= n; i += n_lanes) f(i, Whole{});
    if (i < n) f(i, Part{static_cast<size_t>(n - i)});
}

// Calls f with a null pointer of the matrix's element type.
template <typename F> HWY_INLINE void with_type(Dtype type, const F & f) {
    if (type == Dtype::bf16) {
        f(static_cast<Bf16 *>(nullptr));
    } else {
        f(static_cast<float *>(nullptr));
    }
}

// The larger, or the smaller, of a bound and x; NaN stays NaN. x86 returns the second argument when one is NaN, Arm the
// number.
HWY_INLINE Vec at_least(Vec bound, Vec x) {
#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86
    return hn::Max(bound, x);
#else
    return hn::IfThenElse(hn::Lt(x, bound), bound, x);
#endif
}
HWY_INLINE Vec at_most(Vec bound, Vec x) {
#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86
    return hn::Min(bound, x);
#else
    return hn::IfThenElse(hn::Gt(x, bound), bound, x);
#endif
}

// e^x with a relative error below 3e-7, for x clamped to [-86, 88]; NaN stays NaN. x = q ln 2 + r with
// |r| <= ln(2) / 2; the coefficients are a minimax fit of (e^r - 1 - r) / r^2 to the relative error of e^r.
HWY_INLINE Vec exp_clamped(Vec x) {
    const Floats d;
    const hn::RebindToSigned<Floats> di;
    x = at_most(hn::Set(d, 88.0f), at_least(hn::Set(d, -86.0f), x));
    const Vec magic = hn::Set(d, 0x1.8p23f);  // adding it rounds to an integer, left in the low bits
    const Vec rounded = hn::MulAdd(x, hn::Set(d, 0x1.715476p0f), magic);
    const Vec q = hn::Sub(rounded, magic);
    Vec r = hn::NegMulAdd(q, hn::Set(d, 0x1.62e4p-1f), x);  // the upper 15 bits of ln 2: q times it is exact
    r = hn::NegMulAdd(q, hn::Set(d, 0x1.7f7d1cp-20f), r);
    const Vec r2 = hn::Mul(r, r);
    const Vec low = hn::MulAdd(hn::Set(d, 0.16667115688323975f), r, hn::Set(d, 0.499992311000824f));
    const Vec high = hn::MulAdd(hn::Set(d, 0.008312501013278961f), r, hn::Set(d, 0.041890330612659454f));
    const Vec poly = hn::MulAdd(hn::MulAdd(high, r2, low), r2, hn::Add(r, hn::Set(d, 1.0f)));
    const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, rounded));
    return hn::Mul(poly, hn::BitCast(d, hn::Add(exponent, hn::Set(di, 0x3f800000))));
}

// 2^x with a relative error below 2e-7, for x of at most 127; below -126 it is 2^-126, and NaN stays NaN. Cheaper than
// exp_clamped by a quarter: the coefficients are a minimax fit of (2^r - 1) / r to the relative error of 2^r for |r| <=
// 1 / 2.
HWY_INLINE Vec exp2_clamped(Vec x) {
    const Floats d;
    const hn::RebindToSigned<Floats> di;
    x = at_least(hn::Set(d, -126.0f), x);
    const Vec magic = hn::Set(d, 0x1.8p23f);
    const Vec rounded = hn::Add(x, magic);
    const Vec r = hn::Sub(x, hn::Sub(rounded, magic));
    Vec poly = hn::MulAdd(hn::Set(d, 0x1.5bba14p-10f), r, hn::Set(d, 0x1.3cea88p-7f));
    poly = hn::MulAdd(poly, r, hn::Set(d, 0x1.c6b752p-5f));
    poly = hn::MulAdd(poly, r, hn::Set(d, 0x1.ebf9bcp-3f));
    poly = hn::MulAdd(poly, r, hn::Set(d, 0x1.62e42ap-1f));
    poly = hn::MulAdd(poly, r, hn::Set(d, 1.0f));
    return hn::BitCast(d, hn::Add(hn::BitCast(di, poly), hn::ShiftLeft<23>(hn::BitCast(di, rounded))));
}
constexpr float log2_e = 0x1.715476p0f, ln_2 = 0x1.62e43p-1f;

#if LORICA_WIDE_WORDS
// out[i * stride + r] = word i of rows[r], for 16 rows.
HWY_INLINE void store_transposed(const __m512i * rows, uint32_t * out, int64_t stride) {
    __m512i pairs[16], fours[16];
    HWY_UNROLL(8)
    for (int r = 0; r < 16; r += 2) {
        pairs[r] = _mm512_unpacklo_epi32(rows[r], rows[r + 1]);
        pairs[r + 1] = _mm512_unpackhi_epi32(rows[r], rows[r + 1]);
    }
    // fours[r + m]: of each 128 bits, word m of four rows from r on.
    HWY_UNROLL(4)
    for (int r = 0; r < 16; r += 4) {
        fours[r] = _mm512_unpacklo_epi64(pairs[r], pairs[r + 2]);
        fours[r + 1] = _mm512_unpackhi_epi64(pairs[r], pairs[r + 2]);
        fours[r + 2] = _mm512_unpacklo_epi64(pairs[r + 1], pairs[r + 3]);
        fours[r + 3] = _mm512_unpackhi_epi64(pairs[r + 1], pairs[r + 3]);
    }
    HWY_UNROLL(4)
    for (int m = 0; m < 4; ++m) {
        const __m512i even01 = _mm512_shuffle_i32x4(fours[m], fours[4 + m], 0x88),
                      odd01 = _mm512_shuffle_i32x4(fours[m], fours[4 + m], 0xdd);
        const __m512i even23 = _mm512_shuffle_i32x4(fours[8 + m], fours[12 + m], 0x88),
                      odd23 = _mm512_shuffle_i32x4(fours[8 + m], fours[12 + m], 0xdd);
        _mm512_storeu_si512(out + stride * m, _mm512_shuffle_i32x4(even01, even23, 0x88));
        _mm512_storeu_si512(out + stride * (4 + m), _mm512_shuffle_i32x4(odd01, odd23, 0x88));
        _mm512_storeu_si512(out + stride * (8 + m), _mm512_shuffle_i32x4(even01, even23, 0xdd));
        _mm512_storeu_si512(out + stride * (12 + m), _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
    }
}
#endif

// out[i * 16 + c] = rows[c * stride + i] for i < count: sixteen rows become one group. In tiles of 4 x 4.
inline void transpose_16(const uint32_t * HWY_RESTRICT rows, int64_t stride, int64_t count,
                         uint32_t * HWY_RESTRICT out) {
    const hn::FixedTag<uint32_t, 4> d;
    const hn::RepartitionToWide<decltype(d)> d2;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (int64_t c = 0; c < 16; c += 4) {
            const uint32_t * tile = rows + c * stride + i;
            const auto r0 = hn::LoadU(d, tile), r1 = hn::LoadU(d, tile + stride);
            const auto r2 = hn::LoadU(d, tile + 2 * stride), r3 = hn::LoadU(d, tile + 3 * stride);
            const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1)),
                       low23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3));
            const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1)),
                       high23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
            uint32_t * column = out + i * 16 + c;
            hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, low01, low23)), d, column);
            hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23)), d, column + 16);
            hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, high01, high23)), d, column + 32);
            hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, high01, high23)), d, column + 48);
        }
    }
    for (; i < count; ++i) {
        for (int64_t c = 0; c < 16; ++c) out[i * 16 + c] = rows[c * stride + i];
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
