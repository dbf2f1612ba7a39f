#include "run/executor.h"

#include <algorithm>

#include "common/error.h"

namespace lorica {

namespace {

class Executor {
public:
    Executor(const Bound & bound, Backend & backend) : b_(bound), to_(backend) {}

    void run(const Call & c) {
        switch (c.kind) {
            case Call::embed: {
                const EmbedSpec & spec = b_.program.embeds[index(c)];
                const int32_t * ids = spec.index == EmbedSpec::position ? b_.positions
                                      : spec.index == EmbedSpec::type   ? b_.token_types
                                                                        : b_.tokens;
                EmbedOptions options;
                options.scale = spec.scale;
                options.accumulate = c.accumulate;
                if (const TrainedTensor prompt = trained(Adapter::Kind::prompt, c.spec)) {
                    const int64_t cols = spec.cols;
                    options.virtual_rows = {const_cast<void *>(prompt.value), to_.formats().param, prompt.rows, cols,
                                            cols};
                }
                to_.embed(own(Adapter::Kind::embedding, c.spec, b_.weights.embeds[index(c)]), ids, options, at(c.y));
                return;
            }
            case Call::noise: to_.add_noise(at(c.y), b_.noise_segments, b_.noise_alpha, b_.noise_seed); return;
            case Call::norm: to_.norm(at(c.x), norm(c), at(c.residual), at(c.y)); return;
            case Call::linear: to_.linear(at(c.x), forward(c)); return;
            case Call::norm_linear: to_.norm_linear(at(c.x), norm(c), forward(c), at(c.normed)); return;
            case Call::norm_linear_gated: {
                const std::span<const LinearForward> layers = forward(c);
                to_.norm_linear_gated(at(c.x), norm(c), layers[0], layers[1], c.act, at(c.normed), at(c.h));
                return;
            }
            case Call::rope: to_.rope(at(c.y), b_.positions, rope(c), c.direction); return;
            case Call::rope_into_cache:
                to_.rope_into_cache(at(c.q), at(c.k), at(c.v), b_.positions, b_.cache_rows, rope(c), keys(c.k_cache),
                                    keys(c.v_cache));
                return;
            case Call::attention:
                to_.attention(at(c.q), keys(c.k), keys(c.v), b_.segments, attention(c), at(c.o), at(c.lse));
                return;
            case Call::prefix:
                put_prefix(trained(Adapter::Kind::prefix_k, c.spec), keys(c.k));
                put_prefix(trained(Adapter::Kind::prefix_v, c.spec), keys(c.v));
                return;
            case Call::prefix_backward:
                take_prefix(trained(Adapter::Kind::prefix_k, c.spec), at(c.dk));
                take_prefix(trained(Adapter::Kind::prefix_v, c.spec), at(c.dv));
                return;
            case Call::gated: to_.gated(at(c.gate), at(c.up), c.act, at(c.h)); return;
            case Call::activation: to_.activation(at(c.x), c.act, at(c.y)); return;
            case Call::scale:
                to_.scale_columns(at(c.x), dora(c).factors, bias(c.layers[0]), at(c.residual), at(c.y));
                return;
            case Call::multiply:
                to_.scale_columns(at(c.x), c.layers.empty() ? nullptr : factors(c).factors, {}, at(c.residual),
                                  at(c.y));
                return;
            case Call::add: to_.scale_columns(at(c.x), nullptr, {}, at(c.y), at(c.y)); return;
            case Call::pick: to_.gather_rows(at(c.x), b_.picked, at(c.y)); return;
            case Call::head: {
                const Weight weight = own(Adapter::Kind::head, c.spec, b_.weights.heads[index(c)]);
                Head head{&weight, b_.program.heads[index(c)].logits};
                head.lora = lora(c.spec);
                head.row_weights = b_.row_weights;
                head.n_labels = b_.n_labels;
                head.logits.scale /= b_.temperature;
                head.logits.cap /= b_.temperature;
                if (b_.trains_head) {
                    head.dw = trained(Adapter::Kind::head, c.spec).gradient;
                } else {
                    head.lora.da = head.lora.db = nullptr;
                }
                if (b_.labels) {
                    to_.linear_cross_entropy(at(c.x), head, b_.labels, at(c.y).data,
                                             b_.loss_alone ? Matrix{} : at(c.dx));
                } else {
                    to_.logits(at(c.x), head, b_.logits);
                }
                return;
            }
            case Call::clear: {
                const Matrix y = at(c.y);
                to_.fill_zero(y.data, y.n_bytes());
                return;
            }
            case Call::norm_backward:
                to_.norm_backward(at(c.dy), at(c.x), norm(c), c.accumulate, at(c.dx), at(c.twin));
                return;
            case Call::linear_backward: to_.linear_backward(at(c.x), backward(c), c.accumulate, at(c.dx)); return;
            case Call::norm_linear_backward:
                to_.norm_linear_backward(at(c.x), norm(c), backward(c), at(c.normed), at(c.d_normed), at(c.dx),
                                         at(c.twin));
                return;
            case Call::gated_backward:
                to_.gated_backward(at(c.gate), at(c.up), c.act, at(c.dy), at(c.dgate), at(c.dup));
                return;
            case Call::gated_linear_backward: {
                // Without dh the places of the gradients are not written.
                const Matrix dgate = c.dh == no_slot ? at(c.gate) : at(c.dgate);
                const Matrix dup = c.dh == no_slot ? at(c.up) : at(c.dup);
                to_.gated_linear_backward(at(c.gate), at(c.up), c.act, backward(c)[0], at(c.h), at(c.dh), dgate, dup);
                return;
            }
            case Call::activation_backward: to_.activation_backward(at(c.x), c.act, at(c.dy), at(c.dx)); return;
            case Call::attention_backward:
                to_.attention_backward(at(c.q), at(c.k), at(c.v), at(c.o), at(c.lse), at(c.dy), b_.segments,
                                       attention(c), at(c.dq), at(c.dk), at(c.dv));
                return;
            case Call::scale_backward:
                to_.dora_backward(at(c.dy), at(c.y), bias(c.layers[0]), at(c.residual), dora(c),
                                  b_.adapter->magnitude_gradients(b_.layer, c.layers[0].linear), at(c.dx));
                return;
            case Call::multiply_backward:
                to_.dora_backward(at(c.dy), at(c.x), {}, {}, factors(c),
                                  b_.adapter->magnitude_gradients(b_.layer, c.layers[0].linear), at(c.dx));
                return;
            case Call::norm_gradient:
                to_.norm_gradient(at(c.dy), at(c.x), norm(c), trained(Adapter::Kind::norm_weight, c.spec).gradient,
                                  trained(Adapter::Kind::norm_bias, c.spec).gradient);
                return;
            case Call::pick_backward: to_.scatter_add_rows(at(c.dy), b_.picked, at(c.dx)); return;
            case Call::embed_backward: {
                const EmbedSpec & spec = b_.program.embeds[index(c)];
                const SortedIds & sorted = spec.index == EmbedSpec::position ? b_.sorted_positions
                                           : spec.index == EmbedSpec::type   ? b_.sorted_types
                                                                             : b_.sorted_tokens;
                if (const TrainedTensor table = trained(Adapter::Kind::embedding, c.spec))
                    to_.embed_backward(at(c.dy), sorted.ids, sorted.rows, sorted.n, spec.scale, table.gradient);
                if (const TrainedTensor prompt = trained(Adapter::Kind::prompt, c.spec)) {
                    to_.embed_backward(at(c.dy), b_.sorted_virtual.ids, b_.sorted_virtual.rows, b_.sorted_virtual.n,
                                       prompt.scale, prompt.gradient);
                }
                return;
            }
        }
    }

private:
    static size_t index(const Call & c) { return static_cast<size_t>(c.spec); }

    Matrix at(SlotId slot) const {
        if (slot == no_slot) return {};
        const bool picked = b_.plan.slots[static_cast<size_t>(slot)].picked;
        return whole(slot).slice_rows(0, picked ? b_.n_picked : b_.n_tokens);
    }
    const Matrix & whole(SlotId slot) const { return b_.slots[static_cast<size_t>(slot)]; }
    // A cache has rows of earlier tokens too.
    Matrix keys(SlotId slot) const {
        const Slot::Place place = b_.plan.slots[static_cast<size_t>(slot)].place;
        if (place != Slot::k_cache && place != Slot::v_cache) return at(slot);
        int64_t rows = 0;
        for (const Segment & segment : b_.segments) rows = std::max(rows, int64_t{segment.kv_begin} + segment.kv_len);
        return whole(slot).slice_rows(0, rows);
    }

    Matrix param(void * values, int64_t rows, int64_t cols) const {
        return {values, to_.formats().param, rows, cols, cols};
    }
    void put_prefix(const TrainedTensor & prefix, const Matrix & to) {
        const Matrix values = param(const_cast<void *>(prefix.value), prefix.rows, to.cols);
        for (const PrefixRows & part : b_.prefix)
            to_.gather_rows(values, b_.adapter->counting() + part.first, to.slice_rows(part.row, part.n));
    }
    // Nothing goes on to what the rows would have been.
    void take_prefix(const TrainedTensor & prefix, const Matrix & from) {
        const Matrix gradient = param(prefix.gradient, prefix.rows, from.cols);
        for (const PrefixRows & part : b_.prefix) {
            const Matrix rows = from.slice_rows(part.row, part.n);
            to_.scatter_add_rows(rows, b_.adapter->counting() + part.first, gradient);
            to_.scale_rows(rows, b_.adapter->zeros(), rows);
        }
    }

    Norm norm(const Call & c) const {
        const NormSpec & spec = b_.program.norms[index(c)];
        Norm norm{own(Adapter::Kind::norm_weight, c.spec, b_.weights.norms[index(c)]), spec.eps, at(c.statistics),
                  spec.kind};
        norm.bias = own(Adapter::Kind::norm_bias, c.spec, b_.weights.norm_biases[index(c)]);
        norm.groups = spec.groups;
        return norm;
    }
    Rope rope(const Call & c) const {
        if (c.spec < 0) return {{}, b_.program.attentions.front().head_dim};
        const RopeSpec & spec = b_.program.ropes[index(c)];
        return {spec.frequencies(b_.longest_sequence),
                spec.head_dim,
                spec.halves,
                spec.magnitude,
                spec.temperature,
                spec.temperature_length};
    }
    AttentionShape attention(const Call & c) const { return b_.program.attentions[index(c)].shape(); }
    TrainedTensor trained(Adapter::Kind kind, int16_t number) const {
        return b_.adapter ? b_.adapter->tensor(b_.layer, kind, number) : TrainedTensor{};
    }
    // A vector of the model, or what is trained in its place.
    Vector own(Adapter::Kind kind, int16_t number, Vector of_model) const {
        const TrainedTensor own = of_model ? trained(kind, number) : TrainedTensor{};
        return own ? Vector(own.value, to_.formats().param) : of_model;
    }
    // The same of a matrix.
    Weight own(Adapter::Kind kind, int16_t number, const Weight & of_model) const {
        const TrainedTensor own = trained(kind, number);
        if (!own) return of_model;
        const bool is_wide = to_.formats().param == Dtype::f64;
        return {is_wide ? GGML_TYPE_F64 : GGML_TYPE_F32, of_model.out, of_model.in,
                static_cast<size_t>(of_model.in) * dtype_size(to_.formats().param),
                static_cast<const std::byte *>(own.value)};
    }
    // Whether it is a layer that only the adapter has.
    bool is_added(int16_t linear) const { return static_cast<size_t>(linear) >= b_.weights.linears.size(); }
    TrainedTensor trained_weight(int16_t linear) const {
        return trained(is_added(linear) ? Adapter::Kind::bottleneck_weight : Adapter::Kind::weight, linear);
    }
    TrainedTensor trained_bias(int16_t linear) const {
        return trained(is_added(linear) ? Adapter::Kind::bottleneck_bias : Adapter::Kind::bias, linear);
    }
    const Weight * weight(size_t i, int16_t linear) {
        if (is_added(linear)) {
            const TrainedTensor added = trained_weight(linear);
            weights_[i] = own(Adapter::Kind::bottleneck_weight, linear, {GGML_TYPE_F32, added.rows, added.cols});
        } else {
            weights_[i] = own(Adapter::Kind::weight, linear, b_.weights.linears[static_cast<size_t>(linear)]);
        }
        return &weights_[i];
    }
    Vector bias(const LayerCall & layer) const {
        if (!layer.has_bias) return {};
        if (is_added(layer.linear)) return {trained_bias(layer.linear).value, to_.formats().param};
        return own(Adapter::Kind::bias, layer.linear, b_.weights.biases[static_cast<size_t>(layer.linear)]);
    }
    Lora lora(int16_t linear) const { return b_.adapter ? b_.adapter->lora(b_.layer, linear) : Lora{}; }
    DoraRows factors(const Call & c) const { return b_.adapter->factors(b_.layer, c.layers[0].linear); }
    DoraRows dora(const Call & c) const { return b_.adapter->dora(b_.layer, c.layers[0].linear); }

    Matrix u_of(const LayerCall & layer, const Lora & lora) const {
        Matrix u = at(layer.u);
        if (lora) u.cols = lora.rank;
        return u;
    }
    std::span<const LinearForward> forward(const Call & c) {
        for (size_t i = 0; i < c.layers.size(); ++i) {
            const LayerCall & layer = c.layers[i];
            const Lora pair = lora(layer.linear);
            forward_[i] = {weight(i, layer.linear), pair,        u_of(layer, pair),
                           at(layer.residual),      at(layer.y), bias(layer)};
        }
        return {forward_.data(), c.layers.size()};
    }
    std::span<const LinearBackward> backward(const Call & c) {
        for (size_t i = 0; i < c.layers.size(); ++i) {
            const LayerCall & layer = c.layers[i];
            const Lora pair = lora(layer.linear);
            backward_[i] = {weight(i, layer.linear), pair, u_of(layer, pair), at(layer.y)};
            backward_[i].dw = trained_weight(layer.linear).gradient;
            backward_[i].dbias = trained_bias(layer.linear).gradient;
        }
        return {backward_.data(), c.layers.size()};
    }

    const Bound & b_;
    Backend & to_;
    std::array<LinearForward, 4> forward_{};
    std::array<LinearBackward, 4> backward_{};
    std::array<Weight, 4> weights_{};
};

}  // namespace

void run(std::span<const Call> calls, const Bound & bound, Backend & backend) {
    Executor executor(bound, backend);
    for (const Call & call : calls) executor.run(call);
}

}  // namespace lorica
