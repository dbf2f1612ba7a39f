// Blocks of the common quantized types expanded by vector code, as f32 or bf16. Included once per target.
//
// expand<Out>(type, row, first, count, out) gives elements [first, first + count) of a row of blocks, exactly as ggml's to_float
// would, then rounded to Out. It works in pieces of 32 elements, for which `first` and `count` must be multiples of 32 (the last piece
// of a row of another type, and types without code here, go through ggml: see can_expand).
//
// Block layouts (ggml-common.h): 32 elements of Q4_0 {f16 d; u8 q[16]}, Q4_1 {f16 d, m; u8 q[16]}, Q5_0 {f16 d; u32 h; u8 q[16]},
// Q5_1 {f16 d, m; u32 h; u8 q[16]}, Q8_0 {f16 d; i8 q[32]}; 256 elements of Q4_K {f16 d, dmin; u8 scales[12]; u8 q[128]},
// Q5_K {f16 d, dmin; u8 scales[12]; u8 h[32]; u8 q[128]}, Q6_K {u8 low[128]; u8 high[64]; i8 scales[16]; f16 d}.
#if defined(LORICA_CPU_DEQUANTIZE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_CPU_DEQUANTIZE_INL_H
#undef LORICA_CPU_DEQUANTIZE_INL_H
#else
#define LORICA_CPU_DEQUANTIZE_INL_H
#endif

#include <ggml.h>

#include <cstring>

#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Bytes = hn::Rebind<uint8_t, Floats>;
using ByteVec = hn::Vec<Bytes>;
constexpr int64_t lanes = static_cast<int64_t>(n_lanes);

HWY_INLINE float half_at(const uint8_t * p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return hwy::F32FromF16(hwy::BitCastScalar<hwy::float16_t>(bits));
}

HWY_INLINE Vec to_floats(ByteVec q) { return hn::ConvertTo(Floats(), hn::PromoteTo(hn::RebindToSigned<Floats>(), q)); }
HWY_INLINE Vec to_floats_signed(const uint8_t * q) {
    const hn::Rebind<int8_t, Floats> d;
    return hn::ConvertTo(Floats(), hn::PromoteTo(hn::RebindToSigned<Floats>(), hn::LoadU(d, reinterpret_cast<const int8_t *>(q))));
}

// Sixteen packed bytes hold elements 0 to 15 in their low and 16 to 31 in their high nibbles.
template <typename Out, typename Value>
HWY_INLINE void expand_nibbles(const uint8_t * q, Out * out, const Value & value) {
    const Bytes d;
    for (int64_t i = 0; i < 16; i += lanes) {
        const ByteVec both = hn::LoadU(d, q + i);
        store(value(hn::And(both, hn::Set(d, 15)), i), out + i);
        store(value(hn::ShiftRight<4>(both), 16 + i), out + 16 + i);
    }
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
    float scale, min;
};
HWY_INLINE ScaleMin k_scale(const uint8_t * block, int64_t j) {
    const uint8_t * s = block + 4;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    const int min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
    return {half_at(block) * static_cast<float>(scale), half_at(block + 2) * static_cast<float>(min)};
}

// Piece `piece` (32 elements) of the row.
template <typename Out>
HWY_INLINE void expand_q4_0(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece * 18;
    const Floats d;
    const Vec scale = hn::Set(d, half_at(block)), eight = hn::Set(d, 8.0f);
    expand_nibbles(block + 2, out, [&](ByteVec q, int64_t) { return hn::Mul(hn::Sub(to_floats(q), eight), scale); });
}

template <typename Out>
HWY_INLINE void expand_q4_1(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece * 20;
    const Vec scale = hn::Set(Floats(), half_at(block)), min = hn::Set(Floats(), half_at(block + 2));
    expand_nibbles(block + 4, out, [&](ByteVec q, int64_t) { return hn::Add(hn::Mul(to_floats(q), scale), min); });
}

template <typename Out>
HWY_INLINE void expand_q5_0(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece * 22;
    const Vec scale = hn::Set(Floats(), half_at(block)), sixteen = hn::Set(Floats(), 16.0f);
    expand_nibbles(block + 6, out, [&](ByteVec q, int64_t i) {
        return hn::Mul(hn::Sub(to_floats(hn::Or(q, fifth_bits(block + 2, i))), sixteen), scale);
    });
}

template <typename Out>
HWY_INLINE void expand_q5_1(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece * 24;
    const Vec scale = hn::Set(Floats(), half_at(block)), min = hn::Set(Floats(), half_at(block + 2));
    expand_nibbles(block + 8, out, [&](ByteVec q, int64_t i) {
        return hn::Add(hn::Mul(to_floats(hn::Or(q, fifth_bits(block + 4, i))), scale), min);
    });
}

template <typename Out>
HWY_INLINE void expand_q8_0(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece * 34;
    const Vec scale = hn::Set(Floats(), half_at(block));
    for (int64_t i = 0; i < 32; i += lanes) store(hn::Mul(to_floats_signed(block + 2 + i), scale), out + i);
}

template <typename Out>
HWY_INLINE void expand_q4_k(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece / 8 * 144;
    const int64_t j = piece % 8;
    const ScaleMin s = k_scale(block, j);
    const Vec scale = hn::Set(Floats(), s.scale), min = hn::Set(Floats(), s.min);
    const uint8_t * q = block + 16 + j / 2 * 32;
    const Bytes d;
    for (int64_t i = 0; i < 32; i += lanes) {
        const ByteVec both = hn::LoadU(d, q + i);
        const ByteVec nibble = j % 2 == 0 ? hn::And(both, hn::Set(d, 15)) : hn::ShiftRight<4>(both);
        store(hn::Sub(hn::Mul(to_floats(nibble), scale), min), out + i);
    }
}

template <typename Out>
HWY_INLINE void expand_q5_k(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece / 8 * 176;
    const int64_t j = piece % 8;
    const ScaleMin s = k_scale(block, j);
    const Vec scale = hn::Set(Floats(), s.scale), min = hn::Set(Floats(), s.min);
    const uint8_t *high = block + 16, *q = block + 48 + j / 2 * 32;
    const Bytes d;
    const ByteVec bit = hn::Set(d, static_cast<uint8_t>(1 << j)), sixteen = hn::Set(d, 16);
    for (int64_t i = 0; i < 32; i += lanes) {
        const ByteVec both = hn::LoadU(d, q + i);
        const ByteVec nibble = j % 2 == 0 ? hn::And(both, hn::Set(d, 15)) : hn::ShiftRight<4>(both);
        const auto is_set = hn::Ne(hn::And(hn::LoadU(d, high + i), bit), hn::Zero(d));
        const ByteVec value = hn::Or(nibble, hn::IfThenElseZero(is_set, sixteen));
        store(hn::Sub(hn::Mul(to_floats(value), scale), min), out + i);
    }
}

template <typename Out>
HWY_INLINE void expand_q6_k(const uint8_t * row, int64_t piece, Out * out) {
    const uint8_t * block = row + piece / 8 * 210;
    const int64_t half = piece % 8 / 4, part = piece % 4;  // 128 elements; 32 of them
    const uint8_t *low = block + half * 64 + part % 2 * 32, *high = block + 128 + half * 32;
    const auto * scales = reinterpret_cast<const int8_t *>(block + 192) + half * 8 + part * 2;
    const float d = half_at(block + 208);
    const Bytes db;
    const ByteVec three = hn::Set(db, 3);
    const Vec center = hn::Set(Floats(), 32.0f);
    for (int64_t i = 0; i < 32; i += lanes) {
        const Vec scale = hn::Set(Floats(), d * static_cast<float>(scales[i / 16]));
        const ByteVec both = hn::LoadU(db, low + i), bits = hn::LoadU(db, high + i);
        const ByteVec nibble = part < 2 ? hn::And(both, hn::Set(db, 15)) : hn::ShiftRight<4>(both);
        const ByteVec shifted = part == 0   ? bits
                                : part == 1 ? hn::ShiftRight<2>(bits)
                                : part == 2 ? hn::ShiftRight<4>(bits)
                                            : hn::ShiftRight<6>(bits);
        const ByteVec value = hn::Or(nibble, hn::ShiftLeft<4>(hn::And(shifted, three)));
        store(hn::Mul(hn::Sub(to_floats(value), center), scale), out + i);
    }
}

template <typename Out>
HWY_INLINE void expand_f16(const uint8_t * row, int64_t piece, Out * out) {
    const hn::Rebind<hwy::float16_t, Floats> d;
    const auto * x = reinterpret_cast<const hwy::float16_t *>(row) + piece * 32;
    for (int64_t i = 0; i < 32; i += lanes) store(hn::PromoteTo(Floats(), hn::LoadU(d, x + i)), out + i);
}

HWY_INLINE bool can_expand(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_F16: return true;
        default: return false;
    }
}

template <typename Out>
HWY_INLINE void expand(ggml_type type, const std::byte * blocks, int64_t first, int64_t count, Out * out) {
    const auto * row = reinterpret_cast<const uint8_t *>(blocks);
    const int64_t piece = first / 32, pieces = count / 32;
    auto each = [&](const auto & one) {
        for (int64_t i = 0; i < pieces; ++i) one(piece + i, out + i * 32);
    };
    switch (type) {
        case GGML_TYPE_Q4_0: return each([&](int64_t p, Out * o) { expand_q4_0(row, p, o); });
        case GGML_TYPE_Q4_1: return each([&](int64_t p, Out * o) { expand_q4_1(row, p, o); });
        case GGML_TYPE_Q5_0: return each([&](int64_t p, Out * o) { expand_q5_0(row, p, o); });
        case GGML_TYPE_Q5_1: return each([&](int64_t p, Out * o) { expand_q5_1(row, p, o); });
        case GGML_TYPE_Q8_0: return each([&](int64_t p, Out * o) { expand_q8_0(row, p, o); });
        case GGML_TYPE_Q4_K: return each([&](int64_t p, Out * o) { expand_q4_k(row, p, o); });
        case GGML_TYPE_Q5_K: return each([&](int64_t p, Out * o) { expand_q5_k(row, p, o); });
        case GGML_TYPE_Q6_K: return each([&](int64_t p, Out * o) { expand_q6_k(row, p, o); });
        default: return each([&](int64_t p, Out * o) { expand_f16(row, p, o); });
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
