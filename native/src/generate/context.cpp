#include "generate/context.h"

#include <algorithm>
#include <bit>

#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

constexpr int32_t prompt_piece = 512;  // tokens of a prompt that go through the model at once
constexpr int32_t logits_piece = 32;   // rows of logits computed at once

}  // namespace

Context::Buffers Context::lay_out(Arena & arena, const Model & model, int32_t n_ctx, int32_t n_slots, int32_t piece) {
    const Formats formats = model.device().formats();
    Buffers b;
    for (int32_t l = 0; l < model.shape().n_layer; ++l) {
        Cache cache;
        for (const AttentionSpec & attention : model.architecture().layer(l).attentions) {
            const int64_t cols = int64_t{attention.n_head_kv} * attention.head_dim;
            cache.k = arena.operand(formats.act, int64_t{n_ctx} * n_slots, cols);
            cache.v = arena.operand(formats.act, int64_t{n_ctx} * n_slots, cols);
        }
        b.caches.push_back(cache);
    }
    b.x = arena.matrix(formats.hidden, piece, model.shape().n_embd);
    b.last = arena.matrix(formats.hidden, logits_piece, model.shape().n_embd);
    b.logits = static_cast<float *>(
        arena.bytes(sizeof(float) * static_cast<size_t>(logits_piece) * static_cast<size_t>(model.shape().n_vocab)));
    b.tokens = static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece)));
    b.positions = static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece)));
    b.rows = static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece)));
    return b;
}

std::unique_ptr<Context::Plan> Context::plan_for(const Adapter * adapter) const {
    auto plan = std::make_unique<Plan>();
    const Architecture & architecture = model_->architecture();
    const AttachedAdapter attached(*model_, adapter, nullptr);
    plan->max_rank = adapter ? adapter->max_rank() : 0;
    const auto add = [&](const Program & program, const TrainedSites & sites, int64_t rows) {
        Wanted wanted;
        wanted.cache = true;
        const BlockPlan & derived = plan->plans.of(program, sites, wanted);
        const Layout layout(derived, model_->device().formats(), rows, plan->max_rank);
        plan->temporary_bytes = std::max(plan->temporary_bytes, layout.temporary_bytes());
        return &derived;
    };
    plan->prologue = add(architecture.prologue, {}, piece_);
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l)
        plan->layers.push_back(add(architecture.layer(l), attached.sites(l), piece_));
    plan->epilogue = add(architecture.epilogue, attached.sites(architecture.shape.n_layer), logits_piece);
    return plan;
}

void Context::place(const Plan & plan, void * temporary) {
    const auto placed = [&](const BlockPlan & one, int64_t rows) {
        return Layout(one, model_->device().formats(), rows, plan.max_rank).place(nullptr, temporary);
    };
    prologue_ = placed(*plan.prologue, piece_);
    prologue_.place(*plan.prologue, Slot::output, buffers_.x);
    layers_.clear();
    for (size_t l = 0; l < plan.layers.size(); ++l) {
        PlacedSlots & slots = layers_.emplace_back(placed(*plan.layers[l], piece_));
        slots.place(*plan.layers[l], Slot::input, buffers_.x);
        slots.place(*plan.layers[l], Slot::output, buffers_.x);
        slots.place(*plan.layers[l], Slot::k_cache, buffers_.caches[l].k);
        slots.place(*plan.layers[l], Slot::v_cache, buffers_.caches[l].v);
    }
    epilogue_ = placed(*plan.epilogue, logits_piece);
}

WorkspaceShape Context::workspace(int64_t max_rank) const {
    WorkspaceShape shape = workspace_shape(*model_);
    shape.max_tokens = std::max<int64_t>(piece_, max_rank);  // for a DoRA, A's rows go through the layers as tokens do
    shape.max_sequence_length = n_ctx_;
    shape.max_rank = max_rank;
    return shape;
}

Context::Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx,
                 int32_t n_slots)
    : model_(std::move(model)), n_ctx_(n_ctx) {
    if (n_slots < 1 || n_slots > 4096)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_slots is ", n_slots, "; it must lie between 1 and 4096");
    if (n_ctx < 1 || n_ctx > (1 << 24))
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_ctx is ", n_ctx, "; it must lie between 1 and ", 1 << 24);
    if (int64_t{n_ctx} * n_slots > (1 << 24)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, n_slots, " texts of ", n_ctx, " tokens are more than ", 1 << 24,
             " tokens together");
    }
    if (adapter && adapter->model() != model_)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
    piece_ = std::min(n_ctx * n_slots, prompt_piece);
    n_past_.resize(static_cast<size_t>(n_slots));
    backend_ = model_->new_backend();

    Arena counting;
    lay_out(counting, *model_, n_ctx_, n_slots, piece_);
    const std::unique_ptr<Plan> plan = plan_for(adapter.get());
    const size_t needed =
        counting.n_bytes() + plan->temporary_bytes + backend_->workspace_bytes(workspace(plan->max_rank));
    const int64_t available = backend_->available_memory();
    if (static_cast<int64_t>(needed) > available) {
        fail(LORICA_ERROR_OUT_OF_MEMORY, n_slots > 1 ? std::to_string(n_slots) + " contexts" : "a context", " of ",
             n_ctx, " tokens", n_slots > 1 ? " need " : " needs ", needed >> 20, " MiB and ", available >> 20,
             " MiB are available; take ", n_slots > 1 ? "fewer or shorter ones" : "a shorter one");
    }
    backend_->reserve(workspace(plan->max_rank));
    max_rank_ = plan->max_rank;
    arena_ = std::unique_ptr<void, Release>(backend_->allocate(counting.n_bytes()), {backend_.get()});
    Arena arena(arena_.get());
    buffers_ = lay_out(arena, *model_, n_ctx_, n_slots, piece_);
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

// Nothing is changed before all that can fail is done.
void Context::apply(std::shared_ptr<const Adapter> adapter) {
    std::unique_ptr<Plan> plan = plan_for(adapter.get());
    if (plan->max_rank > max_rank_) {
        backend_->reserve(workspace(plan->max_rank));
        max_rank_ = plan->max_rank;
    }
    if (plan->temporary_bytes > temporary_bytes_) {
        temporary_ = std::unique_ptr<void, Release>(backend_->allocate(plan->temporary_bytes), {backend_.get()});
        temporary_bytes_ = plan->temporary_bytes;
    }
    place(*plan, temporary_.get());
    plan_ = std::move(plan);
    attached_ = std::make_unique<AttachedAdapter>(*model_, adapter.get(), nullptr);
    adapter_ = std::move(adapter);
    ++n_applied_;
    std::fill(n_past_.begin(), n_past_.end(), 0);
}

size_t Context::checked(int32_t slot) const {
    if (slot < 0 || slot >= n_slots())
        fail(LORICA_ERROR_INVALID_ARGUMENT, "slot ", slot, " does not exist; there are ", n_slots());
    return static_cast<size_t>(slot);
}

void Context::truncate(int32_t n_past, int32_t slot) {
    int32_t & held = n_past_[checked(slot)];
    if (n_past < 0 || n_past > held) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "cannot cut the context to ", n_past, " tokens; it holds ", held);
    }
    held = n_past;
}

void Context::copy(int32_t from, int32_t to, int32_t n_past) {
    if (n_past < 0 || n_past > n_past_[checked(from)]) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "cannot copy ", n_past, " tokens of slot ", from, "; it holds ",
             n_past_[checked(from)]);
    }
    int32_t & held = n_past_[checked(to)];
    if (from == to) return truncate(n_past, to);
    held = 0;
    for (int32_t first = 0; first < n_past; first += piece_) {
        const int32_t n = std::min(piece_, n_past - first);
        std::vector<int32_t> rows;
        for (int32_t i = 0; i < n; ++i) rows.push_back(from * n_ctx_ + first + i);
        backend_->copy_to_device(buffers_.rows, rows.data(), rows.size() * sizeof(int32_t));
        for (const Cache & cache : buffers_.caches) {
            for (const Matrix & all : {cache.k, cache.v}) {
                if (all) backend_->gather_rows(all, buffers_.rows, all.slice_rows(int64_t{to} * n_ctx_ + first, n));
            }
        }
        backend_->synchronize();
    }
    held = n_past;
}

void Context::check_tokens(std::span<const int32_t> tokens, int32_t slot) const {
    const auto n = static_cast<int64_t>(tokens.size());
    if (n < 1) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no tokens to evaluate");
    if (n > n_ctx_ - n_past(slot)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the context holds ", n_past(slot), " of ", n_ctx_, " tokens; ", n,
             " more do not fit");
    }
    const int32_t n_vocab = model_->shape().n_vocab;
    for (const int32_t id : tokens) {
        if (id < 0 || id >= n_vocab)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token id ", id, " is outside the vocabulary of ", n_vocab);
    }
}

void Context::eval(std::span<const Append> appends, float * logits) {
    std::vector<bool> used(n_past_.size());
    for (const Append & append : appends) {
        check_tokens(append.tokens, append.slot);
        if (used[checked(append.slot)])
            fail(LORICA_ERROR_INVALID_ARGUMENT, "slot ", append.slot, " is named twice; a text is appended to once");
        used[checked(append.slot)] = true;
    }
    const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
    const bool one_each =
        std::all_of(appends.begin(), appends.end(), [](const Append & append) { return append.tokens.size() == 1; });
    const auto few = static_cast<size_t>(backend_->few_rows());
    const size_t room = one_each && few > 0 ? std::min(few, static_cast<size_t>(piece_)) : static_cast<size_t>(piece_);
    Piece piece;
    std::vector<int32_t> past = n_past_;
    const auto flush = [&] {
        eval_piece(piece, logits);
        n_past_ = past;
        if (logits) logits += piece.last.size() * n_vocab;
        piece = {};
    };
    for (const Append & append : appends) {
        for (size_t done = 0; done < append.tokens.size();) {
            if (piece.tokens.size() == room) flush();
            const size_t n = std::min(append.tokens.size() - done, static_cast<size_t>(piece_) - piece.tokens.size());
            int32_t & held = past[static_cast<size_t>(append.slot)];
            const int32_t first_row = append.slot * n_ctx_;
            piece.segments.push_back({static_cast<int32_t>(piece.tokens.size()), static_cast<int32_t>(n), first_row,
                                      held + static_cast<int32_t>(n)});
            for (size_t i = 0; i < n; ++i) {
                const int32_t position = held + static_cast<int32_t>(i);
                piece.tokens.push_back(append.tokens[done + i]);
                piece.positions.push_back(position);
                piece.rows.push_back(first_row + position);
            }
            done += n;
            if (done == append.tokens.size()) piece.last.push_back(static_cast<int32_t>(piece.tokens.size()) - 1);
            held += static_cast<int32_t>(n);
            // A text goes on in the next piece only once this one is in the cache.
            if (done < append.tokens.size()) flush();
        }
    }
    if (!piece.tokens.empty()) flush();
}

void Context::eval_piece(const Piece & piece, float * logits) {
    const auto n = static_cast<int64_t>(piece.tokens.size());
    backend_->copy_to_device(buffers_.tokens, piece.tokens.data(), piece.tokens.size() * sizeof(int32_t));
    backend_->copy_to_device(buffers_.positions, piece.positions.data(), piece.tokens.size() * sizeof(int32_t));
    backend_->copy_to_device(buffers_.rows, piece.rows.data(), piece.tokens.size() * sizeof(int32_t));
    if (n <= backend_->few_rows()) arrange_weights();
    if (adapter_) adapter_->update(*backend_);
    backend_->together(n, [&] {
        forward(piece.segments, n);
        const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
        for (size_t first = 0; logits && first < piece.last.size(); first += logits_piece) {
            const size_t count = std::min<size_t>(logits_piece, piece.last.size() - first);
            const Matrix last = buffers_.last.slice_rows(0, static_cast<int64_t>(count));
            backend_->copy_to_device(buffers_.rows, &piece.last[first], count * sizeof(int32_t));
            backend_->gather_rows(buffers_.x, buffers_.rows, last);
            compute_logits(last);
            backend_->copy_to_host(logits + first * n_vocab, buffers_.logits, count * n_vocab * sizeof(float));
        }
    });
}

void Context::eval(std::span<const int32_t> tokens, bool all_logits, float * logits) {
    check_tokens(tokens, 0);
    const int32_t n_vocab = model_->shape().n_vocab;
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(piece_)) {
        const size_t count = std::min(static_cast<size_t>(piece_), tokens.size() - first);
        float * out = logits && all_logits ? logits + first * static_cast<size_t>(n_vocab) : logits;
        eval_piece(tokens.subspan(first, count), first + count == tokens.size(), all_logits, out);
    }
}

void Context::eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits) {
    const auto n = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    for (int32_t i = 0; i < n; ++i) positions[static_cast<size_t>(i)] = n_past_[0] + i;
    backend_->copy_to_device(buffers_.tokens, tokens.data(), tokens.size_bytes());
    backend_->copy_to_device(buffers_.positions, positions.data(), tokens.size_bytes());
    if (n_slots() > 1) backend_->copy_to_device(buffers_.rows, positions.data(), tokens.size_bytes());

    const int64_t n_logits = !logits ? 0 : all_logits ? n : last ? 1 : 0;  // of the last tokens
    if ((n_logits == 1 ? 1 : n) <= backend_->few_rows()) arrange_weights();
    if (adapter_) adapter_->update(*backend_);
    const Segment segment{0, n, 0, n_past_[0] + n};
    const auto compute = [&] {
        forward({&segment, 1}, n);
        if (n_logits == 1) compute_logits(buffers_.x.slice_rows(n - 1, 1));
    };
    backend_->together(n, [&] {
        if (n == 1) {
            backend_->repeat({&segment, 1}, shape_key(n_logits), compute);
        } else {
            compute();
        }
        n_past_[0] += n;
        const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
        for (int64_t first = n - n_logits; first < n; first += logits_piece) {
            const int64_t count = std::min<int64_t>(logits_piece, n - first);
            if (n_logits > 1) compute_logits(buffers_.x.slice_rows(first, count));
            const size_t bytes = static_cast<size_t>(count) * n_vocab * sizeof(float);
            backend_->copy_to_host(logits + static_cast<size_t>(first - (n - n_logits)) * n_vocab, buffers_.logits,
                                   bytes);
        }
    });
}

// Whoever only measures texts has no use for it, so not before it is needed.
void Context::arrange_weights() {
    if (arranged_) return;
    backend_->use(model_->arranged_weights(*backend_));
    arranged_ = true;
}

// Of all that is computed for one token, apart from what lies in device memory.
uint64_t Context::shape_key(int64_t n_logits) const {
    const double scale = adapter_ ? adapter_->scale_factor() : 1;
    return derive_seed(std::bit_cast<uint64_t>(scale), n_applied_, static_cast<uint64_t>(n_logits));
}

Bound Context::bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                     const PlacedSlots & slots, std::span<const Segment> segments, int64_t n, int32_t layer) const {
    Bound b{program, weights, plan, slots.forward, n, layer};
    b.adapter = adapter_ ? attached_.get() : nullptr;
    b.positions = buffers_.positions;
    b.longest_sequence = n_ctx_;
    b.segments = segments;
    if (n_slots() > 1) b.cache_rows = buffers_.rows;
    b.tokens = buffers_.tokens;
    return b;
}

void Context::forward(std::span<const Segment> segments, int64_t n) {
    const Architecture & architecture = model_->architecture();
    run(plan_->prologue->forward,
        bound(architecture.prologue, model_->prologue(), *plan_->prologue, prologue_, segments, n), *backend_);
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        const BlockPlan & plan = *plan_->layers[i];
        run(plan.forward, bound(architecture.layer(l), model_->layers()[i], plan, layers_[i], segments, n, l),
            *backend_);
    }
}

void Context::compute_logits(Matrix x) {
    const Segment rows{0, static_cast<int32_t>(x.rows), 0, static_cast<int32_t>(x.rows)};
    epilogue_.place(*plan_->epilogue, Slot::input, x);
    Bound b = bound(model_->architecture().epilogue, model_->epilogue(), *plan_->epilogue, epilogue_, {&rows, 1},
                    x.rows, model_->shape().n_layer);
    b.n_picked = x.rows;
    b.logits = buffers_.logits;
    run(plan_->epilogue->forward, b, *backend_);
}

}  // namespace lorica
