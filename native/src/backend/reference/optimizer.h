#pragma once

#include "backend/backend.h"
#include "common/dynamic_codebook.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lorica::reference {

template <typename Real> double sum_of_squares(const Real * x, int64_t n) {
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

// The code of the value nearest to x, the lower one of two that are equally near.
inline uint8_t nearest_code(const DynamicCodebook & codebook, double x) {
    size_t best = 0;
    for (size_t code = 1; code < codebook.size(); ++code) {
        if (std::abs(x - codebook[code]) < std::abs(x - codebook[best])) {
            best = code;
        }
    }
    return static_cast<uint8_t>(best);
}

// Dettmers et al. 2022, sections 2.1 and 2.2: block by block, moments are expanded, updated and used, and then divided
// by the largest of the block and rounded to the codebook.
template <typename Real>
void adamw_8bit(Real * param, const Real * grad, const Moments8bit & moments, int64_t n, const AdamwParams & params) {
    const DynamicCodebook signed_values = dynamic_codebook(true), unsigned_values = dynamic_codebook(false);
    for (int64_t first = 0, block = 0; first < n; first += Moments8bit::block_size, ++block) {
        const int64_t count = std::min(Moments8bit::block_size, n - first);
        std::vector<Real> m(count), v(count);
        for (int64_t i = 0; i < count; ++i) {
            m[i] = signed_values[moments.m[first + i]] * moments.m_scales[block];
            v[i] = unsigned_values[moments.v[first + i]] * moments.v_scales[block];
        }
        adamw(param + first, grad + first, m.data(), v.data(), count, params);
        Real m_max = 0, v_max = 0;
        for (int64_t i = 0; i < count; ++i) {
            m_max = std::max(m_max, std::abs(m[i]));
            v_max = std::max(v_max, v[i]);
        }
        for (int64_t i = 0; i < count; ++i) {
            moments.m[first + i] = nearest_code(signed_values, m_max > 0 ? m[i] / m_max : 0);
            moments.v[first + i] = nearest_code(unsigned_values, v_max > 0 ? v[i] / v_max : 0);
        }
        moments.m_scales[block] = static_cast<float>(m_max);
        moments.v_scales[block] = static_cast<float>(v_max);
    }
}

}  // namespace lorica::reference
