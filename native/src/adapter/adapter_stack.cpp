// Several adapters as one.
#include <algorithm>
#include <cmath>

#include "adapter/adapter.h"
#include "common/error.h"

namespace lorica {

namespace {

bool is_sum(const Adapter::Part & part) { return !part.adapter->config().use_dora && !part.adapter->has_sites(); }

void check_parts(const Model & model, std::span<const Adapter::Part> parts, bool among_others) {
    if (parts.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no adapters to stack");
    for (const Adapter::Part & part : parts) {
        if (part.adapter->model().get() != &model)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
        if (!std::isfinite(part.factor)) fail(LORICA_ERROR_INVALID_ARGUMENT, "the factor of an adapter must be finite");
    }
    const auto no_sum = std::find_if_not(parts.begin(), parts.end(), is_sum);
    if (no_sum == parts.end() || !among_others) return;
    const AdapterConfig & config = no_sum->adapter->config();
    fail(LORICA_ERROR_UNSUPPORTED,
         config.classifier               ? std::string("a classifier")
         : config.use_dora               ? std::string("a DoRA adapter")
         : config.method == Method::lora ? std::string("a LoRA with weights of the model's that it trained whole")
                                         : std::string("an adapter of method ") + name(config.method),
         " cannot be added to others; apply it alone, or merge it into the model first");
}

}  // namespace

int32_t Adapter::begin_of(std::span<const int32_t> invocation, std::span<const int32_t> text) {
    if (invocation.empty()) return 0;
    return static_cast<int32_t>(std::find_end(text.begin(), text.end(), invocation.begin(), invocation.end()) -
                                text.begin());
}

std::vector<Adapter::Alike> Adapter::by_invocation(std::span<const Part> parts) {
    std::vector<Alike> all;
    for (const Part & part : parts) {
        const std::vector<int32_t> & invocation = part.adapter->config().invocation_tokens;
        auto alike = std::ranges::find(all, invocation, &Alike::invocation);
        if (alike == all.end()) alike = all.insert(all.end(), Alike{invocation, {}});
        alike->parts.push_back(part);
    }
    return all;
}

std::shared_ptr<Adapter> Adapter::stack(std::shared_ptr<const Model> model, std::span<const Part> parts) {
    check_parts(*model, parts, parts.size() > 1);
    if (!is_sum(parts[0])) {
        std::shared_ptr<Adapter> scaled = parts[0].adapter->copy();
        scaled->set_scale_factor(parts[0].adapter->scale_factor() * parts[0].factor);
        return scaled;
    }
    const std::vector<Alike> alike = by_invocation(parts);
    if (alike.size() > 1) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "adapters that begin at different tokens of a text (aLoRA) cannot become one adapter; apply them together "
             "instead");
    }
    const std::shared_ptr<Adapter> sum = mixture(std::move(model), {&alike.front().parts, 1});
    sum->config_.invocation_tokens = alike.front().invocation;
    return sum;
}

std::shared_ptr<Adapter> Adapter::mixture(std::shared_ptr<const Model> model, std::span<const std::vector<Part>> sums) {
    for (const std::vector<Part> & sum : sums) check_parts(*model, sum, true);
    AdapterConfig config;
    config.alpha = 0;  // no scale but what is in B
    std::shared_ptr<Adapter> all(new Adapter(model, config));
    all->base_fingerprint_ = model->fingerprint();
    const auto n_sums = static_cast<int64_t>(sums.size());
    for (int32_t layer = 0; layer <= model->shape().n_layer; ++layer) {
        const auto n_linears = static_cast<int16_t>(all->by_layer_[static_cast<size_t>(layer)].size());
        for (int16_t linear = 0; linear < n_linears; ++linear) {
            int64_t widest = 0;
            for (const std::vector<Part> & sum : sums) {
                int64_t rank = 0;
                for (const Part & part : sum) {
                    if (const LoraPair * pair = part.adapter->find(layer, linear)) rank += pair->rank;
                }
                widest = std::max(widest, rank);
            }
            if (widest > 0) all->add_pair(layer, linear, n_sums * widest, 0);
        }
    }
    all->config_.rank = static_cast<int32_t>(all->pairs_.front().rank);
    all->allocate();
    all->config_.target_modules = all->target_modules_;

    std::vector<float> a, b;
    for (const LoraPair & to : all->pairs_) {
        a.assign(static_cast<size_t>(to.rank * to.in), 0);
        b.assign(static_cast<size_t>(to.out * to.rank), 0);
        for (size_t i = 0; i < sums.size(); ++i) {
            int64_t column = static_cast<int64_t>(i) * (to.rank / n_sums);
            for (const Part & part : sums[i]) {
                const LoraPair * from = part.adapter->find(to.layer, to.linear);
                if (!from) continue;
                const std::vector<float> part_a = part.adapter->read(from->a), part_b = part.adapter->read(from->b);
                std::copy(part_a.begin(), part_a.end(), a.begin() + column * to.in);
                const double scale = part.adapter->scale(*from) * part.factor;
                for (int64_t row = 0; row < to.out; ++row) {
                    for (int64_t j = 0; j < from->rank; ++j) {
                        b[static_cast<size_t>(row * to.rank + column + j)] =
                            static_cast<float>(scale * part_b[static_cast<size_t>(row * from->rank + j)]);
                    }
                }
                column += from->rank;
            }
        }
        all->write(all->params_, to.a, a.data());
        all->write(all->params_, to.b, b.data());
    }
    return all;
}

}  // namespace lorica
