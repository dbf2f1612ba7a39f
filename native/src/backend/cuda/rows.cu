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

// ---- whole rows

__global__ void __launch_bounds__(row_threads) gather_rows_kernel(const __grid_constant__ AnyRows x,
                                                                  const int32_t * rows,
                                                                  const __grid_constant__ AnyRows y) {
    const int64_t from = rows[blockIdx.x], to = blockIdx.x;
    for (int64_t i = threadIdx.x * 4; i < y.cols; i += row_threads * 4) y.put(to, i, y.cols, x.four(from, i, y.cols));
}

__global__ void __launch_bounds__(row_threads) scatter_add_rows_kernel(const __grid_constant__ AnyRows dy,
                                                                       const int32_t * rows,
                                                                       const __grid_constant__ AnyRows dx) {
    const int64_t from = blockIdx.x, to = rows[blockIdx.x];
    for (int64_t i = threadIdx.x * 4; i < dy.cols; i += row_threads * 4) {
        const float4 a = dy.four(from, i, dy.cols), b = dx.four(to, i, dy.cols);
        dx.put(to, i, dy.cols, {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w});
    }
}

// factors: of each row, or null for one of all.
__global__ void __launch_bounds__(row_threads) scale_kernel(const __grid_constant__ AnyRows x, float factor,
                                                            const float * factors, const __grid_constant__ AnyRows y) {
    const int64_t t = blockIdx.x;
    const float by = factors ? factors[t] : factor;
    for (int64_t i = threadIdx.x * 4; i < y.cols; i += row_threads * 4) {
        const float4 v = x.four(t, i, y.cols);
        y.put(t, i, y.cols, {by * v.x, by * v.y, by * v.z, by * v.w});
    }
}

// Ids rise: the first of equal ones adds them all, in their order.
__global__ void __launch_bounds__(row_threads) embed_backward_kernel(View<const float> dx, const int32_t * ids,
                                                                     const int32_t * rows, int64_t n, float scale,
                                                                     float * d_table) {
    const int64_t i = blockIdx.x;
    const int32_t id = ids[i];
    if (i > 0 && ids[i - 1] == id) return;
    float * to = d_table + id * dx.cols;
    for (int64_t c = threadIdx.x; c < dx.cols; c += row_threads) {
        float sum = to[c];
        for (int64_t j = i; j < n && ids[j] == id; ++j) sum += scale * dx.row(rows[j])[c];
        to[c] = sum;
    }
}

constexpr int segments_at_once = 64;
struct Segments {
    Segment of[segments_at_once];
};

// Block (columns, segment).
__global__ void __launch_bounds__(row_threads) segment_mean_kernel(View<const float> x,
                                                                   const __grid_constant__ Segments segments,
                                                                   View<float> y) {
    const Segment & segment = segments.of[blockIdx.y];
    const int64_t c = int64_t{blockIdx.x} * row_threads + threadIdx.x;
    if (c >= x.cols) return;
    double sum = 0;
    for (int32_t i = 0; i < segment.q_len; ++i) sum += static_cast<double>(x.row(segment.q_begin + i)[c]);
    y.row(blockIdx.y)[c] = static_cast<float>(sum / segment.q_len);
}

// Block (columns, segment).
__global__ void __launch_bounds__(row_threads) segment_mean_backward_kernel(View<const float> dy,
                                                                            const __grid_constant__ Segments segments,
                                                                            View<float> dx) {
    const Segment & segment = segments.of[blockIdx.y];
    const int64_t c = int64_t{blockIdx.x} * row_threads + threadIdx.x;
    if (c >= dx.cols) return;
    const float share = dy.row(blockIdx.y)[c] / static_cast<float>(segment.q_len);
    for (int32_t i = 0; i < segment.q_len; ++i) dx.row(segment.q_begin + i)[c] += share;
}

template <typename F> void with_segments(std::span<const Segment> segments, int64_t cols, F f) {
    for (size_t first = 0; first < segments.size(); first += segments_at_once) {
        const auto part = segments.subspan(first, std::min<size_t>(segments_at_once, segments.size() - first));
        Segments of{};
        std::ranges::copy(part, of.of);
        f(static_cast<int64_t>(first), static_cast<int64_t>(part.size()), of,
          Extent{dim3(static_cast<unsigned>(divide_up(cols, row_threads)), static_cast<unsigned>(part.size())),
                 row_threads, 0});
    }
}

// ---- copies

// The mask is that of common/random.h: four elements share one block of random numbers.
template <typename X, typename Y>
__global__ void copy_with_dropout_kernel(View<const X> x, Seed from_seed, uint32_t threshold, float keep, View<Y> y) {
    const uint64_t seed = threshold ? from_seed.get() : 0;
    const int64_t quads = (y.cols + 3) / 4, t = blockIdx.x;
    for (int64_t i = blockIdx.y * int64_t{row_threads} + threadIdx.x; i < quads;
         i += int64_t{gridDim.y} * row_threads) {
        const int64_t first = i * 4;
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
        const auto [t, c] = divide(i, p.cols);
        y[t * p.stride + c] = from_float<Y>(p.scale * p.x[i]);
    }
}

// ---- noise

// The arithmetic of Backend::add_noise, so that every device sees the same numbers.
__global__ void add_noise_kernel(View<float> x, int64_t first_row, double magnitude, uint64_t seed) {
    const int64_t n = x.rows * x.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const auto [t, c] = divide(i, x.cols);
        const uint32_t number = random_number(seed, static_cast<uint64_t>((first_row + t) * x.cols + c));
        const float uniform = static_cast<float>(number >> 8) * 0x1p-24f;
        x.row(t)[c] += static_cast<float>(magnitude * (2.0 * static_cast<double>(uniform) - 1));
    }
}

}  // namespace

void gather_rows(const Context & context, Matrix x, const int32_t * rows, Matrix y) {
    launch("gather_rows", context.stream, gather_rows_kernel, one_block_per_row(y), any_rows(x), rows, any_rows(y));
}

void scatter_add_rows(const Context & context, Matrix dy, const int32_t * rows, Matrix dx) {
    launch("scatter_add_rows", context.stream, scatter_add_rows_kernel, one_block_per_row(dy), any_rows(dy), rows,
           any_rows(dx));
}

void embed_backward(const Context & context, Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n,
                    double scale, float * d_table) {
    launch("embed_backward", context.stream, embed_backward_kernel, {dim3(static_cast<unsigned>(n)), row_threads, 0},
           view<const float>(dx), ids, rows, n, static_cast<float>(scale), d_table);
}

void scale(const Context & context, Matrix x, double factor, Matrix y) {
    launch("scale", context.stream, scale_kernel, one_block_per_row(y), any_rows(x), static_cast<float>(factor),
           nullptr, any_rows(y));
}

void scale_rows(const Context & context, Matrix x, const float * factors, Matrix y) {
    launch("scale_rows", context.stream, scale_kernel, one_block_per_row(y), any_rows(x), 1.0f, factors, any_rows(y));
}

void segment_mean(const Context & context, Matrix x, std::span<const Segment> segments, Matrix y) {
    with_segments(segments, x.cols, [&](int64_t first, int64_t n, const Segments & of, const Extent & extent) {
        launch("segment_mean", context.stream, segment_mean_kernel, extent, view<const float>(x), of,
               view<float>(y.slice_rows(first, n)));
    });
}

void segment_mean_backward(const Context & context, Matrix dy, std::span<const Segment> segments, Matrix dx) {
    with_segments(segments, dx.cols, [&](int64_t first, int64_t n, const Segments & of, const Extent & extent) {
        launch("segment_mean_backward", context.stream, segment_mean_backward_kernel, extent,
               view<const float>(dy.slice_rows(first, n)), of, view<float>(dx));
    });
}

void copy_with_dropout(const Context & context, Matrix x, const Dropout & dropout, Matrix y) {
    const auto keep = static_cast<float>(1 / (1 - static_cast<double>(dropout.p)));
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            const int64_t blocks_of_row = divide_up(y.cols, 4 * row_threads);
            launch("copy_with_dropout", context.stream, copy_with_dropout_kernel<X, Y>,
                   {dim3(static_cast<unsigned>(y.rows), static_cast<unsigned>(blocks_of_row)), row_threads, 0},
                   view<const X>(x), seed_of(dropout), dropout_threshold(dropout.p), keep, view<Y>(y));
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
