// DoRA (Liu et al. 2024, "DoRA: weight-decomposed low-rank adaptation", equation 5): y = m / |W + s B A| (x W^T + s u
// B^T), norms by row of the sum. They are constants to the backward pass (section 4.3), so that only m and the
// direction have gradients.
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"

#include <cmath>

namespace lorica::reference {

template <typename Real> void row_squares(const Weight & weight, Real * squares) {
    WeightRows rows(weight);
    for (int64_t o = 0; o < weight.out; ++o) {
        const double * row = rows[o];
        double sum = 0;
        for (int64_t i = 0; i < weight.in; ++i) {
            sum += row[i] * row[i];
        }
        squares[o] = static_cast<Real>(sum);
    }
}

template <typename Real> void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) {
    const auto * a = static_cast<const Real *>(lora.a);
    const auto * b = static_cast<const Real *>(lora.b);
    const auto * squares = static_cast<const Real *>(rows.squares);
    const auto * magnitudes = static_cast<const Real *>(rows.magnitudes);
    std::vector<double> gram(lora.rank * lora.rank);
    for (int64_t j = 0; j < lora.rank; ++j) {
        for (int64_t k = 0; k < lora.rank; ++k) {
            for (int64_t i = 0; i < in; ++i) {
                gram[j * lora.rank + k] += static_cast<double>(a[j * in + i]) * a[k * in + i];
            }
        }
    }
    for (int64_t o = 0; o < out; ++o) {
        const Real * b_o = b + o * lora.rank;
        double square = squares[o];
        for (int64_t j = 0; j < lora.rank; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < lora.rank; ++k) {
                sum += gram[j * lora.rank + k] * b_o[k];
            }
            square +=
                lora.scale * b_o[j] * (2 * static_cast<double>(rows.products.row_as<Real>(j)[o]) + lora.scale * sum);
        }
        const double start = std::sqrt(static_cast<double>(squares[o]));
        const double magnitude = start + rows.strength * (magnitudes[o] - start);
        static_cast<Real *>(rows.factors)[o] = static_cast<Real>(square > 0 ? magnitude / std::sqrt(square) : 1);
        static_cast<Real *>(rows.slopes)[o] = static_cast<Real>(magnitude == 0 ? 0 : rows.strength / magnitude);
    }
}

// What y has besides factors x.
template <typename Real> Real rest(const Vector & bias, const Matrix & residual, int64_t t, int64_t o) {
    return static_cast<Real>((residual ? residual.row_as<Real>(t)[o] : 0) + (bias ? bias[o] : 0));
}

template <typename Real>
void scale_columns(Matrix x, const Real * factors, const Vector & bias, Matrix residual, Matrix y) {
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t o = 0; o < x.cols; ++o) {
            const Real factor = factors ? factors[o] : 1;
            y.row_as<Real>(t)[o] = rest<Real>(bias, residual, t, o) + factor * x.row_as<Real>(t)[o];
        }
    }
}

template <typename Real>
void dora_backward(Matrix dy, Matrix y, const Vector & bias, Matrix residual, const DoraRows & rows,
                   Real * d_magnitudes, Matrix dx) {
    const auto * factors = static_cast<const Real *>(rows.factors);
    const auto * slopes = static_cast<const Real *>(rows.slopes);
    for (int64_t o = 0; o < dy.cols; ++o) {
        double sum = 0;
        for (int64_t t = 0; t < dy.rows; ++t) {
            const double own = static_cast<double>(y.row_as<Real>(t)[o]) - rest<Real>(bias, residual, t, o);
            sum += dy.row_as<Real>(t)[o] * own;
            dx.row_as<Real>(t)[o] = factors[o] * dy.row_as<Real>(t)[o];
        }
        d_magnitudes[o] = static_cast<Real>(d_magnitudes[o] + slopes[o] * sum);
    }
}

}  // namespace lorica::reference
