#pragma once

#include "backend/backend.h"

#include <algorithm>
#include <cmath>

namespace lorica::reference {

// y = x w / rms(x) with rms(x) = sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, "Root mean square layer normalization",
// eq. 4).
template <typename Real> double inverse_rms(const Real * x, int64_t n, double eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += static_cast<double>(x[i]) * x[i];
    }
    return 1 / std::sqrt(sum / static_cast<double>(n) + eps);
}

template <typename Real> void rmsnorm(Matrix x, const Norm & norm, Matrix y) {
    for (int64_t t = 0; t < x.rows; ++t) {
        const Real * x_t = x.row_as<Real>(t);
        Real * y_t = y.row_as<Real>(t);
        const double r = inverse_rms(x_t, x.cols, norm.eps);
        if (norm.inverse_rms) *norm.inverse_rms.row_as<Real>(t) = static_cast<Real>(r);
        for (int64_t i = 0; i < x.cols; ++i) {
            y_t[i] = static_cast<Real>(x_t[i] * r * norm.weight[i]);
        }
    }
}

// With r = 1 / rms(x), dr/dx_i = -r^3 x_i / n, so dx_i += r w_i dy_i - x_i r^3 / n sum_j w_j dy_j x_j.
template <typename Real> void rmsnorm_backward(Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act) {
    for (int64_t t = 0; t < x.rows; ++t) {
        const Real * x_t = x.row_as<Real>(t);
        const Real * dy_t = dy.row_as<Real>(t);
        Real * dx_t = dx.row_as<Real>(t);
        const double r = inverse_rms(x_t, x.cols, norm.eps);
        double dot = 0;
        for (int64_t i = 0; i < x.cols; ++i) {
            dot += static_cast<double>(norm.weight[i]) * dy_t[i] * x_t[i];
        }
        const double along_x = r * r * r * dot / static_cast<double>(x.cols);
        for (int64_t i = 0; i < x.cols; ++i) {
            dx_t[i] = static_cast<Real>(dx_t[i] + r * norm.weight[i] * dy_t[i] - x_t[i] * along_x);
        }
        if (dx_act) std::copy_n(dx_t, x.cols, dx_act.row_as<Real>(t));
    }
}

// The pair (2i, 2i + 1) turns by the angle position * inverse_frequency[i] (Su et al. 2021, "RoFormer", eq. 34). A
// rotation's derivative is the rotation, so that its transpose, backward, is the rotation by the negative angle.
template <typename Real>
void rope(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
          bool inverse) {
    for (int64_t t = 0; t < x.rows; ++t) {
        for (size_t i = 0; i < inverse_frequency.size(); ++i) {
            const double angle = positions[t] * inverse_frequency[i];
            const double cosine = std::cos(angle);
            const double sine = inverse ? -std::sin(angle) : std::sin(angle);
            for (int64_t head = 0; head < x.cols / head_dim; ++head) {
                Real * pair = x.row_as<Real>(t) + head * head_dim + 2 * i;
                const double x0 = pair[0], x1 = pair[1];
                pair[0] = static_cast<Real>(x0 * cosine - x1 * sine);
                pair[1] = static_cast<Real>(x0 * sine + x1 * cosine);
            }
        }
    }
}

// h = silu(gate) up, silu(g) = g / (1 + exp(-g)) (Shazeer 2020, "GLU variants improve transformer", eq. 6).
template <typename Real> void swiglu(Matrix gate, Matrix up, Matrix h) {
    for (int64_t t = 0; t < h.rows; ++t) {
        for (int64_t i = 0; i < h.cols; ++i) {
            const double g = gate.row_as<Real>(t)[i];
            h.row_as<Real>(t)[i] = static_cast<Real>(g / (1 + std::exp(-g)) * up.row_as<Real>(t)[i]);
        }
    }
}

// With s = 1 / (1 + exp(-g)): dsilu/dg = s + g s (1 - s). Both inputs are read before either output is written.
template <typename Real> void swiglu_backward(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup) {
    for (int64_t t = 0; t < dh.rows; ++t) {
        for (int64_t i = 0; i < dh.cols; ++i) {
            const double g = gate.row_as<Real>(t)[i], u = up.row_as<Real>(t)[i], d = dh.row_as<Real>(t)[i];
            const double s = 1 / (1 + std::exp(-g));
            dgate.row_as<Real>(t)[i] = static_cast<Real>(d * u * (s + g * s * (1 - s)));
            dup.row_as<Real>(t)[i] = static_cast<Real>(d * g * s);
        }
    }
}

template <typename Real>
void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, int32_t head_dim,
                     std::span<const double> inverse_frequency, Matrix k_cache, Matrix v_cache) {
    rope<Real>(q, positions, head_dim, inverse_frequency, false);
    rope<Real>(k, positions, head_dim, inverse_frequency, false);
    for (int64_t t = 0; t < k.rows; ++t) {
        std::copy_n(k.row_as<Real>(t), k.cols, k_cache.row_as<Real>(positions[t]));
        std::copy_n(v.row_as<Real>(t), v.cols, v_cache.row_as<Real>(positions[t]));
    }
}

}  // namespace lorica::reference
