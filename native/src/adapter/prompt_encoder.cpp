// P-tuning (Liu et al. 2021, "GPT Understands, Too"): the embeddings of a prompt come out of a small network that is
// trained in their place, as PEFT's PromptEncoder with reparameterization "MLP" has it:
// prompt = relu(relu(E W0^T + b0) W2^T + b2) W4^T + b4. A few rows are little next to a batch, so this is computed on
// the host, in f64, for every device.
#include <cmath>

#include "adapter/adapter.h"
#include "common/dense.h"
#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

constexpr int16_t n_encoder_layers = 3;

// relu in place
void rectify(std::vector<double> & values) {
    for (double & value : values) value = value > 0 ? value : 0;
}

}  // namespace

// The prompt lies behind what it follows from: among the parameters, so that all else finds it where that of prompt
// tuning is. Its gradient is passed on to the encoder's and is 0 then.
void Adapter::add_encoder(int64_t n, int64_t hidden) {
    const int64_t n_embd = model_->shape().n_embd;
    add_site(Kind::encoder_input, "prompt_encoder.embedding.weight", n, n_embd, -1, 0);
    for (int16_t i = 0; i < n_encoder_layers; ++i) {
        const std::string name = "prompt_encoder.mlp_head." + std::to_string(2 * i);
        const int64_t out = i + 1 < n_encoder_layers ? hidden : n_embd;
        add_site(Kind::encoder_weight, name + ".weight", out, i == 0 ? n_embd : hidden, -1, i);
        add_site(Kind::encoder_bias, name + ".bias", out, 1, -1, i);
    }
    add_prompt(n);
}

void Adapter::check_encoder() const {
    constexpr int32_t most = 1 << 16;
    if (config_.encoder_hidden_size < 0 || config_.encoder_hidden_size > most) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the hidden size of the prompt's encoder is ", config_.encoder_hidden_size,
             "; it must lie between 1 and ", most, ", or be 0: that of the embeddings");
    }
}

bool Adapter::has_encoder() const { return find_tensor(-1, Kind::encoder_input, 0) >= 0; }

int64_t Adapter::n_trained() const {
    if (config_.frozen_half) {
        int64_t frozen = 0;
        for (const LoraPair & pair : pairs_) frozen += pair.rank / 2 * (pair.in + pair.out);
        return n_params_ - frozen;
    }
    if (!has_encoder()) return n_params_;
    const Tensor & prompt = tensor(find_tensor(-1, Kind::prompt, 0));
    return n_params_ - prompt.rows * prompt.cols;
}

// As torch begins: nn.Embedding with N(0, 1), nn.Linear with U(-1/sqrt(in), 1/sqrt(in)), its bias too.
std::vector<float> Adapter::encoder_start(int32_t i) const {
    const Tensor & t = tensor(i);
    std::vector<float> values(static_cast<size_t>(t.rows * t.cols));
    constexpr uint64_t stream = 0x656e636f646572;  // no layer has this number
    const uint64_t seed = derive_seed(config_.seed, stream, static_cast<uint64_t>(i));
    const Tensor & weight = t.kind == Kind::encoder_bias ? tensor(i - 1) : t;
    const double bound = 1 / std::sqrt(static_cast<double>(weight.cols));
    for (size_t j = 0; j < values.size(); ++j) {
        values[j] = static_cast<float>(t.kind == Kind::encoder_input ? random_normal(seed, j)
                                                                     : (2.0 * random_uniform(seed, j) - 1.0) * bound);
    }
    return values;
}

// The input of each layer, and what comes out of the last.
std::vector<std::vector<double>> Adapter::encoder_activations() const {
    std::vector<std::vector<double>> activations;
    const int32_t input = find_tensor(-1, Kind::encoder_input, 0);
    activations.push_back(read_wide(params_, input));
    const auto rows = static_cast<size_t>(tensor(input).rows);
    for (int16_t l = 0; l < n_encoder_layers; ++l) {
        const int32_t w = find_tensor(-1, Kind::encoder_weight, l);
        const auto in = static_cast<size_t>(tensor(w).cols), out = static_cast<size_t>(tensor(w).rows);
        activations.push_back(
            times(activations.back(), read_wide(params_, w), read_wide(params_, w + 1), rows, in, out));
        if (l + 1 < n_encoder_layers) rectify(activations.back());
    }
    return activations;
}

void Adapter::update_prompt() const {
    const int32_t prompt = find_tensor(-1, Kind::prompt, 0);
    put(params_, prompt, encoder_activations().back());
}

void Adapter::pass_on_prompt_gradient(void * gradients) const {
    if (!has_encoder()) return;
    const int32_t prompt = find_tensor(-1, Kind::prompt, 0);
    const std::vector<std::vector<double>> x = encoder_activations();
    std::vector<double> dy = read_wide(gradients, prompt);
    const auto rows = static_cast<size_t>(tensor(prompt).rows);
    for (int16_t l = n_encoder_layers - 1; l >= 0; --l) {
        const int32_t w = find_tensor(-1, Kind::encoder_weight, l);
        const auto in = static_cast<size_t>(tensor(w).cols), out = static_cast<size_t>(tensor(w).rows);
        const std::vector<double> & input = x[static_cast<size_t>(l)];
        add(gradients, w, weight_gradient(dy, input, rows, in, out));
        add(gradients, w + 1, column_sums(dy, rows, out));
        dy = back(dy, read_wide(params_, w), rows, in, out);
        for (size_t j = 0; l > 0 && j < dy.size(); ++j) dy[j] *= input[j] > 0 ? 1 : 0;
    }
    add(gradients, find_tensor(-1, Kind::encoder_input, 0), dy);
    put(gradients, prompt, std::vector<double>(rows * static_cast<size_t>(tensor(prompt).cols)));
}

}  // namespace lorica
