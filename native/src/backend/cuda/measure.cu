// What the device can do at most.
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

#include <algorithm>
#include <chrono>

namespace lorica::cuda {

namespace {

constexpr int threads = 256;

// Every thread reads 16 bytes eight times in a row before it needs any of them.
__global__ void __launch_bounds__(threads) read_kernel(const uint4 * from, int64_t n, uint32_t * sums) {
    constexpr int at_once = 8;
    uint32_t sum = 0;
    for (int64_t first = int64_t{blockIdx.x} * threads * at_once; first < n;
         first += int64_t{gridDim.x} * threads * at_once) {
        uint4 quads[at_once];
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int64_t at = first + i * threads + threadIdx.x;
            quads[i] = at < n ? __ldg(from + at) : uint4{0, 0, 0, 0};
        }
#pragma unroll
        for (int i = 0; i < at_once; ++i) sum += quads[i].x ^ quads[i].y ^ quads[i].z ^ quads[i].w;
    }
    if (sum == 0x9e3779b9u) sums[blockIdx.x] = sum;  // keeps the loads from being removed
}

}  // namespace

double read_bandwidth(const Context & context, const void * memory, size_t n_bytes, uint32_t * sums) {
    const auto n = static_cast<int64_t>(n_bytes / sizeof(uint4));
    const Extent extent{dim3(read_bandwidth_blocks(context)), threads, 0};
    auto read = [&](int times) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < times; ++i) {
            launch("read_bandwidth", context.stream, read_kernel, extent, static_cast<const uint4 *>(memory), n, sums);
        }
        check(cudaStreamSynchronize(context.stream), "read_bandwidth");
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    read(1);
    constexpr int times = 10;
    double best = 0;
    for (int i = 0; i < 3; ++i) best = std::max(best, times * static_cast<double>(n_bytes) / read(times));
    return best;
}

// Operations per clock and multiprocessor on bf16 with f32 sums, without sparsity, as NVIDIA's white papers of A100,
// GA102, Ada, H100 and Blackwell have them; of two products of one compute capability the faster.
double nominal_peak(int major, int minor, int n_multiprocessors, int clock_khz) {
    const int per_clock = major == 8    ? (minor == 0 ? 2048 : 1024)
                          : major == 9  ? 4096
                          : major == 10 ? 8192
                          : major == 12 ? 1024
                                        : 0;
    return 1e3 * clock_khz * n_multiprocessors * per_clock;
}

}  // namespace lorica::cuda
