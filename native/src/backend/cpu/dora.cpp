#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dora.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <cmath>
#include <vector>

#include "backend/cpu/dora.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"
#include "gguf/dequantize.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

float DoraDot(const float * x, const float * y, int64_t n) {
    Vec sum = hn::Zero(Floats());
    for_lanes(n, [&](int64_t i, auto lanes) { sum = hn::MulAdd(lanes.get(x + i), lanes.get(y + i), sum); });
    return hn::ReduceSum(Floats(), sum);
}

void ScaleRows(Matrix x, const float * factors, const float * bias, Matrix residual, Matrix y, int64_t begin,
               int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(residual.type, [&]<typename R>(R *) {
            with_type(y.type, [&]<typename Y>(Y *) {
                for (int64_t t = begin; t < end; ++t) {
                    const X * from = x.row_as<X>(t);
                    Y * to = y.row_as<Y>(t);
                    const R * rest = residual ? residual.row_as<R>(t) : nullptr;
                    for_lanes(x.cols, [&](int64_t o, auto lanes) {
                        Vec value = lanes.get(from + o);
                        if (factors) value = hn::Mul(lanes.get(factors + o), value);
                        if (bias) value = hn::Add(lanes.get(bias + o), value);
                        lanes.put(rest ? hn::Add(lanes.get(rest + o), value) : value, to + o);
                    });
                }
            });
        });
    });
}

// Columns [first, first + n): all rows in order, so that the sums do not depend on who computes them.
void BackwardColumns(Matrix dy, Matrix y, const float * bias, Matrix residual, const DoraRows & rows,
                     float * d_magnitudes, Matrix dx, int64_t first, int64_t n) {
    constexpr int64_t most = 128;
    float sums[most] = {};
    const auto * factors = static_cast<const float *>(rows.factors) + first;
    const auto * slopes = static_cast<const float *>(rows.slopes) + first;
    with_type(dy.type, [&]<typename D>(D *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            with_type(dx.type, [&]<typename X>(X *) {
                for (int64_t t = 0; t < dy.rows; ++t) {
                    const D * d = dy.row_as<D>(t) + first;
                    const Y * own = y.row_as<Y>(t) + first;
                    const float * rest = residual ? residual.row_as<float>(t) + first : nullptr;
                    X * to = dx.row_as<X>(t) + first;
                    for_lanes(n, [&](int64_t o, auto lanes) {
                        const Vec gradient = lanes.get(d + o);
                        Vec value = lanes.get(own + o);
                        if (rest) value = hn::Sub(value, lanes.get(rest + o));
                        if (bias) value = hn::Sub(value, lanes.get(bias + first + o));
                        lanes.put(hn::MulAdd(gradient, value, lanes.get(sums + o)), sums + o);
                        lanes.put(hn::Mul(gradient, lanes.get(factors + o)), to + o);
                    });
                }
            });
        });
    });
    for (int64_t o = 0; o < n; ++o) d_magnitudes[first + o] += slopes[o] * sums[o];
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DoraDot);
HWY_EXPORT(ScaleRows);
HWY_EXPORT(BackwardColumns);

void row_squares(const Weight & weight, float * squares, int n_threads) {
    const auto dot = HWY_DYNAMIC_POINTER(DoraDot);
    parallel_ranges(weight.out, weight.in, n_threads, [&](int64_t begin, int64_t end) {
        std::vector<float> row(static_cast<size_t>(weight.in));
        for (int64_t o = begin; o < end; ++o) {
            dequantize_row(weight.type, weight.data + static_cast<size_t>(o) * weight.row_bytes, row.data(), weight.in);
            squares[o] = dot(row.data(), row.data(), weight.in);
        }
    });
}

void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows, int n_threads) {
    const auto dot = HWY_DYNAMIC_POINTER(DoraDot);
    const auto * a = static_cast<const float *>(lora.a);
    const auto * b = static_cast<const float *>(lora.b);
    const auto * squares = static_cast<const float *>(rows.squares);
    const auto * magnitudes = static_cast<const float *>(rows.magnitudes);
    auto * factors = static_cast<float *>(rows.factors);
    auto * slopes = static_cast<float *>(rows.slopes);
    const int64_t rank = lora.rank;

    std::vector<float> gram(static_cast<size_t>(rank * rank));  // A A^T
    parallel_ranges(rank, rank * in, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
            for (int64_t k = 0; k < rank; ++k)
                gram[static_cast<size_t>(j * rank + k)] = dot(a + j * in, a + k * in, in);
        }
    });
    parallel_ranges(out, rank * rank, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
            const float * b_o = b + o * rank;
            double square = squares[o];
            for (int64_t j = 0; j < rank; ++j) {
                const double own = lora.scale * static_cast<double>(dot(gram.data() + j * rank, b_o, rank));
                square += lora.scale * static_cast<double>(b_o[j]) *
                          (2 * static_cast<double>(rows.products.row_as<float>(j)[o]) + own);
            }
            const double start = std::sqrt(static_cast<double>(squares[o]));
            const double magnitude = start + rows.strength * (static_cast<double>(magnitudes[o]) - start);
            factors[o] = square > 0 ? static_cast<float>(magnitude / std::sqrt(square)) : 1.0f;
            slopes[o] = magnitude == 0 ? 0.0f : static_cast<float>(rows.strength / magnitude);
        }
    });
}

void scale_columns(Matrix x, const float * factors, Vector bias, Matrix residual, Matrix y, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(ScaleRows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, factors, bias.f32(), residual, y, begin, end); });
}

void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, float * d_magnitudes,
                   Matrix dx, int n_threads) {
    const auto columns = HWY_DYNAMIC_POINTER(BackwardColumns);
    constexpr int64_t width = 128;
    parallel_ranges((dy.cols + width - 1) / width, dy.rows * width, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
            const int64_t first = part * width;
            columns(dy, y, bias.f32(), residual, rows, d_magnitudes, dx, first, std::min(width, dy.cols - first));
        }
    });
}

}  // namespace lorica::cpu
#endif
