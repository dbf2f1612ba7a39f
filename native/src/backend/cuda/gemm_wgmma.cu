// The matrix product on Hopper's warp-group instructions, for large dense operands. A block of two warp groups makes a
// tile of 128 rows of c; operands pass through shared memory in several stages, copied by all threads. While a product
// is under way the next one is issued, so that the tensor cores do not wait for the barrier between stages.
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_result.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/wgmma.cuh"

#include <algorithm>
#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, tile_rows = 128, depth = 64;
constexpr size_t tile_alignment = 1024;     // of the swizzle
constexpr size_t shared_limit = 227 << 10;  // of sm_90
constexpr uint32_t row_bytes = depth * sizeof(bf16);

template <int cols> constexpr int stages = cols == 256 ? 4 : 6;
template <int cols>
constexpr size_t shared_bytes = size_t{stages<cols>} * (tile_rows + cols) * row_bytes + tile_alignment;

struct Arguments {
    Gemm gemm;
    int64_t iterations;  // stages of all terms
    bool eights;         // see has_eights()
};

template <GemmLayout layout, int cols>
__global__ void __launch_bounds__(threads, 1) gemm_wgmma_kernel(const __grid_constant__ Arguments p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LORICA_CUDA_ON_CPU)
    constexpr int group_rows = 16;  // tiles of c that use the same tiles of b one after another
    constexpr uint32_t eight_rows = 8 * row_bytes;
    constexpr bool b_by_rows = layout == GemmLayout::backward;
    constexpr int n_stages = stages<cols>, ahead = n_stages - 2;
    using TileA = Tile<tile_rows, depth>;
    // By rows: side by side, 64 columns each.
    using TileB = Tile<b_by_rows ? depth : cols, 64>;
    constexpr int n_b_tiles = b_by_rows ? cols / 64 : 1;
    constexpr int stage_elements = TileA::n_elements + n_b_tiles * TileB::n_elements;

    const uint32_t unaligned = shared_address(shared_memory());
    const uint32_t base = (unaligned + tile_alignment - 1) / tile_alignment * tile_alignment;
    auto * memory = reinterpret_cast<bf16 *>(shared_memory() + (base - unaligned));
    auto tile_a = [&](int stage) { return TileA{memory + stage * stage_elements}; };
    auto tile_b = [&](int stage, int i) {
        return TileB{memory + stage * stage_elements + TileA::n_elements + i * TileB::n_elements};
    };

    const int64_t m_tiles = (p.gemm.m + tile_rows - 1) / tile_rows, n_tiles = (p.gemm.n + cols - 1) / cols;
    const int64_t group = blockIdx.x / (group_rows * n_tiles), within = blockIdx.x % (group_rows * n_tiles);
    const int64_t rows_of_group = min(m_tiles - group * group_rows, int64_t{group_rows});
    const int64_t m0 = (group * group_rows + within % rows_of_group) * tile_rows, n0 = within / rows_of_group * cols;
    const auto m_left = static_cast<int>(min(p.gemm.m - m0, int64_t{tile_rows}));
    const auto n_left = static_cast<int>(min(p.gemm.n - n0, int64_t{cols}));

    // Where the next stage is read from: k_left of the term's k are still to come.
    int term = 0, k_left = 0;
    TileReader<TileA, threads> read_a;
    TileReader<TileB, threads> read_b;
    int64_t b_step = 0;
    auto begin_term = [&] {
        const GemmTerm & t = p.gemm.terms[term];
        const auto * b = static_cast<const bf16 *>(t.b);
        k_left = static_cast<int>(t.k);
        read_a = {static_cast<const bf16 *>(t.a) + m0 * t.a_stride, t.a_stride};
        read_b = {b_by_rows ? b + n0 : b + n0 * t.b_stride, t.b_stride};
        b_step = b_by_rows ? depth * t.b_stride : depth;
    };
    begin_term();
    auto start = [&](int stage) {
        read_a.load(tile_a(stage), m_left, k_left);
        read_a.advance(depth);
        if constexpr (b_by_rows) {
            TileReader<TileB, threads> part = read_b;
#pragma unroll
            for (int i = 0; i < n_b_tiles; ++i, part.advance(64)) part.load(tile_b(stage, i), k_left, n_left - i * 64);
        } else {
            read_b.load(tile_b(stage, 0), n_left, k_left);
        }
        read_b.advance(b_step);
        k_left -= depth;
        if (k_left <= 0 && term + 1 < p.gemm.n_terms) {
            ++term;
            begin_term();
        }
    };

    const int warp_group = static_cast<int>(threadIdx.x) / 128;
    float sums[cols / 8][4] = {};
    products_settle(sums);
    const auto n = static_cast<int>(p.iterations);
    for (int i = 0; i < ahead; ++i) {
        if (i < n) start(i);
        copy_async_commit();
    }
    for (int i = 0; i < n; ++i) {
        copy_async_wait<ahead - 1>();
        fence_for_products();
        // Behind it stage i is there, and the products of stage i - 2 are done: all groups have waited for them.
        __syncthreads();
        const uint32_t address = base + static_cast<uint32_t>(i % n_stages * stage_elements) * sizeof(bf16);
        const auto a =
            MatrixDescriptor::of(address + static_cast<uint32_t>(warp_group) * 64 * row_bytes, 16, eight_rows);
        const auto b = MatrixDescriptor::of(address + TileA::n_elements * sizeof(bf16),
                                            b_by_rows ? TileB::n_elements * sizeof(bf16) : 16, eight_rows);
        products_begin();
#pragma unroll
        for (int kk = 0; kk < depth; kk += 16) {
            multiply_add_group<b_by_rows>(sums, a.at(static_cast<uint32_t>(kk * sizeof(bf16))),
                                          b.at(b_by_rows ? kk * row_bytes : static_cast<uint32_t>(kk * sizeof(bf16))));
        }
        products_commit();
        products_wait<1>();
        if (i + ahead < n) start((i + ahead) % n_stages);
        copy_async_commit();
    }
    products_wait<0>();
    products_settle(sums);

    // All have done with the last stages, whose place the sums take.
    copy_async_wait<0>();
    __syncthreads();
    using Result = ResultTile<tile_rows, cols, threads>;
    static_assert(Result::shared_bytes + tile_alignment <= shared_bytes<cols>);
    const Result result{reinterpret_cast<float *>(memory)};
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int f = 0; f < cols / 8; ++f) {
            result.put(warp * 16 + half * 8 + lane / 4, f * 8 + lane % 4 * 2, sums[f][2 * half], sums[f][2 * half + 1]);
        }
    }
    __syncthreads();
    result.store_all(p.gemm, m0, n0, p.eights);
#else
    (void)p;
    __trap();  // never launched: see has_wgmma()
#endif
}

template <GemmLayout layout, int cols> void run(const Context & context, const Arguments & p, const char * name) {
    const int64_t tiles = divide_up(p.gemm.m, tile_rows) * divide_up(p.gemm.n, cols);
    launch(name, context.stream, gemm_wgmma_kernel<layout, cols>,
           {dim3(static_cast<unsigned>(tiles)), threads, shared_bytes<cols>, shared_limit}, p);
}

template <GemmLayout layout> void run(const Context & context, const Arguments & p, const char * name) {
    // What the multiprocessor with the most tiles has to do, in columns of tiles. Those of 128 read their operands from
    // the L2 cache half as often again for each product.
    const auto time = [&](int64_t cols) {
        const int64_t tiles = divide_up(p.gemm.m, tile_rows) * divide_up(p.gemm.n, cols);
        return static_cast<double>(divide_up(tiles, context.n_multiprocessors) * cols);
    };
    if (p.gemm.n >= 256 && time(256) <= time(128) / 0.85) {
        run<layout, 256>(context, p, name);
    } else {
        run<layout, 128>(context, p, name);
    }
}

}  // namespace

bool has_wgmma() {
#if defined(LORICA_CUDA_SM90A) || defined(LORICA_CUDA_ON_CPU)
    return true;
#else
    return false;
#endif
}

bool suits_wgmma(const Gemm & problem) {
    if (problem.layout == GemmLayout::gradient || problem.m <= 64 || problem.n < 128) return false;
    return std::all_of(problem.terms, problem.terms + problem.n_terms,
                       [](const GemmTerm & t) { return t.b_type == GemmTerm::dense; }) &&
           problem.terms[0].k >= 2 * depth;
}

void gemm_wgmma(const Context & context, const Gemm & problem) {
    Arguments p{problem, 0, has_eights(problem.result, problem.n)};
    for (int i = 0; i < problem.n_terms; ++i) p.iterations += divide_up(problem.terms[i].k, depth);
    if (problem.layout == GemmLayout::forward) {
        run<GemmLayout::forward>(context, p, "linear_wgmma");
    } else {
        run<GemmLayout::backward>(context, p, "linear_backward_wgmma");
    }
}

}  // namespace lorica::cuda
