#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/softmax.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/softmax.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

float SoftmaxCrossEntropyRow(float * HWY_RESTRICT logits, int64_t n, int32_t label, bool gradient, bool as_bf16) {
    const hn::ScalableTag<float> d;
    const auto step = static_cast<int64_t>(hn::Lanes(d));
    auto max_v = hn::Set(d, logits[0]);
    int64_t i = 0;
    for (; i + step <= n; i += step) max_v = hn::Max(max_v, hn::LoadU(d, logits + i));
    float max = hn::ReduceMax(d, max_v);
    for (; i < n; ++i) max = std::max(max, logits[i]);

    const float label_logit = logits[label];
    const auto max_all = hn::Set(d, max);
    auto sum_v = hn::Zero(d);
    for (i = 0; i + step <= n; i += step) {
        const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, logits + i), max_all));
        sum_v = hn::Add(sum_v, e);
        if (gradient) hn::StoreU(e, d, logits + i);
    }
    double sum = hn::ReduceSum(d, sum_v);
    for (; i < n; ++i) {
        const float e = std::exp(logits[i] - max);
        sum += e;
        if (gradient) logits[i] = e;
    }
    if (gradient) {
        const float scale = static_cast<float>(1 / sum);
        const auto scale_v = hn::Set(d, scale);
        for (i = 0; i + step <= n; i += step) hn::StoreU(hn::Mul(hn::LoadU(d, logits + i), scale_v), d, logits + i);
        for (; i < n; ++i) logits[i] *= scale;
        logits[label] -= 1;
        // The bf16 of element i is written where elements i / 2 were, which have been read by then.
        if (as_bf16) {
            constexpr int64_t piece = 256;
            uint16_t converted[piece];
            auto * out = reinterpret_cast<uint16_t *>(logits);
            for (i = 0; i < n; i += piece) {
                const int64_t count = std::min(piece, n - i);
                convert_f32_to_bf16(logits + i, converted, count);
                std::copy_n(converted, count, out + i);
            }
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
