#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matvec.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>


#include <omp.h>

#include <algorithm>
#include <vector>

#include "backend/cpu/dequantize-inl.h"
#include "backend/cpu/dropout.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/matvec.h"
#include "common/bf16.h"
#include "gguf/dequantize.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// Products of one row of W with Rows rows of x (f32, stride elements apart). The row is expanded in registers.
template <int Rows>
void dot_expanded(const Weight & w, const std::byte * row, const float * HWY_RESTRICT x, int64_t stride, float * HWY_RESTRICT out) {
    const Floats d;
    // Two sums per row of x, so that one multiply-add need not wait for the one before.
    Vec sum[Rows][2];
    for (int r = 0; r < Rows; ++r) sum[r][0] = sum[r][1] = hn::Zero(d);
    for_pieces(w.type, row, 0, w.in, [&](Vec values, int64_t at, int64_t i) HWY_ATTR {
        for (int r = 0; r < Rows; ++r) {
            Vec & into = sum[r][i / lanes % 2];
            into = hn::MulAdd(values, load(x + r * stride + at + i), into);
        }
    });
    for (int r = 0; r < Rows; ++r) out[r] = hn::ReduceSum(d, hn::Add(sum[r][0], sum[r][1]));
}

// scratch: w.in floats, used by types without vector code.
void DotRow(const Weight & w, const std::byte * row, const float * x, int64_t stride, int64_t rows, float * scratch, float * out) {
    if (!can_expand(w.type) || w.in % 32 != 0) {
        dequantize_row(w.type, row, scratch, w.in);
        for (int64_t r = 0; r < rows; ++r) out[r] = dot_f32(x + r * stride, scratch, w.in);
        return;
    }
    switch (rows) {
        case 1: return dot_expanded<1>(w, row, x, stride, out);
        case 2: return dot_expanded<2>(w, row, x, stride, out);
        case 3: return dot_expanded<3>(w, row, x, stride, out);
        default: return dot_expanded<4>(w, row, x, stride, out);
    }
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(DotRow);
static_assert(matvec_max_rows == 4);

namespace {

constexpr int64_t rows_per_task = 16;

void load_row(const Matrix & x, int64_t row, float * out) {
    if (x.type == Dtype::bf16) {
        convert_bf16_to_f32(x.row_as<uint16_t>(row), out, x.cols);
    } else {
        std::copy_n(x.row_as<float>(row), x.cols, out);
    }
}

void store_one(const Matrix & y, int64_t row, int64_t col, float value) {
    if (y.type == Dtype::bf16) {
        y.row_as<uint16_t>(row)[col] = Bf16(value).bits;
    } else {
        y.row_as<float>(row)[col] = value;
    }
}

float load_one(const Matrix & x, int64_t row, int64_t col) {
    if (x.type == Dtype::f32) return x.row_as<float>(row)[col];
    Bf16 value;
    value.bits = x.row_as<uint16_t>(row)[col];
    return static_cast<float>(value);
}

struct Task {
    size_t layer;
    int64_t first, count;
};

}  // namespace

void linear_few_rows(const Context & context, Matrix x, std::span<const LinearForward> layers) {
    const Scratch::Mark mark(context.scratch);
    auto * rows = context.scratch.take_as<float>(x.rows * x.cols);
    for (int64_t t = 0; t < x.rows; ++t) load_row(x, t, rows + t * x.cols);

    // u of each layer, as it is stored but in f32: [x.rows, rank]
    std::vector<float *> us(layers.size(), nullptr);
    std::vector<Task> tasks;
    for (size_t i = 0; i < layers.size(); ++i) {
        const Lora & lora = layers[i].lora;
        if (!lora) continue;
        us[i] = context.scratch.take_as<float>(x.rows * lora.rank);
        for (int64_t j = 0; j < lora.rank; ++j) tasks.push_back({i, j, 1});
    }
    const auto project = [&](const Task & task, const float * input) {
        const LinearForward & layer = layers[task.layer];
        const float * a = static_cast<const float *>(layer.lora.a) + task.first * x.cols;
        for (int64_t t = 0; t < x.rows; ++t) {
            store_one(layer.u, t, task.first, dot_f32(input + t * x.cols, a, x.cols));
            us[task.layer][t * layer.lora.rank + task.first] = load_one(layer.u, t, task.first);
        }
    };
    const bool any_dropout = std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.lora && layer.lora.dropout.p > 0; });
    if (any_dropout) {
        size_t of_layer = layers.size();
        const Scratch::Mark dropped_rows(context.scratch);
        const Matrix source{rows, Dtype::f32, x.rows, x.cols, x.cols};
        const Matrix dropped{context.scratch.take_as<float>(x.rows * x.cols), Dtype::f32, x.rows, x.cols, x.cols};
        for (const Task & task : tasks) {
            const Dropout & p = layers[task.layer].lora.dropout;
            if (p.p > 0 && task.layer != of_layer) dropout(source, p, dropped, context.n_threads);
            of_layer = task.layer;
            project(task, p.p > 0 ? dropped.as<float>() : rows);
        }
    } else {
#pragma omp parallel for num_threads(context.n_threads) schedule(static) if (!tasks.empty())
        for (size_t i = 0; i < tasks.size(); ++i) project(tasks[i], rows);
    }

    tasks.clear();
    for (size_t i = 0; i < layers.size(); ++i) {
        if (!layers[i].y) continue;
        for (int64_t first = 0; first < layers[i].weight->out; first += rows_per_task) {
            tasks.push_back({i, first, std::min(rows_per_task, layers[i].weight->out - first)});
        }
    }
    const auto dot_row = HWY_DYNAMIC_POINTER(DotRow);
    auto * expanded = context.scratch.take_as<float>(context.n_threads * x.cols);
#pragma omp parallel num_threads(context.n_threads)
    {
        float * own = expanded + omp_get_thread_num() * x.cols;
#pragma omp for schedule(static)
        for (size_t i = 0; i < tasks.size(); ++i) {
            const LinearForward & layer = layers[tasks[i].layer];
            const Weight & w = *layer.weight;
            for (int64_t n = tasks[i].first; n < tasks[i].first + tasks[i].count; ++n) {
                float sums[matvec_max_rows];
                dot_row(w, w.data + static_cast<size_t>(n) * w.row_bytes, rows, x.cols, x.rows, own, sums);
                for (int64_t t = 0; t < x.rows; ++t) {
                    float sum = sums[t];
                    if (layer.lora) {
                        const float * b = static_cast<const float *>(layer.lora.b) + n * layer.lora.rank;
                        const float * u = us[tasks[i].layer] + t * layer.lora.rank;
                        sum += static_cast<float>(layer.lora.scale) * dot_f32(u, b, layer.lora.rank);
                    }
                    if (layer.residual) sum += layer.residual.row_as<float>(t)[n];
                    store_one(layer.y, t, n, sum);
                }
            }
        }
    }
}

}  // namespace lorica::cpu
#endif
