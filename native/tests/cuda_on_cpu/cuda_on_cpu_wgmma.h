// The instructions of backend/cuda/wgmma.cuh, a warp at a time: each makes its own 16 of the 64 rows. Products happen
// as late as they may, when they are waited for, so that operands that are overwritten too early give wrong results.
#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace lorica::cuda {

namespace on_cpu {

struct GroupProduct {
    float * c[32];
    int n;
    MatrixDescriptor a, b;
    bool b_by_rows;
};
using Groups = std::deque<std::vector<GroupProduct>>;  // the last one is still open
// Of the current block. A grid runs cluster after cluster, and a block waits for all of its products.
inline Groups & groups_of(int warp) {
    thread_local std::map<std::pair<int, int>, Groups> groups;
    Groups & own = groups[{cuda_on_cpu::current_rank(), warp}];
    if (own.empty()) own.emplace_back();
    return own;
}

inline float shared_bf16(uint32_t address) {
    uint16_t bits;
    std::memcpy(&bits, shared_memory() + swizzled_128(address) - 128, sizeof bits);
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
// Element (row, k) of an operand whose rows lie 128 bytes apart, or (column, k) of one by rows of k.
inline float element(MatrixDescriptor d, bool by_rows, uint32_t row, uint32_t k) {
    if (by_rows) {
        return shared_bf16(d.address() + row / 64 * d.leading() + row % 64 * 2 + k / 8 * d.groups() + k % 8 * 128);
    }
    return shared_bf16(d.address() + row / 8 * d.groups() + row % 8 * 128 + k * 2);
}

inline void multiply(const GroupProduct & p, int warp) {
    constexpr uint32_t depth = 16;
    float a[16][depth], b[256][depth];
    for (uint32_t k = 0; k < depth; ++k) {
        for (uint32_t row = 0; row < 16; ++row)
            a[row][k] = element(p.a, false, static_cast<uint32_t>(warp % 4) * 16 + row, k);
        for (uint32_t col = 0; col < static_cast<uint32_t>(p.n) * 2; ++col)
            b[col][k] = element(p.b, p.b_by_rows, col, k);
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < p.n; ++i) {
            const int row = lane / 4 + i % 4 / 2 * 8, col = i / 4 * 8 + lane % 4 * 2 + i % 2;
            for (uint32_t k = 0; k < depth; ++k) p.c[lane][i] += a[row][k] * b[col][k];
        }
    }
}

struct Lane {
    float * c;
    int n;
    MatrixDescriptor a, b;
    bool b_by_rows;
};

}  // namespace on_cpu

inline void fence_for_products() {}
inline void products_begin() {}
template <size_t n> void products_settle(float (&)[n][4]) {}

template <bool b_by_rows, size_t n> void multiply_add_group(float (&c)[n][4], MatrixDescriptor a, MatrixDescriptor b) {
    on_cpu::Lane own{&c[0][0], static_cast<int>(4 * n), a, b, b_by_rows};
    cuda_on_cpu::warp_collective("wgmma", &own, [](void * const * lanes) {
        auto at = [&](int i) -> on_cpu::Lane & { return *static_cast<on_cpu::Lane *>(lanes[i]); };
        on_cpu::GroupProduct product{{}, at(0).n, at(0).a, at(0).b, at(0).b_by_rows};
        for (int i = 0; i < 32; ++i) product.c[i] = at(i).c;
        on_cpu::groups_of(cuda_on_cpu::current_warp()).back().push_back(product);
    });
}
inline void products_commit() {
    int own = 0;
    cuda_on_cpu::warp_collective("wgmma.commit", &own,
                                 [](void * const *) { on_cpu::groups_of(cuda_on_cpu::current_warp()).emplace_back(); });
}
template <int n_pending> void products_wait() {
    int own = 0;
    cuda_on_cpu::warp_collective("wgmma.wait", &own, [](void * const *) {
        const int warp = cuda_on_cpu::current_warp();
        on_cpu::Groups & groups = on_cpu::groups_of(warp);
        while (groups.size() > n_pending + 1) {
            for (const on_cpu::GroupProduct & product : groups.front()) on_cpu::multiply(product, warp);
            groups.pop_front();
        }
    });
}

}  // namespace lorica::cuda
