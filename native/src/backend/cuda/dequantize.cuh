// The blocks of ggml's types as floats, 32 elements ("a piece") at a time, by the arithmetic of ggml's to_float, so
// that every device sees the same weights. A piece is read into registers first and expanded later, so that other work
// can cover the time that memory takes.
//
// Layouts (ggml-common.h), all little endian and packed. 32 elements: Q4_0 {f16 d; u8 q[16]}, Q4_1 {f16 d, m; u8
// q[16]}, Q5_0 {f16 d; u32 h; u8 q[16]}, Q5_1 {f16 d, m; u32 h; u8 q[16]}, Q8_0 {f16 d; i8 q[32]}, IQ4_NL {f16 d; u8
// q[16]}, MXFP4 {u8 e; u8 q[16]}. 256 elements: Q2_K {u8 scales[16]; u8 q[64]; f16 d, dmin}, Q3_K {u8 h[32]; u8 q[64];
// u8 scales[12]; f16 d}, Q4_K {f16 d, dmin; u8 scales[12]; u8 q[128]}, Q5_K {f16 d, dmin; u8 scales[12]; u8 h[32]; u8
// q[128]}, Q6_K {u8 low[128]; u8 high[64]; i8 scales[16]; f16 d}, IQ4_XS {f16 d; u16 scales_h; u8 scales_l[4]; u8
// q[128]}.
#pragma once

#include "backend/cuda/device.cuh"

#include <ggml.h>

#include <type_traits>

// f may be a function of either side.
#ifdef __CUDACC__
#define LORICA_HOST_OR_DEVICE_CALL _Pragma("nv_exec_check_disable")
#else
#define LORICA_HOST_OR_DEVICE_CALL
#endif

namespace lorica::cuda {

constexpr int piece_size = 32;

// Blocks that kernels expand; F32, F16 and BF16 besides.
constexpr bool has_blocks_on_device(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_Q3_K:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_Q6_K:
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_IQ4_XS:
        case GGML_TYPE_MXFP4: return true;
        default: return false;
    }
}
constexpr bool is_plain(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

// A piece as its blocks hold it: quants first.
struct RawPiece {
    uint32_t w[16];
};

// n words from any address: aligned words around them, shifted into place. Up to 4 bytes after them are read, too.
template <int n> __device__ __forceinline__ void load_words(const uint8_t * p, uint32_t * w) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const auto * aligned = reinterpret_cast<const uint32_t *>(address & ~uintptr_t{3});
    const auto shift = static_cast<uint32_t>(address & 3) * 8;
    uint32_t previous = __ldg(aligned);
    for (int i = 0; i < n; ++i) {
        const uint32_t next = __ldg(aligned + i + 1);
        w[i] = static_cast<uint32_t>(((uint64_t{next} << 32) | previous) >> shift);
        previous = next;
    }
}
template <int n> __device__ __forceinline__ void load_aligned_words(const uint8_t * p, uint32_t * w) {
    for (int i = 0; i < n; ++i) w[i] = __ldg(reinterpret_cast<const uint32_t *>(p) + i);
}
template <int n> __device__ __forceinline__ void load_quads(const uint8_t * p, uint32_t * w) {
    for (int i = 0; i < n; ++i) {
        const uint4 quad = __ldg(reinterpret_cast<const uint4 *>(p) + i);
        w[4 * i] = quad.x;
        w[4 * i + 1] = quad.y;
        w[4 * i + 2] = quad.z;
        w[4 * i + 3] = quad.w;
    }
}
__device__ __forceinline__ uint32_t load_half(const uint8_t * p) {
    return __ldg(reinterpret_cast<const uint16_t *>(p));
}
__device__ __forceinline__ uint32_t byte_of(uint32_t word, int i) { return (word >> (8 * i)) & 255; }

// Scale and minimum j of Q4_K and Q5_K, 6 bits each in twelve bytes, as scale | min << 8.
__device__ __forceinline__ uint32_t k_scale(const uint8_t * s, int j) {
    const uint32_t a = __ldg(s + (j & 3)), b = __ldg(s + 4 + (j & 3));
    if (j < 4) return (a & 63) | (b & 63) << 8;
    const uint32_t c = __ldg(s + 4 + j);
    return (c & 15) | (a >> 6) << 4 | (c >> 4 | (b >> 6) << 4) << 8;
}

template <ggml_type type> __device__ __forceinline__ void load_raw(const uint8_t * row, int64_t piece, RawPiece & raw) {
    const auto j = static_cast<int>(piece % 8);  // of a block of 256
    uint32_t * w = raw.w;
    if constexpr (type == GGML_TYPE_Q4_0 || type == GGML_TYPE_IQ4_NL) {
        const uint8_t * block = row + piece * 18;
        load_words<4>(block + 2, w);
        w[4] = load_half(block);
    } else if constexpr (type == GGML_TYPE_Q4_1) {
        const uint8_t * block = row + piece * 20;
        load_aligned_words<4>(block + 4, w);
        load_aligned_words<1>(block, w + 4);
    } else if constexpr (type == GGML_TYPE_Q5_0) {
        const uint8_t * block = row + piece * 22;
        load_words<4>(block + 6, w);
        w[4] = load_half(block);
        load_words<1>(block + 2, w + 5);
    } else if constexpr (type == GGML_TYPE_Q5_1) {
        const uint8_t * block = row + piece * 24;
        load_aligned_words<4>(block + 8, w);
        load_aligned_words<2>(block, w + 4);
    } else if constexpr (type == GGML_TYPE_Q8_0) {
        const uint8_t * block = row + piece * 34;
        load_words<8>(block + 2, w);
        w[8] = load_half(block);
    } else if constexpr (type == GGML_TYPE_MXFP4) {
        const uint8_t * block = row + piece * 17;
        load_words<4>(block + 1, w);
        w[4] = __ldg(block);
    } else if constexpr (type == GGML_TYPE_Q2_K) {
        const uint8_t * block = row + piece / 8 * 84;
        load_aligned_words<8>(block + 16 + j / 4 * 32, w);
        w[8] = load_half(block + 2 * j);
        load_aligned_words<1>(block + 80, w + 9);
        w[10] = static_cast<uint32_t>(j);
    } else if constexpr (type == GGML_TYPE_Q3_K) {
        const uint8_t * block = row + piece / 8 * 110;
        uint32_t high[8];
        load_words<8>(block, high);
        load_words<8>(block + 32 + j / 4 * 32, w);
        for (int i = 0; i < 8; ++i) {
            // bits 2 and 3 of each byte: the quant's two bits and the inverse of the high one
            w[i] = ((w[i] >> (2 * (j % 4))) & 0x03030303u) | ((high[i] >> j) & 0x01010101u) << 2;
        }
        const uint8_t * s = block + 96;
        w[8] = 0;
        for (int i = 0; i < 2; ++i) {
            const int k = 2 * j + i;
            const uint32_t low = __ldg(s + k % 8), top = __ldg(s + 8 + k % 4);
            w[8] |= ((k < 8 ? low & 15 : low >> 4) | (top >> (2 * (k / 4)) & 3) << 4) << (8 * i);
        }
        w[9] = load_half(block + 108);
    } else if constexpr (type == GGML_TYPE_Q4_K) {
        const uint8_t * block = row + piece / 8 * 144;
        load_quads<2>(block + 16 + j / 2 * 32, w);
        for (int i = 0; i < 8; ++i) w[i] = (w[i] >> (4 * (j % 2))) & 0x0f0f0f0fu;
        load_aligned_words<1>(block, w + 8);
        w[9] = k_scale(block + 4, j);
    } else if constexpr (type == GGML_TYPE_Q5_K) {
        const uint8_t * block = row + piece / 8 * 176;
        uint32_t high[8];
        load_quads<2>(block + 16, high);
        load_quads<2>(block + 48 + j / 2 * 32, w);
        for (int i = 0; i < 8; ++i) {
            w[i] = ((w[i] >> (4 * (j % 2))) & 0x0f0f0f0fu) | ((high[i] >> j) & 0x01010101u) << 4;
        }
        load_aligned_words<1>(block, w + 8);
        w[9] = k_scale(block + 4, j);
    } else if constexpr (type == GGML_TYPE_Q6_K) {
        const uint8_t * block = row + piece / 8 * 210;
        const int half = j / 4, part = j % 4;  // 128 elements; 32 of them
        uint32_t high[8];
        load_words<8>(block + half * 64 + part % 2 * 32, w);
        load_words<8>(block + 128 + half * 32, high);
        for (int i = 0; i < 8; ++i) {
            w[i] = ((w[i] >> (part / 2 * 4)) & 0x0f0f0f0fu) | ((high[i] >> (2 * part)) & 0x03030303u) << 4;
        }
        w[8] = load_half(block + 192 + 2 * j);
        w[9] = load_half(block + 208);
    } else if constexpr (type == GGML_TYPE_IQ4_XS) {
        const uint8_t * block = row + piece / 8 * 136;
        load_aligned_words<4>(block + 8 + 16 * j, w);
        w[4] = load_half(block);
        const uint32_t low = __ldg(block + 4 + j / 2) >> (4 * (j % 2)) & 15;
        w[5] = low | (load_half(block + 2) >> (2 * j) & 3) << 4;
    } else {
        static_assert(is_plain(type));
        load_quads<4>(row + piece * 64, w);  // F16 and BF16
    }
}

// Entries of a table of 16 bytes in four words: those that the nibbles of four bytes name, each byte's low one first.
__device__ __forceinline__ uint2 table_entries_in_order(uint32_t nibbles, uint4 table) {
    const uint32_t within = nibbles & 0x77777777u;
    // A nibble's highest bit takes byte i of the second half's entries in place of byte i of the first half's.
    const uint32_t half = (nibbles >> 1 & 0x44444444u) | 0x32103210u;
    auto four = [&](int shift) {
        return bytes_at(bytes_at(table.x, table.y, within >> shift), bytes_at(table.z, table.w, within >> shift),
                        half >> shift);
    };
    return {four(0), four(16)};
}
// Those that the low nibbles name, and the high ones.
__device__ __forceinline__ uint2 table_entries(uint32_t nibbles, uint4 table) {
    const uint2 entries = table_entries_in_order(nibbles, table);
    return {__byte_perm(entries.x, entries.y, 0x6420), __byte_perm(entries.x, entries.y, 0x7531)};
}
// ggml's non-linear 4-bit levels, and 128: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113.
constexpr uint4 iq4_levels{0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
constexpr int iq4_raise = 128;
// Twice the values of FP4 (E2M1), and 16: 0 1 2 3 4 6 8 12 and their negatives.
constexpr uint4 fp4_levels{0x13121110u, 0x1c181614u, 0x0d0e0f10u, 0x04080a0cu};
constexpr int fp4_raise = 16;

// Byte i of a word as a number: it is put into the mantissa of 2^23, which costs less than a conversion.
__device__ __forceinline__ float byte_as_float(uint32_t word, int i) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u | static_cast<uint32_t>(i))) - 8388608.0f;
}

// Half of 2^(exponent - 127), which may be subnormal.
__device__ __forceinline__ float half_of_power(uint32_t exponent) {
    return __uint_as_float(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
}

// Bits of a quant where values are scale * quant + offset; 0: other types.
constexpr int quant_bits(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q2_K: return 2;
        case GGML_TYPE_Q3_K: return 3;
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_K: return 4;
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_K:
        case GGML_TYPE_MXFP4: return 5;
        case GGML_TYPE_Q6_K: return 6;
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_IQ4_XS:
        case GGML_TYPE_Q8_0: return 8;
        default: return 0;
    }
}
// What is added to a quant of ggml so that it is not negative, where a scale alone makes its value.
constexpr int quant_raise(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q3_K: return 4;
        case GGML_TYPE_Q4_0: return 8;
        case GGML_TYPE_Q5_0: return 16;
        case GGML_TYPE_Q6_K: return 32;
        case GGML_TYPE_Q8_0: return 128;
        case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_IQ4_XS: return iq4_raise;
        case GGML_TYPE_MXFP4: return fp4_raise;
        default: return 0;
    }
}
// A piece of such a type: quants as bytes in order; scale and offset of either half.
struct Quants {
    uint32_t q[8];
    float scale[2], offset[2];
};

template <ggml_type type> __device__ __forceinline__ Quants quants_of(const RawPiece & raw) {
    static_assert(quant_bits(type) > 0);
    const uint32_t * w = raw.w;
    constexpr auto raise = static_cast<float>(quant_raise(type));
    Quants quants;
    auto nibbles = [&] {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            quants.q[i] = w[i] & 0x0f0f0f0fu;
            quants.q[4 + i] = w[i] >> 4 & 0x0f0f0f0fu;
        }
    };
    auto fifth_bits = [&](uint32_t bits) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            // bit k of four to byte k
            quants.q[i] |= ((bits >> (4 * i) & 15) * 0x00204081u & 0x01010101u) << 4;
        }
    };
    auto levels = [&](uint4 table) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 entries = table_entries(w[i], table);
            quants.q[i] = entries.x;
            quants.q[4 + i] = entries.y;
        }
    };
    auto bytes = [&] {
#pragma unroll
        for (int i = 0; i < 8; ++i) quants.q[i] = w[i];
    };
    auto set = [&](int half, float scale, float offset) {
        quants.scale[half] = scale;
        quants.offset[half] = offset;
    };
    auto set_both = [&](float scale, float offset) {
        set(0, scale, offset);
        set(1, scale, offset);
    };
    if constexpr (type == GGML_TYPE_Q4_0) {
        const float d = half_bits_to_float(w[4]);
        nibbles();
        set_both(d, -raise * d);
    } else if constexpr (type == GGML_TYPE_Q4_1) {
        nibbles();
        set_both(half_bits_to_float(w[4] & 0xffff), half_bits_to_float(w[4] >> 16));
    } else if constexpr (type == GGML_TYPE_Q5_0) {
        const float d = half_bits_to_float(w[4]);
        nibbles();
        fifth_bits(w[5]);
        set_both(d, -raise * d);
    } else if constexpr (type == GGML_TYPE_Q5_1) {
        nibbles();
        fifth_bits(w[5]);
        set_both(half_bits_to_float(w[4] & 0xffff), half_bits_to_float(w[4] >> 16));
    } else if constexpr (type == GGML_TYPE_Q8_0) {
        const float d = half_bits_to_float(w[8]);
#pragma unroll
        for (int i = 0; i < 8; ++i) quants.q[i] = w[i] ^ 0x80808080u;
        set_both(d, -raise * d);
    } else if constexpr (type == GGML_TYPE_Q2_K) {
        const float d = half_bits_to_float(w[9] & 0xffff), dmin = half_bits_to_float(w[9] >> 16);
        const int shift = static_cast<int>(w[10] % 4) * 2;
#pragma unroll
        for (int i = 0; i < 8; ++i) quants.q[i] = w[i] >> shift & 0x03030303u;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint32_t s = byte_of(w[8], half);
            set(half, d * static_cast<float>(s & 15), -(dmin * static_cast<float>(s >> 4)));
        }
    } else if constexpr (type == GGML_TYPE_Q3_K) {
        const float d = half_bits_to_float(w[9]);
        bytes();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float scale = d * static_cast<float>(static_cast<int>(byte_of(w[8], half)) - 32);
            set(half, scale, -raise * scale);
        }
    } else if constexpr (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K) {
        bytes();
        set_both(half_bits_to_float(w[8] & 0xffff) * static_cast<float>(w[9] & 255),
                 -(half_bits_to_float(w[8] >> 16) * static_cast<float>(w[9] >> 8)));
    } else if constexpr (type == GGML_TYPE_IQ4_NL) {
        levels(iq4_levels);
        const float d = half_bits_to_float(w[4]);
        set_both(d, -raise * d);
    } else if constexpr (type == GGML_TYPE_IQ4_XS) {
        levels(iq4_levels);
        const float scale = half_bits_to_float(w[4]) * static_cast<float>(static_cast<int>(w[5]) - 32);
        set_both(scale, -raise * scale);
    } else if constexpr (type == GGML_TYPE_MXFP4) {
        levels(fp4_levels);
        const float d = half_of_power(w[4]);
        set_both(d, -raise * d);
    } else {
        static_assert(type == GGML_TYPE_Q6_K);
        const float d = half_bits_to_float(w[9]);
        bytes();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float scale = d * static_cast<float>(static_cast<int8_t>(byte_of(w[8], half)));
            set(half, scale, -raise * scale);
        }
    }
    return quants;
}

// Byte i of a word with 2^7 added, or 2^15 to one of more than seven bits: it is put into the mantissa of such a
// number.
template <int bits> constexpr float byte_base = bits <= 7 ? 128.0f : 32768.0f;
template <int bits> __device__ __forceinline__ float based_byte(uint32_t word, int i) {
    const auto byte = static_cast<uint32_t>(i);
    return __uint_as_float(bits <= 7 ? __byte_perm(word, 0x43000000u, 0x7044u | byte << 8)
                                     : __byte_perm(word, 0x47000000u, 0x7604u | byte << 4));
}
// Values of quants of so many bits with a scale and an offset, rounded once: as ggml rounds them, where it multiplies
// first, because a product of a scale (of 17 bits at most) and a quant needs no rounding.
template <int bits> struct Expansion {
    float scale, offset;
    __device__ __forceinline__ float of(uint32_t word, int i) const {
        return fmaf(based_byte<bits>(word, i) - byte_base<bits>, scale, offset);
    }
};
// The same where ggml multiplies a quant less a constant: an instruction less. The number that is added has the bits of
// the scale and those of byte_base + raise, 24 at most.
template <int bits, int raise> struct RaisedExpansion {
    float scale, offset;
    __device__ __forceinline__ explicit RaisedExpansion(float scale_)
        : scale(scale_), offset(-(byte_base<bits> + static_cast<float>(raise)) * scale_) {}
    __device__ __forceinline__ float of(uint32_t word, int i) const {
        return fmaf(based_byte<bits>(word, i), scale, offset);
    }
};
constexpr bool has_raised_expansion(ggml_type type) {
    // Not IQ4_XS, whose scales have too many bits for what its quants need, nor MXFP4, whose scales can be too large.
    return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q3_K ||
           type == GGML_TYPE_Q6_K || type == GGML_TYPE_IQ4_NL;
}

template <ggml_type type> __device__ __forceinline__ void expand_quants(const Quants & quants, float * v) {
    constexpr int bits = quant_bits(type);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float scale = quants.scale[half];
        auto expand = [&](auto by) {
#pragma unroll
            for (int i = 16 * half; i < 16 * half + 16; ++i) v[i] = by.of(quants.q[i / 4], i % 4);
        };
        if constexpr (has_raised_expansion(type)) {
            expand(RaisedExpansion<bits, quant_raise(type)>(scale));
        } else if constexpr (type == GGML_TYPE_MXFP4) {
#pragma unroll
            for (int i = 16 * half; i < 16 * half + 16; ++i) {
                v[i] = (based_byte<bits>(quants.q[i / 4], i % 4) - (byte_base<bits> + fp4_raise)) * scale;
            }
        } else {
            expand(Expansion<bits>{scale, quants.offset[half]});
        }
    }
}

template <ggml_type type> __device__ __forceinline__ void expand_raw(const RawPiece & raw, float * v) {
    if constexpr (quant_bits(type) > 0) {
        expand_quants<type>(quants_of<type>(raw), v);
    } else {
        static_assert(is_plain(type));
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            v[2 * i] = type == GGML_TYPE_F16 ? half_bits_to_float(raw.w[i] & 0xffff) : low_bf16(raw.w[i]);
            v[2 * i + 1] = type == GGML_TYPE_F16 ? half_bits_to_float(raw.w[i] >> 16) : high_bf16(raw.w[i]);
        }
    }
}

// Calls f(std::integral_constant<ggml_type, type>) for a type with blocks on the device. scripts/cuda_instructions.py
// compiles kernels for a single type, to count what they execute for it.
LORICA_HOST_OR_DEVICE_CALL
template <typename F> __host__ __device__ __forceinline__ void with_block_type(int type, F f) {
#ifdef LORICA_CUDA_ONLY_TYPE
    constexpr auto only = static_cast<ggml_type>(LORICA_CUDA_ONLY_TYPE);
    if (type == only) f(std::integral_constant<ggml_type, only>());
#else
#define LORICA_CASE(name) \
    case name: f(std::integral_constant<ggml_type, name>()); break;
    switch (type) {
        LORICA_CASE(GGML_TYPE_Q4_0)
        LORICA_CASE(GGML_TYPE_Q4_1)
        LORICA_CASE(GGML_TYPE_Q5_0)
        LORICA_CASE(GGML_TYPE_Q5_1)
        LORICA_CASE(GGML_TYPE_Q8_0)
        LORICA_CASE(GGML_TYPE_Q2_K)
        LORICA_CASE(GGML_TYPE_Q3_K)
        LORICA_CASE(GGML_TYPE_Q4_K)
        LORICA_CASE(GGML_TYPE_Q5_K)
        LORICA_CASE(GGML_TYPE_Q6_K)
        LORICA_CASE(GGML_TYPE_IQ4_NL)
        LORICA_CASE(GGML_TYPE_IQ4_XS)
        LORICA_CASE(GGML_TYPE_MXFP4)
        default: break;
    }
#undef LORICA_CASE
#endif
}

// As with_block_type, for F16, too, which products with bf16 operands expand.
template <typename F> __device__ __forceinline__ void with_fused_type(int type, F f) {
#ifndef LORICA_CUDA_ONLY_TYPE
    if (type == GGML_TYPE_F16) return f(std::integral_constant<ggml_type, GGML_TYPE_F16>());
#endif
    with_block_type(type, f);
}

// Element i of a row of F32, F16 or BF16.
template <ggml_type type> __device__ __forceinline__ float plain_element(const uint8_t * row, int64_t i) {
    if constexpr (type == GGML_TYPE_F32) {
        return __ldg(reinterpret_cast<const float *>(row) + i);
    } else {
        const uint32_t bits = __ldg(reinterpret_cast<const uint16_t *>(row) + i);
        return type == GGML_TYPE_F16 ? half_bits_to_float(bits) : low_bf16(bits);
    }
}

// v = piece `piece` of a row of any type on the device. Of plain types n elements are there, the rest becomes 0.
template <ggml_type type>
__device__ __forceinline__ void expand_piece(const uint8_t * row, int64_t piece, int n, float * v) {
    if constexpr (is_plain(type)) {
#pragma unroll
        for (int i = 0; i < piece_size; ++i) v[i] = i < n ? plain_element<type>(row, piece * piece_size + i) : 0.0f;
    } else {
        RawPiece raw;
        load_raw<type>(row, piece, raw);
        expand_raw<type>(raw, v);
    }
}

// As with_block_type, for plain types, too.
LORICA_HOST_OR_DEVICE_CALL
template <typename F> __host__ __device__ __forceinline__ void with_device_type(int type, F f) {
    switch (type) {
        case GGML_TYPE_F32: f(std::integral_constant<ggml_type, GGML_TYPE_F32>()); break;
        case GGML_TYPE_F16: f(std::integral_constant<ggml_type, GGML_TYPE_F16>()); break;
        case GGML_TYPE_BF16: f(std::integral_constant<ggml_type, GGML_TYPE_BF16>()); break;
        default: with_block_type(type, f);
    }
}

}  // namespace lorica::cuda
