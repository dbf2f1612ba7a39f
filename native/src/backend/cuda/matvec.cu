// Products of few rows of x (decoding): as fast as the weights can be read. A warp makes two elements of y of each row
// of x; its lanes read neighbouring pieces of a row of W and multiply them with x, which lies in shared memory: quants
// as they are where x is one row, else values that are expanded in registers. Every block reads all of x, so that each
// knows its norm.
#include "backend/cuda/activation.cuh"
#include "backend/cuda/block_pairs.cuh"
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

__device__ __forceinline__ float load_element(const void * x, bool is_bf16, int64_t i) {
    return is_bf16 ? to_float(static_cast<const bf16 *>(x)[i]) : static_cast<const float *>(x)[i];
}
// Returns what is then in memory.
__device__ __forceinline__ float store_element(void * y, bool is_bf16, int64_t i, float value) {
    if (!is_bf16) return static_cast<float *>(y)[i] = value;
    return to_float(static_cast<bf16 *>(y)[i] = to_bf16(value));
}

// What the layers of a launch share.
struct Input {
    const void * x;
    int64_t stride, k;
    bool is_bf16;
    int rows;
    // x counts as rmsnorm(x): it is multiplied by these, and its sums by 1 / rms. Null: x as it is.
    const float * norm_weight;
    float norm_eps;
    View<float> inverse_rms;  // receives 1 / rms, or null

    bool together;  // four neighbours of x, and of the weight, can be read at once

    // Adds the element's square to those that the thread has seen of the row.
    __device__ __forceinline__ float load(int row, int64_t col, float & squares) const {
        float value = load_element(x, is_bf16, row * stride + col);
        if (norm_weight) {
            squares += value * value;
            value *= norm_weight[col];
        }
        return value;
    }
    // Four elements from col on, a multiple of four; behind the row there are zeros.
    __device__ __forceinline__ float4 load_four(int row, int64_t col, float & squares) const {
        if (!together || col + 4 > k) {
            float4 v{};
#pragma unroll 1
            for (int i = 0; i < 4 && col + i < k; ++i) {
                const float value = load(row, col + i, squares);
                (i < 2 ? i ? v.y : v.x : i < 3 ? v.z : v.w) = value;
            }
            return v;
        }
        float4 v;
        if (is_bf16) {
            const uint2 pairs = *reinterpret_cast<const uint2 *>(static_cast<const bf16 *>(x) + row * stride + col);
            v = {low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y), high_bf16(pairs.y)};
        } else {
            v = *reinterpret_cast<const float4 *>(static_cast<const float *>(x) + row * stride + col);
        }
        if (norm_weight) {
            squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
            const float4 weight = *reinterpret_cast<const float4 *>(norm_weight + col);
            v = {v.x * weight.x, v.y * weight.y, v.z * weight.z, v.w * weight.w};
        }
        return v;
    }
    // What the row's sums are multiplied by, from the squares that all threads of the block have seen. partial: shared
    // memory for a float of each warp, that of no other row.
    __device__ __forceinline__ float factor(int row, float squares, float * partial) const {
        if (!norm_weight) return 1;
        const float mean = block_sum<threads>(squares, partial) / static_cast<float>(k);
        const float inverse = 1.0f / sqrtf(mean + norm_eps);
        if (inverse_rms.data && blockIdx.x == 0 && threadIdx.x == 0) *inverse_rms.row(row) = inverse;
        return inverse;
    }
};

// One of several layers with weights of one type.
struct Layer {
    unsigned first_block;  // of the grid
    const uint8_t * blocks;
    int64_t row_bytes, n;
    const void * u;  // null: no adapter
    bool u_bf16, y_bf16;
    int64_t u_stride, rank;
    const float * b;
    float scale;
    const float * bias;
    const float * residual;
    int64_t residual_stride;
    void * y;
    int64_t y_stride;
};
constexpr int max_layers = 3;

struct Arguments {
    Input input;
    int n_layers;
    // Where given, a warp makes element i of two layers, and of h = act(first) second.
    void * h;
    Act act;
    bool h_bf16;
    int64_t h_stride;
    Layer layers[max_layers];
};

// Where a warp's rows of W are: neighbours, or the same one of two layers.
struct RowsOfWarp {
    const Arguments & p;
    const Layer & layer;  // the block's
    int64_t place;        // the warp's, in the layer

    __device__ __forceinline__ explicit RowsOfWarp(const Arguments & p_) : p(p_), layer(layer_of_block(p_)) {
        const int warp = static_cast<int>(threadIdx.x) / warp_size;
        place = int64_t{blockIdx.x - layer.first_block} * warps + warp;
    }
    __device__ __forceinline__ const Layer & layer_of(int r) const { return p.h ? p.layers[r] : layer; }
    __device__ __forceinline__ int64_t row_of(int r) const { return p.h ? place : place * rows_per_warp + r; }
    // Null: not there.
    __device__ __forceinline__ const uint8_t * blocks(int r) const {
        const Layer & of = layer_of(r);
        return row_of(r) < layer.n ? of.blocks + row_of(r) * of.row_bytes : nullptr;
    }
    // Element row_of(r) of y, from the whole sum.
    __device__ __forceinline__ float store(int r, int t, float sum) const {
        const Layer & of = layer_of(r);
        const int64_t col = row_of(r);
        if (of.bias) sum += of.bias[col];
        if (of.residual) sum += of.residual[t * of.residual_stride + col];
        return store_element(of.y, of.y_bf16, t * of.y_stride + col, sum);
    }
    __device__ __forceinline__ void store_gated(int t, float first, float second) const {
        store_element(p.h, p.h_bf16, t * p.h_stride + place, activated(p.act, first) * second);
    }
    // What lane `lane` of so many adds to u b^T.
    __device__ __forceinline__ float part_of_adapter(int r, int t, int lane, int lanes) const {
        const Layer & of = layer_of(r);
        float sum = 0;
        for (int64_t j = lane; of.u && j < of.rank; j += lanes) {
            sum += load_element(of.u, of.u_bf16, t * of.u_stride + j) * of.b[row_of(r) * of.rank + j];
        }
        return of.scale * sum;
    }

private:
    static __device__ __forceinline__ const Layer & layer_of_block(const Arguments & p) {
        int number = 0;
        while (number + 1 < p.n_layers && blockIdx.x >= p.layers[number + 1].first_block) ++number;
        return p.layers[number];
    }
};

// One row of x and a weight of quants. Half a warp makes an element of y: a lane has a pair of pieces, which it
// multiplies without expanding it. Pairs are read a chunk ahead, while the chunk before is multiplied and x is staged.
// Two blocks on a multiprocessor have 18 KB of 4-bit weights on their way; an H100 takes 18 for its memory's latency.
constexpr int half_warp = warp_size / 2;
constexpr int pair_stride = pair_size + 4;  // floats: the sums of the quarters, and other banks for the next pair
constexpr int pairs_floats = half_warp * pair_stride;
static_assert(chunk == half_warp * pair_size && pairs_floats <= chunk_floats);

template <ggml_type type>
__global__ void __launch_bounds__(threads, 2) matvec_row_kernel(const __grid_constant__ Arguments p) {
    await_kernels_before();
    const Input & input = p.input;
    auto * x = reinterpret_cast<float *>(shared_memory());
    const int lane = static_cast<int>(threadIdx.x) % half_warp, r = static_cast<int>(threadIdx.x) / half_warp % 2;
    const RowsOfWarp rows(p);
    const uint8_t * blocks = rows.blocks(r);
    const auto k = static_cast<int>(input.k);
    float sum = 0, squares = 0;

    // A chunk is four units, so that the lane's pairs lie in the same way in each.
    static_assert(chunk % unit_size == 0);
    const unsigned quarter = static_cast<unsigned>(lane) % 4;
    const uint8_t * unit = blocks + lane / 4 * unit_bytes_of(type);
    PairPlace place = place_of_pair<type>(unit, quarter, true);
    // Of the chunk from k0 on.
    const auto read = [&](int k0, RawPair & raw) {
        const int left = blocks ? k - k0 - lane * pair_size : 0;
        if (left <= 0) return;
        if (has_blocks_of_32(type) && left < pair_size) {
            place = place_of_pair<type>(unit + k0 / unit_size * unit_bytes_of(type), quarter, false);
        }
        load_pair<type>(place, raw);
        place.advance(chunk / unit_size * unit_bytes_of(type));
    };
    const auto stage = [&](int k0) {
        static_assert(chunk == 4 * threads);
        const int col = static_cast<int>(threadIdx.x) * 4;
        const float4 four = input.load_four(0, k0 + col, squares);
        float * own = x + col / pair_size * pair_stride;
        *reinterpret_cast<float4 *>(own + col % pair_size) = four;
        float quarter_sum = four.x + four.y + four.z + four.w;
        quarter_sum += __shfl_xor_sync(0xffffffffu, quarter_sum, 1);
        quarter_sum += __shfl_xor_sync(0xffffffffu, quarter_sum, 2);
        if (threadIdx.x % 4 == 0) own[pair_size + col % pair_size / 16] = quarter_sum;
    };
    const auto add_chunk = [&](int k0, const RawPair & raw, RawPair & next) {
        __syncthreads();
        stage(k0);
        __syncthreads();
        const unsigned shift = place.shift;
        read(k0 + chunk, next);
        if (!blocks || k0 + lane * pair_size >= k) return;
        const float * own = x + lane * pair_stride;
        AsDot dot{own, own + pair_size};
        visit_pair<type>(raw, shift, quarter, dot);
        // What is read in place of a second piece that is not there need not be a number.
        sum += dot.sums[0];
        if (!has_blocks_of_32(type) || k0 + lane * pair_size + piece_size < k) sum += dot.sums[1];
    };
    RawPair even, odd;
    read(0, even);
    for (int k0 = 0; k0 < k; k0 += 2 * chunk) {
        add_chunk(k0, even, odd);
        if (k0 + chunk < k) add_chunk(k0 + chunk, odd, even);
    }

    const float factor = input.factor(0, squares, x + pairs_floats);
    sum = sum * factor + (blocks ? rows.part_of_adapter(r, 0, lane, half_warp) : 0.0f);
#pragma unroll
    for (int distance = half_warp / 2; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    }
    const float y = blocks && lane == 0 ? rows.store(r, 0, sum) : 0.0f;
    const float second = __shfl_xor_sync(0xffffffffu, y, half_warp);
    if (p.h && blocks && threadIdx.x % warp_size == 0) rows.store_gated(0, y, second);
}

// Several rows of x, or weights without quants: values are made once for all of them.
template <ggml_type type, int max_rows>
__global__ void __launch_bounds__(threads, 2) matvec_kernel(const __grid_constant__ Arguments p) {
    await_kernels_before();
    const Input & input = p.input;
    auto * x = reinterpret_cast<float *>(shared_memory());
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const RowsOfWarp rows(p);
    const uint8_t * blocks[rows_per_warp];
#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) blocks[r] = rows.blocks(r);
    float sums[rows_per_warp][max_rows] = {}, squares[max_rows] = {};

    for (int64_t k0 = 0; k0 < input.k; k0 += chunk) {
        __syncthreads();
#pragma unroll
        for (int row = 0; row < max_rows; ++row) {
            if (row >= input.rows) break;
            const int col = static_cast<int>(threadIdx.x) * 4;
            float * own = x + row * chunk_floats + col / piece_size * piece_stride;
            *reinterpret_cast<float4 *>(own + col % piece_size) = input.load_four(row, k0 + col, squares[row]);
        }
        __syncthreads();
        const int64_t piece = k0 / piece_size + lane;
        const auto n = static_cast<int>(min(input.k - piece * piece_size, int64_t{piece_size}));
        if (n <= 0) continue;
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            if (!blocks[r]) break;
            float w[piece_size];
            expand_piece<type>(blocks[r], piece, n, w);
#pragma unroll
            for (int t = 0; t < max_rows; ++t) {
                if (t >= input.rows) break;
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
    for (int t = 0; t < max_rows; ++t) {
        if (t >= input.rows) break;
        const float factor = input.factor(t, squares[t], x + input.rows * chunk_floats + t * warps);
        float y[rows_per_warp];
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
            if (!blocks[r]) break;
            const float sum = warp_sum(sums[r][t] * factor + rows.part_of_adapter(r, t, lane, warp_size));
            if (lane == 0) y[r] = rows.store(r, t, sum);
        }
        if (p.h && blocks[0] && lane == 0) rows.store_gated(t, y[0], y[1]);
    }
}

// u = dropout(x) A^T of one layer.
struct Projection {
    unsigned first_block;
    const float * a;
    uint32_t dropout_threshold;
    float dropout_keep;
    Seed dropout_seed;
    const float * gate;  // null: none; of every gate_rows rows of A
    int64_t gate_stride, gate_rows;
    void * u;
    bool u_bf16;
    int64_t u_stride;
};
struct ProjectionArguments {
    Input input;
    int n_layers;
    Projection layers[max_layers];
};

// A has few rows: a block for each.
template <int max_rows>
__global__ void __launch_bounds__(threads) lora_a_kernel(const __grid_constant__ ProjectionArguments p) {
    await_kernels_before();
    const Input & input = p.input;
    auto * partial = reinterpret_cast<float *>(shared_memory());
    int number = 0;
    while (number + 1 < p.n_layers && blockIdx.x >= p.layers[number + 1].first_block) ++number;
    const Projection & layer = p.layers[number];
    const int64_t row = blockIdx.x - layer.first_block;
    const float * a = layer.a + row * input.k;
    const uint64_t dropout_seed = layer.dropout_threshold ? layer.dropout_seed.get() : 0;
    float sums[max_rows] = {}, squares[max_rows] = {};
    for (int64_t col = threadIdx.x; col < input.k; col += threads) {
        const float of_a = a[col];
#pragma unroll
        for (int t = 0; t < max_rows; ++t) {
            if (t >= input.rows) break;
            float value = input.load(t, col, squares[t]);
            if (layer.dropout_threshold) {
                const uint32_t random = random_number(dropout_seed, static_cast<uint64_t>(t * input.k + col));
                value = random < layer.dropout_threshold ? 0.0f : value * layer.dropout_keep;
            }
            sums[t] += value * of_a;
        }
    }
#pragma unroll
    for (int t = 0; t < max_rows; ++t) {
        if (t >= input.rows) break;
        const float factor = input.factor(t, squares[t], partial + 2 * t * warps);
        float sum = factor * block_sum<threads>(sums[t], partial + (2 * t + 1) * warps);
        if (layer.gate) sum *= layer.gate[t * layer.gate_stride + row / layer.gate_rows];
        if (threadIdx.x == 0) store_element(layer.u, layer.u_bf16, t * layer.u_stride + row, sum);
    }
}

Input input_of(const Matrix & x, const Norm * norm) {
    Input input{};
    input.x = x.data;
    input.stride = x.stride;
    input.k = x.cols;
    input.is_bf16 = x.type == Dtype::bf16;
    input.rows = static_cast<int>(x.rows);
    const auto fits = [](const void * p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; };
    input.together =
        fits(x.data, 4 * dtype_size(x.type)) && x.stride % 4 == 0 && (!norm || fits(norm->weight.data, 16));
    if (norm) {
        input.norm_weight = norm->weight.f32();
        input.norm_eps = static_cast<float>(norm->eps);
        input.inverse_rms = view<float>(norm->statistics);
    }
    return input;
}

void project(const Context & context, const Input & input, std::span<const LinearForward> layers) {
    ProjectionArguments p{};
    unsigned n_blocks = 0;
    const auto launch_all = [&] {
        const auto kernel = input.rows == 1 ? lora_a_kernel<1> : lora_a_kernel<matvec_max_rows>;
        const size_t shared_floats = 2 * warps * static_cast<size_t>(input.rows);
        launch("matvec_lora_a", context.stream, kernel,
               {.blocks = dim3(n_blocks),
                .threads = threads,
                .shared_bytes = shared_floats * sizeof(float),
                .overlaps = context.overlaps},
               p);
        p.n_layers = 0;
        n_blocks = 0;
    };
    p.input = input;
    for (const LinearForward & of : layers) {
        if (!of.lora) continue;
        if (p.n_layers == max_layers) launch_all();
        const Dropout & dropout = of.lora.dropout;
        p.layers[p.n_layers++] = {n_blocks,
                                  static_cast<const float *>(of.lora.a),
                                  dropout_threshold(dropout.p),
                                  static_cast<float>(1 / (1 - static_cast<double>(dropout.p))),
                                  seed_of(dropout),
                                  of.lora.gate.as<float>(),
                                  of.lora.gate.stride,
                                  of.lora.gate ? of.lora.rank / of.lora.gate.cols : 1,
                                  of.u.data,
                                  of.u.type == Dtype::bf16,
                                  of.u.stride};
        n_blocks += static_cast<unsigned>(of.lora.rank);
    }
    launch_all();
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
    layer.bias = of.bias.f32();
    if (of.residual) {
        layer.residual = of.residual.as<float>();
        layer.residual_stride = of.residual.stride;
    }
    return job;
}

// Jobs of one type share launches. h: of the two there are then, of one type and shape.
void run(const Context & context, const char * name, const Input & input, std::vector<Job> jobs, Act act, Matrix h) {
    Arguments p{};
    p.input = input;
    p.h = h.data;
    p.act = act;
    p.h_bf16 = h.type == Dtype::bf16;
    p.h_stride = h.stride;
    const size_t shared_floats = static_cast<size_t>(input.rows) * (chunk_floats + (input.norm_weight ? warps : 0));
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
            const Extent extent{.blocks = dim3(n_blocks),
                                .threads = threads,
                                .shared_bytes = shared_floats * sizeof(float),
                                .overlaps = context.overlaps};
            if (input.rows > 1) return launch(name, context.stream, matvec_kernel<t, matvec_max_rows>, extent, p);
            if constexpr (is_plain(t)) {
                launch(name, context.stream, matvec_kernel<t, 1>, extent, p);
            } else {
                launch(name, context.stream, matvec_row_kernel<t>, extent, p);
            }
        });
    }
}

void run_layers(const Context & context, const char * name, Matrix x, const Norm * norm,
                std::span<const LinearForward> layers, Act act, Matrix h) {
    if (x.rows == 0) return;
    const Input input = input_of(x, norm);
    project(context, input, layers);
    std::vector<Job> jobs;
    for (const LinearForward & layer : layers) {
        if (layer.y) jobs.push_back(job_of(layer));
    }
    run(context, name, input, std::move(jobs), act, h);
}

}  // namespace

void linear_few_rows(const Context & context, Matrix x, const Norm * norm, std::span<const LinearForward> layers) {
    run_layers(context, "matvec", x, norm, layers, Act::silu, {});
}

void linear_gated_few_rows(const Context & context, Matrix x, const Norm & norm,
                           std::span<const LinearForward> gate_and_up, Act act, Matrix h) {
    run_layers(context, "matvec_gated", x, &norm, gate_and_up, act, h);
}

void matvec(const Context & context, Matrix x, const Weight & w, Matrix y) {
    if (x.rows > 0) run(context, "matvec", input_of(x, nullptr), {job_of(w, y)}, Act::silu, {});
}

}  // namespace lorica::cuda
