// The matrix product of gemm_wgmma.cu with copies by the tensor memory accelerator: one thread of a warp of its own
// asks for tiles, barriers tell when they are there and when their place is free again, and the warps that multiply
// issue nothing but products. Two blocks that use the same tile of b are a cluster: each brings half of it, for both.
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_result.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/tma.cuh"
#include "backend/cuda/wgmma.cuh"

#include <algorithm>

namespace lorica::cuda {

namespace {

constexpr int consumers = 256, threads = consumers + warp_size;  // the last warp asks for copies
[[maybe_unused]] constexpr int consumer_warps = consumers / warp_size;
constexpr int cluster = 2;
[[maybe_unused]] constexpr uint16_t both_blocks = 3;
constexpr int tile_rows = 128, depth = 64;
[[maybe_unused]] constexpr int group_pairs = 8;  // pairs of tiles of c that use the same tiles of b one after another
constexpr size_t tile_alignment = 1024;          // of the swizzle
constexpr size_t barrier_bytes = 1024;           // before the tiles
constexpr size_t shared_limit = 227 << 10;       // of sm_90
[[maybe_unused]] constexpr uint32_t row_bytes = depth * sizeof(bf16), eight_rows = 8 * row_bytes;

template <int cols> constexpr int stages = cols == 256 ? 4 : 6;
template <int cols>
constexpr size_t shared_bytes = size_t{stages<cols>} * (tile_rows + cols) * row_bytes + barrier_bytes + tile_alignment;

struct Arguments {
    Gemm gemm;
    int64_t iterations;                              // stages of all terms
    bool eights;                                     // see has_eights()
    TensorMap a[max_gemm_terms], b[max_gemm_terms];  // of the terms
};

template <GemmLayout layout, int cols>
__global__ void __launch_bounds__(threads, 1) gemm_tma_kernel(const __grid_constant__ Arguments p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LORICA_CUDA_ON_CPU)
    constexpr bool b_by_rows = layout == GemmLayout::backward;
    constexpr int n_stages = stages<cols>;
    constexpr uint32_t a_bytes = tile_rows * row_bytes, b_bytes = cols * row_bytes, stage_bytes = a_bytes + b_bytes;
    // By rows: tiles of 64 rows of k and 64 columns side by side.
    constexpr uint32_t b_tile_bytes = depth * row_bytes;
    constexpr int own_b_tiles = cols / 64 / cluster;

    const uint32_t unaligned = shared_address(shared_memory());
    const uint32_t base = (unaligned + tile_alignment - 1) / tile_alignment * tile_alignment;
    unsigned char * memory = shared_memory() + (base - unaligned);
    // Of stage i: its tiles are there; both blocks have done with what was there.
    auto * full = reinterpret_cast<uint64_t *>(memory);
    uint64_t * empty = full + n_stages;
    static_assert(2 * n_stages * sizeof(uint64_t) <= barrier_bytes);
    unsigned char * tiles = memory + barrier_bytes;

    const uint32_t rank = cluster_rank();
    const int64_t m_pairs = (p.gemm.m + cluster * tile_rows - 1) / (cluster * tile_rows);
    const int64_t n_tiles = (p.gemm.n + cols - 1) / cols, pair = blockIdx.x / cluster;
    const int64_t group = pair / (group_pairs * n_tiles), within = pair % (group_pairs * n_tiles);
    const int64_t pairs_of_group = min(m_pairs - group * group_pairs, int64_t{group_pairs});
    const int64_t m0 = ((group * group_pairs + within % pairs_of_group) * cluster + rank) * tile_rows;
    const int64_t n0 = within / pairs_of_group * cols;

    if (threadIdx.x == 0) {
        for (int i = 0; i < n_stages; ++i) {
            barrier_init(full + i, 1);
            barrier_init(empty + i, cluster * consumer_warps);
        }
        barriers_made();
    }
    cluster_sync();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const auto n = static_cast<int>(p.iterations);
    float sums[cols / 8][4] = {};
    if (warp == consumer_warps) {
        if (lane == 0) {
            int term = 0, k = 0, stage = 0;
            uint32_t parity = 1;  // of the phase of `empty` before the one that is under way
            for (int i = 0; i < n; ++i) {
                if (i >= n_stages) barrier_wait(empty + stage, parity);
                unsigned char * to = tiles + stage * stage_bytes;
                barrier_expect(full + stage, stage_bytes);
                copy_box(p.a[term], static_cast<int>(m0), k, to, full + stage);
                to += a_bytes;
                if constexpr (b_by_rows) {
#pragma unroll
                    for (int j = 0; j < own_b_tiles; ++j) {
                        const int tile = static_cast<int>(rank) * own_b_tiles + j;
                        copy_box_to_all(p.b[term], k, static_cast<int>(n0) + tile * 64, to + tile * b_tile_bytes,
                                        full + stage, both_blocks);
                    }
                } else {
                    const int first = static_cast<int>(rank) * (cols / cluster);
                    copy_box_to_all(p.b[term], static_cast<int>(n0) + first, k, to + first * row_bytes, full + stage,
                                    both_blocks);
                }
                k += depth;
                if (k >= p.gemm.terms[term].k) {
                    ++term;
                    k = 0;
                }
                if (++stage == n_stages) {
                    stage = 0;
                    parity ^= 1;
                }
            }
        }
        __syncwarp();
    } else {
        products_settle(sums);
        const uint32_t first = base + static_cast<uint32_t>(barrier_bytes);
        const uint32_t own_rows = static_cast<uint32_t>(warp / 4) * 64 * row_bytes;
        int stage = 0, before = n_stages - 1;
        uint32_t parity = 0;
        for (int i = 0; i < n; ++i) {
            barrier_wait(full + stage, parity);
            const uint32_t address = first + static_cast<uint32_t>(stage) * stage_bytes;
            const auto a = MatrixDescriptor::of(address + own_rows, 16, eight_rows);
            const auto b = MatrixDescriptor::of(address + a_bytes, b_by_rows ? b_tile_bytes : 16, eight_rows);
            products_begin();
#pragma unroll
            for (int kk = 0; kk < depth; kk += 16) {
                multiply_add_group<b_by_rows>(
                    sums, a.at(static_cast<uint32_t>(kk * sizeof(bf16))),
                    b.at(b_by_rows ? kk * row_bytes : static_cast<uint32_t>(kk * sizeof(bf16))));
            }
            products_commit();
            products_wait<1>();
            // Those of the stage before are done, and both blocks may ask for what comes to its place.
            if (i > 0 && lane < cluster) barrier_arrive(empty + before, static_cast<uint32_t>(lane));
            before = stage;
            if (++stage == n_stages) {
                stage = 0;
                parity ^= 1;
            }
        }
        products_wait<0>();
        products_settle(sums);
    }

    // All have done with the last stages, whose place the sums take, and with each other's barriers.
    cluster_sync();
    using Result = ResultTile<tile_rows, cols, consumers>;
    static_assert(Result::shared_bytes + barrier_bytes + tile_alignment <= shared_bytes<cols>);
    const Result result{reinterpret_cast<float *>(tiles)};
    if (warp < consumer_warps) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int f = 0; f < cols / 8; ++f) {
                result.put(warp * 16 + half * 8 + lane / 4, f * 8 + lane % 4 * 2, sums[f][2 * half],
                           sums[f][2 * half + 1]);
            }
        }
    }
    __syncthreads();
    if (warp < consumer_warps && m0 < p.gemm.m) result.store_all(p.gemm, m0, n0, p.eights);
#else
    (void)p;
    __trap();  // never launched: see has_wgmma()
#endif
}

int64_t pairs_of(const Gemm & problem, int64_t cols) {
    return divide_up(problem.m, cluster * tile_rows) * divide_up(problem.n, cols);
}

template <GemmLayout layout, int cols> void run(const Context & context, Arguments & p, const char * name) {
    const Gemm & gemm = p.gemm;
    for (int i = 0; i < gemm.n_terms; ++i) {
        const GemmTerm & t = gemm.terms[i];
        p.a[i] = tensor_map({t.a, gemm.m, t.k, t.a_stride, tile_rows});
        p.b[i] = layout == GemmLayout::backward ? tensor_map({t.b, t.k, gemm.n, t.b_stride, depth})
                                                : tensor_map({t.b, gemm.n, t.k, t.b_stride, cols / cluster});
    }
    Extent extent{dim3(static_cast<unsigned>(cluster * pairs_of(gemm, cols))), threads, shared_bytes<cols>,
                  shared_limit};
    extent.cluster = cluster;
    launch(name, context.stream, gemm_tma_kernel<layout, cols>, extent, p);
}

template <GemmLayout layout> void run(const Context & context, Arguments & p, const char * name) {
    // As in gemm_wgmma.cu, for pairs of multiprocessors.
    const int64_t at_once = std::max(context.n_multiprocessors / cluster, 1);
    const auto time = [&](int64_t cols) {
        return static_cast<double>(divide_up(pairs_of(p.gemm, cols), at_once) * cols);
    };
    if (p.gemm.n >= 256 && time(256) <= time(128) / 0.85) {
        run<layout, 256>(context, p, name);
    } else {
        run<layout, 128>(context, p, name);
    }
}

}  // namespace

bool suits_tma(const Gemm & problem) {
    // Of one tile of rows half of each cluster would be idle.
    return problem.m > tile_rows && suits_wgmma(problem);
}

void gemm_tma(const Context & context, const Gemm & problem) {
    Arguments p{problem, 0, has_eights(problem.result, problem.n), {}, {}};
    for (int i = 0; i < problem.n_terms; ++i) p.iterations += divide_up(problem.terms[i].k, depth);
    if (problem.layout == GemmLayout::forward) {
        run<GemmLayout::forward>(context, p, "linear_tma");
    } else {
        run<GemmLayout::backward>(context, p, "linear_backward_tma");
    }
}

}  // namespace lorica::cuda
