// What the optimizer does with flat arrays of parameters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_optimizer.cpp"
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

// In double precision: squares of floats cannot overflow it.
double sum_of_squares_part(const float * x, int64_t n) {
    const hn::CappedTag<double, 8> d;
    const hn::Rebind<float, decltype(d)> df;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
    const auto add_square = [&](auto sum, auto values) {
        const auto v = hn::PromoteTo(d, values);
        return hn::MulAdd(v, v, sum);
    };
    int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
        s0 = add_square(s0, hn::LoadU(df, x + i));
        s1 = add_square(s1, hn::LoadU(df, x + i + lanes));
        s2 = add_square(s2, hn::LoadU(df, x + i + 2 * lanes));
        s3 = add_square(s3, hn::LoadU(df, x + i + 3 * lanes));
    }
    for (; i < n; i += lanes) s0 = add_square(s0, hn::LoadN(df, x + i, static_cast<size_t>(std::min(lanes, n - i))));
    return hn::ReduceSum(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

// Loshchilov & Hutter 2019, algorithm 2, with the bias corrections folded into the step size and a factor of the root.
void adamw_part(float * param, const float * grad, float * m, float * v, int64_t n, const AdamwParams & p) {
    const auto constant = [](double value) { return hn::Set(Floats(), static_cast<float>(value)); };
    const auto step = static_cast<double>(p.step);
    const Vec grad_scale = constant(p.grad_scale), eps = constant(p.eps);
    const Vec beta1 = constant(p.beta1), rest1 = constant(1 - p.beta1);
    const Vec beta2 = constant(p.beta2), rest2 = constant(1 - p.beta2);
    const Vec decay = constant(1 - p.learning_rate * p.weight_decay);
    const Vec step_size = constant(p.learning_rate / (1 - std::pow(p.beta1, step)));
    const Vec root_factor = constant(1 / std::sqrt(1 - std::pow(p.beta2, step)));
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec g = hn::Mul(lanes.get(grad + i), grad_scale);
        const Vec m1 = hn::MulAdd(beta1, lanes.get(m + i), hn::Mul(rest1, g));
        const Vec v1 = hn::MulAdd(beta2, lanes.get(v + i), hn::Mul(rest2, hn::Mul(g, g)));
        const Vec update = hn::Div(m1, hn::MulAdd(hn::Sqrt(v1), root_factor, eps));
        lanes.put(m1, m + i);
        lanes.put(v1, v + i);
        lanes.put(hn::NegMulAdd(step_size, update, hn::Mul(lanes.get(param + i), decay)), param + i);
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(sum_of_squares_part);
HWY_EXPORT(adamw_part);

double sum_of_squares(const float * x, int64_t n, int n_threads) {
    const auto part = HWY_DYNAMIC_POINTER(sum_of_squares_part);
    // A fixed number of parts, summed in order, whatever the number of threads.
    constexpr int64_t n_parts = 64;
    double sums[n_parts] = {};
    const int64_t size = (n + n_parts - 1) / n_parts;
    parallel_ranges(n_parts, size, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            if (i * size < n) sums[i] = part(x + i * size, std::min(size, n - i * size));
        }
    });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

void adamw(float * param, const float * grad, float * m, float * v, int64_t n, const AdamwParams & p, int n_threads) {
    const auto part = HWY_DYNAMIC_POINTER(adamw_part);
    // Ranges start at multiples of 64 elements, so that neighbours share no cache line.
    parallel_ranges(
        n, 1, n_threads,
        [&](int64_t begin, int64_t end) { part(param + begin, grad + begin, m + begin, v + begin, end - begin, p); },
        64);
}

}  // namespace lorica::cpu
#endif
