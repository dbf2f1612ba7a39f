#include "run/classifier.h"

#include <cmath>

#include "common/dense.h"

namespace lorica {

Classifier::Classifier(const Model & model, const Adapter * adapter)
    : model_(model),
      adapter_(adapter && adapter->config().classifier ? adapter : nullptr),
      n_outputs_(adapter_ ? adapter_->config().classifier.n_outputs : model.classifier().n_outputs) {}

std::vector<double> Classifier::values(Adapter::Kind kind, const std::vector<float> & of_model) const {
    const int32_t i = adapter_ ? adapter_->find_classifier(kind) : -1;
    return i >= 0 ? adapter_->read_wide(adapter_->params(), i) : std::vector<double>(of_model.begin(), of_model.end());
}

std::vector<double> Classifier::forward(std::vector<double> features) {
    using Kind = Adapter::Kind;
    const ClassifierSpec & spec = model_.architecture().classifier;
    const ClassifierWeights & own = model_.classifier();
    const auto n = static_cast<size_t>(model_.shape().n_embd), n_out = static_cast<size_t>(n_outputs_);
    dense_ = values(Kind::classifier_dense, own.dense);
    dense_bias_ = values(Kind::classifier_dense_bias, own.dense_bias);
    out_ = values(Kind::classifier_out, own.out);
    out_bias_ = spec.bias || !adapter_ ? values(Kind::classifier_out_bias, own.out_bias) : std::vector<double>();
    features_ = std::move(features);
    const size_t rows = features_.size() / n;
    hidden_.clear();
    if (!dense_.empty()) {
        hidden_ = times(features_, dense_, dense_bias_, rows, n, n);
        for (double & x : hidden_) x = spec.act == Act::relu ? (x > 0 ? x : 0) : std::tanh(x);
    }
    return times(dense_.empty() ? features_ : hidden_, out_, out_bias_, rows, n, n_out);
}

std::vector<double> Classifier::backward(std::span<const double> d_outputs, void * gradients) const {
    using Kind = Adapter::Kind;
    const ClassifierSpec & spec = model_.architecture().classifier;
    const auto n = static_cast<size_t>(model_.shape().n_embd), n_out = static_cast<size_t>(n_outputs_);
    const size_t rows = features_.size() / n;
    const auto add = [&](Kind kind, const std::vector<double> & values) {
        const int32_t i = adapter_ ? adapter_->find_classifier(kind) : -1;
        if (i >= 0) adapter_->add(gradients, i, values);
    };
    const std::vector<double> & x = dense_.empty() ? features_ : hidden_;
    if (is_trained()) {
        add(Kind::classifier_out, weight_gradient(d_outputs, x, rows, n, n_out));
        add(Kind::classifier_out_bias, column_sums(d_outputs, rows, n_out));
    }
    std::vector<double> dx = back(d_outputs, out_, rows, n, n_out);
    if (dense_.empty()) return dx;
    for (size_t i = 0; i < dx.size(); ++i)
        dx[i] *= spec.act == Act::relu ? (hidden_[i] > 0 ? 1 : 0) : 1 - hidden_[i] * hidden_[i];
    if (is_trained() && adapter_->find_classifier(Kind::classifier_dense) >= 0) {
        add(Kind::classifier_dense, weight_gradient(dx, features_, rows, n, n));
        add(Kind::classifier_dense_bias, column_sums(dx, rows, n));
    }
    return back(dx, dense_, rows, n, n);
}

}  // namespace lorica
