// An adapter as the linear layers of a model see it: what sits where, with which gradients and which dropout.
#pragma once

#include <algorithm>
#include <optional>

#include "adapter/adapter.h"
#include "run/executor.h"

namespace lorica {

class AttachedAdapter final : public AttachedSites {
public:
    // adapter may be null. gradients: device memory laid out as the adapter's parameters, or null when only running
    // forward.
    AttachedAdapter(const Model & model, const Adapter * adapter, void * gradients);

    TrainedSites sites(int32_t layer) const;  // -1: of the prologue, n_layer: of the epilogue
    // The lowest layer with something on it or below it; n_layer when there is none.
    int32_t first_layer() const { return std::max(first_layer_, 0); }
    bool trains_prologue() const { return first_layer_ < 0; }

    // Dropout is applied only while a seed is set. device_seeds: n_dropout_seeds() numbers of device memory that keep
    // the seeds of all layers until the next call, so that a device may repeat work with other seeds; or null.
    void set_dropout_seed(Backend & backend, std::optional<uint64_t> seed, uint64_t * device_seeds = nullptr);
    static size_t n_dropout_seeds(const Model & model);
    // Of all pairs from now on: Lora::gate, with a row for each row that those of the layers see, and that on the head.
    void set_gate(const Matrix & of_layers) { gate_ = of_layers; }
    void set_head_gate(const Matrix & of_head) { head_gate_ = of_head; }

    Lora lora(int32_t layer, int16_t linear) const override;
    DoraRows dora(int32_t layer, int16_t linear) const override {
        return adapter_->dora_rows(*adapter_->find(layer, linear));
    }
    void * magnitude_gradients(int32_t layer, int16_t linear) const override;
    DoraRows factors(int32_t layer, int16_t linear) const override { return adapter_->ia3_rows(ia3(layer, linear)); }
    TrainedTensor tensor(int32_t layer, Adapter::Kind kind, int16_t number) const override;
    const int32_t * counting() const override { return adapter_->counting(); }
    const float * zeros() const override { return adapter_->zeros(); }

private:
    void * gradient(int32_t tensor) const;
    uint16_t stream(int32_t layer, int16_t linear) const;
    int32_t ia3(int32_t layer, int16_t linear) const;
    // Of the seeds of all layers.
    size_t seed_number(int32_t layer, int16_t linear) const {
        return first_seed_[static_cast<size_t>(layer)] + static_cast<size_t>(linear);
    }

    const Model & model_;
    const Adapter * adapter_;
    void * gradients_;
    int32_t first_layer_;             // -1: the prologue
    std::vector<size_t> first_seed_;  // by layer
    std::optional<uint64_t> dropout_seed_;
    const uint64_t * device_seeds_ = nullptr;
    Matrix gate_, head_gate_;
};

}  // namespace lorica
