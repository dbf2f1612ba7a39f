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

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(copy_rows);
HWY_EXPORT(add_rows);

void embed(const Weight & embedding, const int32_t * tokens, Matrix x, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(copy_rows);
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) {
        // A row of f32 is the destination itself; otherwise it goes through a buffer of whole blocks.
        constexpr int64_t buffer_size = 4096;
        float buffer[buffer_size];
        const int64_t block = ggml_blck_size(embedding.type);
        const int64_t step = buffer_size / block * block;
        for (int64_t r = begin; r < end; ++r) {
            const std::byte * row = embedding.data + static_cast<size_t>(tokens[r]) * embedding.row_bytes;
            if (x.type == Dtype::f32) {
                dequantize_row(embedding.type, row, x.row_as<float>(r), embedding.in);
                continue;
            }
            for (int64_t first = 0; first < embedding.in; first += step) {
                const int64_t n = std::min(step, embedding.in - first);
                dequantize_row(embedding.type, row + ggml_row_size(embedding.type, first), buffer, n);
                rows({buffer, Dtype::f32, 1, n, n}, nullptr, {x.row_as<Bf16>(r) + first, x.type, 1, n, n}, 0, 1);
            }
        }
    });
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
