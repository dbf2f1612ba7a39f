// The part of the CUDA runtime that the cuda backend uses, on the CPU: for tests on machines without a GPU. The
// kernels' sources are compiled as C++ against this header; a launch runs block after block, the threads of a block as
// fibers that give way to each other where they synchronize. Slow, and blind to nothing: with -fsanitize=address an
// access outside of an allocation is found, a missing __syncthreads() gives wrong results (and other ones when the
// environment variable LORICA_CUDA_ON_CPU_ORDER is "reverse"), asynchronous copies happen as late as they may, and
// threads that wait for each other forever are reported.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

// ---- launches and what threads do together

using cudaStream_t = struct CudaOnCpuStream *;
void run_on_cpu(const char * name, dim3 blocks, int threads, size_t shared_bytes, int cluster, cudaStream_t stream,
                const std::function<void()> & thread);

namespace cuda_on_cpu {
// Waits until every lane of the warp has called with an argument of its own, then runs `all` once over the 32 of them.
void warp_collective(const char * what, void * own, void (*all)(void * const * lanes));
unsigned char * shared_memory();
// Of the thread that runs: for instructions whose effect comes later. The warp's number in its block, and the block's
// in its cluster.
int current_warp();
int current_rank();
// n_bytes of `size`, 4 or 16; the rest becomes zero.
void copy_async(void * to, const void * from, int n_bytes, int size = 16);
void copy_async_commit();
void copy_async_wait(int n_pending);

// ---- clusters: blocks that run at the same time

void cluster_sync();
void barrier_init(uint64_t * barrier, uint32_t n_arrivals);
// An arrival, and bytes that are to come.
void barrier_expect(uint64_t * barrier, uint32_t n_bytes);
// At the barrier that lies at this place in the block `rank`.
void barrier_arrive(uint64_t * barrier, uint32_t rank);
void barrier_wait(uint64_t * barrier, uint32_t parity);
// n_bytes that `write` brings to the places, in the blocks whose bits are set, that `barrier` and `to` have in the
// thread's own; `write` is told by how far the place in a block is from the thread's own. That happens as late as it
// may, when no thread can go on without it, or at once where the environment variable LORICA_CUDA_ON_CPU_COPIES is
// "early".
void copy_in_bulk(uint64_t * barrier, uint32_t n_bytes, uint16_t blocks, std::function<void(ptrdiff_t distance)> write);

template <typename T> struct Shuffle {
    T value, result;
    int lane;
};
template <typename T> T shuffle(T value, int lane) {
    Shuffle<T> own{value, {}, lane};
    warp_collective("shuffle", &own, [](void * const * lanes) {
        for (int i = 0; i < 32; ++i) {
            auto * to = static_cast<Shuffle<T> *>(lanes[i]);
            to->result = static_cast<Shuffle<T> *>(lanes[to->lane & 31])->value;
        }
    });
    return own.result;
}
}  // namespace cuda_on_cpu

void __syncthreads();
inline void __syncwarp(unsigned = 0xffffffffu) {
    int own = 0;
    cuda_on_cpu::warp_collective("__syncwarp", &own, [](void * const *) {});
}
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return cuda_on_cpu::shuffle(value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <typename T> T __shfl_sync(unsigned, T value, int lane) { return cuda_on_cpu::shuffle(value, lane); }

// ---- numbers

using std::max;
using std::min;
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t both = uint64_t{y} << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(both >> (selector >> (4 * i) & 7) * 8 & 255) << (8 * i);
    return result;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((uint64_t{high} << 32 | low) >> (shift & 31));
}
inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((uint64_t{high} << 32 | low) >> std::min(shift, 32u));
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
template <typename T> T __ldg(const T * p) { return *p; }
template <typename T> void __stcg(T * p, T value) { *p = value; }

// ---- the runtime

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrClockRate,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrMaxSharedMemoryPerBlockOptin
};
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0;
using cudaEvent_t = struct CudaOnCpuEvent *;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount, pciDomainID, pciBusID, pciDeviceID;
};
struct cudaFuncAttributes {};

const char * cudaGetErrorString(cudaError_t);
const char * cudaGetErrorName(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int * count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int * device);
cudaError_t cudaRuntimeGetVersion(int * version);
cudaError_t cudaDriverGetVersion(int * version);
cudaError_t cudaDeviceGetAttribute(int * value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes * attributes, const void * kernel);
template <typename... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes * attributes, void (*kernel)(Parameters...)) {
    return cudaFuncGetAttributes(attributes, reinterpret_cast<const void *>(kernel));
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp * properties, int device);
cudaError_t cudaMalloc(void ** memory, size_t n_bytes);
cudaError_t cudaFree(void * memory);
cudaError_t cudaHostAlloc(void ** memory, size_t n_bytes, unsigned flags);
cudaError_t cudaFreeHost(void * memory);
cudaError_t cudaMemGetInfo(size_t * free, size_t * total);
cudaError_t cudaMemsetAsync(void * memory, int value, size_t n_bytes, cudaStream_t);
cudaError_t cudaMemcpyAsync(void * to, const void * from, size_t n_bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t * stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t * event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);

// ---- graphs: what is launched into a stream meanwhile, in order. Whatever waits, allocates or goes another way is an
// error then.

enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
using cudaGraph_t = struct CudaOnCpuGraph *;
using cudaGraphExec_t = struct CudaOnCpuGraph *;
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t * graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t * exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
