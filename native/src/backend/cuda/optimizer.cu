#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "common/dynamic_codebook.h"

#include <algorithm>
#include <cmath>

namespace lorica::cuda {

namespace {

constexpr int threads = 256;

// Block b sums a share that depends on n alone. In double: squares of floats cannot overflow it.
__global__ void sum_of_squares_kernel(const float * x, int64_t n, double * partial) {
    auto * shared = reinterpret_cast<double *>(shared_memory());
    double sum = 0;
    for (int64_t i = blockIdx.x * int64_t{threads} + threadIdx.x; i < n; i += int64_t{n_partial_sums} * threads) {
        const double value = x[i];
        sum += value * value;
    }
    sum = block_sum<threads>(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void add_partial_sums_kernel(double * partial) {
    static_assert(n_partial_sums == threads);
    auto * shared = reinterpret_cast<double *>(shared_memory());
    const double sum = block_sum<threads>(partial[threadIdx.x], shared);
    __syncthreads();
    if (threadIdx.x == 0) partial[0] = sum;
}

// Loshchilov & Hutter 2019, algorithm 2, with the bias corrections folded into the step size and a factor of the root.
struct AdamwConstants {
    float grad_scale, beta1, rest1, beta2, rest2, eps, decay, step_size, root_factor;
};

// One element: p, m and v are updated.
__device__ __forceinline__ void adamw_step(float & param, float grad, float & m, float & v, const AdamwConstants & c) {
    const float g = grad * c.grad_scale;
    m = c.beta1 * m + c.rest1 * g;
    v = c.beta2 * v + c.rest2 * g * g;
    param = param * c.decay - c.step_size * (m / (sqrtf(v) * c.root_factor + c.eps));
}

__global__ void adamw_kernel(float * param, const float * grad, float * m, float * v, int64_t n,
                             const __grid_constant__ AdamwConstants c) {
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        adamw_step(param[i], grad[i], m[i], v[i], c);
    }
}

struct Codebooks {
    float m[256], v[256];
};
struct Moments {
    uint8_t *m, *v;
    float *m_scales, *v_scales;
};

// The code of the value nearest to x, the lower one of two that are equally near.
__device__ __forceinline__ uint8_t nearest_code(const float * values, float x) {
    int low = 0, high = 255;  // the first code whose border to the next is not below x
    while (low < high) {
        const int middle = (low + high) / 2;
        if (x > 0.5f * (values[middle] + values[middle + 1])) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return static_cast<uint8_t>(low);
}

// A block of threads steps from block to block of moments, one element per thread.
__global__ void __launch_bounds__(threads) adamw_8bit_kernel(float * param, const float * grad,
                                                             const __grid_constant__ Moments moments, int64_t n,
                                                             const __grid_constant__ AdamwConstants c,
                                                             const __grid_constant__ Codebooks codebooks) {
    static_assert(Moments8bit::block_size == threads);
    auto * m_values = reinterpret_cast<float *>(shared_memory());
    float * v_values = m_values + threads;
    float * partial = v_values + threads;  // [4, warps]
    constexpr int warps = threads / warp_size;
    m_values[threadIdx.x] = codebooks.m[threadIdx.x];
    v_values[threadIdx.x] = codebooks.v[threadIdx.x];
    __syncthreads();
    const int64_t n_blocks = (n + threads - 1) / threads;
    int turn = 0;
    for (int64_t block = blockIdx.x; block < n_blocks; block += gridDim.x) {
        const int64_t i = block * threads + threadIdx.x;
        const bool there = i < n;
        float m = 0, v = 0;
        if (there) {
            m = m_values[moments.m[i]] * moments.m_scales[block];
            v = v_values[moments.v[i]] * moments.v_scales[block];
            adamw_step(param[i], grad[i], m, v, c);
        }
        // Both reductions wait for all threads, so that the other half of `partial` is free by the next turn.
        float * own = partial + turn * 2 * warps;
        turn ^= 1;
        const float m_max = block_max<threads>(fabsf(m), own), v_max = block_max<threads>(v, own + warps);
        if (there) {
            moments.m[i] = nearest_code(m_values, m_max > 0 ? m / m_max : 0.0f);
            moments.v[i] = nearest_code(v_values, v_max > 0 ? v / v_max : 0.0f);
        }
        if (threadIdx.x == 0) {
            moments.m_scales[block] = m_max;
            moments.v_scales[block] = v_max;
        }
    }
}

AdamwConstants constants(const AdamwParams & p) {
    const auto step = static_cast<double>(p.step);
    AdamwConstants c{};
    c.grad_scale = static_cast<float>(p.grad_scale);
    c.beta1 = static_cast<float>(p.beta1);
    c.rest1 = static_cast<float>(1 - p.beta1);
    c.beta2 = static_cast<float>(p.beta2);
    c.rest2 = static_cast<float>(1 - p.beta2);
    c.eps = static_cast<float>(p.eps);
    c.decay = static_cast<float>(1 - p.learning_rate * p.weight_decay);
    c.step_size = static_cast<float>(p.learning_rate / (1 - std::pow(p.beta1, step)));
    c.root_factor = static_cast<float>(1 / std::sqrt(1 - std::pow(p.beta2, step)));
    return c;
}

}  // namespace

void sum_of_squares(const Context & context, const float * x, int64_t n, double * partial) {
    const size_t shared_bytes = threads / warp_size * sizeof(double);
    launch("sum_of_squares", context.stream, sum_of_squares_kernel, {dim3(n_partial_sums), threads, shared_bytes}, x, n,
           partial);
    launch("add_partial_sums", context.stream, add_partial_sums_kernel, {dim3(1), threads, shared_bytes}, partial);
}

void adamw(const Context & context, float * param, const float * grad, float * m, float * v, int64_t n,
           const AdamwParams & params) {
    launch("adamw", context.stream, adamw_kernel, grid_over(n), param, grad, m, v, n, constants(params));
}

void adamw_8bit(const Context & context, float * param, const float * grad, const Moments8bit & moments, int64_t n,
                const AdamwParams & params) {
    static const Codebooks codebooks = [] {
        Codebooks c{};
        std::ranges::copy(dynamic_codebook(true), c.m);
        std::ranges::copy(dynamic_codebook(false), c.v);
        return c;
    }();
    Extent extent = grid_over(n, threads);
    extent.shared_bytes = (2 * threads + 4 * threads / warp_size) * sizeof(float);
    launch("adamw_8bit", context.stream, adamw_8bit_kernel, extent, param, grad,
           Moments{moments.m, moments.v, moments.m_scales, moments.v_scales}, n, constants(params), codebooks);
}

}  // namespace lorica::cuda
