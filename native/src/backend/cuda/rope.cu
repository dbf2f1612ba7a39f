// Rotary position embedding: of q and k in place, and on their way into a cache.
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/view.cuh"

namespace lorica::cuda {

namespace {

constexpr int threads = 256;
constexpr int max_frequencies = 128;
struct Frequencies {
    double inverse[max_frequencies];
    int n, head_dim;
    bool halves;      // pairs are (i, i + n), else (2 i, 2 i + 1)
    float factor;     // of what is rotated
    float direction;  // -1: back
    float temperature;
    int temperature_length;
    bool undoes;
};

struct Rotation {
    float cosine, sine;
};
// Angles grow beyond what a float resolves, so that whole turns are taken off in double.
__device__ __forceinline__ Rotation rotation(const Frequencies & f, int32_t position, int i, bool has_temperature) {
    constexpr double turn = 6.283185307179586476925;
    const double angle = position * f.inverse[i];
    const auto rest = static_cast<float>(angle - turn * rint(angle / turn));
    float factor = f.factor;
    if (has_temperature && f.temperature != 0) {
        const float growth = 1 + f.temperature * log1pf(static_cast<float>(position / f.temperature_length));
        factor *= f.undoes ? 1 / growth : growth;
    }
    return {factor * cosf(rest), factor * f.direction * sinf(rest)};
}
// Where the two numbers of pair i lie in a head.
__device__ __forceinline__ int first_of(const Frequencies & f, int i) { return f.halves ? i : 2 * i; }
__device__ __forceinline__ int second_of(const Frequencies & f, int i) { return f.halves ? i + f.n : 2 * i + 1; }

// One thread per token and frequency, for all heads. pairs: two neighbours of bf16 can be accessed at once.
template <typename T, bool pairs>
__global__ void __launch_bounds__(threads) rope_kernel(View<T> x, const int32_t * positions,
                                                       const __grid_constant__ Frequencies f) {
    const unsigned index = blockIdx.x * unsigned{threads} + threadIdx.x, n = static_cast<unsigned>(f.n);
    if (index >= x.rows * n) return;
    const int64_t t = index / n;
    const auto i = static_cast<int>(index % n);
    const Rotation by = rotation(f, positions[t], i, true);
    T * row = x.row(t);
    const int first = first_of(f, i), second = second_of(f, i);
#pragma unroll 4
    for (int64_t head = 0; head < x.cols; head += f.head_dim) {
        if constexpr (pairs) {
            auto * pair = reinterpret_cast<uint32_t *>(row + head + first);
            const float x0 = low_bf16(*pair), x1 = high_bf16(*pair);
            *pair = pack_bf16(x0 * by.cosine - x1 * by.sine, x0 * by.sine + x1 * by.cosine);
        } else {
            const float x0 = to_float(row[head + first]), x1 = to_float(row[head + second]);
            row[head + first] = from_float<T>(x0 * by.cosine - x1 * by.sine);
            row[head + second] = from_float<T>(x0 * by.sine + x1 * by.cosine);
        }
    }
}

// Block (token, head): the heads of q, then those of k, then those of v.
template <typename T>
__global__ void rope_into_cache_kernel(View<T> q, View<const T> k, View<const T> v, const int32_t * positions,
                                       const int32_t * rows, const __grid_constant__ Frequencies f, View<T> k_cache,
                                       View<T> v_cache) {
    await_kernels_before();
    const int64_t t = blockIdx.x, n_head = q.cols / f.head_dim, n_head_kv = k.cols / f.head_dim;
    const int32_t position = positions[t], row = rows ? rows[t] : position;
    int64_t head = blockIdx.y;
    const bool of_q = head < n_head, of_v = head >= n_head + n_head_kv;
    head -= of_q ? 0 : of_v ? n_head + n_head_kv : n_head;
    const T * from = (of_q ? q.row(t) : of_v ? v.row(t) : k.row(t)) + head * f.head_dim;
    T * to = (of_q ? q.row(t) : of_v ? v_cache.row(row) : k_cache.row(row)) + head * f.head_dim;
    const int n_pairs = of_v ? 0 : f.n;
    for (int i = static_cast<int>(threadIdx.x); i < n_pairs; i += warp_size) {
        const Rotation by = rotation(f, position, i, of_q);
        const int first = first_of(f, i), second = second_of(f, i);
        const float x0 = to_float(from[first]), x1 = to_float(from[second]);
        to[first] = from_float<T>(x0 * by.cosine - x1 * by.sine);
        to[second] = from_float<T>(x0 * by.sine + x1 * by.cosine);
    }
    if (of_q) return;
    for (int i = 2 * n_pairs + static_cast<int>(threadIdx.x); i < f.head_dim; i += warp_size) to[i] = from[i];
}

Frequencies frequencies_of(const Rope & rope, RopeDirection direction) {
    const auto & inverse_frequency = rope.inverse_frequency;
    if (inverse_frequency.size() > max_frequencies) {
        fail(LORICA_ERROR_UNSUPPORTED, "the cuda device rotates at most ", 2 * max_frequencies,
             " elements of a head, not ", 2 * inverse_frequency.size());
    }
    Frequencies f{};
    f.n = static_cast<int>(inverse_frequency.size());
    f.head_dim = rope.head_dim;
    f.halves = rope.halves;
    f.factor = static_cast<float>(direction == RopeDirection::undo ? 1 / rope.magnitude : rope.magnitude);
    f.direction = direction == RopeDirection::forward ? 1.0f : -1.0f;
    f.temperature = static_cast<float>(rope.temperature);
    f.temperature_length = rope.temperature_length;
    f.undoes = direction == RopeDirection::undo;
    for (size_t i = 0; i < inverse_frequency.size(); ++i) f.inverse[i] = inverse_frequency[i];
    return f;
}

}  // namespace

void rope(const Context & context, Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) {
    const Frequencies f = frequencies_of(rope, direction);
    const Extent extent{dim3(static_cast<unsigned>(divide_up(x.rows * f.n, threads))), threads, 0};
    if (x.type == Dtype::bf16 && !f.halves && f.head_dim % 2 == 0 && x.stride % 2 == 0 &&
        reinterpret_cast<uintptr_t>(x.data) % 4 == 0) {
        return launch("rope", context.stream, rope_kernel<bf16, true>, extent, view<bf16>(x), positions, f);
    }
    with_type(x.type, [&]<typename T>(T *) {
        launch("rope", context.stream, rope_kernel<T, false>, extent, view<T>(x), positions, f);
    });
}

void rope_into_cache(const Context & context, Matrix q, Matrix k, Matrix v, const int32_t * positions,
                     const int32_t * rows, const Rope & rope, Matrix k_cache, Matrix v_cache) {
    const Frequencies f = frequencies_of(rope, RopeDirection::forward);
    const auto n_heads = static_cast<unsigned>((q.cols + k.cols + v.cols) / rope.head_dim);
    with_type(q.type, [&]<typename T>(T *) {
        launch("rope_into_cache", context.stream, rope_into_cache_kernel<T>,
               {.blocks = dim3(static_cast<unsigned>(q.rows), n_heads),
                .threads = warp_size,
                .overlaps = context.overlaps},
               view<T>(q), view<const T>(k), view<const T>(v), positions, rows, f, view<T>(k_cache), view<T>(v_cache));
    });
}

}  // namespace lorica::cuda
