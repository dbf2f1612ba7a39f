// What the tensor memory accelerator of sm_90 knows of a matrix: where it lies, how large it is, and the box that one
// copy brings.
#pragma once

#include <cstdint>

#ifdef LORICA_CUDA_ON_CPU
#include <cuda_on_cpu_tensor_map.h>
#else
#include <cuda.h>
#endif

namespace lorica::cuda {

#ifdef LORICA_CUDA_ON_CPU
using TensorMap = CudaOnCpuTensorMap;
#else
using TensorMap = CUtensorMap;
#endif

// A bf16 matrix by rows: 16-byte aligned, stride (in elements) a multiple of 8. Boxes of 64 columns, whose rows of 128
// bytes are permuted as those of a Tile.
struct BoxedMatrix {
    const void * data;
    int64_t rows, cols, stride;
    int box_rows;
};

// The driver has what makes these maps. False before CUDA 12's.
bool has_tensor_maps();
TensorMap tensor_map(const BoxedMatrix & matrix);

}  // namespace lorica::cuda
