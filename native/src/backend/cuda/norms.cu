// Norms of rows and of parts of rows, and sums over rows. All wait for memory: four neighbours at a time.
#include "backend/cuda/device.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/view.cuh"

#include <algorithm>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, warps = threads / warp_size;

// A unit is a group of a row: n elements that are normalized together.
struct Units {
    AnyRows x;
    int groups;
    int64_t n;
    const float *weight, *bias;  // bias: or null
    float eps;
    bool layer;    // else rms
    bool aligned;  // four of weight and bias can be read at once

    __device__ __forceinline__ float4 four_of(const float * vector, int64_t i) const {
        if (aligned && i + 4 <= n) return *reinterpret_cast<const float4 *>(vector + i);
        return {i < n ? vector[i] : 0.0f, i + 1 < n ? vector[i + 1] : 0.0f, i + 2 < n ? vector[i + 2] : 0.0f,
                i + 3 < n ? vector[i + 3] : 0.0f};
    }
};

Units units_of(const Matrix & x, const Norm & norm) {
    Units units{};
    units.groups = norm.groups;
    units.n = x.cols / norm.groups;
    units.x = any_rows(x, units.n);
    units.weight = norm.weight.f32();
    units.bias = norm.bias.f32();
    units.eps = static_cast<float>(norm.eps);
    units.layer = norm.kind == Norm::layer;
    units.aligned =
        reinterpret_cast<uintptr_t>(units.weight) % 16 == 0 && reinterpret_cast<uintptr_t>(units.bias) % 16 == 0;
    return units;
}

// Whole rows have a block each, short parts of them a warp.
template <int n_threads> __device__ __forceinline__ float sum_of_unit(float x, float * partial) {
    if constexpr (n_threads == warp_size) {
        return warp_sum(x);
    } else {
        return block_sum<n_threads>(x, partial);
    }
}
struct Place {
    int64_t unit, row, first;  // first column
    int lane;
};
template <int n_threads> __device__ __forceinline__ Place place_in(const Units & p) {
    const int64_t unit = int64_t{blockIdx.x} * (threads / n_threads) + threadIdx.x / n_threads;
    const int64_t row =
        p.groups == 1 ? unit : static_cast<int64_t>(static_cast<uint32_t>(unit) / static_cast<uint32_t>(p.groups));
    return {unit, row, (unit - row * p.groups) * p.n, static_cast<int>(threadIdx.x) % n_threads};
}

struct Statistics {
    float mean, inverse;
};
// partial: shared memory for two sums of each warp.
template <int n_threads>
__device__ __forceinline__ Statistics statistics_of(const Units & p, const Place & at, float * partial) {
    const auto n = static_cast<float>(p.n);
    const int64_t end = at.first + p.n;
    float mean = 0;
    if (p.layer) {
        float sum = 0;
        for (int64_t i = at.lane * 4; i < p.n; i += n_threads * 4) {
            const float4 v = p.x.four(at.row, at.first + i, end);
            sum += (v.x + v.y) + (v.z + v.w);
        }
        mean = sum_of_unit<n_threads>(sum, partial + warps) / n;
    }
    float squares = 0;
    for (int64_t i = at.lane * 4; i < p.n; i += n_threads * 4) {
        const float4 v = p.x.four(at.row, at.first + i, end);
        const float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
        // What is read as 0 behind the end is no element.
        squares += a * a;
        if (i + 1 < p.n) squares += b * b;
        if (i + 2 < p.n) squares += c * c;
        if (i + 3 < p.n) squares += d * d;
    }
    return {mean, 1.0f / sqrtf(sum_of_unit<n_threads>(squares, partial) / n + p.eps)};
}

// Norm::statistics of the unit: see there.
__device__ __forceinline__ float & kept_inverse(const Units & p, const Place & at, const View<float> & statistics) {
    return statistics.row(at.row)[at.unit - at.row * p.groups];
}
__device__ __forceinline__ float & kept_mean(const Units & p, const Place & at, const View<float> & statistics) {
    return (&kept_inverse(p, at, statistics))[p.groups];
}
__device__ __forceinline__ Statistics kept_statistics(const Units & p, const Place & at,
                                                      const View<float> & statistics) {
    return {p.layer ? kept_mean(p, at, statistics) : 0.0f, kept_inverse(p, at, statistics)};
}

template <int n_threads>
__global__ void __launch_bounds__(threads) norm_kernel(const __grid_constant__ Units p,
                                                       const __grid_constant__ AnyRows residual,
                                                       const __grid_constant__ AnyRows y, View<float> statistics) {
    const Place at = place_in<n_threads>(p);
    if (at.row >= p.x.rows) return;
    const Statistics s = statistics_of<n_threads>(p, at, reinterpret_cast<float *>(shared_memory()));
    if (statistics.data && at.lane == 0) {
        kept_inverse(p, at, statistics) = s.inverse;
        if (p.layer) kept_mean(p, at, statistics) = s.mean;
    }
    const int64_t end = at.first + p.n;
    for (int64_t i = at.lane * 4; i < p.n; i += n_threads * 4) {
        float4 v = p.x.four(at.row, at.first + i, end);
        const float4 w = p.four_of(p.weight, i);
        v = {(v.x - s.mean) * s.inverse * w.x, (v.y - s.mean) * s.inverse * w.y, (v.z - s.mean) * s.inverse * w.z,
             (v.w - s.mean) * s.inverse * w.w};
        if (p.bias) {
            const float4 b = p.four_of(p.bias, i);
            v = {v.x + b.x, v.y + b.y, v.z + b.z, v.w + b.w};
        }
        if (residual.data) {
            const float4 r = residual.four(at.row, at.first + i, end);
            v = {v.x + r.x, v.y + r.y, v.z + r.z, v.w + r.w};
        }
        y.put(at.row, at.first + i, end, v);
    }
}

struct Backward {
    AnyRows dy, dx, dx_act;
    bool accumulate;
    View<float> statistics;  // of x, or null
};

// With h = (x - m) r and g = w dy: dx = r (g - [layer: mean(g)] - h mean(g h)). dx may be dy.
template <int n_threads>
__global__ void __launch_bounds__(threads) norm_backward_kernel(const __grid_constant__ Units p,
                                                                const __grid_constant__ Backward b) {
    const Place at = place_in<n_threads>(p);
    if (at.row >= p.x.rows) return;
    auto * partial = reinterpret_cast<float *>(shared_memory());
    const Statistics s =
        b.statistics.data ? kept_statistics(p, at, b.statistics) : statistics_of<n_threads>(p, at, partial);
    const int64_t end = at.first + p.n;
    float along = 0, sum = 0;
    for (int64_t i = at.lane * 4; i < p.n; i += n_threads * 4) {
        const float4 x = p.x.four(at.row, at.first + i, end), w = p.four_of(p.weight, i);
        const float4 dy = b.dy.four(at.row, at.first + i, end);
        const float g[] = {w.x * dy.x, w.y * dy.y, w.z * dy.z, w.w * dy.w};  // 0 behind the end
        along += g[0] * ((x.x - s.mean) * s.inverse) + g[1] * ((x.y - s.mean) * s.inverse) +
                 g[2] * ((x.z - s.mean) * s.inverse) + g[3] * ((x.w - s.mean) * s.inverse);
        if (p.layer) sum += (g[0] + g[1]) + (g[2] + g[3]);
    }
    const auto n = static_cast<float>(p.n);
    along = sum_of_unit<n_threads>(along, partial + 2 * warps) / n;
    if (p.layer) sum = sum_of_unit<n_threads>(sum, partial + 3 * warps) / n;
    for (int64_t i = at.lane * 4; i < p.n; i += n_threads * 4) {
        const float4 x = p.x.four(at.row, at.first + i, end), w = p.four_of(p.weight, i);
        const float4 dy = b.dy.four(at.row, at.first + i, end);
        auto one = [&](float of_x, float of_w, float of_dy) {
            return s.inverse * (of_w * of_dy - sum - (of_x - s.mean) * s.inverse * along);
        };
        float4 v{one(x.x, w.x, dy.x), one(x.y, w.y, dy.y), one(x.z, w.z, dy.z), one(x.w, w.w, dy.w)};
        if (b.accumulate) {
            const float4 old = b.dx.four(at.row, at.first + i, end);
            v = {v.x + old.x, v.y + old.y, v.z + old.z, v.w + old.w};
        }
        b.dx.put(at.row, at.first + i, end, v);
        if (b.dx_act.data) b.dx_act.put(at.row, at.first + i, end, v);
    }
}

template <int n_threads>
__global__ void __launch_bounds__(threads) statistics_kernel(const __grid_constant__ Units p, float2 * to) {
    const Place at = place_in<n_threads>(p);
    if (at.row >= p.x.rows) return;
    const Statistics s = statistics_of<n_threads>(p, at, reinterpret_cast<float *>(shared_memory()));
    if (at.lane == 0) to[at.unit] = {s.mean, s.inverse};
}

// Sums over the units of a part of them, 32 columns for a block: of dy h where there are statistics, and of dy.
// partial: [parts, 2, n].
__global__ void __launch_bounds__(threads) column_sums_kernel(const __grid_constant__ AnyRows dy,
                                                              const __grid_constant__ AnyRows x, int groups, int64_t n,
                                                              const float2 * statistics, int n_parts,
                                                              double * partial) {
    const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
    const int64_t c = int64_t{blockIdx.x} * warp_size + lane, units = dy.rows * groups;
    const int64_t begin = units * blockIdx.y / n_parts, end = units * (blockIdx.y + 1) / n_parts;
    double products = 0, sum = 0;
    if (c < n) {
        for (int64_t unit = begin + warp; unit < end; unit += warps) {
            const int64_t t =
                groups == 1 ? unit : static_cast<int64_t>(static_cast<uint32_t>(unit) / static_cast<uint32_t>(groups));
            const int64_t col = (unit - t * groups) * n + c;
            const float d = dy.one(t, col);
            sum += static_cast<double>(d);
            if (!statistics) continue;
            const float2 s = statistics[unit];
            products += static_cast<double>(d) * static_cast<double>((x.one(t, col) - s.x) * s.y);
        }
    }
    auto * sums = reinterpret_cast<double *>(shared_memory());
    sums[threadIdx.x] = products;
    sums[threads + threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || c >= n) return;
    for (int w = 1; w < warps; ++w) {
        products += sums[w * warp_size + lane];
        sum += sums[threads + w * warp_size + lane];
    }
    double * own = partial + int64_t{blockIdx.y} * 2 * n;
    own[c] = products;
    own[n + c] = sum;
}

__global__ void __launch_bounds__(threads) add_column_sums_kernel(const double * partial, int n_parts, int64_t n,
                                                                  float * dw, float * db) {
    const int64_t c = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (c >= n) return;
    double products = 0, sum = 0;
    for (int part = 0; part < n_parts; ++part) {
        products += partial[int64_t{part} * 2 * n + c];
        sum += partial[(int64_t{part} * 2 + 1) * n + c];
    }
    if (dw) dw[c] += static_cast<float>(products);
    if (db) db[c] += static_cast<float>(sum);
}

constexpr int64_t units_at_once = int64_t{256} << 10;  // whose statistics are kept for the gradient of a weight

// f(std::integral_constant<int, threads of a unit>, the grid)
template <typename F> void with_units(const Units & units, F f) {
    const int64_t n = units.x.rows * units.groups;
    const size_t shared_bytes = 4 * warps * sizeof(float);
    if (units.groups > 1 && units.n <= 1024) {
        f(std::integral_constant<int, warp_size>(),
          Extent{dim3(static_cast<unsigned>(divide_up(n, warps))), threads, shared_bytes});
    } else {
        f(std::integral_constant<int, threads>(), Extent{dim3(static_cast<unsigned>(n)), threads, shared_bytes});
    }
}

void add_sums(const Context & context, Matrix dy, const Matrix & x, int groups, const float2 * statistics, float * dw,
              float * db) {
    const int64_t n = dy.cols / groups;
    const int n_parts = row_parts(context, dy.rows * groups, n);
    auto * partial = context.workspace.take<double>(int64_t{n_parts} * 2 * n);
    launch("column_sums", context.stream, column_sums_kernel,
           {dim3(static_cast<unsigned>(divide_up(n, warp_size)), static_cast<unsigned>(n_parts)), threads,
            2 * threads * sizeof(double)},
           any_rows(dy), any_rows(x), groups, n, statistics, n_parts, partial);
    launch("add_column_sums", context.stream, add_column_sums_kernel,
           {dim3(static_cast<unsigned>(divide_up(n, threads))), threads, 0}, partial, n_parts, n, dw, db);
}

}  // namespace

size_t norm_workspace_bytes(const WorkspaceShape & shape, int n_multiprocessors) {
    if (!shape.training) return 0;
    const int64_t n = std::max(shape.max_features, shape.n_vocab);
    return static_cast<size_t>(units_at_once) * sizeof(float2) +
           static_cast<size_t>(2 * (n + 4 * int64_t{n_multiprocessors} * warp_size)) * sizeof(double) +
           4 * Workspace::alignment;
}

void norm(const Context & context, Matrix x, const Norm & norm, Matrix residual, Matrix y) {
    if (x.rows == 0) return;
    const Units units = units_of(x, norm);
    with_units(units, [&](auto n_threads, const Extent & extent) {
        launch("norm", context.stream, norm_kernel<n_threads()>, extent, units, any_rows(residual, units.n),
               any_rows(y, units.n), view<float>(norm.statistics));
    });
}

void norm_backward(const Context & context, Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx,
                   Matrix dx_act) {
    if (x.rows == 0) return;
    const Units units = units_of(x, norm);
    const Backward backward{any_rows(dy, units.n), any_rows(dx, units.n), any_rows(dx_act, units.n), accumulate,
                            view<float>(norm.statistics)};
    with_units(units, [&](auto n_threads, const Extent & extent) {
        launch("norm_backward", context.stream, norm_backward_kernel<n_threads()>, extent, units, backward);
    });
}

void norm_gradient(const Context & context, Matrix dy, Matrix x, const Norm & norm, float * dw, float * db) {
    if (x.rows == 0) return;
    const int64_t rows_at_once = std::max<int64_t>(units_at_once / norm.groups, 1);
    for (int64_t first = 0; first < x.rows; first += rows_at_once) {
        const Workspace::Mark mark(context.workspace);
        const int64_t rows = std::min(rows_at_once, x.rows - first);
        const Matrix part = x.slice_rows(first, rows);
        const Units units = units_of(part, norm);
        auto * statistics = context.workspace.take<float2>(rows * units.groups);
        with_units(units, [&](auto n_threads, const Extent & extent) {
            launch("norm_statistics", context.stream, statistics_kernel<n_threads()>, extent, units, statistics);
        });
        add_sums(context, dy.slice_rows(first, rows), part, units.groups, statistics, dw, db);
    }
}

void add_row_sums(const Context & context, Matrix dy, float * sums) {
    if (dy.rows == 0) return;
    const Workspace::Mark mark(context.workspace);
    add_sums(context, dy, dy, 1, nullptr, nullptr, sums);
}

}  // namespace lorica::cuda
