#include <algorithm>

#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

lorica_model_params lorica_model_default_params(void) { return {"auto", LORICA_PRECISION_AUTO, 0}; }

namespace {

lorica::Dtype act_format(const std::string & device, lorica_precision precision) {
    switch (precision) {
        case LORICA_PRECISION_AUTO: return device == "reference" ? lorica::Dtype::f32 : lorica::Dtype::bf16;
        case LORICA_PRECISION_BF16: return lorica::Dtype::bf16;
        case LORICA_PRECISION_F32: return lorica::Dtype::f32;
        case LORICA_PRECISION_F64: return lorica::Dtype::f64;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "precision ", static_cast<int>(precision), " does not exist");
}

template <size_t n> void copy_text(const std::string & text, char (&out)[n]) {
    const size_t count = std::min(text.size(), n - 1);
    std::copy_n(text.data(), count, out);
    out[count] = 0;
}

}  // namespace

lorica_status lorica_device_probe(const lorica_model_params * params, lorica_device_info * out) {
    return guarded([&] {
        require(out, "out");
        const lorica_model_params p = params ? *params : lorica_model_default_params();
        const std::string device = p.device ? p.device : "auto";
        const auto backend = lorica::make_backend(device, act_format(device, p.precision), p.n_threads);
        lorica_device_info info{};
        copy_text(backend->name(), info.name);
        copy_text(backend->detail(), info.detail);
        info.available_memory = backend->available_memory();
        info.peak_flops = backend->measure_peak();
        *out = info;
    });
}

lorica_status lorica_model_load(const char * path, const lorica_model_params * params, lorica_model ** out) {
    return guarded([&] {
        require(path, "path");
        require(out, "out");
        const lorica_model_params p = params ? *params : lorica_model_default_params();
        const std::string device = p.device ? p.device : "auto";
        auto model = lorica::Model::load(path, device, act_format(device, p.precision), p.n_threads);
        *out = new lorica_model{model, model->device().name(), model->device().detail()};
    });
}

void lorica_model_free(lorica_model * model) { delete model; }

lorica_status lorica_model_get_info(const lorica_model * handle, lorica_model_info * out) {
    return guarded([&] {
        require(handle, "model");
        require(out, "out");
        const lorica::Model & model = *handle->model;
        const lorica::LlamaConfig & c = model.config();
        lorica_model_info info{};
        info.architecture = c.architecture.c_str();
        info.name = model.name().c_str();
        info.file_type = model.file_type().c_str();
        info.device = handle->device.c_str();
        info.device_detail = handle->device_detail.c_str();
        info.fingerprint = model.fingerprint().c_str();
        info.n_layer = c.n_layer;
        info.n_embd = c.n_embd;
        info.n_head = c.n_head;
        info.n_head_kv = c.n_head_kv;
        info.head_dim = c.head_dim;
        info.n_ff = c.n_ff;
        info.n_vocab = c.n_vocab;
        info.n_ctx_train = c.n_ctx_train;
        info.tied_output = model.tied_output();
        info.n_params = model.n_params();
        info.weight_bytes = model.weight_bytes();
        *out = info;
    });
}
