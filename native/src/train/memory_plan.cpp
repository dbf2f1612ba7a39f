// The memory of a session: what it will take, and how much is recomputed so that it fits.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "common/error.h"
#include "common/machine.h"
#include "train/session.h"

namespace lorica {

namespace {

std::string mebibytes(int64_t n) {
    char text[32];
    std::snprintf(text, sizeof text, "%.0f MiB", std::ceil(static_cast<double>(n) / (1 << 20)));
    return text;
}

}  // namespace

WorkspaceShape Session::workspace(const Model & model, const Adapter * adapter, const SessionConfig & config) {
    WorkspaceShape shape = workspace_shape(model);
    shape.max_tokens = config.max_tokens;
    shape.max_sequence_length = config.longest_sequence();
    shape.training = true;
    if (!adapter) return shape;
    // With DoRA, A's rows go through the layers as tokens do.
    if (adapter->config().use_dora) shape.max_tokens = std::max(config.max_tokens, adapter->max_rank());
    shape.max_rank = adapter->max_rank();
    shape.head_rank = adapter->head_rank();
    shape.dropout = adapter->config().dropout > 0;
    shape.trained_weights = adapter->trains_matrices();
    for (const LoraPair & pair : adapter->pairs()) {
        const auto padded = [](int64_t n) { return (n + 7) / 8 * 8; };
        if (pair.layer < model.shape().n_layer)
            shape.adapter_elements += pair.rank * padded(pair.in) + pair.out * padded(pair.rank);
    }
    // Its layers may have any width: with an odd one, devices make room for such.
    if (adapter->bottlenecks()) shape.max_features |= 1;
    return shape;
}

MemoryPlan Session::plan_with(const Model & model, const Adapter * adapter, const SessionConfig & config,
                              int32_t recomputed_layers) {
    const Backend & device = model.device();
    Arena arena;
    SessionPlan(model, adapter, config, recomputed_layers).lay_out(arena);
    MemoryPlan plan;
    plan.weights = model.device_bytes() > 0 ? model.device_bytes() : model.weight_bytes();
    if (adapter) {
        plan.gradients = adapter->n_params() * static_cast<int64_t>(dtype_size(device.formats().param));
        plan.adapter = plan.gradients + adapter->extra_bytes();
        if (!config.gradients_only) {
            plan.optimizer = optimizer_bytes(*adapter, config.optimizer) + frozen_bytes(*adapter);
        }
    }
    plan.activations = static_cast<int64_t>(arena.n_bytes());
    plan.workspace = static_cast<int64_t>(device.workspace_bytes(workspace(model, adapter, config)));
    if (config.memory_limit > 0) {
        plan.available = config.memory_limit;
    } else if (model.device_bytes() == 0 && model.file().is_mapped()) {
        plan.available = available_memory(plan.weights);  // what caches the file counts as available
    } else {
        // On a GPU the weights and the adapter have their memory already, and so have weights that were read.
        plan.available = device.available_memory() + plan.weights + (model.device_bytes() > 0 ? plan.adapter : 0);
    }
    plan.recomputed_layers = recomputed_layers;
    return plan;
}

MemoryPlan Session::plan(const Model & model, const Adapter * adapter, const SessionConfig & given) {
    const SessionConfig config = with_virtual_tokens(given, adapter);
    if (config.max_tokens < 1 || config.max_tokens > (1 << 24)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "max_tokens is ", config.max_tokens, "; it must lie between 1 and ",
             1 << 24);
    }
    if (config.max_sequences < 0 || config.max_sequence_length < 0 || config.max_sequence_length > config.max_tokens) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "max_sequences and max_sequence_length must not be negative, nor a sequence longer than ", "max_tokens (",
             config.max_tokens, ")");
    }
    if (!(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1 && config.eps > 0)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "AdamW needs 0 <= beta < 1 and eps > 0; got beta1 ", config.beta1,
             ", beta2 ", config.beta2, ", eps ", config.eps);
    }
    if (!std::isfinite(config.neftune_alpha) || config.neftune_alpha < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "neftune_alpha is ", config.neftune_alpha,
             "; it must be 0 (no noise) or positive");
    }
    if (config.optimizer == Optimizer::adamw_8bit && !config.gradients_only && !model.device().has_adamw_8bit()) {
        fail(LORICA_ERROR_UNSUPPORTED, "device \"", model.device().name(),
             "\" has no AdamW with 8-bit state yet; take the one with 32 bits");
    }
    if (config.n_candidates < 0 || config.n_candidates > model.shape().n_vocab) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_candidates is ", config.n_candidates,
             "; it must lie between 0 and the vocabulary's ", model.shape().n_vocab);
    }
    if (config.n_candidates > 1 && !model.device().has_many_labels()) {
        fail(LORICA_ERROR_UNSUPPORTED, "device \"", model.device().name(),
             "\" has one label for each position yet, and no candidates; take the CPU");
    }
    // The top block is passed backwards right after its forward pass.
    const int32_t n_blocks = model.shape().n_layer - AttachedAdapter(model, adapter, nullptr).first_layer();
    const int32_t most = std::max(0, n_blocks - 1);
    // What is free now is not all taken: other programs grow, and the file of the model is read from memory only while
    // it stays there.
    const auto room = [&](const MemoryPlan & plan) {
        return (config.memory_limit > 0 ? plan.available : plan.available / 10 * 9) - plan.total();
    };
    const auto is_modest = [&](const MemoryPlan & plan) { return room(plan) >= 0; };
    // Copies of weights spare less than activations do, so they come last, and half of what is left stays free for
    // texts that are generated meanwhile.
    const auto with_copies = [&](MemoryPlan plan) {
        plan.expanded = weights_to_expand(model, adapter, config, room(plan) / 2).n_bytes;
        return plan;
    };
    if (config.recomputation != Recomputation::automatic) {
        return with_copies(plan_with(model, adapter, config, config.recomputation == Recomputation::on ? most : 0));
    }
    int32_t fewest = 0;
    for (int32_t enough = most; fewest < enough;) {
        const int32_t middle = fewest + (enough - fewest) / 2;
        if (is_modest(plan_with(model, adapter, config, middle))) {
            enough = middle;
        } else {
            fewest = middle + 1;
        }
    }
    return with_copies(plan_with(model, adapter, config, fewest));
}

Session::Copies Session::weights_to_expand(const Model & model, const Adapter * adapter, const SessionConfig & config,
                                           int64_t max_bytes) {
    Copies copies;
    // Weights that are trained stand in for the model's.
    if (adapter && adapter->trains_matrices()) return copies;
    // The head first, which is met once for each chunk of rows.
    const std::vector<const Weight *> weights = model.linear_weights();
    for (auto weight = weights.rbegin(); weight != weights.rend(); ++weight) {
        const int64_t n_bytes = model.device().expanded_bytes(**weight, config.max_tokens);
        if (n_bytes == 0 || copies.n_bytes + n_bytes > max_bytes) continue;
        copies.n_bytes += n_bytes;
        copies.weights.push_back(*weight);
    }
    return copies;
}

void Session::refuse(const Model & model, const Adapter * adapter, const SessionConfig & config,
                     const MemoryPlan & plan) {
    std::string advice;
    SessionConfig smaller = config;
    smaller.recomputation = Recomputation::on;
    if (plan.recomputed_layers == 0 && Session::plan(model, adapter, smaller).fits()) {
        advice = "recomputation would fit";
    } else {
        int32_t fits = 0;
        for (int32_t low = 1, high = config.max_tokens - 1; low <= high;) {
            const int32_t middle = low + (high - low) / 2;
            smaller.max_tokens = middle;
            smaller.max_sequence_length = std::min(config.max_sequence_length, middle);
            if (Session::plan(model, adapter, smaller).fits()) {
                fits = middle;
                low = middle + 1;
            } else {
                high = middle - 1;
            }
        }
        advice = fits > 0 ? "with recomputation, " + std::to_string(fits) + " tokens per micro-batch would fit"
                          : "no micro-batch fits beside this model; take a smaller model or a lower rank";
    }
    fail(LORICA_ERROR_OUT_OF_MEMORY, "training needs ", mebibytes(plan.total()), " and ", mebibytes(plan.available),
         " are available; ", advice);
}

}  // namespace lorica
