// RMSNorm (Zhang & Sennrich 2019) and its derivative, row by row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_norm.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// f(sum, offset, lanes) returns sum + the terms at offset. Four sums hide the latency of the addition; their order is
// fixed.
template <typename F> HWY_INLINE double sum_lanes(int64_t n, const F & f) {
    constexpr int64_t step = 4 * n_lanes;
    Vec s0 = hn::Zero(Floats()), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + step <= n; i += step) {
        s0 = f(s0, i, Whole{});
        s1 = f(s1, i + static_cast<int64_t>(n_lanes), Whole{});
        s2 = f(s2, i + static_cast<int64_t>(2 * n_lanes), Whole{});
        s3 = f(s3, i + static_cast<int64_t>(3 * n_lanes), Whole{});
    }
    for_lanes(n - i, [&](int64_t j, auto lanes) { s0 = f(s0, i + j, lanes); });
    return hn::ReduceSum(Floats(), hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

template <typename X> HWY_INLINE double inverse_rms(const X * x, int64_t n, double eps) {
    const double squares = sum_lanes(n, [&](Vec sum, int64_t i, auto lanes) {
        const Vec v = lanes.get(x + i);
        return hn::MulAdd(v, v, sum);
    });
    return 1 / std::sqrt(squares / static_cast<double>(n) + eps);
}

template <typename X, typename Y> float rmsnorm_row(const X * x, const float * weight, int64_t n, double eps, Y * y) {
    const auto rounded = static_cast<float>(inverse_rms(x, n, eps));
    const Vec scale = hn::Set(Floats(), rounded);
    for_lanes(n, [&](int64_t i, auto lanes) {
        lanes.put(hn::Mul(hn::Mul(lanes.get(x + i), scale), lanes.get(weight + i)), y + i);
    });
    return rounded;
}

// With s = 1 / rms(x): dx += s dy w - x s^3 / n sum(dy w x).
template <typename DY, typename X, typename DX>
void rmsnorm_backward_row(const DY * dy, const X * x, const float * weight, int64_t n, double eps, DX * dx,
                          Bf16 * dx_bf16) {
    const double s = inverse_rms(x, n, eps);
    const double dot = sum_lanes(n, [&](Vec sum, int64_t i, auto lanes) {
        return hn::MulAdd(hn::Mul(lanes.get(dy + i), lanes.get(weight + i)), lanes.get(x + i), sum);
    });
    const Vec scale = hn::Set(Floats(), static_cast<float>(s));
    const Vec along_x = hn::Set(Floats(), static_cast<float>(s * s * s * dot / static_cast<double>(n)));
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec through = hn::Mul(hn::Mul(lanes.get(dy + i), lanes.get(weight + i)), scale);
        const Vec gradient = hn::NegMulAdd(lanes.get(x + i), along_x, through);
        const Vec sum = hn::Add(lanes.get(dx + i), gradient);
        lanes.put(sum, dx + i);
        if (dx_bf16) lanes.put(sum, dx_bf16 + i);
    });
}

void rmsnorm_rows(Matrix x, const Norm & norm, Matrix y, int64_t begin, int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            for (int64_t r = begin; r < end; ++r) {
                const float scale = rmsnorm_row(x.row_as<X>(r), norm.weight, x.cols, norm.eps, y.row_as<Y>(r));
                if (norm.inverse_rms) *norm.inverse_rms.row_as<float>(r) = scale;
            }
        });
    });
}

void rmsnorm_backward_rows(Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act, int64_t begin,
                           int64_t end) {
    const bool as_bf16 = dx_act && dx_act.type == Dtype::bf16;
    with_type(x.type, [&]<typename X>(X *) {
        with_type(dy.type, [&]<typename DY>(DY *) {
            with_type(dx.type, [&]<typename DX>(DX *) {
                for (int64_t r = begin; r < end; ++r) {
                    rmsnorm_backward_row(dy.row_as<DY>(r), x.row_as<X>(r), norm.weight, x.cols, norm.eps,
                                         dx.row_as<DX>(r), as_bf16 ? dx_act.row_as<Bf16>(r) : nullptr);
                    if (dx_act && !as_bf16) std::copy_n(dx.row_as<float>(r), dx.cols, dx_act.row_as<float>(r));
                }
            });
        });
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(rmsnorm_rows);
HWY_EXPORT(rmsnorm_backward_rows);

void rmsnorm(Matrix x, const Norm & norm, Matrix y, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(rmsnorm_rows);
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) { rows(x, norm, y, begin, end); });
}

void rmsnorm_backward(Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(rmsnorm_backward_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(dy, x, norm, dx, dx_act, begin, end); });
}

}  // namespace lorica::cpu
#endif
