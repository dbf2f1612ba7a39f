// Rows looked up, gathered, scattered and converted.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_rows.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"
#include "gguf/dequantize.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// y[i] = x[i], or x[rows[i]] where rows are given.
void copy_rows(Matrix x, const int32_t * rows, Matrix y, int64_t begin, int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            for (int64_t r = begin; r < end; ++r) {
                const X * from = x.row_as<X>(rows ? rows[r] : r);
                Y * to = y.row_as<Y>(r);
                for_lanes(y.cols, [&](int64_t i, auto lanes) { lanes.put(lanes.get(from + i), to + i); });
            }
        });
    });
}

void add_rows(Matrix dy, const int32_t * rows, Matrix dx, int64_t begin, int64_t end) {
    with_type(dy.type, [&]<typename Y>(Y *) {
        with_type(dx.type, [&]<typename X>(X *) {
            for (int64_t r = begin; r < end; ++r) {
                const Y * from = dy.row_as<Y>(r);
                X * to = dx.row_as<X>(rows[r]);
                for_lanes(dy.cols, [&](int64_t i, auto lanes) {
                    lanes.put(hn::Add(lanes.get(to + i), lanes.get(from + i)), to + i);
                });
            }
        });
    });
}

// x = or += factor row.
void put_scaled(const float * row, float factor, bool accumulate, Matrix x) {
    const Vec scale = hn::Set(Floats(), factor);
    with_type(x.type, [&]<typename X>(X *) {
        X * to = x.row_as<X>(0);
        for_lanes(x.cols, [&](int64_t i, auto lanes) {
            const Vec scaled = hn::Mul(lanes.get(row + i), scale);
            lanes.put(accumulate ? hn::Add(lanes.get(to + i), scaled) : scaled, to + i);
        });
    });
}

// y[r] = factor times, or factors[r] times, x[r].
void scaled_rows(Matrix x, const float * factors, float factor, Matrix y, int64_t begin, int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            for (int64_t r = begin; r < end; ++r) {
                const X * from = x.row_as<X>(r);
                Y * to = y.row_as<Y>(r);
                const Vec scale = hn::Set(Floats(), factors ? factors[r] : factor);
                for_lanes(x.cols,
                          [&](int64_t i, auto lanes) { lanes.put(hn::Mul(lanes.get(from + i), scale), to + i); });
            }
        });
    });
}

// sums[i] += factor x[i] for `count` columns of one row from `first` on.
void add_columns(Matrix x, int64_t row, int64_t first, int64_t count, float factor, float * sums) {
    const Vec scale = hn::Set(Floats(), factor);
    with_type(x.type, [&]<typename X>(X *) {
        const X * from = x.row_as<X>(row) + first;
        for_lanes(count, [&](int64_t i, auto lanes) {
            lanes.put(hn::MulAdd(lanes.get(from + i), scale, lanes.get(sums + i)), sums + i);
        });
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(copy_rows);
HWY_EXPORT(add_rows);
HWY_EXPORT(put_scaled);
HWY_EXPORT(scaled_rows);
HWY_EXPORT(add_columns);

namespace {

// Calls f(first, count) for parts of n columns; whoever takes a part sees all rows in order, so that sums over rows do
// not depend on who that is.
template <typename F> void for_column_parts(int64_t n_rows, int64_t n, int n_threads, const F & f) {
    parallel_ranges((n + gradient_columns - 1) / gradient_columns, n_rows * gradient_columns, n_threads,
                    [&](int64_t begin, int64_t end) {
                        for (int64_t first = begin * gradient_columns; first < std::min(n, end * gradient_columns);
                             first += gradient_columns) {
                            f(first, std::min(gradient_columns, n - first));
                        }
                    });
}

}  // namespace

void embed(const Weight & embedding, const int32_t * tokens, const EmbedOptions & options, Matrix x, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(copy_rows);
    const auto put = HWY_DYNAMIC_POINTER(put_scaled);
    const bool plain = options.scale == 1 && !options.accumulate;
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) {
        // A row of f32 is the destination itself; otherwise it goes through a buffer of whole blocks.
        constexpr int64_t buffer_size = 4096;
        float buffer[buffer_size];
        const int64_t block = ggml_blck_size(embedding.type);
        const int64_t step = buffer_size / block * block;
        for (int64_t r = begin; r < end; ++r) {
            if (tokens[r] < 0) {
                put(options.virtual_rows.row_as<float>(-1 - tokens[r]), 1, options.accumulate, x.slice_rows(r, 1));
                continue;
            }
            const std::byte * row = embedding.data + static_cast<size_t>(tokens[r]) * embedding.row_bytes;
            if (plain && x.type == Dtype::f32) {
                dequantize_row(embedding.type, row, x.row_as<float>(r), embedding.in);
                continue;
            }
            for (int64_t first = 0; first < embedding.in; first += step) {
                const int64_t n = std::min(step, embedding.in - first);
                dequantize_row(embedding.type, row + ggml_row_size(embedding.type, first), buffer, n);
                const Matrix part{static_cast<std::byte *>(x.row(r)) + static_cast<size_t>(first) * dtype_size(x.type),
                                  x.type, 1, n, n};
                if (plain) {
                    rows({buffer, Dtype::f32, 1, n, n}, nullptr, part, 0, 1);
                } else {
                    put(buffer, static_cast<float>(options.scale), options.accumulate, part);
                }
            }
        }
    });
}

void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale, float * d_table,
                    int n_threads) {
    const auto add = HWY_DYNAMIC_POINTER(add_columns);
    for_column_parts(n, dx.cols, n_threads, [&](int64_t first, int64_t count) {
        for (int64_t i = 0; i < n;) {
            float sums[gradient_columns] = {};
            const int32_t id = ids[i];
            for (; i < n && ids[i] == id; ++i) add(dx, rows[i], first, count, 1, sums);
            float * row = d_table + id * dx.cols + first;
            for (int64_t o = 0; o < count; ++o) row[o] += static_cast<float>(scale) * sums[o];
        }
    });
}

void add_column_sums(Matrix x, float * sums, int n_threads) {
    const auto add = HWY_DYNAMIC_POINTER(add_columns);
    for_column_parts(x.rows, x.cols, n_threads, [&](int64_t first, int64_t count) {
        float own[gradient_columns] = {};
        for (int64_t t = 0; t < x.rows; ++t) add(x, t, first, count, 1, own);
        for (int64_t o = 0; o < count; ++o) sums[first + o] += own[o];
    });
}

void scale_rows(Matrix x, const float * factors, double factor, Matrix y, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(scaled_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, factors, static_cast<float>(factor), y, begin, end); });
}

void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y, int n_threads) {
    const auto add = HWY_DYNAMIC_POINTER(add_columns);
    const auto put = HWY_DYNAMIC_POINTER(put_scaled);
    for_column_parts(x.rows, x.cols, n_threads, [&](int64_t first, int64_t count) {
        for (size_t s = 0; s < segments.size(); ++s) {
            float sums[gradient_columns] = {};
            for (int64_t t = 0; t < segments[s].q_len; ++t) add(x, segments[s].q_begin + t, first, count, 1, sums);
            const Matrix part{static_cast<std::byte *>(y.row(static_cast<int64_t>(s))) +
                                  static_cast<size_t>(first) * dtype_size(y.type),
                              y.type, 1, count, count};
            put(sums, 1 / static_cast<float>(segments[s].q_len), false, part);
        }
    });
}

void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx, int n_threads) {
    const auto add = HWY_DYNAMIC_POINTER(add_columns);
    for (size_t s = 0; s < segments.size(); ++s) {
        const Segment & segment = segments[s];
        const float share = 1 / static_cast<float>(segment.q_len);
        parallel_ranges(segment.q_len, dx.cols, n_threads, [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t)
                add(dy, static_cast<int64_t>(s), 0, dx.cols, share, dx.row_as<float>(segment.q_begin + t));
        });
    }
}

void gather_rows(Matrix x, const int32_t * rows, Matrix y, int n_threads) {
    const auto copy = HWY_DYNAMIC_POINTER(copy_rows);
    parallel_ranges(y.rows, y.cols, n_threads, [&](int64_t begin, int64_t end) { copy(x, rows, y, begin, end); });
}

void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx, int n_threads) {
    const auto add = HWY_DYNAMIC_POINTER(add_rows);
    parallel_ranges(dy.rows, dy.cols, n_threads, [&](int64_t begin, int64_t end) { add(dy, rows, dx, begin, end); });
}

void convert(Matrix x, Matrix y, int n_threads) {
    const auto copy = HWY_DYNAMIC_POINTER(copy_rows);
    parallel_ranges(y.rows, y.cols, n_threads, [&](int64_t begin, int64_t end) { copy(x, nullptr, y, begin, end); });
}

}  // namespace lorica::cpu
#endif
