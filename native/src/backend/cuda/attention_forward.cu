// o = softmax(scale q k^T + causal mask) v, and log-sum-exp (Dao 2023, "FlashAttention-2", algorithm 1). A block of
// threads takes 64 queries of one head and goes through their keys 64 at a time, the next ones on their way into shared
// memory.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

constexpr int q_rows = forward_q_rows, kv_rows = 64;

struct Arguments {
    Heads q, k, v, o;
    float * lse;  // null: not kept
    int64_t lse_stride;
    const AttentionTile * tiles;
    int heads_per_kv, dim;
    float scale;
};

template <int D> constexpr size_t shared_bytes() { return (size_t{q_rows} + 4 * kv_rows) * D * sizeof(bf16); }

template <int D, bool aligned>
__global__ void __launch_bounds__(attention_threads) attention_forward_kernel(const __grid_constant__ Arguments p) {
    using QTile = Tile<q_rows, D>;
    using KvTile = Tile<kv_rows, D>;
    auto * memory = reinterpret_cast<bf16 *>(shared_memory());
    const QTile q_tile{memory};
    auto k_tile = [&](int stage) { return KvTile{memory + QTile::n_elements + stage * 2 * KvTile::n_elements}; };
    auto v_tile = [&](int stage) { return KvTile{memory + QTile::n_elements + (stage * 2 + 1) * KvTile::n_elements}; };

    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y);
    const int kv_head = head / p.heads_per_kv;
    const int64_t q_row = tile.segment.q_begin + tile.begin;
    const int offset = tile.segment.kv_len - tile.segment.q_len;  // query i sees keys up to i + offset
    const int n_keys = tile.begin + tile.n + offset;
    const int n_steps = (n_keys + kv_rows - 1) / kv_rows;

    auto load_kv = [&](int step) {
        const int64_t row = tile.segment.kv_begin + step * kv_rows;
        const int n = n_keys - step * kv_rows;
        k_tile(step % 2).template load<attention_threads, aligned>(p.k.at(row, kv_head, p.dim), p.k.stride, n, p.dim);
        v_tile(step % 2).template load<attention_threads, aligned>(p.v.at(row, kv_head, p.dim), p.v.stride, n, p.dim);
    };
    q_tile.template load<attention_threads, aligned>(p.q.at(q_row, head, p.dim), p.q.stride, tile.n, p.dim);
    load_kv(0);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_row = warp * 16 + lane / 4;  // and own_row + 8
    const float factor = p.scale * log2_e;
    float o[D / 8][4] = {};
    float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    for (int step = 0; step < n_steps; ++step) {
        if (step + 1 < n_steps) load_kv(step + 1);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();

        float s[kv_rows / 8][4];
        multiply_transposed<kv_rows>(s, q_tile, warp * 16, k_tile(step % 2));
        if ((step + 1) * kv_rows > tile.begin + offset + 1) {
            // keys that some query of the tile does not see
#pragma unroll
            for (int f = 0; f < kv_rows / 8; ++f) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int key = step * kv_rows + f * 8 + lane % 4 * 2 + e % 2;
                    if (key > tile.begin + own_row + e / 2 * 8 + offset) s[f][e] = -INFINITY;
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float row_max = max[half];
#pragma unroll
            for (int f = 0; f < kv_rows / 8; ++f) row_max = fmaxf(row_max, fmaxf(s[f][2 * half], s[f][2 * half + 1]));
            row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 1));
            row_max = fmaxf(row_max, __shfl_xor_sync(0xffffffffu, row_max, 2));
            const float shrink = exp2f((max[half] - row_max) * factor);
            max[half] = row_max;
            sum[half] *= shrink;
#pragma unroll
            for (int f = 0; f < kv_rows / 8; ++f) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    s[f][e] = exp2f((s[f][e] - row_max) * factor);
                    sum[half] += s[f][e];
                }
            }
#pragma unroll
            for (int f = 0; f < D / 8; ++f) {
                o[f][2 * half] *= shrink;
                o[f][2 * half + 1] *= shrink;
            }
        }
        multiply_add_rows<kv_rows, D>(o, s, v_tile(step % 2));
        __syncthreads();
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
        const int row = own_row + half * 8;
        if (p.lse && lane % 4 == 0 && row < tile.n) {
            p.lse[(q_row + row) * p.lse_stride + head] = max[half] * p.scale + logf(sum[half]);
        }
    }
    store_rows<D>(p.o.at(q_row, head, p.dim), p.o.stride, warp * 16, tile.n, p.dim, o, 1.0f / sum[0], 1.0f / sum[1]);
}

}  // namespace

void attention_forward(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionTiles & q_tiles,
                       const AttentionShape & shape, Matrix o, Matrix lse) {
    if (is_plain_attention(context, shape)) return attention_forward_plain(context, q, k, v, q_tiles, shape, o, lse);
    const Arguments p{heads(q),        heads(k),
                      heads(v),        heads(o),
                      lse.as<float>(), lse.stride,
                      q_tiles.tiles,   shape.n_head / shape.n_head_kv,
                      shape.head_dim,  static_cast<float>(shape.scale)};
    with_head_dim(shape.head_dim, heads_are_aligned({q, k, v}, shape.head_dim), [&](auto d, auto aligned) {
        const Extent extent{dim3(static_cast<unsigned>(q_tiles.n), static_cast<unsigned>(shape.n_head)),
                            attention_threads, shared_bytes<d()>()};
        launch("attention_forward", context.stream, attention_forward_kernel<d(), aligned()>, extent, p);
    });
}

}  // namespace lorica::cuda
