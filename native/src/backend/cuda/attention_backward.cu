// The derivative of attention (Dao 2023, "FlashAttention-2", algorithm 2), in two passes that each make the
// probabilities again: blocks that take a tile of keys make dk and dv, blocks that take a tile of queries make dq. So
// every sum is made by one thread in a fixed order, without atomic additions. With s = score(q k^T), p = exp(s - lse),
// o = p v:
//   dv_j += p_ij do_i;  dp_ij = do_i . v_j;  ds_ij = p_ij (dp_ij - delta_i) s'_ij, delta_i = do_i . o_i;
//   dq_i = scale sum_j ds_ij k_j;  dk_j += scale ds_ij q_i,  where s' is 1, or 1 - tanh^2 under a softcap.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

constexpr int tile_rows = 64;  // of keys, or of queries
constexpr int warps = attention_threads / warp_size;
static_assert(tile_rows == warps * 16);

struct Arguments {
    Heads q, k, v, d_o, dq, dk, dv;
    const float * lse;
    int64_t lse_stride;
    const float * delta;  // [n_head, rows]
    int64_t rows;
    const AttentionTile *kv_tiles, *q_tiles;
    unsigned kv_blocks;  // the first blocks of the grid; the others take queries
    int n_head, n_head_kv, heads_per_kv, dim;
    int pitch;  // of the heads of q, k, v and d_o
    MaskSpec mask;
    Scores scores;
};

// step_rows: queries or keys at a time.
template <int D_, int step_rows_> struct Shape {
    static constexpr int D = D_, step_rows = step_rows_;
    using Own = Tile<tile_rows, D>;
    using Other = Tile<step_rows, D>;
    static constexpr size_t statistics = 2 * step_rows;  // floats of a stage: lse and delta
    static constexpr size_t shared_bytes =
        (size_t{2} * Own::n_elements + 4 * Other::n_elements) * sizeof(bf16) + 2 * statistics * sizeof(float);

    bf16 * memory;
    __device__ __forceinline__ Own own(int i) const { return {memory + i * Own::n_elements}; }
    __device__ __forceinline__ Other other(int stage, int i) const {
        return {memory + 2 * Own::n_elements + (stage * 2 + i) * Other::n_elements};
    }
    __device__ __forceinline__ float * lse(int stage) const {
        return reinterpret_cast<float *>(memory + 2 * Own::n_elements + 4 * Other::n_elements) + stage * statistics;
    }
    __device__ __forceinline__ float * delta(int stage) const { return lse(stage) + step_rows; }
};

// 64 keys of one kv head; all queries that see them, of all heads that share them, some at a time. Scores are made
// transposed, so that a warp's rows are keys.
template <typename S>
__device__ __forceinline__ void keys_and_values(const Arguments & p, const AttentionTile & tile, int kv_head) {
    constexpr int D = S::D, step_rows = S::step_rows;
    using ReadOwn = TileReader<typename S::Own, attention_threads>;
    using ReadOther = TileReader<typename S::Other, attention_threads>;
    const S shared{reinterpret_cast<bf16 *>(shared_memory())};
    const int64_t kv_row = tile.segment.kv_begin + tile.begin;
    const int last_key = tile.begin + tile.n - 1;
    const int first_query = p.mask.seeing(tile.segment, tile.begin).first / step_rows * step_rows;
    const int end_query = p.mask.seeing(tile.segment, last_key).end;
    // None see a tile of keys that lie before every query's window.
    const int steps_per_head = max(end_query - first_query + step_rows - 1, 0) / step_rows;
    const int n_steps = steps_per_head * p.heads_per_kv;

    // The next step to be read. Heads follow one another.
    int next_query = first_query, next_head = kv_head * p.heads_per_kv;
    ReadOther read_q, read_do;
    auto begin_head = [&] {
        const int64_t row = tile.segment.q_begin + first_query;
        read_q = {p.q.at(row, next_head, p.pitch), p.q.stride};
        read_do = {p.d_o.at(row, next_head, p.pitch), p.d_o.stride};
        next_query = first_query;
    };
    auto load_q = [&](int stage) {
        const int n = end_query - next_query;
        read_q.load(shared.other(stage, 0), n, p.pitch);
        read_do.load(shared.other(stage, 1), n, p.pitch);
        const auto i = static_cast<int>(threadIdx.x) % step_rows;
        const int64_t row = tile.segment.q_begin + next_query + (i < n ? i : 0);
        if (threadIdx.x < step_rows) {
            copy_async_4(shared.lse(stage) + i, p.lse + row * p.lse_stride + next_head, i < n);
        } else if (threadIdx.x < 2 * step_rows) {
            copy_async_4(shared.delta(stage) + i, p.delta + next_head * p.rows + row, i < n);
        }
        read_q.advance(step_rows * p.q.stride);
        read_do.advance(step_rows * p.d_o.stride);
        next_query += step_rows;
        if (next_query >= end_query) {
            ++next_head;
            begin_head();
        }
    };
    begin_head();
    ReadOwn(p.k.at(kv_row, kv_head, p.pitch), p.k.stride).load(shared.own(0), tile.n, p.pitch);
    ReadOwn(p.v.at(kv_row, kv_head, p.pitch), p.v.stride).load(shared.own(1), tile.n, p.pitch);
    if (n_steps > 0) load_q(0);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_key = tile.begin + warp * 16 + lane / 4;  // and own_key + 8
    float dk[1][D / 8][4] = {}, dv[1][D / 8][4] = {};
    int query = first_query;

    for (int step = 0; step < n_steps; ++step) {
        const int stage = step % 2;
        copy_async_wait<0>();
        __syncthreads();
        if (step + 1 < n_steps) load_q(stage ^ 1);
        copy_async_commit();

        float probability[1][step_rows / 8][4], ds[1][step_rows / 8][4];
        multiply_transposed<step_rows>(probability, shared.own(0), warp * 16, shared.other(stage, 0));
        multiply_transposed<step_rows>(ds, shared.own(1), warp * 16, shared.other(stage, 1));
        p.scores.cap(probability);
        const bool whole = query + step_rows <= end_query && p.mask.visible(tile.segment, query).end > last_key &&
                           p.mask.visible(tile.segment, query + step_rows - 1).first <= tile.begin;
#pragma unroll
        for (int f = 0; f < step_rows / 8; ++f) {
            const int i = f * 8 + lane % 4 * 2;
            const float2 lse = *reinterpret_cast<const float2 *>(shared.lse(stage) + i);
            const float2 delta = *reinterpret_cast<const float2 *>(shared.delta(stage) + i);
#pragma unroll
            for (int column = 0; column < 2; ++column) {
                const float less = -(column ? lse.y : lse.x) * log2_e, minus = column ? delta.y : delta.x;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float & s = probability[0][f][2 * half + column];
                    float & d = ds[0][f][2 * half + column];
                    const float slope = p.scores.slope(s);
                    s = exp2_fast(s * p.scores.factor + less);
                    d = s * (d - minus) * slope;
                }
            }
        }
        if (!whole) {
#pragma unroll
            for (int f = 0; f < step_rows / 8; ++f) {
#pragma unroll
                for (int column = 0; column < 2; ++column) {
                    const int q = query + f * 8 + lane % 4 * 2 + column;
                    const MaskSpec::Range seen = p.mask.visible(tile.segment, q);
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const int key = own_key + half * 8;
                        if (q < end_query && key >= seen.first && key < seen.end) continue;
                        probability[0][f][2 * half + column] = ds[0][f][2 * half + column] = 0;
                    }
                }
            }
        }
        multiply_add_rows<step_rows, D>(dv, probability, shared.other(stage, 1));
        multiply_add_rows<step_rows, D>(dk, ds, shared.other(stage, 0));
        query += step_rows;
        if (query >= end_query) query = first_query;
    }
    const float scale = p.scores.scale;
    store_rows<D>(p.dk.at(kv_row, kv_head, p.dim), p.dk.stride, warp * 16, tile.n, p.dim, dk[0], scale, scale);
    store_rows<D>(p.dv.at(kv_row, kv_head, p.dim), p.dv.stride, warp * 16, tile.n, p.dim, dv[0], 1.0f, 1.0f);
}

// 64 queries of one head; all keys that they see, some at a time.
template <typename S>
__device__ __forceinline__ void queries(const Arguments & p, const AttentionTile & tile, int head) {
    constexpr int D = S::D, step_rows = S::step_rows;
    using ReadOwn = TileReader<typename S::Own, attention_threads>;
    using ReadOther = TileReader<typename S::Other, attention_threads>;
    const S shared{reinterpret_cast<bf16 *>(shared_memory())};
    const int kv_head = head / p.heads_per_kv;
    const int64_t q_row = tile.segment.q_begin + tile.begin;
    const MaskSpec::Range of_first = p.mask.visible(tile.segment, tile.begin);
    const MaskSpec::Range of_last = p.mask.visible(tile.segment, tile.begin + tile.n - 1);
    const int first_step = of_first.first / step_rows, n_steps = (of_last.end + step_rows - 1) / step_rows;

    const int64_t first_row = tile.segment.kv_begin + int64_t{first_step} * step_rows;
    ReadOther read_k(p.k.at(first_row, kv_head, p.pitch), p.k.stride);
    ReadOther read_v(p.v.at(first_row, kv_head, p.pitch), p.v.stride);
    auto load_kv = [&](int step) {
        const int n = of_last.end - step * step_rows;
        read_k.load(shared.other(step % 2, 0), n, p.pitch);
        read_v.load(shared.other(step % 2, 1), n, p.pitch);
        read_k.advance(step_rows * p.k.stride);
        read_v.advance(step_rows * p.v.stride);
    };
    ReadOwn(p.q.at(q_row, head, p.pitch), p.q.stride).load(shared.own(0), tile.n, p.pitch);
    ReadOwn(p.d_o.at(q_row, head, p.pitch), p.d_o.stride).load(shared.own(1), tile.n, p.pitch);
    load_kv(first_step);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_row = warp * 16 + lane / 4;  // and own_row + 8
    float less[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = own_row + half * 8;
        const bool there = row < tile.n;
        less[half] = there ? -p.lse[(q_row + row) * p.lse_stride + head] * log2_e : 0.0f;
        delta[half] = there ? p.delta[head * p.rows + q_row + row] : 0.0f;
    }
    float dq[1][D / 8][4] = {};

    for (int step = first_step; step < n_steps; ++step) {
        copy_async_wait<0>();
        __syncthreads();
        if (step + 1 < n_steps) load_kv(step + 1);
        copy_async_commit();

        float probability[1][step_rows / 8][4], ds[1][step_rows / 8][4];
        multiply_transposed<step_rows>(probability, shared.own(0), warp * 16, shared.other(step % 2, 0));
        multiply_transposed<step_rows>(ds, shared.own(1), warp * 16, shared.other(step % 2, 1));
        p.scores.cap(probability);
#pragma unroll
        for (int f = 0; f < step_rows / 8; ++f) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float s = probability[0][f][e];
                ds[0][f][e] =
                    exp2_fast(s * p.scores.factor + less[e / 2]) * (ds[0][f][e] - delta[e / 2]) * p.scores.slope(s);
            }
        }
        if (step * step_rows < of_last.first || (step + 1) * step_rows > of_first.end) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const MaskSpec::Range seen = p.mask.visible(tile.segment, tile.begin + own_row + half * 8);
#pragma unroll
                for (int f = 0; f < step_rows / 8; ++f) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; ++e) {
                        const int key = step * step_rows + f * 8 + lane % 4 * 2 + e % 2;
                        if (key < seen.first || key >= seen.end) ds[0][f][e] = 0;
                    }
                }
            }
        }
        multiply_add_rows<step_rows, D>(dq, ds, shared.other(step % 2, 0));
    }
    const float scale = p.scores.scale;
    store_rows<D>(p.dq.at(q_row, head, p.dim), p.dq.stride, warp * 16, tile.n, p.dim, dq[0], scale, scale);
}

// Both kinds in one grid: there are few tiles of keys, and of unequal work; those of queries fill the end. Of either
// kind those with the most work come first, of all heads.
template <typename S>
__global__ void __launch_bounds__(attention_threads, 2) attention_backward_kernel(const __grid_constant__ Arguments p) {
    if (blockIdx.x < p.kv_blocks) {
        const auto heads = static_cast<unsigned>(p.n_head_kv);
        keys_and_values<S>(p, p.kv_tiles[blockIdx.x / heads], static_cast<int>(blockIdx.x % heads));
    } else {
        const unsigned block = blockIdx.x - p.kv_blocks, heads = static_cast<unsigned>(p.n_head);
        queries<S>(p, p.q_tiles[block / heads], static_cast<int>(block % heads));
    }
}

template <typename S> void run(const Context & context, const Arguments & p, int64_t n_q_tiles) {
    const auto blocks = p.kv_blocks + static_cast<unsigned>(n_q_tiles * p.n_head);
    launch("attention_backward", context.stream, attention_backward_kernel<S>,
           {dim3(blocks), attention_threads, S::shared_bytes}, p);
}

}  // namespace

void attention_backward(const Context & context, Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        const AttentionPlan & plan, const AttentionShape & shape, float * delta, Matrix dq, Matrix dk,
                        Matrix dv) {
    attention_delta(context, o, d_o, shape, delta);
    if (is_plain_attention(context, shape, q, k, v)) {
        return attention_backward_plain(context, q, k, v, lse, d_o, plan.rows_of_64(), plan.keys_of_64(), shape, delta,
                                        dq, dk, dv);
    }
    const Workspace::Mark mark(context.workspace);
    const Arguments p{head_operand(context, q, shape.n_head, shape),
                      head_operand(context, k, shape.n_head_kv, shape),
                      head_operand(context, v, shape.n_head_kv, shape),
                      head_operand(context, d_o, shape.n_head, shape),
                      heads(dq),
                      heads(dk),
                      heads(dv),
                      lse.as<float>(),
                      lse.stride,
                      delta,
                      q.rows,
                      plan.keys_of_64().tiles,
                      plan.rows_of_64().tiles,
                      static_cast<unsigned>(plan.keys_of_64().n * shape.n_head_kv),
                      shape.n_head,
                      shape.n_head_kv,
                      shape.n_head / shape.n_head_kv,
                      shape.head_dim,
                      head_pitch(shape),
                      shape.mask,
                      Scores::of(shape)};
    const int64_t n = plan.rows_of_64().n;
    const bool narrow = shape.head_dim <= 64;
    // 64 KiB, or 48 so that two blocks fit where a multiprocessor has 100. There products take so long that more
    // instructions for each of them are no matter.
    if (plan.has_rows_of_128()) {
        return narrow ? run<Shape<64, 64>>(context, p, n) : run<Shape<128, 32>>(context, p, n);
    }
    return narrow ? run<Shape<64, 32>>(context, p, n) : run<Shape<128, 16>>(context, p, n);
}

}  // namespace lorica::cuda
