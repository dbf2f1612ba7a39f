// Several adapters as one.
#include <algorithm>
#include <cmath>

#include "adapter/adapter.h"
#include "common/error.h"

namespace lorica {

std::shared_ptr<Adapter> Adapter::stack(std::shared_ptr<const Model> model, std::span<const Part> parts) {
    if (parts.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no adapters to stack");
    for (const Part & part : parts) {
        if (part.adapter->model() != model)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
        if (!std::isfinite(part.factor)) fail(LORICA_ERROR_INVALID_ARGUMENT, "the factor of an adapter must be finite");
    }
    const auto no_sum = std::find_if(parts.begin(), parts.end(), [](const Part & part) {
        return part.adapter->config().use_dora || part.adapter->has_sites();
    });
    if (no_sum != parts.end() && parts.size() > 1) {
        const AdapterConfig & config = no_sum->adapter->config();
        fail(LORICA_ERROR_UNSUPPORTED,
             config.classifier               ? std::string("a classifier")
             : config.use_dora               ? std::string("a DoRA adapter")
             : config.method == Method::lora ? std::string("a LoRA with weights of the model's that it trained whole")
                                             : std::string("an adapter of method ") + name(config.method),
             " cannot be added to others; apply it alone, or merge it into the model first");
    }
    if (no_sum != parts.end()) {
        std::shared_ptr<Adapter> scaled = parts[0].adapter->copy();
        scaled->set_scale_factor(parts[0].adapter->scale_factor() * parts[0].factor);
        return scaled;
    }
    AdapterConfig config;
    config.alpha = 0;  // no scale but what is in B
    std::shared_ptr<Adapter> sum(new Adapter(model, config));
    sum->base_fingerprint_ = model->fingerprint();
    for (int32_t layer = 0; layer <= model->shape().n_layer; ++layer) {
        const auto n_linears = static_cast<int16_t>(sum->by_layer_[static_cast<size_t>(layer)].size());
        for (int16_t linear = 0; linear < n_linears; ++linear) {
            int64_t rank = 0;
            for (const Part & part : parts) {
                if (const LoraPair * pair = part.adapter->find(layer, linear)) rank += pair->rank;
            }
            if (rank > 0) sum->add_pair(layer, linear, rank, 0);
        }
    }
    sum->config_.rank = static_cast<int32_t>(sum->pairs_.front().rank);
    sum->allocate();
    sum->config_.target_modules = sum->target_modules_;

    std::vector<float> a, b;
    for (const LoraPair & to : sum->pairs_) {
        a.clear();
        b.resize(static_cast<size_t>(to.out * to.rank));
        int64_t column = 0;
        for (const Part & part : parts) {
            const LoraPair * from = part.adapter->find(to.layer, to.linear);
            if (!from) continue;
            const std::vector<float> part_a = part.adapter->read(from->a), part_b = part.adapter->read(from->b);
            a.insert(a.end(), part_a.begin(), part_a.end());
            const double scale = part.adapter->scale(*from) * part.factor;
            for (int64_t row = 0; row < to.out; ++row) {
                for (int64_t j = 0; j < from->rank; ++j) {
                    b[static_cast<size_t>(row * to.rank + column + j)] =
                        static_cast<float>(scale * part_b[static_cast<size_t>(row * from->rank + j)]);
                }
            }
            column += from->rank;
        }
        sum->write(sum->params_, to.a, a.data());
        sum->write(sum->params_, to.b, b.data());
    }
    return sum;
}

}  // namespace lorica
