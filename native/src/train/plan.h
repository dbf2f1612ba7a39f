// Which calls a session runs for each layer, and where everything lies whose size depends on the number of tokens.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "run/attached_adapter.h"
#include "run/layout.h"
#include "run/plans.h"
#include "train/session_config.h"

namespace lorica {

struct SessionMemory {
    int32_t *tokens, *positions, *rows, *labels;
    int32_t * types;  // null in models without
    // Where embeddings are trained: see SortedIds.
    int32_t *sorted_tokens, *token_rows, *sorted_positions, *position_rows, *sorted_types, *type_rows;
    int32_t *virtual_ids, *virtual_rows;
    float * row_weights;       // of trained rows, where something on the head is trained, or candidates; else null
    int32_t * candidates;      // [trained rows, candidates]; null without
    float * logits;            // of as many rows as are looked through for the likeliest at once; null without
    float *gate, *head_gate;   // Lora::gate of an activated LoRA, of all rows and of picked ones; else null
    uint64_t * dropout_seeds;  // null without dropout
    std::vector<Matrix> x;     // hidden: input of each layer with gradients; the last is the output of the last layer
    std::array<Matrix, 2>
        dx;       // hidden: the gradient of the stream, and where it goes next in models whose blocks end in a norm
    Matrix twin;  // act: that gradient, as products read it
    Matrix nll;   // hidden
    Matrix features, d_features;  // hidden: of picked rows; empty where nobody asks for them
    PlacedSlots prologue, evaluated_prologue, epilogue, evaluated_epilogue, picked_features, evaluated_features;
    std::vector<PlacedSlots> training, evaluation, bare;  // of the layers
};

// Rows whose logits are there at once where the likeliest are looked for.
int64_t likeliest_rows(const SessionConfig & config);

class SessionPlan {
public:
    // adapter may be null: then the session only evaluates. recomputed_layers: the lowest of those with gradients.
    SessionPlan(const Model & model, const Adapter * adapter, const SessionConfig & config, int32_t recomputed_layers);

    int32_t first_layer() const { return first_; }  // with gradients
    const BlockPlan & training(int32_t layer) const { return *training_[static_cast<size_t>(layer)]; }
    const BlockPlan & evaluation(int32_t layer) const { return *evaluation_[static_cast<size_t>(layer)]; }
    const BlockPlan & bare(int32_t layer) const { return *bare_[static_cast<size_t>(layer)]; }  // without the adapter
    // training: with noise and gradients, where there are to be any
    const BlockPlan & prologue(bool training) const { return training ? *training_prologue_ : *prologue_; }
    bool trains_prologue() const { return trains_prologue_; }
    bool trains_head() const { return trains_head_; }  // its weight, or a LoRA on it
    const BlockPlan & epilogue() const { return *epilogue_; }
    const BlockPlan & evaluated_epilogue() const { return *evaluated_epilogue_; }
    const BlockPlan & features() const { return *features_; }
    const BlockPlan & evaluated_features() const { return *evaluated_features_; }
    // Whether there is memory for them: they are asked for, or an encoder or a classifier gives nothing else.
    static bool has_features(const Model & model, const Adapter * adapter, const SessionConfig & config);

    SessionMemory lay_out(Arena & arena) const;

private:
    Layout layout(const BlockPlan & plan) const;
    void place_outer(SessionMemory & memory) const;

    const Model & model_;
    const SessionConfig & config_;
    int32_t first_, recomputed_layers_;
    int64_t max_rank_ = 0;
    bool has_dropout_ = false, has_gate_ = false, has_features_ = false, trains_prologue_ = false, trains_head_ = false;
    Plans plans_;
    const BlockPlan *prologue_, *training_prologue_, *epilogue_, *evaluated_epilogue_, *features_, *evaluated_features_;
    std::vector<const BlockPlan *> training_, evaluation_, bare_;
};

}  // namespace lorica
