// SwiGLU (Shazeer 2020, eq. 6) and its derivative.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_swiglu.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

HWY_INLINE Vec sigmoid(Vec x) {
    const Vec one = hn::Set(Floats(), 1.0f);
    const Vec divisor = hn::Add(one, exp_clamped(hn::Neg(x)));
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // A division takes as long as all the rest. The estimate has 14 bits, a step of Newton doubles them.
    const Vec estimate = hn::ApproximateReciprocal(divisor);
    return hn::Mul(estimate, hn::NegMulAdd(divisor, estimate, hn::Set(Floats(), 2.0f)));
#else
    return hn::Div(one, divisor);
#endif
}

template <typename T> void swiglu_row(const T * gate, const T * up, int64_t n, T * h) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec g = lanes.get(gate + i);
        lanes.put(hn::Mul(hn::Mul(g, sigmoid(g)), lanes.get(up + i)), h + i);
    });
}

// With s = sigmoid(g): dup = dh g s, dgate = dh u s (1 + g (1 - s)).
template <bool WithH, typename T>
void swiglu_backward_row(const T * gate, const T * up, const T * dh, int64_t n, T * dgate, T * dup, T * h) {
    const Vec one = hn::Set(Floats(), 1.0f);
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec g = lanes.get(gate + i), u = lanes.get(up + i), d = lanes.get(dh + i);
        const Vec s = sigmoid(g), silu = hn::Mul(g, s);
        const Vec slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
        lanes.put(hn::Mul(hn::Mul(d, u), slope), dgate + i);
        lanes.put(hn::Mul(d, silu), dup + i);
        if constexpr (WithH) lanes.put(hn::Mul(silu, u), h + i);
    });
}

void swiglu_rows(Matrix gate, Matrix up, Matrix h, int64_t begin, int64_t end) {
    with_type(gate.type, [&]<typename T>(T *) {
        for (int64_t r = begin; r < end; ++r) swiglu_row(gate.row_as<T>(r), up.row_as<T>(r), gate.cols, h.row_as<T>(r));
    });
}

void swiglu_backward_rows(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int64_t begin,
                          int64_t end) {
    with_type(gate.type, [&]<typename T>(T *) {
        const auto row = h ? swiglu_backward_row<true, T> : swiglu_backward_row<false, T>;
        for (int64_t r = begin; r < end; ++r) {
            row(gate.row_as<T>(r), up.row_as<T>(r), dh.row_as<T>(r), gate.cols, dgate.row_as<T>(r), dup.row_as<T>(r),
                h ? h.row_as<T>(r) : nullptr);
        }
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(swiglu_rows);
HWY_EXPORT(swiglu_backward_rows);

void swiglu(Matrix gate, Matrix up, Matrix h, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(swiglu_rows);
    parallel_ranges(gate.rows, gate.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(gate, up, h, begin, end); });
}

void swiglu_backward(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(swiglu_backward_rows);
    parallel_ranges(gate.rows, gate.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(gate, up, dh, dgate, dup, h, begin, end); });
}

}  // namespace lorica::cpu
#endif
