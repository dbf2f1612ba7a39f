// What kernels use beyond C++: number formats, tensor-core and copy instructions, reductions. Instructions are those of
// sm_80; the names in PTX are in the ISA manual's sections of the same name.
//
// tests/cuda_on_cpu compiles the same kernels for the CPU, where the functions behind LORICA_CUDA_ON_CPU take the place
// of the instructions.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace lorica::cuda {

struct bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float low_bf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_bf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ float half_bits_to_float(uint32_t bits) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

#ifdef LORICA_CUDA_ON_CPU
}  // namespace lorica::cuda
#include <cuda_on_cpu_instructions.h>
namespace lorica::cuda {
#else

// Dynamic shared memory; its size is given at the launch.
__device__ __forceinline__ unsigned char * shared_memory() {
    extern __shared__ __align__(128) unsigned char lorica_shared_memory[];
    return lorica_shared_memory;
}

// Two floats, rounded to nearest even; `low` goes to the lower address.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ uint32_t shared_address(const void * p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Copies 16 bytes, of which the first n_bytes come from `from` and the rest are zero. Both are 16-byte aligned.
__device__ __forceinline__ void copy_async(void * to_shared, const void * from, int n_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)), "l"(from),
                 "r"(n_bytes)
                 : "memory");
}
__device__ __forceinline__ void copy_async(void * to_shared, const void * from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to_shared)), "l"(from) : "memory");
}
// Copies 4 bytes, or makes them zero.
__device__ __forceinline__ void copy_async_4(void * to_shared, const void * from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to_shared)), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most n_pending groups of this thread's are under way.
template <int n_pending> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(n_pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8. Receives of each matrix
// elements 2 (l % 4) and the next of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void * row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same of the transposed matrices.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void * row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// c[16x8] += a[16x16] b[16x8].
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The first thing that a kernel does whose Extent::overlaps: from here on it reads what the kernels before have
// written, and may write what they use. The next kernel, if it is one of these, takes its place on the device
// meanwhile.
__device__ __forceinline__ void await_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Bytes of `high` and `low`, which are numbered from the lowest of `low` on: those that the lowest four hexadecimal
// digits of `which` name, of which each is below 8. __byte_perm makes sure of that.
__device__ __forceinline__ uint32_t bytes_at(uint32_t low, uint32_t high, uint32_t which) {
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(which));
    return bytes;
}

// Products of two bf16 each, of a word.
__device__ __forceinline__ uint32_t multiply_bf16(uint32_t a, uint32_t b) {
    uint32_t c;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(c) : "r"(a), "r"(b), "r"(0x80008000u));
    return c;
}

// 2^x to 2 units in the last place; what is below the smallest normal number becomes 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

__device__ __forceinline__ bf16 to_bf16(float x) { return {static_cast<uint16_t>(pack_bf16(x, 0.0f))}; }

template <typename T> __device__ __forceinline__ T from_float(float x) {
    if constexpr (sizeof(T) == 2) {
        return to_bf16(x);
    } else {
        return x;
    }
}

constexpr int warp_size = 32;

// i / by and i % by, of numbers below 2^32: a division of 64 bits is 70 instructions.
struct Division {
    int64_t quotient, rest;
};
__device__ __forceinline__ Division divide(int64_t i, int64_t by) {
    const auto small = static_cast<uint32_t>(i), small_by = static_cast<uint32_t>(by);
    const uint32_t quotient = small / small_by;
    return {int64_t{quotient}, int64_t{small - quotient * small_by}};
}

// Sums over a warp, in a fixed order; every lane receives the result.
template <typename T> __device__ __forceinline__ T warp_sum(T x) {
    for (int distance = warp_size / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int distance = warp_size / 2; distance > 0; distance /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    }
    return x;
}

// Sums over a block of n_threads, in a fixed order. `partial`: shared memory for one T per warp, free to be written; it
// may be written again after the next __syncthreads().
template <int n_threads, typename T> __device__ __forceinline__ T block_sum(T x, T * partial) {
    constexpr int n_warps = n_threads / warp_size;
    x = warp_sum(x);
    if (threadIdx.x % warp_size == 0) partial[threadIdx.x / warp_size] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < n_warps; ++i) sum += partial[i];
    return sum;
}
template <int n_threads> __device__ __forceinline__ float block_max(float x, float * partial) {
    constexpr int n_warps = n_threads / warp_size;
    x = warp_max(x);
    if (threadIdx.x % warp_size == 0) partial[threadIdx.x / warp_size] = x;
    __syncthreads();
    float max = partial[0];
    for (int i = 1; i < n_warps; ++i) max = fmaxf(max, partial[i]);
    return max;
}

}  // namespace lorica::cuda
