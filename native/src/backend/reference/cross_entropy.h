// The output head W[vocabulary, in] and the loss over it: z = logits of x W^T [+ LoRA], nll = log(sum exp z) -
// z[label].
#pragma once

#include "backend/backend.h"
#include "backend/reference/linear.h"
#include "backend/reference/weight_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lorica::reference {

// z = cap tanh(scale p / cap) of a product p, and dz/dp.
struct Logit {
    double value, slope;
};
inline Logit logit(double product, const LogitSpec & spec) {
    const double sum = product * spec.scale;
    if (spec.cap == 0) return {sum, spec.scale};
    const double t = std::tanh(sum / spec.cap);
    return {spec.cap * t, spec.scale * (1 - t * t)};
}

// The products of rows of x with a head: x w_c + scale u b_c, u = gate dropout(x) A^T.
template <typename Real> class HeadProducts {
public:
    HeadProducts(Matrix x, const Head & head) : x_(x), head_(head), u_(x.rows * head.lora.rank) {
        const Lora & lora = head.lora;
        for (int64_t t = 0; t < x.rows && lora; ++t) {
            for (int64_t r = 0; r < lora.rank; ++r) {
                double sum = 0;
                for (int64_t i = 0; i < x.cols; ++i) sum += dropped(t, i) * a(r, i);
                u_[t * lora.rank + r] = gate_factor(lora, t, r) * sum;
            }
        }
    }

    double of(int64_t t, const double * w_c, int64_t c) const {
        double sum = 0, update = 0;
        for (int64_t i = 0; i < x_.cols; ++i) sum += x_.row_as<Real>(t)[i] * w_c[i];
        for (int64_t r = 0; r < head_.lora.rank; ++r) update += u(t, r) * b(c, r);
        return sum + head_.lora.scale * update;
    }

    double u(int64_t t, int64_t r) const { return u_[t * head_.lora.rank + r]; }
    double a(int64_t r, int64_t i) const { return static_cast<const Real *>(head_.lora.a)[r * x_.cols + i]; }
    double b(int64_t c, int64_t r) const { return static_cast<const Real *>(head_.lora.b)[c * head_.lora.rank + r]; }
    double factor(int64_t t, int64_t i) const { return dropout_factor(head_.lora.dropout, t, i, x_.cols); }
    double dropped(int64_t t, int64_t i) const { return x_.row_as<Real>(t)[i] * factor(t, i); }

private:
    Matrix x_;
    const Head & head_;
    std::vector<double> u_;  // [T, rank]
};

template <typename Real> void logits(Matrix x, const Head & head, float * out) {
    const Weight & w = *head.weight;
    const HeadProducts<Real> products(x, head);
    WeightRows rows(w);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            out[t * w.out + c] = static_cast<float>(logit(products.of(t, w_c, c), head.logits).value);
        }
    }
}

// dnll/dz_c = softmax(z)_c - [c == label], added up over the labels of a row with their weights, dx = dz W, dW += dz^T
// x; with v = gate scale dz B: dB += scale dz^T u, dA += v^T dropout(x), dx += dropout'(v A). No logit is kept: the
// first pass over the vocabulary finds each row's log-sum-exp with a running maximum (Milakov & Gimelshein 2018,
// "Online normalizer calculation for softmax", algorithm 3), the second makes the logits again.
template <typename Real>
void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, Real * nll, Matrix dx) {
    const Weight & w = *head.weight;
    const Lora & lora = head.lora;
    const HeadProducts<Real> products(x, head);
    WeightRows rows(w);
    const int64_t n_labels = head.n_labels;
    std::vector<double> max(x.rows, -std::numeric_limits<double>::infinity()), sum(x.rows);
    std::vector<double> label_logit(x.rows * n_labels);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        for (int64_t t = 0; t < x.rows; ++t) {
            const double z = logit(products.of(t, w_c, c), head.logits).value;
            const double new_max = std::max(max[t], z);
            sum[t] = sum[t] * std::exp(max[t] - new_max) + std::exp(z - new_max);
            max[t] = new_max;
            for (int64_t k = t * n_labels; k < (t + 1) * n_labels; ++k) {
                if (c == labels[k]) label_logit[k] = z;
            }
        }
    }
    std::vector<double> lse(x.rows);
    for (int64_t t = 0; t < x.rows; ++t) {
        lse[t] = max[t] + std::log(sum[t]);
        for (int64_t k = t * n_labels; k < (t + 1) * n_labels; ++k) {
            nll[k] = static_cast<Real>(lse[t] - label_logit[k]);
        }
    }
    if (!dx && !head.dw && !lora.da) {
        return;
    }

    std::vector<double> sum_dx(x.rows * w.in), sum_dw(w.in), v(x.rows * lora.rank), sum_db(lora.rank);
    for (int64_t c = 0; c < w.out; ++c) {
        const double * w_c = rows[c];
        std::fill(sum_dw.begin(), sum_dw.end(), 0);
        std::fill(sum_db.begin(), sum_db.end(), 0);
        for (int64_t t = 0; t < x.rows; ++t) {
            const auto [z, slope] = logit(products.of(t, w_c, c), head.logits);
            double weight = 0, of_label = 0;
            for (int64_t k = t * n_labels; k < (t + 1) * n_labels; ++k) {
                const double own = head.row_weights ? head.row_weights[k] : 1;
                weight += own;
                of_label += c == labels[k] ? own : 0;
            }
            const double dz = slope * (weight * std::exp(z - lse[t]) - of_label);
            for (int64_t i = 0; i < w.in; ++i) {
                sum_dx[t * w.in + i] += dz * w_c[i];
                sum_dw[i] += dz * x.row_as<Real>(t)[i];
            }
            for (int64_t r = 0; r < lora.rank; ++r) {
                v[t * lora.rank + r] += gate_factor(lora, t, r) * lora.scale * dz * products.b(c, r);
                sum_db[r] += lora.scale * dz * products.u(t, r);
            }
        }
        Real * db_c = lora.db ? static_cast<Real *>(lora.db) + c * lora.rank : nullptr;
        for (int64_t r = 0; db_c && r < lora.rank; ++r) {
            db_c[r] = static_cast<Real>(db_c[r] + sum_db[r]);
        }
        Real * dw_c = head.dw ? static_cast<Real *>(head.dw) + c * w.in : nullptr;
        for (int64_t i = 0; dw_c && i < w.in; ++i) {
            dw_c[i] = static_cast<Real>(dw_c[i] + sum_dw[i]);
        }
    }
    for (int64_t r = 0; r < lora.rank; ++r) {
        Real * da_r = lora.da ? static_cast<Real *>(lora.da) + r * w.in : nullptr;
        for (int64_t i = 0; i < w.in; ++i) {
            double sum_da = 0;
            for (int64_t t = 0; t < x.rows; ++t) {
                const double v_tr = v[t * lora.rank + r];
                sum_da += v_tr * products.dropped(t, i);
                sum_dx[t * w.in + i] += products.factor(t, i) * v_tr * products.a(r, i);
            }
            if (da_r) da_r[i] = static_cast<Real>(da_r[i] + sum_da);
        }
    }
    for (int64_t t = 0; dx && t < x.rows; ++t) {
        for (int64_t i = 0; i < w.in; ++i) {
            dx.row_as<Real>(t)[i] = static_cast<Real>(sum_dx[t * w.in + i]);
        }
    }
}

}  // namespace lorica::reference
