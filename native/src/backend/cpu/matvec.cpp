#include "backend/cpu/matvec.h"

#include <algorithm>
#include <vector>

#include "backend/cpu/dot_rows.h"
#include "backend/cpu/dropout.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/parallel.h"
#include "common/bf16.h"

namespace lorica::cpu {

namespace {

static_assert(matvec_max_rows == dot_max_rows);

constexpr int64_t unit_rows = strip_rows;      // threads share rows in units of so many, which the kernels take at once
constexpr int64_t piece_rows = 2 * unit_rows;  // whose sums are stored together

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

struct Projection {
    size_t layer;
    int64_t row;  // of A
};

// Rows first to first + count of one layer, from sums[t * piece_rows + row].
void finish_rows(const LinearForward & layer, const float * us, int64_t x_rows, int64_t first, int64_t count,
                 float * sums) {
    for (int64_t t = 0; t < x_rows; ++t) {
        float * row = sums + t * piece_rows;
        if (layer.lora) {
            const auto * b = static_cast<const float *>(layer.lora.b) + first * layer.lora.rank;
            add_row_dots_f32(b, count, us + t * layer.lora.rank, layer.lora.rank, static_cast<float>(layer.lora.scale),
                             row);
        }
        if (layer.bias) {
            const float * bias = layer.bias.f32() + first;
            for (int64_t i = 0; i < count; ++i) row[i] += bias[i];
        }
        if (layer.residual) {
            const float * residual = layer.residual.row_as<float>(t) + first;
            for (int64_t i = 0; i < count; ++i) row[i] += residual[i];
        }
        if (layer.y.type == Dtype::bf16) {
            convert_f32_to_bf16(row, layer.y.row_as<uint16_t>(t) + first, count);
        } else {
            std::copy_n(row, count, layer.y.row_as<float>(t) + first);
        }
    }
}

}  // namespace

void linear_few_rows(const Context & context, Matrix x, std::span<const LinearForward> layers) {
    const Scratch::Mark mark(context.scratch);
    const DotInput input = prepare_dot_input(x, context.scratch);
    std::vector<const std::byte *> copies(layers.size(), nullptr);
    if (context.interleaved && input.has_ints()) {
        for (size_t i = 0; i < layers.size(); ++i) copies[i] = context.interleaved->find(*layers[i].weight);
    }

    // u of each layer, as it is stored but in f32: [x.rows, rank]
    std::vector<float *> us(layers.size(), nullptr);
    std::vector<Projection> tasks;
    for (size_t i = 0; i < layers.size(); ++i) {
        const Lora & lora = layers[i].lora;
        if (!lora) continue;
        us[i] = context.scratch.take_as<float>(x.rows * lora.rank);
        for (int64_t j = 0; j < lora.rank; ++j) tasks.push_back({i, j});
    }
    const auto project = [&](const Projection & task, const float * values) {
        const LinearForward & layer = layers[task.layer];
        const float * a = static_cast<const float *>(layer.lora.a) + task.row * x.cols;
        const Matrix & gate = layer.lora.gate;
        for (int64_t t = 0; t < x.rows; ++t) {
            float product = dot_f32(values + t * x.cols, a, x.cols);
            if (gate) product *= gate.row_as<float>(t)[task.row / (layer.lora.rank / gate.cols)];
            store_one(layer.u, t, task.row, product);
            us[task.layer][t * layer.lora.rank + task.row] = load_one(layer.u, t, task.row);
        }
    };
    const bool any_dropout = std::any_of(layers.begin(), layers.end(),
                                         [](const auto & layer) { return layer.lora && layer.lora.dropout.p > 0; });
    if (any_dropout) {
        size_t of_layer = layers.size();
        const Scratch::Mark dropped_rows(context.scratch);
        const Matrix source{const_cast<float *>(input.values), Dtype::f32, x.rows, x.cols, x.cols};
        const Matrix dropped{context.scratch.take_as<float>(x.rows * x.cols), Dtype::f32, x.rows, x.cols, x.cols};
        for (const Projection & task : tasks) {
            const Dropout & p = layers[task.layer].lora.dropout;
            if (p.p > 0 && task.layer != of_layer) dropout(source, p, dropped, context.n_threads);
            of_layer = task.layer;
            project(task, p.p > 0 ? dropped.as<float>() : input.values);
        }
    } else if (!tasks.empty()) {
        parallel_pieces(static_cast<int64_t>(tasks.size()), context.n_threads, [&](int, int64_t begin, int64_t end) {
            for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
                project(tasks[i], input.values);
        });
    }

    const auto units_of = [](const LinearForward & layer) {
        return layer.y ? (layer.weight->out + unit_rows - 1) / unit_rows : 0;
    };
    int64_t units = 0;
    for (const LinearForward & layer : layers) units += units_of(layer);
    auto * expanded = context.scratch.take_as<float>(context.n_threads * dot_scratch_rows * x.cols);
    parallel_pieces(units, context.n_threads, [&](int rank, int64_t begin, int64_t end) {
        // begin and end count from the current layer's first
        for (size_t i = 0; i < layers.size() && end > 0; ++i) {
            const LinearForward & layer = layers[i];
            const int64_t last = std::min(end * unit_rows, layer.y ? layer.weight->out : 0);
            for (int64_t first = std::max<int64_t>(begin, 0) * unit_rows; first < last; first += piece_rows) {
                const int64_t count = std::min(piece_rows, last - first);
                float sums[piece_rows * dot_max_rows];
                if (copies[i]) {
                    dot_interleaved(*layer.weight, copies[i], first, count, input, sums, piece_rows);
                } else {
                    dot_rows(*layer.weight, first, count, input, expanded + rank * dot_scratch_rows * x.cols, sums,
                             piece_rows);
                }
                finish_rows(layer, us[i], x.rows, first, count, sums);
            }
            begin -= units_of(layer);
            end -= units_of(layer);
        }
    });
}

}  // namespace lorica::cpu
