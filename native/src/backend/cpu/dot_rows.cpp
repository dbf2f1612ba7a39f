// Rows of W expanded in registers. Where the processor sums products of integers (VNNI), the integers of x meet those
// of the blocks; scales come after the sum of a block. Elsewhere, and for other types, values are expanded to f32.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dot_rows.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
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

// Products of one row of W with Rows rows of x from `first` on, to out[t * stride]. Blocks are expanded in registers.
template <int Rows>
void dot_expanded(ggml_type type, const std::byte * row, const DotInput & x, int64_t first, float * HWY_RESTRICT out,
                  int64_t stride) {
    const Floats d;
    // Two sums per row of x, so that one multiply-add need not wait for the one before.
    Vec sum[Rows][2];
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = hn::Zero(d);
    const float * values_of_x = x.values + first * x.cols;
    for_pieces(type, row, 0, x.cols, [&](Vec values, int64_t at, int64_t i) HWY_ATTR {
        for (int r = 0; r < Rows; ++r) {
            Vec & into = sum[r][i / lanes % 2];
            into = hn::MulAdd(values, load(values_of_x + r * x.cols + at + i), into);
        }
    });
    for (int r = 0; r < Rows; ++r) out[(first + r) * stride] = hn::ReduceSum(d, hn::Add(sum[r][0], sum[r][1]));
}

void dot_few(ggml_type type, const std::byte * row, const DotInput & x, int64_t first, float * out, int64_t stride) {
    switch (x.rows - first) {
        case 1: return dot_expanded<1>(type, row, x, first, out, stride);
        case 2: return dot_expanded<2>(type, row, x, first, out, stride);
        case 3: return dot_expanded<3>(type, row, x, first, out, stride);
        default: return dot_expanded<4>(type, row, x, first, out, stride);
    }
}

// Up to dot_scratch_rows rows of W. For more rows of x than have their sums in registers they are expanded once, into
// memory: each sum has the same parts in the same order.
void dot_in_f32(const Weight & w, const std::byte * rows, int64_t count, const DotInput & x, float * scratch,
                float * out, int64_t stride) {
    constexpr int64_t at_once = 4;
    const auto row = [&](int64_t i) { return rows + static_cast<size_t>(i) * w.row_bytes; };
    if (!can_expand(w.type) || w.in % 32 != 0) {
        for (int64_t i = 0; i < count; ++i) {
            dequantize_row(w.type, row(i), scratch, w.in);
            for (int64_t t = 0; t < x.rows; ++t) out[t * stride + i] = dot_f32(x.values + t * x.cols, scratch, w.in);
        }
        return;
    }
    if (x.rows <= at_once) {
        for (int64_t i = 0; i < count; ++i) dot_few(w.type, row(i), x, 0, out + i, stride);
        return;
    }
    for (int64_t i = 0; i < count; ++i) expand(w.type, row(i), 0, w.in, scratch + i * w.in);
    for (int64_t t = 0; t < x.rows; t += at_once) {
        for (int64_t i = 0; i < count; ++i) {
            const auto * values = reinterpret_cast<const std::byte *>(scratch + i * w.in);
            dot_few(GGML_TYPE_F32, values, x, t, out + i, stride);
        }
    }
}

#if LORICA_DOT_INTS

struct Tables {
    alignas(64) uint16_t
        scales_of_four_blocks[32] = {};              // Q4_0: where d of each is, as words, for the four lanes of each
    alignas(64) int32_t pair_of_scales[8][16] = {};  // Q6_K: scale 2p for eight lanes, 2p + 1 for the others

    constexpr Tables() {
        for (int i = 0; i < 32; ++i) scales_of_four_blocks[i] = static_cast<uint16_t>(9 * (i % 16 / 4));
        for (int p = 0; p < 8; ++p) {
            for (int i = 0; i < 16; ++i) pair_of_scales[p][i] = 2 * p + i / 8;
        }
    }
};
constexpr Tables tables;

// One row of DotInput's integers.
struct IntRow {
    const int16_t * ints;
    const float * sums;
    const int8_t * planes;
    const DotInput::Starts * starts;
};

HWY_INLINE __m512i load_512(const void * p) { return _mm512_loadu_si512(p); }
HWY_INLINE __m512i bytes_as_words(const uint8_t * p) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
// Products of 32 integers, summed by pairs, as floats.
HWY_INLINE __m512 dot(__m512i a, __m512i b) {
    return _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(_mm512_setzero_si512(), a, b));
}

HWY_INLINE float half_to_float(const uint8_t * p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return _cvtsh_ss(bits);
}

// Asks for the lines of a block that will be read soon. Several short rows are more streams than the processor sees by
// itself.
template <int64_t Bytes> HWY_INLINE void prefetch(const uint8_t * block) {
    for (int64_t i = 0; i < Bytes; i += 64) _mm_prefetch(reinterpret_cast<const char *>(block + i), _MM_HINT_T0);
}

// The kernels: W rows at once, so that x is read once for them and their sums do not wait for each other; n elements
// each, `stride` bytes from one to the next. Their sums go to the first of eight floats.

// The sum of each of up to eight vectors into eight floats. The order of the additions is the same for any number of
// them.
template <int W> HWY_INLINE void store_sums(const __m512 * v, float * out) {
    const auto of = [&](int r) HWY_ATTR { return r < W ? v[r] : _mm512_setzero_ps(); };
    const auto pairs = [](__m512 a, __m512 b)
                           HWY_ATTR { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
    const auto quads = [&](int r) HWY_ATTR {
        const __m512d ab = _mm512_castps_pd(pairs(of(r), of(r + 1))),
                      cd = _mm512_castps_pd(pairs(of(r + 2), of(r + 3)));
        return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    };
    const __m512 first = quads(0), second = quads(4);
    const __m512 halves =
        _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xdd));
    const __m512 in_order = _mm512_shuffle_f32x4(halves, halves, 0xd8);
    _mm256_storeu_ps(out, _mm256_add_ps(_mm512_castps512_ps256(in_order), _mm512_extractf32x8_ps(in_order, 1)));
}

// The nibbles of N blocks, 16 bytes each, zeros in the place of others.
template <int N> HWY_INLINE __m512i nibbles_of_blocks(const uint8_t * block) {
    const auto nibbles = [&](int i) HWY_ATTR {
        return _mm_loadu_si128(reinterpret_cast<const __m128i *>(block + 18 * i + 2));
    };
    // A vector with zeros takes one more instruction.
    __m512i v = N == 4 ? _mm512_castsi128_si512(nibbles(0)) : _mm512_zextsi128_si512(nibbles(0));
    if constexpr (N > 1) v = _mm512_inserti32x4(v, nibbles(1), 1);
    if constexpr (N > 2) v = _mm512_inserti32x4(v, nibbles(2), 2);
    if constexpr (N > 3) v = _mm512_inserti32x4(v, nibbles(3), 3);
    return v;
}

// N of the four blocks that share vectors, each with four lanes. Their bytes meet the upper bytes of x, what that gives
// counts 256 times, then the lower bytes. The sums start from -8 times that of x.
template <int W, int N>
HWY_INLINE void add_q4_0(const uint8_t * row, int64_t stride, const int8_t * planes, const DotInput::Starts * starts,
                         __m512 * sum) {
    const __m512i scales = load_512(tables.scales_of_four_blocks), low_bits = _mm512_set1_epi8(15),
                  times_256 = _mm512_set1_epi32(256);
    const __m512i to_the_right_by_4 = _mm512_set1_epi64(0x1020408000000000);  // of each byte, as GF2P8AFFINEQB takes it
    const __m512i start = _mm512_maskz_loadu_epi32(0x1111, starts);           // of_4_bits, once for the four lanes
    constexpr int step = std::min(W, 4);
    const auto each = [](const auto & f) HWY_ATTR {
        for (int r = 0; r < step; ++r) f(r);
    };
    // One instruction for four rows, then the next: in the order of the rows, waiting ones would fill the processor's
    // queues.
    for (int first = 0; first < W; first += step, row += step * stride, sum += step) {
        __m512i low[step], high[step], product[step];
        __m512 d[step];
        each([&](int r) HWY_ATTR { low[r] = nibbles_of_blocks<N>(row + r * stride); });
        each([&](int r) HWY_ATTR { high[r] = _mm512_gf2p8affine_epi64_epi8(low[r], to_the_right_by_4, 0); });
        each([&](int r) HWY_ATTR { low[r] = _mm512_and_si512(low[r], low_bits); });
        each([&](int r)
                 HWY_ATTR { product[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low[r], load_512(planes)); });
        each([&](int r) HWY_ATTR { product[r] = _mm512_dpbusd_epi32(product[r], high[r], load_512(planes + 64)); });
        each([&](int r) HWY_ATTR {
            // The first 64 bytes have the d of four blocks. Of fewer, not a byte behind them is touched: they may be
            // the last ones of the file.
            const uint8_t * blocks = row + r * stride;
            const __m512i with_d =
                N == 4 ? load_512(blocks) : _mm512_maskz_loadu_epi8((1ull << (18 * (N % 4))) - 1, blocks);
            d[r] = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scales, with_d)));
        });
        // So far the products fit in 16 bits.
        each([&](int r) HWY_ATTR { product[r] = _mm512_dpwssd_epi32(start, product[r], times_256); });
        each([&](int r) HWY_ATTR { product[r] = _mm512_dpbusd_epi32(product[r], low[r], load_512(planes + 128)); });
        each([&](int r) HWY_ATTR { product[r] = _mm512_dpbusd_epi32(product[r], high[r], load_512(planes + 192)); });
        each([&](int r) HWY_ATTR { sum[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product[r]), d[r], sum[r]); });
    }
}

template <int W> void dot_q4_0(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
    __m512 sum[W];
    for (int r = 0; r < W; ++r) sum[r] = _mm512_setzero_ps();
    // The next W rows, line after line: an order in which the processor goes on by itself.
    const uint8_t * soon = row + W * stride;
    const auto add = [&](auto n_blocks, int64_t i) HWY_ATTR {
        constexpr int count = n_blocks.value, bytes = 18 * count;
        if constexpr (W > 1) prefetch<W * bytes>(soon + i / 32 * 18 * W);
        add_q4_0<W, count>(row + i / 32 * 18, stride, x.planes + 2 * i, x.starts + i / 32, sum);
    };
    int64_t i = 0;
    for (; i + 128 <= n; i += 128) add(std::integral_constant<int, 4>(), i);
    switch ((n - i) / 32) {
        case 1: add(std::integral_constant<int, 1>(), i); break;
        case 2: add(std::integral_constant<int, 2>(), i); break;
        case 3: add(std::integral_constant<int, 3>(), i); break;
        default: break;
    }
    store_sums<W>(sum, out);
}

template <int W> void dot_q8_0(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
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

// The sums of eight times 32 elements, from those of 16.
HWY_INLINE __m256 sums_of_32(const float * sums) {
    const __m512 each = _mm512_loadu_ps(sums);
    const __m512i even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm256_add_ps(_mm512_castps512_ps256(_mm512_permutexvar_ps(even, each)),
                         _mm512_castps512_ps256(_mm512_permutexvar_ps(odd, each)));
}

HWY_INLINE float sum_of(__m256 v) { return _mm512_reduce_add_ps(_mm512_zextps256_ps512(v)); }

// Bit J of each byte to bit 4 of its word.
template <int J> HWY_INLINE __m512i bit_to_4(__m512i words) {
    if constexpr (J < 4) return _mm512_slli_epi16(words, 4 - J);
    return _mm512_srli_epi16(words, J < 4 ? 0 : J - 4);
}

// Q4_K and Q5_K: 64 elements share 32 bytes; Q5_K has the fifth bits of elements j * 32 + i in bit j of byte i.
template <int W, bool FifthBits>
void dot_k(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
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
            alignas(32) float scale[8], minima[8];
            k_scales(block, scale, minima);
            below[r] = _mm256_fmadd_ps(_mm256_load_ps(minima), of_32, below[r]);
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

template <int W> void dot_q6_k(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out) {
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
                    const __m512i q =
                        _mm512_ternarylogic_epi32(nibble, two_bits, bits, 0xf8);  // nibble | (two_bits & bits)
                    const __m512 scale =
                        _mm512_permutexvar_ps(load_512(tables.pair_of_scales[4 * half + part]), scales);
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

using Kernel = void (*)(const uint8_t * row, int64_t stride, int64_t n, const IntRow & x, float * out);
struct Kernels {
    int64_t n_rows = 0;  // that `several` takes; 0: there are none for this type
    Kernel several = nullptr, one = nullptr;
};

Kernels kernels_for(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return {8, dot_q4_0<8>, dot_q4_0<1>};
        case GGML_TYPE_Q8_0: return {4, dot_q8_0<4>, dot_q8_0<1>};
        case GGML_TYPE_Q4_K: return {4, dot_k<4, false>, dot_k<1, false>};
        case GGML_TYPE_Q5_K: return {4, dot_k<4, true>, dot_k<1, true>};
        case GGML_TYPE_Q6_K: return {4, dot_q6_k<4>, dot_q6_k<1>};
        default: return {};
    }
}

// n_rows rows of W with each row of x.
void dot_in_ints(const Weight & w, const std::byte * rows, int64_t n_rows, Kernel kernel, const DotInput & x,
                 float * out, int64_t stride) {
    for (int64_t t = 0; t < x.rows; ++t) {
        const int64_t at = t * x.stride;
        float results[8];
        kernel(reinterpret_cast<const uint8_t *>(rows), static_cast<int64_t>(w.row_bytes), w.in,
               {x.ints + at, x.sums + at / 16, x.planes + 2 * at, x.starts + at / 32}, results);
        for (int64_t r = 0; r < n_rows; ++r) out[t * stride + r] = results[r] * x.unit[t];
    }
}

#endif

void DotRows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out,
             int64_t stride) {
    const std::byte * row = w.data + static_cast<size_t>(first) * w.row_bytes;
    int64_t i = 0;
#if LORICA_DOT_INTS
    const Kernels kernels = x.ints ? kernels_for(w.type) : Kernels{};
    const auto at = [&](int64_t r) { return row + static_cast<size_t>(r) * w.row_bytes; };
    if (kernels.n_rows > 0) {
        for (; i + kernels.n_rows <= count; i += kernels.n_rows) {
            dot_in_ints(w, at(i), kernels.n_rows, kernels.several, x, out + i, stride);
        }
        for (; i < count; ++i) dot_in_ints(w, at(i), 1, kernels.one, x, out + i, stride);
    }
#endif
    for (; i < count; i += dot_scratch_rows) {
        dot_in_f32(w, row + static_cast<size_t>(i) * w.row_bytes, std::min(dot_scratch_rows, count - i), x, scratch,
                   out + i, stride);
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DotRows);

void dot_rows(const Weight & w, int64_t first, int64_t count, const DotInput & x, float * scratch, float * out,
              int64_t stride) {
    HWY_DYNAMIC_DISPATCH(DotRows)(w, first, count, x, scratch, out, stride);
}

}  // namespace lorica::cpu
#endif
