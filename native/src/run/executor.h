// Runs the calls of a plan on a backend.
#pragma once

#include <span>

#include "adapter/adapter.h"
#include "model/model.h"
#include "run/layout.h"

namespace lorica {

// A trained tensor: what counts now, in param format, and where its gradient goes, null when only running forward.
struct TrainedTensor {
    const void * value = nullptr;
    void * gradient = nullptr;
    int64_t rows = 0, cols = 0;
    double scale = 1;  // of a prompt, which the value has already

    explicit operator bool() const { return value != nullptr; }
};

// What sits on a model, as the calls of a plan ask for it. Of layers the numbers are 0, 1, …; the prologue is -1, the
// epilogue is behind the last layer.
class AttachedSites {
public:
    virtual ~AttachedSites() = default;
    virtual Lora lora(int32_t layer, int16_t linear) const = 0;  // empty where there is none
    // Of a layer with DoRA.
    virtual DoraRows dora(int32_t layer, int16_t linear) const = 0;
    virtual void * magnitude_gradients(int32_t layer, int16_t linear) const = 0;
    // Of whatever else is trained: IA3's factors as DoraRows, whose magnitudes they are themselves; and what stands in
    // for a tensor of the model, empty where nothing does.
    virtual DoraRows factors(int32_t layer, int16_t linear) const = 0;
    virtual TrainedTensor tensor(int32_t layer, Adapter::Kind kind, int16_t number) const = 0;
    // Where there is a prefix: 0, 1, … and as many zeros, device memory.
    virtual const int32_t * counting() const { return nullptr; }
    virtual const float * zeros() const { return nullptr; }
};

// Indices of an embedding as its gradient is added up: in ascending order, each with the row of the batch that has it.
struct SortedIds {
    const int32_t *ids = nullptr, *rows = nullptr;  // device memory
    int64_t n = 0;
};

// Rows of keys and values that are those of virtual tokens: the first row, which of the virtual tokens it is, how many.
struct PrefixRows {
    int64_t row, first, n;
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
    const int32_t * token_types = nullptr;
    SortedIds sorted_tokens, sorted_positions, sorted_types, sorted_virtual;  // where embeddings are trained
    std::span<const PrefixRows> prefix;
    double noise_alpha = 0;
    std::span<const Segment> noise_segments;  // virtual tokens get none
    uint64_t noise_seed = 0;

    int64_t n_picked = 0;  // rows of an epilogue
    const int32_t * picked = nullptr;
    const int32_t * labels = nullptr;  // null: logits are wanted instead of the loss
    float * logits = nullptr;
    int32_t n_labels = 1;     // of each row
    double temperature = 1;   // logits are divided by it, of labels
    bool loss_alone = false;  // of labels, whatever gradients the plan has room for
    // Whether the gradients of what is trained on the head, its weight or a LoRA, are added up with the loss, and by
    // what the rows' losses are multiplied in them (f32 device memory; null: 1).
    bool trains_head = false;
    const float * row_weights = nullptr;
};

void run(std::span<const Call> calls, const Bound & bound, Backend & backend);

}  // namespace lorica
