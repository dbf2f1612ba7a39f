// Blocks of the common weight types expanded by vector code. Included once per target.
//
// for_pieces(type, row, first, count, sink) hands elements [first, first + count) of a row of blocks, exactly as ggml's
// to_float gives them, to sink(values, at, i) a vector at a time: they are elements first + at + i, at the start of a
// piece of 32, i a constant within it. They come in their order. `first` and `count` are multiples of 32. can_expand()
// says for which types; the others go through ggml.
//
// Block layouts (ggml-common.h): 32 elements of Q4_0 {f16 d; u8 q[16]}, Q4_1 {f16 d, m; u8 q[16]}, Q5_0 {f16 d; u32 h;
// u8 q[16]}, Q5_1 {f16 d, m; u32 h; u8 q[16]}, Q8_0 {f16 d; i8 q[32]}; 256 elements of Q4_K {f16 d, dmin; u8
// scales[12]; u8 q[128]}, Q5_K {f16 d, dmin; u8 scales[12]; u8 h[32]; u8 q[128]}, Q6_K {u8 low[128]; u8 high[64]; i8
// scales[16]; f16 d}.
#if defined(LORICA_CPU_DEQUANTIZE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_CPU_DEQUANTIZE_INL_H
#undef LORICA_CPU_DEQUANTIZE_INL_H
#else
#define LORICA_CPU_DEQUANTIZE_INL_H
#endif

#include <ggml.h>

#include <cstring>

#include "backend/cpu/k_scales.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Bytes = hn::Rebind<uint8_t, Floats>;
using ByteVec = hn::Vec<Bytes>;
constexpr int64_t lanes = static_cast<int64_t>(n_lanes);

// The f16 at p in every lane.
HWY_INLINE Vec half_at(const uint8_t * p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    const hn::Rebind<hwy::float16_t, Floats> d;
    return hn::PromoteTo(Floats(), hn::BitCast(d, hn::Set(hn::RebindToUnsigned<decltype(d)>(), bits)));
}

HWY_INLINE Vec to_floats(ByteVec q) { return hn::ConvertTo(Floats(), hn::PromoteTo(hn::RebindToSigned<Floats>(), q)); }
HWY_INLINE Vec to_floats_signed(const uint8_t * q) {
    const hn::Rebind<int8_t, Floats> d;
    return hn::ConvertTo(
        Floats(), hn::PromoteTo(hn::RebindToSigned<Floats>(), hn::LoadU(d, reinterpret_cast<const int8_t *>(q))));
}

// Sixteen packed bytes hold elements 0 to 15 in their low and 16 to 31 in their high nibbles.
template <typename Sink, typename Value>
HWY_INLINE void expand_nibbles(const uint8_t * q, int64_t at, const Sink & sink, const Value & value) {
    const Bytes d;
    for (int64_t i = 0; i < 16; i += lanes) sink(value(hn::And(hn::LoadU(d, q + i), hn::Set(d, 15)), i), at, i);
    for (int64_t i = 0; i < 16; i += lanes) sink(value(hn::ShiftRight<4>(hn::LoadU(d, q + i)), 16 + i), at, 16 + i);
}

// Bit i of the four bytes at h as 16 where it is set, for elements first to first + lanes.
HWY_INLINE ByteVec fifth_bits(const uint8_t * h, int64_t first) {
    uint32_t bits;
    std::memcpy(&bits, h, 4);
    uint8_t values[16];
    for (int64_t i = 0; i < lanes; ++i) values[i] = static_cast<uint8_t>(((bits >> (first + i)) & 1) << 4);
    return hn::LoadU(Bytes(), values);
}

// Scale and minimum j of a K block: 6 bits each, packed into twelve bytes.
struct ScaleMin {
    Vec scale, min;
};
HWY_INLINE ScaleMin k_scale(const uint8_t * block, int64_t j) {
    const KScales all = k_scales_at(block + 4);
    const auto of_part = [&](uint64_t bytes)
                             HWY_ATTR { return hn::Set(Floats(), static_cast<float>((bytes >> (8 * j)) & 63)); };
    return {hn::Mul(half_at(block), of_part(all.scales)), hn::Mul(half_at(block + 2), of_part(all.minima))};
}

// All eight of them at once.
HWY_INLINE void k_scales(const uint8_t * block, float * scales, float * minima) {
    const KScales all = k_scales_at(block + 4);
    const hn::CappedTag<float, 8> d;
    const auto put = [&](const uint64_t & bytes, float unit, float * to) HWY_ATTR {
        const hn::Rebind<uint8_t, decltype(d)> d8;
        for (size_t i = 0; i < 8; i += hn::Lanes(d)) {
            const auto q = hn::LoadU(d8, reinterpret_cast<const uint8_t *>(&bytes) + i);
            hn::StoreU(hn::Mul(hn::ConvertTo(d, hn::PromoteTo(hn::RebindToSigned<decltype(d)>(), q)), hn::Set(d, unit)),
                       d, to + i);
        }
    };
    put(all.scales, hn::GetLane(half_at(block)), scales);
    put(all.minima, hn::GetLane(half_at(block + 2)), minima);
}

// Piece `piece` (32 elements) of the row.
template <typename Sink>
HWY_INLINE void expand_q4_0(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece * 18;
    const Floats d;
    const Vec scale = half_at(block), eight = hn::Set(d, 8.0f);
    expand_nibbles(block + 2, at, sink,
                   [&](ByteVec q, int64_t) { return hn::Mul(hn::Sub(to_floats(q), eight), scale); });
}

template <typename Sink>
HWY_INLINE void expand_q4_1(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece * 20;
    const Vec scale = half_at(block), min = half_at(block + 2);
    expand_nibbles(block + 4, at, sink, [&](ByteVec q, int64_t) { return hn::Add(hn::Mul(to_floats(q), scale), min); });
}

template <typename Sink>
HWY_INLINE void expand_q5_0(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece * 22;
    const Vec scale = half_at(block), sixteen = hn::Set(Floats(), 16.0f);
    expand_nibbles(block + 6, at, sink, [&](ByteVec q, int64_t i) {
        return hn::Mul(hn::Sub(to_floats(hn::Or(q, fifth_bits(block + 2, i))), sixteen), scale);
    });
}

template <typename Sink>
HWY_INLINE void expand_q5_1(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece * 24;
    const Vec scale = half_at(block), min = half_at(block + 2);
    expand_nibbles(block + 8, at, sink, [&](ByteVec q, int64_t i) {
        return hn::Add(hn::Mul(to_floats(hn::Or(q, fifth_bits(block + 4, i))), scale), min);
    });
}

template <typename Sink>
HWY_INLINE void expand_q8_0(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece * 34;
    const Vec scale = half_at(block);
    for (int64_t i = 0; i < 32; i += lanes) sink(hn::Mul(to_floats_signed(block + 2 + i), scale), at, i);
}

template <typename Sink>
HWY_INLINE void expand_q4_k(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece / 8 * 144;
    const int64_t j = piece % 8;
    const ScaleMin s = k_scale(block, j);
    const Vec scale = s.scale, min = s.min;
    const uint8_t * q = block + 16 + j / 2 * 32;
    const Bytes d;
    for (int64_t i = 0; i < 32; i += lanes) {
        const ByteVec both = hn::LoadU(d, q + i);
        const ByteVec nibble = j % 2 == 0 ? hn::And(both, hn::Set(d, 15)) : hn::ShiftRight<4>(both);
        sink(hn::Sub(hn::Mul(to_floats(nibble), scale), min), at, i);
    }
}

template <typename Sink>
HWY_INLINE void expand_q5_k(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece / 8 * 176;
    const int64_t j = piece % 8;
    const ScaleMin s = k_scale(block, j);
    const Vec scale = s.scale, min = s.min;
    const uint8_t *high = block + 16, *q = block + 48 + j / 2 * 32;
    const Bytes d;
    const ByteVec bit = hn::Set(d, static_cast<uint8_t>(1 << j)), sixteen = hn::Set(d, 16);
    for (int64_t i = 0; i < 32; i += lanes) {
        const ByteVec both = hn::LoadU(d, q + i);
        const ByteVec nibble = j % 2 == 0 ? hn::And(both, hn::Set(d, 15)) : hn::ShiftRight<4>(both);
        const auto is_set = hn::Ne(hn::And(hn::LoadU(d, high + i), bit), hn::Zero(d));
        const ByteVec value = hn::Or(nibble, hn::IfThenElseZero(is_set, sixteen));
        sink(hn::Sub(hn::Mul(to_floats(value), scale), min), at, i);
    }
}

template <typename Sink>
HWY_INLINE void expand_q6_k(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const uint8_t * block = row + piece / 8 * 210;
    const int64_t half = piece % 8 / 4, part = piece % 4;  // 128 elements; 32 of them
    const uint8_t *low = block + half * 64 + part % 2 * 32, *high = block + 128 + half * 32;
    const auto * scales = reinterpret_cast<const int8_t *>(block + 192) + half * 8 + part * 2;
    const Vec d = half_at(block + 208);
    const Bytes db;
    const ByteVec three = hn::Set(db, 3);
    const Vec center = hn::Set(Floats(), 32.0f);
    for (int64_t i = 0; i < 32; i += lanes) {
        const Vec scale = hn::Mul(d, hn::Set(Floats(), static_cast<float>(scales[i / 16])));
        const ByteVec both = hn::LoadU(db, low + i), bits = hn::LoadU(db, high + i);
        const ByteVec nibble = part < 2 ? hn::And(both, hn::Set(db, 15)) : hn::ShiftRight<4>(both);
        const ByteVec shifted = part == 0   ? bits
                                : part == 1 ? hn::ShiftRight<2>(bits)
                                : part == 2 ? hn::ShiftRight<4>(bits)
                                            : hn::ShiftRight<6>(bits);
        const ByteVec value = hn::Or(nibble, hn::ShiftLeft<4>(hn::And(shifted, three)));
        sink(hn::Mul(hn::Sub(to_floats(value), center), scale), at, i);
    }
}

template <typename Sink> HWY_INLINE void expand_f16(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    const hn::Rebind<hwy::float16_t, Floats> d;
    const auto * x = reinterpret_cast<const hwy::float16_t *>(row) + piece * 32;
    for (int64_t i = 0; i < 32; i += lanes) sink(hn::PromoteTo(Floats(), hn::LoadU(d, x + i)), at, i);
}

template <typename Sink>
HWY_INLINE void expand_bf16(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    for (int64_t i = 0; i < 32; i += lanes) sink(load(reinterpret_cast<const Bf16 *>(row) + piece * 32 + i), at, i);
}

template <typename Sink> HWY_INLINE void expand_f32(const uint8_t * row, int64_t piece, int64_t at, const Sink & sink) {
    for (int64_t i = 0; i < 32; i += lanes) sink(load(reinterpret_cast<const float *>(row) + piece * 32 + i), at, i);
}

HWY_INLINE bool can_expand(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K: return true;
        default: return false;
    }
}

template <typename Sink>
HWY_INLINE void for_pieces(ggml_type type, const std::byte * blocks, int64_t first, int64_t count, const Sink & sink) {
    const auto * row = reinterpret_cast<const uint8_t *>(blocks);
    auto each = [&](const auto & one) {
        for (int64_t i = 0; i < count; i += 32) one((first + i) / 32, i);
    };
    switch (type) {
        case GGML_TYPE_F16: return each([&](int64_t p, int64_t at) { expand_f16(row, p, at, sink); });
        case GGML_TYPE_BF16: return each([&](int64_t p, int64_t at) { expand_bf16(row, p, at, sink); });
        case GGML_TYPE_Q4_0: return each([&](int64_t p, int64_t at) { expand_q4_0(row, p, at, sink); });
        case GGML_TYPE_Q4_1: return each([&](int64_t p, int64_t at) { expand_q4_1(row, p, at, sink); });
        case GGML_TYPE_Q5_0: return each([&](int64_t p, int64_t at) { expand_q5_0(row, p, at, sink); });
        case GGML_TYPE_Q5_1: return each([&](int64_t p, int64_t at) { expand_q5_1(row, p, at, sink); });
        case GGML_TYPE_Q8_0: return each([&](int64_t p, int64_t at) { expand_q8_0(row, p, at, sink); });
        case GGML_TYPE_Q4_K: return each([&](int64_t p, int64_t at) { expand_q4_k(row, p, at, sink); });
        case GGML_TYPE_Q5_K: return each([&](int64_t p, int64_t at) { expand_q5_k(row, p, at, sink); });
        case GGML_TYPE_Q6_K: return each([&](int64_t p, int64_t at) { expand_q6_k(row, p, at, sink); });
        default: return each([&](int64_t p, int64_t at) { expand_f32(row, p, at, sink); });
    }
}

// out = the values, as f32 or bf16.
template <typename Out>
HWY_INLINE void expand(ggml_type type, const std::byte * blocks, int64_t first, int64_t count, Out * out) {
    for_pieces(type, blocks, first, count,
               [&](Vec values, int64_t at, int64_t i) HWY_ATTR { store(values, out + at + i); });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
