#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"

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

__global__ void adamw_kernel(float * param, const float * grad, float * m, float * v, int64_t n,
                             const __grid_constant__ AdamwConstants c) {
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const float g = grad[i] * c.grad_scale;
        const float m1 = c.beta1 * m[i] + c.rest1 * g;
        const float v1 = c.beta2 * v[i] + c.rest2 * g * g;
        m[i] = m1;
        v[i] = v1;
        param[i] = param[i] * c.decay - c.step_size * (m1 / (sqrtf(v1) * c.root_factor + c.eps));
    }
}

}  // namespace

void sum_of_squares(const Context & context, const float * x, int64_t n, double * partial) {
    const size_t shared_bytes = threads / warp_size * sizeof(double);
    launch("sum_of_squares", context.stream, sum_of_squares_kernel, {dim3(n_partial_sums), threads, shared_bytes}, x, n,
           partial);
    launch("add_partial_sums", context.stream, add_partial_sums_kernel, {dim3(1), threads, shared_bytes}, partial);
}

void adamw(const Context & context, float * param, const float * grad, float * m, float * v, int64_t n,
           const AdamwParams & p) {
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
    launch("adamw", context.stream, adamw_kernel, grid_over(n), param, grad, m, v, n, c);
}

}  // namespace lorica::cuda
