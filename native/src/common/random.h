// Counter-based random numbers (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", Philox4x32-10):
// number i of a seed is a pure function of both, so that any thread or device computes any element alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#if defined(__CUDACC__)
#define LORICA_HOST_DEVICE __host__ __device__
#else
#define LORICA_HOST_DEVICE
#endif

namespace lorica {

struct PhiloxBlock {
    uint32_t value[4];
};

// Numbers 4 * block to 4 * block + 3 of the stream `seed`.
LORICA_HOST_DEVICE inline PhiloxBlock philox(uint64_t seed, uint64_t block) {
    uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
        const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

LORICA_HOST_DEVICE inline uint32_t random_u32(uint64_t seed, uint64_t i) { return philox(seed, i >> 2).value[i & 3]; }

// In [0, 1), 24 bits.
inline float random_uniform(uint64_t seed, uint64_t i) {
    return static_cast<float>(random_u32(seed, i) >> 8) * 0x1p-24f;
}

// Standard normal by Box and Muller (1958), two numbers of the stream each.
inline double random_normal(uint64_t seed, uint64_t i) {
    const double u1 = (static_cast<double>(random_u32(seed, 2 * i)) + 1) * 0x1p-32;
    const double u2 = static_cast<double>(random_u32(seed, 2 * i + 1)) * 0x1p-32;
    return std::sqrt(-2 * std::log(u1)) * std::cos(2 * std::numbers::pi * u2);
}

// The smallest random_u32 that keeps an element under dropout p.
LORICA_HOST_DEVICE inline uint32_t dropout_threshold(float p) {
    return static_cast<uint32_t>(static_cast<double>(p) * 4294967296.0);
}

// A seed for a stream that belongs to (seed, a, b): splitmix64's finalizer (Steele et al. 2014) over the parts.
inline uint64_t derive_seed(uint64_t seed, uint64_t a, uint64_t b = 0) {
    auto mix = [](uint64_t z) {
        z += 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    };
    return mix(mix(mix(seed) ^ a) ^ b);
}

}  // namespace lorica
