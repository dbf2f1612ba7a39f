// The instructions of backend/cuda/tma.cuh.
#pragma once

#include <cuda_runtime.h>

namespace lorica::cuda {

using cuda_on_cpu::barrier_arrive;
using cuda_on_cpu::barrier_expect;
using cuda_on_cpu::barrier_init;
using cuda_on_cpu::barrier_wait;
using cuda_on_cpu::cluster_sync;
inline void barriers_made() {}
inline uint32_t cluster_rank() { return static_cast<uint32_t>(cuda_on_cpu::current_rank()); }

// Rows of 128 bytes, whose chunks of 16 are permuted by bits 7 to 9 of the address.
inline void copy_box_to_all(const TensorMap & map, int row, int col, void * to, uint64_t * barrier, uint16_t blocks) {
    const uint32_t address = shared_address(to);
    if (address % 1024 != 0 || shared_address(barrier) % 8 != 0) {
        std::fprintf(stderr, "cuda_on_cpu: a copy of a box to an unaligned place\n");
        std::abort();
    }
    const auto n_bytes = static_cast<uint32_t>(map.box_rows * map.box_cols) * 2;
    cuda_on_cpu::copy_in_bulk(barrier, n_bytes, blocks, [=, at = static_cast<unsigned char *>(to)](ptrdiff_t distance) {
        for (int r = 0; r < map.box_rows; ++r) {
            for (int c = 0; c < map.box_cols; ++c) {
                const bool there = row + r >= 0 && row + r < map.rows && col + c >= 0 && col + c < map.cols;
                const uint16_t value =
                    there ? static_cast<const uint16_t *>(map.data)[(row + r) * map.stride + col + c] : uint16_t{0};
                const auto offset = static_cast<uint32_t>((r * map.box_cols + c) * 2);
                std::memcpy(at + distance + (offset ^ (offset >> 7 & 7u) << 4), &value, sizeof value);
            }
        }
    });
}
inline void copy_box(const TensorMap & map, int row, int col, void * to, uint64_t * barrier) {
    copy_box_to_all(map, row, col, to, barrier, static_cast<uint16_t>(1u << cluster_rank()));
}

}  // namespace lorica::cuda
