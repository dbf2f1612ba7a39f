// How sums leave a product: see GemmResult.
#pragma once

#include "backend/cuda/device.cuh"
#include "backend/cuda/gemm.h"

namespace lorica::cuda {

// Row m, column n of c.
template <typename T> __device__ __forceinline__ T * place_of(const GemmResult & r, int64_t m, int64_t n) {
    void * c = r.c;
    int64_t stride = r.stride;
    if (r.n_parts) {
        int i = 0;
        while (i + 1 < r.n_parts && r.parts[i + 1].begin <= (r.parts_of_rows ? m : n)) ++i;
        c = r.parts[i].c;
        stride = r.parts[i].stride;
        (r.parts_of_rows ? m : n) -= r.parts[i].begin;
    }
    return static_cast<T *>(c) + (r.transposed ? n * stride + m : m * stride + n);
}

__device__ __forceinline__ float finished(const Gemm & p, int64_t m, int64_t n, float sum) {
    const GemmResult & r = p.result;
    sum *= r.scale;
    if (r.dropout_threshold) {
        const uint32_t random = random_number(r.dropout_seed.get(), static_cast<uint64_t>(m * p.n + n));
        sum = random < r.dropout_threshold ? 0.0f : sum * r.dropout_keep;
    }
    if (r.gate) sum *= r.gate[m * r.gate_stride + n / r.gate_columns];
    if (r.bias) sum += r.bias[n];
    if (r.residual) sum += r.residual[m * r.residual_stride + n];
    return sum;
}

__device__ __forceinline__ void store(const Gemm & p, int64_t m, int64_t n, float sum) {
    const GemmResult & r = p.result;
    const float value = finished(p, m, n, sum);
    if (r.bf16) {
        auto * c = place_of<bf16>(r, m, n);
        *c = to_bf16(r.accumulate ? to_float(*c) + value : value);
    } else {
        auto * c = place_of<float>(r, m, n);
        *c = r.accumulate ? *c + value : value;
    }
}

// Elements n to n + 7, all there, whose places (and those of the residual) are multiples of 16 bytes.
__device__ __forceinline__ void store_eight(const Gemm & p, int64_t m, int64_t n, float (&v)[8]) {
    const GemmResult & r = p.result;
    auto add = [&](const float * from) {
        const float4 low = *reinterpret_cast<const float4 *>(from), high = *reinterpret_cast<const float4 *>(from + 4);
        v[0] += low.x, v[1] += low.y, v[2] += low.z, v[3] += low.w;
        v[4] += high.x, v[5] += high.y, v[6] += high.z, v[7] += high.w;
    };
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] *= r.scale;
    if (r.dropout_threshold) {
        const uint64_t seed = r.dropout_seed.get();
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const PhiloxBlock random = philox(seed, static_cast<uint64_t>(m * p.n + n + i) >> 2);
#pragma unroll
            for (int j = 0; j < 4; ++j) v[i + j] *= random.value[j] < r.dropout_threshold ? 0.0f : r.dropout_keep;
        }
    }
    if (r.gate) {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] *= r.gate[m * r.gate_stride + (n + i) / r.gate_columns];
    }
    if (r.bias) add(r.bias + n);
    if (r.residual) add(r.residual + m * r.residual_stride + n);
    if (r.bf16) {
        auto * c = reinterpret_cast<uint4 *>(place_of<bf16>(r, m, n));
        if (r.accumulate) {
            const uint4 old = *c;
            const uint32_t pairs[] = {old.x, old.y, old.z, old.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) v[2 * i] += low_bf16(pairs[i]), v[2 * i + 1] += high_bf16(pairs[i]);
        }
        *c = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
    } else {
        auto * c = place_of<float>(r, m, n);
        if (r.accumulate) add(c);
        reinterpret_cast<float4 *>(c)[0] = {v[0], v[1], v[2], v[3]};
        reinterpret_cast<float4 *>(c)[1] = {v[4], v[5], v[6], v[7]};
    }
}

// A tile of sums on its way from the registers of tensor-core instructions to the matrix c: through shared memory, so
// that a thread has eight neighbours of a row, and so that what becomes of a sum is decided once for eight of them in a
// loop that is not unrolled. The stride leaves the accesses of either side without conflicts of banks.
template <int rows, int cols, int n_threads> struct ResultTile {
    static constexpr int stride = cols + 8;  // floats
    static constexpr size_t shared_bytes = size_t{rows} * stride * sizeof(float);
    static_assert(rows * cols % n_threads == 0 && cols % 8 == 0);

    float * data;

    // Elements (row, col) and (row, col + 1).
    __device__ __forceinline__ void put(int row, int col, float first, float second) const {
        *reinterpret_cast<float2 *>(data + row * stride + col) = {first, second};
    }
    // After __syncthreads(): the tile is that of c at (m0, n0). eights: where all eight are there they can be stored
    // at once.
    __device__ __forceinline__ void store_all(const Gemm & p, int64_t m0, int64_t n0, bool eights) const {
        const auto m_left = static_cast<int>(min(p.m - m0, int64_t{rows}));
        const auto n_left = static_cast<int>(min(p.n - n0, int64_t{cols}));
        if (p.result.transposed) {
#pragma unroll 1
            for (int i = static_cast<int>(threadIdx.x); i < rows * cols; i += n_threads) {
                const int row = i % rows, col = i / rows;
                if (row < m_left && col < n_left) store(p, m0 + row, n0 + col, data[row * stride + col]);
            }
            return;
        }
#pragma unroll 1
        for (int i = static_cast<int>(threadIdx.x); i < rows * cols / 8; i += n_threads) {
            const int row = i / (cols / 8), col = i % (cols / 8) * 8;
            if (row >= m_left || col >= n_left) continue;
            const auto * from = reinterpret_cast<const float4 *>(data + row * stride + col);
            const float4 low = from[0], high = from[1];
            float v[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            if (eights && col + 8 <= n_left) {
                store_eight(p, m0 + row, n0 + col, v);
                continue;
            }
#pragma unroll 1
            for (int j = 0; j < 8 && col + j < n_left; ++j) {
                store(p, m0 + row, n0 + col + j, data[row * stride + col + j]);
            }
        }
    }
};

// All elements of c, from so many parts of the whole of it, one behind another, that are added in order.
__device__ __forceinline__ void add_parts(const Gemm & p, int n_parts, const float * parts) {
    const int64_t n = p.m * p.n;
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
        float sum = 0;
        for (int s = 0; s < n_parts; ++s) sum += parts[s * n + i];
        const Division at = divide(i, p.n);
        store(p, at.quotient, at.rest, sum);
    }
}

}  // namespace lorica::cuda
