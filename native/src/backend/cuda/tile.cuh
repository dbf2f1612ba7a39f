// Tiles of bf16 matrices in shared memory, and the operands of tensor-core instructions in them.
//
// A tile has power-of-two columns and lies by rows in 16-byte chunks. The chunks of a row are permuted by the row's
// number, so that the eight rows that one instruction reads at the same column lie in different banks.
#pragma once

#include "backend/cuda/device.cuh"

namespace lorica::cuda {

template <int rows, int cols> struct Tile {
    static constexpr int chunks = cols / 8;  // of a row
    static constexpr int n_elements = rows * cols;
    static_assert(chunks == 2 || chunks == 4 || chunks % 8 == 0);

    bf16 * data;

    static __device__ __forceinline__ int chunk_offset(int row, int chunk) {
        const int twist = chunks >= 8 ? row & 7 : chunks == 4 ? (row >> 1) & 3 : (row >> 2) & 1;
        return row * cols + (chunk ^ twist) * 8;
    }
    __device__ __forceinline__ bf16 * chunk(int row, int c) const { return data + chunk_offset(row, c); }

    // Copies from a matrix: n_rows and n_cols of it are there, the rest of the tile becomes zero. Aligned: the address
    // of every row is a multiple of 16. The copy is complete after copy_async_commit and _wait, and __syncthreads().
    template <int n_threads, bool aligned>
    __device__ __forceinline__ void load(const bf16 * from, int64_t stride, int n_rows, int n_cols) const {
        static_assert(rows * chunks % n_threads == 0 || n_threads % (rows * chunks) == 0);
        for (int i = static_cast<int>(threadIdx.x); i < rows * chunks; i += n_threads) {
            const int r = i / chunks, c = i % chunks;
            const int present = r < n_rows ? min(max(n_cols - c * 8, 0), 8) : 0;
            bf16 * to = chunk(r, c);
            const bf16 * source = from + (present ? r * stride + c * 8 : 0);
            if constexpr (aligned) {
                copy_async(to, source, 2 * present);
            } else {
                for (int j = 0; j < 8; ++j) to[j] = j < present ? source[j] : bf16{0};
            }
        }
    }

    // Operand a[16x16] at (row, col) of the tile, multiples of 16.
    __device__ __forceinline__ void operand_a(uint32_t (&a)[4], int row, int col) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_matrices(a, chunk(row + lane % 16, col / 8 + lane / 16));
    }
    // The same of the transposed tile: element (m, k) of the operand is element (k0 + k, m0 + m) of the tile.
    __device__ __forceinline__ void operand_a_transposed(uint32_t (&a)[4], int m0, int k0) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_matrices_transposed(a, chunk(k0 + lane / 16 * 8 + lane % 8, m0 / 8 + lane / 8 % 2));
    }
    // Two operands b[16x8] side by side, (b[0], b[1]) and (b[2], b[3]). The tile holds b by columns: element (k, n) of
    // the operand is element (n0 + n, k0 + k) of the tile.
    __device__ __forceinline__ void operands_b(uint32_t (&b)[4], int n0, int k0) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_matrices(b, chunk(n0 + lane / 16 * 8 + lane % 8, k0 / 8 + lane / 8 % 2));
    }
    // The tile holds b by rows: element (k, n) of the operand is element (k0 + k, n0 + n) of the tile.
    __device__ __forceinline__ void operands_b_by_rows(uint32_t (&b)[4], int k0, int n0) const {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_matrices_transposed(b, chunk(k0 + lane / 8 % 2 * 8 + lane % 8, n0 / 8 + lane / 16));
    }
};

}  // namespace lorica::cuda
