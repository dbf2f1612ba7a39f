// Runs the calls of a plan on a backend.
#pragma once

#include <span>

#include "model/model.h"
#include "run/layout.h"

namespace lorica {

// What sits on the linear layers of a model, as the calls of a plan ask for it.
class AttachedSites {
public:
    virtual ~AttachedSites() = default;
    virtual Lora lora(int32_t layer, int16_t linear) const = 0;  // empty where there is none
    // Of a layer with DoRA.
    virtual DoraRows dora(int32_t layer, int16_t linear) const = 0;
    virtual void * magnitude_gradients(int32_t layer, int16_t linear) const = 0;
};

// What the calls of one program refer to.
struct Bound {
    const Program & program;
    const ProgramWeights & weights;
    const BlockPlan & plan;
    std::span<const Matrix> slots;  // for the most tokens
    int64_t n_tokens;               // so many rows of them are used
    int32_t layer = -1;
    const AttachedSites * adapter = nullptr;

    const int32_t * positions = nullptr;   // device memory [n_tokens]
    int64_t longest_sequence = 0;          // that there may ever be: decides about the frequencies of LongRoPE
    const int32_t * cache_rows = nullptr;  // where the keys and values of each token go; null: to its position
    std::span<const Segment> segments;     // kv ranges index the rows of the keys that are attended to

    const int32_t * tokens = nullptr;  // of embeddings
    double noise_alpha = 0;
    uint64_t noise_seed = 0;

    int64_t n_picked = 0;  // rows of an epilogue
    const int32_t * picked = nullptr;
    const int32_t * labels = nullptr;  // null: logits are wanted instead of the loss
    float * logits = nullptr;
};

void run(std::span<const Call> calls, const Bound & bound, Backend & backend);

}  // namespace lorica
