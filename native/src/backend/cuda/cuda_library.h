// What liblorica.so and liblorica-cuda.so know of each other: three functions, found by their names. Both come from the
// same build.
#pragma once

#include "backend/backend.h"

#include <ggml.h>

#include <cstdint>
#include <string>

namespace lorica {

// Raised with every change of Backend or of what is declared here.
constexpr uint32_t cuda_library_version = 5;

struct CudaBackendRequest {
    uint32_t version;  // cuda_library_version of the caller
    int32_t device;    // N of "cuda:N"
    Dtype act;
    // gguf/dequantize.h: for weight types whose blocks no kernel reads
    void (*dequantize_row)(ggml_type type, const void * from, float * to, int64_t n);
};

// What there is of CUDA on this machine. Versions as CUDA counts them: 13000 is 13.0.
struct CudaMachine {
    int32_t driver_version = 0;   // the newest CUDA that the driver runs; 0: no driver
    int32_t runtime_version = 0;  // the CUDA that the library was built with; 0: no library
    int32_t n_devices = 0;
    std::string problem, remedy;  // why no GPU can be used, and what to do; empty where one may be
};

struct CudaDevice {
    std::string name, pci_bus_id;
    int32_t compute_major = 0, compute_minor = 0;
    int64_t total_memory = 0, free_memory = 0;
    std::string problem, remedy;  // why this one cannot be used; empty where a kernel ran on it
};

// "lorica_cuda_make_backend": throws Error. Null when the versions differ. The caller deletes the result.
using MakeCudaBackend = Backend *(const CudaBackendRequest & request);
constexpr const char * make_cuda_backend_symbol = "lorica_cuda_make_backend";

// "lorica_cuda_describe_machine": false when the versions differ, and then `out` is not touched.
using DescribeCudaMachine = bool(uint32_t version, CudaMachine & out);
constexpr const char * describe_cuda_machine_symbol = "lorica_cuda_describe_machine";

// "lorica_cuda_describe_device": index < n_devices.
using DescribeCudaDevice = void(int32_t index, CudaDevice & out);
constexpr const char * describe_cuda_device_symbol = "lorica_cuda_describe_device";

}  // namespace lorica
