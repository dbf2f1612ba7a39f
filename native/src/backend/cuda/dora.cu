// DoRA (Liu et al. 2024, equation 5): the norms of the rows of W + s B A, and what they multiply. Sums are double:
// there are few of them, and the norm is a difference of large numbers where an adapter cancels a row.
#include "backend/cuda/dequantize.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/view.cuh"

namespace lorica::cuda {

namespace {

constexpr int threads = 256, warps = threads / warp_size;

// One block per row of W.
template <ggml_type type>
__global__ void __launch_bounds__(threads) row_squares_kernel(const uint8_t * blocks, int64_t row_bytes, int64_t in,
                                                              float * squares) {
    const uint8_t * row = blocks + blockIdx.x * row_bytes;
    double sum = 0;
    for (int64_t piece = threadIdx.x; piece * piece_size < in; piece += threads) {
        float v[piece_size];
        expand_piece<type>(row, piece, static_cast<int>(min(in - piece * piece_size, int64_t{piece_size})), v);
#pragma unroll
        for (int i = 0; i < piece_size; ++i) sum += static_cast<double>(v[i]) * static_cast<double>(v[i]);
    }
    sum = block_sum<threads>(sum, reinterpret_cast<double *>(shared_memory()));
    if (threadIdx.x == 0) squares[blockIdx.x] = static_cast<float>(sum);
}

// gram[j, k] = A_j . A_k: one block per pair with k <= j.
__global__ void __launch_bounds__(threads) gram_kernel(const float * a, int64_t in, int64_t rank, double * gram) {
    const int64_t j = blockIdx.x, k = blockIdx.y;
    if (k > j) return;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < in; i += threads) {
        sum += static_cast<double>(a[j * in + i]) * static_cast<double>(a[k * in + i]);
    }
    sum = block_sum<threads>(sum, reinterpret_cast<double *>(shared_memory()));
    if (threadIdx.x == 0) gram[j * rank + k] = gram[k * rank + j] = sum;
}

struct FactorArguments {
    const float *b, *products, *squares, *magnitudes;
    const double * gram;
    float *factors, *slopes;
    int64_t out, rank, products_stride;
    double scale, strength;
};

// One warp per row of W.
__global__ void __launch_bounds__(threads) dora_factors_kernel(const __grid_constant__ FactorArguments p) {
    const int64_t o = int64_t{blockIdx.x} * warps + threadIdx.x / warp_size;
    if (o >= p.out) return;
    const float * b = p.b + o * p.rank;
    double square = 0;
    for (int64_t j = threadIdx.x % warp_size; j < p.rank; j += warp_size) {
        double sum = 0;
        for (int64_t k = 0; k < p.rank; ++k) sum += p.gram[j * p.rank + k] * static_cast<double>(b[k]);
        const auto product = static_cast<double>(p.products[j * p.products_stride + o]);
        square += p.scale * static_cast<double>(b[j]) * (2 * product + p.scale * sum);
    }
    square = warp_sum(square);
    if (threadIdx.x % warp_size != 0) return;
    const auto own_square = static_cast<double>(p.squares[o]);
    square += own_square;
    const double start = sqrt(own_square);
    const double magnitude = start + p.strength * (static_cast<double>(p.magnitudes[o]) - start);
    p.factors[o] = static_cast<float>(square > 0 ? magnitude / sqrt(square) : 1.0);
    p.slopes[o] = static_cast<float>(magnitude == 0 ? 0.0 : p.strength / magnitude);
}

template <typename X, typename Y>
__global__ void scale_columns_kernel(View<const X> x, const float * factors, View<const float> residual, View<Y> y) {
    const int64_t n = x.rows * x.cols;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        const int64_t t = i / x.cols, o = i % x.cols;
        const float rest = residual.data ? residual.row(t)[o] : 0.0f;
        y.row(t)[o] = from_float<Y>(rest + factors[o] * to_float(x.row(t)[o]));
    }
}

// A block takes 32 columns; its warps take every eighth row each, and their sums are added in order. dx may be dy.
template <typename Dy, typename Y, typename Dx>
__global__ void __launch_bounds__(threads) dora_backward_kernel(View<const Dy> dy, View<const Y> y,
                                                                View<const float> residual, const float * factors,
                                                                const float * slopes, float * d_magnitudes,
                                                                View<Dx> dx) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int64_t o = int64_t{blockIdx.x} * warp_size + lane;
    double sum = 0;
    if (o < dy.cols) {
        const float factor = factors[o];
        for (int64_t t = warp; t < dy.rows; t += warps) {
            const float d = to_float(dy.row(t)[o]);
            const float own = to_float(y.row(t)[o]) - (residual.data ? residual.row(t)[o] : 0.0f);
            sum += static_cast<double>(d) * static_cast<double>(own);
            dx.row(t)[o] = from_float<Dx>(factor * d);
        }
    }
    auto * sums = reinterpret_cast<double *>(shared_memory());
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || o >= dy.cols) return;
    for (int w = 1; w < warps; ++w) sum += sums[w * warp_size + lane];
    d_magnitudes[o] += slopes[o] * static_cast<float>(sum);
}

}  // namespace

size_t dora_workspace_bytes(const WorkspaceShape & shape) {
    return static_cast<size_t>(shape.max_rank * shape.max_rank) * sizeof(double) + Workspace::alignment;
}

void row_squares(const Context & context, const Weight & w, float * squares) {
    with_device_type(w.type, [&](auto type) {
        launch("row_squares", context.stream, row_squares_kernel<decltype(type)::value>,
               {dim3(static_cast<unsigned>(w.out)), threads, warps * sizeof(double)},
               reinterpret_cast<const uint8_t *>(w.data), static_cast<int64_t>(w.row_bytes), w.in, squares);
    });
}

void dora_factors(const Context & context, const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) {
    const Workspace::Mark mark(context.workspace);
    auto * gram = context.workspace.take<double>(lora.rank * lora.rank);
    const auto rank = static_cast<unsigned>(lora.rank);
    launch("gram", context.stream, gram_kernel, {dim3(rank, rank), threads, warps * sizeof(double)},
           static_cast<const float *>(lora.a), in, lora.rank, gram);
    const FactorArguments p{static_cast<const float *>(lora.b),
                            rows.products.as<float>(),
                            static_cast<const float *>(rows.squares),
                            static_cast<const float *>(rows.magnitudes),
                            gram,
                            static_cast<float *>(rows.factors),
                            static_cast<float *>(rows.slopes),
                            out,
                            lora.rank,
                            rows.products.stride,
                            lora.scale,
                            rows.strength};
    launch("dora_factors", context.stream, dora_factors_kernel,
           {dim3(static_cast<unsigned>(divide_up(out, warps))), threads, 0}, p);
}

void scale_columns(const Context & context, Matrix x, const float * factors, Matrix residual, Matrix y) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            launch("scale_columns", context.stream, scale_columns_kernel<X, Y>, grid_over(x.rows * x.cols),
                   view<const X>(x), factors, view<const float>(residual), view<Y>(y));
        });
    });
}

void dora_backward(const Context & context, Matrix dy, Matrix y, Matrix residual, const DoraRows & rows,
                   float * d_magnitudes, Matrix dx) {
    const Extent extent{dim3(static_cast<unsigned>(divide_up(dy.cols, warp_size))), threads, threads * sizeof(double)};
    with_type(dy.type, [&]<typename Dy>(Dy *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            with_type(dx.type, [&]<typename Dx>(Dx *) {
                launch("dora_backward", context.stream, dora_backward_kernel<Dy, Y, Dx>, extent, view<const Dy>(dy),
                       view<const Y>(y), view<const float>(residual), static_cast<const float *>(rows.factors),
                       static_cast<const float *>(rows.slopes), d_magnitudes, view<Dx>(dx));
            });
        });
    });
}

}  // namespace lorica::cuda
