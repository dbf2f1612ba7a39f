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

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

HWY_INLINE void scaled(const float * x, float scale, int64_t n, float * y) {
    for_lanes(n, [&](int64_t i, auto part) { part.put(hn::Mul(part.get(x + i), hn::Set(Floats(), scale)), y + i); });
}

// P[row, first .. first + count] times scale as floats. Points into `run` (count plus two blocks of room) or, for f32,
// into P.
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
void pack_rows_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                    float * run, Bf16 * rows, uint16_t * panel) {
    for (int64_t g = 0; g * group_n < n_count; ++g) {
        const int64_t first = n0 + g * group_n, columns = std::min(group_n, n_count - g * group_n);
        if (in_place(b) && k_count == k_pad && columns == group_n && b.row_bytes % 4 == 0) {
            transpose_16(reinterpret_cast<const uint32_t *>(bf16_row(b, first) + k0),
                         static_cast<int64_t>(b.row_bytes / 4), k_pad / 2,
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
void pack_columns_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                       float * run, Bf16 * rows, uint16_t * panel) {
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

// A piece, 32 elements of a row in bf16, is a vector. Types of four and five bits have a table of their values for each
// piece and look all elements up at once.

HWY_INLINE __m512i as_bf16(Vec low, Vec high) {
    const hn::Repartition<hwy::bfloat16_t, Floats> d;
    return hn::BitCast(hn::RebindToUnsigned<decltype(d)>(), hn::OrderedDemote2To(d, low, high)).raw;
}
// table: the values of codes 0 to 31.
HWY_INLINE __m512i look_up(__m256i codes, __m512i table) {
    return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(codes), table);
}
HWY_INLINE __m256i load_256(const uint8_t * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
HWY_INLINE __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
// Low nibbles of sixteen bytes, then the high ones.
HWY_INLINE __m256i both_nibbles(const uint8_t * p) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(v, 4), v));
}
HWY_INLINE Vec count_from(float first) { return hn::Iota(Floats(), first); }

// Each has a State for what several pieces of a row share, made by enter() at the first of eight pieces or of a panel,
// and piece(row, number, state). K blocks are eight pieces.
struct WithoutState {
    struct State {};
    HWY_INLINE void enter(const uint8_t *, int64_t, State &) const {}
};

struct PiecesOfQ4_0 : WithoutState {
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State &) const {
        const uint8_t * block = row + number * 18;
        const Vec values = hn::Mul(count_from(-8), half_at(block));
        return look_up(both_nibbles(block + 2), as_bf16(values, values));
    }
};

struct PiecesOfQ4_1 : WithoutState {
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State &) const {
        const uint8_t * block = row + number * 20;
        const Vec values = hn::Add(hn::Mul(count_from(0), half_at(block)), half_at(block + 2));
        return look_up(both_nibbles(block + 4), as_bf16(values, values));
    }
};

template <bool FifthBits> struct PiecesOfK {
    static constexpr int64_t block_bytes = FifthBits ? 176 : 144, nibbles_at = FifthBits ? 48 : 16;

    struct State {
        float scales[8], minima[8];
    };
    HWY_INLINE void enter(const uint8_t * row, int64_t number, State & state) const {
        k_scales(row + number / 8 * block_bytes, state.scales, state.minima);
    }
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State & state) const {
        const uint8_t * block = row + number / 8 * block_bytes;
        const int64_t j = number % 8;
        const Vec scale = hn::Set(Floats(), state.scales[j]), min = hn::Set(Floats(), state.minima[j]);
        const auto values_from = [&](float first) HWY_ATTR { return hn::Sub(hn::Mul(count_from(first), scale), min); };
        __m256i codes =
            low_nibbles(_mm256_srl_epi16(load_256(block + nibbles_at + j / 2 * 32), _mm_cvtsi32_si128(j % 2 * 4)));
        const Vec low = values_from(0);
        if constexpr (!FifthBits) return look_up(codes, as_bf16(low, low));
        // Bit j of each byte to bit 4.
        const auto left = static_cast<int>(std::max<int64_t>(4 - j, 0)),
                   right = static_cast<int>(std::max<int64_t>(j - 4, 0));
        const __m256i moved =
            _mm256_srl_epi16(_mm256_sll_epi16(load_256(block + 16), _mm_cvtsi32_si128(left)), _mm_cvtsi32_si128(right));
        codes = _mm256_or_si256(codes, _mm256_and_si256(moved, _mm256_set1_epi8(16)));
        return look_up(codes, as_bf16(low, values_from(16)));
    }
};

struct PiecesOfF32 : WithoutState {
    float scale;
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State &) const {
        const auto * x = reinterpret_cast<const float *>(row) + 32 * number;
        return as_bf16(hn::Mul(load(x), hn::Set(Floats(), scale)), hn::Mul(load(x + 16), hn::Set(Floats(), scale)));
    }
};

struct PiecesOfBf16 : WithoutState {
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State &) const {
        return _mm512_loadu_si512(row + 64 * number);
    }
};

// Of a type that has no table.
template <typename Expand> struct PiecesExpanded : WithoutState {
    Expand expand;
    HWY_INLINE __m512i piece(const uint8_t * row, int64_t number, const State &) const {
        Vec halves[2];
        expand(row, number, [&](Vec values, int64_t, int64_t i) HWY_ATTR { halves[i / 16] = values; });
        return as_bf16(halves[0], halves[1]);
    }
};
template <typename Expand> HWY_INLINE PiecesExpanded<Expand> expanded(const Expand & expand) { return {{}, expand}; }

// f(pieces) for those of this matrix; false: there are none.
template <typename F> HWY_INLINE bool with_pieces(const GemmB & b, const F & f) {
    if (b.type == GGML_TYPE_F32) return f(PiecesOfF32{{}, b.scale}), true;
    if (b.scale != 1) return false;
    switch (b.type) {
        case GGML_TYPE_Q4_0: return f(PiecesOfQ4_0()), true;
        case GGML_TYPE_Q4_1: return f(PiecesOfQ4_1()), true;
        case GGML_TYPE_Q4_K: return f(PiecesOfK<false>()), true;
        case GGML_TYPE_Q5_K: return f(PiecesOfK<true>()), true;
        case GGML_TYPE_BF16: return f(PiecesOfBf16()), true;
        case GGML_TYPE_F16:
            return f(expanded([](auto row, auto i, const auto & sink) HWY_ATTR { expand_f16(row, i, 0, sink); })), true;
        case GGML_TYPE_Q8_0:
            return f(expanded([](auto row, auto i, const auto & sink) HWY_ATTR { expand_q8_0(row, i, 0, sink); })),
                   true;
        case GGML_TYPE_Q6_K:
            return f(expanded([](auto row, auto i, const auto & sink) HWY_ATTR { expand_q6_k(row, i, 0, sink); })),
                   true;
        default: return false;
    }
}

HWY_INLINE const uint8_t * row_of(const GemmB & b, int64_t row) {
    return reinterpret_cast<const uint8_t *>(b.data) + static_cast<size_t>(row) * b.row_bytes;
}

// About where a piece begins, by their number.
HWY_INLINE int64_t piece_bytes(const GemmB & b) { return 32 * static_cast<int64_t>(b.row_bytes) / b.cols; }

// As pack_rows_bf16, for whole pieces.
template <typename Pieces>
HWY_INLINE void pack_row_pieces(const GemmB & b, const Pieces & pieces, int64_t k0, int64_t k_count, int64_t n0,
                                int64_t n_count, uint16_t * panel) {
    const auto row_bytes = static_cast<int64_t>(b.row_bytes), bytes = piece_bytes(b);
    for (int64_t g = 0; g * group_n < n_count; ++g) {
        const int64_t columns = std::min(group_n, n_count - g * group_n);
        const uint8_t * first = row_of(b, n0 + g * group_n);
        auto * out = reinterpret_cast<uint32_t *>(panel + g * k_count * group_n);
        typename Pieces::State states[group_n];
        for (int64_t k = 0; k < k_count; k += 32, out += 16 * group_n) {
            const int64_t number = (k0 + k) / 32;
            __m512i rows[group_n];
            for (int64_t c = 0; c < group_n; ++c) {
                const uint8_t * row = first + c * row_bytes;
                hwy::Prefetch(row + group_n * row_bytes + number * bytes);
                if (c >= columns) {
                    rows[c] = _mm512_setzero_si512();
                    continue;
                }
                if (k == 0 || number % 8 == 0) pieces.enter(row, number, states[c]);
                rows[c] = pieces.piece(row, number, states[c]);
            }
            store_transposed(rows, out, 16);
        }
    }
}

// As pack_columns_bf16, for whole pieces.
template <typename Pieces>
HWY_INLINE void pack_column_pieces(const GemmB & b, const Pieces & pieces, int64_t k0, int64_t k_count, int64_t k_pad,
                                   int64_t n0, int64_t n_count, uint16_t * panel) {
    alignas(64) uint16_t order[2][32];
    for (int i = 0; i < 32; ++i) {
        order[0][i] = static_cast<uint16_t>(i / 2 + i % 2 * 32);
        order[1][i] = static_cast<uint16_t>(order[0][i] + 16);
    }
    const __m512i first = _mm512_load_si512(order[0]), second = _mm512_load_si512(order[1]),
                  zero = _mm512_setzero_si512();
    constexpr int64_t ahead = 16;  // rows
    const int64_t bytes = piece_bytes(b);
    for (int64_t k = 0; k < k_pad; k += 2) {
        // What is behind the last row is not looked at.
        const uint8_t *even = row_of(b, k0 + std::min(k, k_count - 1)),
                      *odd = row_of(b, k0 + std::min(k + 1, k_count - 1));
        uint16_t * out = panel + k * group_n;
        typename Pieces::State of_even, of_odd;
        for (int64_t n = 0; n < n_count; n += 32, out += 2 * k_pad * group_n) {
            const int64_t number = (n0 + n) / 32;
            hwy::Prefetch(even + ahead * static_cast<int64_t>(b.row_bytes) + number * bytes);
            hwy::Prefetch(odd + ahead * static_cast<int64_t>(b.row_bytes) + number * bytes);
            if (n == 0 || number % 8 == 0) {
                pieces.enter(even, number, of_even);
                pieces.enter(odd, number, of_odd);
            }
            const __m512i e = k < k_count ? pieces.piece(even, number, of_even) : zero;
            const __m512i o = k + 1 < k_count ? pieces.piece(odd, number, of_odd) : zero;
            _mm512_store_si512(out, _mm512_permutex2var_epi16(e, first, o));
            _mm512_store_si512(out + k_pad * group_n, _mm512_permutex2var_epi16(e, second, o));
        }
    }
}

// False: not whole pieces, or a type that has none.
HWY_FLATTEN bool pack_pieces(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                             uint16_t * panel) {
    if (b.by_rows) {
        if (k0 % 32 != 0 || k_count != k_pad) return false;
        return with_pieces(
            b, [&](const auto & pieces) HWY_ATTR { pack_row_pieces(b, pieces, k0, k_count, n0, n_count, panel); });
    }
    if (n0 % 32 != 0 || n_count % 32 != 0) return false;
    return with_pieces(b, [&](const auto & pieces)
                              HWY_ATTR { pack_column_pieces(b, pieces, k0, k_count, k_pad, n0, n_count, panel); });
}

#else

bool pack_pieces(const GemmB &, int64_t, int64_t, int64_t, int64_t, int64_t, uint16_t *) { return false; }

#endif

void PackPanelBf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                   float * row_scratch, uint16_t * panel) {
    if (pack_pieces(b, k0, k_count, k_pad, n0, n_count, panel)) return;
    auto * rows = reinterpret_cast<Bf16 *>(row_scratch + run_elements);
    const auto pack = b.by_rows ? pack_rows_bf16 : pack_columns_bf16;
    pack(b, k0, k_count, k_pad, n0, n_count, row_scratch, rows, panel);
}

void PackPanelF32(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                  float * row_scratch, float * panel) {
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
