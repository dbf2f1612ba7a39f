// o = softmax(softcap(scale q k^T) + mask) v, and log-sum-exp (Dao 2023, "FlashAttention-2", algorithm 1). A block of
// threads takes 128 queries of one head, or 64, and goes through the keys that they see some at a time, the next ones
// on their way into shared memory.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

struct Arguments {
    Heads q, k, v, o;
    float * lse;  // null: not kept
    int64_t lse_stride;
    const AttentionTile * tiles;
    int n_head, heads_per_kv, dim;
    int pitch;  // of the heads of q, k and v
    MaskSpec mask;
    Scores scores;
};

// frags: of 16 queries, for each warp. Every fragment of keys that a warp reads from shared memory serves all of them.
template <int D_, int frags_, int kv_rows_> struct Shape {
    static constexpr int D = D_, frags = frags_, kv_rows = kv_rows_;
    static constexpr int q_rows = attention_threads / warp_size * 16 * frags;
    static constexpr size_t shared_bytes = (size_t{q_rows} + 4 * kv_rows) * D * sizeof(bf16);
};

// Two blocks on a multiprocessor: 255 registers for each thread.
template <typename S>
__global__ void __launch_bounds__(attention_threads, 2) attention_forward_kernel(const __grid_constant__ Arguments p) {
    constexpr int D = S::D, kv_rows = S::kv_rows, frags = S::frags;
    using QTile = Tile<S::q_rows, D>;
    using KvTile = Tile<kv_rows, D>;
    using ReadQ = TileReader<QTile, attention_threads>;
    using ReadKv = TileReader<KvTile, attention_threads>;
    auto * memory = reinterpret_cast<bf16 *>(shared_memory());
    const QTile q_tile{memory};
    auto k_tile = [&](int stage) { return KvTile{memory + QTile::n_elements + stage * 2 * KvTile::n_elements}; };
    auto v_tile = [&](int stage) { return KvTile{memory + QTile::n_elements + (stage * 2 + 1) * KvTile::n_elements}; };

    // Read anew where a mask needs it, which is seldom: registers are short.
    const AttentionTile * const tile_at = p.tiles + blockIdx.x / static_cast<unsigned>(p.n_head);
    const AttentionTile tile = *tile_at;
    const auto head = static_cast<int>(blockIdx.x % static_cast<unsigned>(p.n_head));
    const int kv_head = head / p.heads_per_kv;
    const int64_t q_row = tile.segment.q_begin + tile.begin;
    const MaskSpec::Range of_first = p.mask.visible(tile.segment, tile.begin);
    const MaskSpec::Range of_last = p.mask.visible(tile.segment, tile.begin + tile.n - 1);
    const int first_key = of_first.first / kv_rows * kv_rows, end_key = of_last.end;

    ReadKv read_k(p.k.at(tile.segment.kv_begin + first_key, kv_head, p.pitch), p.k.stride);
    ReadKv read_v(p.v.at(tile.segment.kv_begin + first_key, kv_head, p.pitch), p.v.stride);
    auto load_kv = [&](int key) {
        const int stage = key / kv_rows % 2;
        read_k.load_by(p.k.stride, k_tile(stage), end_key - key, p.pitch);
        read_v.load_by(p.v.stride, v_tile(stage), end_key - key, p.pitch);
        read_k.advance(kv_rows * p.k.stride);
        read_v.advance(kv_rows * p.v.stride);
    };
    ReadQ(p.q.at(q_row, head, p.pitch), p.q.stride).load(q_tile, tile.n, p.pitch);
    load_kv(first_key);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_row = warp * 16 * frags + lane / 4;  // and every eighth behind it
    float o[frags][D / 8][4] = {};
    float max[2 * frags], sum[2 * frags];
#pragma unroll
    for (int i = 0; i < 2 * frags; ++i) max[i] = -INFINITY, sum[i] = 0;

    for (int first = first_key; first < end_key; first += kv_rows) {
        const int stage = first / kv_rows % 2;
        // Behind the barrier this step's keys are there, and all have done with those before, whose place is free.
        copy_async_wait<0>();
        __syncthreads();
        if (first + kv_rows < end_key) load_kv(first + kv_rows);
        copy_async_commit();

        const int zero = D == 128 && frags == 2 ? unknown_zero() : 0;
        float s[frags][kv_rows / 8][4];
        multiply_transposed<kv_rows>(s, q_tile, warp * 16 * frags, k_tile(stage), zero);
        p.scores.cap(s);
        if (first < of_last.first || first + kv_rows > of_first.end) {
            // keys that some query of the tile does not see
            const AttentionTile own = *tile_at;
#pragma unroll
            for (int i = 0; i < 2 * frags; ++i) {
                const MaskSpec::Range seen = p.mask.visible(own.segment, own.begin + own_row + i * 8);
#pragma unroll
                for (int f = 0; f < kv_rows / 8; ++f) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        const int key = first + f * 8 + lane % 4 * 2 + e;
                        if (key < seen.first || key >= seen.end) s[i / 2][f][i % 2 * 2 + e] = -INFINITY;
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2 * frags; ++i) {
            const int r = i / 2, e0 = i % 2 * 2;
            float row_max = max[i];
#pragma unroll
            for (int f = 0; f < kv_rows / 8; ++f) row_max = fmaxf(row_max, fmaxf(s[r][f][e0], s[r][f][e0 + 1]));
            row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 1));
            row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 2));
            // A row that has seen no key yet has nothing to be shrunk.
            const float less = row_max == -INFINITY ? 0.0f : -row_max * p.scores.factor;
            const float shrink = exp2_fast(max[i] * p.scores.factor + less);
            max[i] = row_max;
            sum[i] *= shrink;
#pragma unroll
            for (int f = 0; f < kv_rows / 8; ++f) {
#pragma unroll
                for (int e = e0; e < e0 + 2; ++e) {
                    s[r][f][e] = exp2_fast(s[r][f][e] * p.scores.factor + less);
                    sum[i] += s[r][f][e];
                }
            }
#pragma unroll
            for (int f = 0; f < D / 8; ++f) {
                o[r][f][e0] *= shrink;
                o[r][f][e0 + 1] *= shrink;
            }
        }
        multiply_add_rows<kv_rows, D>(o, s, v_tile(stage), zero);
    }

    const AttentionTile own = *tile_at;
    const int64_t first_query = own.segment.q_begin + own.begin;
#pragma unroll
    for (int i = 0; i < 2 * frags; ++i) {
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
        sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
        const int row = own_row + i * 8;
        if (p.lse && lane % 4 == 0 && row < own.n) {
            p.lse[(first_query + row) * p.lse_stride + head] = max[i] * p.scores.natural + logf(sum[i]);
        }
    }
#pragma unroll
    for (int r = 0; r < frags; ++r) {
        store_rows<D>(p.o.at(first_query, head, p.dim), p.o.stride, warp * 16 * frags + 16 * r, own.n, p.dim, o[r],
                      1.0f / sum[2 * r], 1.0f / sum[2 * r + 1]);
    }
}

template <typename S> void run(const Context & context, Arguments p, const AttentionTiles & tiles) {
    p.tiles = tiles.tiles;
    launch("attention_forward", context.stream, attention_forward_kernel<S>,
           {dim3(static_cast<unsigned>(tiles.n * p.n_head)), attention_threads, S::shared_bytes}, p);
}

}  // namespace

void attention_forward(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionPlan & plan,
                       const AttentionShape & shape, Matrix o, Matrix lse) {
    if (is_plain_attention(context, shape, q, k, v))
        return attention_forward_plain(context, q, k, v, plan.rows_of_64(), shape, o, lse);
    const Workspace::Mark mark(context.workspace);
    const Arguments p{head_operand(context, q, shape.n_head, shape),
                      head_operand(context, k, shape.n_head_kv, shape),
                      head_operand(context, v, shape.n_head_kv, shape),
                      heads(o),
                      lse.as<float>(),
                      lse.stride,
                      nullptr,
                      shape.n_head,
                      shape.n_head / shape.n_head_kv,
                      shape.head_dim,
                      head_pitch(shape),
                      shape.mask,
                      Scores::of(shape)};
    const bool narrow = shape.head_dim <= 64;
    if (plan.has_rows_of_128()) {
        if (narrow) return run<Shape<64, 2, 64>>(context, p, plan.rows_of_128());
        return run<Shape<128, 2, 32>>(context, p, plan.rows_of_128());
    }
    if (narrow) return run<Shape<64, 1, 32>>(context, p, plan.rows_of_64());
    return run<Shape<128, 1, 32>>(context, p, plan.rows_of_64());
}

}  // namespace lorica::cuda
