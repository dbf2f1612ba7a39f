#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

namespace {

lorica_adapter_params adapter_defaults() {
    lorica_adapter_params params{};
    params.struct_size = sizeof params;
    params.rank = 16;
    params.alpha = 32;
    params.init = LORICA_LORA_INIT_DEFAULT;
    params.seed = 42;
    params.target_modules = "all-linear";
    return params;
}

lorica::LoraInit init_of(lorica_lora_init init) {
    switch (init) {
        case LORICA_LORA_INIT_DEFAULT: return lorica::LoraInit::kaiming_uniform;
        case LORICA_LORA_INIT_GAUSSIAN: return lorica::LoraInit::gaussian;
        case LORICA_LORA_INIT_PISSA: return lorica::LoraInit::pissa;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "init ", static_cast<int>(init), " does not exist");
}

// 0.1f is 0.10000000149...: the number that was meant has few decimal digits.
double as_written(float value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", static_cast<double>(value));
    return std::strtod(text, nullptr);
}

lorica::Method method_of(lorica_method method) {
    switch (method) {
        case LORICA_METHOD_LORA: return lorica::Method::lora;
        case LORICA_METHOD_IA3: return lorica::Method::ia3;
        case LORICA_METHOD_BITFIT: return lorica::Method::bitfit;
        case LORICA_METHOD_FULL: return lorica::Method::full;
        case LORICA_METHOD_PROMPT_TUNING: return lorica::Method::prompt_tuning;
        case LORICA_METHOD_P_TUNING: return lorica::Method::p_tuning;
        case LORICA_METHOD_PREFIX_TUNING: return lorica::Method::prefix_tuning;
        case LORICA_METHOD_BOTTLENECK: return lorica::Method::bottleneck;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "there is no method ", static_cast<int>(method));
}

lorica_method method_of(lorica::Method method) {
    switch (method) {
        case lorica::Method::lora: return LORICA_METHOD_LORA;
        case lorica::Method::ia3: return LORICA_METHOD_IA3;
        case lorica::Method::bitfit: return LORICA_METHOD_BITFIT;
        case lorica::Method::full: return LORICA_METHOD_FULL;
        case lorica::Method::prompt_tuning: return LORICA_METHOD_PROMPT_TUNING;
        case lorica::Method::p_tuning: return LORICA_METHOD_P_TUNING;
        case lorica::Method::prefix_tuning: return LORICA_METHOD_PREFIX_TUNING;
        case lorica::Method::bottleneck: break;
    }
    return LORICA_METHOD_BOTTLENECK;
}

lorica::TrainedBiases biases_of(lorica_trained_biases biases) {
    switch (biases) {
        case LORICA_BIASES_NONE: return lorica::TrainedBiases::none;
        case LORICA_BIASES_LORA_ONLY: return lorica::TrainedBiases::lora_only;
        case LORICA_BIASES_ALL: return lorica::TrainedBiases::all;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no biases ", static_cast<int>(biases));
}

lorica_bottleneck_placement placement_of(lorica_bottleneck_placement placement) {
    switch (placement) {
        case LORICA_BOTTLENECK_HOULSBY:
        case LORICA_BOTTLENECK_PFEIFFER: return placement;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "there is no placement ", static_cast<int>(placement));
}

lorica_adapter * new_handle(std::shared_ptr<lorica::Adapter> adapter) {
    auto handle = std::make_unique<lorica_adapter>();
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) handle->tensor_names.push_back(adapter->tensor(i).name);
    handle->adapter = std::move(adapter);
    return handle.release();
}

const lorica::Adapter::Tensor & checked_tensor(const lorica_adapter * handle, int32_t i) {
    require(handle, "adapter");
    const int32_t n = handle->adapter->n_tensors();
    if (i < 0 || i >= n)
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "adapter tensor ", i, " does not exist; there are ", n);
    return handle->adapter->tensor(i);
}

void check_size(const lorica::Adapter::Tensor & tensor, int64_t n) {
    if (n != tensor.rows * tensor.cols) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, tensor.name, " has ", tensor.rows * tensor.cols, " elements, not ",
                     n);
    }
}

}  // namespace

lorica_status lorica_adapter_default_params(lorica_adapter_params * params) {
    return guarded([&] { lorica::api::write_struct(adapter_defaults(), "params", params); });
}

lorica_status lorica_adapter_create(const lorica_model * model, const lorica_adapter_params * params,
                                    lorica_adapter ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        lorica_adapter_params p = adapter_defaults();
        if (params) lorica::api::read_struct(params, "params", p);
        require(p.target_modules, "target_modules");
        lorica::AdapterConfig config;
        config.rank = p.rank;
        config.alpha = p.alpha;
        config.dropout = static_cast<float>(p.dropout);
        config.use_rslora = p.use_rslora;
        config.use_dora = p.use_dora;
        config.init = init_of(p.init);
        config.pissa_iterations = p.pissa_iterations;
        config.seed = p.seed;
        config.target_modules = p.target_modules;
        if (p.feedforward_modules) config.feedforward_modules = p.feedforward_modules;
        config.method = method_of(p.method);
        config.classifier.n_outputs = p.n_outputs;
        if (p.n_outputs < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_outputs is ", p.n_outputs);
        for (int32_t i = 0; p.labels && i < p.n_outputs; ++i) {
            require(p.labels[i], "a label");
            config.classifier.labels.emplace_back(p.labels[i]);
        }
        if (p.problem) config.classifier.problem = p.problem;
        if (p.modules_to_save) config.modules_to_save = p.modules_to_save;
        config.bias = biases_of(p.bias);
        if (p.layers) config.layers = p.layers;
        if (p.frozen) config.frozen = p.frozen;
        config.n_virtual_tokens = p.n_virtual_tokens;
        if (p.virtual_ids && p.n_virtual_tokens > 0)
            config.virtual_ids.assign(p.virtual_ids, p.virtual_ids + p.n_virtual_tokens);
        config.encoder_hidden_size = p.encoder_hidden_size;
        config.bottleneck_size = p.bottleneck_size;
        config.pfeiffer = placement_of(p.bottleneck_placement) == LORICA_BOTTLENECK_PFEIFFER;
        if (p.non_linearity) config.non_linearity = lorica::non_linearity_of(p.non_linearity);
        if (p.n_invocation_tokens < 0)
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_invocation_tokens is ", p.n_invocation_tokens);
        if (p.n_invocation_tokens > 0) {
            require(p.invocation_tokens, "invocation_tokens");
            config.invocation_tokens.assign(p.invocation_tokens, p.invocation_tokens + p.n_invocation_tokens);
        }
        *out = new_handle(lorica::Adapter::create(model->model, config));
    });
}

lorica_status lorica_adapter_load(const lorica_model * model, const char * path, lorica_adapter ** out) {
    return guarded([&] {
        require(model, "model");
        require(path, "path");
        require(out, "out");
        *out = new_handle(lorica::Adapter::load(model->model, path));
    });
}

std::vector<lorica::Adapter::Part> lorica::api::adapter_parts(const lorica_adapter * const * adapters,
                                                              const double * factors, int32_t n_adapters) {
    if (n_adapters < 0) fail(LORICA_ERROR_INVALID_ARGUMENT, "n_adapters is ", n_adapters);
    if (n_adapters > 0) require(adapters, "adapters");
    std::vector<Adapter::Part> parts;
    for (int32_t i = 0; i < n_adapters; ++i) {
        require(adapters[i], "an adapter");
        parts.push_back({adapters[i]->adapter, factors ? factors[i] : 1});
    }
    return parts;
}

lorica_status lorica_adapter_stack(const lorica_adapter * const * adapters, const double * factors, int32_t n_adapters,
                                   lorica_adapter ** out) {
    return guarded([&] {
        require(out, "out");
        const std::vector<lorica::Adapter::Part> parts = lorica::api::adapter_parts(adapters, factors, n_adapters);
        if (parts.empty()) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no adapters to stack");
        *out = new_handle(lorica::Adapter::stack(parts.front().adapter->model(), parts));
    });
}

lorica_status lorica_adapter_save(const lorica_adapter * handle, const char * path) {
    return guarded([&] {
        require(handle, "adapter");
        require(path, "path");
        handle->adapter->save(path);
    });
}

void lorica_adapter_free(lorica_adapter * adapter) { delete adapter; }

lorica_status lorica_adapter_get_info(const lorica_adapter * handle, lorica_adapter_info * out) {
    return guarded([&] {
        require(handle, "adapter");
        require(out, "out");
        const lorica::Adapter & adapter = *handle->adapter;
        lorica_adapter_info info{};
        info.rank = adapter.config().rank;
        info.alpha = adapter.config().alpha;
        info.scale = adapter.pairs().empty() ? adapter.scale_factor() : adapter.scale(adapter.pairs().front());
        info.dropout = as_written(adapter.config().dropout);
        info.use_rslora = adapter.config().use_rslora;
        info.use_dora = adapter.config().use_dora;
        info.frozen_half = adapter.config().frozen_half;
        info.n_pairs = static_cast<int32_t>(adapter.pairs().size());
        info.n_params = adapter.n_trained();
        info.target_modules = adapter.target_modules().c_str();
        info.base_fingerprint = adapter.base_fingerprint().c_str();
        info.method = method_of(adapter.config().method);
        info.n_outputs = static_cast<int32_t>(adapter.config().classifier.n_outputs);
        info.problem = adapter.config().classifier.problem.c_str();
        info.n_virtual_tokens = adapter.n_virtual_tokens();
        info.bottleneck_size = adapter.config().bottleneck_size;
        info.bottleneck_placement = adapter.config().pfeiffer ? LORICA_BOTTLENECK_PFEIFFER : LORICA_BOTTLENECK_HOULSBY;
        info.non_linearity = adapter.config().method == lorica::Method::bottleneck
                                 ? lorica::name_of_non_linearity(adapter.config().non_linearity)
                                 : "";
        const std::vector<int32_t> & invocation = adapter.config().invocation_tokens;
        info.invocation_tokens = invocation.empty() ? nullptr : invocation.data();
        info.n_invocation_tokens = static_cast<int32_t>(invocation.size());
        lorica::api::write_struct(info, "out", out);
    });
}

lorica_status lorica_adapter_set_scale(lorica_adapter * handle, double factor) {
    return guarded([&] {
        require(handle, "adapter");
        if (!std::isfinite(factor)) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter's scale must be finite");
        handle->adapter->set_scale_factor(factor);
    });
}

lorica_status lorica_adapter_check(const lorica_adapter * handle, bool * has_effect) {
    return guarded([&] {
        require(handle, "adapter");
        require(has_effect, "has_effect");
        *has_effect = handle->adapter->has_effect();
    });
}

int32_t lorica_adapter_n_tensors(const lorica_adapter * handle) { return handle ? handle->adapter->n_tensors() : 0; }

lorica_status lorica_adapter_tensor_info(const lorica_adapter * handle, int32_t i, lorica_adapter_tensor * out) {
    return guarded([&] {
        require(out, "out");
        const auto & tensor = checked_tensor(handle, i);
        lorica::api::write_struct(
            lorica_adapter_tensor{sizeof(lorica_adapter_tensor), handle->tensor_names[static_cast<size_t>(i)].c_str(),
                                  tensor.rows, tensor.cols, tensor.alpha},
            "out", out);
    });
}

lorica_status lorica_adapter_get_tensor(const lorica_adapter * handle, int32_t i, float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(checked_tensor(handle, i), n);
        const std::vector<float> values = handle->adapter->read(handle->adapter->params(), i);
        std::copy(values.begin(), values.end(), data);
    });
}

lorica_status lorica_adapter_set_tensor(lorica_adapter * handle, int32_t i, const float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(checked_tensor(handle, i), n);
        handle->adapter->write(handle->adapter->params(), i, data);
    });
}

const char * lorica_adapter_label(const lorica_adapter * handle, int32_t i) {
    if (!handle || i < 0) return nullptr;
    const std::vector<std::string> & labels = handle->adapter->config().classifier.labels;
    return static_cast<size_t>(i) < labels.size() ? labels[static_cast<size_t>(i)].c_str() : nullptr;
}
