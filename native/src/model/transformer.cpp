#include "model/transformer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "common/random.h"

namespace lorica {

// ---- memory ----

void * Arena::bytes(size_t n) {
    void * memory = base_ ? base_ + position_ : nullptr;
    position_ += (n + 63) / 64 * 64;
    used_ = std::max(used_, position_);
    return memory;
}

Matrix Arena::matrix(Dtype type, int64_t rows, int64_t cols) {
    return {bytes(static_cast<size_t>(rows * cols) * dtype_size(type)), type, rows, cols, cols};
}

Matrix Arena::operand(Dtype type, int64_t rows, int64_t cols) {
    const auto per_line = static_cast<int64_t>(64 / dtype_size(type));
    const bool even = cols >= 8 * per_line && cols % (2 * per_line) == 0;
    Matrix x = matrix(type, rows, even ? cols + per_line : cols);
    x.cols = cols;
    return x;
}

BlockActivations lay_out_block(Arena & arena, const Model & model, const Adapter * adapter, Formats formats,
                               int64_t max_tokens, bool with_x) {
    const LlamaConfig & c = model.config();
    BlockActivations block;
    if (with_x) block.x = arena.matrix(formats.hidden, max_tokens, c.n_embd);
    block.mid = arena.matrix(formats.hidden, max_tokens, c.n_embd);
    block.q = arena.operand(formats.act, max_tokens, c.q_dim());
    block.k = arena.operand(formats.act, max_tokens, c.kv_dim());
    block.v = arena.operand(formats.act, max_tokens, c.kv_dim());
    block.o = arena.operand(formats.act, max_tokens, c.q_dim());
    block.lse = arena.matrix(formats.hidden, max_tokens, c.n_head);
    block.attn_inverse_rms = arena.matrix(formats.hidden, max_tokens, 1);
    block.ffn_inverse_rms = arena.matrix(formats.hidden, max_tokens, 1);
    block.gate = arena.operand(formats.act, max_tokens, c.n_ff);
    block.up = arena.operand(formats.act, max_tokens, c.n_ff);
    if (adapter) {
        for (Matrix & u : block.u) u = arena.operand(formats.act, max_tokens, adapter->max_rank());
    }
    return block;
}

BlockActivations lay_out_recomputed_block(Arena & arena, const Model & model, Formats formats, int64_t max_tokens,
                                          const BlockActivations & shared) {
    const LlamaConfig & c = model.config();
    BlockActivations block = shared;
    block.o = arena.operand(formats.act, max_tokens, c.q_dim());
    block.lse = arena.matrix(formats.hidden, max_tokens, c.n_head);
    return block;
}

BlockScratch lay_out_scratch(Arena & arena, const Model & model, const Adapter * adapter, Formats formats,
                             int64_t max_tokens, bool training) {
    const LlamaConfig & c = model.config();
    BlockScratch scratch;
    scratch.normed = arena.operand(formats.act, max_tokens, c.n_embd);
    if (!training) {
        scratch.h = arena.operand(formats.act, max_tokens, c.n_ff);
        return scratch;
    }
    scratch.d_normed = arena.matrix(formats.hidden, max_tokens, c.n_embd);
    scratch.d_residual = arena.operand(formats.act, max_tokens, c.n_embd);
    // The feed-forward half of the backward pass is over before the attention half begins.
    const size_t shared = arena.mark();
    scratch.h = arena.operand(formats.act, max_tokens, c.n_ff);
    scratch.dh = arena.operand(formats.act, max_tokens, c.n_ff);
    const size_t after_feed_forward = arena.mark();
    arena.rewind_to(shared);
    scratch.d_o = arena.operand(formats.act, max_tokens, c.q_dim());
    scratch.dq = arena.operand(formats.act, max_tokens, c.q_dim());
    scratch.dk = arena.operand(formats.act, max_tokens, c.kv_dim());
    scratch.dv = arena.operand(formats.act, max_tokens, c.kv_dim());
    arena.rewind_to(std::max(arena.mark(), after_feed_forward));
    if (adapter && adapter->config().use_dora) {
        scratch.d_scaled = arena.operand(formats.act, max_tokens, c.n_embd);
        scratch.d_gate = arena.operand(formats.act, max_tokens, c.n_ff);
    }
    return scratch;
}

// ---- the transformer ----

namespace {

AttentionShape attention_shape(const LlamaConfig & c) {
    return {c.n_head, c.n_head_kv, c.head_dim, 1 / std::sqrt(static_cast<double>(c.head_dim))};
}

Matrix rows_of(const Matrix & x, int64_t n) { return x ? x.slice_rows(0, n) : Matrix{}; }

// The first `n` rows of each matrix, and of u the columns that the pair has.
BlockActivations rows_of(const BlockActivations & block, int64_t n) {
    BlockActivations result = block;
    for (Matrix * x : {&result.x, &result.mid, &result.q, &result.k, &result.v, &result.o, &result.gate, &result.up,
                       &result.lse, &result.attn_inverse_rms, &result.ffn_inverse_rms}) {
        *x = rows_of(*x, n);
    }
    for (Matrix & u : result.u) u = rows_of(u, n);
    return result;
}

BlockScratch rows_of(const BlockScratch & scratch, int64_t n) {
    BlockScratch result = scratch;
    for (Matrix * x : {&result.normed, &result.h, &result.dh, &result.d_normed, &result.d_residual, &result.d_o,
                       &result.dq, &result.dk, &result.dv, &result.d_scaled, &result.d_gate}) {
        *x = rows_of(*x, n);
    }
    return result;
}

int64_t n_tokens(const Sequences & sequences) {
    const Segment & last = sequences.segments.back();
    return last.q_begin + last.q_len;
}

}  // namespace

Transformer::Transformer(const Model & model, const Adapter * adapter, Backend & backend, void * gradients)
    : model_(model),
      adapter_(adapter),
      backend_(backend),
      gradients_(gradients),
      first_adapted_(model.config().n_layer) {
    if (adapter) {
        for (const LoraPair & pair : adapter->pairs()) first_adapted_ = std::min(first_adapted_, pair.layer);
    }
}

void Transformer::set_dropout_seed(std::optional<uint64_t> seed, uint64_t * device_seeds) {
    dropout_seed_ = seed;
    device_seeds_ = device_seeds;
    if (!seed || !device_seeds) return;
    std::vector<uint64_t> seeds(n_dropout_seeds(model_));
    for (size_t i = 0; i < seeds.size(); ++i) seeds[i] = derive_seed(*seed, i / n_modules, i % n_modules);
    backend_.copy_to_device(device_seeds, seeds.data(), seeds.size() * sizeof(uint64_t));
}

Lora Transformer::lora(int32_t layer, Module module) const {
    const LoraPair * pair = adapter_ ? adapter_->find(layer, module) : nullptr;
    if (!pair) return {};
    const size_t element = dtype_size(backend_.formats().param);
    auto at = [&](void * array, int64_t offset) -> void * {
        return array ? static_cast<std::byte *>(array) + static_cast<size_t>(offset) * element : nullptr;
    };
    Lora lora;
    lora.a = at(adapter_->params(), pair->a_offset);
    lora.b = at(adapter_->params(), pair->b_offset);
    lora.da = at(gradients_, pair->a_offset);
    lora.db = at(gradients_, pair->b_offset);
    lora.rank = pair->rank;
    lora.scale = adapter_->scale(*pair);
    if (dropout_seed_) {
        const size_t number = static_cast<size_t>(layer) * n_modules + index(module);
        lora.dropout = {adapter_->config().dropout,
                        derive_seed(*dropout_seed_, static_cast<uint64_t>(layer), index(module)),
                        device_seeds_ ? device_seeds_ + number : nullptr};
    }
    return lora;
}

void Transformer::apply_dora(int32_t layer, Module module, Matrix residual, Matrix y) const {
    if (!has_dora(layer, module) || !y) return;
    backend_.scale_columns(y, adapter_->dora_rows(*adapter_->find(layer, module)).factors, {}, residual, y);
}

bool Transformer::dora_backward(int32_t layer, Module module, Matrix residual, Matrix y, Matrix dy, Matrix dx) const {
    if (!has_dora(layer, module)) return false;
    const LoraPair & pair = *adapter_->find(layer, module);
    const size_t element = dtype_size(backend_.formats().param);
    void * d_magnitudes = static_cast<std::byte *>(gradients_) + static_cast<size_t>(pair.m_offset) * element;
    backend_.dora_backward(dy, y, {}, residual, adapter_->dora_rows(pair), d_magnitudes, dx);
    return true;
}

bool Transformer::adapted(int32_t layer, std::initializer_list<Module> modules) const {
    return adapter_ &&
           std::any_of(modules.begin(), modules.end(), [&](Module m) { return adapter_->find(layer, m) != nullptr; });
}

void Transformer::block_forward(int32_t layer, const BlockActivations & full_block, const BlockScratch & full_scratch,
                                const Sequences & sequences, const Cache & cache, Matrix x_out) const {
    const LlamaConfig & c = model_.config();
    const LayerWeights & w = model_.layers()[static_cast<size_t>(layer)];
    const BlockActivations block = rows_of(full_block, n_tokens(sequences));
    const BlockScratch scratch = rows_of(full_scratch, n_tokens(sequences));
    auto layer_of = [&](Module module, Matrix residual, Matrix y) {
        const Lora pair = lora(layer, module);
        Matrix u = block.u[index(module)];
        if (pair) u.cols = pair.rank;
        // DoRA multiplies what the residual is added to.
        return LinearForward{&w[module], pair, u, has_dora(layer, module) ? Matrix{} : residual, y};
    };

    const std::array qkv{layer_of(Module::q, {}, block.q), layer_of(Module::k, {}, block.k),
                         layer_of(Module::v, {}, block.v)};
    backend_.norm_linear(block.x, {w.attn_norm, c.rms_eps, block.attn_inverse_rms}, qkv, scratch.normed);
    for (size_t i = 0; i < 3; ++i) apply_dora(layer, std::array{Module::q, Module::k, Module::v}[i], {}, qkv[i].y);
    const Rope rope{c.inverse_frequency, c.head_dim};
    if (cache) {
        backend_.rope_into_cache(block.q, block.k, block.v, sequences.positions, nullptr, rope, cache.k, cache.v);
    } else {
        backend_.rope(block.q, sequences.positions, rope, RopeDirection::forward);
        backend_.rope(block.k, sequences.positions, rope, RopeDirection::forward);
    }
    if (x_out) {
        backend_.attention(block.q, cache ? cache.k : block.k, cache ? cache.v : block.v, sequences.segments,
                           attention_shape(c), block.o, block.lse);
    }
    const std::array output{layer_of(Module::o, block.x, block.mid)};
    backend_.linear(block.o, output);
    apply_dora(layer, Module::o, block.x, block.mid);

    const Norm ffn_norm{w.ffn_norm, c.rms_eps, block.ffn_inverse_rms};
    const std::array gate_up{layer_of(Module::gate, {}, block.gate), layer_of(Module::up, {}, block.up)};
    const bool needs_h = x_out || adapted(layer, {Module::down});
    if (needs_h && !has_dora(layer, Module::gate) && !has_dora(layer, Module::up)) {
        backend_.norm_linear_gated(block.mid, ffn_norm, gate_up[0], gate_up[1], Act::silu, scratch.normed, scratch.h);
    } else {
        backend_.norm_linear(block.mid, ffn_norm, gate_up, scratch.normed);
        apply_dora(layer, Module::gate, {}, block.gate);
        apply_dora(layer, Module::up, {}, block.up);
        if (!needs_h) return;
        backend_.gated(block.gate, block.up, Act::silu, scratch.h);
    }
    const std::array down{layer_of(Module::down, block.mid, rows_of(x_out, n_tokens(sequences)))};
    backend_.linear(scratch.h, down);
    apply_dora(layer, Module::down, block.mid, down[0].y);
}

void Transformer::block_backward(int32_t layer, const BlockActivations & full_block, const BlockScratch & full_scratch,
                                 const Sequences & sequences, Matrix full_x_out, Matrix full_dx, bool is_top,
                                 bool need_dx) const {
    const LlamaConfig & c = model_.config();
    const LayerWeights & w = model_.layers()[static_cast<size_t>(layer)];
    const BlockActivations block = rows_of(full_block, n_tokens(sequences));
    const BlockScratch scratch = rows_of(full_scratch, n_tokens(sequences));
    const Matrix x_out = rows_of(full_x_out, n_tokens(sequences)), dx = rows_of(full_dx, n_tokens(sequences));
    auto layer_of = [&](Module module, Matrix dy) {
        const Lora pair = lora(layer, module);
        Matrix u = block.u[index(module)];
        if (pair) u.cols = pair.rank;
        return LinearBackward{&w[module], pair, u, dy};
    };

    // x_out = mid + W_down h: dx is the gradient of both.
    const bool into_mid = need_dx || adapted(layer, {Module::q, Module::k, Module::v, Module::o});
    const bool into_h = into_mid || adapted(layer, {Module::gate, Module::up});
    const bool dora_down = dora_backward(layer, Module::down, block.mid, x_out, dx, scratch.d_scaled);
    const LinearBackward down = layer_of(Module::down, dora_down ? scratch.d_scaled : is_top ? dx : scratch.d_residual);
    // The gradients take the place of gate and up, unless those are still needed.
    const bool keep = has_dora(layer, Module::gate) || has_dora(layer, Module::up);
    const Matrix d_gate = keep ? scratch.d_gate : block.gate, d_up = keep ? scratch.h : block.up;
    backend_.gated_linear_backward(block.gate, block.up, Act::silu, down, scratch.h, into_h ? scratch.dh : Matrix{},
                                   d_gate, d_up);
    if (!into_h) return;
    dora_backward(layer, Module::gate, {}, block.gate, d_gate, d_gate);
    dora_backward(layer, Module::up, {}, block.up, d_up, d_up);
    const std::array gate_up{layer_of(Module::gate, d_gate), layer_of(Module::up, d_up)};
    backend_.norm_linear_backward(block.mid, {w.ffn_norm, c.rms_eps, block.ffn_inverse_rms}, gate_up, scratch.normed,
                                  scratch.d_normed, into_mid ? dx : Matrix{}, scratch.d_residual);
    if (!into_mid) return;

    // mid = x + W_o o
    const bool into_attention = need_dx || adapted(layer, {Module::q, Module::k, Module::v});
    const bool dora_output = dora_backward(layer, Module::o, block.x, block.mid, dx, scratch.d_scaled);
    const std::array output{layer_of(Module::o, dora_output ? scratch.d_scaled : scratch.d_residual)};
    backend_.linear_backward(block.o, output, false, into_attention ? scratch.d_o : Matrix{});
    if (!into_attention) return;
    backend_.attention_backward(block.q, block.k, block.v, block.o, block.lse, scratch.d_o, sequences.segments,
                                attention_shape(c), scratch.dq, scratch.dk, scratch.dv);
    const Rope rope{c.inverse_frequency, c.head_dim};
    backend_.rope(scratch.dq, sequences.positions, rope, RopeDirection::backward);
    backend_.rope(scratch.dk, sequences.positions, rope, RopeDirection::backward);
    for (const auto & [module, y, dy] : {std::tuple{Module::q, block.q, scratch.dq},
                                         {Module::k, block.k, scratch.dk},
                                         {Module::v, block.v, scratch.dv}}) {
        if (!has_dora(layer, module)) continue;
        if (module != Module::v) backend_.rope(y, sequences.positions, rope, RopeDirection::undo);
        dora_backward(layer, module, {}, y, dy, dy);
    }
    const std::array qkv{layer_of(Module::q, scratch.dq), layer_of(Module::k, scratch.dk),
                         layer_of(Module::v, scratch.dv)};
    backend_.norm_linear_backward(block.x, {w.attn_norm, c.rms_eps, block.attn_inverse_rms}, qkv, scratch.normed,
                                  scratch.d_normed, need_dx ? dx : Matrix{}, scratch.d_residual);
}

}  // namespace lorica
