// Finite differences in f64, on the reference backend, which works on plain memory: the five-point stencil
//   J'(x) = (J(x - 2h) - 8 J(x - h) + 8 J(x + h) - J(x + 2h)) / 12h + O(h^4).
// With h = 1e-3 both its truncation and its rounding stay near 1e-12.
#pragma once

#include "support/backend_tensors.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

namespace lorica::test {

constexpr double gradient_tolerance = 1e-8;

inline std::unique_ptr<Backend> reference() { return make_backend("reference", Dtype::f64, 1); }

inline Matrix matrix(Values & values, int64_t rows, int64_t cols) {
    EXPECT_EQ(static_cast<int64_t>(values.size()), rows * cols);
    return {values.data(), Dtype::f64, rows, cols, cols};
}

inline double dot(const Values & a, const Values & b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

inline Values minus(Values a, const Values & b) {
    for (size_t i = 0; i < a.size(); ++i) {
        a[i] -= b[i];
    }
    return a;
}

// objective reads `at`, which is changed in place and restored.
inline Values finite_differences(Values & at, const std::function<double()> & objective) {
    constexpr double h = 1e-3;
    Values gradient(at.size());
    for (size_t i = 0; i < at.size(); ++i) {
        const double x = at[i];
        auto with = [&](double offset) {
            at[i] = x + offset;
            return objective();
        };
        gradient[i] = (with(-2 * h) - 8 * with(-h) + 8 * with(h) - with(2 * h)) / (12 * h);
        at[i] = x;
    }
    return gradient;
}

// One segment per length, one after the other, queries and keys alike.
inline std::vector<Segment> packed(std::initializer_list<int32_t> lengths) {
    std::vector<Segment> segments;
    int32_t begin = 0;
    for (const int32_t length : lengths) {
        segments.push_back({begin, length, begin, length});
        begin += length;
    }
    return segments;
}

}  // namespace lorica::test
