#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/softmax.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/simd-inl.h"
#include "backend/cpu/softmax.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// out = scale e, minus 1 at the label. out may be e's own memory, also with narrower elements: what is written has been read.
template <typename Out>
HWY_INLINE void scale_row(const float * e, int64_t n, float scale, int32_t label, Out * out) {
    const float at_label = e[label] * scale - 1;
    const Vec scale_v = hn::Set(Floats(), scale);
    for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR { lanes.put(hn::Mul(lanes.get(e + i), scale_v), out + i); });
    out[label] = Out(at_label);
}

float SoftmaxCrossEntropyRow(float * logits, int64_t n, int32_t label, bool gradient, bool as_bf16) {
    const Floats d;
    constexpr int64_t step = n_lanes;
    Vec max_v = hn::Set(d, logits[0]);
    int64_t i = 0;
    for (; i + step <= n; i += step) max_v = hn::Max(max_v, load(logits + i));
    float max = hn::ReduceMax(d, max_v);
    for (; i < n; ++i) max = std::max(max, logits[i]);

    const float label_logit = logits[label];
    const Vec max_all = hn::Set(d, max);
    Vec sum_v = hn::Zero(d);
    for (i = 0; i + step <= n; i += step) {
        const Vec e = exp_clamped(hn::Sub(load(logits + i), max_all));
        sum_v = hn::Add(sum_v, e);
        if (gradient) store(e, logits + i);
    }
    double sum = hn::ReduceSum(d, sum_v);
    for (; i < n; ++i) {
        const float e = std::exp(logits[i] - max);
        sum += e;
        if (gradient) logits[i] = e;
    }
    if (gradient) {
        const auto scale = static_cast<float>(1 / sum);
        if (as_bf16) {
            scale_row(logits, n, scale, label, reinterpret_cast<Bf16 *>(logits));
        } else {
            scale_row(logits, n, scale, label, logits);
        }
    }
    return static_cast<float>(std::log(sum) + (static_cast<double>(max) - label_logit));
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(SoftmaxCrossEntropyRow);

float softmax_cross_entropy_row(float * logits, int64_t n, int32_t label, bool gradient, bool as_bf16) {
    return HWY_DYNAMIC_DISPATCH(SoftmaxCrossEntropyRow)(logits, n, label, gradient, as_bf16);
}

}  // namespace lorica::cpu
#endif
