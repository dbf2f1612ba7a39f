#pragma once

#include "backend/cpu/gemm.h"

namespace lorica::cpu {

// Operations per second of all threads together on products whose operands stay in the first-level cache: what no
// product can exceed. Takes about 20 ms.
double measure_peak(GemmPrecision precision, int n_threads);

}  // namespace lorica::cpu
