// The warp-group products of sm_90a (PTX ISA, "Asynchronous warpgroup level matrix instructions"): 128 threads multiply
// two tiles in shared memory, which they name by descriptors, and go on; sums are in registers when they wait for them.
//
// Tiles are those of tile.cuh with 64 columns: rows of 128 bytes whose 16-byte chunks are permuted by the row's number
// modulo 8 are the hardware's 128-byte swizzle, as long as a tile begins at a multiple of 1024 bytes.
#pragma once

#include "backend/cuda/tile.cuh"

namespace lorica::cuda {

// A matrix descriptor. Addresses are those of shared memory and multiples of 16, as are the two distances, in bytes:
//   by_columns   the tile's rows are the operand's rows (m or n), k runs along them. `groups`: from 8 rows to the next
//   8;
//                `leading` is not used.
//   by_rows      the tile's rows are k, m or n runs along them. `leading`: from 64 columns to the next 64; `groups`:
//   from 8
//                rows to the next 8.
struct MatrixDescriptor {
    uint64_t bits;

    static constexpr uint64_t swizzle_128 = uint64_t{1} << 62;

    static constexpr MatrixDescriptor of(uint32_t address, uint32_t leading, uint32_t groups) {
        return {field(address, 0) | field(leading, 16) | field(groups, 32) | swizzle_128};
    }
    // The same tile from another address on.
    constexpr MatrixDescriptor at(uint32_t n_bytes) const { return {bits + (n_bytes >> 4)}; }

    constexpr uint32_t address() const { return value(0); }
    constexpr uint32_t leading() const { return value(16); }
    constexpr uint32_t groups() const { return value(32); }

private:
    static constexpr uint64_t field(uint32_t n_bytes, int shift) {
        return static_cast<uint64_t>((n_bytes & 0x3ffffu) >> 4) << shift;
    }
    constexpr uint32_t value(int shift) const { return static_cast<uint32_t>(bits >> shift & 0x3fffu) << 4; }
};

// Where in shared memory the hardware finds what would lie at `address` without a swizzle.
constexpr uint32_t swizzled_128(uint32_t address) { return address ^ (address >> 7 & 7u) << 4; }

#ifdef LORICA_CUDA_ON_CPU
}  // namespace lorica::cuda
#include <cuda_on_cpu_wgmma.h>
namespace lorica::cuda {
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

// What this thread copied to shared memory can be seen by the products of others after the next __syncthreads().
__device__ __forceinline__ void fence_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Before the first product, and after registers of sums were written otherwise.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most n_pending groups of products are under way.
template <int n_pending> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n_pending) : "memory");
}

// After products were waited for and before their sums are used: the compiler must not do either before.
template <size_t n> __device__ __forceinline__ void products_settle(float (&c)[n][4]) {
#pragma unroll
    for (size_t i = 0; i < n; ++i) {
        asm volatile("" : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])::"memory");
    }
}

#define LORICA_SUMS_4(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define LORICA_SUMS_16(i) LORICA_SUMS_4(i), LORICA_SUMS_4((i) + 1), LORICA_SUMS_4((i) + 2), LORICA_SUMS_4((i) + 3)
#define LORICA_SUMS_64(i) LORICA_SUMS_16(i), LORICA_SUMS_16((i) + 4), LORICA_SUMS_16((i) + 8), LORICA_SUMS_16((i) + 12)

// c[64 x n] += a[64 x 16] b[16 x n]. c is laid out over a warp group as multiply_add's is over a warp, 16 rows per
// warp.
template <bool b_by_rows>
__device__ __forceinline__ void multiply_add_group(float (&c)[16][4], MatrixDescriptor a, MatrixDescriptor b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, %67;\n}"
        : LORICA_SUMS_64(0)
        : "l"(a.bits), "l"(b.bits), "r"(1), "n"(b_by_rows ? 1 : 0));
}
template <bool b_by_rows>
__device__ __forceinline__ void multiply_add_group(float (&c)[32][4], MatrixDescriptor a, MatrixDescriptor b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p, 1, 1, 0, %131;\n}"
        : LORICA_SUMS_64(0), LORICA_SUMS_64(16)
        : "l"(a.bits), "l"(b.bits), "r"(1), "n"(b_by_rows ? 1 : 0));
}

#undef LORICA_SUMS_64
#undef LORICA_SUMS_16
#undef LORICA_SUMS_4

#endif

}  // namespace lorica::cuda
