#pragma once

#include "backend/backend.h"

namespace lorica::cpu {

uint16_t scale_bf16(uint16_t bits, float scale);

// y = dropout(x): element i of x[T, n] is kept iff random_u32(seed, i) >= p * 2^32, times 1 / (1 - p). x and y of one format.
void dropout(Matrix x, const Dropout & dropout, Matrix y, int n_threads);
// dx += dropout'(g), the same mask and factor. g f32, dx f32 or bf16.
void dropout_backward_add(Matrix g, const Dropout & dropout, Matrix dx, int n_threads);

}  // namespace lorica::cpu
