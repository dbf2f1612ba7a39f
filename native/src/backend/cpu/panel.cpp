#include "backend/cpu/panel.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/gemm_kernels.h"
#include "gguf/dequantize.h"

namespace lorica::cpu {

namespace {

// P[row, first .. first + count] times scale as floats. Points into `run` (count plus two blocks of room) or, for f32, into P.
const float * read_run(const GemmB & b, int64_t row, int64_t first, int64_t count, float * run) {
    const std::byte * source = b.data + static_cast<size_t>(row) * b.row_bytes;
    const float * values;
    if (b.type == GGML_TYPE_F32) {
        values = reinterpret_cast<const float *>(source) + first;
    } else if (b.type == GGML_TYPE_BF16) {
        convert_bf16_to_f32(reinterpret_cast<const uint16_t *>(source) + first, run, count);
        values = run;
    } else {
        const int64_t block = ggml_blck_size(b.type);
        const int64_t from = first / block * block, to = (first + count + block - 1) / block * block;
        dequantize_row(b.type, source + ggml_row_size(b.type, from), run, to - from);
        values = run + (first - from);
    }
    if (b.scale == 1) return values;
    for (int64_t i = 0; i < count; ++i) run[i] = values[i] * b.scale;
    return run;
}

void read_run_bf16(const GemmB & b, int64_t row, int64_t first, int64_t count, float * run, uint16_t * out) {
    if (b.type == GGML_TYPE_BF16 && b.scale == 1) {
        const std::byte * source = b.data + static_cast<size_t>(row) * b.row_bytes;
        std::memcpy(out, reinterpret_cast<const uint16_t *>(source) + first, static_cast<size_t>(count) * 2);
    } else {
        convert_f32_to_bf16(read_run(b, row, first, count, run), out, count);
    }
}

// out[i * 16 + c] = rows[c * stride + i] for i < count: sixteen rows become one group.
template <typename T>
void transpose_16(const T * rows, int64_t stride, int64_t count, T * out) {
    constexpr int64_t tile = 16;
    int64_t i = 0;
    for (; i + tile <= count; i += tile) {
        for (int64_t c = 0; c < 16; ++c) {
            const T * row = rows + c * stride + i;
            for (int64_t j = 0; j < tile; ++j) out[(i + j) * 16 + c] = row[j];
        }
    }
    for (; i < count; ++i) {
        for (int64_t c = 0; c < 16; ++c) out[i * 16 + c] = rows[c * stride + i];
    }
}

}  // namespace

void pack_panel_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                     float * row_scratch, uint16_t * panel) {
    float * run = row_scratch;
    auto * rows = reinterpret_cast<uint16_t *>(row_scratch + panel_k + 512);
    const int64_t pairs = k_pad / 2, groups = (n_count + group_n - 1) / group_n;
    if (b.by_rows) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t first = n0 + g * group_n, columns = std::min(group_n, n_count - g * group_n);
            for (int64_t c = 0; c < group_n; ++c) {
                uint16_t * row = rows + c * k_pad;
                const int64_t filled = c < columns ? k_count : 0;
                if (filled > 0) read_run_bf16(b, first + c, k0, filled, run, row);
                std::fill(row + filled, row + k_pad, uint16_t{0});
            }
            auto * out = reinterpret_cast<uint32_t *>(panel + g * k_pad * group_n);
            transpose_16(reinterpret_cast<const uint32_t *>(rows), pairs, pairs, out);
        }
        return;
    }
    // By columns one dequantized run serves all groups of the panel.
    uint16_t * even = rows;
    uint16_t * odd = rows + panel_n;
    std::fill(rows, rows + 2 * panel_n, uint16_t{0});
    for (int64_t p = 0; p < pairs; ++p) {
        for (int64_t half = 0; half < 2; ++half) {
            uint16_t * row = half ? odd : even;
            if (2 * p + half < k_count) {
                read_run_bf16(b, k0 + 2 * p + half, n0, n_count, run, row);
            } else {
                std::fill(row, row + n_count, uint16_t{0});
            }
        }
        for (int64_t g = 0; g < groups; ++g) {
            uint16_t * out = panel + g * k_pad * group_n + p * 32;
            for (int64_t c = 0; c < group_n; ++c) {
                out[2 * c] = even[g * group_n + c];
                out[2 * c + 1] = odd[g * group_n + c];
            }
        }
    }
}

void pack_panel_f32(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                    float * row_scratch, float * panel) {
    float * run = row_scratch;
    float * rows = row_scratch + panel_k + 512;
    const int64_t groups = (n_count + group_n - 1) / group_n;
    if (b.by_rows) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t first = n0 + g * group_n, columns = std::min(group_n, n_count - g * group_n);
            for (int64_t c = 0; c < group_n; ++c) {
                float * row = rows + c * k_pad;
                if (c < columns) {
                    std::copy_n(read_run(b, first + c, k0, k_count, run), k_count, row);
                    std::fill(row + k_count, row + k_pad, 0.0f);
                } else {
                    std::fill(row, row + k_pad, 0.0f);
                }
            }
            transpose_16(rows, k_pad, k_pad, panel + g * k_pad * group_n);
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

}  // namespace lorica::cpu
