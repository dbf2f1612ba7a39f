// A library of another release than the tests': it has the names, and refuses every version.
#include "backend/cuda/cuda_library.h"

extern "C" __attribute__((visibility("default"))) lorica::Backend * lorica_cuda_make_backend(
    const lorica::CudaBackendRequest &) {
    return nullptr;
}
extern "C" __attribute__((visibility("default"))) bool lorica_cuda_describe_machine(uint32_t, lorica::CudaMachine &) {
    return false;
}
extern "C" __attribute__((visibility("default"))) void lorica_cuda_describe_device(int32_t, lorica::CudaDevice &) {}
