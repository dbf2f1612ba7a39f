#pragma once

#include <memory>

#include "backend/backend.h"

namespace lorica {

// act: bf16 (matrix operands in bf16, sums in f32) or f32. n_threads 0: all cores this process may run on.
std::unique_ptr<Backend> make_cpu_backend(Dtype act, int32_t n_threads);

}  // namespace lorica
