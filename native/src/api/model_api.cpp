#include <algorithm>
#include <sstream>

#include "api/api.h"
#include "api/handles.h"
#include "backend/cuda_loader.h"

using lorica::api::guarded;
using lorica::api::require;

namespace {

lorica_model_params model_defaults() {
    lorica_model_params params{};
    params.struct_size = sizeof params;
    params.device = "auto";
    params.precision = LORICA_PRECISION_AUTO;
    params.use_mmap = true;
    return params;
}

lorica_model_params read_params(const lorica_model_params * params) {
    lorica_model_params result = model_defaults();
    if (params) lorica::api::read_struct(params, "params", result);
    return result;
}

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

std::vector<std::string> lines_of(const std::string & text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

struct WantedDevice {
    lorica::Dtype act;
    lorica::DeviceChoice choice;
};

WantedDevice wanted_device(const lorica_model_params & p) {
    const std::string device = p.device ? p.device : "auto";
    const lorica::Dtype act = act_format(device, p.precision);
    return {act, lorica::choose_device(device, act)};
}

}  // namespace

lorica_status lorica_model_default_params(lorica_model_params * params) {
    return guarded([&] { lorica::api::write_struct(model_defaults(), "params", params); });
}

lorica_status lorica_device_probe(const lorica_model_params * params, lorica_device_info * out) {
    return guarded([&] {
        require(out, "out");
        const lorica_model_params p = read_params(params);
        const auto [act, choice] = wanted_device(p);
        const auto backend = lorica::make_backend(choice.device, act, p.n_threads);
        lorica_device_info info{};
        copy_text(backend->name(), info.name);
        copy_text(backend->detail(), info.detail);
        copy_text(choice.reason, info.reason);
        info.available_memory = backend->available_memory();
        info.peak_flops = backend->measure_peak();
        lorica::api::write_struct(info, "out", out);
    });
}

lorica_status lorica_cuda_probe(lorica_cuda_info * out) {
    return guarded([&] {
        require(out, "out");
        const lorica::CudaMachine machine = lorica::probe_cuda();
        lorica_cuda_info info{};
        info.driver_version = machine.driver_version;
        info.runtime_version = machine.runtime_version;
        info.n_devices = machine.n_devices;
        copy_text(machine.problem, info.problem);
        copy_text(machine.remedy, info.remedy);
        lorica::api::write_struct(info, "out", out);
    });
}

lorica_status lorica_cuda_device_probe(int32_t index, lorica_cuda_device_info * out) {
    return guarded([&] {
        require(out, "out");
        if (index < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "index is ", index, "; it begins with 0");
        const lorica::CudaDevice device = lorica::probe_cuda_device(index);
        lorica_cuda_device_info info{};
        copy_text(device.name, info.name);
        copy_text(device.pci_bus_id, info.pci_bus_id);
        info.compute_major = device.compute_major;
        info.compute_minor = device.compute_minor;
        info.total_memory = device.total_memory;
        info.free_memory = device.free_memory;
        copy_text(device.problem, info.problem);
        copy_text(device.remedy, info.remedy);
        lorica::api::write_struct(info, "out", out);
    });
}

lorica_status lorica_cuda_set_library(const char * path) {
    return guarded([&] { lorica::set_cuda_library(path ? path : ""); });
}

lorica_status lorica_model_load(const char * path, const lorica_model_params * params, lorica_model ** out) {
    return guarded([&] {
        require(path, "path");
        require(out, "out");
        const lorica_model_params p = read_params(params);
        const auto [act, choice] = wanted_device(p);
        const std::vector<std::string> added = lines_of(p.added_tokens ? p.added_tokens : "");
        auto model = lorica::Model::load(path, choice.device, act, p.n_threads, p.use_mmap, added);
        *out = new lorica_model{model, model->device().name(), model->device().detail(), choice.reason};
    });
}

void lorica_model_free(lorica_model * model) { delete model; }

lorica_status lorica_model_check(const lorica_model * model) {
    return guarded([&] {
        require(model, "model");
        model->model->file().check_unchanged();
    });
}

lorica_status lorica_model_get_info(const lorica_model * handle, lorica_model_info * out) {
    return guarded([&] {
        require(handle, "model");
        require(out, "out");
        const lorica::Model & model = *handle->model;
        const lorica::Shape & c = model.shape();
        lorica_model_info info{};
        info.architecture = c.architecture.c_str();
        info.name = model.name().c_str();
        info.file_type = model.file_type().c_str();
        info.device = handle->device.c_str();
        info.device_detail = handle->device_detail.c_str();
        info.device_reason = handle->device_reason.c_str();
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
        info.is_encoder = !model.architecture().has_head();
        info.n_outputs = static_cast<int32_t>(model.classifier().n_outputs);
        info.pooling_type = static_cast<int32_t>(model.file().find_int(c.architecture + ".pooling_type").value_or(-1));
        info.problem = model.classifier().problem.c_str();
        lorica::api::write_struct(info, "out", out);
    });
}

const char * lorica_model_label(const lorica_model * handle, int32_t i) {
    if (!handle || i < 0) return nullptr;
    const std::vector<std::string> & labels = handle->model->classifier().labels;
    return static_cast<size_t>(i) < labels.size() ? labels[static_cast<size_t>(i)].c_str() : nullptr;
}
