// Products of few rows of x (decoding): as fast as the weights can be read. A warp makes a few elements of y; its lanes
// read neighbouring pieces of a row of W, expand them in registers and multiply them with x, which lies in shared
// memory. Every block reads all of x, so that each knows its norm.
#include "backend/cuda/dequantize.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/random.cuh"
#include "backend/cuda/view.cuh"

#include <vector>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, warps = threads / warp_size;
constexpr int rows_per_warp = 2;               // of W
constexpr int chunk = warp_size * piece_size;  // of k, in shared memory at once
constexpr int piece_stride = piece_size + 4;   // floats; keeps the lanes' pieces in different banks
constexpr int chunk_floats = warp_size * piece_stride;

// One of several layers that share x and have weights of one type.
struct Layer {
    unsigned first_block;  // of the grid
    const uint8_t * blocks;
    int64_t row_bytes, n;
    uint32_t dropout_threshold;
    float dropout_keep;
    Seed dropout_seed;
    const void * u;  // null: no adapter
    bool u_bf16, y_bf16;
    int64_t u_stride, rank;
    const float * b;
    float scale;
    const float * residual;
    int64_t residual_stride;
    void * y;
    int64_t y_stride;
};
constexpr int max_layers = 3;

struct Arguments {
    const void * x;
    int64_t x_stride, k;
    bool x_bf16;
    int rows, n_layers;
    // x counts as rmsnorm(x), of f32: it is multiplied by these, and its sums by 1 / rms. Null: x as it is.
    const float * norm_weight;
    float norm_eps;
    View<float> inverse_rms;  // receives 1 / rms, or null
    // Where given, a warp makes element i of two layers, and of h = silu(first) second.
    void * h;
    bool h_bf16;
    int64_t h_stride;
    Layer layers[max_layers];
};

__device__ __forceinline__ float load_element(const void * x, bool is_bf16, int64_t i) {
    return is_bf16 ? to_float(static_cast<const bf16 *>(x)[i]) : static_cast<const float *>(x)[i];
}
// Returns what is then in memory.
__device__ __forceinline__ float store_element(void * y, bool is_bf16, int64_t i, float value) {
    if (!is_bf16) return static_cast<float *>(y)[i] = value;
    return to_float(static_cast<bf16 *>(y)[i] = to_bf16(value));
}

template <ggml_type type, int max_rows>
__global__ void __launch_bounds__(threads) matvec_kernel(const __grid_constant__ Arguments p) {
    auto * x = reinterpret_cast<float *>(shared_memory());
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    int number = 0;
    while (number + 1 < p.n_layers && blockIdx.x >= p.layers[number + 1].first_block) ++number;
    const Layer & layer = p.layers[number];
    // A warp's rows of W: neighbours, or the same one of two layers.
    const int64_t place = int64_t{blockIdx.x - layer.first_block} * warps + warp;
    const auto layer_of = [&](int r) -> const Layer & { return p.h ? p.layers[r] : layer; };
    const auto row_of = [&](int r) { return p.h ? place : place * rows_per_warp + r; };
    const uint8_t * blocks[rows_per_warp];
#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) {
        blocks[r] = row_of(r) < layer.n ? layer_of(r).blocks + row_of(r) * layer_of(r).row_bytes : nullptr;
    }
    float sums[rows_per_warp][max_rows] = {}, squares[max_rows] = {};
    const uint64_t dropout_seed = layer.dropout_threshold ? layer.dropout_seed.get() : 0;

    // Pieces of blocks are read a chunk ahead, while the chunk before is multiplied and x is staged.
    constexpr bool ahead = !is_plain(type);
    RawPiece raw[ahead ? rows_per_warp : 1];
    auto read = [&](int64_t k0) {
        if constexpr (ahead) {
            const int64_t piece = k0 / piece_size + lane;
#pragma unroll
            for (int r = 0; r < rows_per_warp; ++r) {
                if (piece * piece_size < p.k && blocks[r]) load_raw<type>(blocks[r], piece, raw[r]);
            }
        }
    };
    read(0);

    for (int64_t k0 = 0; k0 < p.k; k0 += chunk) {
        __syncthreads();
#pragma unroll
        for (int row = 0; row < max_rows; ++row) {
            if (row >= p.rows) break;
            for (int col = static_cast<int>(threadIdx.x); col < chunk; col += threads) {
                float value = 0;
                if (k0 + col < p.k) {
                    const int64_t at = row * p.x_stride + k0 + col;
                    value = load_element(p.x, p.x_bf16, at);
                    if (p.norm_weight) {
                        squares[row] += value * value;
                        value *= p.norm_weight[k0 + col];
                    }
                    if (layer.dropout_threshold) {
                        const uint32_t random = random_number(dropout_seed, static_cast<uint64_t>(row * p.k + k0 + col));
                        value = random < layer.dropout_threshold ? 0.0f : value * layer.dropout_keep;
                    }
                }
                x[row * chunk_floats + col / piece_size * piece_stride + col % piece_size] = value;
            }
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
            if (!blocks[r]) break;
            float w[piece_size];
            if constexpr (ahead) {
                expand_raw<type>(current[r], w);
            } else {
                expand_piece<type>(blocks[r], piece, n, w);
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

    if (p.norm_weight) {
        auto * partial = x + p.rows * chunk_floats;
#pragma unroll
        for (int t = 0; t < max_rows; ++t) {
            if (t >= p.rows) break;
            const float mean = block_sum<threads>(squares[t], partial + t * warps) / static_cast<float>(p.k);
            const float inverse = 1.0f / sqrtf(mean + p.norm_eps);
            if (p.inverse_rms.data && blockIdx.x == 0 && threadIdx.x == 0) *p.inverse_rms.row(t) = inverse;
#pragma unroll
            for (int r = 0; r < rows_per_warp; ++r) sums[r][t] *= inverse;
        }
    }
#pragma unroll
    for (int t = 0; t < max_rows; ++t) {
        if (t >= p.rows) break;
        float y[rows_per_warp];
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            if (!blocks[r]) break;
            const Layer & of = layer_of(r);
            const int64_t col = row_of(r);
            float adapter = 0;
            for (int64_t j = lane; of.u && j < of.rank; j += warp_size) {
                adapter += load_element(of.u, of.u_bf16, t * of.u_stride + j) * of.b[col * of.rank + j];
            }
            float sum = warp_sum(sums[r][t] + of.scale * adapter);
            if (lane != 0) continue;
            if (of.residual) sum += of.residual[t * of.residual_stride + col];
            y[r] = store_element(of.y, of.y_bf16, t * of.y_stride + col, sum);
        }
        if (p.h && blocks[0] && lane == 0) {
            store_element(p.h, p.h_bf16, t * p.h_stride + place, y[0] / (1.0f + expf(-y[0])) * y[1]);
        }
    }
}

struct Job {
    ggml_type type;
    Layer layer;
};

Job job_of(const Weight & w, const Matrix & y) {
    Layer layer{};
    layer.blocks = reinterpret_cast<const uint8_t *>(w.data);
    layer.row_bytes = static_cast<int64_t>(w.row_bytes);
    layer.n = w.out;
    layer.y = y.data;
    layer.y_stride = y.stride;
    layer.y_bf16 = y.type == Dtype::bf16;
    return {w.type, layer};
}

// u = dropout(x) A^T
Job job_of_a(const Lora & lora, int64_t in, const Matrix & u) {
    Job job = job_of({GGML_TYPE_F32, lora.rank, in, static_cast<size_t>(in) * sizeof(float), static_cast<const std::byte *>(lora.a)}, u);
    job.layer.dropout_threshold = dropout_threshold(lora.dropout.p);
    job.layer.dropout_keep = static_cast<float>(1 / (1 - static_cast<double>(lora.dropout.p)));
    job.layer.dropout_seed = seed_of(lora.dropout);
    return job;
}

// y = [residual +] x W^T + scale u B^T
Job job_of(const LinearForward & of) {
    Job job = job_of(*of.weight, of.y);
    Layer & layer = job.layer;
    if (of.lora) {
        layer.u = of.u.data;
        layer.u_bf16 = of.u.type == Dtype::bf16;
        layer.u_stride = of.u.stride;
        layer.rank = of.lora.rank;
        layer.b = static_cast<const float *>(of.lora.b);
        layer.scale = static_cast<float>(of.lora.scale);
    }
    if (of.residual) {
        layer.residual = of.residual.as<float>();
        layer.residual_stride = of.residual.stride;
    }
    return job;
}

// Jobs of one type share launches. h: of the two there are then, of one type and shape.
void run(const Context & context, const char * name, Matrix x, const Norm * norm, std::vector<Job> jobs, Matrix h) {
    if (x.rows == 0) return;
    Arguments p{};
    p.x = x.data;
    p.x_stride = x.stride;
    p.k = x.cols;
    p.x_bf16 = x.type == Dtype::bf16;
    p.rows = static_cast<int>(x.rows);
    if (norm) {
        p.norm_weight = norm->weight;
        p.norm_eps = static_cast<float>(norm->eps);
        p.inverse_rms = view<float>(norm->inverse_rms);
    }
    p.h = h.data;
    p.h_bf16 = h.type == Dtype::bf16;
    p.h_stride = h.stride;
    const size_t shared_floats = static_cast<size_t>(p.rows) * (chunk_floats + (norm ? warps : 0));
    while (!jobs.empty()) {
        const ggml_type type = jobs.front().type;
        unsigned n_blocks = 0;
        p.n_layers = 0;
        std::vector<Job> later;
        for (const Job & job : jobs) {
            if (job.type != type || p.n_layers == max_layers) {
                later.push_back(job);
                continue;
            }
            Layer & layer = p.layers[p.n_layers++] = job.layer;
            layer.first_block = n_blocks;
            n_blocks += static_cast<unsigned>(divide_up(layer.n, warps * rows_per_warp));
        }
        if (h) {
            p.n_layers = 1;  // each block makes both
            n_blocks = static_cast<unsigned>(divide_up(h.cols, warps));
        }
        jobs = std::move(later);
        with_device_type(type, [&](auto constant) {
            constexpr ggml_type t = decltype(constant)::value;
            const auto kernel = p.rows == 1 ? matvec_kernel<t, 1> : matvec_kernel<t, matvec_max_rows>;
            launch(name, context.stream, kernel, {dim3(n_blocks), threads, shared_floats * sizeof(float)}, p);
        });
    }
}

void run_layers(const Context & context, const char * name, Matrix x, const Norm * norm, std::span<const LinearForward> layers, Matrix h) {
    std::vector<Job> first, second;
    for (const LinearForward & layer : layers) {
        if (layer.lora) first.push_back(job_of_a(layer.lora, x.cols, layer.u));
        if (layer.y) second.push_back(job_of(layer));
    }
    run(context, "matvec_lora_a", x, norm, std::move(first), {});
    run(context, name, x, norm, std::move(second), h);
}

}  // namespace

void linear_few_rows(const Context & context, Matrix x, const Norm * norm, std::span<const LinearForward> layers) {
    run_layers(context, "matvec", x, norm, layers, {});
}

void linear_swiglu_few_rows(const Context & context, Matrix x, const Norm & norm, std::span<const LinearForward> gate_and_up,
                            Matrix h) {
    run_layers(context, "matvec_swiglu", x, &norm, gate_and_up, h);
}

void matvec(const Context & context, Matrix x, const Weight & w, Matrix y) {
    run(context, "matvec", x, nullptr, {job_of(w, y)}, {});
}

}  // namespace lorica::cuda
