// A KV cache and the forward pass through it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "adapter/adapter.h"
#include "model/transformer.h"

namespace lorica {

class Context {
public:
    // adapter may be null. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY.
    Context(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter, int32_t n_ctx);
    ~Context();
    Context(const Context &) = delete;
    Context & operator=(const Context &) = delete;

    int32_t n_ctx() const { return n_ctx_; }
    int32_t n_past() const { return n_past_; }
    void truncate(int32_t n_past);

    // Appends tokens. logits: empty, or n_vocab values (of the last token), or n_vocab per token when all_logits.
    void eval(std::span<const int32_t> tokens, bool all_logits, float * logits);

private:
    struct Buffers {
        std::vector<Matrix> k, v;  // act [n_ctx, n_head_kv * head_dim] per layer
        BlockActivations block;
        BlockScratch scratch;
        Matrix normed;
        float * logits;
        int32_t *tokens, *positions;
    };
    static Buffers lay_out(Arena & arena, const Model & model, const Adapter * adapter, int32_t n_ctx, int32_t piece);
    void eval_piece(std::span<const int32_t> tokens, bool last, bool all_logits, float * logits);
    void write_logits(Matrix x, float * logits);

    std::shared_ptr<const Model> model_;
    std::shared_ptr<const Adapter> adapter_;
    int32_t n_ctx_, piece_, n_past_ = 0;
    std::unique_ptr<Backend> backend_;
    void * arena_ = nullptr;
    Buffers buffers_;
    std::unique_ptr<Transformer> transformer_;
};

}  // namespace lorica
