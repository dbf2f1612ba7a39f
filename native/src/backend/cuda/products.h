// Products with frozen weights: few rows multiply the blocks as they are, many rows multiply panels of W expanded to
// the format act.
#pragma once

#include "backend/cuda/gemm.h"

#include <span>

namespace lorica::cuda {

// Up to this many rows a product expands blocks on the way into its tiles: every 128 rows of the product do so again,
// and beyond it expanding once costs less.
constexpr int64_t fused_max_rows = 256;

size_t panel_bytes(const WorkspaceShape & shape, Dtype act);

// x itself when it can be an operand, else a copy in the workspace. Dropout with p > 0 always makes a copy.
Matrix operand(const Context & context, Matrix x, const Dropout & dropout = {});

// result[x.rows, w.out] = x W^T + extra, where extra (optional) is another term of the same extents.
void multiply_forward(const Context & context, Matrix x, const Weight & w, const GemmTerm * extra,
                      const GemmResult & result);

// One of the terms dy_i W_i; all W_i have the same `in`.
struct BackwardTerm {
    Matrix dy;  // an operand
    const Weight * weight;
};
// result[rows, in] = sum_i dy_i W_i + sum of extra terms.
void multiply_backward(const Context & context, std::span<const BackwardTerm> layers, std::span<const GemmTerm> extra,
                       int64_t rows, const GemmResult & result);
// The same of one layer with very many rows of W (the head), for which result must be f32: W passes through the panel
// in parts along `out`, so that the sums are made in parts, too.
void multiply_backward_by_rows(const Context & context, Matrix dy, const Weight & w, const GemmResult & result);

}  // namespace lorica::cuda
