// The classifier that an adapter trains whole: its tensors, where they begin, its part of the file.
#include <algorithm>

#include "adapter/adapter.h"
#include "adapter/classifier_file.h"
#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

constexpr const char *labels_key = "lorica.classifier.labels", *problem_key = "lorica.classifier.problem";
constexpr const char * out_tensor = "cls.output.weight";

}  // namespace

bool is_of_classifier(std::string_view tensor) { return tensor.starts_with("cls."); }

ClassifierConfig read_classifier(const GgufFile & file) {
    ClassifierConfig config;
    const TensorView * out = file.find_tensor(out_tensor);
    if (!out) return config;
    config.n_outputs = out->ne[1];
    config.labels = file.find_strings(labels_key).value_or(std::vector<std::string>());
    config.problem = file.find_string(problem_key).value_or("");
    if (!config.labels.empty() && static_cast<int64_t>(config.labels.size()) != config.n_outputs) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", labels_key, " has ", config.labels.size(), " names for ",
             config.n_outputs, " outputs");
    }
    return config;
}

void write_classifier(const ClassifierConfig & config, GgufWriter & writer) {
    if (!config) return;
    if (!config.labels.empty()) writer.set_strings(labels_key, config.labels);
    if (!config.problem.empty()) writer.set_string(problem_key, config.problem);
}

void Adapter::add_classifier() {
    const ClassifierSpec & spec = model_->architecture().classifier;
    const ClassifierConfig & config = config_.classifier;
    constexpr int64_t most_outputs = 1 << 20;
    if (config.n_outputs < 0 || config.n_outputs > most_outputs) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "a classifier of ", config.n_outputs, " outputs; there may be up to ",
             most_outputs);
    }
    if (!config.labels.empty() && static_cast<int64_t>(config.labels.size()) != config.n_outputs) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there are ", config.labels.size(), " labels for ", config.n_outputs,
             " outputs");
    }
    const int64_t n_embd = model_->shape().n_embd;
    const int32_t behind = model_->shape().n_layer;
    if (spec.has_dense() && (spec.trains_dense || config.trains_pooler)) {
        add_site(Kind::classifier_dense, spec.dense.gguf + ".weight", n_embd, n_embd, behind, 0);
        add_site(Kind::classifier_dense_bias, spec.dense.gguf + ".bias", n_embd, 1, behind, 0);
    }
    add_site(Kind::classifier_out, spec.out.gguf + ".weight", config.n_outputs, n_embd, behind, 0);
    if (spec.bias) add_site(Kind::classifier_out_bias, spec.out.gguf + ".bias", config.n_outputs, 1, behind, 0);
}

// transformers' initializer_range is 0.02 in the models that there are.
void Adapter::initialize_classifier() {
    if (!config_.classifier) return;
    const ClassifierWeights & own = model_->classifier();
    const bool same = own.n_outputs == config_.classifier.n_outputs;
    const auto begin = [&](Kind kind, const std::vector<float> & start, bool is_weight) {
        const int32_t i = find_classifier(kind);
        if (i < 0) return;
        std::vector<float> values(static_cast<size_t>(tensor(i).rows * tensor(i).cols));
        if (start.size() == values.size()) {
            values = start;
        } else if (is_weight) {
            constexpr uint64_t stream = 0x636c6173736966;  // no layer has this number
            // The number may not follow when there are more kinds of tensors before these.
            constexpr int first_number = 11;
            const int number = first_number + static_cast<int>(kind) - static_cast<int>(Kind::classifier_dense);
            const uint64_t seed = derive_seed(config_.seed, stream, static_cast<uint64_t>(number));
            for (size_t j = 0; j < values.size(); ++j) values[j] = static_cast<float>(0.02 * random_normal(seed, j));
        }
        write(params_, i, values.data());
    };
    begin(Kind::classifier_dense, own.dense, true);
    begin(Kind::classifier_dense_bias, own.dense_bias, false);
    begin(Kind::classifier_out, same ? own.out : std::vector<float>(), true);
    begin(Kind::classifier_out_bias, same ? own.out_bias : std::vector<float>(), false);
}

}  // namespace lorica
