// What there is to compute on, and why it cannot be used where it cannot. Nothing here throws.
#pragma once

#include "backend/cuda/cuda_library.h"

namespace lorica::cuda {

CudaMachine probe_machine();
// Runs a kernel on the device, which shows more than its properties do: that this library holds code for it, that the
// driver gives it to this process, and that it works.
CudaDevice probe_device(int32_t index);

}  // namespace lorica::cuda
