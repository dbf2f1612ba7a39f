// The cuda device lives in a library of its own, liblorica-cuda.so, which is opened when it is first asked for: a
// machine without it, or without a GPU, loses nothing else. Which file it is: that of the environment variable
// LORICA_CUDA_LIBRARY, else that of set_cuda_library(), else the one beside liblorica.so.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/cuda_library.h"

#include <memory>
#include <string>

namespace lorica {

void set_cuda_library(const std::string & path);

// The library and the driver; `problem` says why there are none.
CudaMachine probe_cuda();
// Error: DEVICE when there is none of this number.
CudaDevice probe_cuda_device(int32_t index);

// device: "cuda" or "cuda:N". Errors: INVALID_ARGUMENT for another name; UNSUPPORTED, DEVICE with the reason.
std::unique_ptr<Backend> make_cuda_backend(const std::string & device, Dtype act);

}  // namespace lorica
