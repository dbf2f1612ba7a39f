#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/panel.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

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

void PackPanelBf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count, float * row_scratch,
                   uint16_t * panel) {
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
