// Tiles of bf16 matrices in shared memory, and the operands of tensor-core instructions in them.
//
// A tile has power-of-two columns and lies by rows in 16-byte chunks. The chunks of a row are permuted by the row's
// number, so that the eight rows that one instruction reads at the same column lie in different banks.
#pragma once

#include "backend/cuda/device.cuh"

namespace lorica::cuda {

template <int rows_, int cols_> struct Tile {
    static constexpr int rows = rows_, cols = cols_;
    static constexpr int chunks = cols / 8;  // of a row
    static constexpr int n_elements = rows * cols;
    static_assert(chunks == 2 || chunks == 4 || chunks % 8 == 0);

    bf16 * data;

    static __device__ __forceinline__ int chunk_offset(int row, int chunk) {
        const int twist = chunks >= 8 ? row & 7 : chunks == 4 ? (row >> 1) & 3 : (row >> 2) & 1;
        return row * cols + (chunk ^ twist) * 8;
    }
    __device__ __forceinline__ bf16 * chunk(int row, int c) const { return data + chunk_offset(row, c); }

    // Operands at multiples of 16, which do not change the permutation of a lane's row: what a lane adds to the tile's
    // address is the same for all of them but for bits of the column, which are exchanged, and whole rows. So little is
    // left to be computed in a loop. Of the column `col ^ more`, `more` is what changes from one to the next.

    // Operand a[16x16] at (row, col) of the tile.
    __device__ __forceinline__ void operand_a(uint32_t (&a)[4], int row, int col) const {
        load_matrices(a, at((chunk_offset(lane() % 16, lane() / 16) ^ col) + row * cols));
    }
    // The same of the transposed tile: element (m, k) of the operand is element (k0 + k, m0 + m) of the tile.
    __device__ __forceinline__ void operand_a_transposed(uint32_t (&a)[4], int m0, int k0, int more = 0) const {
        load_matrices_transposed(
            a, at((chunk_offset(lane() / 16 * 8 + lane() % 8, lane() / 8 % 2) ^ m0 ^ more) + k0 * cols));
    }
    // Two operands b[16x8] side by side, (b[0], b[1]) and (b[2], b[3]). The tile holds b by columns: element (k, n) of
    // the operand is element (n0 + n, k0 + k) of the tile.
    __device__ __forceinline__ void operands_b(uint32_t (&b)[4], int n0, int k0) const {
        load_matrices(b, at((chunk_offset(lane() / 16 * 8 + lane() % 8, lane() / 8 % 2) ^ k0) + n0 * cols));
    }
    // The tile holds b by rows: element (k, n) of the operand is element (k0 + k, n0 + n) of the tile.
    __device__ __forceinline__ void operands_b_by_rows(uint32_t (&b)[4], int k0, int n0, int more = 0) const {
        load_matrices_transposed(
            b, at((chunk_offset(lane() / 8 % 2 * 8 + lane() % 8, lane() / 16) ^ n0 ^ more) + k0 * cols));
    }

private:
    // In bytes, so that adding to an address is one instruction.
    __device__ __forceinline__ const void * at(int element) const {
        return reinterpret_cast<const unsigned char *>(data) + element * static_cast<int>(sizeof(bf16));
    }
    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % warp_size; }
};

// Copies one tile after another from a matrix into shared memory, by n_threads threads. What a thread's chunks have in
// common is computed once: they lie in one column of chunks, some rows apart. The address of every row is a multiple of
// 16.
template <typename T, int n_threads> class TileReader {
    static constexpr int rows_at_once = n_threads / T::chunks;
    static constexpr int copies = (T::rows + rows_at_once - 1) / rows_at_once;  // of a thread
    static_assert(n_threads % T::chunks == 0 && (T::rows % rows_at_once == 0 || copies == 1));
    // Then the permutation of chunks is the same in all rows of a thread.
    static_assert(copies == 1 || rows_at_once % 8 == 0);

public:
    // `from`: the first element of the first tile; stride: of its rows, in elements.
    __device__ __forceinline__ TileReader(const bf16 * from, int64_t stride)
        : from_(from + own_row() * stride + own_chunk() * 8), row_step_(static_cast<int>(rows_at_once * stride)) {}
    TileReader() = default;

    // The next tile begins so many elements later.
    __device__ __forceinline__ void advance(int64_t n_elements) { from_ += n_elements; }

    // n_rows and n_cols of the matrix are there, from the tile's first element on; the rest of the tile becomes zero.
    // The copy is complete after copy_async_commit and _wait, and __syncthreads().
    __device__ __forceinline__ void load(const T & tile, int n_rows, int n_cols) const {
        load(tile, n_rows, n_cols, row_step_);
    }
    // The same where the stride is a kernel's argument, so that nothing of it need stay in the thread's registers.
    __device__ __forceinline__ void load_by(int64_t stride, const T & tile, int n_rows, int n_cols) const {
        load(tile, n_rows, n_cols, rows_at_once * stride);
    }

private:
    static __device__ __forceinline__ int own_row() { return static_cast<int>(threadIdx.x / unsigned{T::chunks}); }
    static __device__ __forceinline__ int own_chunk() { return static_cast<int>(threadIdx.x % unsigned{T::chunks}); }

    template <typename Step>
    __device__ __forceinline__ void load(const T & tile, int n_rows, int n_cols, Step row_step) const {
        if (copies == 1 && T::rows < rows_at_once && own_row() >= T::rows) return;
        bf16 * to = tile.chunk(own_row(), own_chunk());
        const bf16 * source = from_;
        if (n_rows >= T::rows && n_cols >= T::cols) {
#pragma unroll
            for (int i = 0; i < copies; ++i, source += row_step) copy_async(to + i * rows_at_once * T::cols, source);
            return;
        }
        const int present = min(max(n_cols - own_chunk() * 8, 0), 8);
#pragma unroll
        for (int i = 0; i < copies; ++i, source += row_step) {
            const int here = own_row() + i * rows_at_once < n_rows ? present : 0;
            copy_async(to + i * rows_at_once * T::cols, here ? source : from_, 2 * here);
        }
    }

    const bf16 * from_;
    int row_step_;  // one register, and one instruction for the next address
};

// sums += a b over the k of two tiles: a warp's part of it, operands of 16 rows from warp_m and of 8 columns from
// warp_n on. a_by_columns, b_by_rows: the tile holds the operand with k along its rows.
template <bool a_by_columns, bool b_by_rows, int frags_m, int frags_n, typename TileA, typename TileB>
__device__ __forceinline__ void multiply_tiles(float (&sums)[frags_m][frags_n][4], const TileA & a_tile,
                                               const TileB & b_tile, int warp_m, int warp_n) {
    constexpr int depth = a_by_columns ? TileA::rows : TileA::cols;
    static_assert(depth == (b_by_rows ? TileB::rows : TileB::cols) && frags_n % 2 == 0);
#pragma unroll
    for (int kk = 0; kk < depth; kk += 16) {
        uint32_t a[frags_m][4], b[frags_n / 2][4];
#pragma unroll
        for (int f = 0; f < frags_m; ++f) {
            if constexpr (a_by_columns) {
                a_tile.operand_a_transposed(a[f], warp_m, kk, f * 16);
            } else {
                a_tile.operand_a(a[f], warp_m + f * 16, kk);
            }
        }
#pragma unroll
        for (int f = 0; f < frags_n / 2; ++f) {
            if constexpr (b_by_rows) {
                b_tile.operands_b_by_rows(b[f], kk, warp_n, f * 16);
            } else {
                b_tile.operands_b(b[f], warp_n + f * 16, kk);
            }
        }
#pragma unroll
        for (int fm = 0; fm < frags_m; ++fm) {
#pragma unroll
            for (int fn = 0; fn < frags_n; ++fn) {
                multiply_add(sums[fm][fn], a[fm], b[fn / 2][fn % 2 * 2], b[fn / 2][fn % 2 * 2 + 1]);
            }
        }
    }
}

}  // namespace lorica::cuda
