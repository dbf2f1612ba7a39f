// What a classifier is, for adapters and their files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorica {

// What the outputs of a classifier are trained for; told by whoever trains it, and kept with it.
struct ClassifierConfig {
    int64_t n_outputs = 0;            // 0: there is no classifier
    std::vector<std::string> labels;  // of the outputs; empty: they have no names
    std::string problem;              // transformers' problem_type: "single_label_classification", …
    bool trains_pooler = false;       // full: what the base has before the outputs, too

    explicit operator bool() const { return n_outputs > 0; }
};

}  // namespace lorica
