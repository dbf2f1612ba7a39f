#include "adapter/tensor_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <span>

#include "adapter/adapter.h"
#include "adapter/classifier_file.h"
#include "adapter/targets.h"
#include "common/error.h"
#include "common/quote.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"

namespace lorica {

namespace {

std::optional<Method> method_of(const std::string & type) {
    for (const Method method : {Method::ia3, Method::bitfit, Method::full, Method::prompt_tuning, Method::p_tuning,
                                Method::prefix_tuning, Method::bottleneck}) {
        if (type == name(method)) return method;
    }
    return std::nullopt;
}

}  // namespace

bool is_tensor_file(const std::string & path) {
    const GgufFile file = GgufFile::open(path);
    return file.find_string("general.type") == "adapter" && method_of(file.find_string("adapter.type").value_or(""));
}

TensorFile read_tensor_file(const std::string & path) {
    const GgufFile file = GgufFile::open(path);
    TensorFile all;
    all.type = file.find_string("adapter.type").value_or("");
    all.architecture = file.find_string("general.architecture").value_or("");
    if (all.architecture.empty()) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"general.architecture\" is missing: whose adapter is it?");
    }
    all.base_fingerprint = file.find_string("lorica.base_fingerprint").value_or("");
    all.added_tokens = file.find_strings(added_tokens_key).value_or(std::vector<std::string>{});
    if (all.type == name(Method::bottleneck)) {
        all.placement = file.find_string("lorica.bottleneck.placement").value_or("");
        all.non_linearity = file.find_string("lorica.bottleneck.non_linearity").value_or("");
        if (all.placement != "houlsby" && all.placement != "pfeiffer") {
            fail(LORICA_ERROR_FORMAT, path, ": metadata \"lorica.bottleneck.placement\" is ", quoted(all.placement),
                 ", expected \"houlsby\" or \"pfeiffer\"");
        }
    }
    for (const TensorView & view : file.tensors()) {
        if (view.type != GGML_TYPE_F32) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(view.name), " is of type ", type_name(view.type),
                 ", F32 is needed");
        }
        if (view.ne[2] != 1 || view.ne[3] != 1)
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(view.name), " has more than two dimensions");
        TensorFile::Tensor tensor{view.name, view.ne[1], view.ne[0],
                                  std::vector<float>(static_cast<size_t>(view.n_elements()))};
        dequantize_row(view.type, view.data, tensor.values.data(), view.n_elements());
        const auto bad = std::find_if_not(tensor.values.begin(), tensor.values.end(),
                                          [](float value) { return std::isfinite(value); });
        if (bad != tensor.values.end()) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(view.name), ": value ", bad - tensor.values.begin(),
                 " is ", *bad, ", a finite number is needed");
        }
        all.tensors.push_back(std::move(tensor));
    }
    if (all.tensors.empty()) fail(LORICA_ERROR_FORMAT, path, ": the adapter has no tensors");
    all.classifier = read_classifier(file);
    return all;
}

namespace {

// With all but the tensors.
GgufWriter writer_of(const TensorFile & file) {
    GgufWriter writer;
    writer.set_string("general.type", "adapter");
    writer.set_string("general.architecture", file.architecture);
    writer.set_string("adapter.type", file.type);
    if (!file.base_fingerprint.empty()) writer.set_string("lorica.base_fingerprint", file.base_fingerprint);
    if (!file.added_tokens.empty()) writer.set_strings(added_tokens_key, file.added_tokens);
    if (!file.placement.empty()) {
        writer.set_string("lorica.bottleneck.placement", file.placement);
        writer.set_string("lorica.bottleneck.non_linearity", file.non_linearity);
    }
    write_classifier(file.classifier, writer);
    return writer;
}

}  // namespace

void write_tensor_file(const std::string & path, const TensorFile & file) {
    GgufWriter writer = writer_of(file);
    for (const TensorFile::Tensor & tensor : file.tensors)
        writer.add_tensor(tensor.name, GGML_TYPE_F32, {tensor.cols, tensor.rows}, tensor.values.data());
    writer.write(path);
}

// ---- adapters from and to it

std::shared_ptr<Adapter> Adapter::load_tensors(std::shared_ptr<const Model> model, const std::string & path) {
    const TensorFile file = read_tensor_file(path);
    check_base(*model, path, file.architecture, file.added_tokens, file.base_fingerprint);
    constexpr std::string_view suffix = ".ia3_l";
    AdapterConfig config;
    config.method = *method_of(file.type);
    config.rank = 0;
    config.alpha = 0;
    config.target_modules.clear();
    config.classifier = file.classifier;
    const std::string pooler = model->architecture().classifier.dense.gguf + ".weight";
    config.classifier.trains_pooler =
        std::ranges::any_of(file.tensors, [&](const TensorFile::Tensor & tensor) { return tensor.name == pooler; });
    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    adapter->base_fingerprint_ = file.base_fingerprint;
    if (config.method == Method::bitfit) adapter->add_bitfit();
    // 0 where there is no such tensor.
    const auto rows_of = [&](std::string_view name) {
        const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                        [&](const TensorFile::Tensor & one) { return one.name == name; });
        return found == file.tensors.end() ? 0 : static_cast<int32_t>(std::min<int64_t>(found->rows, 1 << 20));
    };
    const bool has_prefix = config.method == Method::prefix_tuning;
    if (config.method == Method::prompt_tuning || config.method == Method::p_tuning || has_prefix) {
        adapter->config_.n_virtual_tokens =
            rows_of(has_prefix ? model->architecture().layer_name(0) + "prefix_k" : "prompt_embeddings");
        adapter->check_prompt();
    }
    if (has_prefix) adapter->add_prefix(adapter->config_.n_virtual_tokens);
    if (config.method == Method::prompt_tuning) adapter->add_prompt(adapter->config_.n_virtual_tokens);
    if (config.method == Method::p_tuning) {
        adapter->config_.encoder_hidden_size = rows_of("prompt_encoder.mlp_head.0.weight");
        adapter->check_encoder();
        adapter->add_encoder(adapter->config_.n_virtual_tokens, adapter->config_.encoder_hidden_size);
    }
    if (config.method == Method::bottleneck) {
        adapter->config_.pfeiffer = file.placement == "pfeiffer";
        adapter->config_.non_linearity = non_linearity_of(file.non_linearity);
        adapter->config_.bottleneck_size = rows_of(model->architecture().layer_name(0) + "ffn_adapter_down.weight");
        adapter->check_bottlenecks();
        adapter->add_bottlenecks();
    }
    if (config.method == Method::full) {
        std::set<std::string> names;
        for (const TensorFile::Tensor & tensor : file.tensors) names.insert(tensor.name);
        adapter->add_whole(names);
        adapter->tie_head();
    }
    for (const TensorFile::Tensor & tensor : file.tensors) {
        if (config.method != Method::ia3) break;
        if (is_of_classifier(tensor.name)) continue;
        const bool is_ours = tensor.name.ends_with(suffix);
        const auto place =
            is_ours ? find_linear(model->architecture(), tensor.name.substr(0, tensor.name.size() - suffix.size()))
                    : std::nullopt;
        if (!place) {
            fail(LORICA_ERROR_MISMATCH, path, ": tensor ", quoted(tensor.name),
                 " sits on no linear layer of this model");
        }
        adapter->add_ia3(place->layer, place->linear, tensor.rows == 1 && tensor.cols > 1);
    }
    adapter->allocate();
    adapter->config_.target_modules = adapter->target_modules_;
    adapter->write_sites(file.tensors, path);
    return adapter;
}

void Adapter::write_sites(const std::vector<TensorFile::Tensor> & stored, const std::string & path) {
    for (int32_t i = first_site(); i < n_tensors(); ++i) {
        const Tensor & tensor = this->tensor(i);
        const auto found = std::find_if(stored.begin(), stored.end(),
                                        [&](const TensorFile::Tensor & one) { return one.name == tensor.name; });
        if (found == stored.end()) fail(LORICA_ERROR_MISMATCH, path, ": tensor ", quoted(tensor.name), " is missing");
        if (found->rows != tensor.rows || found->cols != tensor.cols) {
            fail(LORICA_ERROR_MISMATCH, path, ": ", quoted(tensor.name), " is [", found->rows, ", ", found->cols,
                 "] in the adapter and [", tensor.rows, ", ", tensor.cols, "] in the model");
        }
        write(params_, i, found->values.data());
    }
    const auto n = static_cast<size_t>(n_tensors() - first_site());
    if (stored.size() != n) {
        fail(LORICA_ERROR_MISMATCH, path, " holds ", stored.size(), " tensors; this model has ", n, " that ",
             config_.method == Method::lora ? "stand beside the pairs" : name(config_.method),
             config_.method == Method::lora ? "" : " trains");
    }
}

void Adapter::save_tensors(const std::string & path) const {
    TensorFile file;
    file.architecture = model_->shape().architecture;
    file.type = name(config_.method);
    file.base_fingerprint = model_->fingerprint();
    file.added_tokens = model_->added_tokens();
    file.classifier = config_.classifier;
    if (config_.method == Method::bottleneck) {
        file.placement = config_.pfeiffer ? "pfeiffer" : "houlsby";
        file.non_linearity = name_of_non_linearity(config_.non_linearity);
    }
    GgufWriter writer = writer_of(file);
    // A whole model's: one tensor at a time is in memory.
    auto values = std::make_shared<std::vector<float>>();
    for (int32_t i = 0; i < n_tensors(); ++i) {
        const std::array<int64_t, 2> ne{tensor(i).cols, tensor(i).rows};
        writer.add_tensor(tensor(i).name, GGML_TYPE_F32, ne, [this, i, values] {
            *values = read(i);
            return std::as_bytes(std::span<const float>(*values));
        });
    }
    writer.write(path);
}

}  // namespace lorica
