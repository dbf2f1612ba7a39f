// How sums leave a product: see GemmResult.
#pragma once

#include "backend/cuda/device.cuh"
#include "backend/cuda/gemm.h"

namespace lorica::cuda {

// Out of line: finished() stands wherever a kernel's unrolled loops store a sum, and ten rounds of Philox in each of
// those places would be half of the kernel.
__device__ __noinline__ inline bool is_kept(uint64_t seed, uint64_t i, uint32_t threshold) {
    return random_number(seed, i) >= threshold;
}

// may_drop: false in kernels that never get a dropout and may not call functions.
template <bool may_drop> __device__ __forceinline__ float finished(const Gemm & p, int64_t m, int64_t n, float sum) {
    const GemmResult & r = p.result;
    sum *= r.scale;
    if (may_drop && r.dropout_threshold) {
        const bool kept = is_kept(r.dropout_seed.get(), static_cast<uint64_t>(m * p.n + n), r.dropout_threshold);
        sum = kept ? sum * r.dropout_keep : 0.0f;
    }
    if (r.residual) sum += r.residual[m * r.residual_stride + n];
    return sum;
}

template <bool may_drop = true> __device__ __forceinline__ void store(const Gemm & p, int64_t m, int64_t n, float sum) {
    const GemmResult & r = p.result;
    const int64_t at = r.transposed ? n * r.stride + m : m * r.stride + n;
    float value = finished<may_drop>(p, m, n, sum);
    if (r.bf16) {
        bf16 * c = static_cast<bf16 *>(r.c) + at;
        *c = to_bf16(r.accumulate ? to_float(*c) + value : value);
    } else {
        float * c = static_cast<float *>(r.c) + at;
        *c = r.accumulate ? *c + value : value;
    }
}

// Elements n and n + 1, both there.
template <bool may_drop = true>
__device__ __forceinline__ void store_pair(const Gemm & p, int64_t m, int64_t n, float first, float second) {
    const GemmResult & r = p.result;
    first = finished<may_drop>(p, m, n, first);
    second = finished<may_drop>(p, m, n + 1, second);
    if (r.bf16) {
        auto * c = reinterpret_cast<uint32_t *>(static_cast<bf16 *>(r.c) + m * r.stride + n);
        if (r.accumulate) {
            const uint32_t old = *c;
            first += low_bf16(old);
            second += high_bf16(old);
        }
        *c = pack_bf16(first, second);
    } else {
        auto * c = reinterpret_cast<float2 *>(static_cast<float *>(r.c) + m * r.stride + n);
        if (r.accumulate) {
            const float2 old = *c;
            first += old.x;
            second += old.y;
        }
        *c = {first, second};
    }
}

}  // namespace lorica::cuda
