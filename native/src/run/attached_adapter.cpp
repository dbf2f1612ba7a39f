#include "run/attached_adapter.h"

#include <algorithm>

#include "common/random.h"

namespace lorica {

AttachedAdapter::AttachedAdapter(const Model & model, const Adapter * adapter, void * gradients)
    : model_(model), adapter_(adapter), gradients_(gradients), first_layer_(model.shape().n_layer) {
    size_t n = 0;
    for (int32_t l = 0; l < model.shape().n_layer; ++l) {
        first_seed_.push_back(n);
        n += model.architecture().layer(l).linears.size();
    }
    if (!adapter) return;
    for (const LoraPair & pair : adapter->pairs()) first_layer_ = std::min(first_layer_, pair.layer);
}

size_t AttachedAdapter::n_dropout_seeds(const Model & model) {
    size_t n = 0;
    for (const ProgramWeights & layer : model.layers()) n += layer.linears.size();
    return n;
}

TrainedSites AttachedAdapter::sites(int32_t layer) const {
    TrainedSites sites;
    if (!adapter_) return sites;
    const auto n = static_cast<int16_t>(model_.architecture().layer(layer).linears.size());
    for (int16_t i = 0; i < n; ++i) {
        const LoraPair * pair = adapter_->find(layer, i);
        uint8_t what = TrainedSites::none;
        if (pair) what = adapter_->config().use_dora ? TrainedSites::lora | TrainedSites::dora : TrainedSites::lora;
        sites.linears.push_back(what);
    }
    return sites;
}

void AttachedAdapter::set_dropout_seed(Backend & backend, std::optional<uint64_t> seed, uint64_t * device_seeds) {
    dropout_seed_ = seed;
    device_seeds_ = device_seeds;
    if (!seed || !device_seeds) return;
    std::vector<uint64_t> seeds;
    for (int32_t l = 0; l < model_.shape().n_layer; ++l) {
        for (const LinearSpec & linear : model_.architecture().layer(l).linears)
            seeds.push_back(derive_seed(*seed, static_cast<uint64_t>(l), linear.stream));
    }
    backend.copy_to_device(device_seeds, seeds.data(), seeds.size() * sizeof(uint64_t));
}

void * AttachedAdapter::gradient(int32_t tensor) const {
    if (!gradients_) return nullptr;
    const size_t element = dtype_size(model_.device().formats().param);
    return static_cast<std::byte *>(gradients_) + static_cast<size_t>(adapter_->tensor(tensor).offset) * element;
}

Lora AttachedAdapter::lora(int32_t layer, int16_t linear) const {
    const LoraPair * pair = adapter_ ? adapter_->find(layer, linear) : nullptr;
    if (!pair) return {};
    Lora lora;
    lora.a = adapter_->parameters(pair->a);
    lora.b = adapter_->parameters(pair->b);
    lora.da = gradient(pair->a);
    lora.db = gradient(pair->b);
    lora.rank = pair->rank;
    lora.scale = adapter_->scale(*pair);
    if (dropout_seed_) {
        const uint16_t stream = model_.architecture().layer(layer).linears[static_cast<size_t>(linear)].stream;
        lora.dropout = {adapter_->config().dropout, derive_seed(*dropout_seed_, static_cast<uint64_t>(layer), stream),
                        device_seeds_ ? device_seeds_ + seed_number(layer, linear) : nullptr};
    }
    return lora;
}

void * AttachedAdapter::magnitude_gradients(int32_t layer, int16_t linear) const {
    return gradient(adapter_->find(layer, linear)->m);
}

}  // namespace lorica
