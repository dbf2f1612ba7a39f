// Activation functions, alone and behind a gate (Shazeer 2020, eq. 5 and 6), and their derivatives.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_activation.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

HWY_INLINE Vec one_over_one_plus(Vec x) {
    const Vec one = hn::Set(Floats(), 1.0f);
    const Vec divisor = hn::Add(one, x);
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
    // A division takes as long as all the rest. The estimate has 14 bits, a step of Newton doubles them.
    const Vec estimate = hn::ApproximateReciprocal(divisor);
    return hn::Mul(estimate, hn::NegMulAdd(divisor, estimate, hn::Set(Floats(), 2.0f)));
#else
    return hn::Div(one, divisor);
#endif
}

HWY_INLINE Vec sigmoid(Vec x) { return one_over_one_plus(exp_clamped(hn::Neg(x))); }

// Of each function its value and, where it is asked for, its derivative; what both need is computed once.
struct Silu {
    Vec x, s;
    HWY_INLINE explicit Silu(Vec at) : x(at), s(sigmoid(at)) {}
    HWY_INLINE Vec value() const { return hn::Mul(x, s); }
    // s (1 + x (1 - s))
    HWY_INLINE Vec slope() const {
        const Vec one = hn::Set(Floats(), 1.0f);
        return hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one));
    }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
    static constexpr float twice_root = 1.5957691216057308f, cubic = 0.044715f;
    Vec x, x2, s;
    HWY_INLINE explicit GeluTanh(Vec at) : x(at), x2(hn::Mul(at, at)) {
        const Floats d;
        // -2 u log2(e)
        const Vec inner = hn::MulAdd(x2, hn::Set(d, -log2_e * twice_root * cubic), hn::Set(d, -log2_e * twice_root));
        s = one_over_one_plus(exp2_clamped(at_most(hn::Set(d, 126.0f), hn::Mul(x, inner))));
    }
    HWY_INLINE Vec value() const { return hn::Mul(x, s); }
    // s (1 + x (1 - s) (2 u)')
    HWY_INLINE Vec slope() const {
        const Vec one = hn::Set(Floats(), 1.0f);
        const Vec inner = hn::MulAdd(x2, hn::Set(Floats(), 3 * twice_root * cubic), hn::Set(Floats(), twice_root));
        return hn::Mul(s, hn::MulAdd(hn::Mul(x, hn::Sub(one, s)), inner, one));
    }
};

// x Phi(x). With t = 1 / (1 + 0.3 |x|), Phi(-|x|) = e^(-x^2 / 2) t P(t): P is a minimax fit for |x| <= 8 with a
// relative error of 5e-8 (the form of Abramowitz & Stegun 7.1.26).
struct GeluErf {
    Vec x, bell, phi;
    HWY_INLINE explicit GeluErf(Vec at) : x(at) {
        const Floats d;
        const Vec one = hn::Set(d, 1.0f);
        bell = exp2_clamped(hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5f * log2_e)));
        const Vec t = one_over_one_plus(hn::Mul(hn::Abs(x), hn::Set(d, 0.3f)));
        Vec p = hn::MulAdd(hn::Set(d, 0.037409344f), t, hn::Set(d, -0.164424498f));
        p = hn::MulAdd(p, t, hn::Set(d, 0.218794538f));
        p = hn::MulAdd(p, t, hn::Set(d, -0.0651385604f));
        p = hn::MulAdd(p, t, hn::Set(d, 0.134624727f));
        p = hn::MulAdd(p, t, hn::Set(d, 0.0980767179f));
        p = hn::MulAdd(p, t, hn::Set(d, 0.121047431f));
        p = hn::MulAdd(p, t, hn::Set(d, 0.119610323f));
        const Vec tail = hn::Mul(hn::Mul(bell, t), p);
        phi = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
    }
    HWY_INLINE Vec value() const { return hn::Mul(x, phi); }
    // Phi(x) + x e^(-x^2 / 2) / sqrt(2 pi)
    HWY_INLINE Vec slope() const { return hn::MulAdd(hn::Mul(x, bell), hn::Set(Floats(), 0.3989422804014327f), phi); }
};

struct Relu {
    Vec x;
    HWY_INLINE explicit Relu(Vec at) : x(at) {}
    HWY_INLINE Vec value() const { return hn::IfThenElse(hn::Le(x, hn::Zero(Floats())), hn::Zero(Floats()), x); }
    HWY_INLINE Vec slope() const { return hn::IfThenElseZero(hn::Gt(x, hn::Zero(Floats())), hn::Set(Floats(), 1.0f)); }
};

struct Tanh {
    Vec t;
    HWY_INLINE explicit Tanh(Vec x) : t(hn::Tanh(Floats(), x)) {}
    HWY_INLINE Vec value() const { return t; }
    HWY_INLINE Vec slope() const { return hn::NegMulAdd(t, t, hn::Set(Floats(), 1.0f)); }
};

// Calls f with a null pointer of the function's type.
template <typename F> HWY_INLINE void with_act(Act act, const F & f) {
    switch (act) {
        case Act::silu: return f(static_cast<Silu *>(nullptr));
        case Act::gelu_tanh: return f(static_cast<GeluTanh *>(nullptr));
        case Act::gelu_erf: return f(static_cast<GeluErf *>(nullptr));
        case Act::relu: return f(static_cast<Relu *>(nullptr));
        case Act::tanh: return f(static_cast<Tanh *>(nullptr));
    }
}

template <typename A, typename T> void gated_row(const T * gate, const T * up, int64_t n, T * h) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        lanes.put(hn::Mul(A(lanes.get(gate + i)).value(), lanes.get(up + i)), h + i);
    });
}

// dup = dh act(g), dgate = dh u act'(g).
template <typename A, bool WithH, typename T>
void gated_backward_row(const T * gate, const T * up, const T * dh, int64_t n, T * dgate, T * dup, T * h) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        const A act(lanes.get(gate + i));
        const Vec u = lanes.get(up + i), d = lanes.get(dh + i), value = act.value();
        lanes.put(hn::Mul(hn::Mul(d, u), act.slope()), dgate + i);
        lanes.put(hn::Mul(d, value), dup + i);
        if constexpr (WithH) lanes.put(hn::Mul(value, u), h + i);
    });
}

void gated_rows(Matrix gate, Matrix up, Act act, Matrix h, int64_t begin, int64_t end) {
    with_act(act, [&]<typename A>(A *) {
        with_type(gate.type, [&]<typename T>(T *) {
            for (int64_t r = begin; r < end; ++r)
                gated_row<A>(gate.row_as<T>(r), up.row_as<T>(r), gate.cols, h.row_as<T>(r));
        });
    });
}

void gated_backward_rows(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int64_t begin,
                         int64_t end) {
    with_act(act, [&]<typename A>(A *) {
        with_type(gate.type, [&]<typename T>(T *) {
            const auto row = h ? gated_backward_row<A, true, T> : gated_backward_row<A, false, T>;
            for (int64_t r = begin; r < end; ++r) {
                row(gate.row_as<T>(r), up.row_as<T>(r), dh.row_as<T>(r), gate.cols, dgate.row_as<T>(r),
                    dup.row_as<T>(r), h ? h.row_as<T>(r) : nullptr);
            }
        });
    });
}

void activation_rows(Matrix x, Act act, Matrix h, int64_t begin, int64_t end) {
    with_act(act, [&]<typename A>(A *) {
        with_type(x.type, [&]<typename T>(T *) {
            for (int64_t r = begin; r < end; ++r) {
                const T * from = x.row_as<T>(r);
                T * to = h.row_as<T>(r);
                for_lanes(x.cols, [&](int64_t i, auto lanes) { lanes.put(A(lanes.get(from + i)).value(), to + i); });
            }
        });
    });
}

void activation_backward_rows(Matrix x, Act act, Matrix dh, Matrix dx, int64_t begin, int64_t end) {
    with_act(act, [&]<typename A>(A *) {
        with_type(x.type, [&]<typename T>(T *) {
            for (int64_t r = begin; r < end; ++r) {
                const T *at = x.row_as<T>(r), *from = dh.row_as<T>(r);
                T * to = dx.row_as<T>(r);
                for_lanes(x.cols, [&](int64_t i, auto lanes) {
                    lanes.put(hn::Mul(lanes.get(from + i), A(lanes.get(at + i)).slope()), to + i);
                });
            }
        });
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(gated_rows);
HWY_EXPORT(gated_backward_rows);
HWY_EXPORT(activation_rows);
HWY_EXPORT(activation_backward_rows);

void gated(Matrix gate, Matrix up, Act act, Matrix h, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(gated_rows);
    parallel_ranges(gate.rows, gate.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(gate, up, act, h, begin, end); });
}

void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(gated_backward_rows);
    parallel_ranges(gate.rows, gate.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(gate, up, act, dh, dgate, dup, h, begin, end); });
}

void activation(Matrix x, Act act, Matrix h, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(activation_rows);
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) { rows(x, act, h, begin, end); });
}

void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(activation_backward_rows);
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) { rows(x, act, dh, dx, begin, end); });
}

}  // namespace lorica::cpu
#endif
