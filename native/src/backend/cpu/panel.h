// Packs a panel of B for the kernels in gemm_kernels.h. Layout, with groups of 16 columns one after another:
//   bf16: group g, pair p of k, column c, half h: element ((g * k_pad / 2 + p) * 16 + c) * 2 + h, which is what both an
//   AMX tile
//         (16 pairs x 64 bytes) and a vector of dot-product lanes load;
//   f32:  element (g * k_pad + k) * 16 + c.
#pragma once

#include "backend/cpu/gemm.h"

namespace lorica::cpu {

// Packs B[k0 .. k0 + k_count, n0 .. n0 + n_count]; k is padded with zeros to k_pad (a multiple of 32 in bf16), n to
// whole groups. row_scratch holds row_scratch_elements(b, …) floats.
void pack_panel_bf16(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                     float * row_scratch, uint16_t * panel);
void pack_panel_f32(const GemmB & b, int64_t k0, int64_t k_count, int64_t k_pad, int64_t n0, int64_t n_count,
                    float * row_scratch, float * panel);

// Floats of row_scratch that any panel needs: one run of a row, widened to whole quantization blocks on both sides, and
// the sixteen rows that are transposed together, in bf16 or f32.
constexpr int64_t run_elements = panel_k + 512;
constexpr int64_t row_scratch_elements = run_elements + 16 * (panel_k + 64);
static_assert(panel_n <= panel_k);

}  // namespace lorica::cpu
