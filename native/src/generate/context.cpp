#include "generate/context.h"

#include <algorithm>
#include <array>
#include <bit>

#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

constexpr int32_t prompt_piece = 512;  // tokens of a prompt that go through the model at once
constexpr int32_t logits_piece = 32;   // rows of logits computed at once

}  // namespace

Context::Buffers Context::lay_out(Arena & arena, const Model & model, int32_t n_ctx, int32_t piece) {
    const LlamaConfig & c = model.config();
    const Formats formats = model.device().formats();
    Buffers b;
    for (int32_t l = 0; l < c.n_layer; ++l) {
        const Matrix k = arena.operand(formats.act, n_ctx, c.kv_dim()),
                     v = arena.operand(formats.act, n_ctx, c.kv_dim());
        b.caches.push_back({k, v});
    }
    b.block = lay_out_block(arena, model, nullptr, formats, piece, true);
    b.scratch = lay_out_scratch(arena, model, nullptr, formats, piece, false);
    b.normed = arena.operand(formats.act, logits_piece, c.n_embd);
    b.logits = static_cast<float *>(
        arena.bytes(sizeof(float) * static_cast<size_t>(logits_piece) * static_cast<size_t>(c.n_vocab)));
    b.tokens = static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece)));
    b.positions = static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece)));
    return b;
}

WorkspaceShape Context::workspace_shape(int64_t max_rank) const {
    const LlamaConfig & c = model_->config();
    WorkspaceShape shape;
    shape.max_tokens = std::max<int64_t>(piece_, max_rank);  // for a DoRA, A's rows go through the layers as tokens do
    shape.max_sequence_length = n_ctx_;
    shape.max_features = std::max({c.n_embd, c.n_ff, c.q_dim()});
    shape.n_vocab = c.n_vocab;
    shape.max_rank = max_rank;
    shape.n_head = c.n_head;
    shape.n_head_kv = c.n_head_kv;
    shape.head_dim = c.head_dim;
    return shape;
}

Context::Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx)
    : model_(std::move(model)), n_ctx_(n_ctx), piece_(std::min(n_ctx, prompt_piece)) {
    if (n_ctx < 1 || n_ctx > (1 << 24))
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_ctx is ", n_ctx, "; it must lie between 1 and ", 1 << 24);
    if (adapter && adapter->model() != model_)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
    backend_ = model_->new_backend();

    Arena counting;
    lay_out(counting, *model_, n_ctx_, piece_);
    const WorkspaceShape shape = workspace_shape(adapter ? adapter->max_rank() : 0);
    const int64_t needed = static_cast<int64_t>(counting.n_bytes() + backend_->workspace_bytes(shape));
    const int64_t available = backend_->available_memory();
    if (needed > available) {
        fail(LORICA_ERROR_OUT_OF_MEMORY, "a context of ", n_ctx, " tokens needs ", needed >> 20, " MiB and ",
             available >> 20, " MiB are available; take a shorter one");
    }
    backend_->reserve(shape);
    arena_ = std::unique_ptr<void, Release>(backend_->allocate(counting.n_bytes()), {backend_.get()});
    Arena arena(arena_.get());
    buffers_ = lay_out(arena, *model_, n_ctx_, piece_);
    apply(std::move(adapter));
}

void Context::set_adapters(std::span<const Adapter::Part> parts) {
    if (parts.empty()) return apply(nullptr);
    const bool as_it_is = parts.size() == 1 && parts[0].factor == 1;
    if (as_it_is && parts[0].adapter->model() != model_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
    }
    apply(as_it_is ? parts[0].adapter : Adapter::stack(model_, parts));
}

void Context::apply(std::shared_ptr<const Adapter> adapter) {
    const int64_t rank = adapter ? adapter->max_rank() : 0;
    if (rank > max_rank_) {
        const auto lay_out_u = [&](Arena & arena) {
            std::array<Matrix, n_modules> u;
            for (Matrix & one : u) one = arena.operand(backend_->formats().act, piece_, rank);
            return u;
        };
        Arena counting;
        lay_out_u(counting);
        backend_->reserve(workspace_shape(rank));
        adapter_arena_ = std::unique_ptr<void, Release>(backend_->allocate(counting.n_bytes()), {backend_.get()});
        Arena arena(adapter_arena_.get());
        buffers_.block.u = lay_out_u(arena);
        max_rank_ = rank;
    }
    transformer_ = std::make_unique<Transformer>(*model_, adapter.get(), *backend_, nullptr);
    adapter_ = std::move(adapter);
    ++n_applied_;
    n_past_ = 0;
}

void Context::truncate(int32_t n_past) {
    if (n_past < 0 || n_past > n_past_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "cannot cut the context to ", n_past, " tokens; it holds ", n_past_);
    }
    n_past_ = n_past;
}

void Context::eval(std::span<const int32_t> tokens, bool all_logits, float * logits) {
    const auto n = static_cast<int64_t>(tokens.size());
    if (n < 1) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no tokens to evaluate");
    if (n > n_ctx_ - n_past_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the context holds ", n_past_, " of ", n_ctx_, " tokens; ", n,
             " more do not fit");
    }
    const int32_t n_vocab = model_->config().n_vocab;
    for (const int32_t id : tokens) {
        if (id < 0 || id >= n_vocab)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token id ", id, " is outside the vocabulary of ", n_vocab);
    }
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(piece_)) {
        const size_t count = std::min(static_cast<size_t>(piece_), tokens.size() - first);
        float * out = logits && all_logits ? logits + first * static_cast<size_t>(n_vocab) : logits;
        eval_piece(tokens.subspan(first, count), first + count == tokens.size(), all_logits, out);
    }
}

void Context::eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits) {
    const auto n = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    for (int32_t i = 0; i < n; ++i) positions[static_cast<size_t>(i)] = n_past_ + i;
    backend_->copy_to_device(buffers_.tokens, tokens.data(), tokens.size_bytes());
    backend_->copy_to_device(buffers_.positions, positions.data(), tokens.size_bytes());

    const int64_t n_logits = !logits ? 0 : all_logits ? n : last ? 1 : 0;  // of the last tokens
    if ((n_logits == 1 ? 1 : n) <= backend_->few_rows()) arrange_weights();
    if (adapter_) adapter_->update_dora(*backend_);
    const Segment segment{0, n, 0, n_past_ + n};
    const auto compute = [&] {
        forward(segment);
        if (n_logits == 1) compute_logits(n - 1, 1);
    };
    backend_->together(n, [&] {
        if (n == 1) {
            backend_->repeat({&segment, 1}, shape_key(n_logits), compute);
        } else {
            compute();
        }
        n_past_ += n;
        const auto n_vocab = static_cast<size_t>(model_->config().n_vocab);
        for (int64_t first = n - n_logits; first < n; first += logits_piece) {
            const int64_t count = std::min<int64_t>(logits_piece, n - first);
            if (n_logits > 1) compute_logits(first, count);
            const size_t bytes = static_cast<size_t>(count) * n_vocab * sizeof(float);
            backend_->copy_to_host(logits + static_cast<size_t>(first - (n - n_logits)) * n_vocab, buffers_.logits,
                                   bytes);
        }
    });
}

// Whoever only measures texts has no use for it, so not before it is needed.
void Context::arrange_weights() {
    if (arranged_) return;
    arranged_ = true;
    backend_->use(model_->arranged_weights(*backend_));
}

// Of all that is computed for one token, apart from what lies in device memory.
uint64_t Context::shape_key(int64_t n_logits) const {
    const double scale = adapter_ ? adapter_->scale_factor() : 1;
    return derive_seed(std::bit_cast<uint64_t>(scale), n_applied_, static_cast<uint64_t>(n_logits));
}

void Context::forward(const Segment & segment) {
    const int64_t n = segment.q_len;
    BlockActivations block = buffers_.block;
    block.lse = {};
    backend_->embed(model_->embedding(), buffers_.tokens, {}, block.x.slice_rows(0, n));
    for (int32_t l = 0; l < model_->config().n_layer; ++l) {
        const Cache & all = buffers_.caches[static_cast<size_t>(l)];
        const Cache cache{all.k.slice_rows(0, segment.kv_len), all.v.slice_rows(0, segment.kv_len)};
        transformer_->block_forward(l, block, buffers_.scratch, {buffers_.positions, {&segment, 1}}, cache, block.x);
    }
}

void Context::compute_logits(int64_t first, int64_t n) {
    const Matrix normed = buffers_.normed.slice_rows(0, n);
    backend_->norm(buffers_.block.x.slice_rows(first, n), {model_->output_norm(), model_->config().rms_eps, {}}, {},
                   normed);
    backend_->logits(normed, {&model_->output()}, buffers_.logits);
}

}  // namespace lorica
