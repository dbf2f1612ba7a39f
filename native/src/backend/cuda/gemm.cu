// The matrix product. A block of threads makes one tile of c: tiles of a and b pass through shared memory in three
// stages, two of which are on their way while the third is multiplied. b may be a quantized weight: its blocks are read
// into registers two stages ahead and expanded into the tile, so that W exists nowhere as a whole.
#include "backend/cuda/block_pairs.cuh"
#include "backend/cuda/gemm.h"
#include "backend/cuda/gemm_parts.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/tile.cuh"

#include <algorithm>
#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int depth = 64;  // of k, per stage
constexpr int stages = 3;
constexpr int group_rows = 16;  // tiles of c that use the same tiles of b one after another

template <int rows_, int cols_, int warps_m_, int warps_n_> struct Shape {
    static constexpr int rows = rows_, cols = cols_, warps_m = warps_m_, warps_n = warps_n_;
    static constexpr int threads = warps_m * warps_n * warp_size;
    static constexpr int warp_rows = rows / warps_m, warp_cols = cols / warps_n;
    static constexpr size_t shared_bytes = size_t{stages} * (rows + cols) * depth * sizeof(bf16);
    static_assert(warp_rows % 16 == 0 && warp_cols % 16 == 0);
};
using Large = Shape<128, 128, 2, 2>;
using Medium = Shape<64, 64, 2, 2>;
using Narrow = Shape<64, 16, 4, 1>;  // n: the rank of an adapter
using Flat = Shape<16, 128, 1, 4>;   // m: the rank of an adapter

template <typename S, GemmLayout layout, bool with_blocks>
__global__ void __launch_bounds__(S::threads) gemm_kernel(const __grid_constant__ GemmInParts p) {
    constexpr bool a_by_columns = layout == GemmLayout::gradient, b_by_rows = layout != GemmLayout::forward;
    using TileA = std::conditional_t<a_by_columns, Tile<depth, S::rows>, Tile<S::rows, depth>>;
    using TileB = std::conditional_t<b_by_rows, Tile<depth, S::cols>, Tile<S::cols, depth>>;
    // A stage is where its tiles begin in shared memory, in bytes.
    constexpr int a_bytes = TileA::n_elements * static_cast<int>(sizeof(bf16));
    constexpr int stage_bytes = a_bytes + TileB::n_elements * static_cast<int>(sizeof(bf16));
    auto tile_a = [&](int stage) { return TileA{reinterpret_cast<bf16 *>(shared_memory() + stage)}; };
    auto tile_b = [&](int stage) { return TileB{reinterpret_cast<bf16 *>(shared_memory() + stage + a_bytes)}; };

    // Neighbouring blocks share tiles of b within a group of rows, so that both operands come from the L2 cache.
    const int64_t m_tiles = (p.gemm.m + S::rows - 1) / S::rows, n_tiles = (p.gemm.n + S::cols - 1) / S::cols;
    const int64_t group = blockIdx.x / (group_rows * n_tiles), within = blockIdx.x % (group_rows * n_tiles);
    const int64_t rows_of_group = min(m_tiles - group * group_rows, int64_t{group_rows});
    const int64_t m0 = (group * group_rows + within % rows_of_group) * S::rows, n0 = within / rows_of_group * S::cols;
    const auto m_left = static_cast<int>(min(p.gemm.m - m0, int64_t{S::rows}));
    const auto n_left = static_cast<int>(min(p.gemm.n - n0, int64_t{S::cols}));

    const int64_t begin = p.iterations * blockIdx.y / p.n_splits, end = p.iterations * (blockIdx.y + 1) / p.n_splits;

    // Where the next stage is read from: k_left of the term's k are still to come.
    int term = 0, k_left = 0;
    TileReader<TileA, S::threads> read_a;
    TileReader<TileB, S::threads> read_b;
    int64_t a_step = 0, b_step = 0;
    // Of a weight of blocks: a thread's pair of pieces on its way into a tile of b. Neighbouring threads have
    // neighbouring rows, so that what they write to shared memory lies in different banks.
    constexpr int rows_of_b = b_by_rows ? depth : S::cols;
    static_assert(!with_blocks || depth * S::cols == S::threads * pair_size);
    [[maybe_unused]] const int pair_row = static_cast<int>(threadIdx.x) % rows_of_b;
    // Of the tile.
    [[maybe_unused]] const int pair_col = static_cast<int>(threadIdx.x) / rows_of_b * pair_size;
    [[maybe_unused]] RawPair raw;
    [[maybe_unused]] unsigned raw_shift = 0;
    [[maybe_unused]] int raw_type = GemmTerm::dense, n_pieces = 0;
    [[maybe_unused]] unsigned pair = 0;  // of its row, from next_pair on
    [[maybe_unused]] unsigned next_pair = 0;
    [[maybe_unused]] const uint8_t * blocks = nullptr;  // the row
    auto begin_term = [&](int64_t k) {
        const GemmTerm & t = p.gemm.terms[term];
        const auto * a = static_cast<const bf16 *>(t.a);
        k_left = static_cast<int>(t.k - k);
        read_a = {a_by_columns ? a + k * t.a_stride + m0 : a + m0 * t.a_stride + k, t.a_stride};
        a_step = a_by_columns ? depth * t.a_stride : depth;
        if (with_blocks && t.b_type != GemmTerm::dense) {
            blocks = static_cast<const uint8_t *>(t.b) + ((b_by_rows ? k : n0) + pair_row) * t.b_stride;
            next_pair = static_cast<unsigned>((b_by_rows ? n0 + pair_col : k) / pair_size);
            b_step = b_by_rows ? depth * t.b_stride : 0;
            return;
        }
        const auto * b = static_cast<const bf16 *>(t.b);
        read_b = {b_by_rows ? b + k * t.b_stride + n0 : b + n0 * t.b_stride + k, t.b_stride};
        b_step = b_by_rows ? depth * t.b_stride : depth;
    };
    int64_t first_k = begin * depth;
    while (term + 1 < p.gemm.n_terms && first_k >= (p.gemm.terms[term].k + depth - 1) / depth * depth) {
        first_k -= (p.gemm.terms[term].k + depth - 1) / depth * depth;
        ++term;
    }
    begin_term(first_k);

    auto start = [&](int stage) {
        read_a.load(tile_a(stage), a_by_columns ? k_left : m_left, a_by_columns ? m_left : k_left);
        read_a.advance(a_step);
        raw_type = with_blocks ? p.gemm.terms[term].b_type : GemmTerm::dense;
        if (raw_type == GemmTerm::dense) {
            read_b.load(tile_b(stage), b_by_rows ? k_left : n_left, b_by_rows ? n_left : k_left);
            read_b.advance(b_step);
        } else if constexpr (with_blocks) {
            const int cols_there = (b_by_rows ? n_left : k_left) - pair_col;
            n_pieces = pair_row < (b_by_rows ? k_left : n_left) ? min(max(cols_there, 0) / piece_size, 2) : 0;
            pair = next_pair;
            if (n_pieces > 0) {
                with_fused_type(raw_type, [&](auto type) {
                    constexpr ggml_type t = decltype(type)::value;
                    const PairPlace place =
                        place_of_pair<t>(blocks + pair / 4 * unit_bytes_of(t), pair % 4, n_pieces > 1);
                    load_pair<t>(place, raw);
                    raw_shift = place.shift;
                });
            }
            blocks += b_step;
            if (!b_by_rows) ++next_pair;
        }
        k_left -= depth;
        if (k_left <= 0 && term + 1 < p.gemm.n_terms) {
            ++term;
            begin_term(0);
        }
    };
    auto finish = [&](int stage) {
        if constexpr (with_blocks) {
            if (raw_type == GemmTerm::dense) return;
            bf16 * row = tile_b(stage).data + pair_row * TileB::cols;
            // Chunks of a row are permuted by its number modulo 8: all of a pair within its eight.
            const int first = (pair_col / 8 ^ pair_row % 8) * 8;
            const auto chunk = [&](int i) { return reinterpret_cast<uint4 *>(row + (first ^ i * 8)); };
            if (n_pieces < 2) {
#pragma unroll
                for (int i = 0; i < pair_size / 8; ++i) *chunk(i) = {0, 0, 0, 0};
            }
            if (n_pieces == 0) return;
            with_fused_type(raw_type, [&](auto type) {
                expand_pair<decltype(type)::value>(raw, raw_shift, pair % 4, [&](auto which, const uint32_t * pairs) {
                    if (which() > 0 && n_pieces < 2) return;
#pragma unroll
                    for (int c = 0; c < piece_size / 8; ++c) {
                        *chunk(which() * piece_size / 8 + c) = {pairs[4 * c], pairs[4 * c + 1], pairs[4 * c + 2],
                                                                pairs[4 * c + 3]};
                    }
                });
            });
        }
    };

    constexpr int frags_m = S::warp_rows / 16, frags_n = S::warp_cols / 8;
    const int warp = static_cast<int>(threadIdx.x) / warp_size;
    const int warp_m = warp % S::warps_m * S::warp_rows, warp_n = warp / S::warps_m * S::warp_cols;
    float sums[frags_m][frags_n][4] = {};

    const auto n = static_cast<int>(end - begin);
    for (int i = 0; i < stages - 1; ++i) {
        if (i < n) {
            start(i * stage_bytes);
            finish(i * stage_bytes);
        }
        copy_async_commit();
    }
    // The stage before is free again when the next one has been waited for.
    int stage = 0, free_stage = (stages - 1) * stage_bytes;
    for (int left = n; left > 0; --left) {
        copy_async_wait<stages - 2>();
        __syncthreads();
        const bool more = left >= stages;
        if (more) start(free_stage);
        copy_async_commit();

        multiply_tiles<a_by_columns, b_by_rows>(sums, tile_a(stage), tile_b(stage), warp_m, warp_n);
        if (more) finish(free_stage);
        free_stage = stage;
        stage = stage == (stages - 1) * stage_bytes ? 0 : stage + stage_bytes;
    }

    // All have read the last stages, whose place the sums take. Rows g and g + 8, columns 2t and 2t + 1 of each
    // fragment.
    copy_async_wait<0>();
    __syncthreads();
    using Result = ResultTile<S::rows, S::cols, S::threads>;
    static_assert(Result::shared_bytes <= S::shared_bytes);
    const Result result{reinterpret_cast<float *>(shared_memory())};
    put_sums(result, sums, warp_m, warp_n);
    __syncthreads();
    store_part(result, p, m0, n0);
}

template <typename S, GemmLayout layout, bool with_blocks>
void run(const Context & context, const GemmInParts & p, const char * name) {
    const int64_t tiles = divide_up(p.gemm.m, S::rows) * divide_up(p.gemm.n, S::cols);
    launch_in_parts(context, p, tiles, 4, [&](const GemmInParts & parts) {
        const Extent extent{dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts.n_splits)), S::threads,
                            S::shared_bytes};
        launch(name, context.stream, gemm_kernel<S, layout, with_blocks>, extent, parts);
    });
}

template <GemmLayout layout, bool with_blocks>
void run_wide(const Context & context, const GemmInParts & p, const char * name) {
    constexpr int64_t rows_of_few = with_blocks ? few_rows : Medium::rows,
                      cols_of_few = with_blocks ? few_rows_cols : Medium::cols;
    // What the multiprocessor with the most tiles has to do, in elements of c. Small tiles go about 0.6 times as fast:
    // they read twice as much of a and b from shared memory for each product.
    const auto time = [&](int64_t rows, int64_t cols) {
        const int64_t tiles = divide_up(p.gemm.m, rows) * divide_up(p.gemm.n, cols);
        return static_cast<double>(divide_up(tiles, context.n_multiprocessors) * rows * cols);
    };
    if (p.gemm.m <= rows_of_few || time(rows_of_few, cols_of_few) / 0.6 < time(Large::rows, Large::cols)) {
        if constexpr (with_blocks) {
            gemm_few_rows(context, p, name);
        } else {
            run<Medium, layout, false>(context, p, name);
        }
    } else {
        run<Large, layout, with_blocks>(context, p, name);
    }
}

constexpr int64_t split_bytes = int64_t{64} << 20;
constexpr int max_splits = 32;

__global__ void add_splits_kernel(const __grid_constant__ GemmInParts p) { add_parts(p.gemm, p.n_splits, p.partial); }

bool is_aligned(const void * p, size_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

}  // namespace

int splits_of(const Context & context, const GemmInParts & p, int64_t tiles, int64_t min_iterations) {
    const Gemm & gemm = p.gemm;
    const bool in_panel = p.with_blocks && gemm.panel_is_free;
    if (!gemm.of_adapter && !in_panel) return 1;
    // Where a panel would lie there is room for 768 rows of the widest layer, or for three times as many as it has.
    const int64_t least = std::min(gemm.n, gemm.terms[0].k);
    const int64_t bytes = in_panel ? std::min(3 * least, int64_t{768}) * least * 2 : split_bytes;
    const int64_t wanted = (in_panel ? 1 : 2) * context.n_multiprocessors / std::max<int64_t>(tiles, 1);
    const int64_t fitting = bytes / (gemm.m * gemm.n * 4);
    const int64_t most = std::min<int64_t>(max_splits, std::max<int64_t>(p.iterations / min_iterations, 1));
    return static_cast<int>(std::clamp<int64_t>(std::min(wanted, fitting), 1, most));
}

void add_splits(const Context & context, const GemmInParts & p) {
    launch("add_splits", context.stream, add_splits_kernel, grid_over(p.gemm.m * p.gemm.n), p);
}

bool has_eights(const GemmResult & r, int64_t n) {
    const auto fits = [&](const void * c, int64_t stride) {
        return is_aligned(c, 16) && stride % (r.bf16 ? 8 : 4) == 0;
    };
    for (int i = 0; i < r.n_parts; ++i) {
        if (!fits(r.parts[i].c, r.parts[i].stride) || (!r.parts_of_rows && r.parts[i].begin % 8)) return false;
    }
    // A mask's numbers come in fours.
    return !r.transposed && (!r.dropout_threshold || n % 4 == 0) && (r.n_parts || fits(r.c, r.stride)) &&
           (!r.bias || is_aligned(r.bias, 16)) &&
           (!r.residual || (is_aligned(r.residual, 16) && r.residual_stride % 4 == 0));
}

void Gemm::add(const GemmTerm & term) {
    if (n_terms == max_gemm_terms)
        fail(LORICA_ERROR_INTERNAL, "more than ", max_gemm_terms, " terms in one matrix product");
    terms[n_terms++] = term;
}

size_t gemm_workspace_bytes(int64_t widest, int64_t max_rank) {
    return static_cast<size_t>(
               std::min(split_bytes, int64_t{max_splits} * widest * std::max<int64_t>(max_rank, Narrow::cols) * 4)) +
           Workspace::alignment;
}

void gemm(const Context & context, const Gemm & problem) {
    if (problem.m == 0 || problem.n == 0) return;
    if (context.act == Dtype::f32) return gemm_f32(context, problem);
    GemmInParts p;
    p.gemm = problem;
    for (int i = 0; i < problem.n_terms; ++i) {
        const GemmTerm & t = problem.terms[i];
        p.iterations += divide_up(t.k, depth);
        p.with_blocks |= t.b_type != GemmTerm::dense;
        if (!is_aligned(t.a, 16) || t.a_stride % 8 ||
            (t.b_type == GemmTerm::dense && (!is_aligned(t.b, 16) || t.b_stride % 8))) {
            fail(LORICA_ERROR_INTERNAL, "an operand of a matrix product is not aligned");
        }
    }
    if (context.tma && suits_tma(problem)) return gemm_tma(context, problem);
    if (context.wgmma && suits_wgmma(problem)) return gemm_wgmma(context, problem);
    p.eights = has_eights(problem.result, problem.n);
    switch (problem.layout) {
        case GemmLayout::forward:
            if (p.with_blocks) return run_wide<GemmLayout::forward, true>(context, p, "linear_blocks");
            if (p.gemm.n <= Narrow::cols) return run<Narrow, GemmLayout::forward, false>(context, p, "lora_u");
            if (p.gemm.of_adapter) return run<Medium, GemmLayout::forward, false>(context, p, "lora_u");
            return run_wide<GemmLayout::forward, false>(context, p, "linear");
        case GemmLayout::backward:
            if (p.with_blocks) return run_wide<GemmLayout::backward, true>(context, p, "linear_backward_blocks");
            if (p.gemm.n <= Narrow::cols) return run<Narrow, GemmLayout::backward, false>(context, p, "lora_du");
            if (p.gemm.of_adapter) return run<Medium, GemmLayout::backward, false>(context, p, "lora_du");
            return run_wide<GemmLayout::backward, false>(context, p, "linear_backward");
        case GemmLayout::gradient:
            if (p.gemm.m <= Flat::rows) return run<Flat, GemmLayout::gradient, false>(context, p, "lora_gradient");
            return run<Medium, GemmLayout::gradient, false>(context, p, "lora_gradient");
    }
}

bool is_fused_type(const Weight & w, Dtype act) {
    if (act == Dtype::f32) return w.type == GGML_TYPE_F32;
    return has_blocks_on_device(w.type) || (w.type == GGML_TYPE_F16 && w.in % piece_size == 0) ||
           (w.type == GGML_TYPE_BF16 && w.in % 8 == 0);
}

GemmTerm weight_term(const Weight & w, const Matrix & a, int64_t k) {
    GemmTerm term{a.data, a.stride, w.data, static_cast<int64_t>(w.row_bytes), k, w.type};
    if (w.type == GGML_TYPE_BF16 || w.type == GGML_TYPE_F32) {
        term.b_type = GemmTerm::dense;
        term.b_stride = w.in;
    }
    return term;
}

}  // namespace lorica::cuda
