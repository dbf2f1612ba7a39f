#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"

#include <algorithm>

namespace lorica::cuda {

namespace {

// Elements of W that are expanded at once: gate and up of an 8B model, [28,672, 4,096], are.
int64_t panel_limit() {
    static const int64_t limit = setting("LORICA_CUDA_PANEL", int64_t{128} << 20);
    return limit;
}
// In how many columns or rows, a multiple of `of`, `all` are made in equal parts that fit `per_one` elements each.
int64_t equal_parts(int64_t all, int64_t per_one, int64_t of) {
    const int64_t most = std::max(panel_limit() / per_one / of * of, of);
    return round_up(divide_up(all, divide_up(all, most)), of);
}

bool multiplies_directly(const Context & context, const Weight & w, int64_t rows) {
    const ggml_type dense = context.act == Dtype::f32 ? GGML_TYPE_F32 : GGML_TYPE_BF16;
    return is_fused_type(w, context.act) && (rows <= fused_max_rows || w.type == dense);
}

// Element i of an array in the format act.
const void * element(const Context & context, const void * array, int64_t i) {
    return static_cast<const std::byte *>(array) + i * static_cast<int64_t>(dtype_size(context.act));
}
std::byte * take_panel(const Context & context, int64_t n) {
    return context.workspace.take<std::byte>(n * static_cast<int64_t>(dtype_size(context.act)));
}

// Columns [first, first + n) of the result.
GemmResult columns(GemmResult result, int64_t first) {
    result.c = static_cast<std::byte *>(result.c) + first * (result.bf16 ? 2 : 4);
    if (result.residual) result.residual += first;
    if (result.bias) result.bias += first;
    return result;
}

}  // namespace

size_t panel_bytes(const WorkspaceShape & shape, Dtype act) {
    const int64_t in = round_up(shape.max_features, 32);
    return static_cast<size_t>(std::min(std::max(panel_limit(), 256 * 3 * in), std::max(3 * in, shape.n_vocab) * in)) *
               dtype_size(act) +
           Workspace::alignment;
}

Matrix operand(const Context & context, Matrix x, const Dropout & dropout) {
    const bool aligned = context.act == Dtype::f32 ||
                         (x.type == Dtype::bf16 && x.stride % 8 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0);
    if (aligned && dropout.p == 0) return x;
    const int64_t stride = round_up(x.cols, 8);
    const Matrix copy{take_panel(context, x.rows * stride), context.act, x.rows, x.cols, stride};
    copy_with_dropout(context, x, dropout, copy);
    return copy;
}

void multiply_forward(const Context & context, Matrix x, const Weight & w, const GemmTerm * extra,
                      const GemmResult & result) {
    const Workspace::Mark mark(context.workspace);
    Gemm gemm(GemmLayout::forward, x.rows, w.out, result);
    if (multiplies_directly(context, w, x.rows)) {
        gemm.panel_is_free = true;
        gemm.add(weight_term(w, x, w.in));
        if (extra) gemm.add(*extra);
        return cuda::gemm(context, gemm);
    }
    const int64_t stride = round_up(w.in, 8);
    const int64_t rows_at_once = std::min(w.out, equal_parts(w.out, stride, 128));
    auto * panel = take_panel(context, rows_at_once * stride);
    for (int64_t first = 0; first < w.out; first += rows_at_once) {
        gemm.n = std::min(rows_at_once, w.out - first);
        gemm.n_terms = 0;
        gemm.result = columns(result, first);
        dequantize(context, w, first, gemm.n, 0, w.in, panel, stride);
        gemm.add({x.data, x.stride, panel, stride, w.in});
        if (extra) {
            GemmTerm part = *extra;
            part.b = element(context, extra->b, first * extra->b_stride);
            gemm.add(part);
        }
        cuda::gemm(context, gemm);
    }
}

void multiply_backward(const Context & context, std::span<const BackwardTerm> layers, std::span<const GemmTerm> extra,
                       int64_t rows, const GemmResult & result) {
    const Workspace::Mark mark(context.workspace);
    const int64_t in = layers.front().weight->in;
    Gemm gemm(GemmLayout::backward, rows, in, result);
    int64_t expanded_rows = 0;
    for (const BackwardTerm & layer : layers) {
        if (!multiplies_directly(context, *layer.weight, rows)) expanded_rows += layer.weight->out;
    }
    // A dropout mask is numbered by the columns of the whole result; such results have no weights to expand.
    const int64_t columns_at_once =
        expanded_rows == 0 ? in : std::min(round_up(in, 32), equal_parts(in, expanded_rows, 256));
    gemm.panel_is_free = expanded_rows == 0;
    auto * panel = expanded_rows ? take_panel(context, expanded_rows * columns_at_once) : nullptr;
    for (int64_t first = 0; first < in; first += columns_at_once) {
        gemm.n = std::min(columns_at_once, in - first);
        gemm.n_terms = 0;
        gemm.result = columns(result, first);
        int64_t used = 0;
        for (const BackwardTerm & layer : layers) {
            const Weight & w = *layer.weight;
            if (multiplies_directly(context, w, rows)) {
                GemmTerm term = weight_term(w, layer.dy, w.out);
                const int64_t blocks = first / ggml_blck_size(w.type);
                term.b = w.data + static_cast<size_t>(blocks) * ggml_type_size(w.type);
                gemm.add(term);
                continue;
            }
            std::byte * own = panel + used * static_cast<int64_t>(dtype_size(context.act));
            dequantize(context, w, 0, w.out, first, gemm.n, own, columns_at_once);
            gemm.add({layer.dy.data, layer.dy.stride, own, columns_at_once, w.out});
            used += w.out * columns_at_once;
        }
        for (GemmTerm term : extra) {
            term.b = element(context, term.b, first);
            gemm.add(term);
        }
        cuda::gemm(context, gemm);
    }
}

void multiply_backward_by_rows(const Context & context, Matrix dy, const Weight & w, const GemmResult & result) {
    const Workspace::Mark mark(context.workspace);
    Gemm gemm(GemmLayout::backward, dy.rows, w.in, result);
    if (multiplies_directly(context, w, dy.rows)) {
        gemm.panel_is_free = true;
        gemm.add(weight_term(w, dy, w.out));
        return cuda::gemm(context, gemm);
    }
    const int64_t stride = round_up(w.in, 8);
    const int64_t rows_at_once = std::min(w.out, equal_parts(w.out, stride, 128));
    auto * panel = take_panel(context, rows_at_once * stride);
    for (int64_t first = 0; first < w.out; first += rows_at_once) {
        const int64_t rows = std::min(rows_at_once, w.out - first);
        dequantize(context, w, first, rows, 0, w.in, panel, stride);
        gemm.n_terms = 0;
        gemm.add({element(context, dy.data, first), dy.stride, panel, stride, rows});
        gemm.result.accumulate = result.accumulate || first > 0;
        cuda::gemm(context, gemm);
    }
}

}  // namespace lorica::cuda
