// What liblorica.so and liblorica-cuda.so know of each other: one function, found by its name. Both come from the same
// build.
#pragma once

#include "backend/backend.h"

#include <ggml.h>

#include <cstdint>

namespace lorica {

// Raised with every change of Backend or of this structure.
constexpr uint32_t cuda_library_version = 1;

struct CudaBackendRequest {
    uint32_t version;  // cuda_library_version of the caller
    int32_t device;    // N of "cuda:N"
    Dtype act;
    // gguf/dequantize.h: for weight types whose blocks no kernel reads
    void (*dequantize_row)(ggml_type type, const void * from, float * to, int64_t n);
};

// "lorica_cuda_make_backend": throws Error. Null when the versions differ. The caller deletes the result.
using MakeCudaBackend = Backend *(const CudaBackendRequest & request);
constexpr const char * make_cuda_backend_symbol = "lorica_cuda_make_backend";

}  // namespace lorica
