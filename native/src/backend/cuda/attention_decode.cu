// Attention of few queries to many keys in a cache: the keys of a query and head are shared out to several blocks,
// whose softmax parts are put together by a second kernel.
#include "backend/cuda/attention.cuh"

namespace lorica::cuda {

namespace {

constexpr int warps = attention_threads / warp_size;
constexpr int keys_per_part = 64;
constexpr int keys_at_once = 4;  // whose sums across a warp do not wait for each other

template <typename T> struct Arguments {
    HeadsOf<T> q, k, v, o;
    float * parts;  // [query, head, part, 2 + dim]: maximum, sum, weighted sum of v
    const AttentionTile * queries;
    int n_head, heads_per_kv, dim, n_parts;
    float scale;
};

// Block (query, head, part). Warps take turns, some keys at a time; a lane has every 32nd element.
template <typename T, int own_elements>
__global__ void __launch_bounds__(attention_threads) attention_decode_kernel(const __grid_constant__ Arguments<T> p) {
    constexpr int max_dim = own_elements * warp_size;
    const AttentionTile query = p.queries[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y), part = static_cast<int>(blockIdx.z);
    const int kv_head = head / p.heads_per_kv;
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int n_keys = query.begin + 1 + query.segment.kv_len - query.segment.q_len;
    const auto begin = static_cast<int>(int64_t{n_keys} * part / p.n_parts);
    const auto end = static_cast<int>(int64_t{n_keys} * (part + 1) / p.n_parts);

    const T * q_row = p.q.at(query.segment.q_begin + query.begin, head, p.dim);
    float q[own_elements], o[own_elements] = {}, max = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < own_elements; ++i) {
        const int e = lane + i * warp_size;
        q[i] = e < p.dim ? to_float(q_row[e]) * p.scale : 0.0f;
    }
    for (int first = begin + warp * keys_at_once; first < end; first += warps * keys_at_once) {
        float scores[keys_at_once], values[keys_at_once][own_elements], new_max = max;
#pragma unroll
        for (int j = 0; j < keys_at_once; ++j) {
            const int key = query.segment.kv_begin + min(first + j, end - 1);
            const T * k = p.k.at(key, kv_head, p.dim);
            const T * v = p.v.at(key, kv_head, p.dim);
            scores[j] = 0;
#pragma unroll
            for (int i = 0; i < own_elements; ++i) {
                const int e = lane + i * warp_size;
                scores[j] += e < p.dim ? q[i] * to_float(k[e]) : 0.0f;
                values[j][i] = e < p.dim ? to_float(v[e]) : 0.0f;
            }
        }
#pragma unroll
        for (int j = 0; j < keys_at_once; ++j) {
            scores[j] = first + j < end ? warp_sum(scores[j]) : -INFINITY;
            new_max = fmaxf(new_max, scores[j]);
        }
        const float shrink = expf(max - new_max);
        max = new_max;
        sum *= shrink;
#pragma unroll
        for (int i = 0; i < own_elements; ++i) o[i] *= shrink;
#pragma unroll
        for (int j = 0; j < keys_at_once; ++j) {
            const float weight = expf(scores[j] - max);
            sum += weight;
#pragma unroll
            for (int i = 0; i < own_elements; ++i) o[i] += weight * values[j][i];
        }
    }

    // [warp, 2 + max_dim]
    auto * shared = reinterpret_cast<float *>(shared_memory());
    float * own = shared + warp * (2 + max_dim);
    if (lane == 0) {
        own[0] = max;
        own[1] = sum;
    }
#pragma unroll
    for (int i = 0; i < own_elements; ++i) own[2 + lane + i * warp_size] = o[i];
    __syncthreads();
    float * out = p.parts + ((int64_t{blockIdx.x} * p.n_head + head) * p.n_parts + part) * (2 + p.dim);
    float part_max = -INFINITY;
    for (int w = 0; w < warps; ++w) part_max = fmaxf(part_max, shared[w * (2 + max_dim)]);
    for (int e = static_cast<int>(threadIdx.x); e < 1 + p.dim; e += attention_threads) {
        float total = 0;
        for (int w = 0; w < warps; ++w) {
            const float * from = shared + w * (2 + max_dim);
            if (from[0] > -INFINITY) total += expf(from[0] - part_max) * from[1 + e];
        }
        out[1 + e] = total;
    }
    if (threadIdx.x == 0) out[0] = part_max;
}

template <typename T>
__global__ void __launch_bounds__(attention_threads) attention_decode_combine_kernel(
    const __grid_constant__ Arguments<T> p) {
    const AttentionTile query = p.queries[blockIdx.x];
    const auto head = static_cast<int>(blockIdx.y);
    const float * parts = p.parts + (int64_t{blockIdx.x} * p.n_head + head) * p.n_parts * (2 + p.dim);
    float max = -INFINITY;
    for (int i = 0; i < p.n_parts; ++i) max = fmaxf(max, parts[i * (2 + p.dim)]);
    T * o = p.o.at(query.segment.q_begin + query.begin, head, p.dim);
    for (int e = static_cast<int>(threadIdx.x); e < p.dim; e += attention_threads) {
        float sum = 0, total = 0;
        for (int i = 0; i < p.n_parts; ++i) {
            const float * part = parts + i * (2 + p.dim);
            const float weight = part[0] > -INFINITY ? expf(part[0] - max) : 0.0f;
            sum += weight * part[1];
            total += weight * part[2 + e];
        }
        o[e] = from_float<T>(total / sum);
    }
}

}  // namespace

size_t decode_workspace_bytes(int64_t n_queries, const AttentionShape & shape) {
    return static_cast<size_t>(n_queries * shape.n_head * decode_max_parts * (2 + shape.head_dim)) * sizeof(float) +
           Workspace::alignment;
}

int32_t decode_parts(int32_t n_keys) {
    int32_t n_parts = 1;
    while (n_parts < decode_max_parts && n_parts * keys_per_part < n_keys) n_parts *= 2;
    return n_parts;
}

void attention_decode(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionTiles & queries,
                      int32_t n_parts, const AttentionShape & shape, Matrix o) {
    const Workspace::Mark mark(context.workspace);
    auto * parts = context.workspace.take<float>(queries.n * shape.n_head * n_parts * (2 + shape.head_dim));
    const auto n_queries = static_cast<unsigned>(queries.n), n_head = static_cast<unsigned>(shape.n_head);
    with_type(context.act, [&]<typename T>(T *) {
        const Arguments<T> p{heads_of<T>(q),
                             heads_of<T>(k),
                             heads_of<T>(v),
                             heads_of<T>(o),
                             parts,
                             queries.tiles,
                             shape.n_head,
                             shape.n_head / shape.n_head_kv,
                             shape.head_dim,
                             n_parts,
                             static_cast<float>(shape.scale)};
        with_lane_elements(shape.head_dim, [&](auto own_elements) {
            launch("attention_decode", context.stream, attention_decode_kernel<T, own_elements()>,
                   {dim3(n_queries, n_head, static_cast<unsigned>(n_parts)), attention_threads,
                    warps * (2 + own_elements() * warp_size) * sizeof(float)},
                   p);
        });
        launch("attention_decode_combine", context.stream, attention_decode_combine_kernel<T>,
               {dim3(n_queries, n_head), attention_threads, 0}, p);
    });
}

}  // namespace lorica::cuda
