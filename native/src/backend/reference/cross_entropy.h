// The output head W[vocabulary, in] and the loss over it: z = x W^T, nll = log(sum exp z) - z[label].
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lorica::reference {

template <typename Real> double head_product(const Real * x, const float * w, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += static_cast<double>(x[i]) * w[i];
    }
    return sum;
}

template <typename Real> void logits(Matrix x, const Weight & head, float * out) {
    WeightRows rows(head);
    for (int64_t c = 0; c < head.out; ++c) {
        const float * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            out[t * head.out + c] = static_cast<float>(head_product(x.row_as<Real>(t), w_c, head.in));
        }
    }
}

// dnll/dz_c = softmax(z)_c - [c == label], dx = dz W. No logit is kept: the first pass over the vocabulary finds each
// row's log-sum-exp with a running maximum (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax",
// algorithm 3), the second makes the logits again.
template <typename Real>
void linear_cross_entropy(Matrix x, const Weight & head, const int32_t * labels, Real * nll, Matrix dx) {
    WeightRows rows(head);
    std::vector<double> max(x.rows, -std::numeric_limits<double>::infinity()), sum(x.rows), label_logit(x.rows);
    for (int64_t c = 0; c < head.out; ++c) {
        const float * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            const double z = head_product(x.row_as<Real>(t), w_c, head.in);
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
    if (!dx) {
        return;
    }

    std::vector<double> sum_dx(x.rows * head.in);
    for (int64_t c = 0; c < head.out; ++c) {
        const float * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            const double z = head_product(x.row_as<Real>(t), w_c, head.in);
            const double dz = std::exp(z - lse[t]) - (c == labels[t] ? 1 : 0);
            for (int64_t i = 0; i < head.in; ++i) {
                sum_dx[t * head.in + i] += dz * w_c[i];
            }
        }
    }
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t i = 0; i < head.in; ++i) {
            dx.row_as<Real>(t)[i] = static_cast<Real>(sum_dx[t * head.in + i]);
        }
    }
}

}  // namespace lorica::reference
