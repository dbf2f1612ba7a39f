// RMSNorm (Zhang & Sennrich 2019), LayerNorm (Ba et al. 2016) and their derivatives, row by row.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_norm.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

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

// m and r of backend.h's Norm.
struct Statistics {
    float mean;
    double inverse;
};
// sum_lanes of two sums in one pass; n in whole vectors.
struct TwoSums {
    double first, second;
};
template <typename F> HWY_INLINE TwoSums sum_two(int64_t n, const F & f) {
    constexpr int64_t lanes = n_lanes;
    Vec a0 = hn::Zero(Floats()), a1 = a0, b0 = a0, b1 = a0;
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        f(i, a0, b0);
        f(i + lanes, a1, b1);
    }
    if (i < n) f(i, a0, b0);
    return {hn::ReduceSum(Floats(), hn::Add(a0, a1)), hn::ReduceSum(Floats(), hn::Add(b0, b1))};
}

// Of a layer norm in one pass: sums of differences to a number near the mean, the mean of the first elements. How far
// off it is counts by its square next to the variance, which an outlier among them raises as well.
template <bool Layer, typename X> HWY_INLINE Statistics statistics(const X * x, int64_t n, double eps) {
    if constexpr (!Layer) return {0, inverse_rms(x, n, eps)};
    constexpr int64_t n_first = 32;
    float first = 0;
    if (n >= n_first) {
        Vec sum = hn::Zero(Floats());
        for (int64_t i = 0; i < n_first; i += static_cast<int64_t>(n_lanes)) sum = hn::Add(sum, load(x + i));
        first = hn::ReduceSum(Floats(), sum) / n_first;
    } else {
        for (int64_t i = 0; i < n; ++i) first += static_cast<float>(x[i]) / static_cast<float>(n);
    }
    const Vec near = hn::Set(Floats(), first);
    const int64_t whole = n / static_cast<int64_t>(n_lanes) * static_cast<int64_t>(n_lanes);
    auto [sum, squares] = sum_two(whole, [&](int64_t i, Vec & s, Vec & s2) HWY_ATTR {
        const Vec v = hn::Sub(load(x + i), near);
        s = hn::Add(s, v);
        s2 = hn::MulAdd(v, v, s2);
    });
    for (int64_t i = whole; i < n; ++i) {
        const double v = static_cast<double>(static_cast<float>(x[i])) - first;
        sum += v;
        squares += v * v;
    }
    const double offset = sum / static_cast<double>(n);
    const double variance = squares / static_cast<double>(n) - offset * offset;
    return {static_cast<float>(first + offset), 1 / std::sqrt(std::max(variance, 0.0) + eps)};
}

// bias and residual may be null.
template <bool Layer, typename X, typename Y>
Statistics norm_row(const X * x, const float * weight, const float * bias, const float * residual, int64_t n,
                    double eps, Y * y) {
    const Statistics s = statistics<Layer>(x, n, eps);
    const Vec scale = hn::Set(Floats(), static_cast<float>(s.inverse));
    const Vec shift = hn::Set(Floats(), static_cast<float>(s.mean * s.inverse));
    const auto normed = [&](int64_t i, auto lanes) HWY_ATTR {
        const Vec v = lanes.get(x + i);
        return Layer ? hn::MulSub(v, scale, shift) : hn::Mul(v, scale);
    };
    if (bias) {
        for_lanes(n, [&](int64_t i, auto lanes) {
            const Vec value = hn::MulAdd(normed(i, lanes), lanes.get(weight + i), lanes.get(bias + i));
            lanes.put(residual ? hn::Add(lanes.get(residual + i), value) : value, y + i);
        });
    } else if (residual) {
        for_lanes(n, [&](int64_t i, auto lanes) {
            lanes.put(hn::MulAdd(normed(i, lanes), lanes.get(weight + i), lanes.get(residual + i)), y + i);
        });
    } else {
        for_lanes(n,
                  [&](int64_t i, auto lanes) { lanes.put(hn::Mul(normed(i, lanes), lanes.get(weight + i)), y + i); });
    }
    return s;
}

// With s = r: dx += s dy w - x s^3 / n sum(dy w x), where x stands for x - m; of a layer norm also - s / n sum(dy w).
template <bool Layer, bool Accumulate, typename DY, typename X, typename DX>
void norm_backward_row(const DY * dy, const X * x, const float * weight, int64_t n, double eps, DX * dx,
                       Bf16 * dx_bf16) {
    const auto [m, s] = statistics<Layer>(x, n, eps);
    const Vec mean = hn::Set(Floats(), m);
    const auto centered = [&](int64_t i, auto lanes)
                              HWY_ATTR { return Layer ? hn::Sub(lanes.get(x + i), mean) : lanes.get(x + i); };
    double dot, through_mean = 0;
    if constexpr (Layer) {
        const int64_t whole = n / static_cast<int64_t>(n_lanes) * static_cast<int64_t>(n_lanes);
        auto [sum, product] = sum_two(whole, [&](int64_t i, Vec & of_g, Vec & of_product) HWY_ATTR {
            const Vec g = hn::Mul(load(dy + i), load(weight + i));
            of_g = hn::Add(of_g, g);
            of_product = hn::MulAdd(g, centered(i, Whole{}), of_product);
        });
        for (int64_t i = whole; i < n; ++i) {
            const float g = static_cast<float>(dy[i]) * weight[i];
            sum += g;
            product += static_cast<double>(g) * (static_cast<double>(static_cast<float>(x[i])) - m);
        }
        dot = product;
        through_mean = s * sum / static_cast<double>(n);
    } else {
        dot = sum_lanes(n, [&](Vec sum, int64_t i, auto lanes) {
            return hn::MulAdd(hn::Mul(lanes.get(dy + i), lanes.get(weight + i)), centered(i, lanes), sum);
        });
    }
    const Vec scale = hn::Set(Floats(), static_cast<float>(s));
    const Vec along_x = hn::Set(Floats(), static_cast<float>(s * s * s * dot / static_cast<double>(n)));
    const Vec along_one = hn::Set(Floats(), static_cast<float>(through_mean));
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec through = hn::Mul(hn::Mul(lanes.get(dy + i), lanes.get(weight + i)), scale);
        Vec gradient = hn::NegMulAdd(centered(i, lanes), along_x, through);
        if constexpr (Layer) gradient = hn::Sub(gradient, along_one);
        const Vec sum = Accumulate ? hn::Add(lanes.get(dx + i), gradient) : gradient;
        lanes.put(sum, dx + i);
        if (dx_bf16) lanes.put(sum, dx_bf16 + i);
    });
}

// Calls f with true or false as constants.
template <typename F> HWY_INLINE void with_constant(bool value, const F & f) {
    if (value) {
        f(std::true_type());
    } else {
        f(std::false_type());
    }
}

void norm_rows(Matrix x, const Norm & norm, Matrix residual, Matrix y, int64_t begin, int64_t end) {
    const int64_t n = x.cols / norm.groups;
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            with_constant(norm.kind == Norm::layer, [&](auto layer) {
                for (int64_t r = begin; r < end; ++r) {
                    for (int64_t group = 0; group < norm.groups; ++group) {
                        const float * rest = residual ? residual.row_as<float>(r) + group * n : nullptr;
                        const Statistics s =
                            norm_row<layer.value>(x.row_as<X>(r) + group * n, norm.weight.f32(), norm.bias.f32(), rest,
                                                  n, norm.eps, y.row_as<Y>(r) + group * n);
                        if (!norm.statistics) continue;
                        float * kept = norm.statistics.row_as<float>(r) + group;
                        kept[0] = static_cast<float>(s.inverse);
                        if (layer.value) kept[norm.groups] = s.mean;
                    }
                }
            });
        });
    });
}

void norm_backward_rows(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act,
                        int64_t begin, int64_t end) {
    const int64_t n = x.cols / norm.groups;
    const bool as_bf16 = dx_act && dx_act.type == Dtype::bf16;
    with_type(x.type, [&]<typename X>(X *) {
        with_type(dy.type, [&]<typename DY>(DY *) {
            with_type(dx.type, [&]<typename DX>(DX *) {
                with_constant(norm.kind == Norm::layer, [&](auto layer) {
                    with_constant(accumulate, [&](auto adds) {
                        for (int64_t r = begin; r < end; ++r) {
                            for (int64_t at = 0; at < x.cols; at += n) {
                                norm_backward_row<layer.value, adds.value>(
                                    dy.row_as<DY>(r) + at, x.row_as<X>(r) + at, norm.weight.f32(), n, norm.eps,
                                    dx.row_as<DX>(r) + at, as_bf16 ? dx_act.row_as<Bf16>(r) + at : nullptr);
                            }
                            if (dx_act && !as_bf16) std::copy_n(dx.row_as<float>(r), dx.cols, dx_act.row_as<float>(r));
                        }
                    });
                });
            });
        });
    });
}

// statistics[t][group] of the rows in [begin, end): r, then m.
void statistics_rows(Matrix x, const Norm & norm, float * out, int64_t begin, int64_t end) {
    const int64_t n = x.cols / norm.groups;
    with_type(x.type, [&]<typename X>(X *) {
        for (int64_t i = begin * norm.groups; i < end * norm.groups; ++i) {
            const X * at = x.row_as<X>(i / norm.groups) + i % norm.groups * n;
            const Statistics s =
                norm.kind == Norm::layer ? statistics<true>(at, n, norm.eps) : statistics<false>(at, n, norm.eps);
            out[2 * i] = static_cast<float>(s.inverse);
            out[2 * i + 1] = s.mean;
        }
    });
}

// Columns [first, first + count) of dw and db: all rows and groups in order.
void norm_gradient_columns(Matrix dy, Matrix x, const Norm & norm, const float * statistics, float * dw, float * db,
                           int64_t first, int64_t count) {
    const int64_t n = x.cols / norm.groups;
    float sums[2][gradient_columns] = {};
    with_type(x.type, [&]<typename X>(X *) {
        with_type(dy.type, [&]<typename DY>(DY *) {
            for (int64_t i = 0; i < x.rows * norm.groups; ++i) {
                const int64_t at = i % norm.groups * n + first;
                const DY * d = dy.row_as<DY>(i / norm.groups) + at;
                const X * v = x.row_as<X>(i / norm.groups) + at;
                const Vec r = hn::Set(Floats(), statistics[2 * i]), mean = hn::Set(Floats(), statistics[2 * i + 1]);
                for_lanes(count, [&](int64_t o, auto lanes) {
                    const Vec gradient = lanes.get(d + o), normed = hn::Mul(hn::Sub(lanes.get(v + o), mean), r);
                    lanes.put(hn::MulAdd(gradient, normed, lanes.get(sums[0] + o)), sums[0] + o);
                    lanes.put(hn::Add(gradient, lanes.get(sums[1] + o)), sums[1] + o);
                });
            }
        });
    });
    for (int64_t o = 0; dw && o < count; ++o) dw[first + o] += sums[0][o];
    for (int64_t o = 0; db && o < count; ++o) db[first + o] += sums[1][o];
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_backward_rows);
HWY_EXPORT(statistics_rows);
HWY_EXPORT(norm_gradient_columns);

void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(norm_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, norm, residual, y, begin, end); });
}

void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(norm_backward_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(dy, x, norm, accumulate, dx, dx_act, begin, end); });
}

void norm_gradient(Matrix dy, Matrix x, const Norm & norm, float * dw, float * db, float * statistics, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(statistics_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, norm, statistics, begin, end); });
    const auto columns = HWY_DYNAMIC_POINTER(norm_gradient_columns);
    const int64_t n = x.cols / norm.groups;
    parallel_ranges((n + gradient_columns - 1) / gradient_columns, x.rows * norm.groups * gradient_columns, n_threads,
                    [&](int64_t begin, int64_t end) {
                        for (int64_t first = begin * gradient_columns; first < std::min(n, end * gradient_columns);
                             first += gradient_columns) {
                            columns(dy, x, norm, statistics, dw, db, first, std::min(gradient_columns, n - first));
                        }
                    });
}

}  // namespace lorica::cpu
#endif
