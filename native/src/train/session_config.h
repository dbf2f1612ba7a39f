// What a session is asked for, and what it will take.
#pragma once

#include <cstdint>

namespace lorica {

enum class Recomputation { automatic, off, on };
enum class Optimizer : uint32_t { adamw, adamw_8bit };

struct SessionConfig {
    int32_t max_tokens = 512;
    int32_t max_sequences = 0;        // 0: max_tokens
    int32_t max_sequence_length = 0;  // 0: max_tokens
    Recomputation recomputation = Recomputation::automatic;
    Optimizer optimizer = Optimizer::adamw;
    double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
    double neftune_alpha = 0;  // 0: no noise
    uint64_t seed = 42;
    int64_t memory_limit = 0;     // 0: what the device reports as available
    int32_t n_candidates = 0;     // the most tokens of a position whose log-probabilities are asked for
    bool likeliest = false;       // the likeliest tokens of positions are wanted
    bool gradients_only = false;  // no optimizer: steps are taken, and states kept, elsewhere
    bool features = false;        // hidden states of texts are wanted, and not only where something computes with them

    int32_t longest_sequence() const { return max_sequence_length > 0 ? max_sequence_length : max_tokens; }
};

// Bytes by component.
struct MemoryPlan {
    int64_t weights = 0, adapter = 0, gradients = 0, optimizer = 0, activations = 0, workspace = 0, available = 0;
    int64_t expanded = 0;           // copies of weights that a device makes where memory is left: Backend::expand
    int32_t recomputed_layers = 0;  // whose activations are computed again in the backward pass

    int64_t total() const { return weights + expanded + adapter + gradients + optimizer + activations + workspace; }
    bool fits() const { return total() <= available; }
};

}  // namespace lorica
