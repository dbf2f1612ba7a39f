// The instructions of backend/cuda/device.cuh, lane by lane as the PTX manual lays out their fragments.
#pragma once

#include "common/bf16.h"

#include <cuda_runtime.h>

namespace lorica::cuda {

inline unsigned char * shared_memory() { return cuda_on_cpu::shared_memory(); }
// Shared memory does not begin at 0, so that alignment is not had by chance.
inline uint32_t shared_address(const void * p) {
    return static_cast<uint32_t>(static_cast<const unsigned char *>(p) - shared_memory()) + 128;
}

inline uint32_t pack_bf16(float low, float high) {
    return Bf16(low).bits | static_cast<uint32_t>(Bf16(high).bits) << 16;
}

inline void await_kernels_before() {}

inline uint32_t bytes_at(uint32_t low, uint32_t high, uint32_t which) {
    if (which & 0x8888) std::abort();
    return __byte_perm(low, high, which);
}

inline uint32_t multiply_bf16(uint32_t a, uint32_t b) {
    return pack_bf16(low_bf16(a) * low_bf16(b), high_bf16(a) * high_bf16(b));
}

inline void copy_async(void * to, const void * from, int n_bytes) { cuda_on_cpu::copy_async(to, from, n_bytes); }
inline void copy_async(void * to, const void * from) { cuda_on_cpu::copy_async(to, from, 16); }
inline void copy_async_4(void * to, const void * from, bool there) {
    cuda_on_cpu::copy_async(to, from, there ? 4 : 0, 4);
}
inline void copy_async_commit() { cuda_on_cpu::copy_async_commit(); }
template <int n_pending> void copy_async_wait() { cuda_on_cpu::copy_async_wait(n_pending); }

inline float exp2_fast(float x) { return std::exp2(x); }

struct LoadMatrices {
    uint32_t r[4];
    const uint16_t * row;
};
// ldmatrix: matrix m has its row i at the address of lane 8 m + i; lane l receives row l / 4, elements 2 (l % 4) and
// next.
inline void load_matrices(uint32_t (&r)[4], const void * row) {
    LoadMatrices own{{}, static_cast<const uint16_t *>(row)};
    cuda_on_cpu::warp_collective("ldmatrix", &own, [](void * const * lanes) {
        auto at = [&](int i) -> LoadMatrices & { return *static_cast<LoadMatrices *>(lanes[i]); };
        for (int l = 0; l < 32; ++l) {
            for (int m = 0; m < 4; ++m) std::memcpy(&at(l).r[m], at(8 * m + l / 4).row + 2 * (l % 4), 4);
        }
    });
    std::copy_n(own.r, 4, r);
}
inline void load_matrices_transposed(uint32_t (&r)[4], const void * row) {
    LoadMatrices own{{}, static_cast<const uint16_t *>(row)};
    cuda_on_cpu::warp_collective("ldmatrix.trans", &own, [](void * const * lanes) {
        auto at = [&](int i) -> LoadMatrices & { return *static_cast<LoadMatrices *>(lanes[i]); };
        for (int l = 0; l < 32; ++l) {
            for (int m = 0; m < 4; ++m) {
                const uint32_t low = at(8 * m + 2 * (l % 4)).row[l / 4], high = at(8 * m + 2 * (l % 4) + 1).row[l / 4];
                at(l).r[m] = low | high << 16;
            }
        }
    });
    std::copy_n(own.r, 4, r);
}

// mma.m16n8k16 with groups g = lane / 4 and t = lane % 4, element pairs from the lower index on:
//   a: (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8)   b: (2t, g) (2t + 8, g)   c: (g, 2t) (g + 8, 2t)
struct MultiplyAdd {
    float * c;
    const uint32_t * a;
    uint32_t b[2];
};
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    MultiplyAdd own{c, a, {b0, b1}};
    cuda_on_cpu::warp_collective("mma", &own, [](void * const * lanes) {
        float ma[16][16], mb[16][8], mc[16][8];
        auto low = [](uint32_t pair) { return std::bit_cast<float>(pair << 16); };
        auto high = [](uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); };
        for (int l = 0; l < 32; ++l) {
            const auto & x = *static_cast<MultiplyAdd *>(lanes[l]);
            const int g = l / 4, t = l % 4;
            for (int i = 0; i < 4; ++i) {
                const int row = g + i % 2 * 8, col = 2 * t + i / 2 * 8;
                ma[row][col] = low(x.a[i]);
                ma[row][col + 1] = high(x.a[i]);
            }
            for (int i = 0; i < 2; ++i) {
                mb[2 * t + 8 * i][g] = low(x.b[i]);
                mb[2 * t + 8 * i + 1][g] = high(x.b[i]);
            }
            for (int i = 0; i < 4; ++i) mc[g + i / 2 * 8][2 * t + i % 2] = x.c[i];
        }
        for (int m = 0; m < 16; ++m) {
            for (int k = 0; k < 16; ++k) {
                for (int n = 0; n < 8; ++n) mc[m][n] += ma[m][k] * mb[k][n];
            }
        }
        for (int l = 0; l < 32; ++l) {
            const auto & x = *static_cast<MultiplyAdd *>(lanes[l]);
            for (int i = 0; i < 4; ++i) x.c[i] = mc[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
        }
    });
}

}  // namespace lorica::cuda
