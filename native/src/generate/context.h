// A KV cache and the forward pass through it, of one text or of many at once.
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
    Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx,
            int32_t n_slots = 1);
    Context(const Context &) = delete;
    Context & operator=(const Context &) = delete;

    int32_t n_ctx() const { return n_ctx_; }  // of each text
    int32_t n_slots() const { return static_cast<int32_t>(n_past_.size()); }
    // Virtual tokens of an adapter are in the cache, and count here no more than in n_ctx.
    int32_t n_past(int32_t slot = 0) const { return visible(n_past_[checked(slot)]); }
    // Forgets the tokens from n_past on. All of them, where a layer with a window has forgotten the keys that the token
    // at n_past would see: n_past() says.
    void truncate(int32_t n_past, int32_t slot = 0);
    // The text of slot `to` becomes the first n_past tokens of that of slot `from`; no tokens, where truncate() would
    // forget all.
    void copy(int32_t from, int32_t to, int32_t n_past);
    size_t cache_bytes() const;  // of the keys and values of all layers and slots

    // Goes on with the sum of these adapters, each times its factor; none: the base alone. Empties the cache. A single
    // adapter with factor 1 is applied as it is, so that its later changes are seen; of all else a copy is made.
    // Errors: INVALID_ARGUMENT, OUT_OF_MEMORY; nothing is changed then.
    void set_adapters(std::span<const Adapter::Part> parts);
    // The same for one slot, which is emptied; the others go on with theirs. Errors: likewise, and UNSUPPORTED for
    // adapters with virtual tokens, which stand in front of the texts of all slots or of none.
    void set_adapters(std::span<const Adapter::Part> parts, int32_t slot);

    // Appends tokens. logits: empty, or n_vocab values (of the last token), or n_vocab per token when all_logits.
    void eval(std::span<const int32_t> tokens, bool all_logits, float * logits);

    // What is appended to the text of a slot.
    struct Append {
        int32_t slot;
        std::span<const int32_t> tokens;
    };
    // Appends to several texts, each slot once. Single tokens go through the model as many at a time as the device
    // takes as few rows, of which weights are not expanded into panels. Slots with different sums of LoRAs, or none, go
    // through it together, each row with its own; what is no sum (DoRA, IA3, weights trained whole) goes by itself, one
    // set after another. logits: null, or n_vocab values of each one's last token, in order.
    void eval(std::span<const Append> appends, float * logits);

private:
    struct Release {
        Backend * backend;
        void operator()(void * memory) const { backend->release(memory); }
    };
    // Layers that see equally far back have caches of as many rows: n_ctx and virtual tokens for each slot, or where a
    // window is shorter, the window and a piece. When these are full, the window moves to the front.
    struct Reach {
        int32_t back;                // MaskSpec::back, or all
        int32_t rows;                // of each slot
        std::vector<int32_t> first;  // of each slot: the position whose key is in its row 0

        bool moves() const { return back != MaskSpec::all; }
    };
    // The keys and values of earlier tokens: act [n_slots rows, n_head_kv * head_dim], row slot rows + i - first of the
    // token at position i.
    struct Cache {
        Matrix k, v;
        size_t reach;
    };
    struct Buffers {
        std::vector<Cache> caches;  // of the layers
        Matrix x;                   // hidden: the residual stream
        Matrix last;                // hidden: rows of x whose logits are wanted
        Matrix moved;               // act: rows of a cache on their way, where any cache moves
        float * logits;
        int32_t *tokens, *positions;
        std::vector<int32_t *> rows;  // of each reach
    };
    // A piece of work: tokens of one text or several, and where they go.
    struct Piece {
        std::vector<int32_t> tokens, positions;
        std::vector<std::vector<int32_t>> rows;       // by reach
        std::vector<std::vector<Segment>> segments;   // by reach
        std::vector<std::vector<PrefixRows>> prefix;  // by reach: of virtual tokens among these
        std::vector<int32_t> last;                    // tokens whose logits are wanted
        std::vector<float> gate;                      // [tokens, now_->n_parts]: which of the parts apply to each
    };
    Buffers lay_out(Arena & arena) const;
    void find_reaches();
    size_t reach_of(const Program & layer) const;
    bool continues_at(int32_t n_past, size_t slot) const;
    void gather(const Matrix & all, int32_t first, int32_t n, const Matrix & to);
    void make_room(size_t slot, int32_t n);
    void append(Piece & piece, int32_t slot, std::span<const int32_t> tokens, int32_t held) const;
    size_t checked(int32_t slot) const;
    int32_t visible(int32_t held) const { return held == 0 ? 0 : held - n_virtual_; }
    // What a slot holds for so many tokens of a text.
    int32_t held_for(int32_t n_past) const { return n_past == 0 ? 0 : n_past + n_virtual_; }
    void allocate_buffers(int32_t n_virtual);
    std::vector<int32_t> virtual_tokens() const;
    void check_tokens(std::span<const int32_t> tokens, int32_t slot) const;
    void eval_piece(const Piece & piece, float * logits);
    // What of an adapter the workspace must have room for.
    struct Extent {
        int64_t max_rank = 0, head_rank = 0;
        bool has_bottlenecks = false;

        bool operator==(const Extent &) const = default;
    };
    // The plans of a model's layers with an adapter, or of the base where it is null.
    struct Plan {
        Plans plans;
        const BlockPlan *prologue, *epilogue;
        std::vector<const BlockPlan *> layers;
        size_t temporary_bytes = 0;
        Extent extent;
    };
    // An adapter, or none, ready to be run. With parts, its ranks lie beside each other in as many equal ones, of which
    // each row has those that a gate gives it (Lora::gate).
    struct Applied {
        std::shared_ptr<const Adapter> adapter;
        int64_t n_parts = 0;
        std::unique_ptr<void, Release> gates;  // f32: of a piece's rows, behind them of rows of `last`
        std::unique_ptr<Plan> plan;
        PlacedSlots prologue, epilogue;
        std::vector<PlacedSlots> layers;
        std::unique_ptr<AttachedAdapter> attached;
        uint64_t number = 0;  // of all that were ever applied
    };
    // The adapters of a slot, each times its factor.
    struct Set {
        std::vector<Adapter::Part> parts;
        std::vector<Adapter::Alike> alike;  // the same, as they are parts of what is applied
        std::shared_ptr<Applied> applied;

        bool is_sum() const;
        bool is(std::span<const Adapter::Part> other) const;
    };
    // Several sets, of which each row of a piece has its own.
    struct Mixture {
        std::vector<std::shared_ptr<const Set>> sets;  // none of them empty
        std::vector<size_t> first;                     // of the parts of each
        std::shared_ptr<Applied> applied;
    };
    std::unique_ptr<Plan> plan_for(const Adapter * adapter) const;
    void place(Applied & applied);
    std::shared_ptr<Applied> prepare(std::shared_ptr<const Adapter> adapter, int64_t n_parts);
    std::shared_ptr<const Adapter> sum_of(std::span<const Adapter::Part> parts) const;
    std::shared_ptr<Set> prepare_set(std::span<const Adapter::Part> parts, std::shared_ptr<const Adapter> adapter);
    std::vector<int32_t> take_text(int32_t slot, std::span<const int32_t> tokens);
    std::vector<std::shared_ptr<Applied>> all_applied() const;
    void mix(const std::vector<std::shared_ptr<const Set>> & sets);
    void eval_alike(std::span<const Append> given, float * logits);
    void upload_gate(const Piece & piece);
    void upload_head_gate(const Piece & piece, std::span<const int32_t> rows);
    WorkspaceShape workspace(const Extent & extent) const;
    Bound bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                const PlacedSlots & slots, std::span<const Segment> segments, int64_t n, int32_t layer = -1) const;
    void upload(const Piece & piece);
    bool has_rows(size_t reach) const;
    void apply(std::shared_ptr<const Adapter> adapter);
    void eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits);
    void arrange_weights();
    void forward(const Piece & piece);  // buffers_.tokens to buffers_.x
    void compute_logits(Matrix x);      // at most logits_piece rows, to buffers_.logits
    uint64_t shape_key(int64_t n_logits) const;

    std::shared_ptr<const Model> model_;
    int32_t n_ctx_, piece_;
    int32_t n_virtual_ = 0, virtual_room_ = 0;  // tokens of the adapter; that there is room for in front of each text
    std::vector<int32_t> n_past_;               // of each slot, with them
    // Of each slot: its tokens, of which there may be more than are held now, and by which numbers of first tokens the
    // parts of its adapters (Set::alike) were applied to those that are held.
    std::vector<std::vector<int32_t>> texts_, begins_;
    std::vector<Reach> reaches_;  // the first: of layers that see all
    uint64_t n_applied_ = 0;
    bool arranged_ = false;             // or found that it cannot be
    std::unique_ptr<Backend> backend_;  // declared before what it releases
    std::unique_ptr<void, Release> arena_, temporary_;
    size_t temporary_bytes_ = 0;
    Extent extent_;  // that the workspace has room for
    Buffers buffers_;
    std::vector<std::shared_ptr<const Set>> sets_;  // of the slots
    std::shared_ptr<Applied> now_;                  // what the piece that is computed goes through
    Mixture mixture_;
    bool mixes_ = false;  // whether that is what is applied now
};

}  // namespace lorica
