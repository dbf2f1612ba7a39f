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
constexpr int64_t rows_at_once = 2 * static_cast<int64_t>(n_lanes);
static_assert(strip_rows % rows_at_once == 0);

// One vector for each half of the rows at once: what one half waits for, the other has time to compute.
template <typename V> using Two = std::array<V, 2>;
using TwoVecs = Two<Vec>;
using TwoCodes = Two<CodeVec>;

// Where a processor adds products of bytes to sums of 32 bits.
#if HWY_TARGET <= HWY_AVX3_DL
constexpr bool sums_of_four = true;
#else
constexpr bool sums_of_four = false;
#endif

// Sums of products of codes, at most Largest, with bytes of x that all rows share.
template <int Largest> class Sums {
public:
    explicit HWY_INLINE Sums(int32_t start) : sum_(hn::Set(Ints(), start)) {}

    // Four products of each lane; Nth: how many were added before.
    template <int Nth> HWY_INLINE void add(CodeVec codes, const int8_t * x) {
        int32_t four;
        std::memcpy(&four, x, 4);
        const auto of_x = hn::BitCast(SignedBytes(), hn::Set(Ints(), four));
        // Pairs are at most 2 * 128 * Largest, so that sums of 16 bits have room for a few.
        constexpr int room = 32767 / (2 * 128 * Largest);
        if constexpr (sums_of_four || room == 0) {
            sum_ = hn::SumOfMulQuadAccumulate(Ints(), codes, of_x, sum_);
        } else {
            const auto pairs = hn::SatWidenMulPairwiseAdd(Words(), codes, of_x);
            if constexpr (Nth % room == 0) {
                if constexpr (Nth > 0) flush();
                pairs_ = pairs;
            } else {
                pairs_ = hn::Add(pairs_, pairs);
            }
            pending_ = true;
        }
    }
    HWY_INLINE IntVec get() {
        if constexpr (!sums_of_four) {
            if (pending_) flush();
        }
        return sum_;
    }

private:
    HWY_INLINE void flush() { sum_ = hn::Add(sum_, hn::WidenMulPairwiseAdd(Ints(), pairs_, hn::Set(Words(), 1))); }

    IntVec sum_;
    hn::Vec<Words> pairs_ = hn::Zero(Words());
    bool pending_ = false;  // known when compiled
};

// f(std::integral_constant<int, i>) for i < N.
template <int N, typename F> HWY_INLINE void unrolled(const F & f) {
    [&]<int... I>(std::integer_sequence<int, I...>)
        HWY_ATTR { (f(std::integral_constant<int, I>()), ...); }(std::make_integer_sequence<int, N>());
}

// Both bytes of x's integers: what meets the upper ones counts 256 times.
template <int Largest> class Products {
public:
    explicit HWY_INLINE Products(int32_t start)
        : upper_{Sums<Largest>(0), Sums<Largest>(0)}, lower_{Sums<Largest>(start), Sums<Largest>(start)} {}

    template <int Nth> HWY_INLINE void add(const TwoCodes & codes, const int8_t * planes) {
        for (size_t h = 0; h < 2; ++h) upper_[h].template add<Nth>(codes[h], planes);
        for (size_t h = 0; h < 2; ++h) lower_[h].template add<Nth>(codes[h], planes + DotInput::lower_plane);
    }
    // Exact: below 2^24 for 32 codes of four bits, and rounded once where there are more bits.
    HWY_INLINE Vec get(size_t h) {
        return hn::ConvertTo(Floats(), hn::Add(hn::ShiftLeft<8>(upper_[h].get()), lower_[h].get()));
    }

private:
    Two<Sums<Largest>> upper_, lower_;
};

// How far ahead lines are asked for, in bytes. Behind a strip is the next one.
constexpr int64_t prefetch_distance = 4096;
// Zen's own prefetching does better alone, as long as addresses only grow (native/bench/NOTES.md).
constexpr bool prefetches = HWY_TARGET != HWY_AVX3_ZEN4;

// What the fields of a block have for rows `row` to row + rows_at_once.
struct Fields {
    const uint8_t * block;
    int64_t row;

    template <typename Strip> HWY_INLINE Fields part(int64_t i) const { return {block + i * Strip::part, row}; }
    HWY_INLINE TwoCodes codes(int64_t group, int64_t field = 0) const {
        const uint8_t * p = block + field + group * group_bytes + 4 * row;
        if constexpr (prefetches) {
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

// One row of DotInput's integers.
struct XRow {
    const int8_t * planes;
    const float * sums;
    const DotInput::Starts * starts;

    HWY_INLINE const int8_t * bytes(int64_t i) const { return planes + DotInput::plane_offset(i); }
    HWY_INLINE Vec sum_of_32(int64_t i) const { return hn::Set(Floats(), sums[i / 16] + sums[i / 16 + 1]); }
};

// The sums of one strip with one row of x, n columns: add_block(fields, first column, sums).
template <typename Strip, typename F>
HWY_INLINE void for_blocks(const uint8_t * strip, int64_t n, float * out, const F & add_block) {
    for (int64_t row = 0; row < strip_rows; row += rows_at_once) {
        TwoVecs sums{hn::Zero(Floats()), hn::Zero(Floats())};
        const uint8_t * block = strip;
        for (int64_t i = 0; i < n; i += Strip::elements, block += Strip::bytes) {
            add_block(Fields{block, row}, i, sums);
        }
        for (size_t h = 0; h < 2; ++h) store(sums[h], out + row + h * n_lanes);
    }
}

// Low nibbles are the first, high ones the second sixteen of 32 elements.
HWY_INLINE Products<15> products_of_nibbles(const Fields & of, const XRow & x, int64_t i, int32_t start) {
    Products<15> products(start);
    unrolled<4>([&](auto g) HWY_ATTR {
        const TwoCodes codes = of.codes(g);
        products.template add<2 * g>(low_nibbles(codes), x.bytes(i) + 4 * g);
        products.template add<2 * g + 1>(high_nibbles(codes), x.bytes(i + 16) + 4 * g);
    });
    return products;
}

HWY_FLATTEN void dot_q4_0(const uint8_t * strip, int64_t n, const XRow & x, float * out) {
    for_blocks<Q4_0Strip>(strip, n, out, [&](const Fields & of, int64_t i, TwoVecs & sums) HWY_ATTR {
        Products<15> products = products_of_nibbles(of, x, i, x.starts[i / 32].of_4_bits);
        for (size_t h = 0; h < 2; ++h) sums[h] = hn::MulAdd(products.get(h), of.halves(Q4_0Strip::d, h), sums[h]);
    });
}

HWY_FLATTEN void dot_q4_1(const uint8_t * strip, int64_t n, const XRow & x, float * out) {
    for_blocks<Q4_1Strip>(strip, n, out, [&](const Fields & of, int64_t i, TwoVecs & sums) HWY_ATTR {
        Products<15> products = products_of_nibbles(of, x, i, 0);
        for (size_t h = 0; h < 2; ++h) {
            sums[h] = hn::MulAdd(products.get(h), of.halves(Q4_1Strip::d, h), sums[h]);
            sums[h] = hn::MulAdd(of.halves(Q4_1Strip::m, h), x.sum_of_32(i), sums[h]);
        }
    });
}

HWY_FLATTEN void dot_q8_0(const uint8_t * strip, int64_t n, const XRow & x, float * out) {
    for_blocks<Q8_0Strip>(strip, n, out, [&](const Fields & of, int64_t i, TwoVecs & sums) HWY_ATTR {
        Products<255> products(x.starts[i / 32].of_8_bits);
        unrolled<8>([&](auto g)
                        HWY_ATTR { products.template add<g>(of.codes(g), x.bytes(i + g / 4 * 16) + g % 4 * 4); });
        for (size_t h = 0; h < 2; ++h) sums[h] = hn::MulAdd(products.get(h), of.halves(Q8_0Strip::d, h), sums[h]);
    });
}

template <bool FifthBits> HWY_FLATTEN void dot_k(const uint8_t * strip, int64_t n, const XRow & x, float * out) {
    using Strip = KStrip<FifthBits>;
    constexpr int largest = FifthBits ? 31 : 15;
    for_blocks<Strip>(strip, n, out, [&](const Fields & of, int64_t i, TwoVecs & sums) HWY_ATTR {
        const Vec zero = hn::Zero(Floats());
        TwoVecs scaled{zero, zero}, below{zero, zero};
        // Elements 64 j to 64 j + 31 are the low nibbles of 32 bytes, the next 32 the high ones.
        for (int64_t j = 0; j < 4; ++j) {
            const Fields part = of.template part<Strip>(j);
            Products<largest> low(0), high(0);
            TwoCodes bits[2];
            if constexpr (FifthBits) bits[0] = part.codes(0), bits[1] = part.codes(1);
            unrolled<8>([&](auto g) HWY_ATTR {
                const TwoCodes codes = part.codes(g, Strip::nibbles);
                TwoCodes first = low_nibbles(codes), second = high_nibbles(codes);
                if constexpr (FifthBits) {
                    first = with_bits<16, 4 - 2 * (g % 4)>(first, bits[g / 4]);
                    second = with_bits<16, 3 - 2 * (g % 4)>(second, bits[g / 4]);
                }
                const int64_t at = i + 64 * j + g / 4 * 16;
                low.template add<g>(first, x.bytes(at) + g % 4 * 4);
                high.template add<g>(second, x.bytes(at + 32) + g % 4 * 4);
            });
            const auto add = [&](Products<largest> & products, int64_t half) HWY_ATTR {
                const Vec sum_of_x = x.sum_of_32(i + 64 * j + 32 * half);
                for (size_t h = 0; h < 2; ++h) {
                    scaled[h] = hn::MulAdd(products.get(h), part.bytes<uint8_t>(Strip::scales + half * strip_rows, h),
                                           scaled[h]);
                    below[h] =
                        hn::MulAdd(sum_of_x, part.bytes<uint8_t>(Strip::minima + half * strip_rows, h), below[h]);
                }
            };
            add(low, 0);
            add(high, 1);
        }
        for (size_t h = 0; h < 2; ++h) {
            sums[h] = hn::MulAdd(scaled[h], of.halves(Strip::d, h), sums[h]);
            sums[h] = hn::NegMulAdd(below[h], of.halves(Strip::dmin, h), sums[h]);
        }
    });
}

HWY_FLATTEN void dot_q6_k(const uint8_t * strip, int64_t n, const XRow & x, float * out) {
    using Strip = Q6_KStrip;
    for_blocks<Strip>(strip, n, out, [&](const Fields & of, int64_t i, TwoVecs & sums) HWY_ATTR {
        TwoVecs scaled{hn::Zero(Floats()), hn::Zero(Floats())};
        for (int64_t j = 0; j < 8; ++j) {
            const Fields part = of.template part<Strip>(j);
            const int64_t first = i + Strip::first_element(j), second = first + 64;
            const auto start = [&](int64_t at) HWY_ATTR { return x.starts[at / 32].of_6_bits[j % 2]; };
            Products<63> low(start(first)), high(start(second));
            const TwoCodes bits[2] = {part.codes(0), part.codes(1)};
            unrolled<4>([&](auto g) HWY_ATTR {
                const TwoCodes codes = part.codes(g, Strip::nibbles);
                low.template add<g>(with_bits<0x30, 4 - 4 * (g % 2)>(low_nibbles(codes), bits[g / 2]),
                                    x.bytes(first) + 4 * g);
                high.template add<g>(with_bits<0x30, 2 - 4 * (g % 2)>(high_nibbles(codes), bits[g / 2]),
                                     x.bytes(second) + 4 * g);
            });
            for (size_t h = 0; h < 2; ++h) {
                scaled[h] = hn::MulAdd(low.get(h), part.bytes<int8_t>(Strip::scales, h), scaled[h]);
                scaled[h] = hn::MulAdd(high.get(h), part.bytes<int8_t>(Strip::scales + strip_rows, h), scaled[h]);
            }
        }
        for (size_t h = 0; h < 2; ++h) sums[h] = hn::MulAdd(scaled[h], of.halves(Strip::d, h), sums[h]);
    });
}

void DotStrip(ggml_type type, const uint8_t * strip, int64_t n, const DotInput & x, float * out, int64_t stride) {
    for (int64_t t = 0; t < x.rows; ++t, out += stride) {
        const XRow row{x.planes + 2 * t * x.stride, x.sums + t * x.stride / 16, x.starts + t * x.stride / 32};
        switch (type) {
            case GGML_TYPE_Q4_0: dot_q4_0(strip, n, row, out); break;
            case GGML_TYPE_Q4_1: dot_q4_1(strip, n, row, out); break;
            case GGML_TYPE_Q8_0: dot_q8_0(strip, n, row, out); break;
            case GGML_TYPE_Q4_K: dot_k<false>(strip, n, row, out); break;
            case GGML_TYPE_Q5_K: dot_k<true>(strip, n, row, out); break;
            default: dot_q6_k(strip, n, row, out); break;
        }
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
