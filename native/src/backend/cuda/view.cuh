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

// Calls f with a null pointer of the element type: bf16 or float.
template <typename F> void with_type(Dtype type, F f) {
    if (type == Dtype::bf16) {
        f(static_cast<bf16 *>(nullptr));
    } else {
        f(static_cast<float *>(nullptr));
    }
}

}  // namespace lorica::cuda
