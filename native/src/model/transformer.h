// The Llama transformer as a sequence of backend operations: forward, and the exact derivative of it, for packed
// batches.
//
// A block (Touvron et al. 2023, "LLaMA", section 2.2; grouped-query attention: Ainslie et al. 2023):
//     mid   = x   + W_o attention(rope(W_q n1), rope(W_k n1), W_v n1),   n1 = rmsnorm(x)
//     x_out = mid + W_down swiglu(W_gate n2, W_up n2),                   n2 = rmsnorm(mid)
// where every W may carry a LoRA. What the backward pass needs of a block is in BlockActivations; normalized inputs and
// the swiglu product are cheap and made again where they are needed.
#pragma once

#include <span>
#include <vector>

#include "adapter/adapter.h"
#include "backend/backend.h"
#include "model/model.h"

namespace lorica {

// Lays matrices out one after another in one block of device memory. With base == nullptr it only counts.
class Arena {
public:
    explicit Arena(void * base = nullptr) : base_(static_cast<std::byte *>(base)) {}
    Matrix matrix(Dtype type, int64_t rows, int64_t cols);
    // With rows an odd number of cache lines apart: rows that are a multiple of 4 KiB apart fall on one set of the
    // first-level cache, and products that read a block of them run at a third of their speed.
    Matrix operand(Dtype type, int64_t rows, int64_t cols);
    void * bytes(size_t n);
    size_t n_bytes() const { return used_; }
    // Memory laid out after rewind_to(mark) overlaps that laid out since mark was taken; n_bytes() is the most ever
    // used.
    size_t mark() const { return position_; }
    void rewind_to(size_t mark) { position_ = mark; }

private:
    std::byte * base_;
    size_t position_ = 0, used_ = 0;
};

// Of one block and up to max_tokens tokens; rows beyond the batch are unused.
struct BlockActivations {
    Matrix x;                                  // hidden: input of the block
    Matrix mid;                                // hidden: after attention
    Matrix q, k, v, o, gate, up;               // act; q and k after RoPE
    Matrix lse;                                // hidden [T, n_head]
    Matrix attn_inverse_rms, ffn_inverse_rms;  // hidden [T, 1]: of x and of mid
    std::array<Matrix, n_modules> u;           // act [T, rank], where there is a LoRA
};

// Memory of single operations, shared by all blocks.
struct BlockScratch {
    Matrix normed;            // act [T, n_embd]
    Matrix h;                 // act [T, n_ff]: swiglu
    Matrix dh;                // act [T, n_ff]
    Matrix d_normed;          // hidden [T, n_embd]: on its way into the residual stream's gradient
    Matrix d_residual;        // act [T, n_embd]: that gradient, as the products of the next layers below read it
    Matrix d_o, dq, dk, dv;   // act; overlap h and dh
    Matrix d_scaled, d_gate;  // act [T, n_embd], [T, n_ff]: for DoRA only
};

BlockActivations lay_out_block(Arena & arena, const Model & model, const Adapter * adapter, Formats formats,
                               int64_t max_tokens, bool with_x);
// What is kept of a block for block_forward to compute the rest again, into the memory of `shared`: attention's output.
// It costs no more bytes than the block's input and spares an operation that grows with the length of a sequence.
BlockActivations lay_out_recomputed_block(Arena & arena, const Model & model, Formats formats, int64_t max_tokens,
                                          const BlockActivations & shared);
// adapter: may be null; what only DoRA needs is laid out for it.
BlockScratch lay_out_scratch(Arena & arena, const Model & model, const Adapter * adapter, Formats formats,
                             int64_t max_tokens, bool training);

struct Sequences {
    const int32_t * positions;          // device memory [T]
    std::span<const Segment> segments;  // kv ranges index the rows of the keys that are attended to
};

// The keys and values of earlier tokens: act [n_ctx, n_head_kv * head_dim], row i of the token at position i.
struct Cache {
    Matrix k, v;

    explicit operator bool() const { return bool(k); }
};

class Transformer {
public:
    // adapter may be null. gradients: device memory laid out as the adapter's parameters, or null when only running
    // forward.
    Transformer(const Model & model, const Adapter * adapter, Backend & backend, void * gradients);

    // Dropout is applied only while a seed is set. device_seeds: n_dropout_seeds() numbers of device memory that keep
    // the seeds of all layers until the next call, so that a device may repeat work with other seeds; or null.
    void set_dropout_seed(std::optional<uint64_t> seed, uint64_t * device_seeds = nullptr);
    static size_t n_dropout_seeds(const Model & model) { return model.layers().size() * n_modules; }

    // From block.x to x_out (which may be block.x). Attention reads block.k and block.v, or the cache, to which they
    // are added. With a null x_out what the backward pass needs is computed again, from x, o and lse as the first time
    // left them.
    void block_forward(int32_t layer, const BlockActivations & block, const BlockScratch & scratch,
                       const Sequences & sequences, const Cache & cache, Matrix x_out) const;
    // dx: gradient of x_out on entry, of block.x on return (unless need_dx is false). x_out: as the forward pass left
    // it. gate and up are overwritten, with DoRA also q and k. Adds LoRA gradients. is_top: no block above has left dx
    // in scratch.d_residual too.
    void block_backward(int32_t layer, const BlockActivations & block, const BlockScratch & scratch,
                        const Sequences & sequences, Matrix x_out, Matrix dx, bool is_top, bool need_dx) const;

    // The lowest block with a LoRA; n_layer when there is none.
    int32_t first_adapted_layer() const { return first_adapted_; }

private:
    Lora lora(int32_t layer, Module module) const;
    // Multiplies the rows of a layer's output, which has no residual in it yet; a no-op where there is no DoRA.
    void apply_dora(int32_t layer, Module module, Matrix residual, Matrix y) const;
    // Adds the gradient of the magnitudes and leaves in dx that of the output before apply_dora. False: there is no
    // DoRA, and nothing was done.
    bool dora_backward(int32_t layer, Module module, Matrix residual, Matrix y, Matrix dy, Matrix dx) const;
    bool has_dora(int32_t layer, Module module) const {
        return adapter_ && adapter_->config().use_dora && adapter_->find(layer, module);
    }
    // True when a LoRA of `layer` sits on q, k or v or below, so that the gradient must pass the attention of this
    // block.
    bool adapted(int32_t layer, std::initializer_list<Module> modules) const;

    const Model & model_;
    const Adapter * adapter_;
    Backend & backend_;
    void * gradients_;
    int32_t first_adapted_;
    std::optional<uint64_t> dropout_seed_;
    const uint64_t * device_seeds_ = nullptr;
};

}  // namespace lorica
