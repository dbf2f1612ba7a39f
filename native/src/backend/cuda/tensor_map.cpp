#include "backend/cuda/tensor_map.h"

#include "backend/cuda/launch.h"

namespace lorica::cuda {

namespace {

constexpr int box_cols = 64;

#ifndef LORICA_CUDA_ON_CPU
// The library is not linked with the driver's: the runtime finds the function.
decltype(&cuTensorMapEncodeTiled) encoder() {
    static const auto found = [] {
        void * function = nullptr;
        cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
        if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result) !=
            cudaSuccess) {
            cudaGetLastError();
            return decltype(&cuTensorMapEncodeTiled){};
        }
        return result == cudaDriverEntryPointSuccess ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)
                                                     : nullptr;
    }();
    return found;
}
#endif

}  // namespace

bool has_tensor_maps() {
#ifdef LORICA_CUDA_ON_CPU
    return true;
#else
    return encoder() != nullptr;
#endif
}

TensorMap tensor_map(const BoxedMatrix & matrix) {
#ifdef LORICA_CUDA_ON_CPU
    return CudaOnCpuTensorMap::of(matrix.data, matrix.rows, matrix.cols, matrix.stride, matrix.box_rows, box_cols);
#else
    TensorMap map;
    const cuuint64_t extents[] = {static_cast<cuuint64_t>(matrix.cols), static_cast<cuuint64_t>(matrix.rows)};
    const cuuint64_t strides[] = {static_cast<cuuint64_t>(matrix.stride) * 2};
    const cuuint32_t box[] = {box_cols, static_cast<cuuint32_t>(matrix.box_rows)}, steps[] = {1, 1};
    const CUresult status =
        encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void *>(matrix.data), extents, strides, box,
                  steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS) {
        fail(LORICA_ERROR_DEVICE, "CUDA: a matrix of ", matrix.rows, " x ", matrix.cols, " with rows ", matrix.stride,
             " apart cannot be described for copies of tiles (error ", static_cast<int>(status),
             "); LORICA_CUDA_TMA=0 does without");
    }
    return map;
#endif
}

}  // namespace lorica::cuda
