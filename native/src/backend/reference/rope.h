// Rotary position embedding (Su et al. 2021, "RoFormer", eq. 34).
#pragma once

#include "backend/backend.h"

#include <algorithm>
#include <cmath>

namespace lorica::reference {

// A pair turns by the angle position * inverse_frequency[i] and grows by m = growth(). Its derivative is the transpose,
// m times the rotation by the negative angle; its inverse is that divided by m^2.
template <typename Real> void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) {
    const bool forward = direction == RopeDirection::forward;
    const auto n = static_cast<int64_t>(rope.inverse_frequency.size());
    for (int64_t t = 0; t < x.rows; ++t) {
        const double factor = growth(rope, direction, positions[t]);
        for (int64_t i = 0; i < n; ++i) {
            const double angle = positions[t] * rope.inverse_frequency[i];
            const double cosine = factor * std::cos(angle);
            const double sine = (forward ? factor : -factor) * std::sin(angle);
            for (int64_t head = 0; head < x.cols; head += rope.head_dim) {
                Real & first = x.row_as<Real>(t)[head + (rope.halves ? i : 2 * i)];
                Real & second = x.row_as<Real>(t)[head + (rope.halves ? i + n : 2 * i + 1)];
                const double x0 = first, x1 = second;
                first = static_cast<Real>(x0 * cosine - x1 * sine);
                second = static_cast<Real>(x0 * sine + x1 * cosine);
            }
        }
    }
}

template <typename Real>
void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows, const Rope & how,
                     Matrix k_cache, Matrix v_cache) {
    rope<Real>(q, positions, how, RopeDirection::forward);
    Rope of_k = how;
    of_k.temperature = 0;
    rope<Real>(k, positions, of_k, RopeDirection::forward);
    for (int64_t t = 0; t < k.rows; ++t) {
        const int64_t row = rows ? rows[t] : positions[t];
        std::copy_n(k.row_as<Real>(t), k.cols, k_cache.row_as<Real>(row));
        std::copy_n(v.row_as<Real>(t), v.cols, v_cache.row_as<Real>(row));
    }
}

}  // namespace lorica::reference
