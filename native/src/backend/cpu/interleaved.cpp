// In all layouts a group has four bytes of each row of a strip. Group g of the codes has bytes 4g to 4g + 3 of those of
// each row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/interleaved.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backend/cpu/interleaved.h"
#include "backend/cpu/k_scales.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"

#ifndef LORICA_CPU_INTERLEAVED_LAYOUTS
#define LORICA_CPU_INTERLEAVED_LAYOUTS
namespace lorica::cpu {

constexpr int64_t group_bytes = 4 * strip_rows, halves_bytes = 2 * strip_rows;

// One strip of one block, as bytes from its start. f16 fields have one element per row, byte fields one per row and
// part of the block.
struct Q4_0Strip {
    static constexpr int64_t elements = 32, d = 4 * group_bytes, bytes = d + halves_bytes;
};
struct Q4_1Strip {
    static constexpr int64_t elements = 32, d = 4 * group_bytes, m = d + halves_bytes, bytes = m + halves_bytes;
};
struct Q8_0Strip {  // codes: the integers + 128
    static constexpr int64_t elements = 32, d = 8 * group_bytes, bytes = d + halves_bytes;
};
// Blocks of 256 elements are in parts, each in the order in which it is read, so that a strip is one run of addresses:
// upper bits, nibbles, scales. The low nibbles belong to the first half of a part's elements, the high ones to the
// second.
template <bool FifthBits> struct KStrip {  // Q4_K and Q5_K: 64 elements
    static constexpr int64_t elements = 256, nibbles = FifthBits ? 2 * group_bytes : 0,
                             scales = nibbles + 8 * group_bytes, minima = scales + 2 * strip_rows,
                             part = minima + 2 * strip_rows, d = 4 * part, dmin = d + halves_bytes,
                             bytes = dmin + halves_bytes;
};
struct Q6_KStrip {  // sixteen elements, and those 64 behind them
    static constexpr int64_t elements = 256, nibbles = 2 * group_bytes, scales = nibbles + 4 * group_bytes,
                             part = scales + 2 * strip_rows, d = 8 * part, bytes = d + halves_bytes;
    // Of the first element of a part in the block.
    static constexpr int64_t first_element(int64_t part) { return part / 4 * 128 + part % 4 * 16; }
};

}  // namespace lorica::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Ints = hn::RebindToSigned<Floats>;
using IntVec = hn::Vec<Ints>;
using Words = hn::Repartition<int16_t, Ints>;
using Codes = hn::Repartition<uint8_t, Ints>;
using CodeVec = hn::Vec<Codes>;
using SignedBytes = hn::Repartition<int8_t, Ints>;
using WordVec = hn::Vec<Words>;
constexpr int64_t rows_at_once = 2 * static_cast<int64_t>(n_lanes);
static_assert(strip_rows % rows_at_once == 0);

// One vector for each half of the rows at once: what one half waits for, the other has time to compute.
// Not std::array, whose constructor is compiled for the plainest instruction set, and cannot call that of a vector of
// Arm.
template <typename V> struct Two {
    V of[2];
    HWY_INLINE Two() {}
    HWY_INLINE Two(V first, V second) : of{first, second} {}
    HWY_INLINE V & operator[](size_t i) { return of[i]; }
    HWY_INLINE const V & operator[](size_t i) const { return of[i]; }
};
using TwoVecs = Two<Vec>;
using TwoCodes = Two<CodeVec>;

// f(std::integral_constant<int, i>) for i < N.
template <int N, typename F> HWY_INLINE void unrolled(const F & f) {
    [&]<int... I>(std::integer_sequence<int, I...>)
        HWY_ATTR { (f(std::integral_constant<int, I>()), ...); }(std::make_integer_sequence<int, N>());
}

// T rows of DotInput's integers.
template <int T> struct XRows {
    const int8_t * planes[T];
    const int16_t * pairs[T];
    const float * sums[T];
    const DotInput::Starts * starts[T];

    XRows(const DotInput & x, int64_t first) {
        for (int t = 0; t < T; ++t) {
            const int64_t at = (first + t) * x.stride;
            planes[t] = LORICA_DOT_BYTES ? x.planes + 2 * at : nullptr;
            pairs[t] = LORICA_DOT_BYTES ? nullptr : x.pairs + at;
            sums[t] = x.sums + at / 16;
            starts[t] = x.starts + at / 32;
        }
    }
    HWY_INLINE Vec sum_of_32(size_t t, int64_t i) const {
        return hn::Set(Floats(), sums[t][i / 16] + sums[t][i / 16 + 1]);
    }
};

// Codes as what they are multiplied in: bytes, or the even and the odd ones as words.
#if LORICA_DOT_BYTES
using Factors = TwoCodes;
HWY_INLINE Factors factors(const TwoCodes & codes) { return codes; }
#else
struct Factors {
    Two<WordVec> even, odd;
};
HWY_INLINE Factors factors(const TwoCodes & codes) {
    const auto of = [](CodeVec v, auto shift) HWY_ATTR {
        const hn::RepartitionToWide<Codes> d;
        const auto words = hn::BitCast(d, v);
        return hn::BitCast(Words(), shift.value ? hn::ShiftRight<8>(words) : hn::And(words, hn::Set(d, 255)));
    };
    const std::false_type even;
    const std::true_type odd;
    return {{of(codes[0], even), of(codes[1], even)}, {of(codes[0], odd), of(codes[1], odd)}};
}
#endif

// The same 32 bits in every lane.
HWY_INLINE IntVec broadcast(const void * p) {
    int32_t four;
    std::memcpy(&four, p, 4);
    return hn::Set(Ints(), four);
}

// GCC would otherwise put off the additions of a block until its end, and keep all products in memory.
HWY_INLINE void add_now(IntVec & sum, IntVec product) {
    sum = hn::Add(sum, product);
#if HWY_COMPILER_GCC_ACTUAL && HWY_ARCH_X86
    asm("" : "+x"(sum.raw));
#endif
}

// Sums of products of codes with the integers of T rows of x, of 32 bits: exact, so that it does not matter how they
// are come by.
template <int T> class Products {
public:
    // start(t): what the sums of row t begin with.
    template <typename Start> explicit HWY_INLINE Products(const Start & start) {
        for (size_t t = 0; t < T; ++t) {
            const IntVec first = hn::Set(Ints(), start(t));
            for (size_t h = 0; h < 2; ++h) sums_[t][h] = first;
            if constexpr (LORICA_DOT_BYTES) {
                for (size_t h = 0; h < 2; ++h) upper_[t][h] = hn::Zero(Ints());
            }
        }
    }

    // Four products of each lane, with elements i + offset on, i a multiple of 16 and offset one of 4 below it.
    HWY_INLINE void add(const Factors & codes, const XRows<T> & x, int64_t i, int64_t offset) {
        for (size_t t = 0; t < T; ++t) {
#if LORICA_DOT_BYTES
            // What meets the upper bytes counts 256 times.
            const int8_t * upper = x.planes[t] + DotInput::plane_offset(i) + offset;
            const auto of_upper = hn::BitCast(SignedBytes(), broadcast(upper)),
                       of_lower = hn::BitCast(SignedBytes(), broadcast(upper + DotInput::lower_plane));
            for (size_t h = 0; h < 2; ++h)
                upper_[t][h] = hn::SumOfMulQuadAccumulate(Ints(), codes[h], of_upper, upper_[t][h]);
            for (size_t h = 0; h < 2; ++h)
                sums_[t][h] = hn::SumOfMulQuadAccumulate(Ints(), codes[h], of_lower, sums_[t][h]);
#else
            const int16_t * four = x.pairs[t] + i + offset;
            const auto even = hn::BitCast(Words(), broadcast(four)), odd = hn::BitCast(Words(), broadcast(four + 2));
            for (size_t h = 0; h < 2; ++h) add_now(sums_[t][h], hn::WidenMulPairwiseAdd(Ints(), codes.even[h], even));
            for (size_t h = 0; h < 2; ++h) add_now(sums_[t][h], hn::WidenMulPairwiseAdd(Ints(), codes.odd[h], odd));
#endif
        }
    }
    // Exact: below 2^24 for 32 codes of four bits, and rounded once where there are more bits.
    HWY_INLINE Vec get(size_t t, size_t h) const {
        IntVec sum = sums_[t][h];
        if constexpr (LORICA_DOT_BYTES) sum = hn::Add(hn::ShiftLeft<8>(upper_[t][h]), sum);
        return hn::ConvertTo(Floats(), sum);
    }

private:
    Two<IntVec> sums_[T];
    Two<IntVec> upper_[LORICA_DOT_BYTES ? T : 1];
};

// How far ahead lines are asked for, in bytes. Behind a strip is the next one.
constexpr int64_t prefetch_distance = 4096;
// Zen's own prefetching does better alone, as long as addresses only grow (native/bench/NOTES.md).
constexpr bool prefetches = HWY_TARGET != HWY_AVX3_ZEN4;

// What the fields of a block have for rows `row` to row + rows_at_once. FromMemory: they were not just
// read for other rows of x.
template <bool FromMemory> struct Fields {
    const uint8_t * block;
    int64_t row;

    template <typename Strip> HWY_INLINE Fields part(int64_t i) const { return {block + i * Strip::part, row}; }
    HWY_INLINE Fields<false> again() const { return {block, row}; }
    HWY_INLINE TwoCodes codes(int64_t group, int64_t field = 0) const {
        const uint8_t * p = block + field + group * group_bytes + 4 * row;
        if constexpr (prefetches && FromMemory) {
            for (int64_t i = 0; i < 4 * rows_at_once; i += 64) hwy::Prefetch(p + prefetch_distance + i);
        }
        return {hn::LoadU(Codes(), p), hn::LoadU(Codes(), p + 4 * n_lanes)};
    }
    HWY_INLINE Vec halves(int64_t field, size_t h) const {
        const hn::Rebind<hwy::float16_t, Floats> d;
        return hn::PromoteTo(
            Floats(), hn::LoadU(d, reinterpret_cast<const hwy::float16_t *>(block + field + 2 * row) + h * n_lanes));
    }
    template <typename T> HWY_INLINE Vec bytes(int64_t field, size_t h) const {
        const auto * p = reinterpret_cast<const T *>(block + field + row) + h * n_lanes;
        return hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), hn::LoadU(hn::Rebind<T, Floats>(), p)));
    }
};

HWY_INLINE TwoCodes low_nibbles(const TwoCodes & v) {
    return {hn::And(v[0], hn::Set(Codes(), 15)), hn::And(v[1], hn::Set(Codes(), 15))};
}
HWY_INLINE TwoCodes high_nibbles(const TwoCodes & v) { return {hn::ShiftRight<4>(v[0]), hn::ShiftRight<4>(v[1])}; }
// Bits are moved to the left by Left, which may be negative. What crosses from one byte into the next is not kept
// apart.
template <int Left> HWY_INLINE CodeVec moved(CodeVec v) {
    const auto words = hn::BitCast(Words(), v);
    if constexpr (Left >= 0) return hn::BitCast(Codes(), hn::ShiftLeft<Left>(words));
    constexpr int right = Left < 0 ? -Left : 0;
    return hn::BitCast(Codes(), hn::ShiftRight<right>(words));
}
// v, and of the moved `bits` those in Mask, which are never any that crossed.
template <uint8_t Mask, int Left> HWY_INLINE TwoCodes with_bits(const TwoCodes & v, const TwoCodes & bits) {
    const CodeVec mask = hn::Set(Codes(), Mask);
    return {hn::OrAnd(v[0], moved<Left>(bits[0]), mask), hn::OrAnd(v[1], moved<Left>(bits[1]), mask)};
}

// What a kernel is called with: rows of a strip from `row` on, and where the sums of the strip go, `stride` elements
// apart for rows of x.
struct StripRows {
    const uint8_t * strip;
    int64_t row, n;  // columns
    float * out;
    int64_t stride;
};

// The sums of these rows with T rows of x: add_block(fields, first column, sums).
template <typename Strip, bool FromMemory, int T, typename F>
HWY_INLINE void for_blocks(const StripRows & s, const F & add_block) {
    TwoVecs sums[T];
    for (TwoVecs & of_row : sums) of_row = {hn::Zero(Floats()), hn::Zero(Floats())};
    const uint8_t * block = s.strip;
    for (int64_t i = 0; i < s.n; i += Strip::elements, block += Strip::bytes) {
        add_block(Fields<FromMemory>{block, s.row}, i, sums);
    }
    for (int64_t t = 0; t < T; ++t) {
        for (size_t h = 0; h < 2; ++h) store(sums[t][h], s.out + t * s.stride + s.row + h * n_lanes);
    }
}

// Low nibbles are the first, high ones the second sixteen of 32 elements.
template <int T, typename Of>
HWY_INLINE void add_nibbles(Products<T> & products, const Of & of, const XRows<T> & x, int64_t i) {
    unrolled<4>([&](auto g) HWY_ATTR {
        const TwoCodes codes = of.codes(g);
        products.add(factors(low_nibbles(codes)), x, i, 4 * g);
        products.add(factors(high_nibbles(codes)), x, i + 16, 4 * g);
    });
}

template <bool M, int T> HWY_FLATTEN void dot_q4_0(const StripRows & s, const XRows<T> & x) {
    for_blocks<Q4_0Strip, M, T>(s, [&](const Fields<M> & of, int64_t i, TwoVecs * sums) HWY_ATTR {
        Products<T> products([&](size_t t) HWY_ATTR { return x.starts[t][i / 32].of_4_bits; });
        add_nibbles(products, of, x, i);
        for (size_t h = 0; h < 2; ++h) {
            const Vec d = of.halves(Q4_0Strip::d, h);
            for (size_t t = 0; t < T; ++t) sums[t][h] = hn::MulAdd(products.get(t, h), d, sums[t][h]);
        }
    });
}

template <bool M, int T> HWY_FLATTEN void dot_q4_1(const StripRows & s, const XRows<T> & x) {
    for_blocks<Q4_1Strip, M, T>(s, [&](const Fields<M> & of, int64_t i, TwoVecs * sums) HWY_ATTR {
        Products<T> products([](size_t) HWY_ATTR { return 0; });
        add_nibbles(products, of, x, i);
        for (size_t h = 0; h < 2; ++h) {
            const Vec d = of.halves(Q4_1Strip::d, h), m = of.halves(Q4_1Strip::m, h);
            for (size_t t = 0; t < T; ++t) {
                sums[t][h] = hn::MulAdd(products.get(t, h), d, sums[t][h]);
                sums[t][h] = hn::MulAdd(m, x.sum_of_32(t, i), sums[t][h]);
            }
        }
    });
}

template <bool M, int T> HWY_FLATTEN void dot_q8_0(const StripRows & s, const XRows<T> & x) {
    for_blocks<Q8_0Strip, M, T>(s, [&](const Fields<M> & of, int64_t i, TwoVecs * sums) HWY_ATTR {
        Products<T> products([&](size_t t) HWY_ATTR { return x.starts[t][i / 32].of_8_bits; });
        unrolled<8>([&](auto g) HWY_ATTR { products.add(factors(of.codes(g)), x, i + g / 4 * 16, g % 4 * 4); });
        for (size_t h = 0; h < 2; ++h) {
            const Vec d = of.halves(Q8_0Strip::d, h);
            for (size_t t = 0; t < T; ++t) sums[t][h] = hn::MulAdd(products.get(t, h), d, sums[t][h]);
        }
    });
}

using FirstHalf = std::integral_constant<int, 0>;
using SecondHalf = std::integral_constant<int, 1>;

// The halves of a part, the second of which has the high nibbles: start(half), multiply(products, g, half) for each of
// G groups of codes, finish(products, half).
template <int T, int G, typename Start, typename Multiply, typename Finish>
HWY_INLINE void for_halves(const Start & start, const Multiply & multiply, const Finish & finish) {
    const FirstHalf first;
    const SecondHalf second;
    if constexpr (T == 1) {  // where sums would wait for each other
        Products<T> low(start(first)), high(start(second));
        unrolled<G>([&](auto g) HWY_ATTR {
            multiply(low, g, first);
            multiply(high, g, second);
        });
        finish(low, first);
        finish(high, second);
    } else {
        const auto one = [&](auto half) HWY_ATTR {
            Products<T> products(start(half));
            unrolled<G>([&](auto g) HWY_ATTR { multiply(products, g, half); });
            finish(products, half);
        };
        one(first);
        one(second);
    }
}

// Lines are asked for once.
template <bool M, int Half>
HWY_INLINE TwoCodes nibbles(const Fields<M> & part, int64_t group, int64_t field, std::integral_constant<int, Half>) {
    if constexpr (Half == 0) return low_nibbles(part.codes(group, field));
    return high_nibbles(part.again().codes(group, field));
}

template <bool FifthBits, bool M, int T> HWY_FLATTEN void dot_k(const StripRows & s, const XRows<T> & x) {
    using Strip = KStrip<FifthBits>;
    for_blocks<Strip, M, T>(s, [&](const Fields<M> & of, int64_t i, TwoVecs * sums) HWY_ATTR {
        TwoVecs scaled[T], below[T];
        for (size_t t = 0; t < T; ++t) {
            for (size_t h = 0; h < 2; ++h) scaled[t][h] = below[t][h] = hn::Zero(Floats());
        }
        // Elements 64 j to 64 j + 31 are the low nibbles of 32 bytes, the next 32 the high ones.
        for (int64_t j = 0; j < 4; ++j) {
            const Fields<M> part = of.template part<Strip>(j);
            TwoCodes bits[2];
            if constexpr (FifthBits) bits[0] = part.codes(0), bits[1] = part.codes(1);
            for_halves<T, 8>(
                [](auto) HWY_ATTR { return [](size_t) { return 0; }; },
                [&](Products<T> & products, auto g, auto half) HWY_ATTR {
                    TwoCodes codes = nibbles(part, g, Strip::nibbles, half);
                    if constexpr (FifthBits) codes = with_bits<16, 4 - half - 2 * (g % 4)>(codes, bits[g / 4]);
                    products.add(factors(codes), x, i + 64 * j + 32 * half + g / 4 * 16, g % 4 * 4);
                },
                [&](const Products<T> & products, auto half) HWY_ATTR {
                    const int64_t at = i + 64 * j + 32 * half;
                    for (size_t h = 0; h < 2; ++h) {
                        const Vec scale = part.template bytes<uint8_t>(Strip::scales + half * strip_rows, h),
                                  minimum = part.template bytes<uint8_t>(Strip::minima + half * strip_rows, h);
                        for (size_t t = 0; t < T; ++t) {
                            scaled[t][h] = hn::MulAdd(products.get(t, h), scale, scaled[t][h]);
                            below[t][h] = hn::MulAdd(x.sum_of_32(t, at), minimum, below[t][h]);
                        }
                    }
                });
        }
        for (size_t h = 0; h < 2; ++h) {
            const Vec d = of.halves(Strip::d, h), dmin = of.halves(Strip::dmin, h);
            for (size_t t = 0; t < T; ++t) {
                sums[t][h] = hn::MulAdd(scaled[t][h], d, sums[t][h]);
                sums[t][h] = hn::NegMulAdd(below[t][h], dmin, sums[t][h]);
            }
        }
    });
}

template <bool M, int T> HWY_FLATTEN void dot_q6_k(const StripRows & s, const XRows<T> & x) {
    using Strip = Q6_KStrip;
    for_blocks<Strip, M, T>(s, [&](const Fields<M> & of, int64_t i, TwoVecs * sums) HWY_ATTR {
        TwoVecs scaled[T];
        for (TwoVecs & of_row : scaled) of_row = {hn::Zero(Floats()), hn::Zero(Floats())};
        for (int64_t j = 0; j < 8; ++j) {
            const Fields<M> part = of.template part<Strip>(j);
            const TwoCodes bits[2] = {part.codes(0), part.codes(1)};
            const int64_t at = i + Strip::first_element(j);
            for_halves<T, 4>(
                [&](auto half) HWY_ATTR {
                    return [&x, j, first = (at + 64 * half) / 32](size_t t) {
                        return x.starts[t][first].of_6_bits[j % 2];
                    };
                },
                [&](Products<T> & products, auto g, auto half) HWY_ATTR {
                    const TwoCodes codes = nibbles(part, g, Strip::nibbles, half);
                    products.add(factors(with_bits<0x30, 4 - 2 * half - 4 * (g % 2)>(codes, bits[g / 2])), x,
                                 at + 64 * half, 4 * g);
                },
                [&](const Products<T> & products, auto half) HWY_ATTR {
                    for (size_t h = 0; h < 2; ++h) {
                        const Vec scale = part.template bytes<int8_t>(Strip::scales + half * strip_rows, h);
                        for (size_t t = 0; t < T; ++t)
                            scaled[t][h] = hn::MulAdd(products.get(t, h), scale, scaled[t][h]);
                    }
                });
        }
        for (size_t h = 0; h < 2; ++h) {
            const Vec d = of.halves(Strip::d, h);
            for (size_t t = 0; t < T; ++t) sums[t][h] = hn::MulAdd(scaled[t][h], d, sums[t][h]);
        }
    });
}

template <bool M, int T> HWY_INLINE void dot_strip(ggml_type type, const StripRows & s, const XRows<T> & x) {
    switch (type) {
        case GGML_TYPE_Q4_0: return dot_q4_0<M, T>(s, x);
        case GGML_TYPE_Q4_1: return dot_q4_1<M, T>(s, x);
        case GGML_TYPE_Q8_0: return dot_q8_0<M, T>(s, x);
        case GGML_TYPE_Q4_K: return dot_k<false, M, T>(s, x);
        case GGML_TYPE_Q5_K: return dot_k<true, M, T>(s, x);
        default: return dot_q6_k<M, T>(s, x);
    }
}

// Some rows of the strip at a time meet all rows of x, so that they are in the first-level cache for all but the first
// of these.
void DotStrip(ggml_type type, const uint8_t * strip, int64_t n, const DotInput & x, float * out, int64_t stride) {
    for (int64_t row = 0; row < strip_rows; row += rows_at_once) {
        for (int64_t t = 0; t < x.rows;) {
            const StripRows s{strip, row, n, out + t * stride, stride};
            const int64_t left = x.rows - t;
            if (left >= 4) {
                t == 0 ? dot_strip<true>(type, s, XRows<4>(x, t)) : dot_strip<false>(type, s, XRows<4>(x, t));
                t += 4;
            } else if (left >= 2) {
                t == 0 ? dot_strip<true>(type, s, XRows<2>(x, t)) : dot_strip<false>(type, s, XRows<2>(x, t));
                t += 2;
            } else {
                t == 0 ? dot_strip<true>(type, s, XRows<1>(x, t)) : dot_strip<false>(type, s, XRows<1>(x, t));
                ++t;
            }
        }
    }
    for (int64_t t = 0; t < x.rows; ++t, out += stride) {
        const Vec unit = hn::Set(Floats(), x.unit[t]);
        for (size_t i = 0; i < strip_rows; i += n_lanes) store(hn::Mul(load(out + i), unit), out + i);
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DotStrip);

namespace {

using Rows = std::array<const uint8_t *, strip_rows>;

// n bytes at `at` of each row, a multiple of 4, to groups from `to` on. flip: its bits are changed.
void copy_codes(const Rows & rows, int64_t at, int64_t n, uint8_t * to, uint32_t flip = 0) {
    for (int64_t r = 0; r < strip_rows; ++r) {
        for (int64_t i = 0; i < n; i += 4) {
            uint32_t four;
            std::memcpy(&four, rows[static_cast<size_t>(r)] + at + i, 4);
            four ^= flip;
            std::memcpy(to + i * strip_rows + 4 * r, &four, 4);
        }
    }
}
void copy_halves(const Rows & rows, int64_t at, uint8_t * to) {
    for (int64_t r = 0; r < strip_rows; ++r) std::memcpy(to + 2 * r, rows[static_cast<size_t>(r)] + at, 2);
}

// Upper bits of a part in the order of its nibbles: Bits of them from bit `first` of each of n bytes, for the low
// nibbles, and from bit `second`, for the high ones. Those of 4 / Bits groups come into one.
template <int Bits>
void copy_upper_bits(const Rows & rows, int64_t at, int64_t n, int first, int second, uint8_t * to) {
    constexpr int groups = 4 / Bits;
    constexpr uint32_t mask = ((1u << Bits) - 1) * 0x01010101u;
    for (int64_t r = 0; r < strip_rows; ++r) {
        for (int64_t i = 0; i < n; i += 4 * groups) {
            uint32_t bits = 0;
            for (int g = 0; g < groups; ++g) {
                uint32_t four;
                std::memcpy(&four, rows[static_cast<size_t>(r)] + at + i + 4 * g, 4);
                bits |= ((four >> first & mask) | (four >> second & mask) << Bits) << (2 * Bits * g);
            }
            std::memcpy(to + i / groups * strip_rows + 4 * r, &bits, 4);
        }
    }
}

template <bool FifthBits> void copy_k_block(const Rows & rows, uint8_t * to) {
    using Strip = KStrip<FifthBits>;
    copy_halves(rows, 0, to + Strip::d);
    copy_halves(rows, 2, to + Strip::dmin);
    for (int part = 0; part < 4; ++part) {
        uint8_t * to_part = to + part * Strip::part;
        if (FifthBits) copy_upper_bits<1>(rows, 16, 32, 2 * part, 2 * part + 1, to_part);
        copy_codes(rows, (FifthBits ? 48 : 16) + 32 * part, 32, to_part + Strip::nibbles);
    }
    for (int64_t r = 0; r < strip_rows; ++r) {
        const uint8_t * block = rows[static_cast<size_t>(r)];
        const KScales all = k_scales_at(block + 4);
        for (int j = 0; j < 8; ++j) {
            uint8_t * part = to + j / 2 * Strip::part + j % 2 * strip_rows + r;
            part[Strip::scales] = static_cast<uint8_t>(all.scales >> (8 * j));
            part[Strip::minima] = static_cast<uint8_t>(all.minima >> (8 * j));
        }
    }
}

void copy_q6_k_block(const Rows & rows, uint8_t * to) {
    using Strip = Q6_KStrip;
    for (int64_t part = 0; part < 8; ++part, to += Strip::part) {
        const int64_t half = part / 4, of_half = part % 4 * 16;
        const int bit = static_cast<int>(part % 4 / 2 * 2);  // the others are four bits above
        copy_upper_bits<2>(rows, 128 + 32 * half + of_half % 32, 16, bit, bit + 4, to);
        copy_codes(rows, 64 * half + of_half, 16, to + Strip::nibbles);
        for (int64_t r = 0; r < strip_rows; ++r) {
            const uint8_t * scales = rows[static_cast<size_t>(r)] + 192 + Strip::first_element(part) / 16;
            to[Strip::scales + r] = scales[0];
            to[Strip::scales + strip_rows + r] = scales[4];
        }
    }
    copy_halves(rows, 208, to);  // d is behind the parts
}

// The layouts of the blocks: dequantize-inl.h.
void copy_block(ggml_type type, const Rows & rows, uint8_t * to) {
    switch (type) {
        case GGML_TYPE_Q4_0: copy_halves(rows, 0, to + Q4_0Strip::d); return copy_codes(rows, 2, 16, to);
        case GGML_TYPE_Q4_1:
            copy_halves(rows, 0, to + Q4_1Strip::d);
            copy_halves(rows, 2, to + Q4_1Strip::m);
            return copy_codes(rows, 4, 16, to);
        case GGML_TYPE_Q8_0: copy_halves(rows, 0, to + Q8_0Strip::d); return copy_codes(rows, 2, 32, to, 0x80808080);
        case GGML_TYPE_Q4_K: return copy_k_block<false>(rows, to);
        case GGML_TYPE_Q5_K: return copy_k_block<true>(rows, to);
        default: return copy_q6_k_block(rows, to);
    }
}

// Bytes of one block of a strip; 0: there is no layout for this type.
int64_t strip_block_bytes(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return Q4_0Strip::bytes;
        case GGML_TYPE_Q4_1: return Q4_1Strip::bytes;
        case GGML_TYPE_Q8_0: return Q8_0Strip::bytes;
        case GGML_TYPE_Q4_K: return KStrip<false>::bytes;
        case GGML_TYPE_Q5_K: return KStrip<true>::bytes;
        case GGML_TYPE_Q6_K: return Q6_KStrip::bytes;
        default: return 0;
    }
}

int64_t n_strips(const Weight & w) { return (w.out + strip_rows - 1) / strip_rows; }
int64_t strip_bytes(const Weight & w) { return w.in / ggml_blck_size(w.type) * strip_block_bytes(w.type); }

}  // namespace

bool can_interleave(const Weight & w) { return strip_block_bytes(w.type) > 0 && w.out > 0; }

int64_t interleaved_bytes(const Weight & w) { return n_strips(w) * strip_bytes(w); }

void interleave(const Weight & w, int n_threads, std::byte * out) {
    const std::vector<uint8_t> zeros(w.row_bytes);
    const auto source_bytes = static_cast<int64_t>(ggml_type_size(w.type)), bytes = strip_block_bytes(w.type);
    parallel_ranges(n_strips(w), strip_bytes(w), n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t s = begin; s < end; ++s) {
            Rows rows;
            for (int64_t r = 0; r < strip_rows; ++r) {
                const int64_t row = s * strip_rows + r;
                rows[static_cast<size_t>(r)] =
                    row < w.out ? reinterpret_cast<const uint8_t *>(w.data) + static_cast<size_t>(row) * w.row_bytes
                                : zeros.data();
            }
            auto * to = reinterpret_cast<uint8_t *>(out) + s * strip_bytes(w);
            for (int64_t i = 0; i < w.in; i += ggml_blck_size(w.type), to += bytes) {
                copy_block(w.type, rows, to);
                for (const uint8_t *& row : rows) row += source_bytes;
            }
        }
    });
}

void dot_interleaved(const Weight & w, const std::byte * interleaved, int64_t first, int64_t count, const DotInput & x,
                     float * out, int64_t stride) {
    const auto * strip = reinterpret_cast<const uint8_t *>(interleaved) + first / strip_rows * strip_bytes(w);
    for (int64_t i = 0; i < count; i += strip_rows, strip += strip_bytes(w)) {
        HWY_DYNAMIC_DISPATCH(DotStrip)(w.type, strip, w.in, x, out + i, stride);
    }
}

void InterleavedWeights::Free::operator()(std::byte * memory) const { std::free(memory); }

std::shared_ptr<const InterleavedWeights> InterleavedWeights::make(std::span<const Weight * const> weights,
                                                                   int64_t max_bytes, int n_threads) {
    auto made = std::make_shared<InterleavedWeights>();
    constexpr auto aligned = static_cast<int64_t>(memory_alignment);
    std::vector<std::pair<const Weight *, int64_t>> places;
    int64_t bytes = 0;
    for (const Weight * w : weights) {
        if (!can_interleave(*w) || !made->copies_.try_emplace(w->data, nullptr).second) continue;
        places.emplace_back(w, bytes);
        bytes += (interleaved_bytes(*w) + aligned - 1) / aligned * aligned;
    }
    if (places.empty() || bytes > max_bytes) return nullptr;
    made->memory_.reset(static_cast<std::byte *>(allocate_memory(static_cast<size_t>(bytes))));
    if (!made->memory_) return nullptr;
    for (const auto & [w, at] : places) {
        std::byte * copy = made->memory_.get() + at;
        interleave(*w, n_threads, copy);
        made->copies_[w->data] = copy;
    }
    return made;
}

const std::byte * InterleavedWeights::find(const Weight & w) const {
    const auto found = copies_.find(w.data);
    return found == copies_.end() ? nullptr : found->second;
}

}  // namespace lorica::cpu
#endif
