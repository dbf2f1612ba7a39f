// Activation functions, alone and behind a gate (Shazeer 2020, "GLU variants improve transformer", eq. 5 and 6).
#pragma once

#include "backend/backend.h"

#include <cmath>
#include <numbers>

namespace lorica::reference {

struct ValueAndSlope {
    double value, slope;
};

inline ValueAndSlope activate(Act act, double x) {
    switch (act) {
        case Act::silu: {
            const double s = 1 / (1 + std::exp(-x));
            return {x * s, s + x * s * (1 - s)};
        }
        case Act::gelu_tanh: {
            const double root = std::sqrt(2 / std::numbers::pi), cubic = 0.044715;
            const double t = std::tanh(root * (x + cubic * x * x * x));
            return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * cubic * x * x)};
        }
        case Act::gelu_erf: {
            const double phi = 0.5 * std::erfc(-x / std::numbers::sqrt2);
            return {x * phi, phi + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi)};
        }
        case Act::relu: return {x > 0 ? x : 0, x > 0 ? 1.0 : 0.0};
        case Act::tanh: break;
    }
    const double t = std::tanh(x);
    return {t, 1 - t * t};
}

template <typename Real> void gated(Matrix gate, Matrix up, Act act, Matrix h) {
    for (int64_t t = 0; t < h.rows; ++t) {
        for (int64_t i = 0; i < h.cols; ++i) {
            h.row_as<Real>(t)[i] =
                static_cast<Real>(activate(act, gate.row_as<Real>(t)[i]).value * up.row_as<Real>(t)[i]);
        }
    }
}

// Both inputs are read before either output is written.
template <typename Real> void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) {
    for (int64_t t = 0; t < dh.rows; ++t) {
        for (int64_t i = 0; i < dh.cols; ++i) {
            const auto [value, slope] = activate(act, gate.row_as<Real>(t)[i]);
            const double u = up.row_as<Real>(t)[i], d = dh.row_as<Real>(t)[i];
            dgate.row_as<Real>(t)[i] = static_cast<Real>(d * u * slope);
            dup.row_as<Real>(t)[i] = static_cast<Real>(d * value);
        }
    }
}

template <typename Real> void activation(Matrix x, Act act, Matrix h) {
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t i = 0; i < x.cols; ++i) {
            h.row_as<Real>(t)[i] = static_cast<Real>(activate(act, x.row_as<Real>(t)[i]).value);
        }
    }
}

template <typename Real> void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx) {
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t i = 0; i < x.cols; ++i) {
            const double slope = activate(act, x.row_as<Real>(t)[i]).slope;
            dx.row_as<Real>(t)[i] = static_cast<Real>(slope * dh.row_as<Real>(t)[i]);
        }
    }
}

}  // namespace lorica::reference
