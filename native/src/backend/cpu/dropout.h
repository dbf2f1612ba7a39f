// Dropout with the counter-based mask of backend.h's Dropout. Element (r, c) of a matrix is number
// (first_row + r) * cols + c of the stream, so a range of rows sees the same mask as the whole.
// f32 or bf16 in any combination; 0 < p < 1.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lorica::cpu {

// y = dropout(x); y may be x.
void dropout(Matrix x, const Dropout & dropout, Matrix y, int n_threads, int64_t first_row = 0);
// dx += dropout'(g): g where the mask keeps, times 1 / (1 - p).
void dropout_backward_add(Matrix g, const Dropout & dropout, Matrix dx, int n_threads, int64_t first_row = 0);

}  // namespace lorica::cpu
