// DoRA (Liu et al. 2024): what depends on the parameters of an adapter and on the rows of the weights.
#include <algorithm>

#include "adapter/adapter.h"
#include "adapter/prompt_scale.h"

namespace lorica {

namespace {

int64_t max_out(const std::vector<LoraPair> & pairs) {
    int64_t out = 0;
    for (const LoraPair & pair : pairs) out = std::max(out, pair.out);
    return out;
}

}  // namespace

void Adapter::allocate_dora() {
    Backend & device = model_->device();
    const size_t element = dtype_size(device.formats().param);
    const auto n_rows = static_cast<size_t>(n_magnitudes_);
    squares_ = device.allocate(n_rows * element);
    factors_ = device.allocate(n_rows * element);
    slopes_ = device.allocate(n_rows * element);
    products_ =
        device.allocate(static_cast<size_t>(max_rank() * max_out(pairs_)) * dtype_size(device.formats().hidden));
    for (const LoraPair & pair : pairs_) {
        const auto row = static_cast<size_t>(tensor(pair.m).offset - first_magnitude_);
        device.row_squares(weight(pair), static_cast<std::byte *>(squares_) + row * element);
    }
}

DoraRows Adapter::dora_rows(const LoraPair & pair) const {
    const size_t element = dtype_size(model_->device().formats().param);
    const auto row = static_cast<size_t>(tensor(pair.m).offset - first_magnitude_);
    const auto at_row = [&](void * array) { return static_cast<std::byte *>(array) + row * element; };
    const Matrix products{products_, model_->device().formats().hidden, pair.rank, pair.out, pair.out};
    return {products, at_row(squares_), parameters(pair.m), scale_factor_, at_row(factors_), at_row(slopes_)};
}

void Adapter::update_dora(Backend & backend) const {
    for (const LoraPair & pair : pairs_) {
        const DoraRows rows = dora_rows(pair);
        // A has the format of hidden values: its rows go through the layer as tokens do.
        const Matrix a{parameters(pair.a), backend.formats().param, pair.rank, pair.in, pair.in};
        const LinearForward product{&weight(pair), {}, {}, {}, rows.products};
        backend.linear(a, {&product, 1});
        Lora lora;
        lora.a = a.data;
        lora.b = parameters(pair.b);
        lora.rank = pair.rank;
        lora.scale = scale(pair);
        backend.dora_factors(lora, pair.in, pair.out, rows);
    }
}

int64_t Adapter::extra_bytes() const {
    const Formats formats = model_->device().formats();
    if (config_.method == Method::ia3) return longest_vector() * static_cast<int64_t>(dtype_size(formats.param));
    if (has_prompt() && prompt_scale(*model_) != 1) return n_params_ * static_cast<int64_t>(dtype_size(formats.param));
    if (!config_.use_dora) return 0;
    return 3 * n_magnitudes_ * static_cast<int64_t>(dtype_size(formats.param)) +
           max_rank() * max_out(pairs_) * static_cast<int64_t>(dtype_size(formats.hidden));
}

}  // namespace lorica
