#include "common/dense.h"

namespace lorica {

std::vector<double> times(std::span<const double> x, std::span<const double> w, std::span<const double> bias,
                          size_t rows, size_t in, size_t out) {
    std::vector<double> w_t(w.size());  // sums over rows of this go along the outputs, several at once
    for (size_t o = 0; o < out; ++o) {
        for (size_t i = 0; i < in; ++i) w_t[i * out + o] = w[o * in + i];
    }
    std::vector<double> y(rows * out);
    for (size_t r = 0; r < rows; ++r) {
        double * const to = y.data() + r * out;
        for (size_t o = 0; o < out; ++o) to[o] = bias.empty() ? 0 : bias[o];
        for (size_t i = 0; i < in; ++i) {
            const double factor = x[r * in + i];
            const double * const column = w_t.data() + i * out;
            for (size_t o = 0; o < out; ++o) to[o] += factor * column[o];
        }
    }
    return y;
}

std::vector<double> back(std::span<const double> dy, std::span<const double> w, size_t rows, size_t in, size_t out) {
    std::vector<double> dx(rows * in);
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = 0; o < out; ++o) {
            const double factor = dy[r * out + o];
            for (size_t i = 0; i < in; ++i) dx[r * in + i] += factor * w[o * in + i];
        }
    }
    return dx;
}

std::vector<double> weight_gradient(std::span<const double> dy, std::span<const double> x, size_t rows, size_t in,
                                    size_t out) {
    std::vector<double> dw(out * in);
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = 0; o < out; ++o) {
            const double factor = dy[r * out + o];
            for (size_t i = 0; i < in; ++i) dw[o * in + i] += factor * x[r * in + i];
        }
    }
    return dw;
}

std::vector<double> column_sums(std::span<const double> dy, size_t rows, size_t out) {
    std::vector<double> sums(out);
    for (size_t r = 0; r < rows; ++r) {
        for (size_t o = 0; o < out; ++o) sums[o] += dy[r * out + o];
    }
    return sums;
}

}  // namespace lorica
