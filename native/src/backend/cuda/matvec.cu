// Products of few rows of x (decoding): as fast as the weights can be read. A warp makes a few elements of y; its lanes
// read neighbouring pieces of a row of W, expand them in registers and multiply them with x, which lies in shared
// memory.
#include "backend/cuda/dequantize.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/random.cuh"

namespace lorica::cuda {

namespace {

constexpr int threads = 256, warps = threads / warp_size;
constexpr int rows_per_warp = 2;               // of W
constexpr int chunk = warp_size * piece_size;  // of k, in shared memory at once
constexpr int piece_stride = piece_size + 4;   // floats; keeps the lanes' pieces in different banks
constexpr int chunk_floats = warp_size * piece_stride;

struct Arguments {
    const void * x;
    int64_t x_stride, k;
    bool x_bf16, y_bf16;
    uint32_t dropout_threshold;
    float dropout_keep;
    Seed dropout_seed;
    const uint8_t * blocks;
    int64_t row_bytes, n;
    const void * u;  // null: no adapter
    bool u_bf16;
    int64_t u_stride, rank;
    const float * b;
    float scale;
    const float * residual;
    int64_t residual_stride;
    void * y;
    int64_t y_stride;
    int rows;
};

template <ggml_type type, int max_rows>
__global__ void __launch_bounds__(threads) matvec_kernel(const __grid_constant__ Arguments p) {
    auto * x = reinterpret_cast<float *>(shared_memory());
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int64_t first = (int64_t{blockIdx.x} * warps + warp) * rows_per_warp;
    float sums[rows_per_warp][max_rows] = {};
    const uint64_t dropout_seed = p.dropout_threshold ? p.dropout_seed.get() : 0;

    // Pieces of blocks are read a chunk ahead, while the chunk before is multiplied and x is staged.
    constexpr bool ahead = !is_plain(type);
    RawPiece raw[ahead ? rows_per_warp : 1];
    auto read = [&](int64_t k0) {
        if constexpr (ahead) {
            const int64_t piece = k0 / piece_size + lane;
#pragma unroll
            for (int r = 0; r < rows_per_warp; ++r) {
                if (piece * piece_size < p.k && first + r < p.n) {
                    load_raw<type>(p.blocks + (first + r) * p.row_bytes, piece, raw[r]);
                }
            }
        }
    };
    read(0);

    for (int64_t k0 = 0; k0 < p.k; k0 += chunk) {
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < p.rows * chunk; i += threads) {
            const int row = i / chunk, col = i % chunk;
            float value = 0;
            if (k0 + col < p.k) {
                const int64_t at = row * p.x_stride + k0 + col;
                value = p.x_bf16 ? to_float(static_cast<const bf16 *>(p.x)[at]) : static_cast<const float *>(p.x)[at];
                if (p.dropout_threshold) {
                    const uint32_t number = random_number(dropout_seed, static_cast<uint64_t>(row * p.k + k0 + col));
                    value = number < p.dropout_threshold ? 0.0f : value * p.dropout_keep;
                }
            }
            x[row * chunk_floats + col / piece_size * piece_stride + col % piece_size] = value;
        }
        __syncthreads();
        const int64_t piece = k0 / piece_size + lane;
        const auto n = static_cast<int>(min(p.k - piece * piece_size, int64_t{piece_size}));
        if (n <= 0) continue;
        RawPiece current[ahead ? rows_per_warp : 1];
        if constexpr (ahead) {
#pragma unroll
            for (int r = 0; r < rows_per_warp; ++r) current[r] = raw[r];
            read(k0 + chunk);
        }
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            if (first + r >= p.n) break;
            float w[piece_size];
            if constexpr (ahead) {
                expand_raw<type>(current[r], w);
            } else {
                expand_piece<type>(p.blocks + (first + r) * p.row_bytes, piece, n, w);
            }
#pragma unroll
            for (int t = 0; t < max_rows; ++t) {
                if (t >= p.rows) break;
                const auto * x_t = reinterpret_cast<const float4 *>(x + t * chunk_floats + lane * piece_stride);
                float sum = 0;
#pragma unroll
                for (int i = 0; i < piece_size / 4; ++i) {
                    const float4 four = x_t[i];
                    sum += four.x * w[4 * i] + four.y * w[4 * i + 1] + four.z * w[4 * i + 2] + four.w * w[4 * i + 3];
                }
                sums[r][t] += sum;
            }
        }
    }

#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) {
        const int64_t col = first + r;
        if (col >= p.n) break;
#pragma unroll
        for (int t = 0; t < max_rows; ++t) {
            if (t >= p.rows) break;
            float adapter = 0;
            for (int64_t j = lane; p.u && j < p.rank; j += warp_size) {
                const int64_t at = t * p.u_stride + j;
                const float u =
                    p.u_bf16 ? to_float(static_cast<const bf16 *>(p.u)[at]) : static_cast<const float *>(p.u)[at];
                adapter += u * p.b[col * p.rank + j];
            }
            float sum = warp_sum(sums[r][t] + p.scale * adapter);
            if (lane != 0) continue;
            if (p.residual) sum += p.residual[t * p.residual_stride + col];
            if (p.y_bf16) {
                static_cast<bf16 *>(p.y)[t * p.y_stride + col] = to_bf16(sum);
            } else {
                static_cast<float *>(p.y)[t * p.y_stride + col] = sum;
            }
        }
    }
}

Arguments arguments(const Matrix & x, const Weight & w, const Matrix & y) {
    Arguments p{};
    p.x = x.data;
    p.x_stride = x.stride;
    p.k = w.in;
    p.x_bf16 = x.type == Dtype::bf16;
    p.blocks = reinterpret_cast<const uint8_t *>(w.data);
    p.row_bytes = static_cast<int64_t>(w.row_bytes);
    p.n = w.out;
    p.y = y.data;
    p.y_stride = y.stride;
    p.y_bf16 = y.type == Dtype::bf16;
    p.rows = static_cast<int>(x.rows);
    return p;
}

void run(const Context & context, ggml_type type, const Arguments & p, const char * name) {
    const Extent extent{dim3(static_cast<unsigned>(divide_up(p.n, warps * rows_per_warp))), threads,
                        static_cast<size_t>(p.rows) * chunk_floats * sizeof(float)};
    with_device_type(type, [&](auto constant) {
        constexpr ggml_type t = decltype(constant)::value;
        if (p.rows == 1) {
            launch(name, context.stream, matvec_kernel<t, 1>, extent, p);
        } else {
            launch(name, context.stream, matvec_kernel<t, matvec_max_rows>, extent, p);
        }
    });
}

}  // namespace

void matvec(const Context & context, Matrix x, const LinearForward & layer) {
    Arguments p = arguments(x, *layer.weight, layer.y);
    if (layer.lora) {
        p.u = layer.u.data;
        p.u_bf16 = layer.u.type == Dtype::bf16;
        p.u_stride = layer.u.stride;
        p.rank = layer.lora.rank;
        p.b = static_cast<const float *>(layer.lora.b);
        p.scale = static_cast<float>(layer.lora.scale);
    }
    if (layer.residual) {
        p.residual = layer.residual.as<float>();
        p.residual_stride = layer.residual.stride;
    }
    run(context, layer.weight->type, p, "matvec");
}

void matvec(const Context & context, Matrix x, const Weight & w, Matrix y) {
    run(context, w.type, arguments(x, w, y), "matvec");
}

void matvec_lora_a(const Context & context, Matrix x, const Lora & lora, Matrix u) {
    const Weight a{GGML_TYPE_F32, lora.rank, x.cols, static_cast<size_t>(x.cols) * sizeof(float),
                   static_cast<const std::byte *>(lora.a)};
    Arguments p = arguments(x, a, u);
    p.dropout_threshold = dropout_threshold(lora.dropout.p);
    p.dropout_keep = static_cast<float>(1 / (1 - static_cast<double>(lora.dropout.p)));
    p.dropout_seed = seed_of(lora.dropout);
    run(context, GGML_TYPE_F32, p, "matvec_lora_a");
}

}  // namespace lorica::cuda
