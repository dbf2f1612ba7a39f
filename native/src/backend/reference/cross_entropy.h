// The output head W[vocabulary, in] and the loss over it: z = logits of x W^T, nll = log(sum exp z) - z[label].
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lorica::reference {

// cap tanh(scale x w / cap), and its slope with respect to x w.
struct Logit {
    double value, slope;
};
template <typename Real> Logit logit(const Real * x, const double * w, int64_t n, const LogitSpec & spec) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += x[i] * w[i];
    }
    sum *= spec.scale;
    if (spec.cap == 0) return {sum, spec.scale};
    const double t = std::tanh(sum / spec.cap);
    return {spec.cap * t, spec.scale * (1 - t * t)};
}

template <typename Real> void logits(Matrix x, const Head & head, float * out) {
    const Weight & w = *head.weight;
    WeightRows rows(w);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            out[t * w.out + c] = static_cast<float>(logit(x.row_as<Real>(t), w_c, w.in, head.logits).value);
        }
    }
}

// dnll/dz_c = softmax(z)_c - [c == label], dx = dz W, dW += dz^T x. No logit is kept: the first pass over the
// vocabulary finds each row's log-sum-exp with a running maximum (Milakov & Gimelshein 2018, "Online normalizer
// calculation for softmax", algorithm 3), the second makes the logits again.
template <typename Real>
void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, Real * nll, Matrix dx) {
    const Weight & w = *head.weight;
    WeightRows rows(w);
    std::vector<double> max(x.rows, -std::numeric_limits<double>::infinity()), sum(x.rows), label_logit(x.rows);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            const double z = logit(x.row_as<Real>(t), w_c, w.in, head.logits).value;
            const double new_max = std::max(max[t], z);
            sum[t] = sum[t] * std::exp(max[t] - new_max) + std::exp(z - new_max);
            max[t] = new_max;
            if (c == labels[t]) {
                label_logit[t] = z;
            }
        }
    }
    std::vector<double> lse(x.rows);
    for (int64_t t = 0; t < x.rows; ++t) {
        lse[t] = max[t] + std::log(sum[t]);
        nll[t] = static_cast<Real>(lse[t] - label_logit[t]);
    }
    if (!dx && !head.dw) {
        return;
    }

    std::vector<double> sum_dx(x.rows * w.in), sum_dw(w.in);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        std::fill(sum_dw.begin(), sum_dw.end(), 0);
        for (int64_t t = 0; t < x.rows; ++t) {
            const auto [z, slope] = logit(x.row_as<Real>(t), w_c, w.in, head.logits);
            const double weight = head.row_weights ? head.row_weights[t] : 1;
            const double dz = weight * slope * (std::exp(z - lse[t]) - (c == labels[t] ? 1 : 0));
            for (int64_t i = 0; i < w.in; ++i) {
                sum_dx[t * w.in + i] += dz * w_c[i];
                sum_dw[i] += dz * x.row_as<Real>(t)[i];
            }
        }
        Real * dw_c = head.dw ? static_cast<Real *>(head.dw) + c * w.in : nullptr;
        for (int64_t i = 0; dw_c && i < w.in; ++i) {
            dw_c[i] = static_cast<Real>(dw_c[i] + sum_dw[i]);
        }
    }
    for (int64_t t = 0; dx && t < x.rows; ++t) {
        for (int64_t i = 0; i < w.in; ++i) {
            dx.row_as<Real>(t)[i] = static_cast<Real>(sum_dx[t * w.in + i]);
        }
    }
}

}  // namespace lorica::reference
