// Linear layers with LoRA: y = [residual +] x W^T + scale (dropout(x) A^T) B^T, and its derivative. The adapter's
// second product is another stretch of k in the product with W, so that its sums stay in registers; its first is a
// narrow product of its own. The adapters of layers with one input are stacked where they can be, so that x is read
// once for all of them: A as [sum of ranks, in], u and v side by side.
#include "backend/cuda/adapter_copies.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"

#include "common/random.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace lorica::cuda {

namespace {

Matrix take_matrix(const Context & context, int64_t rows, int64_t cols, int64_t stride) {
    void * memory = context.act == Dtype::f32 ? static_cast<void *>(context.workspace.take<float>(rows * stride))
                                              : context.workspace.take<uint16_t>(rows * stride);
    return {memory, context.act, rows, cols, stride};
}

// The adapters of layers as operands: those that are kept or, where there is no room for them, made for this call.
template <typename Layers> Adapters adapters_of(const Context & context, const Layers & layers) {
    AdapterCopies::Key key;
    Adapters all;
    int64_t rank = 0, in = 0, n = 0, n_elements = 0;
    for (const auto & layer : layers) {
        const Lora & lora = layer.lora;
        all.first.push_back(rank);
        key.push_back({lora.a, lora.b, lora.rank, lora.scale});
        if (!lora) continue;
        rank += lora.rank;
        in = layer.weight->in;
        n_elements += lora.rank * round_up(in, 8) + layer.weight->out * round_up(lora.rank, 8);
        // Parts begin at multiples of eight, as operands do. A mask of its own needs an x of its own.
        all.stacked &= !lora.gate && lora.rank % 8 == 0 && lora.dropout.p == 0 && ++n <= max_gemm_parts;
    }
    all.a_of.resize(layers.size());
    all.b.resize(layers.size());
    if (rank == 0) return all;
    if (const Adapters * kept = context.adapters.find(key)) {
        Adapters same = *kept;
        same.stacked = all.stacked;
        return same;
    }
    void * place =
        context.recording ? nullptr : context.adapters.take(static_cast<size_t>(n_elements) * dtype_size(context.act));
    auto * next = static_cast<std::byte *>(place ? place : take_matrix(context, 1, n_elements, n_elements).data);
    const auto matrix = [&](int64_t rows, int64_t cols) {
        const Matrix own{next, context.act, rows, cols, round_up(cols, 8)};
        next += own.n_bytes();
        return own;
    };
    all.a = matrix(rank, in);
    for (size_t i = 0; i < layers.size(); ++i) {
        const Lora & lora = layers[i].lora;
        if (!lora) continue;
        const int64_t out = layers[i].weight->out;
        all.a_of[i] = all.a.slice_rows(all.first[i], lora.rank);
        all.b[i] = matrix(out, lora.rank);
        all.conversions.push_back(
            {static_cast<const float *>(lora.a), lora.rank, in, 1, all.a_of[i].data, all.a.stride});
        all.conversions.push_back({static_cast<const float *>(lora.b), out, lora.rank, static_cast<float>(lora.scale),
                                   all.b[i].data, all.b[i].stride});
    }
    convert(context, all.conversions);
    return place ? context.adapters.keep(key, std::move(all)) : all;
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

// u or v of an adapter.
GemmResult gated_to(const Matrix & y, const Lora & lora) {
    GemmResult result = GemmResult::to(y);
    if (lora.gate) {
        result.gate = lora.gate.as<float>();
        result.gate_stride = lora.gate.stride;
        result.gate_columns = lora.rank / lora.gate.cols;
    }
    return result;
}

}  // namespace

size_t linear_workspace_bytes(const WorkspaceShape & shape, Dtype act, int n_multiprocessors) {
    const int64_t max_layers = shape.max_shared;
    const int64_t features = round_up(shape.max_features, 8), rank = round_up(shape.max_rank, 8);
    // Copies of x and of every dy where they are no operands as they are, one with dropout; u and v; adapters.
    const int64_t elements = shape.max_tokens * (features * (max_layers + shape.dropout) + 2 * max_layers * rank) +
                             (shape.max_rank ? 2 * max_layers * rank * features : 0) +
                             round_up(shape.head_rank, 8) * (shape.n_vocab + features + shape.max_tokens);
    return static_cast<size_t>(elements) * dtype_size(act) + panel_bytes(shape, act) +
           gemm_workspace_bytes(std::max(features, shape.max_tokens), rank) +
           norm_workspace_bytes(shape, n_multiprocessors) + 32 * Workspace::alignment;
}

void linear(const Context & context, Matrix x, std::span<const LinearForward> layers) {
    if (x.rows == 0) return;
    if (x.rows <= matvec_max_rows) return linear_few_rows(context, x, nullptr, layers);
    const Workspace::Mark mark(context.workspace);
    const Matrix input = operand(context, x);
    const Adapters adapters = adapters_of(context, layers);
    if (adapters.a && adapters.stacked) {
        GemmResult result;
        result.bf16 = context.act == Dtype::bf16;
        for (size_t i = 0; i < layers.size(); ++i) {
            if (!layers[i].lora) continue;
            result.parts[result.n_parts++] = {adapters.first[i], layers[i].u.data, layers[i].u.stride};
        }
        gemm(context, adapter_product(GemmLayout::forward, x.rows, adapters.a.rows,
                                      dense_term(input, adapters.a, x.cols), result));
    }
    for (size_t i = 0; i < layers.size(); ++i) {
        const LinearForward & layer = layers[i];
        const Workspace::Mark one_layer(context.workspace);
        const Lora & lora = layer.lora;
        if (lora && !adapters.stacked) {
            const Workspace::Mark first_product(context.workspace);
            const Matrix dropped = lora.dropout.p > 0 ? operand(context, input, lora.dropout) : input;
            gemm(context, adapter_product(GemmLayout::forward, x.rows, lora.rank,
                                          dense_term(dropped, adapters.a_of[i], x.cols), gated_to(layer.u, lora)));
        }
        if (!layer.y) continue;
        GemmResult result = GemmResult::to(layer.y);
        if (layer.residual) {
            result.residual = layer.residual.as<float>();
            result.residual_stride = layer.residual.stride;
        }
        result.bias = layer.bias.f32();
        GemmTerm second;
        if (lora) second = dense_term(operand(context, layer.u), adapters.b[i], lora.rank);
        multiply_forward(context, input, *layer.weight, lora ? &second : nullptr, result);
    }
}

void linear_backward(const Context & context, Matrix x, std::span<const LinearBackward> layers, bool accumulate,
                     Matrix dx) {
    if (x.rows == 0) return;
    const Workspace::Mark mark(context.workspace);
    const int64_t n_tokens = x.rows, in = layers.front().weight->in;
    const bool any_gradient =
        std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.lora.da || layer.dw; });
    const Matrix input = any_gradient ? operand(context, x) : x;
    const Adapters adapters = adapters_of(context, layers);
    const bool stacked = adapters.stacked;
    const Matrix all_v = adapters.a && stacked
                             ? take_matrix(context, n_tokens, adapters.a.rows, round_up(adapters.a.rows, 8))
                             : Matrix{};

    std::vector<BackwardTerm> weights;
    std::vector<GemmTerm> without_dropout;
    struct Dropped {
        GemmTerm term;
        Dropout dropout;
    };
    std::vector<Dropped> with_dropout;
    GemmResult all_da = add_to(nullptr, in);
    all_da.parts_of_rows = true;
    bool every_da = true;
    for (size_t i = 0; i < layers.size(); ++i) {
        const LinearBackward & layer = layers[i];
        const Lora & lora = layer.lora;
        const int64_t out = layer.weight->out;
        const Matrix dy = operand(context, layer.dy);
        weights.push_back({dy, layer.weight});
        if (layer.dbias) add_row_sums(context, layer.dy, static_cast<float *>(layer.dbias));
        if (layer.dw) {
            Gemm product(GemmLayout::gradient, out, in, add_to(layer.dw, in));
            product.add(dense_term(dy, input, n_tokens));
            gemm(context, product);
        }
        if (!lora) continue;

        // v = scale dy B, the gradient of u
        Matrix v;
        if (stacked) {
            v = {
                static_cast<std::byte *>(all_v.data) + static_cast<size_t>(adapters.first[i]) * dtype_size(context.act),
                context.act, n_tokens, lora.rank, all_v.stride};
        } else {
            v = take_matrix(context, n_tokens, lora.rank, round_up(lora.rank, 8));
        }
        {
            const Workspace::Mark both_products(context.workspace);
            const Matrix u = lora.db ? operand(context, layer.u) : Matrix{};
            if (lora.db && suits_adapter_gradient(context, lora.rank)) {
                adapter_gradient(context, dy, adapters.b[i], u, gated_to(v, lora), static_cast<float>(lora.scale),
                                 static_cast<float *>(lora.db));
            } else {
                gemm(context, adapter_product(GemmLayout::backward, n_tokens, lora.rank,
                                              dense_term(dy, adapters.b[i], out), gated_to(v, lora)));
                if (lora.db) {
                    GemmResult result = add_to(lora.db, lora.rank);
                    result.transposed = true;
                    result.scale = static_cast<float>(lora.scale);
                    gemm(context,
                         adapter_product(GemmLayout::gradient, lora.rank, out, dense_term(u, dy, n_tokens), result));
                }
            }
        }
        every_da &= lora.da != nullptr;
        all_da.parts[all_da.n_parts++] = {adapters.first[i], lora.da, in};
        if (stacked) continue;
        if (lora.da) {
            const Workspace::Mark one_product(context.workspace);
            const Matrix dropped = lora.dropout.p > 0 ? operand(context, input, lora.dropout) : input;
            gemm(context, adapter_product(GemmLayout::gradient, lora.rank, in, dense_term(v, dropped, n_tokens),
                                          add_to(lora.da, in)));
        }
        const GemmTerm through_adapter = dense_term(v, adapters.a_of[i], lora.rank);
        if (lora.dropout.p > 0) {
            with_dropout.push_back({through_adapter, lora.dropout});
        } else {
            without_dropout.push_back(through_adapter);
        }
    }
    if (all_v) {
        without_dropout.push_back(dense_term(all_v, adapters.a, all_v.cols));
        if (every_da) {
            gemm(context,
                 adapter_product(GemmLayout::gradient, all_v.cols, in, dense_term(all_v, input, n_tokens), all_da));
        } else {
            for (size_t i = 0; i < layers.size(); ++i) {
                const Lora & lora = layers[i].lora;
                if (!lora || !lora.da) continue;
                const Matrix v{static_cast<std::byte *>(all_v.data) +
                                   static_cast<size_t>(adapters.first[i]) * dtype_size(context.act),
                               context.act, n_tokens, lora.rank, all_v.stride};
                gemm(context, adapter_product(GemmLayout::gradient, lora.rank, in, dense_term(v, input, n_tokens),
                                              add_to(lora.da, in)));
            }
        }
    }
    if (!dx) return;

    GemmResult to_dx = GemmResult::to(dx);
    to_dx.accumulate = accumulate;
    multiply_backward(context, weights, without_dropout, n_tokens, to_dx);
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
