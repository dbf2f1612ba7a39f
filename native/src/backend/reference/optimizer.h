#pragma once

#include "backend/backend.h"

#include <cmath>

namespace lorica::reference {

template <typename Real>
double sum_of_squares(const Real * x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += static_cast<double>(x[i]) * x[i];
    }
    return sum;
}

// Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2, with the decay multiplied by the
// learning rate as in PyTorch: g = grad_scale grad; m, v: running means of g and g^2; p -= lr (wd p + m' / (sqrt(v') +
// eps)), where m' and v' are corrected for their start at zero (Kingma & Ba 2015, section 3).
template <typename Real>
void adamw(Real * param, const Real * grad, Real * m, Real * v, int64_t n, const AdamwParams & params) {
    const double correction1 = 1 - std::pow(params.beta1, static_cast<double>(params.step));
    const double correction2 = 1 - std::pow(params.beta2, static_cast<double>(params.step));
    for (int64_t i = 0; i < n; ++i) {
        const double g = params.grad_scale * grad[i];
        const double m_i = params.beta1 * m[i] + (1 - params.beta1) * g;
        const double v_i = params.beta2 * v[i] + (1 - params.beta2) * g * g;
        const double step = m_i / correction1 / (std::sqrt(v_i / correction2) + params.eps);
        param[i] = static_cast<Real>(param[i] - params.learning_rate * (params.weight_decay * param[i] + step));
        m[i] = static_cast<Real>(m_i);
        v[i] = static_cast<Real>(v_i);
    }
}

}  // namespace lorica::reference
