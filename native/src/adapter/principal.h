// The largest singular values of a weight and their vectors, from products with it alone: the weight stays in its
// blocks, wherever it is.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace lorica {

struct PrincipalParts {
    std::vector<double> values;  // [rank], falling
    std::vector<double> left;    // [rank, out], orthonormal rows
    std::vector<double> right;   // [rank, in]
};

// Subspace iteration with a few more vectors than are wanted (Halko, Martinsson & Tropp 2011, algorithm 4.4, and 5.1
// for what comes of it); exact where these are as many as the smaller side of W. iterations 0: until the values stay
// within 1e-4 of the largest, or 32. The same seed gives the same on one device. rank <= min(in, out). The backend has
// workspace for training with principal_width() tokens.
PrincipalParts principal_parts(Backend & backend, const Weight & weight, int64_t rank, int32_t iterations,
                               uint64_t seed);

// Vectors that it works with.
int64_t principal_width(const Weight & weight, int64_t rank);

}  // namespace lorica
