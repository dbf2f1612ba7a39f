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
    bool together;  // four elements of a row can be read at once
    MaskSpec mask;
    Scores scores;
};

// A lane's elements of a row: four neighbours of every 128.
template <typename T, int n>
__device__ __forceinline__ void load_fours(float (&x)[n], const T * row, int dim, bool together) {
    struct alignas(4 * sizeof(T)) Four {
        T x[4];
    };
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
    for (int i = 0; i < n; i += 4) {
        const int first = i * warp_size + lane * 4;
        if (together) {
            if (first < dim) {
                const Four four = *reinterpret_cast<const Four *>(row + first);
#pragma unroll
                for (int j = 0; j < 4; ++j) x[i + j] = to_float(four.x[j]);
            } else {
                x[i] = x[i + 1] = x[i + 2] = x[i + 3] = 0;
            }
            continue;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) x[i + j] = first + j < dim ? to_float(row[first + j]) : 0.0f;
    }
}

// Block (query, heads of one kv head, part): keys are read once for up to `group` heads. Warps take turns, some keys at
// a time.
template <typename T, int own_elements, int group>
__global__ void __launch_bounds__(attention_threads) attention_decode_kernel(const __grid_constant__ Arguments<T> p) {
    await_kernels_before();
    constexpr int max_dim = own_elements * warp_size;
    const AttentionTile query = p.queries[blockIdx.x];
    const int groups_per_kv = (p.heads_per_kv + group - 1) / group;
    const int kv_head = static_cast<int>(blockIdx.y) / groups_per_kv, part = static_cast<int>(blockIdx.z);
    const int within = static_cast<int>(blockIdx.y) % groups_per_kv * group;
    const int head = kv_head * p.heads_per_kv + within, n_heads = min(group, p.heads_per_kv - within);
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const MaskSpec::Range seen = p.mask.visible(query.segment, query.begin);
    const int64_t n_keys = seen.end - seen.first;
    const auto begin = seen.first + static_cast<int>(n_keys * part / p.n_parts);
    const auto end = seen.first + static_cast<int>(n_keys * (part + 1) / p.n_parts);

    float q[group][own_elements], o[group][own_elements] = {}, max[group], sum[group];
#pragma unroll
    for (int h = 0; h < group; ++h) {
        // Those that are not there repeat the last one, and are not stored.
        const int own = head + min(h, n_heads - 1);
        load_fours(q[h], p.q.at(query.segment.q_begin + query.begin, own, p.dim), p.dim, p.together);
        max[h] = -INFINITY;
        sum[h] = 0;
    }
    for (int first = begin + warp * keys_at_once; first < end; first += warps * keys_at_once) {
        float scores[keys_at_once][group], values[keys_at_once][own_elements];
#pragma unroll
        for (int j = 0; j < keys_at_once; ++j) {
            const int key = query.segment.kv_begin + min(first + j, end - 1);
            float k[own_elements];
            load_fours(k, p.k.at(key, kv_head, p.dim), p.dim, p.together);
            load_fours(values[j], p.v.at(key, kv_head, p.dim), p.dim, p.together);
#pragma unroll
            for (int h = 0; h < group; ++h) {
                scores[j][h] = 0;
#pragma unroll
                for (int i = 0; i < own_elements; ++i) scores[j][h] += q[h][i] * k[i];
            }
        }
#pragma unroll
        for (int h = 0; h < group; ++h) {
            float new_max = max[h];
#pragma unroll
            for (int j = 0; j < keys_at_once; ++j) {
                const float score = p.scores.capped(warp_sum(scores[j][h])) * p.scores.natural;
                scores[j][h] = first + j < end ? score : -INFINITY;
                new_max = fmaxf(new_max, scores[j][h]);
            }
            const float shrink = expf(max[h] - new_max);
            max[h] = new_max;
            sum[h] *= shrink;
#pragma unroll
            for (int i = 0; i < own_elements; ++i) o[h][i] *= shrink;
#pragma unroll
            for (int j = 0; j < keys_at_once; ++j) {
                const float weight = expf(scores[j][h] - new_max);
                sum[h] += weight;
#pragma unroll
                for (int i = 0; i < own_elements; ++i) o[h][i] += weight * values[j][i];
            }
        }
    }

    // [warp, head, 2 + max_dim]
    auto * shared = reinterpret_cast<float *>(shared_memory());
    constexpr int numbers = 2 + max_dim;
#pragma unroll
    for (int h = 0; h < group; ++h) {
        float * own = shared + (warp * group + h) * numbers;
        if (lane == 0) {
            own[0] = max[h];
            own[1] = sum[h];
        }
#pragma unroll
        for (int i = 0; i < own_elements; i += 4) {
#pragma unroll
            for (int j = 0; j < 4; ++j) own[2 + i * warp_size + lane * 4 + j] = o[h][i + j];
        }
    }
    __syncthreads();
    for (int h = 0; h < n_heads; ++h) {
        float * out = p.parts + ((int64_t{blockIdx.x} * p.n_head + head + h) * p.n_parts + part) * (2 + p.dim);
        float part_max = -INFINITY;
        for (int w = 0; w < warps; ++w) part_max = fmaxf(part_max, shared[(w * group + h) * numbers]);
        for (int e = static_cast<int>(threadIdx.x); e < 1 + p.dim; e += attention_threads) {
            float total = 0;
            for (int w = 0; w < warps; ++w) {
                const float * from = shared + (w * group + h) * numbers;
                if (from[0] > -INFINITY) total += expf(from[0] - part_max) * from[1 + e];
            }
            out[1 + e] = total;
        }
        if (threadIdx.x == 0) out[0] = part_max;
    }
}

template <typename T>
__global__ void __launch_bounds__(attention_threads) attention_decode_combine_kernel(
    const __grid_constant__ Arguments<T> p) {
    await_kernels_before();
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
    const int heads_per_kv = shape.n_head / shape.n_head_kv;
    with_type(context.act, [&]<typename T>(T *) {
        const Arguments<T> p{heads_of<T>(q),
                             heads_of<T>(k),
                             heads_of<T>(v),
                             heads_of<T>(o),
                             parts,
                             queries.tiles,
                             shape.n_head,
                             heads_per_kv,
                             shape.head_dim,
                             n_parts,
                             heads_are_aligned({q, k, v}, shape.head_dim),
                             shape.mask,
                             Scores::of(shape)};
        auto run = [&](auto own_elements, auto group) {
            const int64_t groups = int64_t{shape.n_head_kv} * divide_up(heads_per_kv, group());
            launch("attention_decode", context.stream, attention_decode_kernel<T, own_elements(), group()>,
                   {.blocks = dim3(n_queries, static_cast<unsigned>(groups), static_cast<unsigned>(n_parts)),
                    .threads = attention_threads,
                    .shared_bytes = size_t{warps} * group() * (2 + own_elements() * warp_size) * sizeof(float),
                    .overlaps = context.overlaps},
                   p);
        };
        with_lane_elements(shape.head_dim, [&](auto own_elements) {
            if (heads_per_kv == 1) {
                run(own_elements, std::integral_constant<int, 1>());
            } else if (heads_per_kv == 2) {
                run(own_elements, std::integral_constant<int, 2>());
            } else {
                run(own_elements, std::integral_constant<int, 4>());
            }
        });
        launch("attention_decode_combine", context.stream, attention_decode_combine_kernel<T>,
               {.blocks = dim3(n_queries, n_head), .threads = attention_threads, .overlaps = context.overlaps}, p);
    });
}

}  // namespace lorica::cuda
