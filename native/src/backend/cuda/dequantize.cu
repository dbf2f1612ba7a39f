#include "backend/cuda/dequantize.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/view.cuh"

namespace lorica::cuda {

namespace {

constexpr int dequantize_threads = 128, dequantize_warps = dequantize_threads / warp_size;
constexpr size_t warp_bytes = warp_size * piece_size * sizeof(bf16);

// Block (row, group of pieces): a warp takes 32 neighbouring pieces of a row, one per lane. Of bf16 they pass through
// shared memory, so that neighbouring lanes write neighbouring 16 bytes.
template <ggml_type type, typename T>
__global__ void __launch_bounds__(dequantize_threads) dequantize_kernel(const uint8_t * blocks, int64_t row_bytes,
                                                                        int64_t first_piece, int cols, T * to,
                                                                        int64_t stride) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int group = (static_cast<int>(blockIdx.y) * dequantize_warps + warp) * warp_size;  // its first piece
    const int piece = group + lane;
    float v[piece_size];
    if (piece * piece_size < cols) {
        const int n = min(cols - piece * piece_size, piece_size);
        expand_piece<type>(blocks + blockIdx.x * row_bytes, first_piece + piece, n, v);
    }
    T * row = to + blockIdx.x * stride;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int c = 0; c < piece_size; ++c) {
            if (piece * piece_size + c < cols) row[piece * piece_size + c] = v[c];
        }
    } else {
        // Chunks of a piece are permuted so that eight lanes always meet eight different banks.
        auto * own = reinterpret_cast<uint4 *>(shared_memory() + warp * warp_bytes);
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            own[lane * 4 + (c ^ (lane >> 1 & 3))] = {
                pack_bf16(v[8 * c], v[8 * c + 1]), pack_bf16(v[8 * c + 2], v[8 * c + 3]),
                pack_bf16(v[8 * c + 4], v[8 * c + 5]), pack_bf16(v[8 * c + 6], v[8 * c + 7])};
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int chunk = i * warp_size + lane, from = chunk / 4;
            const int col = group * piece_size + chunk * 8;
            if (col < cols) *reinterpret_cast<uint4 *>(row + col) = own[from * 4 + (chunk % 4 ^ (from >> 1 & 3))];
        }
    }
}

struct EmbedArguments {
    const uint8_t * blocks;
    int64_t row_bytes;
    const int32_t * ids;
    const float * virtual_rows;
    float scale;
    bool accumulate;
    View<float> x;
};

// Block (row, group of pieces).
template <ggml_type type>
__global__ void __launch_bounds__(dequantize_threads) embed_kernel(const __grid_constant__ EmbedArguments p) {
    const int64_t piece = int64_t{blockIdx.y} * dequantize_threads + threadIdx.x, first = piece * piece_size;
    if (first >= p.x.cols) return;
    const int32_t id = p.ids[blockIdx.x];
    const auto n = static_cast<int>(min(p.x.cols - first, int64_t{piece_size}));
    float * out = p.x.row(blockIdx.x) + first;
    if (id < 0) {
        const float * from = p.virtual_rows + int64_t{-1 - id} * p.x.cols + first;
        for (int c = 0; c < n; ++c) out[c] = p.accumulate ? out[c] + from[c] : from[c];
        return;
    }
    float v[piece_size];
    expand_piece<type>(p.blocks + id * p.row_bytes, piece, n, v);
#pragma unroll
    for (int c = 0; c < piece_size; ++c) {
        if (c < n) out[c] = p.accumulate ? out[c] + p.scale * v[c] : p.scale * v[c];
    }
}

}  // namespace

bool is_device_type(ggml_type type) { return is_plain(type) || has_blocks_on_device(type); }

// Of bf16 the last chunk of eight columns is written whole: the stride leaves room for it.
void dequantize(const Context & context, const Weight & w, int64_t first_row, int64_t rows, int64_t first_col,
                int64_t cols, void * to, int64_t stride) {
    const auto * blocks = reinterpret_cast<const uint8_t *>(w.data) + first_row * static_cast<int64_t>(w.row_bytes);
    with_device_type(w.type, [&](auto type) {
        with_type(context.act, [&]<typename T>(T *) {
            const int64_t groups = divide_up(cols, int64_t{dequantize_threads} * piece_size);
            launch("dequantize", context.stream, dequantize_kernel<decltype(type)::value, T>,
                   {dim3(static_cast<unsigned>(rows), static_cast<unsigned>(groups)), dequantize_threads,
                    dequantize_warps * warp_bytes},
                   blocks, static_cast<int64_t>(w.row_bytes), first_col / piece_size, static_cast<int>(cols),
                   static_cast<T *>(to), stride);
        });
    });
}

void embed(const Context & context, const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) {
    const EmbedArguments p{reinterpret_cast<const uint8_t *>(table.data),
                           static_cast<int64_t>(table.row_bytes),
                           ids,
                           options.virtual_rows.as<float>(),
                           static_cast<float>(options.scale),
                           options.accumulate,
                           view<float>(x)};
    const int64_t groups = divide_up(x.cols, int64_t{dequantize_threads} * piece_size);
    with_device_type(table.type, [&](auto type) {
        launch("embed", context.stream, embed_kernel<decltype(type)::value>,
               {dim3(static_cast<unsigned>(x.rows), static_cast<unsigned>(groups)), dequantize_threads, 0}, p);
    });
}

}  // namespace lorica::cuda
