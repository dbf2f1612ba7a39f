// The product of few rows with the blocks of weights. Every weight is expanded once and multiplied by 64 rows at most,
// so that a turn is short of instructions, not of tensor cores: all that a turn computes beside expanding and
// multiplying is laid out beforehand. Four turns are 256 elements of k, a block of most types; they are written out, so
// that places in blocks and in shared memory are constants.
//
// A turn multiplies tiles of a, which are copied three turns ahead, by a tile of b. The blocks of the next tile of b
// are read before the product and expanded after it.
#include "backend/cuda/block_pairs.cuh"
#include "backend/cuda/gemm_parts.cuh"
#include "backend/cuda/tile.cuh"

#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int rows = few_rows, cols = few_rows_cols, threads = 128, depth = 64;
constexpr int turns = 4;                   // of a unit_size of blocks
constexpr int a_stages = 4, b_stages = 2;  // turn i uses i % of either
constexpr int a_bytes = rows * depth * static_cast<int>(sizeof(bf16));
constexpr int b_bytes = cols * depth * static_cast<int>(sizeof(bf16));
constexpr int shared_bytes = a_stages * a_bytes + b_stages * b_bytes;
static_assert(depth * cols == threads * pair_size && depth == pair_size && turns * depth == unit_size &&
              turns % a_stages == 0 && turns % b_stages == 0);

template <int i> using Constant = std::integral_constant<int, i>;

template <bool b_by_rows> class FewRows {
    using TileA = Tile<rows, depth>;
    using TileB = std::conditional_t<b_by_rows, Tile<depth, cols>, Tile<cols, depth>>;
    static constexpr int copied_rows = threads / TileA::chunks;  // at once
    static constexpr int copies = rows / copied_rows;            // of a thread
    static constexpr int rows_of_b = TileB::rows;

public:
    __device__ __forceinline__ FewRows(const GemmInParts & p) : p_(p) {
        const int64_t m_tiles = (p.gemm.m + rows - 1) / rows;
        m0_ = blockIdx.x % m_tiles * rows;
        n0_ = blockIdx.x / m_tiles * cols;
        m_left_ = static_cast<int>(min(p.gemm.m - m0_, int64_t{rows}));
        n_left_ = static_cast<int>(min(p.gemm.n - n0_, int64_t{cols}));
    }

    __device__ __forceinline__ void run() {
        start_dense();
        // Parts of the units of all terms with blocks.
        const int64_t begin = p_.iterations * blockIdx.y / p_.n_splits;
        const int64_t end = p_.iterations * (blockIdx.y + 1) / p_.n_splits;
        int64_t first = 0;  // of the term
#pragma unroll 1
        for (int i = 0; i < p_.gemm.n_terms && first < end; ++i) {
            const GemmTerm & t = p_.gemm.terms[i];
            if (t.b_type == GemmTerm::dense) continue;
            const int64_t n = (t.k + unit_size - 1) / unit_size, from = max(begin - first, int64_t{0}),
                          to = min(end - first, n);
            first += n;
            if (from >= to) continue;
            const int64_t k = from * unit_size;
            const auto n_elements = static_cast<int>(min(t.k, to * unit_size) - k);
            with_fused_type(t.b_type, [&](auto type) { add_blocks<decltype(type)::value>(t, k, n_elements); });
        }
        finish_dense();

        __syncthreads();  // all have read the last tiles, whose place the sums take
        using Result = ResultTile<rows, cols, threads>;
        static_assert(Result::shared_bytes <= shared_bytes);
        const Result result{reinterpret_cast<float *>(shared_memory())};
        put_sums(result, sums_, 0, warp_n());
        __syncthreads();
        store_part(result, p_, m0_, n0_);
    }

private:
    static __device__ __forceinline__ int thread() { return static_cast<int>(threadIdx.x); }
    static __device__ __forceinline__ int warp_n() { return thread() / warp_size * (cols / 4); }
    static __device__ __forceinline__ TileA tile_a(int stage) {
        return {reinterpret_cast<bf16 *>(shared_memory() + stage * a_bytes)};
    }
    static __device__ __forceinline__ TileB tile_b(int stage) {
        return {reinterpret_cast<bf16 *>(shared_memory() + a_stages * a_bytes + stage * b_bytes)};
    }
    __device__ __forceinline__ void multiply(int a_stage, int b_stage) {
        multiply_tiles<false, b_by_rows>(sums_, tile_a(a_stage), tile_b(b_stage), 0, warp_n());
    }

    // ---- terms with a dense b, an adapter's: the last part of k makes them. Their last step waits in the tiles that
    // come into use last until the first blocks have been read.

    static constexpr int dense_a = a_stages - 1, dense_b = b_stages - 1;

    __device__ __forceinline__ void start_dense() {
        if (static_cast<int>(blockIdx.y) + 1 < p_.n_splits) return;
#pragma unroll 1
        for (int i = 0; i < p_.gemm.n_terms; ++i) {
            const GemmTerm & t = p_.gemm.terms[i];
            if (t.b_type != GemmTerm::dense) continue;
            const auto * a = static_cast<const bf16 *>(t.a) + m0_ * t.a_stride;
            const auto * b = static_cast<const bf16 *>(t.b) + (b_by_rows ? n0_ : n0_ * t.b_stride);
#pragma unroll 1
            for (int k = 0; k < static_cast<int>(t.k); k += depth) {
                finish_dense();
                __syncthreads();
                const int k_left = static_cast<int>(t.k) - k;
                TileReader<TileA, threads>(a + k, t.a_stride).load(tile_a(dense_a), m_left_, k_left);
                const TileReader<TileB, threads> read_b(b + (b_by_rows ? k * t.b_stride : k), t.b_stride);
                read_b.load(tile_b(dense_b), b_by_rows ? k_left : n_left_, b_by_rows ? n_left_ : k_left);
                dense_waits_ = true;
            }
        }
    }
    __device__ __forceinline__ void finish_dense() {
        if (!dense_waits_) return;
        copy_async_commit();
        copy_async_wait<0>();
        __syncthreads();
        multiply(dense_a, dense_b);
        dense_waits_ = false;
    }

    // ---- terms with blocks

    // Elements [k, k + n) of the term, k a multiple of `unit`.
    template <ggml_type type> __device__ __forceinline__ void add_blocks(const GemmTerm & t, int64_t k, int n) {
        constexpr int64_t unit_bytes = unit_bytes_of(type);
        const int tail = (n - 1) % depth + 1;
        int left = (n + depth - 1) / depth,
            full = n / depth;                       // turns, from the unit's first one on; those of `depth` elements
        int half = tail <= piece_size ? full : -1;  // a last turn of one piece, from there on
        // Chunks of a, which a thread has in rows some apart. Rows that are not there are the last one again: what
        // comes of them is not stored.
        const bf16 * a[copies];
        const int own_row = thread() / TileA::chunks, own_chunk = thread() % TileA::chunks;
#pragma unroll
        for (int i = 0; i < copies; ++i) {
            const int64_t row = m0_ + min(own_row + i * copied_rows, m_left_ - 1);
            a[i] = static_cast<const bf16 *>(t.a) + row * t.a_stride + k + own_chunk * 8;
        }
        int done = 0;  // elements of k, of units
        const auto copy_a = [&](int turn, int k_left) {
            bf16 * to = tile_a(turn % a_stages).chunk(own_row, own_chunk);
            if (k_left >= depth) {
#pragma unroll
                for (int i = 0; i < copies; ++i) copy_async(to + i * copied_rows * depth, a[i] + done + turn * depth);
                return;
            }
            const int present = min(max(k_left - own_chunk * 8, 0), 8), back = present ? 0 : own_chunk * -8;
#pragma unroll
            for (int i = 0; i < copies; ++i) {
                copy_async(to + i * copied_rows * depth, a[i] + (done + turn * depth + back), 2 * present);
            }
        };

        // A thread's pair of pieces of each tile of b. Neighbouring threads have neighbouring rows, so that what they
        // write to shared memory lies in different banks. What is not there meets zeros of a, or is not stored.
        const int own_pair_row = thread() % rows_of_b, pair_col = thread() / rows_of_b * pair_size;
        const uint8_t * blocks = static_cast<const uint8_t *>(t.b);  // of the unit, or of the row
        unsigned quarter = 0;                                        // of a unit
        bool whole = true;                                           // the second piece is there
        if constexpr (b_by_rows) {
            const int64_t last = (p_.gemm.n - 1) / pair_size * pair_size, col = min(n0_ + pair_col, last);
            quarter = static_cast<unsigned>(col / pair_size) % turns;
            whole = p_.gemm.n - col >= pair_size;
            blocks += (k + own_pair_row) * t.b_stride + col / unit_size * unit_bytes;
        } else {
            blocks += (n0_ + min(own_pair_row, n_left_ - 1)) * t.b_stride + k / unit_size * unit_bytes;
        }
        const int64_t turn_bytes = depth * t.b_stride;
        // Of blocks of 32 the pairs of a row lie evenly, but not all in the same way from whole words if they are odd.
        constexpr bool evenly = has_blocks_of_32(type) && unit_bytes % (4 * turns) == 0;
        PairPlace place{};
        if constexpr (b_by_rows || evenly) place = place_of_pair<type>(blocks, quarter, whole);
        RawPair raw;
        const auto read = [&](int turn, int k_left) {
            if constexpr (b_by_rows) {
                if (turn > 0) place.advance(turn_bytes);
                if (k_left < depth && own_pair_row >= k_left) {
                    place = place_of_pair<type>(blocks + (done + turn * depth + k_left - 1 - own_pair_row) * t.b_stride,
                                                quarter, whole);
                }
                load_pair<type>(place, raw);
            } else if constexpr (evenly) {
                PairPlace later = place;
                later.advance(turn * (unit_bytes / turns));
                if (k_left <= piece_size) later.p[1] = later.p[0];
                load_pair<type>(later, raw);
            } else {
                place = place_of_pair<type>(blocks + turn / turns * unit_bytes, turn % turns, k_left > piece_size);
                load_pair<type>(place, raw);
            }
        };
        const auto expand = [&](int turn) {
            bf16 * row = tile_b(turn % b_stages).data + own_pair_row * TileB::cols;
            // Chunks of a row are permuted by its number modulo 8: all of a pair within its eight.
            const int first = (pair_col / 8 ^ own_pair_row % 8) * 8;
            expand_pair<type>(raw, place.shift, b_by_rows ? quarter : turn % turns,
                              [&](auto which, const uint32_t * pairs) {
#pragma unroll
                                  for (int c = 0; c < piece_size / 8; ++c) {
                                      *reinterpret_cast<uint4 *>(row + (first ^ (which() * 4 + c) * 8)) = {
                                          pairs[4 * c], pairs[4 * c + 1], pairs[4 * c + 2], pairs[4 * c + 3]};
                                  }
                              });
            if (!b_by_rows && has_blocks_of_32(type) && turn == half) {
                // What was read in place of the second piece need not be numbers.
#pragma unroll
                for (int c = 4; c < 8; ++c) *reinterpret_cast<uint4 *>(row + (first ^ c * 8)) = {0, 0, 0, 0};
            }
        };

        __syncthreads();  // the tiles are free: of a term before
        const auto k_of = [&](int turn) { return turn < full ? depth : tail; };
        read(0, k_of(0));
        copy_async_commit();
#pragma unroll
        for (int turn = 0; turn < a_stages - 1; ++turn) {
            if (turn < left) copy_a(turn, k_of(turn));
            copy_async_commit();
        }
        expand(0);
        if (dense_waits_) {
            copy_async_wait<a_stages - 1>();
            __syncthreads();
            multiply(dense_a, dense_b);
            dense_waits_ = false;
        }
        const auto make_turn = [&](auto turn_) {
            constexpr int turn = decltype(turn_)::value;
            copy_async_wait<a_stages - 2>();
            __syncthreads();
            constexpr int copied = turn + a_stages - 1;
            if (full > copied) {
                copy_a(copied, depth);
            } else if (left > copied) {
                copy_a(copied, tail);
            }
            copy_async_commit();
            if (full > turn + 1) {
                read(turn + 1, depth);
            } else if (left > turn + 1) {
                read(turn + 1, tail);
            }
            multiply(turn % a_stages, turn % b_stages);
            if (left <= turn + 1) return false;
            expand(turn + 1);
            return true;
        };
        while (make_turn(Constant<0>()) && make_turn(Constant<1>()) && make_turn(Constant<2>()) &&
               make_turn(Constant<3>())) {
            left -= turns;
            full -= turns;
            half -= turns;
            done += unit_size;
            if constexpr (!b_by_rows) blocks += unit_bytes;
            if constexpr (!b_by_rows && evenly) place.advance(unit_bytes);
        }
        copy_async_wait<0>();
    }

    const GemmInParts & p_;
    int64_t m0_, n0_;
    int m_left_, n_left_;
    bool dense_waits_ = false;
    float sums_[rows / 16][cols / 4 / 8][4] = {};
};

template <bool b_by_rows>
__global__ void __launch_bounds__(threads, 2) few_rows_kernel(const __grid_constant__ GemmInParts p) {
    FewRows<b_by_rows>(p).run();
}

}  // namespace

void gemm_few_rows(const Context & context, const GemmInParts & problem, const char * name) {
    GemmInParts p = problem;
    p.iterations = 0;
    for (int i = 0; i < p.gemm.n_terms; ++i) {
        if (p.gemm.terms[i].b_type != GemmTerm::dense) p.iterations += divide_up(p.gemm.terms[i].k, unit_size);
    }
    const int64_t tiles = divide_up(p.gemm.m, rows) * divide_up(p.gemm.n, cols);
    launch_in_parts(context, p, tiles, 1, [&](const GemmInParts & parts) {
        const Extent extent{dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts.n_splits)), threads,
                            shared_bytes};
        launch(name, context.stream,
               p.gemm.layout == GemmLayout::backward ? few_rows_kernel<true> : few_rows_kernel<false>, extent, parts);
    });
}

}  // namespace lorica::cuda
