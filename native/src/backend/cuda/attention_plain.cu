// Attention without tensor cores, for f32 and for heads of more than 128 elements: a warp takes a row of a head, its
// lanes elements of it, and goes through the other side row by row. The formulas are those of attention_forward.cu and
// attention_backward.cu.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

constexpr int warps = attention_threads / warp_size;

template <typename T> struct Arguments {
    HeadsOf<T> q, k, v, o, d_o, dq, dk, dv;
    float * lse;
    int64_t lse_stride;
    const float * delta;  // [n_head, rows]
    int64_t rows;
    const AttentionTile * tiles;
    int heads_per_kv, dim;
    MaskSpec mask;
    Scores scores;
};

// A lane's elements of a row of a head: every 32nd.
template <typename T, int n> __device__ __forceinline__ void load_row(float (&x)[n], const T * row, int dim) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = lane + i * warp_size < dim ? to_float(row[lane + i * warp_size]) : 0.0f;
}
template <typename T, int n>
__device__ __forceinline__ void store_row(T * row, const float (&x)[n], int dim, float factor) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int i = 0; i < n; ++i) {
        if (lane + i * warp_size < dim) row[lane + i * warp_size] = from_float<T>(x[i] * factor);
    }
}
template <int n> __device__ __forceinline__ float dot(const float (&a)[n], const float (&b)[n]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return warp_sum(sum);
}
template <int n> __device__ __forceinline__ void add(float (&to)[n], float factor, const float (&x)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) to[i] += factor * x[i];
}

template <typename T, int n>
__global__ void __launch_bounds__(attention_threads) attention_forward_plain_kernel(
    const __grid_constant__ Arguments<T> p) {
    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y);
    const int kv_head = head / p.heads_per_kv;
    for (int i = static_cast<int>(threadIdx.x) / warp_size; i < tile.n; i += warps) {
        const int64_t row = tile.segment.q_begin + tile.begin + i;
        const MaskSpec::Range seen = p.mask.visible(tile.segment, tile.begin + i);
        float q[n], o[n] = {}, max = -INFINITY, sum = 0;
        load_row(q, p.q.at(row, head, p.dim), p.dim);
        for (int key = seen.first; key < seen.end; ++key) {
            float k[n], v[n];
            load_row(k, p.k.at(tile.segment.kv_begin + key, kv_head, p.dim), p.dim);
            load_row(v, p.v.at(tile.segment.kv_begin + key, kv_head, p.dim), p.dim);
            const float s = p.scores.capped(dot(q, k)) * p.scores.natural, new_max = fmaxf(max, s);
            const float shrink = expf(max - new_max), weight = expf(s - new_max);
            max = new_max;
            sum = sum * shrink + weight;
#pragma unroll
            for (int e = 0; e < n; ++e) o[e] = o[e] * shrink + weight * v[e];
        }
        store_row(p.o.at(row, head, p.dim), o, p.dim, 1.0f / sum);
        if (p.lse && threadIdx.x % warp_size == 0) p.lse[row * p.lse_stride + head] = max + logf(sum);
    }
}

// Rows of keys: dk and dv.
template <typename T, int n>
__global__ void __launch_bounds__(attention_threads) attention_backward_kv_plain_kernel(
    const __grid_constant__ Arguments<T> p) {
    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto kv_head = static_cast<int>(blockIdx.y);
    for (int i = static_cast<int>(threadIdx.x) / warp_size; i < tile.n; i += warps) {
        const int key = tile.begin + i;
        const int64_t kv_row = tile.segment.kv_begin + key;
        const MaskSpec::Range seen = p.mask.seeing(tile.segment, key);
        float k[n], v[n], dk[n] = {}, dv[n] = {};
        load_row(k, p.k.at(kv_row, kv_head, p.dim), p.dim);
        load_row(v, p.v.at(kv_row, kv_head, p.dim), p.dim);
        for (int head = kv_head * p.heads_per_kv; head < (kv_head + 1) * p.heads_per_kv; ++head) {
            for (int query = seen.first; query < seen.end; ++query) {
                const int64_t row = tile.segment.q_begin + query;
                float q[n], d_o[n];
                load_row(q, p.q.at(row, head, p.dim), p.dim);
                load_row(d_o, p.d_o.at(row, head, p.dim), p.dim);
                const float s = p.scores.capped(dot(q, k));
                const float probability = expf(s * p.scores.natural - p.lse[row * p.lse_stride + head]);
                add(dv, probability, d_o);
                const float d_probability = dot(d_o, v) - p.delta[head * p.rows + row];
                add(dk, probability * d_probability * p.scores.slope(s), q);
            }
        }
        store_row(p.dk.at(kv_row, kv_head, p.dim), dk, p.dim, p.scores.scale);
        store_row(p.dv.at(kv_row, kv_head, p.dim), dv, p.dim, 1.0f);
    }
}

// Rows of queries: dq.
template <typename T, int n>
__global__ void __launch_bounds__(attention_threads) attention_backward_q_plain_kernel(
    const __grid_constant__ Arguments<T> p) {
    const AttentionTile tile = p.tiles[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y);
    const int kv_head = head / p.heads_per_kv;
    for (int i = static_cast<int>(threadIdx.x) / warp_size; i < tile.n; i += warps) {
        const int64_t row = tile.segment.q_begin + tile.begin + i;
        const MaskSpec::Range seen = p.mask.visible(tile.segment, tile.begin + i);
        const float lse = p.lse[row * p.lse_stride + head], delta = p.delta[head * p.rows + row];
        float q[n], d_o[n], dq[n] = {};
        load_row(q, p.q.at(row, head, p.dim), p.dim);
        load_row(d_o, p.d_o.at(row, head, p.dim), p.dim);
        for (int key = seen.first; key < seen.end; ++key) {
            float k[n], v[n];
            load_row(k, p.k.at(tile.segment.kv_begin + key, kv_head, p.dim), p.dim);
            load_row(v, p.v.at(tile.segment.kv_begin + key, kv_head, p.dim), p.dim);
            const float s = p.scores.capped(dot(q, k));
            add(dq, expf(s * p.scores.natural - lse) * (dot(d_o, v) - delta) * p.scores.slope(s), k);
        }
        store_row(p.dq.at(row, head, p.dim), dq, p.dim, p.scores.scale);
    }
}

// One warp per row and head.
template <typename T>
__global__ void __launch_bounds__(attention_threads) attention_delta_kernel(HeadsOf<T> o, HeadsOf<T> d_o, int64_t rows,
                                                                            int n_head, int dim, float * delta) {
    const int64_t index = int64_t{blockIdx.x} * warps + threadIdx.x / warp_size;
    if (index >= rows * n_head) return;
    const auto [row, head] = divide(index, n_head);
    const T *o_row = o.at(row, head, dim), *d_o_row = d_o.at(row, head, dim);
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x) % warp_size; i < dim; i += warp_size) {
        sum += to_float(o_row[i]) * to_float(d_o_row[i]);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % warp_size == 0) delta[head * rows + row] = sum;
}

// Block (row): a thread takes eight elements of a head at a time.
__global__ void __launch_bounds__(attention_threads) copy_heads_kernel(Heads x, int n_heads, int dim, int pitch,
                                                                       Heads to) {
    const int64_t row = blockIdx.x;
    const int chunks = pitch / 8;
    for (int i = static_cast<int>(threadIdx.x); i < n_heads * chunks; i += attention_threads) {
        const int head = i / chunks, first = i % chunks * 8;
        const bf16 * from = x.at(row, head, dim) + first;
        uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            const uint32_t low = first + j < dim ? from[j].bits : 0u,
                           high = first + j + 1 < dim ? from[j + 1].bits : 0u;
            pairs[j / 2] = low | high << 16;
        }
        *reinterpret_cast<uint4 *>(to.at(row, head, pitch) + first) = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
}

Extent rows_and_heads(const AttentionTiles & tiles, int32_t n_head) {
    return {dim3(static_cast<unsigned>(tiles.n), static_cast<unsigned>(n_head)), attention_threads, 0};
}

}  // namespace

bool is_plain_attention(const Context & context, const AttentionShape & shape, const Matrix & q, const Matrix & k,
                        const Matrix & v) {
    if (context.act == Dtype::f32 || shape.head_dim > 128) return true;
    return k.rows > q.rows && !heads_are_aligned({k, v}, shape.head_dim);
}

size_t attention_workspace_bytes(const WorkspaceShape & shape, Dtype act) {
    const size_t delta = shape.training ? static_cast<size_t>(shape.max_tokens * shape.n_head) * sizeof(float) : 0;
    const int64_t copies = (shape.training ? 2 : 1) * shape.n_head + 2 * shape.n_head_kv;
    const int64_t elements = shape.max_tokens * copies * round_up(shape.head_dim, 8);
    return delta + (act == Dtype::bf16 ? static_cast<size_t>(elements) * sizeof(bf16) : 0) + 5 * Workspace::alignment;
}

Heads head_operand(const Context & context, const Matrix & x, int32_t n_heads, const AttentionShape & shape) {
    if (heads_are_aligned({x}, shape.head_dim)) return heads(x);
    const int pitch = head_pitch(shape);
    const int64_t stride = int64_t{n_heads} * pitch;
    const Heads copy{context.workspace.take<bf16>(x.rows * stride), stride};
    launch("copy_heads", context.stream, copy_heads_kernel, {dim3(static_cast<unsigned>(x.rows)), attention_threads, 0},
           heads(x), n_heads, shape.head_dim, pitch, copy);
    return copy;
}

void attention_forward_plain(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionTiles & q_tiles,
                             const AttentionShape & shape, Matrix o, Matrix lse) {
    with_type(context.act, [&]<typename T>(T *) {
        Arguments<T> p{};
        p.q = heads_of<T>(q);
        p.k = heads_of<T>(k);
        p.v = heads_of<T>(v);
        p.o = heads_of<T>(o);
        p.lse = lse.as<float>();
        p.lse_stride = lse.stride;
        p.tiles = q_tiles.tiles;
        p.heads_per_kv = shape.n_head / shape.n_head_kv;
        p.dim = shape.head_dim;
        p.mask = shape.mask;
        p.scores = Scores::of(shape);
        with_lane_elements(shape.head_dim, [&](auto n) {
            launch("attention_forward_plain", context.stream, attention_forward_plain_kernel<T, n()>,
                   rows_and_heads(q_tiles, shape.n_head), p);
        });
    });
}

void attention_backward_plain(const Context & context, Matrix q, Matrix k, Matrix v, Matrix lse, Matrix d_o,
                              const AttentionTiles & q_tiles, const AttentionTiles & kv_tiles,
                              const AttentionShape & shape, const float * delta, Matrix dq, Matrix dk, Matrix dv) {
    with_type(context.act, [&]<typename T>(T *) {
        Arguments<T> p{heads_of<T>(q),
                       heads_of<T>(k),
                       heads_of<T>(v),
                       {},
                       heads_of<T>(d_o),
                       heads_of<T>(dq),
                       heads_of<T>(dk),
                       heads_of<T>(dv),
                       lse.as<float>(),
                       lse.stride,
                       delta,
                       q.rows,
                       kv_tiles.tiles,
                       shape.n_head / shape.n_head_kv,
                       shape.head_dim,
                       shape.mask,
                       Scores::of(shape)};
        with_lane_elements(shape.head_dim, [&](auto n) {
            launch("attention_backward_kv_plain", context.stream, attention_backward_kv_plain_kernel<T, n()>,
                   rows_and_heads(kv_tiles, shape.n_head_kv), p);
            p.tiles = q_tiles.tiles;
            launch("attention_backward_q_plain", context.stream, attention_backward_q_plain_kernel<T, n()>,
                   rows_and_heads(q_tiles, shape.n_head), p);
        });
    });
}

void attention_delta(const Context & context, Matrix o, Matrix d_o, const AttentionShape & shape, float * delta) {
    with_type(context.act, [&]<typename T>(T *) {
        launch("attention_delta", context.stream, attention_delta_kernel<T>,
               {dim3(static_cast<unsigned>(divide_up(o.rows * shape.n_head, warps))), attention_threads, 0},
               heads_of<T>(o), heads_of<T>(d_o), o.rows, shape.n_head, shape.head_dim, delta);
    });
}

}  // namespace lorica::cuda
