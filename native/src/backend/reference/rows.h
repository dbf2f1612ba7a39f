// Operations on whole rows.
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"

namespace lorica::reference {

template <typename Real> void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) {
    WeightRows rows(table);
    for (int64_t t = 0; t < x.rows; ++t) {
        const double * row = ids[t] >= 0 ? rows[ids[t]] : nullptr;
        const Real * own = row ? nullptr : options.virtual_rows.row_as<Real>(-1 - ids[t]);
        for (int64_t i = 0; i < x.cols; ++i) {
            Real & element = x.row_as<Real>(t)[i];
            const double value = row ? options.scale * row[i] : own[i];
            element = static_cast<Real>(options.accumulate ? element + value : value);
        }
    }
}

// The derivative of embed: ids[i] is the row that row rows[i] of x came from.
template <typename Real>
void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale, Real * d_table) {
    std::vector<double> sum(dx.cols);
    for (int64_t first = 0, end = 0; first < n; first = end) {
        std::fill(sum.begin(), sum.end(), 0);
        for (; end < n && ids[end] == ids[first]; ++end) {
            for (int64_t i = 0; i < dx.cols; ++i) {
                sum[i] += dx.row_as<Real>(rows[end])[i];
            }
        }
        Real * row = d_table + ids[first] * dx.cols;
        for (int64_t i = 0; i < dx.cols; ++i) {
            row[i] = static_cast<Real>(row[i] + scale * sum[i]);
        }
    }
}

template <typename Real> void gather_rows(Matrix x, const int32_t * rows, Matrix y) {
    for (int64_t t = 0; t < y.rows; ++t) {
        for (int64_t i = 0; i < y.cols; ++i) {
            y.row_as<Real>(t)[i] = x.row_as<Real>(rows[t])[i];
        }
    }
}

// The derivative of gather_rows.
template <typename Real> void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) {
    for (int64_t t = 0; t < dy.rows; ++t) {
        for (int64_t i = 0; i < dy.cols; ++i) {
            dx.row_as<Real>(rows[t])[i] += dy.row_as<Real>(t)[i];
        }
    }
}

// factors null: of all rows the same.
template <typename Real> void scale_rows(Matrix x, const float * factors, double factor, Matrix y) {
    for (int64_t t = 0; t < x.rows; ++t) {
        for (int64_t i = 0; i < x.cols; ++i) {
            y.row_as<Real>(t)[i] = static_cast<Real>((factors ? factors[t] : factor) * x.row_as<Real>(t)[i]);
        }
    }
}

template <typename Real> void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y) {
    for (size_t s = 0; s < segments.size(); ++s) {
        for (int64_t i = 0; i < x.cols; ++i) {
            double sum = 0;
            for (int64_t t = 0; t < segments[s].q_len; ++t) {
                sum += x.row_as<Real>(segments[s].q_begin + t)[i];
            }
            y.row_as<Real>(static_cast<int64_t>(s))[i] = static_cast<Real>(sum / segments[s].q_len);
        }
    }
}

template <typename Real> void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx) {
    for (size_t s = 0; s < segments.size(); ++s) {
        for (int64_t t = 0; t < segments[s].q_len; ++t) {
            for (int64_t i = 0; i < dx.cols; ++i) {
                Real & element = dx.row_as<Real>(segments[s].q_begin + t)[i];
                element = static_cast<Real>(element + static_cast<double>(dy.row_as<Real>(static_cast<int64_t>(s))[i]) /
                                                          segments[s].q_len);
            }
        }
    }
}

}  // namespace lorica::reference
