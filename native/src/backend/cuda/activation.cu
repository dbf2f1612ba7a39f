// h = act(gate) up and h = act(x), forward and backward: a block per row, or several for few long ones, n neighbours
// per thread at a time.
#include "backend/cuda/activation.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/view.cuh"

#include <type_traits>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, most_neighbours = 8;

// n elements that are read and written at once: 16 bytes of bf16, twice as much of f32.
template <typename T, int n> struct Neighbours {
    T x[n];
};
template <int n, typename T>
__device__ __forceinline__ Neighbours<std::remove_const_t<T>, n> load_neighbours(T * from) {
    Neighbours<std::remove_const_t<T>, n> to;
    if constexpr (n == 1) {
        to.x[0] = *from;
    } else {
        constexpr int quads = n * sizeof(T) / 16;
        uint4 raw[quads];
#pragma unroll
        for (int i = 0; i < quads; ++i) raw[i] = reinterpret_cast<const uint4 *>(from)[i];
        static_assert(sizeof(raw) == sizeof(to));
        memcpy(&to, raw, sizeof(to));
    }
    return to;
}
// By whole quads: left to itself the compiler stores some of them word by word.
template <int n, typename T> __device__ __forceinline__ void store_neighbours(T * to, const Neighbours<T, n> & x) {
    if constexpr (n == 1) {
        *to = x.x[0];
    } else {
        constexpr int quads = n * sizeof(T) / 16;
        uint4 raw[quads];
        memcpy(raw, &x, sizeof(raw));
#pragma unroll
        for (int i = 0; i < quads; ++i) __stcg(reinterpret_cast<uint4 *>(to) + i, raw[i]);
    }
}
template <typename... Matrices> bool have_neighbours(const Matrices &... matrices) {
    return ((!matrices || (matrices.cols % most_neighbours == 0 && matrices.stride % most_neighbours == 0 &&
                           reinterpret_cast<uintptr_t>(matrices.data) % 16 == 0)) &&
            ...);
}

// up: without it all are 1.
template <typename T, int n>
__global__ void __launch_bounds__(threads) gated_kernel(View<const T> gate, View<const T> up, Act act, View<T> h) {
    const int64_t t = blockIdx.x, first = (int64_t{blockIdx.y} * threads + threadIdx.x) * n;
    for (int64_t c = first; c < h.cols; c += int64_t{gridDim.y} * threads * n) {
        const auto g = load_neighbours<n>(gate.row(t) + c);
        Neighbours<std::remove_const_t<T>, n> u = g, out;
        if (up.data) u = load_neighbours<n>(up.row(t) + c);
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const float value = activated(act, to_float(g.x[i]));
            out.x[i] = from_float<T>(up.data ? value * to_float(u.x[i]) : value);
        }
        store_neighbours<n>(h.row(t) + c, out);
    }
}

// dgate and dup may be gate and up.
template <typename T, int n>
__global__ void __launch_bounds__(threads) gated_backward_kernel(View<const T> gate, View<const T> up, Act act,
                                                                 View<const T> dh, View<T> dgate, View<T> dup) {
    const int64_t t = blockIdx.x, first = (int64_t{blockIdx.y} * threads + threadIdx.x) * n;
    for (int64_t c = first; c < dh.cols; c += int64_t{gridDim.y} * threads * n) {
        const auto gates = load_neighbours<n>(gate.row(t) + c), dhs = load_neighbours<n>(dh.row(t) + c);
        auto ups = gates;
        if (up.data) ups = load_neighbours<n>(up.row(t) + c);
        Neighbours<T, n> dgates, dups;
#pragma unroll
        for (int i = 0; i < n; ++i) {
            const Activated a = activated_with_slope(act, to_float(gates.x[i]));
            const float d = to_float(dhs.x[i]);
            dgates.x[i] = from_float<T>(up.data ? d * to_float(ups.x[i]) * a.slope : d * a.slope);
            dups.x[i] = from_float<T>(d * a.value);
        }
        store_neighbours<n>(dgate.row(t) + c, dgates);
        if (dup.data) store_neighbours<n>(dup.row(t) + c, dups);
    }
}

Extent extent_of(const Matrix & x, bool neighbours) {
    Extent extent{dim3(static_cast<unsigned>(x.rows)), threads, 0};
    const int64_t blocks_of_row = divide_up(x.cols, threads * (neighbours ? most_neighbours : 1));
    if (x.rows <= matvec_max_rows) extent.blocks.y = static_cast<unsigned>(blocks_of_row);
    return extent;
}

}  // namespace

void gated(const Context & context, Matrix gate, Matrix up, Act act, Matrix h) {
    with_type(h.type, [&]<typename T>(T *) {
        const bool neighbours = have_neighbours(gate, up, h);
        const auto kernel = neighbours ? gated_kernel<T, most_neighbours> : gated_kernel<T, 1>;
        launch("gated", context.stream, kernel, extent_of(h, neighbours), view<const T>(gate), view<const T>(up), act,
               view<T>(h));
    });
}

void gated_backward(const Context & context, Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) {
    with_type(dh.type, [&]<typename T>(T *) {
        const bool neighbours = have_neighbours(gate, up, dh, dgate, dup);
        const auto kernel = neighbours ? gated_backward_kernel<T, most_neighbours> : gated_backward_kernel<T, 1>;
        launch("gated_backward", context.stream, kernel, extent_of(dh, neighbours), view<const T>(gate),
               view<const T>(up), act, view<const T>(dh), view<T>(dgate), view<T>(dup));
    });
}

}  // namespace lorica::cuda
