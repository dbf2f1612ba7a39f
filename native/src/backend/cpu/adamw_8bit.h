// AdamW whose moments are kept in 8 bits. Results do not depend on n_threads.
#pragma once

#include "backend/backend.h"

namespace lorica::cpu {

void adamw_8bit(float * param, const float * grad, const Moments8bit & moments, int64_t n, const AdamwParams & params,
                int n_threads);

}  // namespace lorica::cpu
