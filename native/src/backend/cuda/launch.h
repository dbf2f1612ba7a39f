// Starting kernels; errors of the CUDA runtime as lorica::Error.
#pragma once

#include "common/error.h"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace lorica::cuda {

inline void check(cudaError_t status, const char * what) {
    if (status == cudaSuccess) return;
    cudaGetLastError();  // the next call would report it once more
    fail(status == cudaErrorMemoryAllocation ? LORICA_ERROR_OUT_OF_MEMORY : LORICA_ERROR_DEVICE, "CUDA: ", what, ": ",
         cudaGetErrorString(status), " (", cudaGetErrorName(status), ")");
}

// cudaMalloc. `hint` follows what is said when memory is short.
inline void * allocate(size_t n_bytes, const char * what, const char * hint = "") {
    void * memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, n_bytes);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        fail(LORICA_ERROR_OUT_OF_MEMORY, "cannot allocate ", n_bytes >> 20, " MiB on the GPU for ", what, hint);
    }
    check(status, what);
    return memory;
}

constexpr int64_t divide_up(int64_t x, int64_t by) { return (x + by - 1) / by; }
constexpr int64_t round_up(int64_t x, int64_t to) { return divide_up(x, to) * to; }

// A number from the environment, for tests and for looking closely; else otherwise.
inline int64_t setting(const char * variable, int64_t otherwise) {
    const char * chosen = std::getenv(variable);
    const int64_t number = chosen ? std::atoll(chosen) : 0;
    return number > 0 ? number : otherwise;
}

// For looking closely. LORICA_CUDA_SYNC=1: every launch waits for its kernel, so that an error comes with its name.
// LORICA_CUDA_PROFILE=1: and its time is taken; a table of kernels goes to standard error when the program ends. With
// either, steps are not recorded.
bool launches_are_awaited();
// Whether this kernel has not been allowed so much shared memory on the current device yet; then it counts as allowed.
bool must_ask_for_memory(const void * kernel, size_t shared_bytes);

// launch("rmsnorm", stream, rmsnorm_kernel<bf16>, {blocks, threads, shared_bytes}, arguments…). A grid without blocks
// is no work. Errors of the kernel itself surface at the next call that waits for the device.
struct Extent {
    dim3 blocks;
    int threads = 256;
    size_t shared_bytes = 0;
    size_t shared_limit =
        size_t{99} << 10;  // what a block can have on the devices that the kernel is for; 99 KiB: sm_86, 89, 120
    int cluster = 1;       // of so many neighbouring blocks along x
    // Compute capability 9.0 and later: it may begin while the kernel before ends. It calls await_kernels_before()
    // first.
    bool overlaps = false;
};

// Around a launch: waits for the kernel when launches are awaited.
void before_launch(cudaStream_t stream);
void after_launch(const char * name, const Extent & extent, cudaStream_t stream);

#if defined(__CUDACC__) || defined(LORICA_CUDA_ON_CPU)
template <typename... Parameters, typename... Arguments>
void launch(const char * name, cudaStream_t stream, void (*kernel)(Parameters...), const Extent & extent,
            const Arguments &... arguments) {
    if (extent.blocks.x == 0 || extent.blocks.y == 0 || extent.blocks.z == 0) return;
    before_launch(stream);
    if (extent.overlaps && extent.cluster > 1) fail(LORICA_ERROR_INTERNAL, name, ": overlaps, in clusters");
#ifdef LORICA_CUDA_ON_CPU
    if (extent.shared_bytes > extent.shared_limit) fail(LORICA_ERROR_INTERNAL, name, ": too much shared memory");
    run_on_cpu(name, extent.blocks, extent.threads, extent.shared_bytes, extent.cluster, stream,
               [=] { kernel(static_cast<Parameters>(arguments)...); });
#else
    if (extent.shared_bytes > 48 * 1024 &&
        must_ask_for_memory(reinterpret_cast<const void *>(kernel), extent.shared_bytes)) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(extent.shared_bytes)),
              name);
    }
    if (extent.cluster > 1 || extent.overlaps) {
        cudaLaunchAttribute attribute{};
        if (extent.overlaps) {
            attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
            attribute.val.programmaticStreamSerializationAllowed = 1;
        } else {
            attribute.id = cudaLaunchAttributeClusterDimension;
            attribute.val.clusterDim.x = static_cast<unsigned>(extent.cluster);
            attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        }
        cudaLaunchConfig_t config{};
        config.gridDim = extent.blocks;
        config.blockDim = dim3(static_cast<unsigned>(extent.threads));
        config.dynamicSmemBytes = extent.shared_bytes;
        config.stream = stream;
        config.attrs = &attribute;
        config.numAttrs = 1;
        check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
    } else {
        kernel<<<extent.blocks, extent.threads, extent.shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
        check(cudaGetLastError(), name);
    }
#endif
    after_launch(name, extent, stream);
}
#endif

// Blocks for n elements of work; kernels step by the size of the grid.
inline Extent grid_over(int64_t n, int threads = 256) {
    constexpr int64_t most = 16384;
    const int64_t blocks = divide_up(n, threads);
    return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)), threads, 0};
}

}  // namespace lorica::cuda
