// The derivative of attention (Dao 2023, "FlashAttention-2", algorithm 2), in two passes that each make the
// probabilities again: one block per tile of keys for dk and dv, one per tile of queries for dq. So every sum is made
// by one thread in a fixed order, without atomic additions. With s = scale q k^T, p = exp(s - lse), o = p v:
//   dv_j += p_ij do_i;  dp_ij = do_i . v_j;  ds_ij = p_ij (dp_ij - delta_i), delta_i = do_i . o_i;
//   dq_i = scale sum_j ds_ij k_j;  dk_j += scale ds_ij q_i.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

constexpr int step_rows = 32;  // queries or keys at a time

struct Arguments {
    Heads q, k, v, o, d_o, dq, dk, dv;
    const float * lse;
    int64_t lse_stride;
    const float * delta;  // [rows, n_head]
    const AttentionTile * tiles;
    int n_head, heads_per_kv, dim;
    float scale;
};

template <int D> constexpr size_t shared_bytes() {
    return (size_t{2} * backward_kv_rows + 4 * step_rows) * D * sizeof(bf16);
}
static_assert(backward_kv_rows == backward_q_rows);

// 64 keys of one kv head; all queries that see them, of all heads that share them, 32 at a time. Scores are made
// transposed, so that a warp's rows are keys.
template <int D, bool aligned>
__global__ void __launch_bounds__(attention_threads) attention_backward_kv_kernel(const __grid_constant__ Arguments p) {
    using KvTile = Tile<backward_kv_rows, D>;
    using QTile = Tile<step_rows, D>;
    auto * memory = reinterpret_cast<bf16 *>(shared_memory());
    const KvTile k_tile{memory}, v_tile{memory + KvTile::n_elements};
    auto q_tile = [&](int stage) { return QTile{memory + 2 * KvTile::n_elements + stage * 2 * QTile::n_elements}; };
    auto do_tile = [&](int stage) {
        return QTile{memory + 2 * KvTile::n_elements + (stage * 2 + 1) * QTile::n_elements};
    };

    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto kv_head = static_cast<int>(blockIdx.y);
    const int64_t kv_row = tile.segment.kv_begin + tile.begin;
    const int offset = tile.segment.kv_len - tile.segment.q_len;  // query i sees keys up to i + offset
    const int first_query = max(tile.begin - offset, 0) / step_rows * step_rows;
    const int steps_per_head = (tile.segment.q_len - first_query + step_rows - 1) / step_rows;
    const int n_steps = steps_per_head * p.heads_per_kv;

    auto head_of = [&](int step) { return kv_head * p.heads_per_kv + step / steps_per_head; };
    auto query_of = [&](int step) { return first_query + step % steps_per_head * step_rows; };
    auto load_q = [&](int step) {
        const int64_t row = tile.segment.q_begin + query_of(step);
        const int n = tile.segment.q_len - query_of(step), head = head_of(step);
        q_tile(step % 2).template load<attention_threads, aligned>(p.q.at(row, head, p.dim), p.q.stride, n, p.dim);
        do_tile(step % 2).template load<attention_threads, aligned>(p.d_o.at(row, head, p.dim), p.d_o.stride, n, p.dim);
    };
    k_tile.template load<attention_threads, aligned>(p.k.at(kv_row, kv_head, p.dim), p.k.stride, tile.n, p.dim);
    v_tile.template load<attention_threads, aligned>(p.v.at(kv_row, kv_head, p.dim), p.v.stride, tile.n, p.dim);
    load_q(0);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_key = tile.begin + warp * 16 + lane / 4;  // and own_key + 8
    const float factor = p.scale * log2_e;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};

    for (int step = 0; step < n_steps; ++step) {
        if (step + 1 < n_steps) load_q(step + 1);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();

        const QTile q = q_tile(step % 2), d_o = do_tile(step % 2);
        float probability[step_rows / 8][4], ds[step_rows / 8][4];
        multiply_transposed<step_rows>(probability, k_tile, warp * 16, q);
        multiply_transposed<step_rows>(ds, v_tile, warp * 16, d_o);
#pragma unroll
        for (int f = 0; f < step_rows / 8; ++f) {
#pragma unroll
            for (int column = 0; column < 2; ++column) {
                const int query = query_of(step) + f * 8 + lane % 4 * 2 + column;
                const bool there = query < tile.segment.q_len;
                const int64_t row = tile.segment.q_begin + query;
                const float lse = there ? p.lse[row * p.lse_stride + head_of(step)] * log2_e : 0.0f;
                const float delta = there ? p.delta[row * p.n_head + head_of(step)] : 0.0f;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float & s = probability[f][2 * half + column];
                    float & d = ds[f][2 * half + column];
                    s = there && own_key + half * 8 <= query + offset ? exp2f(s * factor - lse) : 0.0f;
                    d = s * (d - delta);
                }
            }
        }
        multiply_add_rows<step_rows, D>(dv, probability, d_o);
        multiply_add_rows<step_rows, D>(dk, ds, q);
        __syncthreads();
    }
    store_rows<D>(p.dk.at(kv_row, kv_head, p.dim), p.dk.stride, warp * 16, tile.n, p.dim, dk, p.scale, p.scale);
    store_rows<D>(p.dv.at(kv_row, kv_head, p.dim), p.dv.stride, warp * 16, tile.n, p.dim, dv, 1.0f, 1.0f);
}

// 64 queries of one head; all keys that they see, 32 at a time.
template <int D, bool aligned>
__global__ void __launch_bounds__(attention_threads) attention_backward_q_kernel(const __grid_constant__ Arguments p) {
    using QTile = Tile<backward_q_rows, D>;
    using KvTile = Tile<step_rows, D>;
    auto * memory = reinterpret_cast<bf16 *>(shared_memory());
    const QTile q_tile{memory}, do_tile{memory + QTile::n_elements};
    auto k_tile = [&](int stage) { return KvTile{memory + 2 * QTile::n_elements + stage * 2 * KvTile::n_elements}; };
    auto v_tile = [&](int stage) {
        return KvTile{memory + 2 * QTile::n_elements + (stage * 2 + 1) * KvTile::n_elements};
    };

    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y);
    const int kv_head = head / p.heads_per_kv;
    const int64_t q_row = tile.segment.q_begin + tile.begin;
    const int offset = tile.segment.kv_len - tile.segment.q_len;
    const int n_keys = tile.begin + tile.n + offset;
    const int n_steps = (n_keys + step_rows - 1) / step_rows;

    auto load_kv = [&](int step) {
        const int64_t row = tile.segment.kv_begin + step * step_rows;
        const int n = n_keys - step * step_rows;
        k_tile(step % 2).template load<attention_threads, aligned>(p.k.at(row, kv_head, p.dim), p.k.stride, n, p.dim);
        v_tile(step % 2).template load<attention_threads, aligned>(p.v.at(row, kv_head, p.dim), p.v.stride, n, p.dim);
    };
    q_tile.template load<attention_threads, aligned>(p.q.at(q_row, head, p.dim), p.q.stride, tile.n, p.dim);
    do_tile.template load<attention_threads, aligned>(p.d_o.at(q_row, head, p.dim), p.d_o.stride, tile.n, p.dim);
    load_kv(0);
    copy_async_commit();

    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int own_row = warp * 16 + lane / 4;  // and own_row + 8
    const float factor = p.scale * log2_e;
    float lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = own_row + half * 8;
        const bool there = row < tile.n;
        lse[half] = there ? p.lse[(q_row + row) * p.lse_stride + head] * log2_e : 0.0f;
        delta[half] = there ? p.delta[(q_row + row) * p.n_head + head] : 0.0f;
    }
    float dq[D / 8][4] = {};

    for (int step = 0; step < n_steps; ++step) {
        if (step + 1 < n_steps) load_kv(step + 1);
        copy_async_commit();
        copy_async_wait<1>();
        __syncthreads();

        float probability[step_rows / 8][4], ds[step_rows / 8][4];
        multiply_transposed<step_rows>(probability, q_tile, warp * 16, k_tile(step % 2));
        multiply_transposed<step_rows>(ds, do_tile, warp * 16, v_tile(step % 2));
#pragma unroll
        for (int f = 0; f < step_rows / 8; ++f) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int half = e / 2, row = own_row + half * 8, key = step * step_rows + f * 8 + lane % 4 * 2 + e % 2;
                const bool seen = row < tile.n && key <= tile.begin + row + offset;
                const float s = seen ? exp2f(probability[f][e] * factor - lse[half]) : 0.0f;
                ds[f][e] = s * (ds[f][e] - delta[half]);
            }
        }
        multiply_add_rows<step_rows, D>(dq, ds, k_tile(step % 2));
        __syncthreads();
    }
    store_rows<D>(p.dq.at(q_row, head, p.dim), p.dq.stride, warp * 16, tile.n, p.dim, dq, p.scale, p.scale);
}

}  // namespace

void attention_backward(const Context & context, Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        const AttentionTiles & q_tiles, const AttentionTiles & kv_tiles, const AttentionShape & shape,
                        float * delta, Matrix dq, Matrix dk, Matrix dv) {
    attention_delta(context, o, d_o, shape, delta);
    if (is_plain_attention(context, shape)) {
        return attention_backward_plain(context, q, k, v, lse, d_o, q_tiles, kv_tiles, shape, delta, dq, dk, dv);
    }
    Arguments p{heads(q),        heads(k),
                heads(v),        heads(o),
                heads(d_o),      heads(dq),
                heads(dk),       heads(dv),
                lse.as<float>(), lse.stride,
                delta,           nullptr,
                shape.n_head,    shape.n_head / shape.n_head_kv,
                shape.head_dim,  static_cast<float>(shape.scale)};
    with_head_dim(shape.head_dim, heads_are_aligned({q, k, v, d_o}, shape.head_dim), [&](auto d, auto aligned) {
        p.tiles = kv_tiles.tiles;
        launch("attention_backward_kv", context.stream, attention_backward_kv_kernel<d(), aligned()>,
               {dim3(static_cast<unsigned>(kv_tiles.n), static_cast<unsigned>(shape.n_head_kv)), attention_threads,
                shared_bytes<d()>()},
               p);
        p.tiles = q_tiles.tiles;
        launch("attention_backward_q", context.stream, attention_backward_q_kernel<d(), aligned()>,
               {dim3(static_cast<unsigned>(q_tiles.n), static_cast<unsigned>(shape.n_head)), attention_threads,
                shared_bytes<d()>()},
               p);
    });
}

}  // namespace lorica::cuda
