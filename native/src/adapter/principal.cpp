#include "adapter/principal.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/random.h"

namespace lorica {

namespace {

double dot(const double * a, const double * b, int64_t n) {
    double sums[4] = {};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int64_t j = 0; j < 4; ++j) sums[j] += a[i + j] * b[i + j];
    }
    for (; i < n; ++i) sums[0] += a[i] * b[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

// Rows one after another, twice (Gram & Schmidt); one that is a sum of those before it becomes 0.
void orthonormalize(std::vector<double> & rows, int64_t n) {
    const auto count = static_cast<int64_t>(rows.size()) / n;
    for (int64_t r = 0; r < count; ++r) {
        double * const row = rows.data() + r * n;
        const double size = std::sqrt(dot(row, row, n));
        for (int pass = 0; pass < 2; ++pass) {
            for (int64_t other = 0; other < r; ++other) {
                const double * const before = rows.data() + other * n;
                const double part = dot(row, before, n);
                for (int64_t i = 0; i < n; ++i) row[i] -= part * before[i];
            }
        }
        const double left = std::sqrt(dot(row, row, n));
        const double factor = left > 1e-10 * size ? 1 / left : 0;
        for (int64_t i = 0; i < n; ++i) row[i] *= factor;
    }
}

// Of a symmetric g[n, n]: eigenvalues on its diagonal, eigenvectors in the rows of the result (Jacobi 1846: turned
// until everything beside the diagonal is nothing).
std::vector<double> eigenvectors(std::vector<double> & g, int64_t n) {
    std::vector<double> v(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i * n + i)] = 1;
    const auto at = [n](std::vector<double> & m, int64_t i, int64_t j) -> double & {
        return m[static_cast<size_t>(i * n + j)];
    };
    for (int sweep = 0; sweep < 40; ++sweep) {
        double beside = 0, diagonal = 0;
        for (int64_t i = 0; i < n; ++i) {
            diagonal += at(g, i, i) * at(g, i, i);
            for (int64_t j = 0; j < i; ++j) beside += at(g, i, j) * at(g, i, j);
        }
        if (beside <= 1e-30 * diagonal) break;
        for (int64_t i = 0; i < n; ++i) {
            for (int64_t j = i + 1; j < n; ++j) {
                const double off = at(g, i, j);
                if (off == 0) continue;
                const double half = (at(g, j, j) - at(g, i, i)) / (2 * off);
                const double t = (half < 0 ? -1 : 1) / (std::abs(half) + std::sqrt(half * half + 1));
                const double c = 1 / std::sqrt(t * t + 1), s = t * c;
                const auto turn = [&](double & x, double & y) {
                    const double old = x;
                    x = c * old - s * y;
                    y = s * old + c * y;
                };
                for (int64_t k = 0; k < n; ++k) turn(at(g, k, i), at(g, k, j));
                for (int64_t k = 0; k < n; ++k) turn(at(g, i, k), at(g, j, k));
                for (int64_t k = 0; k < n; ++k) turn(at(v, i, k), at(v, j, k));
            }
        }
    }
    return v;
}

// x[q, n] of hidden numbers on the device.
class HiddenRows {
public:
    HiddenRows(Backend & backend, int64_t rows, int64_t cols)
        : backend_(backend),
          matrix_{backend.allocate(static_cast<size_t>(rows * cols) * dtype_size(backend.formats().hidden)),
                  backend.formats().hidden, rows, cols, cols} {}
    ~HiddenRows() { backend_.release(matrix_.data); }
    HiddenRows(const HiddenRows &) = delete;
    HiddenRows & operator=(const HiddenRows &) = delete;

    const Matrix & matrix() const { return matrix_; }
    void put(const std::vector<double> & values) {
        if (matrix_.type == Dtype::f64) return backend_.copy_to_device(matrix_.data, values.data(), matrix_.n_bytes());
        const std::vector<float> narrow(values.begin(), values.end());
        backend_.copy_to_device(matrix_.data, narrow.data(), matrix_.n_bytes());
    }
    std::vector<double> take() const {
        std::vector<double> values(static_cast<size_t>(matrix_.rows * matrix_.cols));
        if (matrix_.type == Dtype::f64) {
            backend_.copy_to_host(values.data(), matrix_.data, matrix_.n_bytes());
            return values;
        }
        std::vector<float> narrow(values.size());
        backend_.copy_to_host(narrow.data(), matrix_.data, matrix_.n_bytes());
        std::copy(narrow.begin(), narrow.end(), values.begin());
        return values;
    }

private:
    Backend & backend_;
    Matrix matrix_;
};

}  // namespace

int64_t principal_width(const Weight & weight, int64_t rank) {
    constexpr int64_t more = 16;
    return std::min({weight.in, weight.out, rank + more});
}

PrincipalParts principal_parts(Backend & backend, const Weight & weight, int64_t rank, int32_t iterations,
                               uint64_t seed) {
    constexpr int32_t most_iterations = 32, between_looks = 4;
    const int64_t width = principal_width(weight, rank);
    HiddenRows x(backend, width, weight.in), y(backend, width, weight.out);
    std::vector<double> right(static_cast<size_t>(width * weight.in));
    for (size_t i = 0; i < right.size(); ++i) right[i] = random_normal(seed, i);
    orthonormalize(right, weight.in);

    PrincipalParts parts;
    std::vector<double> left, square(static_cast<size_t>(width * width)), turned, before;
    std::vector<int64_t> order(static_cast<size_t>(width));
    const bool is_whole = width == std::min(weight.in, weight.out);
    const int32_t most = is_whole ? 1 : iterations > 0 ? iterations : most_iterations;
    for (int32_t i = 1; i <= most; ++i) {
        x.put(right);
        const LinearForward forward{&weight, {}, {}, {}, y.matrix()};
        backend.linear(x.matrix(), {&forward, 1});
        left = y.take();
        orthonormalize(left, weight.out);
        y.put(left);
        const LinearBackward backward{&weight, {}, {}, y.matrix()};
        backend.linear_backward(x.matrix(), {&backward, 1}, false, x.matrix());  // of which dx alone is wanted
        right = x.take();
        if (i == most || (iterations == 0 && i % between_looks == 0)) {
            for (int64_t r = 0; r < width; ++r) {
                for (int64_t c = 0; c <= r; ++c) {
                    const double * const row = right.data() + r * weight.in;
                    square[static_cast<size_t>(r * width + c)] = square[static_cast<size_t>(c * width + r)] =
                        dot(row, right.data() + c * weight.in, weight.in);
                }
            }
            turned = eigenvectors(square, width);
            std::iota(order.begin(), order.end(), 0);
            const auto value = [&](int64_t r) { return square[static_cast<size_t>(r * width + r)]; };
            std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value(a) > value(b); });
            parts.values.clear();
            for (int64_t r = 0; r < rank; ++r)
                parts.values.push_back(std::sqrt(std::max(0.0, value(order[static_cast<size_t>(r)]))));
            double moved = 0;
            for (size_t r = 0; r < before.size(); ++r) moved = std::max(moved, std::abs(parts.values[r] - before[r]));
            if (!before.empty() && moved <= 1e-4 * parts.values[0]) break;
            before = parts.values;
        }
        if (i < most) orthonormalize(right, weight.in);
    }

    parts.left.resize(static_cast<size_t>(rank * weight.out));
    parts.right.resize(static_cast<size_t>(rank * weight.in));
    for (int64_t r = 0; r < rank; ++r) {
        const double * const combination = turned.data() + order[static_cast<size_t>(r)] * width;
        const double size = parts.values[static_cast<size_t>(r)];
        for (int64_t k = 0; k < width; ++k) {
            for (int64_t j = 0; j < weight.out; ++j)
                parts.left[static_cast<size_t>(r * weight.out + j)] +=
                    combination[k] * left[static_cast<size_t>(k * weight.out + j)];
            for (int64_t j = 0; size > 0 && j < weight.in; ++j)
                parts.right[static_cast<size_t>(r * weight.in + j)] +=
                    combination[k] / size * right[static_cast<size_t>(k * weight.in + j)];
        }
    }
    return parts;
}

}  // namespace lorica
