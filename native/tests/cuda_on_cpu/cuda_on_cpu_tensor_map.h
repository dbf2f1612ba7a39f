// What the driver makes for backend/cuda/tensor_map.h, with what it refuses.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

struct CudaOnCpuTensorMap {
    const void * data;
    int64_t rows, cols, stride;
    int box_rows, box_cols;

    static CudaOnCpuTensorMap of(const void * data, int64_t rows, int64_t cols, int64_t stride, int box_rows,
                                 int box_cols) {
        const bool right = data && reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0 && stride >= cols &&
                           rows > 0 && cols > 0 && rows < int64_t{1} << 32 && cols < int64_t{1} << 32 && box_rows > 0 &&
                           box_rows <= 256 && box_cols * 2 <= 128;
        if (!right) {
            std::fprintf(stderr, "cuda_on_cpu: a tensor map that the driver would refuse\n");
            std::abort();
        }
        return {data, rows, cols, stride, box_rows, box_cols};
    }
};
