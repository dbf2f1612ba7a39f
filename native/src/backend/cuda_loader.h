// The cuda device lives in a library of its own, liblorica-cuda.so beside liblorica.so, which is opened when it is
// first asked for: a machine without it, or without a GPU, loses nothing else. The environment variable
// LORICA_CUDA_LIBRARY names another file.
#pragma once

#include "backend/backend.h"

#include <memory>
#include <string>

namespace lorica {

// device: "cuda" or "cuda:N". Errors: INVALID_ARGUMENT for another name; UNSUPPORTED, DEVICE with the reason.
std::unique_ptr<Backend> make_cuda_backend(const std::string & device, Dtype act);

}  // namespace lorica
