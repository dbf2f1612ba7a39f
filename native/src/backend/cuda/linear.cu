// Linear layers with LoRA: y = [residual +] x W^T + scale (dropout(x) A^T) B^T, and its derivative. The adapter's
// second product is another stretch of k in the product with W, so that its sums stay in registers; its first is a
// narrow product of its own.
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"

#include "common/random.h"

#include <algorithm>
#include <vector>

namespace lorica::cuda {

namespace {

constexpr int64_t max_layers = 3;  // that share an input, in the workspace's reckoning: q, k and v

Matrix take_matrix(const Context & context, int64_t rows, int64_t cols, int64_t stride) {
    void * memory = context.act == Dtype::f32 ? static_cast<void *>(context.workspace.take<float>(rows * stride))
                                              : context.workspace.take<uint16_t>(rows * stride);
    return {memory, context.act, rows, cols, stride};
}

// A[rank, in] or B[out, rank] as an operand, times scale.
Matrix adapter_operand(const Context & context, const void * values, int64_t rows, int64_t cols, double scale) {
    const int64_t stride = round_up(cols, 8);
    const Matrix y = take_matrix(context, rows, cols, stride);
    convert(context, static_cast<const float *>(values), rows, cols, static_cast<float>(scale), y);
    return y;
}

GemmTerm dense_term(const Matrix & a, const Matrix & b, int64_t k) { return {a.data, a.stride, b.data, b.stride, k}; }

Gemm adapter_product(GemmLayout layout, int64_t m, int64_t n, const GemmTerm & term, const GemmResult & result) {
    Gemm gemm(layout, m, n, result);
    gemm.of_adapter = true;
    gemm.add(term);
    return gemm;
}

// += into a dense f32 matrix.
GemmResult add_to(void * gradient, int64_t stride) {
    GemmResult result;
    result.c = gradient;
    result.stride = stride;
    result.accumulate = true;
    return result;
}

}  // namespace

size_t linear_workspace_bytes(const WorkspaceShape & shape, Dtype act) {
    const int64_t features = round_up(shape.max_features, 8), rank = round_up(shape.max_rank, 8);
    // Copies of x and of every dy where they are no operands as they are, one with dropout; u and v; adapters.
    const int64_t elements = shape.max_tokens * (features * (max_layers + shape.dropout) + 2 * max_layers * rank) +
                             (shape.max_rank ? 2 * max_layers * rank * features : 0);
    return static_cast<size_t>(elements) * dtype_size(act) + panel_bytes(shape, act) +
           gemm_workspace_bytes(std::max(features, shape.max_tokens), rank) + 32 * Workspace::alignment;
}

void linear(const Context & context, Matrix x, std::span<const LinearForward> layers) {
    if (x.rows == 0) return;
    if (x.rows <= matvec_max_rows) return linear_few_rows(context, x, nullptr, layers);
    const Workspace::Mark mark(context.workspace);
    const Matrix input = operand(context, x);
    for (const LinearForward & layer : layers) {
        const Workspace::Mark one_layer(context.workspace);
        const Lora & lora = layer.lora;
        const int64_t in = layer.weight->in, out = layer.weight->out;
        if (lora) {
            const Workspace::Mark first_product(context.workspace);
            const Matrix dropped = lora.dropout.p > 0 ? operand(context, input, lora.dropout) : input;
            const Matrix a = adapter_operand(context, lora.a, lora.rank, in, 1);
            gemm(context, adapter_product(GemmLayout::forward, x.rows, lora.rank, dense_term(dropped, a, in),
                                          GemmResult::to(layer.u)));
        }
        if (!layer.y) continue;
        GemmResult result = GemmResult::to(layer.y);
        if (layer.residual) {
            result.residual = layer.residual.as<float>();
            result.residual_stride = layer.residual.stride;
        }
        GemmTerm second;
        if (lora) {
            const Matrix b = adapter_operand(context, lora.b, out, lora.rank, lora.scale);
            second = dense_term(operand(context, layer.u), b, lora.rank);
        }
        multiply_forward(context, input, *layer.weight, lora ? &second : nullptr, result);
    }
}

void linear_backward(const Context & context, Matrix x, std::span<const LinearBackward> layers, Matrix dx) {
    if (x.rows == 0) return;
    const Workspace::Mark mark(context.workspace);
    const int64_t n_tokens = x.rows, in = layers.front().weight->in;
    const bool any_gradient =
        std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.lora && layer.lora.da; });
    const Matrix input = any_gradient ? operand(context, x) : x;

    std::vector<BackwardTerm> weights;
    std::vector<GemmTerm> without_dropout;
    struct Dropped {
        GemmTerm term;
        Dropout dropout;
    };
    std::vector<Dropped> with_dropout;
    for (const LinearBackward & layer : layers) {
        const Lora & lora = layer.lora;
        const int64_t out = layer.weight->out;
        const Matrix dy = operand(context, layer.dy);
        weights.push_back({dy, layer.weight});
        if (!lora) continue;

        // v = scale dy B, the gradient of u
        const int64_t stride = round_up(lora.rank, 8);
        const Matrix v = take_matrix(context, n_tokens, lora.rank, stride);
        {
            const Workspace::Mark one_product(context.workspace);
            const Matrix b = adapter_operand(context, lora.b, out, lora.rank, 1);
            GemmResult result = GemmResult::to(v);
            result.scale = static_cast<float>(lora.scale);
            gemm(context, adapter_product(GemmLayout::backward, n_tokens, lora.rank, dense_term(dy, b, out), result));
        }
        if (lora.db) {
            const Workspace::Mark one_product(context.workspace);
            GemmResult result = add_to(lora.db, lora.rank);
            result.transposed = true;
            result.scale = static_cast<float>(lora.scale);
            const Matrix u = operand(context, layer.u);
            gemm(context, adapter_product(GemmLayout::gradient, lora.rank, out, dense_term(u, dy, n_tokens), result));
        }
        if (lora.da) {
            const Workspace::Mark one_product(context.workspace);
            const Matrix dropped = lora.dropout.p > 0 ? operand(context, input, lora.dropout) : input;
            gemm(context, adapter_product(GemmLayout::gradient, lora.rank, in, dense_term(v, dropped, n_tokens),
                                          add_to(lora.da, in)));
        }
        if (!dx) continue;
        const GemmTerm through_adapter = dense_term(v, adapter_operand(context, lora.a, lora.rank, in, 1), lora.rank);
        if (lora.dropout.p > 0) {
            with_dropout.push_back({through_adapter, lora.dropout});
        } else {
            without_dropout.push_back(through_adapter);
        }
    }
    if (!dx) return;

    multiply_backward(context, weights, without_dropout, n_tokens, GemmResult::to(dx));
    for (const Dropped & adapter : with_dropout) {
        GemmResult result = GemmResult::to(dx);
        result.accumulate = true;
        result.dropout_threshold = dropout_threshold(adapter.dropout.p);
        result.dropout_keep = static_cast<float>(1 / (1 - static_cast<double>(adapter.dropout.p)));
        result.dropout_seed = seed_of(adapter.dropout);
        Gemm through_adapter(GemmLayout::backward, n_tokens, in, result);
        through_adapter.add(adapter.term);
        gemm(context, through_adapter);
    }
}

}  // namespace lorica::cuda
