#include "generate/context.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

constexpr int32_t prompt_piece = 512;  // tokens of a prompt that go through the model at once
constexpr int32_t logits_piece = 32;   // rows of logits computed at once
constexpr size_t max_reaches = 2;      // for as many, devices have plans of attention at once

}  // namespace

// A window that leaves nothing out, or no room to move in, is none; nor is a second one, of which there is none in any
// architecture yet.
void Context::find_reaches() {
    const std::vector<int32_t> none(n_past_.size());
    const int32_t rows = n_ctx_ + virtual_room_;
    reaches_ = {{MaskSpec::all, rows, none}};
    for (const Program & kind : model_->architecture().kinds) {
        for (const AttentionSpec & attention : kind.attentions) {
            const int32_t back = attention.mask.back;
            if (back >= rows - piece_ || reaches_.size() == max_reaches) continue;
            reaches_.push_back({back, back + piece_, none});
        }
    }
}

// 0 where none sees as far, and where there is no attention.
size_t Context::reach_of(const Program & layer) const {
    for (const AttentionSpec & attention : layer.attentions) {
        for (size_t i = 1; i < reaches_.size(); ++i) {
            if (reaches_[i].back == attention.mask.back) return i;
        }
    }
    return 0;
}

Context::Buffers Context::lay_out(Arena & arena) const {
    const Formats formats = model_->device().formats();
    const auto piece_of_ids = [&] {
        return static_cast<int32_t *>(arena.bytes(sizeof(int32_t) * static_cast<size_t>(piece_)));
    };
    Buffers b;
    int64_t widest = 0;  // of the caches that move
    for (int32_t l = 0; l < model_->shape().n_layer; ++l) {
        const Program & layer = model_->architecture().layer(l);
        Cache cache{{}, {}, reach_of(layer)};
        const Reach & reach = reaches_[cache.reach];
        for (const AttentionSpec & attention : layer.attentions) {
            const int64_t cols = int64_t{attention.n_head_kv} * attention.head_dim;
            cache.k = arena.operand(formats.act, int64_t{reach.rows} * n_slots(), cols);
            cache.v = arena.operand(formats.act, int64_t{reach.rows} * n_slots(), cols);
            if (reach.moves()) widest = std::max(widest, cols);
        }
        b.caches.push_back(cache);
    }
    b.x = arena.matrix(formats.hidden, piece_, model_->shape().n_embd);
    b.last = arena.matrix(formats.hidden, logits_piece, model_->shape().n_embd);
    if (widest > 0) b.moved = arena.operand(formats.act, piece_, widest);
    b.logits = static_cast<float *>(
        arena.bytes(sizeof(float) * static_cast<size_t>(logits_piece) * static_cast<size_t>(model_->shape().n_vocab)));
    b.tokens = piece_of_ids();
    b.positions = piece_of_ids();
    for (size_t i = 0; i < reaches_.size(); ++i) b.rows.push_back(piece_of_ids());
    return b;
}

size_t Context::cache_bytes() const {
    size_t bytes = 0;
    for (const Cache & cache : buffers_.caches) bytes += cache.k.n_bytes() + cache.v.n_bytes();
    return bytes;
}

std::unique_ptr<Context::Plan> Context::plan_for(const Adapter * adapter) const {
    auto plan = std::make_unique<Plan>();
    const Architecture & architecture = model_->architecture();
    const AttachedAdapter attached(*model_, adapter, nullptr);
    if (adapter) plan->extent = {adapter->max_rank(), adapter->head_rank(), static_cast<bool>(adapter->bottlenecks())};
    const auto add = [&](const Program & program, const TrainedSites & sites, int64_t rows) {
        Wanted wanted;
        wanted.cache = true;
        const BlockPlan & derived = plan->plans.of(program, sites, wanted);
        const Layout layout(derived, model_->device().formats(), rows, plan->extent.max_rank);
        plan->temporary_bytes = std::max(plan->temporary_bytes, layout.temporary_bytes());
        return &derived;
    };
    plan->prologue = add(architecture.prologue, {}, piece_);
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l)
        plan->layers.push_back(add(architecture.layer(l), attached.sites(l), piece_));
    plan->epilogue = add(architecture.epilogue, attached.sites(architecture.shape.n_layer), logits_piece);
    return plan;
}

void Context::place(Applied & applied) {
    const Plan & plan = *applied.plan;
    const auto placed = [&](const BlockPlan & one, int64_t rows) {
        return Layout(one, model_->device().formats(), rows, plan.extent.max_rank).place(nullptr, temporary_.get());
    };
    applied.prologue = placed(*plan.prologue, piece_);
    applied.prologue.place(*plan.prologue, Slot::output, buffers_.x);
    applied.layers.clear();
    for (size_t l = 0; l < plan.layers.size(); ++l) {
        PlacedSlots & slots = applied.layers.emplace_back(placed(*plan.layers[l], piece_));
        slots.place(*plan.layers[l], Slot::input, buffers_.x);
        slots.place(*plan.layers[l], Slot::output, buffers_.x);
        slots.place(*plan.layers[l], Slot::k_cache, buffers_.caches[l].k);
        slots.place(*plan.layers[l], Slot::v_cache, buffers_.caches[l].v);
    }
    applied.epilogue = placed(*plan.epilogue, logits_piece);
}

WorkspaceShape Context::workspace(const Extent & extent) const {
    WorkspaceShape shape = workspace_shape(*model_);
    shape.max_tokens = std::max(int64_t{piece_}, extent.max_rank);  // for a DoRA, A's rows are tokens
    shape.max_sequence_length = n_ctx_ + virtual_room_;
    shape.max_rank = extent.max_rank;
    shape.head_rank = extent.head_rank;
    if (extent.has_bottlenecks) shape.max_features |= 1;  // see Session::workspace
    return shape;
}

Context::Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx,
                 int32_t n_slots)
    : model_(std::move(model)), n_ctx_(n_ctx) {
    if (!model_->architecture().has_head()) {
        fail(LORICA_ERROR_UNSUPPORTED, "architecture '", model_->shape().architecture,
             "' is an encoder, which reads whole texts and writes none");
    }
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
    texts_.resize(n_past_.size());
    begins_.resize(n_past_.size());
    virtual_room_ = adapter ? adapter->n_virtual_tokens() : 0;
    find_reaches();
    backend_ = model_->new_backend();

    Arena counting;
    lay_out(counting);
    const std::unique_ptr<Plan> plan = plan_for(adapter.get());
    const WorkspaceShape shape = workspace(plan->extent);
    const size_t needed = counting.n_bytes() + plan->temporary_bytes + backend_->workspace_bytes(shape);
    const int64_t available = backend_->available_memory();
    if (static_cast<int64_t>(needed) > available) {
        fail(LORICA_ERROR_OUT_OF_MEMORY, n_slots > 1 ? std::to_string(n_slots) + " contexts" : "a context", " of ",
             n_ctx, " tokens", n_slots > 1 ? " need " : " needs ", needed >> 20, " MiB and ", available >> 20,
             " MiB are available; take ", n_slots > 1 ? "fewer or shorter ones" : "a shorter one");
    }
    backend_->reserve(shape);
    extent_ = plan->extent;
    allocate_buffers(virtual_room_);
    if (adapter) {
        const std::vector<Adapter::Part> parts = {{adapter, 1}};
        set_adapters(parts);
    } else {
        set_adapters({});
    }
}

bool Context::Set::is_sum() const {
    return std::ranges::all_of(parts, [](const Adapter::Part & part) {
        return !part.adapter->config().use_dora && !part.adapter->has_sites();
    });
}

bool Context::Set::is(std::span<const Adapter::Part> other) const {
    return std::ranges::equal(parts, other, [](const Adapter::Part & a, const Adapter::Part & b) {
        return a.adapter == b.adapter && a.factor == b.factor;
    });
}

// None: the base.
std::shared_ptr<const Adapter> Context::sum_of(std::span<const Adapter::Part> parts) const {
    if (parts.empty()) return nullptr;
    const bool as_it_is = parts.size() == 1 && parts[0].factor == 1;
    if (as_it_is && parts[0].adapter->model() != model_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
    }
    if (as_it_is) return parts[0].adapter;
    const std::vector<Adapter::Alike> alike = Adapter::by_invocation(parts);
    if (alike.size() == 1) return Adapter::stack(model_, parts);
    std::vector<std::vector<Adapter::Part>> sums;
    for (const Adapter::Alike & one : alike) sums.push_back(one.parts);
    return Adapter::mixture(model_, sums);
}

std::shared_ptr<Context::Set> Context::prepare_set(std::span<const Adapter::Part> parts,
                                                   std::shared_ptr<const Adapter> adapter) {
    std::vector<Adapter::Alike> alike = Adapter::by_invocation(parts);
    const bool always = alike.size() == 1 && alike[0].invocation.empty();
    auto applied = prepare(std::move(adapter), always ? 0 : static_cast<int64_t>(alike.size()));
    return std::make_shared<Set>(Set{{parts.begin(), parts.end()}, std::move(alike), std::move(applied)});
}

// Nothing is changed before all that can fail is done.
void Context::set_adapters(std::span<const Adapter::Part> parts) {
    const std::shared_ptr<const Adapter> adapter = sum_of(parts);
    const int32_t n_virtual = adapter ? adapter->n_virtual_tokens() : 0;
    const std::shared_ptr<const Set> set = prepare_set(parts, adapter);
    if (n_virtual > virtual_room_) {
        allocate_buffers(n_virtual);
        place(*set->applied);
    }
    for (size_t slot = 0; slot < n_past_.size(); ++slot) truncate(0, static_cast<int32_t>(slot));
    n_virtual_ = n_virtual;
    mixture_ = {};
    mixes_ = false;
    sets_.assign(n_past_.size(), set);
    now_ = set->applied;
}

void Context::set_adapters(std::span<const Adapter::Part> parts, int32_t slot) {
    const size_t i = checked(slot);
    const auto same = std::ranges::find_if(sets_, [&](const auto & set) { return set->is(parts); });
    std::shared_ptr<const Set> set = same == sets_.end() ? nullptr : *same;
    const std::shared_ptr<const Adapter> adapter = set ? set->applied->adapter : sum_of(parts);
    if (n_virtual_ > 0 || (adapter && adapter->n_virtual_tokens() > 0)) {
        fail(
            LORICA_ERROR_UNSUPPORTED,
            "an adapter with virtual tokens cannot be that of some texts of a cache alone; give it a cache of its own");
    }
    if (!set) set = prepare_set(parts, adapter);
    truncate(0, slot);
    const std::shared_ptr<const Set> before = std::exchange(sets_[i], set);
    // A mixture is a copy: what no slot has any more may change, and comes into it anew.
    if (std::ranges::find(sets_, before) == sets_.end() &&
        std::ranges::find(mixture_.sets, before) != mixture_.sets.end())
        mixture_ = {};
    mixes_ = false;
    now_ = set->applied;
}

// Of these sets, as a mixture of them or of more has them.
void Context::mix(const std::vector<std::shared_ptr<const Set>> & sets) {
    const bool has_all = std::ranges::all_of(sets, [&](const auto & set) {
        return set->parts.empty() || std::ranges::find(mixture_.sets, set) != mixture_.sets.end();
    });
    if (!has_all) {
        mixture_ = {};
        Mixture mixture;
        std::vector<std::vector<Adapter::Part>> parts;
        for (const auto & set : sets) {
            if (set->parts.empty()) continue;
            mixture.sets.push_back(set);
            mixture.first.push_back(parts.size());
            for (const Adapter::Alike & one : set->alike) parts.push_back(one.parts);
        }
        mixture.applied = prepare(Adapter::mixture(model_, parts), static_cast<int64_t>(parts.size()));
        mixture_ = std::move(mixture);
    }
    now_ = mixture_.applied;
}

// With room for so many virtual tokens in front of each text, all of which are empty then.
void Context::allocate_buffers(int32_t n_virtual) {
    const int32_t before = std::exchange(virtual_room_, n_virtual);
    const std::vector<Reach> reaches = reaches_;
    try {
        find_reaches();
        Arena counting;
        lay_out(counting);
        std::unique_ptr<void, Release> memory(backend_->allocate(counting.n_bytes()), {backend_.get()});
        backend_->reserve(workspace(extent_));
        arena_ = std::move(memory);
    } catch (...) {
        virtual_room_ = before;
        reaches_ = reaches;
        throw;
    }
    Arena arena(arena_.get());
    buffers_ = lay_out(arena);
    std::fill(n_past_.begin(), n_past_.end(), 0);
}

std::vector<int32_t> Context::virtual_tokens() const {
    std::vector<int32_t> tokens;
    const bool has_prompt = now_->adapter && now_->adapter->has_prompt();
    for (int32_t i = 0; i < n_virtual_; ++i) tokens.push_back(has_prompt ? -1 - i : 0);
    return tokens;
}

std::vector<std::shared_ptr<Context::Applied>> Context::all_applied() const {
    std::vector<std::shared_ptr<Applied>> all;
    for (const auto & set : sets_) all.push_back(set->applied);
    if (mixture_.applied) all.push_back(mixture_.applied);
    return all;
}

std::shared_ptr<Context::Applied> Context::prepare(std::shared_ptr<const Adapter> adapter, int64_t n_parts) {
    auto applied = std::make_shared<Applied>();
    applied->plan = plan_for(adapter.get());
    const Plan & plan = *applied->plan;
    const Extent extent{std::max(extent_.max_rank, plan.extent.max_rank),
                        std::max(extent_.head_rank, plan.extent.head_rank),
                        extent_.has_bottlenecks || plan.extent.has_bottlenecks};
    if (extent != extent_) {
        backend_->reserve(workspace(extent));
        extent_ = extent;
    }
    if (plan.temporary_bytes > temporary_bytes_) {
        temporary_ = std::unique_ptr<void, Release>(backend_->allocate(plan.temporary_bytes), {backend_.get()});
        temporary_bytes_ = plan.temporary_bytes;
        for (const auto & one : all_applied()) place(*one);
    }
    place(*applied);
    applied->attached = std::make_unique<AttachedAdapter>(*model_, adapter.get(), nullptr);
    applied->adapter = std::move(adapter);
    applied->number = ++n_applied_;
    applied->n_parts = n_parts;
    if (n_parts > 0) {
        const auto rows = static_cast<size_t>(piece_ + logits_piece);
        applied->gates = std::unique_ptr<void, Release>(
            backend_->allocate(rows * static_cast<size_t>(n_parts) * sizeof(float)), {backend_.get()});
    }
    return applied;
}

size_t Context::checked(int32_t slot) const {
    if (slot < 0 || slot >= n_slots())
        fail(LORICA_ERROR_INVALID_ARGUMENT, "slot ", slot, " does not exist; there are ", n_slots());
    return static_cast<size_t>(slot);
}

// Whether the cache has all keys that the token at n_past sees.
bool Context::continues_at(int32_t n_past, size_t slot) const {
    return std::ranges::all_of(reaches_, [&](const Reach & reach) {
        return reach.first[slot] == 0 || n_past - reach.back >= reach.first[slot];
    });
}

void Context::truncate(int32_t n_past, int32_t slot) {
    const size_t i = checked(slot);
    if (n_past < 0 || n_past > visible(n_past_[i])) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "cannot cut the context to ", n_past, " tokens; it holds ",
             visible(n_past_[i]));
    }
    const int32_t held = held_for(n_past);
    n_past_[i] = continues_at(held, i) ? held : 0;
    if (n_past_[i] > 0) return;
    for (Reach & reach : reaches_) reach.first[i] = 0;
}

// Rows of a cache, at most piece_, to others; buffers_.rows[0] is free between two pieces of work.
void Context::gather(const Matrix & all, int32_t first, int32_t n, const Matrix & to) {
    std::vector<int32_t> rows(static_cast<size_t>(n));
    std::iota(rows.begin(), rows.end(), first);
    backend_->copy_to_device(buffers_.rows[0], rows.data(), rows.size() * sizeof(int32_t));
    backend_->gather_rows(all, buffers_.rows[0], to);
}

void Context::copy(int32_t from, int32_t to, int32_t n_past) {
    const size_t source = checked(from), target = checked(to);
    if (n_past < 0 || n_past > visible(n_past_[source])) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "cannot copy ", n_past, " tokens of slot ", from, "; it holds ",
             visible(n_past_[source]));
    }
    if (sets_[source] != sets_[target])
        fail(LORICA_ERROR_INVALID_ARGUMENT, "slots ", from, " and ", to, " have different adapters");
    const int32_t held = held_for(n_past);
    if (from == to) return truncate(n_past, to);
    truncate(0, to);
    if (!continues_at(held, source)) return;
    for (const Cache & cache : buffers_.caches) {
        Reach & reach = reaches_[cache.reach];
        for (const Matrix & all : {cache.k, cache.v}) {
            if (!all) continue;
            const int32_t n = held - reach.first[source];
            for (int32_t first = 0; first < n; first += piece_) {
                const int32_t count = std::min(piece_, n - first);
                gather(all, from * reach.rows + first, count, all.slice_rows(int64_t{to} * reach.rows + first, count));
            }
        }
    }
    backend_->synchronize();
    for (Reach & reach : reaches_) reach.first[target] = reach.first[source];
    n_past_[target] = held;
    texts_[target] = texts_[source];
    begins_[target] = begins_[source];
}

// For n more tokens, at most a piece, in the caches that move. Should it fail halfway, the slot is empty.
void Context::make_room(size_t slot, int32_t n) {
    const int32_t held = n_past_[slot];
    std::vector<int32_t> first;  // as they become
    bool full = false;
    for (const Reach & reach : reaches_) {
        full = full || held - reach.first[slot] + n > reach.rows;
        first.push_back(std::max(reach.first[slot], held - reach.back));
    }
    if (!full) return;
    const std::vector<Reach> before = reaches_;
    truncate(0, static_cast<int32_t>(slot));
    for (const Cache & cache : buffers_.caches) {
        const Reach & reach = before[cache.reach];
        const int32_t by = first[cache.reach] - reach.first[slot];
        const int32_t start = static_cast<int32_t>(slot) * reach.rows;
        if (by == 0) continue;
        for (const Matrix & all : {cache.k, cache.v}) {
            for (int32_t done = 0; done < reach.back; done += piece_) {
                const int32_t count = std::min(piece_, reach.back - done);
                Matrix moved = buffers_.moved.slice_rows(0, count);
                moved.cols = all.cols;
                gather(all, start + by + done, count, moved);
                gather(moved, 0, count, all.slice_rows(start + done, count));
            }
        }
    }
    for (size_t i = 0; i < reaches_.size(); ++i) reaches_[i].first[slot] = first[i];
    n_past_[slot] = held;
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

// Of the text of a slot that goes on with these: the tokens that are held, but to which activated LoRAs were applied
// otherwise than they are now, since their invocation has come, or come again. They are held no more, and go through
// the model before the new ones.
std::vector<int32_t> Context::take_text(int32_t slot, std::span<const int32_t> tokens) {
    const auto i = static_cast<size_t>(slot);
    const int32_t held = n_past(slot);
    std::vector<int32_t> & text = texts_[i];
    text.resize(static_cast<size_t>(held));
    text.insert(text.end(), tokens.begin(), tokens.end());
    const std::vector<Adapter::Alike> & alike = sets_[i]->alike;
    begins_[i].resize(alike.size());
    int32_t valid = held;
    for (size_t part = 0; part < alike.size(); ++part) {
        const int32_t begin = alike[part].begin(text), before = std::exchange(begins_[i][part], begin);
        if (begin != before) valid = std::min({valid, begin, before});
    }
    if (valid == held) return {};
    truncate(valid, slot);
    return {text.begin() + n_past(slot), text.begin() + held};
}

void Context::eval(std::span<const Append> given, float * logits) {
    std::vector<bool> used(n_past_.size());
    for (const Append & append : given) {
        check_tokens(append.tokens, append.slot);
        if (used[checked(append.slot)])
            fail(LORICA_ERROR_INVALID_ARGUMENT, "slot ", append.slot, " is named twice; a text is appended to once");
        used[checked(append.slot)] = true;
    }
    // All sums of LoRAs together, and of what is none, each set by itself.
    struct Group {
        std::vector<std::shared_ptr<const Set>> sets;
        std::vector<size_t> members;
    };
    std::vector<Group> groups;
    for (size_t i = 0; i < given.size(); ++i) {
        const auto & set = sets_[static_cast<size_t>(given[i].slot)];
        auto group = std::ranges::find_if(
            groups, [&](const Group & one) { return one.sets[0] == set || (one.sets[0]->is_sum() && set->is_sum()); });
        if (group == groups.end()) group = groups.insert(groups.end(), Group{});
        if (std::ranges::find(group->sets, set) == group->sets.end()) group->sets.push_back(set);
        group->members.push_back(i);
    }
    const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
    for (const Group & group : groups) {
        mixes_ = group.sets.size() > 1;
        if (mixes_) {
            mix(group.sets);
        } else {
            now_ = group.sets[0]->applied;
        }
        if (groups.size() == 1) {
            eval_alike(given, logits);
            continue;
        }
        std::vector<Append> members;
        for (const size_t i : group.members) members.push_back(given[i]);
        std::vector<float> own(logits ? members.size() * n_vocab : 0);
        eval_alike(members, logits ? own.data() : nullptr);
        for (size_t i = 0; logits && i < members.size(); ++i)
            std::copy_n(own.data() + i * n_vocab, n_vocab, logits + group.members[i] * n_vocab);
    }
}

// With what is applied now.
void Context::eval_alike(std::span<const Append> given, float * logits) {
    // Texts that begin here begin with the virtual tokens.
    std::vector<Append> appends(given.begin(), given.end());
    std::vector<std::vector<int32_t>> begun;
    begun.reserve(appends.size());
    for (Append & append : appends) {
        std::vector<int32_t> text = take_text(append.slot, append.tokens);
        if (n_virtual_ > 0 && n_past_[static_cast<size_t>(append.slot)] == 0) text = virtual_tokens();
        if (text.empty()) continue;
        text.insert(text.end(), append.tokens.begin(), append.tokens.end());
        begun.push_back(std::move(text));
        append.tokens = begun.back();
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
    for (const Append & one : appends) {
        for (size_t done = 0; done < one.tokens.size();) {
            if (piece.tokens.size() == room) flush();
            const size_t n = std::min(one.tokens.size() - done, static_cast<size_t>(piece_) - piece.tokens.size());
            int32_t & held = past[static_cast<size_t>(one.slot)];
            make_room(static_cast<size_t>(one.slot), static_cast<int32_t>(n));
            append(piece, one.slot, one.tokens.subspan(done, n), held);
            done += n;
            if (done == one.tokens.size()) piece.last.push_back(static_cast<int32_t>(piece.tokens.size()) - 1);
            held += static_cast<int32_t>(n);
            // A text goes on in the next piece only once this one is in the cache.
            if (done < one.tokens.size()) flush();
        }
    }
    if (!piece.tokens.empty()) flush();
}

void Context::append(Piece & piece, int32_t slot, std::span<const int32_t> tokens, int32_t held) const {
    const auto begin = static_cast<int32_t>(piece.tokens.size()), n = static_cast<int32_t>(tokens.size());
    piece.tokens.insert(piece.tokens.end(), tokens.begin(), tokens.end());
    for (int32_t i = 0; i < n; ++i) piece.positions.push_back(held + i);
    if (now_->n_parts > 0) {
        const auto i = static_cast<size_t>(slot), n_parts = static_cast<size_t>(now_->n_parts);
        const auto own = std::ranges::find(mixture_.sets, sets_[i]);
        const size_t first =
            mixes_ && own != mixture_.sets.end() ? mixture_.first[static_cast<size_t>(own - mixture_.sets.begin())] : 0;
        for (int32_t position = held; position < held + n; ++position) {
            piece.gate.resize(piece.gate.size() + n_parts);
            float * const row = &piece.gate[piece.gate.size() - n_parts];
            for (size_t part = 0; part < begins_[i].size(); ++part)
                row[first + part] = position >= begins_[i][part] ? 1.0f : 0.0f;
        }
    }
    piece.rows.resize(reaches_.size());
    piece.segments.resize(reaches_.size());
    piece.prefix.resize(reaches_.size());
    const bool is_prefix = held < n_virtual_ && !now_->adapter->has_prompt();
    for (size_t r = 0; r < reaches_.size(); ++r) {
        const Reach & reach = reaches_[r];
        const int32_t start = slot * reach.rows, seen = held - reach.first[static_cast<size_t>(slot)];
        piece.segments[r].push_back({begin, n, start, seen + n});
        for (int32_t i = 0; i < n; ++i) piece.rows[r].push_back(start + seen + i);
        if (is_prefix) piece.prefix[r].push_back({start + seen, held, std::min(n, n_virtual_ - held)});
    }
}

void Context::upload(const Piece & piece) {
    const size_t n_bytes = piece.tokens.size() * sizeof(int32_t);
    backend_->copy_to_device(buffers_.tokens, piece.tokens.data(), n_bytes);
    backend_->copy_to_device(buffers_.positions, piece.positions.data(), n_bytes);
    for (size_t r = 0; r < reaches_.size(); ++r) {
        if (has_rows(r)) backend_->copy_to_device(buffers_.rows[r], piece.rows[r].data(), n_bytes);
    }
}

// Of a piece's rows.
void Context::upload_gate(const Piece & piece) {
    if (now_->n_parts == 0) return;
    backend_->copy_to_device(now_->gates.get(), piece.gate.data(), piece.gate.size() * sizeof(float));
    const auto rows = static_cast<int64_t>(piece.tokens.size());
    now_->attached->set_gate({now_->gates.get(), Dtype::f32, rows, now_->n_parts, now_->n_parts});
}

// Of rows of a piece whose logits are wanted, at most logits_piece.
void Context::upload_head_gate(const Piece & piece, std::span<const int32_t> rows) {
    if (now_->n_parts == 0 || now_->adapter->head_rank() == 0) return;
    const auto n_parts = static_cast<size_t>(now_->n_parts);
    std::vector<float> gate;
    for (const int32_t row : rows) {
        const auto from = piece.gate.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(row) * n_parts);
        gate.insert(gate.end(), from, from + now_->n_parts);
    }
    float * const to = static_cast<float *>(now_->gates.get()) + static_cast<size_t>(piece_) * n_parts;
    backend_->copy_to_device(to, gate.data(), gate.size() * sizeof(float));
    now_->attached->set_head_gate({to, Dtype::f32, static_cast<int64_t>(rows.size()), now_->n_parts, now_->n_parts});
}

// Of one text, rows that do not move are the positions.
bool Context::has_rows(size_t reach) const { return n_slots() > 1 || reaches_[reach].moves(); }

void Context::eval_piece(const Piece & piece, float * logits) {
    const auto n = static_cast<int64_t>(piece.tokens.size());
    upload(piece);
    upload_gate(piece);
    if (n <= backend_->few_rows()) arrange_weights();
    if (now_->adapter) now_->adapter->update(*backend_);
    backend_->together(n, [&] {
        forward(piece);
        const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
        for (size_t first = 0; logits && first < piece.last.size(); first += logits_piece) {
            const size_t count = std::min<size_t>(logits_piece, piece.last.size() - first);
            const Matrix last = buffers_.last.slice_rows(0, static_cast<int64_t>(count));
            backend_->copy_to_device(buffers_.rows[0], &piece.last[first], count * sizeof(int32_t));
            backend_->gather_rows(buffers_.x, buffers_.rows[0], last);
            upload_head_gate(piece, std::span(piece.last).subspan(first, count));
            compute_logits(last);
            backend_->copy_to_host(logits + first * n_vocab, buffers_.logits, count * n_vocab * sizeof(float));
        }
    });
}

void Context::eval(std::span<const int32_t> tokens, bool all_logits, float * logits) {
    check_tokens(tokens, 0);
    mixes_ = false;
    now_ = sets_[0]->applied;
    const int32_t n_vocab = model_->shape().n_vocab;
    std::vector<int32_t> before = take_text(0, tokens);
    if (n_virtual_ > 0 && n_past_[0] == 0) before = virtual_tokens();
    for (size_t first = 0; first < before.size(); first += static_cast<size_t>(piece_)) {
        const size_t count = std::min(static_cast<size_t>(piece_), before.size() - first);
        eval_piece(std::span(before).subspan(first, count), false, false, nullptr);
    }
    for (size_t first = 0; first < tokens.size(); first += static_cast<size_t>(piece_)) {
        const size_t count = std::min(static_cast<size_t>(piece_), tokens.size() - first);
        float * out = logits && all_logits ? logits + first * static_cast<size_t>(n_vocab) : logits;
        eval_piece(tokens.subspan(first, count), first + count == tokens.size(), all_logits, out);
    }
}

void Context::eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits) {
    const auto n = static_cast<int32_t>(tokens.size());
    make_room(0, n);
    Piece piece;
    append(piece, 0, tokens, n_past_[0]);
    upload(piece);

    upload_gate(piece);

    const int64_t n_logits = !logits ? 0 : all_logits ? n : last ? 1 : 0;  // of the last tokens
    std::vector<int32_t> wanted(static_cast<size_t>(n_logits));
    std::iota(wanted.begin(), wanted.end(), n - static_cast<int32_t>(n_logits));
    if (n_logits == 1) upload_head_gate(piece, wanted);
    if ((n_logits == 1 ? 1 : n) <= backend_->few_rows()) arrange_weights();
    if (now_->adapter) now_->adapter->update(*backend_);
    const auto compute = [&] {
        forward(piece);
        if (n_logits == 1) compute_logits(buffers_.x.slice_rows(n - 1, 1));
    };
    backend_->together(n, [&] {
        if (n == 1) {
            std::vector<Segment> all;
            for (const std::vector<Segment> & list : piece.segments) all.insert(all.end(), list.begin(), list.end());
            backend_->repeat(all, shape_key(n_logits), compute);
        } else {
            compute();
        }
        n_past_[0] += n;
        const auto n_vocab = static_cast<size_t>(model_->shape().n_vocab);
        for (int64_t first = n - n_logits; first < n; first += logits_piece) {
            const int64_t count = std::min<int64_t>(logits_piece, n - first);
            if (n_logits > 1) {
                upload_head_gate(piece, std::span(wanted).subspan(static_cast<size_t>(first - (n - n_logits)),
                                                                  static_cast<size_t>(count)));
                compute_logits(buffers_.x.slice_rows(first, count));
            }
            const size_t bytes = static_cast<size_t>(count) * n_vocab * sizeof(float);
            backend_->copy_to_host(logits + static_cast<size_t>(first - (n - n_logits)) * n_vocab, buffers_.logits,
                                   bytes);
        }
    });
}

// Whoever only measures texts has no use for it, so not before it is needed.
void Context::arrange_weights() {
    // Those that stand in for the model's are never arranged.
    if (arranged_ || (now_->adapter && now_->adapter->config().method == Method::full)) return;
    backend_->use(model_->arranged_weights(*backend_));
    arranged_ = true;
}

// Of all that is computed for one token, apart from what lies in device memory.
uint64_t Context::shape_key(int64_t n_logits) const {
    const double scale = now_->adapter ? now_->adapter->scale_factor() : 1;
    return derive_seed(std::bit_cast<uint64_t>(scale), now_->number, static_cast<uint64_t>(n_logits));
}

Bound Context::bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                     const PlacedSlots & slots, std::span<const Segment> segments, int64_t n, int32_t layer) const {
    Bound b{program, weights, plan, slots.forward, n, layer};
    b.adapter = now_->adapter ? now_->attached.get() : nullptr;
    b.positions = buffers_.positions;
    b.longest_sequence = n_ctx_ + n_virtual_;
    b.segments = segments;
    b.tokens = buffers_.tokens;
    return b;
}

void Context::forward(const Piece & piece) {
    const Architecture & architecture = model_->architecture();
    const auto n = static_cast<int64_t>(piece.tokens.size());
    run(now_->plan->prologue->forward,
        bound(architecture.prologue, model_->prologue(), *now_->plan->prologue, now_->prologue, piece.segments[0], n),
        *backend_);
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        const BlockPlan & plan = *now_->plan->layers[i];
        const size_t reach = buffers_.caches[i].reach;
        Bound b = bound(architecture.layer(l), model_->layers()[i], plan, now_->layers[i], piece.segments[reach], n, l);
        if (has_rows(reach)) b.cache_rows = buffers_.rows[reach];
        b.prefix = piece.prefix[reach];
        run(plan.forward, b, *backend_);
    }
}

void Context::compute_logits(Matrix x) {
    const Segment rows{0, static_cast<int32_t>(x.rows), 0, static_cast<int32_t>(x.rows)};
    now_->epilogue.place(*now_->plan->epilogue, Slot::input, x);
    Bound b = bound(model_->architecture().epilogue, model_->epilogue(), *now_->plan->epilogue, now_->epilogue,
                    {&rows, 1}, x.rows, model_->shape().n_layer);
    b.n_picked = x.rows;
    b.logits = buffers_.logits;
    run(now_->plan->epilogue->forward, b, *backend_);
}

}  // namespace lorica
