#include "backend/cpu/matvec.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "backend/cpu/dot_rows.h"
#include "backend/cpu/dropout.h"
#include "backend/cpu/gemm_kernels.h"
#include "common/bf16.h"

namespace lorica::cpu {

namespace {

static_assert(matvec_max_rows == dot_max_rows);

constexpr int64_t rows_per_task = 16;

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
    const DotInput input = prepare_dot_input(x, context.scratch);

    // u of each layer, as it is stored but in f32: [x.rows, rank]
    std::vector<float *> us(layers.size(), nullptr);
    std::vector<Task> tasks;
    for (size_t i = 0; i < layers.size(); ++i) {
        const Lora & lora = layers[i].lora;
        if (!lora) continue;
        us[i] = context.scratch.take_as<float>(x.rows * lora.rank);
        for (int64_t j = 0; j < lora.rank; ++j) tasks.push_back({i, j, 1});
    }
    const auto project = [&](const Task & task, const float * values) {
        const LinearForward & layer = layers[task.layer];
        const float * a = static_cast<const float *>(layer.lora.a) + task.first * x.cols;
        for (int64_t t = 0; t < x.rows; ++t) {
            store_one(layer.u, t, task.first, dot_f32(values + t * x.cols, a, x.cols));
            us[task.layer][t * layer.lora.rank + task.first] = load_one(layer.u, t, task.first);
        }
    };
    const bool any_dropout = std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.lora && layer.lora.dropout.p > 0; });
    if (any_dropout) {
        size_t of_layer = layers.size();
        const Scratch::Mark dropped_rows(context.scratch);
        const Matrix source{const_cast<float *>(input.values), Dtype::f32, x.rows, x.cols, x.cols};
        const Matrix dropped{context.scratch.take_as<float>(x.rows * x.cols), Dtype::f32, x.rows, x.cols, x.cols};
        for (const Task & task : tasks) {
            const Dropout & p = layers[task.layer].lora.dropout;
            if (p.p > 0 && task.layer != of_layer) dropout(source, p, dropped, context.n_threads);
            of_layer = task.layer;
            project(task, p.p > 0 ? dropped.as<float>() : input.values);
        }
    } else {
#pragma omp parallel for num_threads(context.n_threads) schedule(static) if (!tasks.empty())
        for (size_t i = 0; i < tasks.size(); ++i) project(tasks[i], input.values);
    }

    tasks.clear();
    for (size_t i = 0; i < layers.size(); ++i) {
        if (!layers[i].y) continue;
        for (int64_t first = 0; first < layers[i].weight->out; first += rows_per_task) {
            tasks.push_back({i, first, std::min(rows_per_task, layers[i].weight->out - first)});
        }
    }
    auto * expanded = context.scratch.take_as<float>(context.n_threads * x.cols);
#pragma omp parallel num_threads(context.n_threads)
    {
        float * own = expanded + omp_get_thread_num() * x.cols;
#pragma omp for schedule(static) nowait
        for (size_t i = 0; i < tasks.size(); ++i) {
            const LinearForward & layer = layers[tasks[i].layer];
            const Weight & w = *layer.weight;
            float sums[rows_per_task * matvec_max_rows];
            dot_rows(w, tasks[i].first, tasks[i].count, input, own, sums);
            for (int64_t n = tasks[i].first; n < tasks[i].first + tasks[i].count; ++n) {
                for (int64_t t = 0; t < x.rows; ++t) {
                    float sum = sums[(n - tasks[i].first) * matvec_max_rows + t];
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
