// common/random.h without an array that is indexed at run time, which would lie in memory.
#pragma once

#include "backend/backend.h"
#include "common/random.h"

#include <cuda_runtime.h>

namespace lorica::cuda {

// Number i % 4 of a block.
__device__ __forceinline__ uint32_t number_of(const PhiloxBlock & block, uint64_t i) {
    const auto part = static_cast<int>(i & 3);
    return part < 2 ? (part == 0 ? block.value[0] : block.value[1]) : (part == 2 ? block.value[2] : block.value[3]);
}

// A seed as a kernel takes it: by value, or where it lies in device memory when the launch may be replayed with
// another.
struct Seed {
    uint64_t value = 0;
    const uint64_t * memory = nullptr;

    __device__ __forceinline__ uint64_t get() const { return memory ? *memory : value; }
};
inline Seed seed_of(const Dropout & dropout) { return {dropout.seed, dropout.device_seed}; }

// random_u32(seed, i)
__device__ __forceinline__ uint32_t random_number(uint64_t seed, uint64_t i) {
    return number_of(philox(seed, i >> 2), i);
}

}  // namespace lorica::cuda
