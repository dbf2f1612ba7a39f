#pragma once

#include "backend/backend.h"

#include <cmath>

namespace lorica::reference {

// m and r of one group, see Norm.
struct Statistics {
    double mean, inverse;
};
template <typename Real> Statistics statistics(const Real * x, int64_t n, const Norm & norm) {
    double mean = 0, squares = 0;
    if (norm.kind == Norm::layer) {
        for (int64_t i = 0; i < n; ++i) {
            mean += x[i];
        }
        mean /= static_cast<double>(n);
    }
    for (int64_t i = 0; i < n; ++i) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    return {mean, 1 / std::sqrt(squares / static_cast<double>(n) + norm.eps)};
}

// y = [residual +] (x - m) r w + b (Zhang & Sennrich 2019, "Root mean square layer normalization", eq. 4; Ba et al.
// 2016, "Layer normalization", eq. 4).
template <typename Real> void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) {
    const int64_t n = x.cols / norm.groups;
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t group = 0; group < norm.groups; ++group) {
            const Real * x_t = x.row_as<Real>(t) + group * n;
            const auto [mean, inverse] = statistics(x_t, n, norm);
            if (norm.statistics) {
                Real * kept = norm.statistics.row_as<Real>(t) + group;
                kept[0] = static_cast<Real>(inverse);
                if (norm.kind == Norm::layer) kept[norm.groups] = static_cast<Real>(mean);
            }
            for (int64_t i = 0; i < n; ++i) {
                double value = (x_t[i] - mean) * inverse * norm.weight[i];
                if (norm.bias) value += norm.bias[i];
                if (residual) value += residual.row_as<Real>(t)[group * n + i];
                y.row_as<Real>(t)[group * n + i] = static_cast<Real>(value);
            }
        }
    }
}

// dr/dx_i = -r^3 (x_i - m) / n and dm/dx_i = 1 / n, so that with g = w dy
//   dx_i += r (g_i - mean(g)) - (x_i - m) r^3 mean(g (x - m)), where the mean of g is there for a layer norm alone.
template <typename Real>
void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) {
    const int64_t n = x.cols / norm.groups;
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t group = 0; group < norm.groups; ++group) {
            const Real * x_t = x.row_as<Real>(t) + group * n;
            const Real * dy_t = dy.row_as<Real>(t) + group * n;
            Real * dx_t = dx.row_as<Real>(t) + group * n;
            const auto [mean, inverse] = statistics(x_t, n, norm);
            double sum = 0, dot = 0;
            for (int64_t i = 0; i < n; ++i) {
                if (norm.kind == Norm::layer) sum += norm.weight[i] * dy_t[i];
                dot += norm.weight[i] * dy_t[i] * (x_t[i] - mean);
            }
            const double through_mean = inverse * sum / static_cast<double>(n);
            const double along_x = inverse * inverse * inverse * dot / static_cast<double>(n);
            for (int64_t i = 0; i < n; ++i) {
                const double before = accumulate ? dx_t[i] : 0;
                dx_t[i] = static_cast<Real>(before + inverse * norm.weight[i] * dy_t[i] - (x_t[i] - mean) * along_x -
                                            through_mean);
                if (dx_act) dx_act.row_as<Real>(t)[group * n + i] = dx_t[i];
            }
        }
    }
}

// dw_i += sum dy_i (x_i - m) r, db_i += sum dy_i.
template <typename Real> void norm_gradient(Matrix dy, Matrix x, const Norm & norm, Real * dw, Real * db) {
    const int64_t n = x.cols / norm.groups;
    std::vector<double> sum_dw(n), sum_db(n);
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t group = 0; group < norm.groups; ++group) {
            const Real * x_t = x.row_as<Real>(t) + group * n;
            const Real * dy_t = dy.row_as<Real>(t) + group * n;
            const auto [mean, inverse] = statistics(x_t, n, norm);
            for (int64_t i = 0; i < n; ++i) {
                sum_dw[i] += dy_t[i] * (x_t[i] - mean) * inverse;
                sum_db[i] += dy_t[i];
            }
        }
    }
    for (int64_t i = 0; i < n; ++i) {
        if (dw) dw[i] = static_cast<Real>(dw[i] + sum_dw[i]);
        if (db) db[i] = static_cast<Real>(db[i] + sum_db[i]);
    }
}

}  // namespace lorica::reference
