// Operations that pick whole rows.
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"

namespace lorica::reference {

template <typename Real> void embed(const Weight & embedding, const int32_t * tokens, Matrix x) {
    WeightRows rows(embedding);
    for (int64_t t = 0; t < x.rows; ++t) {
        const float * row = rows[tokens[t]];
        for (int64_t i = 0; i < x.cols; ++i) {
            x.row_as<Real>(t)[i] = row[i];
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

}  // namespace lorica::reference
