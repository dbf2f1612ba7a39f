// Dense layers on the host, in f64: of the few rows that a classifier or the encoder of a prompt has.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace lorica {

// y[rows, out] = x[rows, in] W[out, in]^T + bias, which may be empty.
std::vector<double> times(std::span<const double> x, std::span<const double> w, std::span<const double> bias,
                          size_t rows, size_t in, size_t out);

// dx[rows, in] = dy W
std::vector<double> back(std::span<const double> dy, std::span<const double> w, size_t rows, size_t in, size_t out);

// dW[out, in] = dy^T x
std::vector<double> weight_gradient(std::span<const double> dy, std::span<const double> x, size_t rows, size_t in,
                                    size_t out);

// [out]
std::vector<double> column_sums(std::span<const double> dy, size_t rows, size_t out);

}  // namespace lorica
