// Operations that go element by element or row by row. All of them wait for memory and nothing else.
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/random.cuh"
#include "backend/cuda/view.cuh"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int row_threads = 256;

Extent one_block_per_row(const Matrix & x) { return {dim3(static_cast<unsigned>(x.rows)), row_threads, 64}; }

// ---- rmsnorm: r = 1 / sqrt(mean(x^2) + eps)

__device__ __forceinline__ float inverse_rms(const float * x, int64_t n, float eps, float * partial) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += row_threads) sum += x[i] * x[i];
    return 1.0f / sqrtf(block_sum<row_threads>(sum, partial) / static_cast<float>(n) + eps);
}

template <typename Y>
__global__ void rmsnorm_kernel(View<const float> x, const float * weight, float eps, View<Y> y, View<float> inverse) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    const float * x_t = x.row(blockIdx.x);
    Y * y_t = y.row(blockIdx.x);
    const float r = inverse_rms(x_t, x.cols, eps, partial);
    if (inverse.data && threadIdx.x == 0) *inverse.row(blockIdx.x) = r;
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) y_t[i] = from_float<Y>(x_t[i] * r * weight[i]);
}

// dx_i += r w_i dy_i - x_i r^3 / n sum_j w_j dy_j x_j
template <typename Dy, typename Act>
__global__ void rmsnorm_backward_kernel(View<const Dy> dy, View<const float> x, const float * weight, float eps,
                                        View<float> dx, View<Act> dx_act) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    const float * x_t = x.row(blockIdx.x);
    const Dy * dy_t = dy.row(blockIdx.x);
    float * dx_t = dx.row(blockIdx.x);
    Act * act_t = dx_act.data ? dx_act.row(blockIdx.x) : nullptr;
    const float r = inverse_rms(x_t, x.cols, eps, partial);
    float dot = 0;
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) dot += weight[i] * to_float(dy_t[i]) * (x_t[i] * r);
    dot = block_sum<row_threads>(dot, partial + row_threads / warp_size);
    const float along_x = r * r * dot / static_cast<float>(x.cols);
    for (int64_t i = threadIdx.x; i < x.cols; i += row_threads) {
        const float sum = dx_t[i] + (r * weight[i] * to_float(dy_t[i]) - x_t[i] * along_x);
        dx_t[i] = sum;
        if (act_t) act_t[i] = from_float<Act>(sum);
    }
}

// ---- rope

constexpr int max_frequencies = 128;
struct Frequencies {
    double inverse[max_frequencies];
    int n;
};

struct Rotation {
    float cosine, sine;
};
// Angles grow beyond what a float resolves, so that whole turns are taken off in double.
__device__ __forceinline__ Rotation rotation(int32_t position, double inverse_frequency) {
    constexpr double turn = 6.283185307179586476925;
    const double angle = position * inverse_frequency;
    const auto rest = static_cast<float>(angle - turn * rint(angle / turn));
    return {cosf(rest), sinf(rest)};
}

// One thread per token and frequency, for all heads.
template <typename T>
__global__ void rope_kernel(View<T> x, const int32_t * positions, int head_dim, const __grid_constant__ Frequencies f,
                            float direction) {
    const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
    if (index >= x.rows * f.n) return;
    const int64_t t = index / f.n;
    const auto i = static_cast<int>(index % f.n);
    const Rotation by = rotation(positions[t], f.inverse[i]);
    const float cosine = by.cosine, sine = direction * by.sine;
    T * pair = x.row(t) + 2 * i;
    for (int64_t head = 0; head < x.cols; head += head_dim) {
        const float x0 = to_float(pair[head]), x1 = to_float(pair[head + 1]);
        pair[head] = from_float<T>(x0 * cosine - x1 * sine);
        pair[head + 1] = from_float<T>(x0 * sine + x1 * cosine);
    }
}

// Block (token, head): the heads of q, then those of k, then those of v.
template <typename T>
__global__ void rope_into_cache_kernel(View<T> q, View<const T> k, View<const T> v, const int32_t * positions,
                                       int head_dim, const __grid_constant__ Frequencies f, View<T> k_cache,
                                       View<T> v_cache) {
    const int64_t t = blockIdx.x, n_head = q.cols / head_dim, n_head_kv = k.cols / head_dim;
    const int32_t position = positions[t];
    int64_t head = blockIdx.y;
    const bool of_q = head < n_head, of_v = head >= n_head + n_head_kv;
    head -= of_q ? 0 : of_v ? n_head + n_head_kv : n_head;
    const T * from = (of_q ? q.row(t) : of_v ? v.row(t) : k.row(t)) + head * head_dim;
    T * to = (of_q ? q.row(t) : of_v ? v_cache.row(position) : k_cache.row(position)) + head * head_dim;
    const int n_pairs = of_v ? 0 : f.n;
    for (int i = static_cast<int>(threadIdx.x); i < n_pairs; i += warp_size) {
        const Rotation by = rotation(position, f.inverse[i]);
        const float x0 = to_float(from[2 * i]), x1 = to_float(from[2 * i + 1]);
        to[2 * i] = from_float<T>(x0 * by.cosine - x1 * by.sine);
        to[2 * i + 1] = from_float<T>(x0 * by.sine + x1 * by.cosine);
    }
    if (of_q) return;
    for (int i = 2 * n_pairs + static_cast<int>(threadIdx.x); i < head_dim; i += warp_size) to[i] = from[i];
}

// ---- swiglu: a block per row, or several for few long ones, n neighbours per thread at a time

// n elements that are read and written by one instruction, or two of f32.
template <typename T, int n> struct alignas(n == 1 ? sizeof(T) : 16) Neighbours {
    T x[n];
};
template <int n, typename T>
__device__ __forceinline__ Neighbours<std::remove_const_t<T>, n> load_neighbours(T * from) {
    return *reinterpret_cast<const Neighbours<std::remove_const_t<T>, n> *>(from);
}
template <int n, typename T> __device__ __forceinline__ void store_neighbours(T * to, const Neighbours<T, n> & x) {
    *reinterpret_cast<Neighbours<T, n> *>(to) = x;
}
constexpr int most_neighbours = 8;
template <typename... Matrices> bool have_neighbours(const Matrices &... matrices) {
    return ((matrices.cols % most_neighbours == 0 && matrices.stride % most_neighbours == 0 &&
             reinterpret_cast<uintptr_t>(matrices.data) % 16 == 0) &&
            ...);
}

template <typename T, int n>
__global__ void __launch_bounds__(row_threads) swiglu_kernel(View<const T> gate, View<const T> up, View<T> h) {
    const int64_t t = blockIdx.x, first = (int64_t{blockIdx.y} * row_threads + threadIdx.x) * n;
    for (int64_t c = first; c < h.cols; c += int64_t{gridDim.y} * row_threads * n) {
        const auto g = load_neighbours<n>(gate.row(t) + c), u = load_neighbours<n>(up.row(t) + c);
        Neighbours<T, n> out;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const float x = to_float(g.x[i]);
            out.x[i] = from_float<T>(x / (1.0f + expf(-x)) * to_float(u.x[i]));
        }
        store_neighbours<n>(h.row(t) + c, out);
    }
}

// s = 1 / (1 + exp(-g)): dsilu/dg = s + g s (1 - s). dgate and dup may be gate and up.
template <typename T, int n>
__global__ void __launch_bounds__(row_threads) swiglu_backward_kernel(View<const T> gate, View<const T> up,
                                                                      View<const T> dh, View<T> dgate, View<T> dup) {
    const int64_t t = blockIdx.x;
    for (int64_t c = int64_t{threadIdx.x} * n; c < dh.cols; c += int64_t{row_threads} * n) {
        const auto gates = load_neighbours<n>(gate.row(t) + c), ups = load_neighbours<n>(up.row(t) + c);
        const auto dhs = load_neighbours<n>(dh.row(t) + c);
        Neighbours<T, n> dgates, dups;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const float g = to_float(gates.x[i]), u = to_float(ups.x[i]), d = to_float(dhs.x[i]);
            const float s = 1.0f / (1.0f + expf(-g));
            dgates.x[i] = from_float<T>(d * u * (s + g * s * (1.0f - s)));
            dups.x[i] = from_float<T>(d * g * s);
        }
        store_neighbours<n>(dgate.row(t) + c, dgates);
        store_neighbours<n>(dup.row(t) + c, dups);
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
template <typename X, typename Y>
__global__ void copy_with_dropout_kernel(View<const X> x, Seed from_seed, uint32_t threshold, float keep, View<Y> y) {
    const uint64_t seed = threshold ? from_seed.get() : 0;
    const int64_t quads = (y.cols + 3) / 4, n = y.rows * quads;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / quads, first = i % quads * 4;
        const X * from = x.row(t);
        Y * to = y.row(t);
        uint64_t block = ~uint64_t{0};
        PhiloxBlock numbers{};
        for (int64_t c = first; c < min(first + 4, y.cols); ++c) {
            float value = to_float(from[c]);
            if (threshold) {
                const auto element = static_cast<uint64_t>(t * x.cols + c);
                if (element >> 2 != block) numbers = philox(seed, block = element >> 2);
                value = number_of(numbers, element) < threshold ? 0.0f : value * keep;
            }
            to[c] = from_float<Y>(value);
        }
    }
}

struct Conversions {
    Conversion of[max_conversions];
};
template <typename Y>
__global__ void __launch_bounds__(row_threads) convert_kernel(const __grid_constant__ Conversions all) {
    const Conversion & p = all.of[blockIdx.y];
    auto * y = static_cast<Y *>(p.y);
    const int64_t n = p.rows * p.cols, first = blockIdx.x * int64_t{row_threads} + threadIdx.x;
    const int64_t step = int64_t{gridDim.x} * row_threads;
    if (p.stride == p.cols && n % 4 == 0 && reinterpret_cast<uintptr_t>(p.x) % 16 == 0) {
        for (int64_t i = first; i < n / 4; i += step) {
            const float4 v = reinterpret_cast<const float4 *>(p.x)[i];
            if constexpr (sizeof(Y) == 2) {
                reinterpret_cast<uint2 *>(y)[i] = {pack_bf16(p.scale * v.x, p.scale * v.y),
                                                   pack_bf16(p.scale * v.z, p.scale * v.w)};
            } else {
                reinterpret_cast<float4 *>(y)[i] = {p.scale * v.x, p.scale * v.y, p.scale * v.z, p.scale * v.w};
            }
        }
        return;
    }
    for (int64_t i = first; i < n; i += step) {
        const int64_t t = i / p.cols, c = i - t * p.cols;
        y[t * p.stride + c] = from_float<Y>(p.scale * p.x[i]);
    }
}

// ---- noise

// The arithmetic of Backend::add_noise, so that every device sees the same numbers.
__global__ void add_noise_kernel(View<float> x, int64_t first_row, double magnitude, uint64_t seed) {
    const int64_t n = x.rows * x.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / x.cols, c = i % x.cols;
        const uint32_t number = random_number(seed, static_cast<uint64_t>((first_row + t) * x.cols + c));
        const float uniform = static_cast<float>(number >> 8) * 0x1p-24f;
        x.row(t)[c] += static_cast<float>(magnitude * (2.0 * static_cast<double>(uniform) - 1));
    }
}

Frequencies frequencies_of(std::span<const double> inverse_frequency) {
    if (inverse_frequency.size() > max_frequencies) {
        fail(LORICA_ERROR_UNSUPPORTED, "the cuda device rotates at most ", 2 * max_frequencies,
             " elements of a head, not ", 2 * inverse_frequency.size());
    }
    Frequencies frequencies{};
    frequencies.n = static_cast<int>(inverse_frequency.size());
    for (size_t i = 0; i < inverse_frequency.size(); ++i) frequencies.inverse[i] = inverse_frequency[i];
    return frequencies;
}

}  // namespace

void rmsnorm(const Context & context, Matrix x, const Norm & norm, Matrix y) {
    with_type(y.type, [&]<typename Y>(Y *) {
        launch("rmsnorm", context.stream, rmsnorm_kernel<Y>, one_block_per_row(x), view<const float>(x),
               norm.weight.f32(), static_cast<float>(norm.eps), view<Y>(y), view<float>(norm.statistics));
    });
}

void rmsnorm_backward(const Context & context, Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act) {
    with_type(dy.type, [&]<typename Dy>(Dy *) {
        with_type(dx_act.type, [&]<typename Act>(Act *) {
            launch("rmsnorm_backward", context.stream, rmsnorm_backward_kernel<Dy, Act>, one_block_per_row(x),
                   view<const Dy>(dy), view<const float>(x), norm.weight.f32(), static_cast<float>(norm.eps),
                   view<float>(dx), view<Act>(dx_act));
        });
    });
}

void rope(const Context & context, Matrix x, const int32_t * positions, int32_t head_dim,
          std::span<const double> inverse_frequency, bool inverse) {
    const Frequencies frequencies = frequencies_of(inverse_frequency);
    const Extent extent{dim3(static_cast<unsigned>(divide_up(x.rows * frequencies.n, row_threads))), row_threads, 0};
    with_type(x.type, [&]<typename T>(T *) {
        launch("rope", context.stream, rope_kernel<T>, extent, view<T>(x), positions, head_dim, frequencies,
               inverse ? -1.0f : 1.0f);
    });
}

void rope_into_cache(const Context & context, Matrix q, Matrix k, Matrix v, const int32_t * positions, int32_t head_dim,
                     std::span<const double> inverse_frequency, Matrix k_cache, Matrix v_cache) {
    const Frequencies frequencies = frequencies_of(inverse_frequency);
    const auto n_heads = static_cast<unsigned>((q.cols + k.cols + v.cols) / head_dim);
    with_type(q.type, [&]<typename T>(T *) {
        launch("rope_into_cache", context.stream, rope_into_cache_kernel<T>,
               {dim3(static_cast<unsigned>(q.rows), n_heads), warp_size, 0}, view<T>(q), view<const T>(k),
               view<const T>(v), positions, head_dim, frequencies, view<T>(k_cache), view<T>(v_cache));
    });
}

void swiglu(const Context & context, Matrix gate, Matrix up, Matrix h) {
    with_type(h.type, [&]<typename T>(T *) {
        const bool neighbours = have_neighbours(gate, up, h);
        const auto kernel = neighbours ? swiglu_kernel<T, most_neighbours> : swiglu_kernel<T, 1>;
        Extent extent = one_block_per_row(h);
        const int64_t blocks_of_row = divide_up(h.cols, row_threads * (neighbours ? most_neighbours : 1));
        if (h.rows <= matvec_max_rows) extent.blocks.y = static_cast<unsigned>(blocks_of_row);
        launch("swiglu", context.stream, kernel, extent, view<const T>(gate), view<const T>(up), view<T>(h));
    });
}

void swiglu_backward(const Context & context, Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup) {
    with_type(dh.type, [&]<typename T>(T *) {
        const auto kernel = have_neighbours(gate, up, dh, dgate, dup) ? swiglu_backward_kernel<T, most_neighbours>
                                                                      : swiglu_backward_kernel<T, 1>;
        launch("swiglu_backward", context.stream, kernel, one_block_per_row(dh), view<const T>(gate), view<const T>(up),
               view<const T>(dh), view<T>(dgate), view<T>(dup));
    });
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
        with_type(y.type, [&]<typename Y>(Y *) {
            launch("copy_with_dropout", context.stream, copy_with_dropout_kernel<X, Y>,
                   grid_over(y.rows * divide_up(y.cols, 4)), view<const X>(x), seed_of(dropout),
                   dropout_threshold(dropout.p), keep, view<Y>(y));
        });
    });
}

void convert(const Context & context, const float * x, int64_t rows, int64_t cols, float scale, Matrix y) {
    const Conversion one{x, rows, cols, scale, y.data, y.stride};
    convert(context, {&one, 1});
}

void convert(const Context & context, std::span<const Conversion> conversions) {
    if (conversions.empty()) return;
    if (conversions.size() > max_conversions) {
        convert(context, conversions.first(max_conversions));
        return convert(context, conversions.subspan(max_conversions));
    }
    Conversions p{};
    int64_t most = 0;
    for (size_t i = 0; i < conversions.size(); ++i) {
        p.of[i] = conversions[i];
        most = std::max(most, conversions[i].rows * conversions[i].cols);
    }
    Extent extent = grid_over(divide_up(most, 4), row_threads);
    extent.blocks.y = static_cast<unsigned>(conversions.size());
    with_type(context.act, [&]<typename Y>(Y *) { launch("convert", context.stream, convert_kernel<Y>, extent, p); });
}

void add_noise(const Context & context, Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed) {
    for (const Segment & segment : segments) {
        const Matrix rows = x.slice_rows(segment.q_begin, segment.q_len);
        const double magnitude = alpha / std::sqrt(static_cast<double>(segment.q_len) * static_cast<double>(x.cols));
        launch("add_noise", context.stream, add_noise_kernel, grid_over(rows.rows * rows.cols), view<float>(rows),
               int64_t{segment.q_begin}, magnitude, seed);
    }
}

}  // namespace lorica::cuda
