// What DoRA adds to a linear layer. Semantics and shapes are those of the Backend operations of the same names; results
// do not depend on n_threads.
#pragma once

#include "backend/backend.h"

namespace lorica::cpu {

void row_squares(const Weight & weight, float * squares, int n_threads);
void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows, int n_threads);
void scale_columns(Matrix x, const float * factors, Vector bias, Matrix residual, Matrix y, int n_threads);
void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, float * d_magnitudes,
                   Matrix dx, int n_threads);

}  // namespace lorica::cpu
