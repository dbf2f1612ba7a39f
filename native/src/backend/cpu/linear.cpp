#include "backend/cpu/linear.h"

#include <algorithm>

#include "backend/cpu/dropout.h"
#include "backend/cpu/elementwise.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/matvec.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/token_sums.h"

namespace lorica::cpu {

namespace {

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

GemmJob job(std::vector<GemmTerm> terms, Matrix y, Matrix residual = {}) {
    return {std::move(terms), y.rows, y.cols, {y, residual, false}};
}

// x itself when it is in act format already, else a converted copy in scratch memory.
Matrix as_act(const Context & context, const Matrix & x) {
    if (x.type == context.act()) return x;
    Matrix copy = context.take_act(x.rows, x.cols);
    parallel_ranges(x.rows, x.cols, context.n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) convert_f32_to_bf16(x.row_as<float>(t), copy.row_as<uint16_t>(t), x.cols);
    });
    return copy;
}

// u, or what comes back to it, times its gate.
void apply_gate(const Context & context, const Lora & lora, Matrix u) {
    if (!lora.gate) return;
    const int64_t width = lora.rank / lora.gate.cols;
    for (int64_t part = 0; part < lora.gate.cols; ++part) {
        Matrix columns = u;
        columns.data = static_cast<std::byte *>(u.data) + static_cast<size_t>(part * width) * dtype_size(u.type);
        columns.cols = width;
        std::vector<float> factors(static_cast<size_t>(u.rows));
        for (int64_t t = 0; t < u.rows; ++t) factors[static_cast<size_t>(t)] = lora.gate.row_as<float>(t)[part];
        scale_rows(columns, factors.data(), 1, columns, context.n_threads);
    }
}

GemmB lora_a(const Lora & lora, int64_t in, bool by_rows) { return GemmB::f32(lora.a, lora.rank, in, by_rows); }
GemmB lora_b(const Lora & lora, int64_t out, bool by_rows, float scale) {
    return GemmB::f32(lora.b, out, lora.rank, by_rows, scale);
}

}  // namespace

Matrix Context::take_act(int64_t rows, int64_t cols) const {
    return {scratch.take(static_cast<size_t>(rows * cols) * dtype_size(act())), act(), rows, cols, cols};
}

void linear(const Context & context, Matrix x, std::span<const LinearForward> layers) {
    const Scratch::Mark mark(context.scratch);
    const Matrix operand = as_act(context, x);
    if (x.rows <= matvec_max_rows) return linear_few_rows(context, operand, layers);

    std::vector<GemmJob> jobs;
    for (const LinearForward & layer : layers) {
        if (!layer.lora) continue;
        if (layer.lora.dropout.p > 0) {
            const Scratch::Mark one_layer(context.scratch);
            const Matrix dropped = context.take_act(x.rows, x.cols);
            dropout(operand, layer.lora.dropout, dropped, context.n_threads);
            const GemmJob one = job({{dropped, lora_a(layer.lora, x.cols, true)}}, layer.u);
            gemm({&one, 1}, context.precision, context.scratch, context.n_threads);
        } else {
            jobs.push_back(job({{operand, lora_a(layer.lora, x.cols, true)}}, layer.u));
        }
    }
    gemm(jobs, context.precision, context.scratch, context.n_threads);
    for (const LinearForward & layer : layers) apply_gate(context, layer.lora, layer.u);

    jobs.clear();
    for (const LinearForward & layer : layers) {
        if (!layer.y) continue;
        std::vector<GemmTerm> terms{{operand, GemmB::weight(*layer.weight, true)}};
        if (layer.lora) {
            terms.push_back(
                {layer.u, lora_b(layer.lora, layer.weight->out, true, static_cast<float>(layer.lora.scale))});
        }
        jobs.push_back(job(std::move(terms), layer.y, layer.residual));
        jobs.back().out.bias = layer.bias.f32();
    }
    gemm(jobs, context.precision, context.scratch, context.n_threads);
}

namespace {

// The backward pass of layers that share their input x, in parts that do not depend on each other. Its memory is
// scratch.
class Backward {
public:
    // v_i = scale_i dy_i B_i, the gradients of u.
    Backward(const Context & context, int64_t n_tokens, std::span<const LinearBackward> layers)
        : context_(context), n_tokens_(n_tokens), layers_(layers), dy_(layers.size()), v_(layers.size()) {
        std::vector<GemmJob> jobs;
        for (size_t i = 0; i < layers.size(); ++i) {
            const LinearBackward & layer = layers[i];
            dy_[i] = as_act(context, layer.dy);
            if (!layer.lora) continue;
            v_[i] = context.take_act(n_tokens, layer.lora.rank);
            const auto scale = static_cast<float>(layer.lora.scale);
            jobs.push_back(job({{dy_[i], lora_b(layer.lora, layer.weight->out, false, scale)}}, v_[i]));
        }
        gemm(jobs, context.precision, context.scratch, context.n_threads);
        for (size_t i = 0; i < layers.size(); ++i) apply_gate(context, layers[i].lora, v_[i]);
    }

    // x: in act, or in f32 with its norm.
    void add_gradients(Matrix x, const Norm * norm) const {
        std::vector<TokenSum> sums;
        for (size_t i = 0; i < layers_.size(); ++i) {
            const LinearBackward & layer = layers_[i];
            const Lora & lora = layer.lora;
            if (layer.dbias) add_column_sums(layer.dy, static_cast<float *>(layer.dbias), context_.n_threads);
            if (layer.dw) {
                const Matrix dw{layer.dw, Dtype::f32, layer.weight->out, x.cols, x.cols};
                sums.push_back({dy_[i], 1, x, dw, false, norm});
            }
            if (!lora || !lora.db) continue;
            const Matrix db{lora.db, Dtype::f32, layer.weight->out, lora.rank, lora.rank};
            sums.push_back({layer.u, static_cast<float>(lora.scale), dy_[i], db, true});

            const Matrix da{lora.da, Dtype::f32, lora.rank, x.cols, x.cols};
            if (lora.dropout.p > 0) {
                const Scratch::Mark one_layer(context_.scratch);
                const Matrix dropped = context_.take_act(n_tokens_, x.cols);
                dropout(x, lora.dropout, dropped, context_.n_threads);
                const TokenSum one{v_[i], 1, dropped, da, false};
                add_token_sums(context_, {&one, 1});
            } else {
                sums.push_back({v_[i], 1, x, da, false, norm});
            }
        }
        add_token_sums(context_, sums);
    }

    void input_gradient(Matrix dx, bool accumulate = false) const {
        std::vector<GemmTerm> terms;
        for (size_t i = 0; i < layers_.size(); ++i) {
            terms.push_back({dy_[i], GemmB::weight(*layers_[i].weight, false)});
            const Lora & lora = layers_[i].lora;
            if (lora && lora.dropout.p == 0) terms.push_back({v_[i], lora_a(lora, dx.cols, false)});
        }
        GemmJob through_weights = job(std::move(terms), dx);
        through_weights.out.accumulate = accumulate;
        gemm({&through_weights, 1}, context_.precision, context_.scratch, context_.n_threads);

        for (size_t i = 0; i < layers_.size(); ++i) {
            const Lora & lora = layers_[i].lora;
            if (!lora || lora.dropout.p == 0) continue;
            const Scratch::Mark one_layer(context_.scratch);
            const Matrix dropped{context_.scratch.take_as<float>(n_tokens_ * dx.cols), Dtype::f32, n_tokens_, dx.cols,
                                 dx.cols};
            const GemmJob one = job({{v_[i], lora_a(lora, dx.cols, false)}}, dropped);
            gemm({&one, 1}, context_.precision, context_.scratch, context_.n_threads);
            dropout_backward_add(dropped, lora.dropout, dx, context_.n_threads);
        }
    }

private:
    const Context & context_;
    int64_t n_tokens_;
    std::span<const LinearBackward> layers_;
    std::vector<Matrix> dy_, v_;
};

bool any_gradient(std::span<const LinearBackward> layers) {
    return std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.needs_x() || layer.dbias; });
}

bool any_dropout(std::span<const LinearBackward> layers) {
    return std::any_of(layers.begin(), layers.end(),
                       [](const auto & layer) { return layer.lora && layer.lora.dropout.p > 0; });
}

}  // namespace

void linear_backward(const Context & context, Matrix x, std::span<const LinearBackward> layers, bool accumulate,
                     Matrix dx) {
    if (layers.empty()) return;
    const Scratch::Mark mark(context.scratch);
    // x may be missing where no layer needs it.
    const Backward backward(context, layers.front().dy.rows, layers);
    if (any_gradient(layers)) {
        const bool needs_x = std::any_of(layers.begin(), layers.end(), [](const auto & l) { return l.needs_x(); });
        backward.add_gradients(needs_x ? as_act(context, x) : x, nullptr);
    }
    if (dx) backward.input_gradient(dx, accumulate);
}

// h is made from gate and up where these are read anyway, and takes the place of dh.
bool gated_linear_backward(const Context & context, Matrix gate, Matrix up, Act act, const LinearBackward & down,
                           Matrix dh, Matrix dgate, Matrix dup) {
    if (!dh || any_dropout({&down, 1})) return false;
    const Scratch::Mark mark(context.scratch);
    const Backward backward(context, dh.rows, {&down, 1});
    backward.input_gradient(dh);
    const Matrix h = down.needs_x() ? dh : Matrix{};
    gated_backward(gate, up, act, dh, dgate, dup, h, context.n_threads);
    if (any_gradient({&down, 1})) backward.add_gradients(h, nullptr);
    return true;
}

// What rmsnorm makes of x is made where it is summed, and never stored.
bool norm_linear_backward(const Context & context, Matrix x, const Norm & norm, std::span<const LinearBackward> layers,
                          Matrix d_normed, Matrix dx, Matrix dx_act) {
    if (!norm.is_plain_rms() || !norm.statistics || any_dropout(layers) || !token_sums_take_norms(context))
        return false;
    const Scratch::Mark mark(context.scratch);
    const Backward backward(context, x.rows, layers);
    if (any_gradient(layers)) backward.add_gradients(x, &norm);
    if (!dx) return true;
    backward.input_gradient(d_normed);
    norm_backward(d_normed, x, norm, true, dx, dx_act, context.n_threads);
    return true;
}

size_t linear_workspace_bytes(const WorkspaceShape & shape, GemmPrecision precision) {
    const size_t element = precision == GemmPrecision::bf16 ? 2 : 4;
    const int64_t rows = round_up(shape.max_tokens, block_m);
    const auto cells = static_cast<size_t>(rows * shape.max_features);
    // Copies of x or dy in act format (one layer at a time has a hidden one), and of what is no multiple of 32 wide.
    const bool aligned = shape.max_features % 32 == 0 && shape.n_head * shape.head_dim % 32 == 0 &&
                         shape.n_head_kv * shape.head_dim % 32 == 0;
    size_t bytes = cells * element * (aligned ? 1 : 4);
    if (shape.max_rank > 0) {
        // u or v, its transpose and the packed copies of both, for each of the layers that share x.
        bytes += static_cast<size_t>(shape.max_shared) * 4 * static_cast<size_t>(rows * round_up(shape.max_rank, 32)) *
                 element;
        if (shape.training && shape.dropout) bytes += cells * (element + 4);
    }
    // The transpose of dy, for each.
    if (shape.trained_weights) bytes += static_cast<size_t>(shape.max_shared) * (cells + 32 * 64) * element;
    return bytes + 64 * 64;
}

Matrix head_lora_v(const Context & context, const HeadLoraBackward & chunk) {
    const Lora & lora = chunk.lora;
    const Matrix v = context.take_act(chunk.e.rows, lora.rank);
    const GemmJob one = job({{chunk.e, lora_b(lora, chunk.e.cols, false, static_cast<float>(lora.scale))}}, v);
    gemm({&one, 1}, context.precision, context.scratch, context.n_threads);
    Lora of_rows = lora;
    if (lora.gate) of_rows.gate = lora.gate.slice_rows(chunk.first, chunk.e.rows);
    apply_gate(context, of_rows, v);
    return v;
}

void head_lora_gradients(const Context & context, const HeadLoraBackward & chunk, Matrix v) {
    const Scratch::Mark mark(context.scratch);
    const Lora & lora = chunk.lora;
    const int64_t rows = chunk.e.rows, in = chunk.x.cols;
    const Matrix u = context.take_act(rows, lora.rank), scaled_v = context.take_act(rows, lora.rank);
    scale_rows(chunk.u, chunk.factors, 1, u, context.n_threads);
    scale_rows(v, chunk.factors, 1, scaled_v, context.n_threads);
    Matrix x = as_act(context, chunk.x);
    if (lora.dropout.p > 0) {
        const Matrix dropped = context.take_act(rows, in);
        dropout(x, lora.dropout, dropped, context.n_threads, chunk.first);
        x = dropped;
    }
    const TokenSum sums[] = {
        {u, static_cast<float>(lora.scale), chunk.e, {lora.db, Dtype::f32, chunk.e.cols, lora.rank, lora.rank}, true},
        {scaled_v, 1, x, {lora.da, Dtype::f32, lora.rank, in, in}, false}};
    add_token_sums(context, sums);
}

void head_input_gradient(const Context & context, const HeadLoraBackward & chunk, const Weight & head, Matrix v,
                         Matrix dx) {
    const Scratch::Mark mark(context.scratch);
    const Lora & lora = chunk.lora;
    std::vector<GemmTerm> terms{{chunk.e, GemmB::weight(head, false)}};
    if (lora && lora.dropout.p == 0) terms.push_back({v, lora_a(lora, dx.cols, false)});
    const GemmJob through_weights = job(std::move(terms), dx);
    gemm({&through_weights, 1}, context.precision, context.scratch, context.n_threads);
    if (!lora || lora.dropout.p == 0) return;
    const Matrix dropped{context.scratch.take_as<float>(dx.rows * dx.cols), Dtype::f32, dx.rows, dx.cols, dx.cols};
    const GemmJob through_adapter = job({{v, lora_a(lora, dx.cols, false)}}, dropped);
    gemm({&through_adapter, 1}, context.precision, context.scratch, context.n_threads);
    dropout_backward_add(dropped, lora.dropout, dx, context.n_threads, chunk.first);
}

void logits(const Context & context, Matrix x, const Head & head, float * out) {
    const Scratch::Mark mark(context.scratch);
    const int64_t n_vocab = head.weight->out;
    const Matrix y{out, Dtype::f32, x.rows, n_vocab, n_vocab};
    const Matrix u = head.lora ? context.take_act(x.rows, head.lora.rank) : Matrix{};
    const LinearForward layer{head.weight, head.lora, u, {}, y};
    linear(context, x, {&layer, 1});
    if (head.logits.scale != 1) scale_rows(y, nullptr, head.logits.scale, y, context.n_threads);
    if (head.logits.cap == 0) return;
    scale_rows(y, nullptr, 1 / head.logits.cap, y, context.n_threads);
    activation(y, Act::tanh, y, context.n_threads);
    scale_rows(y, nullptr, head.logits.cap, y, context.n_threads);
}

}  // namespace lorica::cpu
