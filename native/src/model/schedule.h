// What a program comes to as calls of a backend: forward, and the exact derivative of it, with what is computed again
// for it; derived from the program's graph and from what is trained, without knowing any architecture.
//
// - Which gradients are needed, and which calls that takes (flow), follows from what is trained and whether the block's
//   input wants its gradient.
// - A norm goes with the linear layers that alone read it into one call, and a gated activation with the two layers
// before
//   it or, backward, with the one behind it; unless what is trained must be computed in between.
// - Values joined by residuals share one gradient, which the readers of each add to. The order of the calls is that of
// the
//   program backwards, except where that sum would hold too much or too little.
// - Backward reads what forward has kept. Outputs of cheap operations are made again from what is kept, just before
// they
//   are read; of a recomputed layer only the input and attention's output are kept, and the rest is made again first.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "model/program.h"

namespace lorica {

// Bottleneck adapters (Houlsby et al. 2019): up(act(down(x))) of small layers that are no part of the model, behind the
// two branches of a layer. Their numbers are behind those of the program's linear layers: down and up of the
// attention's, down and up of the feed-forward's.
struct BottleneckSites {
    int64_t attention = 0, output = 0;  // how wide; 0: there is none
    // Where x is taken from and added to: the stream behind the branch has been added (Pfeiffer et al. 2020, with the
    // norm that is applied to it, if one is), else what the branch gives (Houlsby).
    bool on_stream = false;
    Act act = Act::relu;

    explicit operator bool() const { return attention > 0 || output > 0; }
    int64_t width(int place) const { return place == 0 ? attention : output; }
    auto operator<=>(const BottleneckSites &) const = default;
};

// How many branches a layer adds to its stream.
int n_branches(const Program & program);

// What an adapter has on a program, by the numbers of its tables. An empty table: nothing.
struct TrainedSites {
    enum : uint8_t {
        none = 0,
        lora = 1,
        dora = 2,  // comes with lora
        bias = 4,
        weight = 8,         // of a norm, its bias or both; of a linear layer, an embedding or a head W
        scale_out = 16,     // IA3: the columns of what comes out, bias included
        scale_in = 32,      // IA3 of a feed-forward module: those of what goes in
        virtual_rows = 64,  // of an embedding: the rows of virtual tokens
        prefix = 128,       // of an attention: keys and values of virtual tokens
    };
    std::vector<uint8_t> linears, norms, embeds, heads, attentions;
    BottleneckSites bottlenecks;

    bool has(int16_t linear, uint8_t what) const { return has(linears, linear, what); }
    static bool has(const std::vector<uint8_t> & table, int16_t number, uint8_t what) {
        return !table.empty() && (table[static_cast<size_t>(number)] & what) != 0;
    }
    auto operator<=>(const TrainedSites &) const = default;
};

// All else that distinguishes plans of one program.
struct Wanted {
    bool backward = false;
    bool dx = false;          // the gradient of the input
    bool twin_in = false;     // the call before left the output's gradient in act too
    bool twin_out = false;    // leave that of the input in act too
    bool recomputed = false;  // of a layer of which little is kept
    bool cache = false;       // decoding: keys and values go through a cache
    bool noise = false;       // on the embeddings of tokens

    auto operator<=>(const Wanted &) const = default;
};

using SlotId = int16_t;
constexpr SlotId no_slot = -1;

// Room for a matrix of a row per token.
struct Slot {
    enum Place : uint8_t {
        kept,       // from the forward pass to the backward pass
        temporary,  // within one list of calls
        input,
        output,
        d_input,
        d_output,
        twin,  // of the residual stream's gradient, in act
        nll,
        k_cache,
        v_cache,
    };
    Place place = temporary;
    Format format = Format::act;
    int64_t cols = 0;     // 0: the rank of the adapter, and is_u
    bool is_u = false;    // what the first half of an adapter leaves for its second
    bool picked = false;  // has a row for each picked token only
    SlotId part_of = no_slot;
    int64_t first_col = 0;
};

struct LayerCall {
    int16_t linear;
    SlotId u = no_slot, residual = no_slot, y = no_slot;  // backward: y is the gradient of the output
    bool has_bias = false;                                // that this call adds
};

// Operands that a kind does not name are no_slot. Names are those of backend.h.
struct Call {
    enum Kind : uint8_t {
        embed,                  // spec; y; accumulate
        noise,                  // y
        norm,                   // spec; x, statistics, residual, y
        linear,                 // x; layers
        norm_linear,            // spec of the norm; x, statistics, normed; layers
        norm_linear_gated,      // the same; act; h
        rope,                   // spec; y; direction
        rope_into_cache,        // spec or -1; q, k, v, k_cache, v_cache
        attention,              // spec; q, k, v, o, lse
        prefix,                 // spec; k, v: the rows of virtual tokens =
        gated,                  // act; gate, up, h
        activation,             // act; x, y
        scale,                  // DoRA's factors of layers[0]: x, residual, y
        multiply,               // IA3's of layers[0], or as it is: x, residual, y
        add,                    // y += x
        pick,                   // x, y
        head,                   // spec; x, y (nll), dx
        clear,                  // y
        norm_backward,          // spec; dy, x, statistics, dx, twin; accumulate
        linear_backward,        // x; layers; dx; accumulate
        norm_linear_backward,   // spec; x, statistics, normed, d_normed; layers; dx, twin
        gated_backward,         // act; gate, up, dy, dgate, dup
        gated_linear_backward,  // act; gate, up, h, dh, dgate, dup; layers
        activation_backward,    // act; x, dy, dx
        attention_backward,     // spec; q, k, v, o, lse, dy, dq, dk, dv
        prefix_backward,        // spec; dk, dv: the same rows' gradients, which are 0 then
        scale_backward,         // DoRA of layers[0]: dy, y, residual, dx
        multiply_backward,      // IA3 of layers[0]: dy, x, dx
        norm_gradient,          // spec; dy, x
        pick_backward,          // dy, dx
        embed_backward,         // spec; dy
    } kind;
    int16_t spec = -1;
    Act act = Act::silu;
    RopeDirection direction = RopeDirection::forward;
    bool accumulate = false;
    SlotId x = no_slot, y = no_slot, residual = no_slot, statistics = no_slot, normed = no_slot, d_normed = no_slot;
    SlotId dy = no_slot, dx = no_slot, twin = no_slot;
    SlotId gate = no_slot, up = no_slot, h = no_slot, dh = no_slot, dgate = no_slot, dup = no_slot;
    SlotId q = no_slot, k = no_slot, v = no_slot, o = no_slot, lse = no_slot, k_cache = no_slot, v_cache = no_slot;
    SlotId dq = no_slot, dk = no_slot, dv = no_slot;
    std::vector<LayerCall> layers;

    template <typename F> void each_slot(const F & f) const {
        for (const SlotId slot :
             {x,     y,   residual, statistics, normed, d_normed, dy,  dx,      twin,    gate, up, h, dh,
              dgate, dup, q,        k,          v,      o,        lse, k_cache, v_cache, dq,   dk, dv}) {
            if (slot != no_slot) f(slot);
        }
        for (const LayerCall & layer : layers) {
            for (const SlotId slot : {layer.u, layer.residual, layer.y}) {
                if (slot != no_slot) f(slot);
            }
        }
    }
};

struct BlockPlan {
    std::vector<Call> forward, backward;
    std::vector<Slot> slots;
    bool leaves_twin = false;  // what Wanted::twin_out asks for: not where a product is the last to add to it

    // The slot that holds it, which may be it.
    SlotId root(SlotId slot) const {
        const SlotId whole = slots[static_cast<size_t>(slot)].part_of;
        return whole == no_slot ? slot : whole;
    }
};

// Errors: INTERNAL for a program that no order of its backward calls fits.
BlockPlan derive(const Program & program, const TrainedSites & sites, const Wanted & wanted);

// Whether the backward pass begins with a product that reads the output's gradient.
bool reads_twin(const Program & program);

}  // namespace lorica
