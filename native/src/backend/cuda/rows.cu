// Operations that go element by element or row by row. All of them wait for memory and nothing else.
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/random.cuh"

#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int row_threads = 256;

// A matrix as kernels take it.
template <typename T>
struct View {
    T * data;
    int64_t rows, cols, stride;

    __device__ __forceinline__ T * row(int64_t r) const { return data + r * stride; }
};

template <typename T>
View<T> view(const Matrix & x) {
    return {x.as<T>(), x.rows, x.cols, x.stride};
}

// Calls f with a null pointer of the element type: bf16 or float.
template <typename F>
void with_type(Dtype type, F f) {
    if (type == Dtype::bf16) {
        f(static_cast<bf16 *>(nullptr));
    } else {
        f(static_cast<float *>(nullptr));
    }
}

Extent one_block_per_row(const Matrix & x) { return {dim3(static_cast<unsigned>(x.rows)), row_threads, 64}; }

// ---- rmsnorm: r = 1 / sqrt(mean(x^2) + eps)

__device__ __forceinline__ float inverse_rms(const float * x, int64_t n, float eps, float * partial) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += row_threads) sum += x[i] * x[i];
    return 1.0f / sqrtf(block_sum<row_threads>(sum, partial) / static_cast<float>(n) + eps);
}

template <typename Y>
__global__ void rmsnorm_kernel(View<const float> x, const float * weight, float eps, View<Y> y) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    const float * x_t = x.row(blockIdx.x);
    Y * y_t = y.row(blockIdx.x);
    const float r = inverse_rms(x_t, x.cols, eps, partial);
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) y_t[i] = from_float<Y>(x_t[i] * r * weight[i]);
}

// dx_i += r w_i dy_i - x_i r^3 / n sum_j w_j dy_j x_j
template <typename Dy>
__global__ void rmsnorm_backward_kernel(View<const Dy> dy, View<const float> x, const float * weight, float eps,
                                        View<float> dx) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    const float * x_t = x.row(blockIdx.x);
    const Dy * dy_t = dy.row(blockIdx.x);
    float * dx_t = dx.row(blockIdx.x);
    const float r = inverse_rms(x_t, x.cols, eps, partial);
    float dot = 0;
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) dot += weight[i] * to_float(dy_t[i]) * (x_t[i] * r);
    dot = block_sum<row_threads>(dot, partial + row_threads / warp_size);
    const float along_x = r * r * dot / static_cast<float>(x.cols);
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) {
        dx_t[i] += r * weight[i] * to_float(dy_t[i]) - x_t[i] * along_x;
    }
}

// ---- rope

constexpr int max_frequencies = 128;
struct Frequencies {
    double inverse[max_frequencies];
    int n;
};

// One thread per token and frequency, for all heads. Angles grow beyond what a float resolves, so that whole turns are
// taken off in double.
__global__ void rope_kernel(View<bf16> x, const int32_t * positions, int head_dim,
                            const __grid_constant__ Frequencies f, float direction) {
    const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
    if (index >= x.rows * f.n) return;
    const int64_t t = index / f.n;
    const auto i = static_cast<int>(index % f.n);
    constexpr double turn = 6.283185307179586476925;
    const double angle = positions[t] * f.inverse[i];
    const auto rest = static_cast<float>(angle - turn * rint(angle / turn));
    const float cosine = cosf(rest), sine = direction * sinf(rest);
    bf16 * pair = x.row(t) + 2 * i;
    for (int64_t head = 0; head < x.cols; head += head_dim) {
        const float x0 = to_float(pair[head]), x1 = to_float(pair[head + 1]);
        pair[head] = to_bf16(x0 * cosine - x1 * sine);
        pair[head + 1] = to_bf16(x0 * sine + x1 * cosine);
    }
}

// ---- swiglu

__global__ void swiglu_kernel(View<const bf16> gate, View<const bf16> up, View<bf16> h) {
    const int64_t n = h.rows * h.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / h.cols, c = i % h.cols;
        const float g = to_float(gate.row(t)[c]);
        h.row(t)[c] = to_bf16(g / (1.0f + expf(-g)) * to_float(up.row(t)[c]));
    }
}

// s = 1 / (1 + exp(-g)): dsilu/dg = s + g s (1 - s). dgate and dup may be gate and up.
__global__ void swiglu_backward_kernel(View<const bf16> gate, View<const bf16> up, View<const bf16> dh,
                                       View<bf16> dgate, View<bf16> dup) {
    const int64_t n = dh.rows * dh.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / dh.cols, c = i % dh.cols;
        const float g = to_float(gate.row(t)[c]), u = to_float(up.row(t)[c]), d = to_float(dh.row(t)[c]);
        const float s = 1.0f / (1.0f + expf(-g));
        dgate.row(t)[c] = to_bf16(d * u * (s + g * s * (1.0f - s)));
        dup.row(t)[c] = to_bf16(d * g * s);
    }
}

// ---- whole rows

__global__ void gather_rows_kernel(View<const float> x, const int32_t * rows, View<float> y) {
    const float * from = x.row(rows[blockIdx.x]);
    float * to = y.row(blockIdx.x);
    for (int64_t i = threadIdx.x; i < y.cols; i += row_threads) to[i] = from[i];
}

__global__ void scatter_add_rows_kernel(View<const float> dy, const int32_t * rows, View<float> dx) {
    const float * from = dy.row(blockIdx.x);
    float * to = dx.row(rows[blockIdx.x]);
    for (int64_t i = threadIdx.x; i < dy.cols; i += row_threads) to[i] += from[i];
}

// ---- copies

// The mask is that of common/random.h: four elements share one block of random numbers.
template <typename X>
__global__ void copy_with_dropout_kernel(View<const X> x, uint64_t seed, uint32_t threshold, float keep, View<bf16> y) {
    const int64_t quads = (y.cols + 3) / 4, n = y.rows * quads;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / quads, first = i % quads * 4;
        const X * from = x.row(t);
        bf16 * to = y.row(t);
        uint64_t block = ~uint64_t{0};
        PhiloxBlock numbers{};
        for (int64_t c = first; c < min(first + 4, y.cols); ++c) {
            float value = to_float(from[c]);
            if (threshold) {
                const auto element = static_cast<uint64_t>(t * x.cols + c);
                if (element >> 2 != block) numbers = philox(seed, block = element >> 2);
                value = number_of(numbers, element) < threshold ? 0.0f : value * keep;
            }
            to[c] = to_bf16(value);
        }
    }
}

__global__ void convert_kernel(View<const float> x, float scale, View<bf16> y) {
    const int64_t n = y.rows * y.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / y.cols, c = i % y.cols;
        y.row(t)[c] = to_bf16(scale * x.row(t)[c]);
    }
}

}  // namespace

void rmsnorm(const Context & context, Matrix x, const float * weight, double eps, Matrix y) {
    with_type(y.type, [&]<typename Y>(Y *) {
        launch("rmsnorm", context.stream, rmsnorm_kernel<Y>, one_block_per_row(x), view<const float>(x), weight,
               static_cast<float>(eps), view<Y>(y));
    });
}

void rmsnorm_backward(const Context & context, Matrix dy, Matrix x, const float * weight, double eps, Matrix dx) {
    with_type(dy.type, [&]<typename Dy>(Dy *) {
        launch("rmsnorm_backward", context.stream, rmsnorm_backward_kernel<Dy>, one_block_per_row(x),
               view<const Dy>(dy), view<const float>(x), weight, static_cast<float>(eps), view<float>(dx));
    });
}

void rope(const Context & context, Matrix x, const int32_t * positions, int32_t head_dim,
          std::span<const double> inverse_frequency, bool inverse) {
    if (inverse_frequency.size() > max_frequencies) {
        fail(LORICA_ERROR_UNSUPPORTED, "the cuda device rotates at most ", 2 * max_frequencies,
             " elements of a head, not ", 2 * inverse_frequency.size());
    }
    Frequencies frequencies{};
    frequencies.n = static_cast<int>(inverse_frequency.size());
    for (size_t i = 0; i < inverse_frequency.size(); ++i) frequencies.inverse[i] = inverse_frequency[i];
    const Extent extent{dim3(static_cast<unsigned>(divide_up(x.rows * frequencies.n, row_threads))), row_threads, 0};
    launch("rope", context.stream, rope_kernel, extent, view<bf16>(x), positions, head_dim, frequencies,
           inverse ? -1.0f : 1.0f);
}

void swiglu(const Context & context, Matrix gate, Matrix up, Matrix h) {
    launch("swiglu", context.stream, swiglu_kernel, grid_over(h.rows * h.cols), view<const bf16>(gate),
           view<const bf16>(up), view<bf16>(h));
}

void swiglu_backward(const Context & context, Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup) {
    launch("swiglu_backward", context.stream, swiglu_backward_kernel, grid_over(dh.rows * dh.cols),
           view<const bf16>(gate), view<const bf16>(up), view<const bf16>(dh), view<bf16>(dgate), view<bf16>(dup));
}

void gather_rows(const Context & context, Matrix x, const int32_t * rows, Matrix y) {
    launch("gather_rows", context.stream, gather_rows_kernel, one_block_per_row(y), view<const float>(x), rows,
           view<float>(y));
}

void scatter_add_rows(const Context & context, Matrix dy, const int32_t * rows, Matrix dx) {
    launch("scatter_add_rows", context.stream, scatter_add_rows_kernel, one_block_per_row(dy), view<const float>(dy),
           rows, view<float>(dx));
}

void copy_with_dropout(const Context & context, Matrix x, const Dropout & dropout, Matrix y) {
    const auto keep = static_cast<float>(1 / (1 - static_cast<double>(dropout.p)));
    with_type(x.type, [&]<typename X>(X *) {
        launch("copy_with_dropout", context.stream, copy_with_dropout_kernel<X>,
               grid_over(y.rows * divide_up(y.cols, 4)), view<const X>(x), dropout.seed, dropout_threshold(dropout.p),
               keep, view<bf16>(y));
    });
}

void convert(const Context & context, const float * x, int64_t rows, int64_t cols, float scale, Matrix y) {
    launch("convert", context.stream, convert_kernel, grid_over(y.rows * y.cols),
           View<const float>{x, rows, cols, cols}, scale, view<bf16>(y));
}

}  // namespace lorica::cuda
