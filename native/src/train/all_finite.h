// Whether numbers in device memory are all finite.
#pragma once

#include "backend/backend.h"

namespace lorica {

bool all_finite(Backend & backend, const void * device, Dtype type, int64_t n);

}  // namespace lorica
