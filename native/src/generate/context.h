// A KV cache and the forward pass through it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "adapter/adapter.h"
#include "run/attached_adapter.h"
#include "run/plans.h"

namespace lorica {

class Context {
public:
    // adapter may be null. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY.
    Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx);
    Context(const Context &) = delete;
    Context & operator=(const Context &) = delete;

    int32_t n_ctx() const { return n_ctx_; }
    int32_t n_past() const { return n_past_; }
    void truncate(int32_t n_past);

    // Goes on with the sum of these adapters, each times its factor; none: the base alone. Empties the cache. A single
    // adapter with factor 1 is applied as it is, so that its later changes are seen; of all else a copy is made.
    // Errors: INVALID_ARGUMENT, OUT_OF_MEMORY; nothing is changed then.
    void set_adapters(std::span<const Adapter::Part> parts);

    // Appends tokens. logits: empty, or n_vocab values (of the last token), or n_vocab per token when all_logits.
    void eval(std::span<const int32_t> tokens, bool all_logits, float * logits);

private:
    struct Release {
        Backend * backend;
        void operator()(void * memory) const { backend->release(memory); }
    };
    // The keys and values of earlier tokens: act [n_ctx, n_head_kv * head_dim], row i of the token at position i.
    struct Cache {
        Matrix k, v;
    };
    struct Buffers {
        std::vector<Cache> caches;  // of the layers
        Matrix x;                   // hidden: the residual stream
        float * logits;
        int32_t *tokens, *positions;
    };
    static Buffers lay_out(Arena & arena, const Model & model, int32_t n_ctx, int32_t piece);
    // The plans of a model's layers with an adapter, or of the base where it is null.
    struct Plan {
        Plans plans;
        const BlockPlan *prologue, *epilogue;
        std::vector<const BlockPlan *> layers;
        size_t temporary_bytes = 0;
        int64_t max_rank = 0;
    };
    std::unique_ptr<Plan> plan_for(const Adapter * adapter) const;
    void place(const Plan & plan, void * temporary);
    WorkspaceShape workspace(int64_t max_rank) const;
    Bound bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                const PlacedSlots & slots, const Segment & segment, int32_t layer = -1) const;
    void apply(std::shared_ptr<const Adapter> adapter);
    void eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits);
    void arrange_weights();
    void forward(const Segment & segment);          // buffers_.tokens to buffers_.x
    void compute_logits(int64_t first, int64_t n);  // of n tokens of that, at most logits_piece, to buffers_.logits
    uint64_t shape_key(int64_t n_logits) const;

    std::shared_ptr<const Model> model_;
    std::shared_ptr<const Adapter> adapter_;
    int32_t n_ctx_, piece_, n_past_ = 0;
    uint64_t n_applied_ = 0;            // how often the adapters have changed
    bool arranged_ = false;             // or found that it cannot be
    std::unique_ptr<Backend> backend_;  // declared before what it releases
    std::unique_ptr<void, Release> arena_, temporary_;
    size_t temporary_bytes_ = 0;
    int64_t max_rank_ = 0;  // that the workspace has room for
    Buffers buffers_;
    std::unique_ptr<Plan> plan_;
    PlacedSlots prologue_, epilogue_;
    std::vector<PlacedSlots> layers_;
    std::unique_ptr<AttachedAdapter> attached_;
};

}  // namespace lorica
