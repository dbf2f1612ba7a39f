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

// factors: null: all are 1.
__global__ void __launch_bounds__(threads) scale_columns_kernel(const __grid_constant__ AnyRows x,
                                                                const float * factors, const float * bias,
                                                                const __grid_constant__ AnyRows residual,
                                                                const __grid_constant__ AnyRows y) {
    const int64_t t = blockIdx.x;
    for (int64_t o = threadIdx.x * 4; o < y.cols; o += threads * 4) {
        const float4 four = x.four(t, o, y.cols);
        float v[] = {four.x, four.y, four.z, four.w};
        float4 rest{0, 0, 0, 0};
        if (residual.data) rest = residual.four(t, o, y.cols);
        const float rests[] = {rest.x, rest.y, rest.z, rest.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (o + i >= y.cols) break;
            if (factors) v[i] *= factors[o + i];
            if (bias) v[i] += bias[o + i];
            v[i] += rests[i];
        }
        y.put(t, o, y.cols, {v[0], v[1], v[2], v[3]});
    }
}

// A block takes 32 columns of a part of the rows; its warps take every eighth row each, and their sums are added in
// order. partial: [parts, columns]. dx may be dy.
__global__ void __launch_bounds__(threads) dora_backward_kernel(const __grid_constant__ AnyRows dy,
                                                                const __grid_constant__ AnyRows y, const float * bias,
                                                                const __grid_constant__ AnyRows residual,
                                                                const float * factors, int n_parts, double * partial,
                                                                const __grid_constant__ AnyRows dx) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int64_t o = int64_t{blockIdx.x} * warp_size + lane;
    const int64_t begin = dy.rows * blockIdx.y / n_parts, end = dy.rows * (blockIdx.y + 1) / n_parts;
    double sum = 0;
    if (o < dy.cols) {
        const float factor = factors[o], of_bias = bias ? bias[o] : 0.0f;
        for (int64_t t = begin + warp; t < end; t += warps) {
            const float d = dy.one(t, o);
            const float own = y.one(t, o) - of_bias - (residual.data ? residual.one(t, o) : 0.0f);
            sum += static_cast<double>(d) * static_cast<double>(own);
            dx.put_one(t, o, factor * d);
        }
    }
    auto * sums = reinterpret_cast<double *>(shared_memory());
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || o >= dy.cols) return;
    for (int w = 1; w < warps; ++w) sum += sums[w * warp_size + lane];
    partial[blockIdx.y * dy.cols + o] = sum;
}

__global__ void __launch_bounds__(threads) add_to_magnitudes_kernel(const double * partial, int n_parts, int64_t n,
                                                                    const float * slopes, float * d_magnitudes) {
    const int64_t o = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (o >= n) return;
    double sum = 0;
    for (int part = 0; part < n_parts; ++part) sum += partial[part * n + o];
    d_magnitudes[o] += slopes[o] * static_cast<float>(sum);
}

}  // namespace

size_t dora_workspace_bytes(const WorkspaceShape & shape) {
    return static_cast<size_t>(std::max(shape.max_rank * shape.max_rank, most_row_parts * shape.max_features)) *
               sizeof(double) +
           Workspace::alignment;
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

void scale_columns(const Context & context, Matrix x, const float * factors, const float * bias, Matrix residual,
                   Matrix y) {
    launch("scale_columns", context.stream, scale_columns_kernel, {dim3(static_cast<unsigned>(y.rows)), threads, 0},
           any_rows(x), factors, bias, any_rows(residual), any_rows(y));
}

void dora_backward(const Context & context, Matrix dy, Matrix y, const float * bias, Matrix residual,
                   const DoraRows & rows, float * d_magnitudes, Matrix dx) {
    const Workspace::Mark mark(context.workspace);
    const int n_parts = row_parts(context, dy.rows, dy.cols);
    auto * partial = context.workspace.take<double>(n_parts * dy.cols);
    launch("dora_backward", context.stream, dora_backward_kernel,
           {dim3(static_cast<unsigned>(divide_up(dy.cols, warp_size)), static_cast<unsigned>(n_parts)), threads,
            threads * sizeof(double)},
           any_rows(dy), any_rows(y), bias, any_rows(residual), static_cast<const float *>(rows.factors), n_parts,
           partial, any_rows(dx));
    launch("add_to_magnitudes", context.stream, add_to_magnitudes_kernel, grid_over(dy.cols, threads), partial, n_parts,
           dy.cols, static_cast<const float *>(rows.slopes), d_magnitudes);
}

}  // namespace lorica::cuda
