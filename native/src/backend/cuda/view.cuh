// Matrices as kernels of single elements and rows take them.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.cuh"

namespace lorica::cuda {

template <typename T> struct View {
    T * data;
    int64_t rows, cols, stride;

    __device__ __forceinline__ T * row(int64_t r) const { return data + r * stride; }
};

template <typename T> View<T> view(const Matrix & x) { return {x.as<T>(), x.rows, x.cols, x.stride}; }

// A matrix of either element type, for kernels that wait for memory: which type it is costs one decision for four
// elements.
struct AnyRows {
    void * data;
    int64_t rows, cols, stride;
    bool is_bf16;
    bool together;  // four neighbours from a multiple of four on can be accessed at once

    __device__ __forceinline__ float one(int64_t t, int64_t c) const {
        const int64_t i = t * stride + c;
        return is_bf16 ? to_float(static_cast<const bf16 *>(data)[i]) : static_cast<const float *>(data)[i];
    }
    __device__ __forceinline__ void put_one(int64_t t, int64_t c, float value) const {
        const int64_t i = t * stride + c;
        if (is_bf16) {
            static_cast<bf16 *>(data)[i] = to_bf16(value);
        } else {
            static_cast<float *>(data)[i] = value;
        }
    }
    // Elements c to c + 3, 0 from `end` on.
    __device__ __forceinline__ float4 four(int64_t t, int64_t c, int64_t end) const {
        const int64_t i = t * stride + c;
        if (together && c + 4 <= end) {
            if (!is_bf16) return *reinterpret_cast<const float4 *>(static_cast<const float *>(data) + i);
            const uint2 pairs = *reinterpret_cast<const uint2 *>(static_cast<const bf16 *>(data) + i);
            return {low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y), high_bf16(pairs.y)};
        }
        return {c < end ? one(t, c) : 0.0f, c + 1 < end ? one(t, c + 1) : 0.0f, c + 2 < end ? one(t, c + 2) : 0.0f,
                c + 3 < end ? one(t, c + 3) : 0.0f};
    }
    __device__ __forceinline__ void put(int64_t t, int64_t c, int64_t end, float4 v) const {
        const int64_t i = t * stride + c;
        if (together && c + 4 <= end) {
            if (is_bf16) {
                *reinterpret_cast<uint2 *>(static_cast<bf16 *>(data) + i) = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
            } else {
                *reinterpret_cast<float4 *>(static_cast<float *>(data) + i) = v;
            }
            return;
        }
        if (c < end) put_one(t, c, v.x);
        if (c + 1 < end) put_one(t, c + 1, v.y);
        if (c + 2 < end) put_one(t, c + 2, v.z);
        if (c + 3 < end) put_one(t, c + 3, v.w);
    }
};
// cols: of what is worked on as a row, where that is a part of one.
inline AnyRows any_rows(const Matrix & x, int64_t cols = 0) {
    const bool together = x.stride % 4 == 0 && reinterpret_cast<uintptr_t>(x.data) % (4 * dtype_size(x.type)) == 0 &&
                          (cols == 0 || cols % 4 == 0);
    return {x.data, x.rows, x.cols, x.stride, x.type == Dtype::bf16, together};
}

// Calls f with a null pointer of the element type: bf16 or float.
template <typename F> void with_type(Dtype type, F f) {
    if (type == Dtype::bf16) {
        f(static_cast<bf16 *>(nullptr));
    } else {
        f(static_cast<float *>(nullptr));
    }
}

}  // namespace lorica::cuda
