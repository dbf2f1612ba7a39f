// Which linear layers of a model "target_modules" means.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/program.h"

namespace lorica {

struct Target {
    int32_t layer;
    int16_t linear;  // of the layer's program; the head is number 0 of layer n_layer
    int32_t rank;
    double alpha;
};

// In the order of the model. rank and alpha are those of targets that have none of their own. Errors: INVALID_ARGUMENT,
// naming the value or the module that does not exist and those that do.
std::vector<Target> parse_targets(const Architecture & architecture, const std::string & text, int32_t rank,
                                  double alpha);

struct LinearPlace {
    int32_t layer;
    int16_t linear;
};
// "blk.3.attn_q" or "model.layers.3.self_attn.q_proj", with or without ".weight"; the output head, "output" or
// "lm_head", is behind the last layer.
std::optional<LinearPlace> find_linear(const Architecture & architecture, std::string name);

}  // namespace lorica
