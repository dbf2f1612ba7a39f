#include "run/attached_adapter.h"

#include <algorithm>

#include "adapter/prompt_scale.h"
#include "common/random.h"

namespace lorica {

AttachedAdapter::AttachedAdapter(const Model & model, const Adapter * adapter, void * gradients)
    : model_(model), adapter_(adapter), gradients_(gradients), first_layer_(model.shape().n_layer) {
    size_t n = 0;
    for (int32_t l = 0; l <= model.shape().n_layer; ++l) {
        first_seed_.push_back(n);
        n += model.architecture().n_linears(l);
    }
    if (!adapter) return;
    first_layer_ = adapter->first_layer();
}

size_t AttachedAdapter::n_dropout_seeds(const Model & model) {
    size_t n = 0;
    for (int32_t l = 0; l <= model.shape().n_layer; ++l) n += model.architecture().n_linears(l);
    return n;
}

TrainedSites AttachedAdapter::sites(int32_t layer) const {
    TrainedSites sites;
    if (!adapter_) return sites;
    const Architecture & architecture = model_.architecture();
    const bool is_layer = layer >= 0 && layer < architecture.shape.n_layer;
    const Program & program = architecture.program(layer);
    const auto has = [&](Adapter::Kind kind, size_t number, uint8_t what) {
        const bool there = adapter_->find_tensor(layer, kind, static_cast<int16_t>(number)) >= 0;
        return there ? what : uint8_t{TrainedSites::none};
    };
    for (size_t i = 0; i < program.linears.size(); ++i) {
        uint8_t what = has(Adapter::Kind::scale_out, i, TrainedSites::scale_out);
        what |= has(Adapter::Kind::scale_in, i, TrainedSites::scale_in);
        what |= has(Adapter::Kind::bias, i, TrainedSites::bias);
        what |= has(Adapter::Kind::weight, i, TrainedSites::weight);
        if (is_layer && adapter_->find(layer, static_cast<int16_t>(i)))
            what |= adapter_->config().use_dora ? TrainedSites::lora | TrainedSites::dora : TrainedSites::lora;
        sites.linears.push_back(what);
    }
    for (size_t i = 0; i < program.norms.size(); ++i) {
        const uint8_t bias = has(Adapter::Kind::norm_bias, i, TrainedSites::weight);
        sites.norms.push_back(bias | has(Adapter::Kind::norm_weight, i, TrainedSites::weight));
    }
    for (size_t i = 0; i < program.embeds.size(); ++i)
        sites.embeds.push_back(has(Adapter::Kind::embedding, i, TrainedSites::weight) |
                               has(Adapter::Kind::prompt, i, TrainedSites::virtual_rows));
    for (size_t i = 0; i < program.heads.size(); ++i)
        sites.heads.push_back(has(Adapter::Kind::head, i, TrainedSites::weight));
    for (size_t i = 0; i < program.attentions.size(); ++i)
        sites.attentions.push_back(has(Adapter::Kind::prefix_k, i, TrainedSites::prefix));
    if (is_layer) sites.bottlenecks = adapter_->bottlenecks();
    for (std::vector<uint8_t> * table : {&sites.norms, &sites.embeds, &sites.heads, &sites.attentions}) {
        if (std::all_of(table->begin(), table->end(), [](uint8_t what) { return what == 0; })) table->clear();
    }
    return sites;
}

void AttachedAdapter::set_dropout_seed(Backend & backend, std::optional<uint64_t> seed, uint64_t * device_seeds) {
    dropout_seed_ = seed;
    device_seeds_ = device_seeds;
    if (!seed || !device_seeds) return;
    std::vector<uint64_t> seeds;
    for (int32_t l = 0; l <= model_.shape().n_layer; ++l) {
        for (size_t i = 0; i < model_.architecture().n_linears(l); ++i)
            seeds.push_back(derive_seed(*seed, static_cast<uint64_t>(l), stream(l, static_cast<int16_t>(i))));
    }
    backend.copy_to_device(device_seeds, seeds.data(), seeds.size() * sizeof(uint64_t));
}

uint16_t AttachedAdapter::stream(int32_t layer, int16_t linear) const {
    const Architecture & architecture = model_.architecture();
    if (layer == architecture.shape.n_layer) return 0;  // of the head, which has a layer's number of its own
    return architecture.layer(layer).linears[static_cast<size_t>(linear)].stream;
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
    lora.gate = layer == model_.shape().n_layer ? head_gate_ : gate_;
    if (dropout_seed_) {
        lora.dropout = {adapter_->config().dropout,
                        derive_seed(*dropout_seed_, static_cast<uint64_t>(layer), stream(layer, linear)),
                        device_seeds_ ? device_seeds_ + seed_number(layer, linear) : nullptr};
    }
    return lora;
}

int32_t AttachedAdapter::ia3(int32_t layer, int16_t linear) const {
    const int32_t out = adapter_->find_tensor(layer, Adapter::Kind::scale_out, linear);
    return out >= 0 ? out : adapter_->find_tensor(layer, Adapter::Kind::scale_in, linear);
}

void * AttachedAdapter::magnitude_gradients(int32_t layer, int16_t linear) const {
    const LoraPair * pair = adapter_->find(layer, linear);
    return gradient(pair ? pair->m : ia3(layer, linear));
}

TrainedTensor AttachedAdapter::tensor(int32_t layer, Adapter::Kind kind, int16_t number) const {
    const int32_t i = adapter_ ? adapter_->find_tensor(layer, kind, number) : -1;
    if (i < 0) return {};
    const double scale = kind == Adapter::Kind::prompt ? prompt_scale(model_) : 1;
    return {adapter_->in_effect(i), gradient(i), adapter_->tensor(i).rows, adapter_->tensor(i).cols, scale};
}

}  // namespace lorica
