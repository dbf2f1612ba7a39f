// What an adapter's B has to do with dy, the widest matrix of its backward pass: v = dy b and db += dy^T u in one
// kernel, which reads every tile of dy once. A block takes 256 rows of dy and a stretch of its columns, 64 by 64 at a
// time: of each such tile the rows go into sums of v, which stay until the stretch ends, and the columns into sums of
// db, which leave when their rows end. What blocks have made is added in order.
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_result.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/tile.cuh"

#include <algorithm>

namespace lorica::cuda {

namespace {

constexpr int threads = 128, warps = threads / warp_size;
constexpr int tile = 64;        // rows and columns of dy in a step
constexpr int row_tiles = 4;    // of a block
constexpr int stages = 4;       // three are on their way while one is multiplied
constexpr int most_parts = 16;  // of v or db, which blocks make
constexpr int64_t most_bytes = int64_t{64} << 20;
static_assert(tile == 16 * warps);

struct Arguments {
    const bf16 *dy, *b, *u;
    int64_t dy_stride, b_stride, u_stride;
    int64_t rows, cols;      // of dy
    int64_t tiles_of_block;  // of columns
    int rank;
    float *v, *db;  // parts: [stretches of columns, rows, rank], [blocks of rows, cols, rank]
};

// ranks: the rank, rounded up to a multiple of 16.
template <int ranks> struct Shared {
    using Dy = Tile<tile, tile>;
    using Narrow = Tile<tile, ranks>;
    static constexpr size_t bytes =
        (size_t{stages} * (Dy::n_elements + Narrow::n_elements) + row_tiles * Narrow::n_elements) * sizeof(bf16);

    bf16 * memory;
    __device__ __forceinline__ Dy dy(int stage) const { return {memory + stage * Dy::n_elements}; }
    __device__ __forceinline__ Narrow b(int stage) const {
        return {memory + stages * Dy::n_elements + stage * Narrow::n_elements};
    }
    __device__ __forceinline__ Narrow u(int i) const {
        return {memory + stages * (Dy::n_elements + Narrow::n_elements) + i * Narrow::n_elements};
    }
};

template <int ranks>
__global__ void __launch_bounds__(threads) adapter_gradient_kernel(const __grid_constant__ Arguments p) {
    using Tiles = Shared<ranks>;
    const Tiles shared{reinterpret_cast<bf16 *>(shared_memory())};
    const int64_t first_row = int64_t{blockIdx.x} * row_tiles * tile;
    const auto n_rows = static_cast<int>(min(p.rows - first_row, int64_t{row_tiles * tile}));
    const int n_row_tiles = (n_rows + tile - 1) / tile;
    const int64_t first_col = blockIdx.y * p.tiles_of_block * tile;
    const auto n_cols = static_cast<int>(min(p.cols - first_col, p.tiles_of_block * tile));
    const int n_steps = (n_cols + tile - 1) / tile * n_row_tiles;

    // The step that is read next: its tile of rows and its first column. b comes with the first tile of rows; four
    // steps after it at most its place is written again, when it has served all of them.
    int next_tile = 0, next_col = 0, next_stage = 0, next_b = 0;
    auto start = [&] {
        const int64_t row = first_row + next_tile * tile;
        TileReader<typename Tiles::Dy, threads>(p.dy + row * p.dy_stride + first_col + next_col, p.dy_stride)
            .load(shared.dy(next_stage), n_rows - next_tile * tile, n_cols - next_col);
        if (next_tile == 0) {
            TileReader<typename Tiles::Narrow, threads>(p.b + (first_col + next_col) * p.b_stride, p.b_stride)
                .load(shared.b(next_b), n_cols - next_col, p.rank);
            next_b = (next_b + 1) % stages;
        }
        next_stage = (next_stage + 1) % stages;
        if (++next_tile == n_row_tiles) {
            next_tile = 0;
            next_col += tile;
        }
    };
    for (int i = 0; i < n_row_tiles; ++i) {
        TileReader<typename Tiles::Narrow, threads>(p.u + (first_row + i * tile) * p.u_stride, p.u_stride)
            .load(shared.u(i), n_rows - i * tile, p.rank);
    }
    int n_started = 0;
    for (; n_started < stages - 1; ++n_started) {
        if (n_started < n_steps) start();
        copy_async_commit();
    }

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    float v[row_tiles][ranks / 8][4] = {};
    int stage = 0, b_stage = 0;
    for (int col = 0; col < n_cols; col += tile) {
        float db[ranks / 16][2][4] = {};
#pragma unroll
        for (int i = 0; i < row_tiles; ++i) {
            if (i >= n_row_tiles) break;
            copy_async_wait<stages - 2>();
            __syncthreads();
            if (n_started++ < n_steps) start();
            copy_async_commit();
            const auto dy = shared.dy(stage);
            const auto b = shared.b(b_stage), u = shared.u(i);
#pragma unroll
            for (int k = 0; k < tile; k += 16) {
                uint32_t of_rows[4], of_cols[4];
                dy.operand_a(of_rows, warp * 16, k);
                dy.operands_b_by_rows(of_cols, k, warp * 16);
#pragma unroll
                for (int f = 0; f < ranks / 16; ++f) {
                    uint32_t other[4];
                    b.operands_b_by_rows(other, k, 0, f * 16);
                    multiply_add(v[i][2 * f], of_rows, other[0], other[1]);
                    multiply_add(v[i][2 * f + 1], of_rows, other[2], other[3]);
                    u.operand_a_transposed(other, 0, k, f * 16);
                    multiply_add(db[f][0], other, of_cols[0], of_cols[1]);
                    multiply_add(db[f][1], other, of_cols[2], of_cols[3]);
                }
            }
            stage = (stage + 1) % stages;
        }
        b_stage = (b_stage + 1) % stages;
        // Element (rank, column) of a fragment: rows g and g + 8, columns 2t and 2t + 1.
        float * to = p.db + (blockIdx.x * p.cols + first_col) * p.rank;
#pragma unroll
        for (int f = 0; f < ranks / 16; ++f) {
#pragma unroll
            for (int e = 0; e < 8; ++e) {
                const int r = f * 16 + e % 4 / 2 * 8 + lane / 4;
                const int c = col + warp * 16 + e / 4 * 8 + lane % 4 * 2 + e % 2;
                if (r < p.rank && c < n_cols) to[int64_t{c} * p.rank + r] = db[f][e / 4][e % 4];
            }
        }
    }
    copy_async_wait<0>();
    float * to = p.v + (blockIdx.y * p.rows + first_row) * p.rank;
#pragma unroll
    for (int i = 0; i < row_tiles; ++i) {
#pragma unroll
        for (int f = 0; f < ranks / 8; ++f) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = i * tile + warp * 16 + e / 2 * 8 + lane / 4, r = f * 8 + lane % 4 * 2 + e % 2;
                if (row < n_rows && r < p.rank) to[int64_t{row} * p.rank + r] = v[i][f][e];
            }
        }
    }
}

// Parts of v and of db, added in order.
struct Parts {
    Gemm gemm;  // extents, and where sums go
    int n;
    const float * parts;
};
struct BothParts {
    Parts of[2];
};
__global__ void add_parts_kernel(const __grid_constant__ BothParts both) {
    const Parts & p = both.of[blockIdx.y];
    add_parts(p.gemm, p.n, p.parts);
}

template <int ranks> void run(const Context & context, const Arguments & p, int64_t blocks_of_rows, int64_t stretches) {
    launch(
        "adapter_gradient", context.stream, adapter_gradient_kernel<ranks>,
        {dim3(static_cast<unsigned>(blocks_of_rows), static_cast<unsigned>(stretches)), threads, Shared<ranks>::bytes},
        p);
}

}  // namespace

bool suits_adapter_gradient(const Context & context, int64_t rank) {
    return context.act == Dtype::bf16 && rank <= max_rank_of_adapter_gradient;
}

void adapter_gradient(const Context & context, const Matrix & dy, const Matrix & b, const Matrix & u,
                      const GemmResult & v, float scale, float * db) {
    const int64_t rank = u.cols, row_bytes = rank * static_cast<int64_t>(sizeof(float));
    // So many rows at once that the parts find room where gemm() has those of its products.
    const int64_t fitting = std::clamp<int64_t>(most_bytes * 3 / 4 / (dy.cols * row_bytes), 1, most_parts);
    const int64_t rows_at_once = fitting * row_tiles * tile;
    for (int64_t first = 0; first < dy.rows; first += rows_at_once) {
        const Workspace::Mark mark(context.workspace);
        const int64_t rows = std::min(rows_at_once, dy.rows - first);
        const int64_t blocks_of_rows = divide_up(rows, row_tiles * tile), col_tiles = divide_up(dy.cols, tile);
        const int64_t left =
            std::max<int64_t>((most_bytes - blocks_of_rows * dy.cols * row_bytes) / (rows * row_bytes), 1);
        const int64_t wanted = std::clamp<int64_t>(2 * context.n_multiprocessors / blocks_of_rows, 1,
                                                   std::min<int64_t>({most_parts, col_tiles, left}));
        Arguments p{};
        p.dy = dy.as<bf16>() + first * dy.stride;
        p.b = b.as<bf16>();
        p.u = u.as<bf16>() + first * u.stride;
        p.dy_stride = dy.stride;
        p.b_stride = b.stride;
        p.u_stride = u.stride;
        p.rows = rows;
        p.cols = dy.cols;
        p.tiles_of_block = divide_up(col_tiles, wanted);
        p.rank = static_cast<int>(rank);
        const int64_t stretches = divide_up(col_tiles, p.tiles_of_block);
        p.v = context.workspace.take<float>(stretches * rows * rank);
        p.db = context.workspace.take<float>(blocks_of_rows * dy.cols * rank);
        if (rank <= 16) {
            run<16>(context, p, blocks_of_rows, stretches);
        } else if (rank <= 32) {
            run<32>(context, p, blocks_of_rows, stretches);
        } else {
            run<64>(context, p, blocks_of_rows, stretches);
        }
        GemmResult to_v = v, to_db;
        to_v.c = v.bf16 ? static_cast<void *>(static_cast<bf16 *>(v.c) + first * v.stride)
                        : static_cast<void *>(static_cast<float *>(v.c) + first * v.stride);
        if (to_v.gate) to_v.gate += first * v.gate_stride;
        to_db.c = db;
        to_db.stride = rank;
        to_db.accumulate = true;
        to_db.scale = scale;
        const BothParts both{
            {{Gemm(GemmLayout::backward, rows, rank, to_v), static_cast<int>(stretches), p.v},
             {Gemm(GemmLayout::gradient, dy.cols, rank, to_db), static_cast<int>(blocks_of_rows), p.db}}};
        Extent extent = grid_over(std::max(rows, dy.cols) * rank);
        extent.blocks.y = 2;
        launch("add_parts", context.stream, add_parts_kernel, extent, both);
    }
}

}  // namespace lorica::cuda
