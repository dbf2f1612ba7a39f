// Two neighbouring pieces of a weight's blocks, expanded to bf16 for the tiles of a product: 64 elements, a quarter of
// a unit of 256. They are read as they lie in memory, aligned words around what is wanted, and nothing is made of them
// before they are expanded: then no product waits for memory because a word is shifted into place before it.
//
// Where a block has an offset, what a quant is raised by to become a number's mantissa is taken off the offset once,
// not off each quant. What is rounded to bf16 (by up to 2^-8 of an element) is off by 2^-17 of a step of the quants for
// that; of IQ4_XS by 2^-9 of a step, of which its elements are 1 to 127.
#pragma once

#include "backend/cuda/dequantize.cuh"

namespace lorica::cuda {

constexpr int pair_size = 2 * piece_size, unit_size = 256;

constexpr int unit_bytes_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F16: return 512;
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_IQ4_NL: return 8 * 18;
        case GGML_TYPE_Q4_1: return 8 * 20;
        case GGML_TYPE_Q5_0: return 8 * 22;
        case GGML_TYPE_Q5_1: return 8 * 24;
        case GGML_TYPE_Q8_0: return 8 * 34;
        case GGML_TYPE_MXFP4: return 8 * 17;
        case GGML_TYPE_Q2_K: return 84;
        case GGML_TYPE_Q3_K: return 110;
        case GGML_TYPE_Q4_K: return 144;
        case GGML_TYPE_Q5_K: return 176;
        case GGML_TYPE_Q6_K: return 210;
        case GGML_TYPE_IQ4_XS: return 136;
        default: return 0;
    }
}

// Then a row may end with half a pair.
constexpr bool has_blocks_of_32(ggml_type type) {
    return type == GGML_TYPE_F16 || type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_0 ||
           type == GGML_TYPE_Q5_1 || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_MXFP4;
}

struct RawPair {
    uint32_t w[16], more[16];
};

// Where a pair lies: addresses from which words are read.
struct PairPlace {
    const uint8_t * p[4];
    unsigned shift;  // bits from where aligned words begin to what is wanted

    // The same pair so many bytes later, a multiple of 4, of a weight whose rows are of the type.
    __device__ __forceinline__ void advance(int64_t n_bytes) {
#pragma unroll
        for (int i = 0; i < 4; ++i) p[i] += n_bytes;
    }
};

template <int n> __device__ __forceinline__ void load_doubles(const uint8_t * p, uint32_t * w) {
#pragma unroll
    for (int i = 0; i < n; ++i) {
        const uint2 two = __ldg(reinterpret_cast<const uint2 *>(p) + i);
        w[2 * i] = two.x;
        w[2 * i + 1] = two.y;
    }
}
__device__ __forceinline__ unsigned bytes_past_a_word(const uint8_t * p) {
    return static_cast<unsigned>(reinterpret_cast<uintptr_t>(p)) & 3;
}
// The word that begins so many bits, at most 32, after `low`, or w[0], does.
__device__ __forceinline__ uint32_t word_at(uint32_t low, uint32_t high, unsigned bits) {
    return __funnelshift_rc(low, high, bits);
}
__device__ __forceinline__ uint32_t word_at(const uint32_t * w, unsigned bits) { return word_at(w[0], w[1], bits); }

// Of blocks of whole words and two bytes, at even addresses.
constexpr bool has_even_blocks(ggml_type type) {
    return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q8_0;
}

// Quarter `quarter` of the elements that begin at `unit`. Without `both` the second piece is not there, and what
// becomes of it does not matter.
template <ggml_type type>
__device__ __forceinline__ PairPlace place_of_pair(const uint8_t * unit, unsigned quarter, bool both) {
    const unsigned past = bytes_past_a_word(unit);
    const uint8_t * words = unit - past;
    PairPlace place{{unit, unit, unit, unit}, 8 * past};
    const uint8_t ** p = place.p;
    if constexpr (has_even_blocks(type)) {
        constexpr int block = unit_bytes_of(type) / 8;
        p[0] = words + quarter * (2 * block);
        p[1] = both ? p[0] + block / 4 * 4 + 4 : p[0];
    } else if constexpr (type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1 || type == GGML_TYPE_F16) {
        constexpr int piece = unit_bytes_of(type) / 8;
        p[0] = unit + quarter * (2 * piece);
        p[1] = both ? p[0] + piece : p[0];
    } else if constexpr (type == GGML_TYPE_MXFP4) {
        p[0] = unit + quarter * 34;
        p[1] = both ? p[0] + 17 : p[0];
        const unsigned first = bytes_past_a_word(p[0] + 1), second = bytes_past_a_word(p[1] + 1);
        p[2] = p[0] + 1 - first;
        p[3] = p[1] + 1 - second;
        place.shift = 8 * first | second << 8;
    } else if constexpr (type == GGML_TYPE_Q2_K) {
        p[1] = unit + 16 + quarter / 2 * 32;
        p[2] = unit + quarter * 4;
    } else if constexpr (type == GGML_TYPE_Q3_K) {
        p[0] = words;
        p[1] = words + 32 + quarter / 2 * 32;
        p[2] = words + 96 + quarter % 2 * 4;
    } else if constexpr (type == GGML_TYPE_Q4_K) {
        p[1] = unit + 16 + quarter * 32;
    } else if constexpr (type == GGML_TYPE_Q5_K) {
        p[1] = unit + 48 + quarter * 32;
    } else if constexpr (type == GGML_TYPE_Q6_K) {
        // The high bits of a quant go to bits 4 and 5 by a shift to the right: from where they are bits 0 to 3 it
        // begins two bytes earlier.
        const uint8_t * high = unit + 128 + quarter / 2 * 32 - (quarter % 2 ? 0 : 2);
        p[0] = words + quarter / 2 * 64;
        p[1] = high - bytes_past_a_word(high);
        p[2] = words + 192 + quarter * 4;
        p[3] = words + 208;
    } else {
        static_assert(type == GGML_TYPE_IQ4_XS);
        p[1] = unit + 8 + quarter * 32;
    }
    return place;
}

// Reads a pair, and up to 4 bytes after its blocks.
template <ggml_type type> __device__ __forceinline__ void load_pair(const PairPlace & place, RawPair & raw) {
    uint32_t *w = raw.w, *more = raw.more;
    const uint8_t * const * p = place.p;
    if constexpr (has_even_blocks(type)) {
        constexpr int words = unit_bytes_of(type) / 8 / 4;
        load_aligned_words<words + 1>(p[0], w);  // the last one has the second scale, or the beginning of it
        load_aligned_words<words + 1>(p[1], more);
    } else if constexpr (type == GGML_TYPE_Q4_1) {
        load_aligned_words<5>(p[0], w);
        load_aligned_words<5>(p[1], more);
    } else if constexpr (type == GGML_TYPE_Q5_1) {
        load_doubles<3>(p[0], w);
        load_doubles<3>(p[1], more);
    } else if constexpr (type == GGML_TYPE_MXFP4) {
        load_aligned_words<5>(p[2], w);
        load_aligned_words<5>(p[3], more);
        w[5] = __ldg(p[0]);
        more[5] = __ldg(p[1]);
    } else if constexpr (type == GGML_TYPE_Q2_K) {
        load_aligned_words<8>(p[1], w);
        load_aligned_words<1>(p[2], more);
        load_aligned_words<1>(p[0] + 80, more + 1);
    } else if constexpr (type == GGML_TYPE_Q3_K) {
        load_aligned_words<9>(p[1], w);
        load_aligned_words<9>(p[0], more);
        load_aligned_words<2>(p[2], w + 9);
        load_aligned_words<2>(p[0] + 104, w + 11);
    } else if constexpr (type == GGML_TYPE_Q4_K) {
        load_quads<1>(p[0], more);
        load_quads<2>(p[1], w);
    } else if constexpr (type == GGML_TYPE_Q5_K) {
        load_quads<1>(p[0], more);
        load_quads<2>(p[0] + 16, w + 8);
        load_quads<2>(p[1], w);
    } else if constexpr (type == GGML_TYPE_Q6_K) {
        load_aligned_words<16>(p[0], w);
        load_aligned_words<1>(p[0] + 64, more);
        load_aligned_words<9>(p[1], more + 1);
        load_aligned_words<2>(p[2], more + 10);
        load_aligned_words<1>(p[3], more + 12);
    } else if constexpr (type == GGML_TYPE_IQ4_XS) {
        load_doubles<1>(p[0], more);
        load_doubles<4>(p[1], w);
    } else {
        static_assert(type == GGML_TYPE_F16);
        load_quads<4>(p[0], w);
        load_quads<4>(p[1], more);
    }
}

// factor (byte i of a word - less), exactly: bytes of so many bits times the halves of a block.
template <int bits> struct ScaleOf {
    float factor, offset;
    __device__ __forceinline__ explicit ScaleOf(float factor_, int less = 0)
        : factor(factor_), offset(-(byte_base<bits> + static_cast<float>(less)) * factor_) {}
    __device__ __forceinline__ float of(uint32_t word, int i) const {
        return fmaf(based_byte<bits>(word, i), factor, offset);
    }
};

// In each byte so many bits of one word, and above them those of another.
template <int bits> __device__ __forceinline__ uint32_t joined(uint32_t low, uint32_t high) {
    constexpr uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
    return (low & mask) | (high & ~mask);
}

// Bits 4 i to 4 i + 3 of 32, as bit 4 of each byte of a word.
__device__ __forceinline__ uint32_t fifth_bits(uint32_t bits, int i) {
    const uint32_t four = bits >> (i / 2 * 8) & 15u << (i % 2 * 4);
    return four * (i % 2 ? 0x00204081u : 0x02040810u) & 0x10101010u;
}

// Goes through the elements of a pair as its blocks have them: quants of so many bits, bytes of a word, and for groups
// of them a scale and an offset. shift: of the place that raw was read from. `to`:
//   to.template group<bits>(piece, half, scale, offset)    the values are scale quant + offset
//   to.template group_raised<bits, raise>(piece, half, scale)   scale (quant - raise)
//       of piece 0 or 1, one of its halves or, where half is -1, both; returns `by`
//   to.four(piece, i, by, word)      elements 4 i to 4 i + 3 of the piece
//   to.eight(piece, i, by, words)    elements 4 i, 16 + 4 i, 4 i + 1, 16 + 4 i + 1 and so on, bytes of two words
//   to.close(by)                     no more of the group
template <ggml_type type, typename To>
__device__ __forceinline__ void visit_pair(const RawPair & raw, unsigned shift, unsigned quarter, To & to) {
    static_assert(quant_bits(type) > 0);
    constexpr int bits = quant_bits(type), raise = quant_raise(type);
    const uint32_t *w = raw.w, *more = raw.more;
    // The low nibbles of four bytes and the high ones, 16 elements later, bits of a fifth besides.
    const auto put_nibbles = [&](auto piece, int i, auto & by, uint32_t word, auto fifth) {
        to.four(piece, i, by, (word & 0x0f0f0f0fu) | fifth(i));
        to.four(piece, 4 + i, by, (word >> 4 & 0x0f0f0f0fu) | fifth(4 + i));
    };
    const auto no_fifth = [](int) { return 0u; };
    const auto put_levels = [&](auto piece, int i, auto & by, uint32_t word, uint4 table) {
        to.eight(piece, i, by, table_entries_in_order(word, table));
    };
    const auto both = [&](auto visit) {
        visit(std::integral_constant<int, 0>());
        visit(std::integral_constant<int, 1>());
    };
    // Calls f(i, by) for the words of either half of a piece, whose scales are apart.
    const auto halves = [&](auto group, auto f) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            auto by = group(half);
#pragma unroll
            for (int i = 4 * half; i < 4 * half + 4; ++i) f(i, by);
            to.close(by);
        }
    };

    if constexpr (has_even_blocks(type)) {
        both([&](auto piece) {
            constexpr int words = unit_bytes_of(type) / 8 / 4;
            const uint32_t * block = piece() ? more : w;
            const uint32_t scale = piece() ? word_at(w[words], more[0], 16 + shift) : word_at(w, shift);
            const auto after = [&](int i) { return word_at(block + i, piece() ? shift : 16 + shift); };
            auto by = to.template group_raised<bits, raise>(piece, -1, half_bits_to_float(scale & 0xffff));
            if constexpr (type == GGML_TYPE_Q8_0) {
#pragma unroll
                for (int i = 0; i < 8; ++i) to.four(piece, i, by, after(i) ^ 0x80808080u);
            } else if constexpr (type == GGML_TYPE_Q5_0) {
                const uint32_t fifths = after(0);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    put_nibbles(piece, i, by, after(1 + i), [&](int j) { return fifth_bits(fifths, j); });
                }
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if constexpr (type == GGML_TYPE_IQ4_NL) {
                        put_levels(piece, i, by, after(i), iq4_levels);
                    } else {
                        put_nibbles(piece, i, by, after(i), no_fifth);
                    }
                }
            }
            to.close(by);
        });
    } else if constexpr (type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1) {
        both([&](auto piece) {
            const uint32_t * block = piece() ? more : w;
            auto by = to.template group<bits>(piece, -1, half_bits_to_float(block[0] & 0xffff),
                                              half_bits_to_float(block[0] >> 16));
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (type == GGML_TYPE_Q5_1) {
                    put_nibbles(piece, i, by, block[2 + i], [&](int j) { return fifth_bits(block[1], j); });
                } else {
                    put_nibbles(piece, i, by, block[1 + i], no_fifth);
                }
            }
            to.close(by);
        });
    } else if constexpr (type == GGML_TYPE_MXFP4) {
        both([&](auto piece) {
            const uint32_t * block = piece() ? more : w;
            const unsigned at = piece() ? shift >> 8 << 3 : shift & 255;
            auto by = to.template group_raised<bits, raise>(piece, -1, half_of_power(block[5]));
#pragma unroll
            for (int i = 0; i < 4; ++i) put_levels(piece, i, by, word_at(block + i, at), fp4_levels);
            to.close(by);
        });
    } else if constexpr (type == GGML_TYPE_Q2_K) {
        const ScaleOf<4> scale(half_bits_to_float(more[1] & 0xffff)), offset(-half_bits_to_float(more[1] >> 16));
        const uint32_t scales = more[0] & 0x0f0f0f0fu, minima = more[0] >> 4 & 0x0f0f0f0fu;
        both([&](auto piece) {
            const unsigned at = quarter % 2 * 4 + 2 * piece();
            halves(
                [&](int half) {
                    const int k = 2 * piece() + half;
                    return to.template group<bits>(piece, half, scale.of(scales, k), offset.of(minima, k));
                },
                [&](int i, auto & by) { to.four(piece, i, by, w[i] >> at & 0x03030303u); });
        });
    } else if constexpr (type == GGML_TYPE_Q3_K) {
        const ScaleOf<6> scale(half_bits_to_float(w[12] >> shift & 0xffff), 32);
        // Four scales, six bits each: the lower four of one half of the block in the low nibbles, of the other in the
        // high ones.
        const uint32_t scales = (word_at(w + 9, shift + quarter / 2 * 4) & 0x0f0f0f0fu) |
                                (word_at(w + 11, shift + quarter * 2) & 0x03030303u) << 4;
        both([&](auto piece) {
            const unsigned at = quarter % 2 * 4 + 2 * piece(), high_at = quarter * 2 + piece();
            halves(
                [&](int half) {
                    return to.template group_raised<bits, raise>(piece, half, scale.of(scales, 2 * piece() + half));
                },
                [&](int i, auto & by) {
                    to.four(piece, i, by,
                            (word_at(w + i, shift + at) & 0x03030303u) |
                                (word_at(more + i, shift + high_at) & 0x01010101u) << 2);
                });
        });
    } else if constexpr (type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K) {
        const uint32_t * head = more;  // d and dmin; twelve bytes of scales
        // Scales and minima of this half of the block, six bits each, see k_scale(); those of the pair in the low
        // bytes.
        const bool second = quarter >= 2;
        const unsigned at = quarter % 2 * 16;
        const uint32_t low = second ? 0x0f0f0f0fu : 0x3f3f3f3fu, high = second ? 0x30303030u : 0u;
        const uint32_t scales = (((second ? head[3] : head[1]) & low) | (head[1] >> 2 & high)) >> at;
        const uint32_t minima = (((second ? head[3] >> 4 : head[2]) & low) | (head[2] >> 2 & high)) >> at;
        const ScaleOf<6> scale(half_bits_to_float(head[0] & 0xffff)), offset(-half_bits_to_float(head[0] >> 16));
        both([&](auto piece) {
            auto by = to.template group<bits>(piece, -1, scale.of(scales, piece()), offset.of(minima, piece()));
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const uint32_t nibbles = w[i] >> (4 * piece());
                if constexpr (type == GGML_TYPE_Q5_K) {
                    // Rotated by up to 4 bits to either side: a byte's bit to its bit 4.
                    const uint32_t fifths = __funnelshift_r(w[8 + i], w[8 + i], 2 * quarter + piece() - 4);
                    to.four(piece, i, by, joined<4>(nibbles, fifths) & 0x1f1f1f1fu);
                } else {
                    to.four(piece, i, by, nibbles & 0x0f0f0f0fu);
                }
            }
            to.close(by);
        });
    } else if constexpr (type == GGML_TYPE_Q6_K) {
        const ScaleOf<8> scale(half_bits_to_float(more[12] >> shift & 0xffff), 128);
        const uint32_t scales = word_at(more + 10, shift) ^ 0x80808080u;
        const bool odd = quarter % 2;
        // From the words to bit 0 of the low bits, and to bit 4 below the high bits.
        const unsigned low_at = shift + (odd ? 4 : 0), high_at = odd ? shift : 28 - shift;
        both([&](auto piece) {
            halves(
                [&](int half) {
                    return to.template group_raised<bits, raise>(piece, half, scale.of(scales, 2 * piece() + half));
                },
                [&](int i, auto & by) {
                    const int j = 8 * piece() + i;
                    const uint32_t low = word_at(w[j], j < 15 ? w[j + 1] : more[0], low_at);
                    to.four(piece, i, by, joined<4>(low, word_at(more + 1 + i, high_at + 2 * piece())) & 0x3f3f3f3fu);
                });
        });
    } else {
        static_assert(type == GGML_TYPE_IQ4_XS);
        const ScaleOf<6> scale(half_bits_to_float(more[0] & 0xffff), 32);
        // Six bits of two scales: the lower four in a byte, the upper two in a nibble.
        const uint32_t low = more[1] >> (quarter * 8), high = more[0] >> (12 + quarter * 4);
        const uint32_t scales[2] = {joined<4>(low, high & 0x30u), joined<4>(low >> 4, high >> 2 & 0x30u)};
        both([&](auto piece) {
            auto by = to.template group_raised<bits, raise>(piece, -1, scale.of(scales[piece()], 0));
#pragma unroll
            for (int i = 0; i < 4; ++i) put_levels(piece, i, by, w[4 * piece() + i], iq4_levels);
            to.close(by);
        });
    }
}

// ---- as values

// scale quant + offset, of a quant of so many bits that is byte i of a word: see the top of the file.
template <int bits> struct NearExpansion {
    float scale, offset;
    __device__ __forceinline__ NearExpansion(float scale_, float offset_)
        : scale(scale_), offset(fmaf(-byte_base<bits>, scale_, offset_)) {}
    __device__ __forceinline__ float of(uint32_t word, int i) const {
        return fmaf(based_byte<bits>(word, i), scale, offset);
    }
};

// Two values in a word.
struct AsPairs {
    uint32_t pairs[2][piece_size / 2];

    template <int bits, typename Piece>
    __device__ __forceinline__ auto group(Piece, int, float scale, float offset) const {
        return NearExpansion<bits>(scale, offset);
    }
    template <int bits, int raise, typename Piece>
    __device__ __forceinline__ auto group_raised(Piece, int, float scale) const {
        return RaisedExpansion<bits, raise>(scale);
    }
    template <typename Piece, typename By>
    __device__ __forceinline__ void four(Piece piece, int i, const By & by, uint32_t word) {
        pairs[piece()][2 * i] = pack_bf16(by.of(word, 0), by.of(word, 1));
        pairs[piece()][2 * i + 1] = pack_bf16(by.of(word, 2), by.of(word, 3));
    }
    template <typename Piece, typename By>
    __device__ __forceinline__ void eight(Piece piece, int i, const By & by, uint2 words) {
        uint32_t * to = pairs[piece()] + 2 * i;
        to[0] = pack_bf16(by.of(words.x, 0), by.of(words.x, 2));
        to[1] = pack_bf16(by.of(words.y, 0), by.of(words.y, 2));
        to[8] = pack_bf16(by.of(words.x, 1), by.of(words.x, 3));
        to[9] = pack_bf16(by.of(words.y, 1), by.of(words.y, 3));
    }
    template <typename By> __device__ __forceinline__ void close(const By &) const {}
};

// A nibble of FP4, sign, two bits of exponent and one of mantissa, is a bf16 of 2^-126 times its value when each lies
// where it belongs in one: subnormal where it is subnormal itself. The block's scale is a power of two.
__device__ __forceinline__ void expand_fp4(const uint32_t * block, unsigned shift, uint32_t * pairs) {
    const uint32_t exponent = block[5];
    const uint32_t power = (min(exponent, 128u) + 126) << 7, factor = power << 16 | power;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint32_t word = word_at(block + i, shift);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const uint32_t two = __byte_perm(word, 0, k ? 0x4342 : 0x4140);
            pairs[2 * i + k] = multiply_bf16((two & 0x000f000fu) * 0x1040u & 0x81c081c0u, factor);
            pairs[8 + 2 * i + k] = multiply_bf16((two & 0x00f000f0u) * 0x104u & 0x81c081c0u, factor);
        }
    }
    if (exponent > 128) {
        const uint32_t rest = (exponent - 1) << 7;
#pragma unroll
        for (int i = 0; i < piece_size / 2; ++i) pairs[i] = multiply_bf16(pairs[i], rest << 16 | rest);
    }
}

// Calls f(std::integral_constant<int, i>, pairs) with the 32 elements of piece i, two in a word, for both.
template <ggml_type type, typename F>
__device__ __forceinline__ void expand_pair(const RawPair & raw, unsigned shift, unsigned quarter, F f) {
    AsPairs values;
    if constexpr (type == GGML_TYPE_MXFP4) {
        expand_fp4(raw.w, shift & 255, values.pairs[0]);
        expand_fp4(raw.more, shift >> 8 << 3, values.pairs[1]);
    } else if constexpr (type == GGML_TYPE_F16) {
#pragma unroll
        for (int i = 0; i < piece_size; ++i) {
            const uint32_t two = i < piece_size / 2 ? raw.w[i] : raw.more[i - piece_size / 2];
            values.pairs[i / (piece_size / 2)][i % (piece_size / 2)] =
                pack_bf16(half_bits_to_float(two & 0xffff), half_bits_to_float(two >> 16));
        }
    } else {
        visit_pair<type>(raw, shift, quarter, values);
    }
    f(std::integral_constant<int, 0>(), values.pairs[0]);
    f(std::integral_constant<int, 1>(), values.pairs[1]);
}

// ---- as a sum of products

// sum_i v_i x_i without the values themselves: scale and offset are taken out of the sums. x: 64 floats; x_sums: those
// of its quarters, 16 elements each.
struct AsDot {
    const float * x;
    const float * x_sums;
    float sums[2] = {};  // of either piece

    template <int bits_, int piece_> struct By {
        static constexpr int bits = bits_, piece = piece_;
        float scale, offset, dot, x_sum;
        // Quants of eight bits are not raised, which would cost them as many digits.
        static constexpr float base = bits <= 7 ? byte_base<bits> : 0;
        __device__ __forceinline__ float of(uint32_t word, int i) const {
            return bits <= 7 ? based_byte<bits>(word, i) : byte_as_float(word, i);
        }
    };
    template <int bits, typename Piece>
    __device__ __forceinline__ auto group(Piece piece, int half, float scale, float offset) const {
        const float * sums = x_sums + 2 * piece();
        return By<bits, Piece::value>{scale, offset, 0, half < 0 ? sums[0] + sums[1] : sums[half]};
    }
    template <int bits, int raise, typename Piece>
    __device__ __forceinline__ auto group_raised(Piece piece, int half, float scale) const {
        return group<bits>(piece, half, scale, static_cast<float>(-raise) * scale);
    }
    template <typename Piece, typename By>
    __device__ __forceinline__ void four(Piece piece, int i, By & by, uint32_t word) {
        add(by, piece() * piece_size + 4 * i, by.of(word, 0), by.of(word, 1), by.of(word, 2), by.of(word, 3));
    }
    template <typename Piece, typename By>
    __device__ __forceinline__ void eight(Piece piece, int i, By & by, uint2 words) {
        const int first = piece() * piece_size + 4 * i;
        add(by, first, by.of(words.x, 0), by.of(words.x, 2), by.of(words.y, 0), by.of(words.y, 2));
        add(by, first + 16, by.of(words.x, 1), by.of(words.x, 3), by.of(words.y, 1), by.of(words.y, 3));
    }
    template <typename By> __device__ __forceinline__ void close(const By & by) {
        float & sum = sums[By::piece];
        sum = fmaf(by.scale, fmaf(-By::base, by.x_sum, by.dot), fmaf(by.offset, by.x_sum, sum));
    }

private:
    template <typename By>
    __device__ __forceinline__ void add(By & by, int first, float a, float b, float c, float d) const {
        const float4 four = *reinterpret_cast<const float4 *>(x + first);
        by.dot = fmaf(d, four.w, fmaf(c, four.z, fmaf(b, four.y, fmaf(a, four.x, by.dot))));
    }
};

}  // namespace lorica::cuda
