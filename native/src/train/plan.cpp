#include "train/plan.h"

#include <algorithm>

namespace lorica {

bool SessionPlan::has_features(const Model & model, const Adapter * adapter, const SessionConfig & config) {
    const bool classifies = model.classifier().n_outputs > 0 || (adapter && adapter->config().classifier);
    return config.features || classifies || !model.architecture().has_head();
}

SessionPlan::SessionPlan(const Model & model, const Adapter * adapter, const SessionConfig & config,
                         int32_t recomputed_layers)
    : model_(model), config_(config), recomputed_layers_(recomputed_layers) {
    const AttachedAdapter attached(model, adapter, nullptr);
    has_features_ = has_features(model, adapter, config);
    first_ = attached.first_layer();
    trains_prologue_ = attached.trains_prologue();
    if (adapter) {
        max_rank_ = adapter->max_rank();
        has_dropout_ = adapter->config().dropout > 0;
        has_gate_ = !adapter->config().invocation_tokens.empty();
    }
    const Architecture & architecture = model.architecture();
    const int32_t last = architecture.shape.n_layer - 1;
    training_.resize(static_cast<size_t>(last + 1));
    evaluation_.resize(static_cast<size_t>(last + 1));
    bare_.resize(static_cast<size_t>(last + 1));
    bool has_twin = false;  // the layer above has left one
    for (int32_t l = last; l >= 0; --l) {
        const auto i = static_cast<size_t>(l);
        const TrainedSites sites = attached.sites(l);
        training_[i] = evaluation_[i] = &plans_.of(architecture.layer(l), sites, {});
        bare_[i] = &plans_.of(architecture.layer(l), {}, {});
        if (l < first_) continue;
        Wanted wanted;
        wanted.backward = true;
        wanted.dx = l > first_ || trains_prologue_;
        wanted.twin_in = has_twin;
        wanted.twin_out = l > first_ && reads_twin(architecture.layer(l - 1));
        wanted.recomputed = l < first_ + recomputed_layers;
        training_[i] = &plans_.of(architecture.layer(l), sites, wanted);
        has_twin = training_[i]->leaves_twin;
    }
    Wanted training;
    training.noise = config.neftune_alpha > 0;
    training.backward = trains_prologue_;
    prologue_ = &plans_.of(architecture.prologue, {}, {});
    training_prologue_ = &plans_.of(architecture.prologue, attached.sites(-1), training);
    Wanted gradient;
    gradient.backward = true;
    gradient.dx = first_ < architecture.shape.n_layer;
    const TrainedSites sites = attached.sites(architecture.shape.n_layer);
    trains_head_ = !sites.heads.empty() || (adapter && adapter->head_rank() > 0);
    evaluated_epilogue_ = &plans_.of(architecture.epilogue, sites, {});
    epilogue_ = adapter ? &plans_.of(architecture.epilogue, sites, gradient) : evaluated_epilogue_;
    evaluated_features_ = &plans_.of(architecture.features, sites, {});
    features_ = adapter ? &plans_.of(architecture.features, sites, gradient) : evaluated_features_;
}

Layout SessionPlan::layout(const BlockPlan & plan) const {
    return Layout(plan, model_.device().formats(), config_.max_tokens, max_rank_);
}

namespace {

bool has(const BlockPlan & plan, Slot::Place place) {
    return std::any_of(plan.slots.begin(), plan.slots.end(), [&](const Slot & slot) { return slot.place == place; });
}

}  // namespace

int64_t likeliest_rows(const SessionConfig & config) {
    constexpr int32_t most = 128;  // the head is expanded once for all of them
    return std::min(config.max_tokens, most);
}

SessionMemory SessionPlan::lay_out(Arena & arena) const {
    const Formats formats = model_.device().formats();
    const int64_t n = config_.max_tokens, n_embd = model_.shape().n_embd;
    const int32_t n_layer = model_.shape().n_layer;
    SessionMemory m;
    const auto ids = [&] { return static_cast<int32_t *>(arena.bytes(static_cast<size_t>(n) * sizeof(int32_t))); };
    m.tokens = ids();
    m.positions = ids();
    m.rows = ids();
    m.labels = ids();
    const std::vector<EmbedSpec> & embeds = model_.architecture().prologue.embeds;
    const bool has_types =
        std::any_of(embeds.begin(), embeds.end(), [](const EmbedSpec & e) { return e.index == EmbedSpec::type; });
    m.types = has_types ? ids() : nullptr;
    for (int32_t ** array : {&m.sorted_tokens, &m.token_rows, &m.sorted_positions, &m.position_rows, &m.sorted_types,
                             &m.type_rows, &m.virtual_ids, &m.virtual_rows})
        *array = trains_prologue_ ? ids() : nullptr;
    const auto n_labels = static_cast<size_t>(std::max(config_.n_candidates, 1));
    const auto of_labels = [&] { return arena.bytes(static_cast<size_t>(n) * n_labels * sizeof(float)); };
    m.row_weights = trains_head_ || config_.n_candidates > 0 ? static_cast<float *>(of_labels()) : nullptr;
    m.candidates = config_.n_candidates > 0 ? static_cast<int32_t *>(of_labels()) : nullptr;
    m.logits = config_.likeliest
                   ? static_cast<float *>(arena.bytes(static_cast<size_t>(likeliest_rows(config_)) *
                                                      static_cast<size_t>(model_.shape().n_vocab) * sizeof(float)))
                   : nullptr;
    const auto gate = [&] {
        return has_gate_ ? static_cast<float *>(arena.bytes(static_cast<size_t>(n) * sizeof(float))) : nullptr;
    };
    m.gate = gate();
    m.head_gate = gate();
    m.dropout_seeds =
        has_dropout_ ? static_cast<uint64_t *>(arena.bytes(AttachedAdapter::n_dropout_seeds(model_) * sizeof(uint64_t)))
                     : nullptr;
    for (int32_t l = std::min(first_, n_layer); l <= n_layer; ++l)
        m.x.push_back(arena.matrix(formats.hidden, n, n_embd));

    // What is temporary in a layer that keeps its activations, in the prologue, and all of the epilogue: nothing else
    // is going on then. Frozen layers, recomputed ones and evaluation may also take the memory right behind, which the
    // lowest layer that keeps its activations has for them: its forward pass comes later or not at all, its backward
    // pass is over.
    std::vector<Layout> training, evaluation, bare;
    for (int32_t l = 0; l < n_layer; ++l) {
        training.push_back(layout(*training_[static_cast<size_t>(l)]));
        evaluation.push_back(layout(*evaluation_[static_cast<size_t>(l)]));
        bare.push_back(layout(*bare_[static_cast<size_t>(l)]));
    }
    const int32_t lowest = first_ + recomputed_layers_;
    const Layout prologue = layout(*training_prologue_), evaluated_prologue = layout(*prologue_),
                 epilogue = layout(*epilogue_), evaluated_epilogue = layout(*evaluated_epilogue_);
    size_t scratch =
        std::max({prologue.temporary_bytes(), evaluated_prologue.temporary_bytes(),
                  epilogue.kept_bytes() + epilogue.temporary_bytes(), evaluated_epilogue.temporary_bytes()});
    const Layout features = layout(*features_), evaluated_features = layout(*evaluated_features_);
    if (has_features_) {
        scratch = std::max(
            {scratch, features.kept_bytes() + features.temporary_bytes(), evaluated_features.temporary_bytes()});
    }
    size_t everything = 0;
    for (int32_t l = 0; l < n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        everything = std::max({everything, evaluation[i].temporary_bytes(), bare[i].temporary_bytes()});
        if (l < first_) continue;
        size_t & needed = l < lowest ? everything : scratch;
        needed = std::max(needed, training[i].temporary_bytes());
    }
    const size_t behind = lowest < n_layer ? training[static_cast<size_t>(lowest)].kept_bytes() : 0;
    if (everything > behind) scratch = std::max(scratch, everything - behind);

    std::vector<void *> kept(static_cast<size_t>(n_layer));
    for (int32_t l = first_; l < n_layer; ++l) {
        if (l != lowest) kept[static_cast<size_t>(l)] = arena.bytes(training[static_cast<size_t>(l)].kept_bytes());
    }
    void * const temporary = arena.bytes(scratch);
    if (lowest < n_layer) kept[static_cast<size_t>(lowest)] = arena.bytes(behind);
    for (size_t i = 0; i < kept.size(); ++i) {
        m.training.push_back(training[i].place(kept[i], temporary));
        m.evaluation.push_back(evaluation[i].place(nullptr, temporary));
        m.bare.push_back(bare[i].place(nullptr, temporary));
    }
    m.prologue = prologue.place(arena.bytes(prologue.kept_bytes()), temporary);
    m.evaluated_prologue = evaluated_prologue.place(nullptr, temporary);
    m.epilogue =
        epilogue.place(temporary, temporary ? static_cast<std::byte *>(temporary) + epilogue.kept_bytes() : nullptr);
    m.evaluated_epilogue = evaluated_epilogue.place(nullptr, temporary);
    if (has_features_) {
        m.picked_features = features.place(
            temporary, temporary ? static_cast<std::byte *>(temporary) + features.kept_bytes() : nullptr);
        m.evaluated_features = evaluated_features.place(nullptr, temporary);
    }

    m.dx[0] = arena.matrix(formats.hidden, n, n_embd);
    const bool moves = std::any_of(training_.begin(), training_.end(),
                                   [](const BlockPlan * plan) { return has(*plan, Slot::d_input); });
    m.dx[1] = moves ? arena.matrix(formats.hidden, n, n_embd) : m.dx[0];
    m.twin = arena.operand(formats.act, n, n_embd);
    m.nll = arena.matrix(formats.hidden, n * static_cast<int64_t>(n_labels), 1);
    if (has_features_) {
        m.features = arena.matrix(formats.hidden, n, n_embd);
        m.d_features = arena.matrix(formats.hidden, n, n_embd);
    }
    place_outer(m);
    return m;
}

void SessionPlan::place_outer(SessionMemory & m) const {
    const int32_t n_layer = model_.shape().n_layer;
    m.prologue.place(*training_prologue_, Slot::output, m.x.front());
    m.evaluated_prologue.place(*prologue_, Slot::output, m.x.front());
    for (int32_t l = 0; l < n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        for (const Slot::Place place : {Slot::input, Slot::output}) {
            m.evaluation[i].place(*evaluation_[i], place, m.x.front());
            m.bare[i].place(*bare_[i], place, m.x.front());
        }
        const size_t kept = l < first_ ? 0 : static_cast<size_t>(l - first_);
        m.training[i].place(*training_[i], Slot::input, m.x[kept]);
        m.training[i].place(*training_[i], Slot::output, m.x[l < first_ ? 0 : kept + 1]);
        m.training[i].place(*training_[i], Slot::twin, m.twin);
    }
    size_t current = 0;
    m.epilogue.place(*epilogue_, Slot::input, m.x.back());
    m.epilogue.place(*epilogue_, Slot::nll, m.nll);
    m.epilogue.place(*epilogue_, Slot::d_input, m.dx[current]);
    if (has_features_) {
        m.picked_features.place(*features_, Slot::input, m.x.back());
        m.picked_features.place(*features_, Slot::output, m.features);
        m.picked_features.place(*features_, Slot::d_output, m.d_features);
        m.picked_features.place(*features_, Slot::d_input, m.dx[current]);
        m.evaluated_features.place(*evaluated_features_, Slot::input, m.x.front());
        m.evaluated_features.place(*evaluated_features_, Slot::output, m.features);
    }
    m.evaluated_epilogue.place(*evaluated_epilogue_, Slot::input, m.x.front());
    m.evaluated_epilogue.place(*evaluated_epilogue_, Slot::nll, m.nll);
    for (int32_t l = n_layer - 1; l >= first_; --l) {
        const auto i = static_cast<size_t>(l);
        m.training[i].place(*training_[i], Slot::d_output, m.dx[current]);
        if (!has(*training_[i], Slot::d_input)) continue;
        current = 1 - current;
        m.training[i].place(*training_[i], Slot::d_input, m.dx[current]);
    }
    m.prologue.place(*training_prologue_, Slot::d_output, m.dx[current]);
}

}  // namespace lorica
