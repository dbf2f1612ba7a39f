// Copies of tiles by the tensor memory accelerator of sm_90 and the barriers that count them (PTX ISA, "Data Movement
// and Conversion Instructions: Tensor copy", "mbarrier"), for blocks in clusters: what one block asks for can be
// written into the shared memory of all blocks of its cluster, at the same place in each.
//
// A barrier is in phase 0 when it was made. A phase ends once as many arrivals as were asked for have come and all
// expected bytes have been written; then the next one begins.
#pragma once

#include "backend/cuda/device.cuh"
#include "backend/cuda/tensor_map.h"

namespace lorica::cuda {

#ifdef LORICA_CUDA_ON_CPU
}  // namespace lorica::cuda
#include <cuda_on_cpu_tma.h>
namespace lorica::cuda {
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Of this block in its cluster.
__device__ __forceinline__ uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Until all threads of all blocks of the cluster are here; what they wrote before, all see after it.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ void barrier_init(uint64_t * barrier, uint32_t n_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(n_arrivals) : "memory");
}
// Behind the next cluster_sync() all blocks and their copies see the barriers that this thread made.
__device__ __forceinline__ void barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// One arrival, and so many more bytes that belong to the phase.
__device__ __forceinline__ void barrier_expect(uint64_t * barrier, uint32_t n_bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(n_bytes)
                 : "memory");
}
// One arrival at the barrier that lies at this place in another block of the cluster, or in this one.
__device__ __forceinline__ void barrier_arrive(uint64_t * barrier, uint32_t rank) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
}
// Until the phase with this number modulo 2 has ended.
__device__ __forceinline__ void barrier_wait(uint64_t * barrier, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\nwait:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
        "@done bra ready;\nbra wait;\nready:\n}" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Copies the box of the matrix that begins at (row, col) to shared memory; what is outside of the matrix becomes zero.
// The whole box counts at the barrier.
__device__ __forceinline__ void copy_box(const TensorMap & map, int row, int col, void * to, uint64_t * barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(col), "r"(row), "r"(shared_address(barrier))
        : "memory");
}
// The same to every block of the cluster whose bit is set, and for the barrier of each.
__device__ __forceinline__ void copy_box_to_all(const TensorMap & map, int row, int col, void * to, uint64_t * barrier,
                                                uint16_t blocks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(col), "r"(row), "r"(shared_address(barrier)), "h"(blocks)
        : "memory");
}

#endif

}  // namespace lorica::cuda
