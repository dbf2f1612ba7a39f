// Rows of W expanded in registers. Where the processor sums products of 16-bit integers (VNNI), x is rounded to such integers, one unit for the
// whole row, and meets the integers of the blocks; scales come after the sum of a block. A unit is 1/32767 of the largest |x|: what is lost
// stays below what keeping activations in bf16 loses. Elsewhere, and for other types, values are expanded to f32.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dot_rows.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "backend/cpu/dequantize-inl.h"
#include "backend/cpu/dot_rows.h"
#include "backend/cpu/gemm_kernels.h"
#include "gguf/dequantize.h"

// Of the targets that are compiled, those from Zen 4 on have VNNI and VBMI.
#undef LORICA_DOT_INTS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3_ZEN4
#define LORICA_DOT_INTS 1
#include <immintrin.h>
#else
#define LORICA_DOT_INTS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// Products of one row of W with Rows rows of x (f32, stride elements apart). The row is expanded in registers.
template <int Rows>
void dot_expanded(const Weight & w, const std::byte * row, const float * HWY_RESTRICT x, int64_t stride, float * HWY_RESTRICT out) {
    const Floats d;
    // Two sums per row of x, so that one multiply-add need not wait for the one before.
    Vec sum[Rows][2];
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = hn::Zero(d);
    for_pieces(w.type, row, 0, w.in, [&](Vec values, int64_t at, int64_t i) HWY_ATTR {
        for (int r = 0; r < Rows; ++r) {
            Vec & into = sum[r][i / lanes % 2];
            into = hn::MulAdd(values, load(x + r * stride + at + i), into);
        }
    });
    for (int r = 0; r < Rows; ++r) out[r] = hn::ReduceSum(d, hn::Add(sum[r][0], sum[r][1]));
}

void dot_in_f32(const Weight & w, const std::byte * row, const DotInput & x, float * scratch, float * out) {
    if (!can_expand(w.type) || w.in % 32 != 0) {
        dequantize_row(w.type, row, scratch, w.in);
        for (int64_t r = 0; r < x.rows; ++r) out[r] = dot_f32(x.values + r * x.cols, scratch, w.in);
        return;
    }
    switch (x.rows) {
        case 1: return dot_expanded<1>(w, row, x.values, x.cols, out);
        case 2: return dot_expanded<2>(w, row, x.values, x.cols, out);
        case 3: return dot_expanded<3>(w, row, x.values, x.cols, out);
        default: return dot_expanded<4>(w, row, x.values, x.cols, out);
    }
}

#if LORICA_DOT_INTS

struct Tables {
    alignas(64) uint8_t nibbles_of_two_blocks[64];  // Q4_0: where the 16 bytes of either block are, every other entry unused
    alignas(64) uint16_t scales_of_two_blocks[32];  // and where their d is, as words
    alignas(64) int32_t pair_of_scales[8][16];      // Q6_K: scale 2p for eight lanes, 2p + 1 for the others

    Tables() {
        for (int i = 0; i < 32; ++i) {
            nibbles_of_two_blocks[2 * i] = static_cast<uint8_t>(i < 16 ? 2 + i : 20 + i - 16);
            nibbles_of_two_blocks[2 * i + 1] = 0;
            scales_of_two_blocks[i] = i % 16 < 8 ? 0 : 9;
        }
        for (int p = 0; p < 8; ++p) {
            for (int i = 0; i < 16; ++i) pair_of_scales[p][i] = 2 * p + i / 8;
        }
    }
};
const Tables & tables() {
    static const Tables t;
    return t;
}

// One row of DotInput's integers.
struct IntRow {
    const int16_t *ints, *halves;
    const int32_t * starts;
    const float * sums;
};

HWY_INLINE __m512i load_512(const void * p) { return _mm512_loadu_si512(p); }
HWY_INLINE __m512i bytes_as_words(const uint8_t * p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
// Products of 32 integers, summed by pairs, as floats.
HWY_INLINE __m512 dot(__m512i a, __m512i b) { return _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(_mm512_setzero_si512(), a, b)); }

HWY_INLINE float half_to_float(const uint8_t * p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return _cvtsh_ss(bits);
}

// Asks for the lines of a block that will be read soon. Several short rows are more streams than the processor sees by itself.
template <int64_t Bytes>
HWY_INLINE void prefetch(const uint8_t * block) {
    for (int64_t i = 0; i < Bytes; i += 64) _mm_prefetch(reinterpret_cast<const char *>(block + i), _MM_HINT_T0);
}

// The kernels: W rows at once, so that x is read once for them and their sums do not wait for each other; n elements each, `stride` bytes
// from one to the next.

// Two blocks at once: their low nibbles fill one vector, their high nibbles another. The sums start from -8 times that of x.
template <int W>
HWY_INLINE void dot_q4_0(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
    const Tables & t = tables();
    const __m512i nibbles = load_512(t.nibbles_of_two_blocks), scales = load_512(t.scales_of_two_blocks), low = _mm512_set1_epi16(15);
    __m512 sum[W];
    for (int r = 0; r < W; ++r) sum[r] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 64, row += 36) {
        // Not a byte behind the row is touched: it may be the last one of the file. What is missing of a second block is zero, also its d.
        const __mmask64 there = n - i >= 64 ? (1ull << 36) - 1 : (1ull << 18) - 1;
        const __m512i x_low = load_512(x.halves + i), x_high = load_512(x.halves + i + 32), start = load_512(x.starts + i / 4);
        for (int r = 0; r < W; ++r) {
            prefetch<36>(row + (r + W) * stride);
            const __m512i blocks = _mm512_maskz_loadu_epi8(there, row + r * stride);
            const __m512i both = _mm512_maskz_permutexvar_epi8(0x5555555555555555ull, nibbles, blocks);
            const __m512 d = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scales, blocks)));
            __m512i product = _mm512_dpwssd_epi32(start, _mm512_and_si512(both, low), x_low);
            product = _mm512_dpwssd_epi32(product, _mm512_srli_epi16(both, 4), x_high);
            sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), d, sum[r]);
        }
    }
    for (int r = 0; r < W; ++r) out[r] = _mm512_reduce_add_ps(sum[r]);
}

template <int W>
HWY_INLINE void dot_q8_0(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
    __m512 sum[W];
    for (int r = 0; r < W; ++r) sum[r] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 32, row += 34) {
        const __m512i of_x = load_512(x.ints + i);
        for (int r = 0; r < W; ++r) {
            const uint8_t * block = row + r * stride;
            prefetch<34>(block + W * stride);
            const __m512i q = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(block + 2)));
            sum[r] = _mm512_fmadd_ps(dot(q, of_x), _mm512_set1_ps(half_to_float(block)), sum[r]);
        }
    }
    for (int r = 0; r < W; ++r) out[r] = _mm512_reduce_add_ps(sum[r]);
}

// The eight scales and minima of a Q4_K or Q5_K block, times d and dmin.
HWY_INLINE void k_scales(const uint8_t * block, float * scales, __m256 & minima) {
    uint32_t s[3];
    std::memcpy(s, block + 4, sizeof s);
    constexpr uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x03030303;
    const uint64_t scale = (uint64_t{(s[2] & four) | (((s[0] >> 6) & two) << 4)} << 32) | (s[0] & six);
    const uint64_t minimum = (uint64_t{((s[2] >> 4) & four) | (((s[1] >> 6) & two) << 4)} << 32) | (s[1] & six);
    const auto floats = [](uint64_t bytes) HWY_ATTR {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes))));
    };
    _mm256_store_ps(scales, _mm256_mul_ps(floats(scale), _mm256_set1_ps(half_to_float(block))));
    minima = _mm256_mul_ps(floats(minimum), _mm256_set1_ps(half_to_float(block + 2)));
}

// The sums of eight times 32 elements, from those of 16.
HWY_INLINE __m256 sums_of_32(const float * sums) {
    const __m512 each = _mm512_loadu_ps(sums);
    const __m512i even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm256_add_ps(_mm512_castps512_ps256(_mm512_permutexvar_ps(even, each)), _mm512_castps512_ps256(_mm512_permutexvar_ps(odd, each)));
}

HWY_INLINE float sum_of(__m256 v) { return _mm512_reduce_add_ps(_mm512_zextps256_ps512(v)); }

// Bit J of each byte to bit 4 of its word.
template <int J>
HWY_INLINE __m512i bit_to_4(__m512i words) {
    if constexpr (J < 4) return _mm512_slli_epi16(words, 4 - J);
    return _mm512_srli_epi16(words, J < 4 ? 0 : J - 4);
}

// Q4_K and Q5_K: 64 elements share 32 bytes; Q5_K has the fifth bits of elements j * 32 + i in bit j of byte i.
template <int W, bool FifthBits>
HWY_INLINE void dot_k(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
    constexpr int64_t block_bytes = FifthBits ? 176 : 144, nibbles_at = FifthBits ? 48 : 16;
    const __m512i four_bits = _mm512_set1_epi16(15), fifth = _mm512_set1_epi16(16);
    __m512 sum[W][2];
    __m256 below[W];
    for (int r = 0; r < W; ++r) {
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        below[r] = _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < n; i += 256, row += block_bytes) {
        const __m256 of_32 = sums_of_32(x.sums + i / 16);
        for (int r = 0; r < W; ++r) {
            const uint8_t * block = row + r * stride;
            prefetch<block_bytes>(block + W * stride);
            alignas(32) float scale[8];
            __m256 minima;
            k_scales(block, scale, minima);
            below[r] = _mm256_fmadd_ps(minima, of_32, below[r]);
            const __m512i high = FifthBits ? bytes_as_words(block + 16) : _mm512_setzero_si512();
            // Elements j * 32 to (j + 2) * 32.
            const auto add = [&](auto constant) HWY_ATTR {
                constexpr int j = constant.value;
                const __m512i both = bytes_as_words(block + nibbles_at + 16 * j);
                __m512i low = _mm512_and_si512(both, four_bits), upper = _mm512_srli_epi16(both, 4);
                if constexpr (FifthBits) {
                    low = _mm512_ternarylogic_epi32(low, fifth, bit_to_4<j>(high), 0xf8);  // low | (fifth & …)
                    upper = _mm512_ternarylogic_epi32(upper, fifth, bit_to_4<j + 1>(high), 0xf8);
                }
                const int16_t * of_x = x.ints + i + 32 * j;
                sum[r][0] = _mm512_fmadd_ps(dot(low, load_512(of_x)), _mm512_set1_ps(scale[j]), sum[r][0]);
                sum[r][1] = _mm512_fmadd_ps(dot(upper, load_512(of_x + 32)), _mm512_set1_ps(scale[j + 1]), sum[r][1]);
            };
            add(std::integral_constant<int, 0>());
            add(std::integral_constant<int, 2>());
            add(std::integral_constant<int, 4>());
            add(std::integral_constant<int, 6>());
        }
    }
    for (int r = 0; r < W; ++r) out[r] = _mm512_reduce_add_ps(_mm512_add_ps(sum[r][0], sum[r][1])) - sum_of(below[r]);
}

template <int W>
HWY_INLINE void dot_q6_k(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
    const Tables & t = tables();
    const __m512i four_bits = _mm512_set1_epi16(15), two_bits = _mm512_set1_epi16(0x30);
    __m512 sum[W], below[W];
    for (int r = 0; r < W; ++r) sum[r] = below[r] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 256, row += 210) {
        const __m512 of_16 = _mm512_loadu_ps(x.sums + i / 16);
        for (int r = 0; r < W; ++r) {
            const uint8_t * block = row + r * stride;
            prefetch<210>(block + W * stride);
            const __m512 d = _mm512_set1_ps(half_to_float(block + 208));
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(block + 192));
            const __m512 scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), d);
            below[r] = _mm512_fmadd_ps(scales, of_16, below[r]);
            for (int half = 0; half < 2; ++half) {
                const __m512i low0 = bytes_as_words(block + 64 * half), low1 = bytes_as_words(block + 64 * half + 32);
                const __m512i high = bytes_as_words(block + 128 + 32 * half);
                const auto add = [&](int part, __m512i nibble, __m512i bits) HWY_ATTR {
                    const __m512i q = _mm512_ternarylogic_epi32(nibble, two_bits, bits, 0xf8);  // nibble | (two_bits & bits)
                    const __m512 scale = _mm512_permutexvar_ps(load_512(t.pair_of_scales[4 * half + part]), scales);
                    sum[r] = _mm512_fmadd_ps(dot(q, load_512(x.ints + i + 128 * half + 32 * part)), scale, sum[r]);
                };
                add(0, _mm512_and_si512(low0, four_bits), _mm512_slli_epi16(high, 4));
                add(1, _mm512_and_si512(low1, four_bits), _mm512_slli_epi16(high, 2));
                add(2, _mm512_srli_epi16(low0, 4), high);
                add(3, _mm512_srli_epi16(low1, 4), _mm512_srli_epi16(high, 2));
            }
        }
    }
    for (int r = 0; r < W; ++r) out[r] = _mm512_reduce_add_ps(_mm512_fnmadd_ps(below[r], _mm512_set1_ps(32), sum[r]));
}

bool dots_ints(ggml_type type) {
    return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K || type == GGML_TYPE_Q6_K;
}

template <int W>
void dot_in_ints(const Weight & w, const std::byte * rows, const DotInput & x, float * out) {
    const auto * row = reinterpret_cast<const uint8_t *>(rows);
    const auto stride = static_cast<int64_t>(w.row_bytes);
    for (int64_t t = 0; t < x.rows; ++t) {
        const int64_t at = t * x.stride;
        const IntRow of_x = {x.ints + at, x.halves + at, x.starts + at / 4, x.sums + at / 16};
        float results[W];
        switch (w.type) {
            case GGML_TYPE_Q4_0: dot_q4_0<W>(row, stride, w.in, of_x, results); break;
            case GGML_TYPE_Q8_0: dot_q8_0<W>(row, stride, w.in, of_x, results); break;
            case GGML_TYPE_Q4_K: dot_k<W, false>(row, stride, w.in, of_x, results); break;
            case GGML_TYPE_Q5_K: dot_k<W, true>(row, stride, w.in, of_x, results); break;
            default: dot_q6_k<W>(row, stride, w.in, of_x, results); break;
        }
        for (int r = 0; r < W; ++r) out[r * dot_max_rows + t] = results[r] * x.unit[t];
    }
}

#endif

void DotRows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out) {
    const std::byte * row = w.data + static_cast<size_t>(first) * w.row_bytes;
    int64_t i = 0;
#if LORICA_DOT_INTS
    if (x.ints && dots_ints(w.type)) {
        for (; i + 4 <= count; i += 4) dot_in_ints<4>(w, row + static_cast<size_t>(i) * w.row_bytes, x, out + i * dot_max_rows);
        for (; i < count; ++i) dot_in_ints<1>(w, row + static_cast<size_t>(i) * w.row_bytes, x, out + i * dot_max_rows);
    }
#endif
    for (; i < count; ++i) dot_in_f32(w, row + static_cast<size_t>(i) * w.row_bytes, x, scratch, out + i * dot_max_rows);
}

bool HasDotInts() { return LORICA_DOT_INTS; }

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DotRows);
HWY_EXPORT(HasDotInts);

namespace {

void round_to_ints(DotInput & x, Scratch & scratch) {
    const int64_t stride = (x.cols + 63) / 64 * 64;
    auto * ints = scratch.take_as<int16_t>(x.rows * stride);
    auto * halves = scratch.take_as<int16_t>(x.rows * stride);
    auto * starts = scratch.take_as<int32_t>(x.rows * stride / 4);
    auto * sums = scratch.take_as<float>(x.rows * stride / 16);
    std::fill_n(starts, x.rows * stride / 4, 0);
    for (int64_t t = 0; t < x.rows; ++t) {
        const float * values = x.values + t * x.cols;
        float largest = 0;
        for (int64_t i = 0; i < x.cols; ++i) largest = std::max(largest, std::isfinite(values[i]) ? std::abs(values[i]) : INFINITY);
        if (!std::isfinite(largest)) return;  // f32 carries it on
        // A power of two would keep more elements as they are, but waste up to a bit of all others.
        const float per_unit = largest > 1e-30f ? 32767 / largest : 0;
        x.unit[t] = largest / 32767;
        int16_t * row = ints + t * stride;
        for (int64_t i = 0; i < x.cols; ++i) row[i] = static_cast<int16_t>(std::lrintf(values[i] * per_unit));
        std::fill(row + x.cols, row + stride, int16_t{0});
        for (int64_t i = 0; i < stride; i += 64) {
            int16_t * to = halves + t * stride + i;
            std::copy_n(row + i, 16, to);
            std::copy_n(row + i + 32, 16, to + 16);
            std::copy_n(row + i + 16, 16, to + 32);
            std::copy_n(row + i + 48, 16, to + 48);
        }
        for (int64_t i = 0; i < stride; i += 16) {
            int32_t sum = 0;
            for (int64_t j = i; j < i + 16; ++j) sum += row[j];
            sums[(t * stride + i) / 16] = static_cast<float>(sum);
            starts[(t * stride + i / 64 * 64) / 4 + i % 64 / 32 * 8] -= 8 * sum;
        }
    }
    x.ints = ints;
    x.halves = halves;
    x.starts = starts;
    x.sums = sums;
    x.stride = stride;
}

}  // namespace

DotInput prepare_dot_input(const Matrix & x, Scratch & scratch) {
    DotInput input;
    input.rows = x.rows;
    input.cols = x.cols;
    auto * values = scratch.take_as<float>(x.rows * x.cols);
    input.values = values;
    for (int64_t t = 0; t < x.rows; ++t) {
        if (x.type == Dtype::bf16) {
            convert_bf16_to_f32(x.row_as<uint16_t>(t), values + t * x.cols, x.cols);
        } else {
            std::copy_n(x.row_as<float>(t), x.cols, values + t * x.cols);
        }
    }
    if (x.type == Dtype::bf16 && HWY_DYNAMIC_DISPATCH(HasDotInts)()) round_to_ints(input, scratch);
    return input;
}

void dot_rows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out) {
    HWY_DYNAMIC_DISPATCH(DotRows)(w, first, count, x, scratch, out);
}

}  // namespace lorica::cpu
#endif
