#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/panel.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/cache_control.h>

#include <algorithm>

#include "backend/cpu/dequantize-inl.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/panel.h"
#include "gguf/dequantize.h"

// Vectors of 32 words and their permutations.
#undef LORICA_WIDE_WORDS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
#define LORICA_WIDE_WORDS 1
#include <immintrin.h>
#else
#define LORICA_WIDE_WORDS 0
#endif

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

HWY_INLINE void scaled(const float * x, float scale, int64_t n, float * y) {
    for_lanes(n, [&](int64_t i, auto part) { part.put(hn::Mul(part.get(x + i), hn::Set(Floats(), scale)), y + i); });
}

// P[row, first .. first + count] times scale as floats. Points into `run` (count plus two blocks of room) or, for f32, into P.
HWY_INLINE const float * read_run(const GemmB & b, int64_t row, int64_t first, int64_t count, float * run) {
    const std::byte * source = b.data + static_cast<size_t>(row) * b.row_bytes;
    const float * values = run;
    if (b.type == GGML_TYPE_F32) {
        values = reinterpret_cast<const float *>(source) + first;
    } else if (b.type == GGML_TYPE_BF16) {
        const Bf16 * x = reinterpret_cast<const Bf16 *>(source) + first;
        for_lanes(count, [&](int64_t i, auto part) { part.put(part.get(x + i), run + i); });
    } else if (can_expand(b.type) && first % 32 == 0 && count % 32 == 0) {
        expand(b.type, source, first, count, run);
    } else {
        const int64_t block = ggml_blck_size(b.type);
        const int64_t from = first / block * block, to = (first + count + block - 1) / block * block;
        dequantize_row(b.type, source + ggml_row_size(b.type, from), run, to - from);
        values = run + (first - from);
    }
    if (b.scale == 1) return values;
    scaled(values, b.scale, count, run);
    return run;
}

// Rows that can be packed from where they are.
HWY_INLINE bool in_place(const GemmB & b) { return b.type == GGML_TYPE_BF16 && b.scale == 1; }
HWY_INLINE const Bf16 * bf16_row(const GemmB & b, int64_t row) {
    return reinterpret_cast<const Bf16 *>(b.data + static_cast<size_t>(row) * b.row_bytes);
}

HWY_INLINE void read_run_bf16(const GemmB & b, int64_t row, int64_t first, int64_t count, float * run, Bf16 * out) {
    const std::byte * source = b.data + static_cast<size_t>(row) * b.row_bytes;
    if (in_place(b)) {
        std::copy_n(bf16_row(b, row) + first, count, out);
    } else if (can_expand(b.type) && b.scale == 1 && first % 32 == 0 && count % 32 == 0) {
        expand(b.type, source, first, count, out);
    } else {
        const float * values = read_run(b, row, first, count, run);
        for_lanes(count, [&](int64_t i, auto part) { part.put(part.get(values + i), out + i); });
    }
}

// out[2 c + h] = (h ? odd : even)[c] for the 16 columns of a group.
HWY_INLINE void interleave_16(const Bf16 * even, const Bf16 * odd, uint16_t * out) {
    const hn::CappedTag<uint16_t, 16> d;
    constexpr int64_t step = HWY_MAX_LANES_D(decltype(d));
    for (int64_t c = 0; c < 16; c += step) {
        hn::StoreInterleaved2(hn::LoadU(d, reinterpret_cast<const uint16_t *>(even + c)),
                              hn::LoadU(d, reinterpret_cast<const uint16_t *>(odd + c)), d, out + 2 * c);
    }
}

// By rows: sixteen rows of P are the columns of a group.
void pack_rows_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, float * run,
                    Bf16 * rows, uint16_t * panel) {
    for (int64_t g = 0; g * group_n < n_count; ++g) {
        const int64_t first = n0 + g * group_n, columns = std::min(group_n, n_count - g * group_n);
        if (in_place(b) && k_count == k_pad && columns == group_n && b.row_bytes % 4 == 0) {
            transpose_16(reinterpret_cast<const uint32_t *>(bf16_row(b, first) + k0), static_cast<int64_t>(b.row_bytes / 4), k_pad / 2,
                         reinterpret_cast<uint32_t *>(panel + g * k_pad * group_n));
            continue;
        }
        for (int64_t c = 0; c < group_n; ++c) {
            Bf16 * row = rows + c * k_pad;
            const int64_t filled = c < columns ? k_count : 0;
            if (filled > 0) read_run_bf16(b, first + c, k0, filled, run, row);
            std::fill(row + filled, row + k_pad, Bf16());
        }
        transpose_16(reinterpret_cast<const uint32_t *>(rows), k_pad / 2, k_pad / 2,
                     reinterpret_cast<uint32_t *>(panel + g * k_pad * group_n));
    }
}

// By columns: two rows of P are a pair of every group, so one run serves the whole panel.
void pack_columns_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, float * run,
                       Bf16 * rows, uint16_t * panel) {
    const int64_t groups = (n_count + group_n - 1) / group_n;
    const bool direct = in_place(b) && n_count % group_n == 0;
    std::fill(rows, rows + 2 * panel_n, Bf16());
    for (int64_t p = 0; p < k_pad / 2; ++p) {
        const Bf16 * pair[2];
        for (int64_t half = 0; half < 2; ++half) {
            const int64_t k = 2 * p + half;
            Bf16 * row = rows + half * panel_n;
            pair[half] = row;
            if (k >= k_count) {
                std::fill(row, row + n_count, Bf16());
            } else if (direct) {
                pair[half] = bf16_row(b, k0 + k) + n0;
            } else {
                read_run_bf16(b, k0 + k, n0, n_count, run, row);
            }
        }
        for (int64_t g = 0; g < groups; ++g) {
            interleave_16(pair[0] + g * group_n, pair[1] + g * group_n, panel + g * k_pad * group_n + p * 32);
        }
    }
}

#if LORICA_WIDE_WORDS

// A piece, 32 elements of a row in bf16, is a vector. Types of four and five bits have a table of their values for each piece and look
// all elements up at once.

HWY_INLINE __m512i as_bf16(Vec low, Vec high) {
    const hn::Repartition<hwy::bfloat16_t, Floats> d;
    return hn::BitCast(hn::RebindToUnsigned<decltype(d)>(), hn::OrderedDemote2To(d, low, high)).raw;
}
// table: the values of codes 0 to 31.
HWY_INLINE __m512i look_up(__m256i codes, __m512i table) { return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(codes), table); }
HWY_INLINE __m256i load_256(const uint8_t * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
HWY_INLINE __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
// Low nibbles of sixteen bytes, then the high ones.
HWY_INLINE __m256i both_nibbles(const uint8_t * p) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(v, 4), v));
}
// Nibbles of piece j of a K block.
HWY_INLINE __m256i k_nibbles(const uint8_t * nibbles, int64_t j) {
    return low_nibbles(_mm256_srl_epi16(load_256(nibbles + j / 2 * 32), _mm_cvtsi32_si128(j % 2 * 4)));
}
HWY_INLINE Vec count_from(float first) { return hn::Iota(Floats(), first); }

HWY_INLINE __m512i piece_q4_0(const uint8_t * row, int64_t piece) {
    const uint8_t * block = row + piece * 18;
    const Vec values = hn::Mul(count_from(-8), half_at(block));
    return look_up(both_nibbles(block + 2), as_bf16(values, values));
}
HWY_INLINE __m512i piece_q4_1(const uint8_t * row, int64_t piece) {
    const uint8_t * block = row + piece * 20;
    const Vec values = hn::Add(hn::Mul(count_from(0), half_at(block)), half_at(block + 2));
    return look_up(both_nibbles(block + 4), as_bf16(values, values));
}
HWY_INLINE __m512i piece_q4_k(const uint8_t * row, int64_t piece) {
    const uint8_t * block = row + piece / 8 * 144;
    const ScaleMin s = k_scale(block, piece % 8);
    const Vec values = hn::Sub(hn::Mul(count_from(0), s.scale), s.min);
    return look_up(k_nibbles(block + 16, piece % 8), as_bf16(values, values));
}
HWY_INLINE __m512i piece_q5_k(const uint8_t * row, int64_t piece) {
    const uint8_t * block = row + piece / 8 * 176;
    const int64_t j = piece % 8;
    const ScaleMin s = k_scale(block, j);
    const Vec low = hn::Sub(hn::Mul(count_from(0), s.scale), s.min), high = hn::Sub(hn::Mul(count_from(16), s.scale), s.min);
    // Bit j of each byte to bit 4.
    const __m128i left = _mm_cvtsi32_si128(static_cast<int>(std::max<int64_t>(4 - j, 0))), right = _mm_cvtsi32_si128(static_cast<int>(std::max<int64_t>(j - 4, 0)));
    const __m256i fifth = _mm256_and_si256(_mm256_srl_epi16(_mm256_sll_epi16(load_256(block + 16), left), right), _mm256_set1_epi8(16));
    return look_up(_mm256_or_si256(k_nibbles(block + 48, j), fifth), as_bf16(low, high));
}

// f(load), where load(row, piece) makes a vector of a piece; false: there is none for this matrix.
template <typename F>
HWY_INLINE bool with_pieces(const GemmB & b, const F & f) {
    const auto expanded = [&](const auto & one) {
        f([&](const uint8_t * row, int64_t piece) HWY_ATTR {
            Vec halves[2];
            one(row, piece, [&](Vec values, int64_t, int64_t i) HWY_ATTR { halves[i / 16] = values; });
            return as_bf16(halves[0], halves[1]);
        });
        return true;
    };
    if (b.type == GGML_TYPE_F32) {
        const Vec scale = hn::Set(Floats(), b.scale);
        f([&](const uint8_t * row, int64_t piece) HWY_ATTR {
            const auto * x = reinterpret_cast<const float *>(row) + 32 * piece;
            return as_bf16(hn::Mul(load(x), scale), hn::Mul(load(x + 16), scale));
        });
        return true;
    }
    if (b.scale != 1) return false;
    switch (b.type) {
        case GGML_TYPE_Q4_0: f([](auto row, auto piece) HWY_ATTR { return piece_q4_0(row, piece); }); return true;
        case GGML_TYPE_Q4_1: f([](auto row, auto piece) HWY_ATTR { return piece_q4_1(row, piece); }); return true;
        case GGML_TYPE_Q4_K: f([](auto row, auto piece) HWY_ATTR { return piece_q4_k(row, piece); }); return true;
        case GGML_TYPE_Q5_K: f([](auto row, auto piece) HWY_ATTR { return piece_q5_k(row, piece); }); return true;
        case GGML_TYPE_BF16:
            f([](const uint8_t * row, int64_t piece) HWY_ATTR { return _mm512_loadu_si512(row + 64 * piece); });
            return true;
        case GGML_TYPE_F16: return expanded([](auto row, auto piece, const auto & sink) HWY_ATTR { expand_f16(row, piece, 0, sink); });
        case GGML_TYPE_Q8_0: return expanded([](auto row, auto piece, const auto & sink) HWY_ATTR { expand_q8_0(row, piece, 0, sink); });
        case GGML_TYPE_Q6_K: return expanded([](auto row, auto piece, const auto & sink) HWY_ATTR { expand_q6_k(row, piece, 0, sink); });
        default: return false;
    }
}

// out[16 i + r] = word i of rows[r].
HWY_INLINE void store_transposed(const __m512i * rows, uint32_t * out) {
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
        const __m512i even01 = _mm512_shuffle_i32x4(fours[m], fours[4 + m], 0x88), odd01 = _mm512_shuffle_i32x4(fours[m], fours[4 + m], 0xdd);
        const __m512i even23 = _mm512_shuffle_i32x4(fours[8 + m], fours[12 + m], 0x88), odd23 = _mm512_shuffle_i32x4(fours[8 + m], fours[12 + m], 0xdd);
        _mm512_store_si512(out + 16 * m, _mm512_shuffle_i32x4(even01, even23, 0x88));
        _mm512_store_si512(out + 16 * (4 + m), _mm512_shuffle_i32x4(odd01, odd23, 0x88));
        _mm512_store_si512(out + 16 * (8 + m), _mm512_shuffle_i32x4(even01, even23, 0xdd));
        _mm512_store_si512(out + 16 * (12 + m), _mm512_shuffle_i32x4(odd01, odd23, 0xdd));
    }
}

HWY_INLINE const uint8_t * row_of(const GemmB & b, int64_t row) {
    return reinterpret_cast<const uint8_t *>(b.data) + static_cast<size_t>(row) * b.row_bytes;
}

// About where a piece begins, by their number.
HWY_INLINE int64_t piece_bytes(const GemmB & b) { return 32 * static_cast<int64_t>(b.row_bytes) / b.cols; }

// As pack_rows_bf16, for whole pieces.
template <typename Load>
HWY_INLINE void pack_row_pieces(const GemmB & b, const Load & load_piece, int64_t k0, int64_t k_count, int64_t n0, int64_t n_count, uint16_t * panel) {
    const int64_t next_group = group_n * static_cast<int64_t>(b.row_bytes), bytes = piece_bytes(b);
    for (int64_t g = 0; g * group_n < n_count; ++g) {
        const int64_t columns = std::min(group_n, n_count - g * group_n);
        const uint8_t * row = row_of(b, n0 + g * group_n);
        auto * out = reinterpret_cast<uint32_t *>(panel + g * k_count * group_n);
        for (int64_t k = 0; k < k_count; k += 32, out += 16 * group_n) {
            const int64_t piece = (k0 + k) / 32;
            __m512i rows[16];
            for (int64_t c = 0; c < group_n; ++c) {
                const uint8_t * of_c = row + static_cast<size_t>(c) * b.row_bytes;
                hwy::Prefetch(of_c + next_group + piece * bytes);
                rows[c] = c < columns ? load_piece(of_c, piece) : _mm512_setzero_si512();
            }
            store_transposed(rows, out);
        }
    }
}

// As pack_columns_bf16, for whole pieces.
template <typename Load>
HWY_INLINE void pack_column_pieces(const GemmB & b, const Load & load_piece, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                                   uint16_t * panel) {
    alignas(64) uint16_t order[2][32];
    for (int i = 0; i < 32; ++i) {
        order[0][i] = static_cast<uint16_t>(i / 2 + i % 2 * 32);
        order[1][i] = static_cast<uint16_t>(order[0][i] + 16);
    }
    const __m512i first = _mm512_load_si512(order[0]), second = _mm512_load_si512(order[1]), zero = _mm512_setzero_si512();
    constexpr int64_t ahead = 16;  // rows
    const int64_t bytes = piece_bytes(b);
    for (int64_t k = 0; k < k_pad; k += 2) {
        const uint8_t * even = row_of(b, k0 + k);
        uint16_t * out = panel + k * group_n;
        for (int64_t n = 0; n < n_count; n += 32, out += 2 * k_pad * group_n) {
            const int64_t piece = (n0 + n) / 32;
            const uint8_t * soon = even + ahead * static_cast<int64_t>(b.row_bytes) + piece * bytes;
            hwy::Prefetch(soon);
            hwy::Prefetch(soon + b.row_bytes);
            const __m512i e = k < k_count ? load_piece(even, piece) : zero, o = k + 1 < k_count ? load_piece(even + b.row_bytes, piece) : zero;
            _mm512_store_si512(out, _mm512_permutex2var_epi16(e, first, o));
            _mm512_store_si512(out + k_pad * group_n, _mm512_permutex2var_epi16(e, second, o));
        }
    }
}

// False: not whole pieces, or a type that has none.
HWY_FLATTEN bool pack_pieces(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, uint16_t * panel) {
    if (b.by_rows) {
        if (k0 % 32 != 0 || k_count != k_pad) return false;
        return with_pieces(b, [&](const auto & piece) HWY_ATTR { pack_row_pieces(b, piece, k0, k_count, n0, n_count, panel); });
    }
    if (n0 % 32 != 0 || n_count % 32 != 0) return false;
    return with_pieces(b, [&](const auto & piece) HWY_ATTR { pack_column_pieces(b, piece, k0, k_count, k_pad, n0, n_count, panel); });
}

#else

bool pack_pieces(const GemmB &, int64_t, int64_t, int64_t, int64_t, int64_t, uint16_t *) { return false; }

#endif

void PackPanelBf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, float * row_scratch,
                   uint16_t * panel) {
    if (pack_pieces(b, k0, k_count, k_pad, n0, n_count, panel)) return;
    auto * rows = reinterpret_cast<Bf16 *>(row_scratch + run_elements);
    const auto pack = b.by_rows ? pack_rows_bf16 : pack_columns_bf16;
    pack(b, k0, k_count, k_pad, n0, n_count, row_scratch, rows, panel);
}

void PackPanelF32(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, float * row_scratch,
                  float * panel) {
    float * run = row_scratch;
    float * rows = row_scratch + run_elements;
    const int64_t groups = (n_count + group_n - 1) / group_n;
    if (b.by_rows) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t first = n0 + g * group_n, columns = std::min(group_n, n_count - g * group_n);
            for (int64_t c = 0; c < group_n; ++c) {
                float * row = rows + c * k_pad;
                const int64_t filled = c < columns ? k_count : 0;
                if (filled > 0) std::copy_n(read_run(b, first + c, k0, filled, run), filled, row);
                std::fill(row + filled, row + k_pad, 0.0f);
            }
            transpose_16(reinterpret_cast<const uint32_t *>(rows), k_pad, k_pad,
                         reinterpret_cast<uint32_t *>(panel + g * k_pad * group_n));
        }
        return;
    }
    for (int64_t k = 0; k < k_pad; ++k) {
        const float * row = k < k_count ? read_run(b, k0 + k, n0, n_count, run) : nullptr;
        for (int64_t g = 0; g < groups; ++g) {
            float * out = panel + g * k_pad * group_n + k * group_n;
            const int64_t columns = row ? std::min(group_n, n_count - g * group_n) : 0;
            if (columns > 0) std::copy_n(row + g * group_n, columns, out);
            std::fill(out + columns, out + group_n, 0.0f);
        }
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(PackPanelBf16);
HWY_EXPORT(PackPanelF32);

void pack_panel_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                     float * row_scratch, uint16_t * panel) {
    HWY_DYNAMIC_DISPATCH(PackPanelBf16)(b, k0, k_count, k_pad, n0, n_count, row_scratch, panel);
}
void pack_panel_f32(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                    float * row_scratch, float * panel) {
    HWY_DYNAMIC_DISPATCH(PackPanelF32)(b, k0, k_count, k_pad, n0, n_count, row_scratch, panel);
}
}  // namespace lorica::cpu
#endif
