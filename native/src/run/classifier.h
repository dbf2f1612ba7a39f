// A classifier on the hidden states of picked tokens, one row for each text: forward, and the exact derivative of it. A
// few rows are little next to what made them, so this is computed on the host, in f64, for every device.
#pragma once

#include <span>
#include <vector>

#include "adapter/adapter.h"

namespace lorica {

class Classifier {
public:
    // Of the adapter where it has one, else of the model's file, else without outputs.
    Classifier(const Model & model, const Adapter * adapter);

    int64_t n_outputs() const { return n_outputs_; }
    // Reads the weights as they are now. features [rows, n_embd]; gives outputs [rows, n_outputs].
    std::vector<double> forward(std::vector<double> features);
    // Of the last forward: adds the gradients of an adapter's classifier to its part of `gradients`, and gives that of
    // the features.
    std::vector<double> backward(std::span<const double> d_outputs, void * gradients) const;

private:
    std::vector<double> values(Adapter::Kind kind, const std::vector<float> & of_model) const;
    bool is_trained() const { return adapter_ != nullptr; }

    const Model & model_;
    const Adapter * adapter_;  // null where the model's own counts
    int64_t n_outputs_;
    std::vector<double> dense_, dense_bias_, out_, out_bias_;
    std::vector<double> features_, hidden_;  // hidden_: act(dense(features)); without a dense layer not used
};

}  // namespace lorica
