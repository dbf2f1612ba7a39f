// Classifiers and embeddings of whole texts: what a session does with hidden states of the last layer.
#include <cmath>

#include "common/error.h"
#include "common/random.h"
#include "train/session.h"

namespace lorica {

namespace {

// Of what a device repeats; step.cpp has others.
enum : uint64_t { features_half = 11, features_backward_half };

}  // namespace

Session::Rows Session::classified() const {
    return model_->architecture().classifier.token == ClassifierSpec::first ? Rows::first : Rows::last;
}

void Session::check_outputs(size_t n_values, size_t n_sequences) const {
    if (n_outputs() == 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "there is no classifier, neither in the model nor in an adapter; make an adapter with outputs");
    }
    if (n_values != n_sequences * static_cast<size_t>(n_outputs())) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there is room for ", n_values, " outputs; ", n_sequences,
             " sequences have ", n_outputs(), " each");
    }
}

void Session::run_features(bool with_gradient) {
    const Architecture & architecture = model_->architecture();
    const BlockPlan & plan = with_gradient ? plan_->features() : plan_->evaluated_features();
    const PlacedSlots & slots = with_gradient ? memory_.picked_features : memory_.evaluated_features;
    run(plan.forward, bound(architecture.features, model_->epilogue(), plan, slots.forward, architecture.shape.n_layer),
        *backend_);
}

std::vector<double> Session::read_features() const {
    const Matrix x = memory_.features.slice_rows(0, static_cast<int64_t>(trained_rows_.size()));
    std::vector<double> values(static_cast<size_t>(x.rows * x.cols));
    if (x.type == Dtype::f64) {
        backend_->copy_to_host(values.data(), x.data, values.size() * sizeof(double));
        return values;
    }
    std::vector<float> narrow(values.size());
    backend_->copy_to_host(narrow.data(), x.data, narrow.size() * sizeof(float));
    return {narrow.begin(), narrow.end()};
}

void Session::write_outputs(const std::vector<double> & values, std::span<float> outputs) const {
    for (size_t i = 0; i < values.size(); ++i) {
        if (!std::isfinite(values[i])) {
            fail(LORICA_ERROR_NON_FINITE, "an output of the classifier is not finite after ", step_count_,
                 " optimizer steps");
        }
        outputs[i] = static_cast<float>(values[i]);
    }
}

void Session::forward_outputs(const PackedBatch & batch, std::span<float> outputs) {
    check_training();
    check_outputs(outputs.size(), batch.sequence_lengths.size());
    begin_training(batch, classified());
    backend_->repeat(segments_, derive_seed(shape_key(), features_half), [&] {
        forward(true);
        run_features(true);
    });
    write_outputs(classifier_.forward(read_features()), outputs);
    has_outputs_ = true;
}

void Session::backward_outputs(std::span<const float> gradients) {
    check_training();
    if (!has_outputs_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "there is no forward pass to go back through: call forward_outputs first, and nothing between it and "
             "backward_outputs; evaluations, steps and other micro-batches use the same memory");
    }
    check_outputs(gradients.size(), trained_rows_.size());
    for (const float gradient : gradients) {
        if (!std::isfinite(gradient)) {
            fail(LORICA_ERROR_NON_FINITE, "the gradient of an output is not finite after ", step_count_,
                 " optimizer steps");
        }
    }
    has_outputs_ = false;
    const std::vector<double> wide(gradients.begin(), gradients.end());
    const std::vector<double> dx = classifier_.backward(wide, gradients_);
    const Matrix & to = memory_.d_features;
    if (to.type == Dtype::f64) {
        backend_->copy_to_device(to.data, dx.data(), dx.size() * sizeof(double));
    } else {
        const std::vector<float> narrow(dx.begin(), dx.end());
        backend_->copy_to_device(to.data, narrow.data(), narrow.size() * sizeof(float));
    }
    backend_->repeat(segments_, derive_seed(shape_key(), features_backward_half), [&] {
        backward_through(model_->architecture().features, plan_->features(), memory_.picked_features);
    });
    adapter_->pass_on_prompt_gradient(gradients_);
}

void Session::begin_evaluation(const PackedBatch & batch, Rows rows) {
    if (!SessionPlan::has_features(*model_, adapter_.get(), config_)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "this session was not made for hidden states; ask for features");
    }
    upload(batch, rows);
    attached_->set_dropout_seed(*backend_, std::nullopt);
    embed(false);
    forward(false);
    run_features(false);
}

void Session::evaluate_outputs(const PackedBatch & batch, std::span<float> outputs) {
    check_outputs(outputs.size(), batch.sequence_lengths.size());
    begin_evaluation(batch, classified());
    write_outputs(classifier_.forward(read_features()), outputs);
}

void Session::embed(const PackedBatch & batch, Pooling pooling, std::span<float> embeddings) {
    const auto n_embd = static_cast<size_t>(model_->shape().n_embd);
    if (embeddings.size() != batch.sequence_lengths.size() * n_embd) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there is room for ", embeddings.size(), " numbers; ",
             batch.sequence_lengths.size(), " embeddings have ", n_embd, " each");
    }
    begin_evaluation(batch, pooling == Pooling::mean    ? Rows::all
                            : pooling == Pooling::first ? Rows::first
                                                        : Rows::last);
    const std::vector<double> features = read_features();
    size_t row = 0;
    for (size_t s = 0; s < segments_.size(); ++s) {
        const size_t n_rows = pooling == Pooling::mean ? static_cast<size_t>(noise_segments_[s].q_len) : 1;
        std::vector<double> sum(n_embd);
        for (size_t i = 0; i < n_rows; ++i, ++row) {
            for (size_t j = 0; j < n_embd; ++j) sum[j] += features[row * n_embd + j];
        }
        for (size_t j = 0; j < n_embd; ++j) {
            const double value = sum[j] / static_cast<double>(n_rows);
            if (!std::isfinite(value)) fail(LORICA_ERROR_NON_FINITE, "the embedding of a text is not finite");
            embeddings[s * n_embd + j] = static_cast<float>(value);
        }
    }
}

}  // namespace lorica
