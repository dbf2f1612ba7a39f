// What is trained beside A and B: which tensors, where they begin, and what a factor makes of them.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <set>
#include <sstream>

#include "adapter/adapter.h"
#include "adapter/prompt_scale.h"
#include "adapter/targets.h"
#include "common/error.h"
#include "common/random.h"
#include "gguf/dequantize.h"

namespace lorica {

const char * name(Method method) {
    switch (method) {
        case Method::lora: return "lora";
        case Method::ia3: return "ia3";
        case Method::bitfit: return "bitfit";
        case Method::full: return "full";
        case Method::prompt_tuning: return "prompt_tuning";
        case Method::p_tuning: return "p_tuning";
        case Method::prefix_tuning: return "prefix_tuning";
        case Method::bottleneck: return "bottleneck";
    }
    return "";
}

namespace {

constexpr std::pair<const char *, Act> non_linearities[] = {{"relu", Act::relu},
                                                            {"swish", Act::silu},
                                                            {"gelu", Act::gelu_erf},
                                                            {"gelu_new", Act::gelu_tanh},
                                                            {"tanh", Act::tanh}};

}  // namespace

Act non_linearity_of(const std::string & name) {
    for (const auto & [known, act] : non_linearities) {
        if (name == known) return act;
    }
    fail(LORICA_ERROR_INVALID_ARGUMENT, "there is no non-linearity '", name,
         "'; it is one of relu, swish, gelu, gelu_new, tanh");
}

const char * name_of_non_linearity(Act act) {
    for (const auto & [known, other] : non_linearities) {
        if (act == other) return known;
    }
    return "";
}

namespace {

const ProgramWeights & weights_at(const Model & model, int32_t layer) {
    if (layer < 0) return model.prologue();
    return layer < model.shape().n_layer ? model.layers()[static_cast<size_t>(layer)] : model.epilogue();
}

void refuse_what_is_not_theirs(const AdapterConfig & config) {
    const bool of_lora = config.use_dora || config.use_rslora || config.dropout != 0;
    if (!of_lora) return;
    fail(LORICA_ERROR_INVALID_ARGUMENT,
         config.use_dora     ? "DoRA"
         : config.use_rslora ? "rsLoRA"
                             : "dropout",
         " belongs to LoRA; method ", name(config.method), " has none");
}

std::vector<std::string> words_of(const std::string & text) {
    std::vector<std::string> words;
    std::istringstream stream(text);
    for (std::string word; std::getline(stream, word, ',');) {
        const size_t first = word.find_first_not_of(" \t"), last = word.find_last_not_of(" \t");
        if (first != std::string::npos) words.push_back(word.substr(first, last - first + 1));
    }
    return words;
}

// "0-3,7"
std::set<int32_t> layers_of(const std::string & text, int32_t n_layer) {
    std::set<int32_t> layers;
    for (const std::string & word : words_of(text)) {
        const char * const end = word.data() + word.size();
        int32_t first = -1, last = -1;
        auto read = std::from_chars(word.data(), end, first);
        last = first;
        if (read.ec == std::errc{} && read.ptr != end && *read.ptr == '-')
            read = std::from_chars(read.ptr + 1, end, last);
        if (read.ec != std::errc{} || read.ptr != end || first < 0 || last < first) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "layers cannot be '", word, "'; numbers are meant, as 0-3,7");
        }
        if (last >= n_layer) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "there is no layer ", last, "; the model has layers 0 to ",
                 n_layer - 1);
        }
        for (int32_t layer = first; layer <= last; ++layer) layers.insert(layer);
    }
    return layers;
}

// A head that is the embedding is none of these: it learns with it.
std::set<std::string> names_of_full(const Model & model, const AdapterConfig & config) {
    bool embed = true, head = true;
    for (const std::string & word : words_of(config.frozen)) {
        if (word != "embed" && word != "head")
            fail(LORICA_ERROR_INVALID_ARGUMENT, "'", word, "' cannot be frozen; embed and head can");
        (word == "embed" ? embed : head) = false;
    }
    // One tensor is both.
    if (model.tied_output()) embed = head = embed && head;
    // A classifier has nothing to say with it.
    if (config.classifier) head = false;
    const std::set<int32_t> layers = layers_of(config.layers, model.shape().n_layer);
    std::set<std::string> names;
    for (const TensorSpec & spec : tensors_of(model.architecture())) {
        if (spec.is_optional && !model.file().find_tensor(spec.gguf)) continue;
        if (!layers.empty() && !layers.contains(spec.layer)) continue;
        const bool is_token = spec.kind == TensorSpec::embedding;
        if (is_token ? embed : spec.kind != TensorSpec::head || head) names.insert(spec.gguf);
    }
    return names;
}

std::string without_suffix(const std::string & name) { return name.substr(0, name.rfind('.')); }

// As PEFT's modules_to_save names it: "embed_tokens", "model.norm"; or GGUF's name, with the layer or without.
bool is_module(const Architecture & architecture, const TensorSpec & spec, const std::string & name) {
    const std::string gguf = without_suffix(spec.gguf), hf = without_suffix(spec.hf);
    const size_t before = spec.layer < 0 ? 0 : architecture.layer_name(spec.layer).size();
    if (name == gguf || name == gguf.substr(before)) return true;
    if (!hf.ends_with(name)) return false;
    return hf.size() == name.size() || hf[hf.size() - name.size() - 1] == '.';
}

// PEFT's TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, by GGUF's names; the last is the feed-forward one. Where it
// says nothing of a family, what it says of most: k and v, or the one layer of q, k and v.
void take_default_modules(AdapterConfig & config, const Architecture & architecture) {
    const std::string & name = architecture.shape.architecture;
    const auto is_any = [&](std::initializer_list<const char *> names) {
        return std::any_of(names.begin(), names.end(), [&](const char * one) { return name == one; });
    };
    const std::vector<Names> modules = linear_names(architecture);
    const bool is_one =
        std::any_of(modules.begin(), modules.end(), [](const Names & module) { return module.gguf == "attn_qkv"; });
    if (is_any({"qwen2", "qwen3", "gemma", "gemma2", "gemma3"})) {
        config.target_modules = "attn_q,attn_v,ffn_down";
    } else if (name == "bert" && !architecture.layer_hf.starts_with("distilbert")) {
        // PEFT's "output.dense" is the end of both of these.
        config.target_modules = "attn_k,attn_v,attn_output,ffn_down";
        config.feedforward_modules = "attn_output,ffn_down";
        return;
    } else {
        config.target_modules = is_one ? "attn_qkv,ffn_down" : "attn_k,attn_v,ffn_down";
    }
    config.feedforward_modules = "ffn_down";
}

}  // namespace

void Adapter::add_site(Kind kind, std::string name, int64_t rows, int64_t cols, int32_t layer, int16_t number) {
    sites_[{layer, kind, number}] = n_tensors();
    tensors_.push_back({std::move(name), kind, rows, cols, -1, n_params_, 0, layer, number});
    n_params_ += rows * cols;
}

// The prologue's tensors come before those of the layers, the epilogue's behind them.
void Adapter::add_whole(const TensorSpec & spec) {
    const Architecture & architecture = model_->architecture();
    const std::string base = without_suffix(spec.gguf);
    int32_t layer = spec.layer;
    if (layer < 0) {
        const Program & last = architecture.epilogue;
        const auto is_of = [&](const auto & table) {
            return std::any_of(table.begin(), table.end(), [&](const auto & one) { return one.names.gguf == base; });
        };
        layer = is_of(last.norms) || is_of(last.linears) || is_of(last.heads) ? architecture.shape.n_layer : -1;
    }
    const Program & program = architecture.program(layer);
    const std::string short_name = base.substr(spec.layer >= 0 ? architecture.layer_name(layer).size() : 0);
    const bool of_norm = std::any_of(program.norms.begin(), program.norms.end(),
                                     [&](const NormSpec & norm) { return norm.names.gguf == short_name; });
    const Kind kind = spec.kind == TensorSpec::embedding ? Kind::embedding
                      : spec.kind == TensorSpec::linear  ? Kind::weight
                      : spec.kind == TensorSpec::head    ? Kind::head
                      : spec.kind == TensorSpec::norm    ? Kind::norm_weight
                      : of_norm                          ? Kind::norm_bias
                                                         : Kind::bias;
    add_site(kind, spec.gguf, spec.rows, spec.cols, layer, spec.number);
}

void Adapter::add_whole(const std::set<std::string> & names) {
    for (const TensorSpec & spec : tensors_of(model_->architecture())) {
        if (names.contains(spec.gguf)) add_whole(spec);
    }
}

void Adapter::tie_head() {
    const int32_t embedding = find_tensor(-1, Kind::embedding, 0);
    if (embedding >= 0 && model_->tied_output()) sites_[{model_->shape().n_layer, Kind::head, 0}] = embedding;
}

int32_t Adapter::first_site() const {
    int32_t first = 0;
    while (first < n_tensors() && tensor(first).group >= 0) ++first;
    return first;
}

int32_t Adapter::first_layer() const {
    int32_t first = model_->shape().n_layer;
    for (const Tensor & one : tensors_) first = std::min(first, one.layer);
    return first;
}

bool Adapter::trains_matrices() const {
    return std::any_of(tensors_.begin(), tensors_.end(), [](const Tensor & one) {
        return one.kind == Kind::weight || one.kind == Kind::head || one.kind == Kind::embedding ||
               one.kind == Kind::bottleneck_weight;
    });
}

void Adapter::add_beside_lora() {
    const Architecture & architecture = model_->architecture();
    std::set<std::string> names;
    const std::vector<TensorSpec> tensors = tensors_of(architecture);
    for (const std::string & module : words_of(config_.modules_to_save)) {
        bool found = false;
        for (const TensorSpec & spec : tensors) {
            if (!is_module(architecture, spec, module)) continue;
            found = true;
            names.insert(spec.gguf);
            const bool is_target = spec.kind == TensorSpec::head ? head_rank() > 0
                                                                 : spec.layer >= 0 && spec.kind == TensorSpec::linear &&
                                                                       find(spec.layer, spec.number);
            if (is_target) {
                fail(LORICA_ERROR_INVALID_ARGUMENT, "module '", module,
                     "' is trained whole and as a target of the LoRA; take it out of one of the two");
            }
        }
        if (!found) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "module to save '", module,
                 "' does not exist; there are embeddings, norms, linear layers and the head, by their names: ",
                 without_suffix(tensors.front().hf), ", ", without_suffix(tensors.back().hf), " and between them ",
                 without_suffix(tensors[1].hf));
        }
    }
    if (config_.bias != TrainedBiases::none && config_.use_dora)
        fail(LORICA_ERROR_UNSUPPORTED, "DoRA and trained biases exclude each other");
    for (const TensorSpec & spec : tensors) {
        if (spec.kind != TensorSpec::bias || config_.bias == TrainedBiases::none) continue;
        const std::string weight = without_suffix(spec.gguf) + ".weight";
        const bool adapted =
            std::any_of(pairs_.begin(), pairs_.end(), [&](const LoraPair & pair) { return pair.base_name == weight; });
        if (adapted || config_.bias == TrainedBiases::all) names.insert(spec.gguf);
    }
    add_whole(names);
}

// [A; A] and [B, -B].
bool Adapter::is_as_it_began(const LoraPair & pair, std::span<const float> a, std::span<const float> b) {
    const auto half = static_cast<size_t>(pair.rank / 2);
    const auto middle = a.begin() + static_cast<ptrdiff_t>(a.size() / 2);
    if (!std::equal(a.begin(), middle, middle)) return false;
    for (size_t i = 0; i < b.size(); i += 2 * half) {
        for (size_t j = i; j < i + half; ++j) {
            if (b[j] != -b[j + half]) return false;
        }
    }
    return true;
}

bool Adapter::has_effect() const {
    bool any = false;
    for (int32_t i = 0; i < n_tensors(); ++i) {
        const std::vector<float> values = read(i);
        if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
            fail(LORICA_ERROR_NON_FINITE, tensor(i).name, " of the adapter holds numbers that are not finite");
        }
        if (is_classifier(tensor(i).kind)) continue;                    // is beside the model
        if (tensor(i).kind == Kind::prompt && has_encoder()) continue;  // is what its encoder makes
        if (config_.method == Method::bottleneck) {
            any = any || (is_up(tensor(i)) &&
                          std::any_of(values.begin(), values.end(), [](float value) { return value != 0; }));
        } else if (tensor(i).group < 0) {
            any = any || values != start(i);
        } else if (tensor(i).kind == Kind::b && config_.frozen_half) {
            const LoraPair & pair = pairs_[static_cast<size_t>(tensor(i).group)];
            any = any || !is_as_it_began(pair, read(pair.a), values);
        } else if (tensor(i).kind == Kind::b) {
            any = any || std::any_of(values.begin(), values.end(), [](float value) { return value != 0; });
        }
    }
    return any;
}

void Adapter::add_ia3(int32_t layer, int16_t linear, bool is_feedforward) {
    const Architecture & architecture = model_->architecture();
    if (layer == architecture.shape.n_layer) {
        fail(LORICA_ERROR_UNSUPPORTED, "IA3 on the output head (", architecture.linear(layer, linear).names.hf,
             ") cannot be computed; leave it out of the target modules");
    }
    const LinearSpec & spec = architecture.layer(layer).linears[static_cast<size_t>(linear)];
    const std::string name = architecture.layer_name(layer) + spec.names.gguf + ".weight.ia3_l";
    if (is_feedforward) {
        add_site(Kind::scale_in, name, 1, spec.in, layer, linear);
    } else {
        add_site(Kind::scale_out, name, spec.out, 1, layer, linear);
    }
}

// In the order of the computation: that of TensorSpec.
void Adapter::add_bitfit() {
    const Architecture & architecture = model_->architecture();
    const int32_t n_layer = architecture.shape.n_layer;
    std::set<std::string> of_epilogue;
    for (const NormSpec & norm : architecture.epilogue.norms) of_epilogue.insert(norm.names.gguf);
    for (const TensorSpec & spec : tensors_of(architecture)) {
        if (spec.kind != TensorSpec::norm && spec.kind != TensorSpec::bias) continue;
        const std::string base = spec.gguf.substr(0, spec.gguf.rfind('.'));
        const int32_t layer = spec.layer >= 0 ? spec.layer : of_epilogue.contains(base) ? n_layer : -1;
        if (layer < 0) continue;  // the prologue has no gradient
        add_whole(spec);
    }
}

std::shared_ptr<Adapter> Adapter::create_other(std::shared_ptr<const Model> model, const AdapterConfig & given) {
    refuse_what_is_not_theirs(given);
    AdapterConfig config = given;
    config.rank = 0;
    config.alpha = 0;
    config.classifier.trains_pooler = config.method == Method::full && config.layers.empty();
    if (config.method == Method::ia3 && config.target_modules.empty())
        take_default_modules(config, model->architecture());
    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    if (config.method == Method::ia3) {
        const Architecture & architecture = model->architecture();
        std::set<std::pair<int32_t, int16_t>> feedforward;
        if (!config.feedforward_modules.empty()) {
            for (const Target & target : parse_targets(architecture, config.feedforward_modules, 1, 1))
                feedforward.insert({target.layer, target.linear});
        }
        const std::vector<Target> targets = parse_targets(architecture, config.target_modules, 1, 1);
        for (const Target & target : targets) {
            adapter->add_ia3(target.layer, target.linear, feedforward.erase({target.layer, target.linear}) > 0);
        }
        if (!feedforward.empty()) {
            const auto [layer, linear] = *feedforward.begin();
            const LinearSpec spec = architecture.linear(layer, linear);
            fail(
                LORICA_ERROR_INVALID_ARGUMENT, "feedforward module '", spec.short_name(),
                "' is none of the target modules; feedforward_modules says which of these have their input multiplied");
        }
    } else if (config.method == Method::prompt_tuning) {
        adapter->check_prompt();
        adapter->add_prompt(config.n_virtual_tokens);
    } else if (config.method == Method::bottleneck) {
        adapter->check_bottlenecks();
        adapter->add_bottlenecks();
    } else if (config.method == Method::prefix_tuning) {
        adapter->check_prompt();
        adapter->add_prefix(config.n_virtual_tokens);
    } else if (config.method == Method::p_tuning) {
        adapter->check_prompt();
        adapter->check_encoder();
        const int32_t hidden = config.encoder_hidden_size;
        adapter->add_encoder(config.n_virtual_tokens, hidden > 0 ? hidden : model->shape().n_embd);
    } else if (config.method == Method::full) {
        adapter->add_whole(names_of_full(*model, config));
        if (adapter->n_tensors() == 0)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "everything is frozen: there is nothing to train");
        adapter->tie_head();
    } else {
        adapter->add_bitfit();
    }
    adapter->allocate();
    adapter->base_fingerprint_ = model->fingerprint();
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        if (!is_classifier(adapter->tensor(i).kind)) adapter->write(adapter->params_, i, adapter->start(i).data());
    }
    adapter->initialize_classifier();
    return adapter;
}

std::vector<float> Adapter::start(int32_t i) const {
    const Tensor & t = tensor(i);
    std::vector<float> values(static_cast<size_t>(t.rows * t.cols), 1.0f);
    const ProgramWeights & weights = weights_at(*model_, t.layer);
    const auto number = static_cast<size_t>(t.number);
    if (t.kind == Kind::encoder_input || t.kind == Kind::encoder_weight || t.kind == Kind::encoder_bias)
        return encoder_start(i);
    if (t.kind == Kind::prompt) return prompt_start();
    if (t.kind == Kind::bottleneck_weight || t.kind == Kind::bottleneck_bias) return bottleneck_start(i);
    if (t.kind == Kind::prefix_k || t.kind == Kind::prefix_v) return normal_start(i);
    if (t.kind == Kind::weight || t.kind == Kind::embedding || t.kind == Kind::head) {
        const GgufFile & file = model_->file();
        const TensorView * view = file.find_tensor(t.name);
        if (!view) view = file.find_tensor(model_->architecture().epilogue.heads.front().tied_to + ".weight");
        if (!view) fail(LORICA_ERROR_INTERNAL, "tensor ", t.name, " is missing");
        dequantize_row(view->type, view->data, values.data(), view->n_elements());
        file.check_not_cut();
        return values;
    }
    const Vector * of_model = t.kind == Kind::bias          ? &weights.biases[number]
                              : t.kind == Kind::norm_weight ? &weights.norms[number]
                              : t.kind == Kind::norm_bias   ? &weights.norm_biases[number]
                                                            : nullptr;
    if (of_model) model_->device().copy_to_host(values.data(), of_model->data, values.size() * sizeof(float));
    return values;
}

// ---- prompts

int32_t Adapter::n_virtual_tokens() const {
    const int32_t prompt = find_tensor(-1, Kind::prompt, 0);
    const int32_t found = prompt >= 0 ? prompt : find_tensor(0, Kind::prefix_k, 0);
    return found < 0 ? 0 : static_cast<int32_t>(tensor(found).rows);
}

void Adapter::add_prompt(int64_t n) { add_site(Kind::prompt, "prompt_embeddings", n, model_->shape().n_embd, -1, 0); }

void Adapter::check_prompt() const {
    const Shape & shape = model_->shape();
    const int32_t n = config_.n_virtual_tokens;
    constexpr int32_t most = 1 << 14;
    if (n < 1 || n > most) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the number of virtual tokens is ", n, "; it must lie between 1 and ",
             most);
    }
    if (!config_.virtual_ids.empty() && static_cast<int64_t>(config_.virtual_ids.size()) != n) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there are ", config_.virtual_ids.size(), " tokens for ", n,
             " virtual ones to begin as");
    }
    for (const int32_t id : config_.virtual_ids) {
        if (id < 0 || id >= shape.n_vocab) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token id ", id, " is outside the vocabulary of ", shape.n_vocab);
        }
    }
}

// As torch.nn.Embedding begins, N(0, 1), or as the embeddings of tokens come out of the model's own.
std::vector<float> Adapter::prompt_start() const {
    const int64_t n_embd = model_->shape().n_embd;
    std::vector<float> values(static_cast<size_t>(n_virtual_tokens() * n_embd));
    if (config_.virtual_ids.empty()) {
        constexpr uint64_t stream = 0x70726f6d7074;  // no layer has this number
        const uint64_t seed = derive_seed(config_.seed, stream);
        for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random_normal(seed, i));
        return values;
    }
    const EmbedSpec & spec = model_->architecture().prologue.embeds.front();
    const TensorView & view = *model_->file().find_tensor(spec.names.gguf + ".weight");
    const size_t row_bytes = ggml_row_size(view.type, n_embd);
    float * row = values.data();
    for (const int32_t id : config_.virtual_ids) {
        dequantize_row(view.type, view.data + static_cast<size_t>(id) * row_bytes, row, n_embd);
        const double scale = spec.scale / prompt_scale(*model_);
        for (int64_t i = 0; i < n_embd; ++i) row[i] = static_cast<float>(row[i] * scale);
        row += n_embd;
    }
    model_->file().check_not_cut();
    return values;
}

// ---- prefixes

void Adapter::add_prefix(int64_t n) {
    const Architecture & architecture = model_->architecture();
    for (int32_t layer = 0; layer < architecture.shape.n_layer; ++layer) {
        int16_t number = 0;
        for (const AttentionSpec & attention : architecture.layer(layer).attentions) {
            const int64_t cols = int64_t{attention.n_head_kv} * attention.head_dim;
            const std::string name = architecture.layer_name(layer) + "prefix_";
            add_site(Kind::prefix_k, name + "k", n, cols, layer, number);
            add_site(Kind::prefix_v, name + "v", n, cols, layer, number++);
        }
    }
}

// As PEFT's torch.nn.Embedding begins.
std::vector<float> Adapter::normal_start(int32_t i) const {
    const Tensor & t = tensor(i);
    std::vector<float> values(static_cast<size_t>(t.rows * t.cols));
    constexpr uint64_t stream = 0x707265666978;  // no layer has this number
    const uint64_t seed = derive_seed(config_.seed, stream, static_cast<uint64_t>(i));
    for (size_t j = 0; j < values.size(); ++j) values[j] = static_cast<float>(random_normal(seed, j));
    return values;
}

void Adapter::allocate_prefix() {
    std::vector<int32_t> counting(static_cast<size_t>(n_virtual_tokens()));
    std::iota(counting.begin(), counting.end(), 0);
    Backend & device = model_->device();
    counting_ = device.allocate(counting.size() * sizeof(int32_t));
    zeros_ = device.allocate(counting.size() * sizeof(float));
    device.copy_to_device(counting_, counting.data(), counting.size() * sizeof(int32_t));
}

// ---- bottlenecks

BottleneckSites Adapter::bottlenecks() const {
    if (config_.method != Method::bottleneck) return {};
    const int64_t width = config_.bottleneck_size;
    return {config_.pfeiffer ? 0 : width, width, config_.pfeiffer, config_.non_linearity};
}

void Adapter::check_bottlenecks() const {
    const Shape & shape = model_->shape();
    if (config_.bottleneck_size < 1 || config_.bottleneck_size > shape.n_embd) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the bottleneck size is ", config_.bottleneck_size,
             "; it must lie between 1 and the size of the embeddings, ", shape.n_embd);
    }
    for (const Program & kind : model_->architecture().kinds) {
        if (n_branches(kind) == 2 && shape.architecture != "granite") continue;
        fail(LORICA_ERROR_UNSUPPORTED, "bottleneck adapters are not defined for architecture '", shape.architecture,
             "', whose layers do not add two branches to their stream as they are");
    }
}

void Adapter::add_bottlenecks() {
    const Architecture & architecture = model_->architecture();
    const BottleneckSites sites = bottlenecks();
    for (int32_t layer = 0; layer < architecture.shape.n_layer; ++layer) {
        for (int place = 0; place < 2; ++place) {
            const int64_t width = sites.width(place), n = architecture.shape.n_embd;
            if (width == 0) continue;
            const auto down = static_cast<int16_t>(architecture.n_linears(layer) + 2 * static_cast<size_t>(place));
            const auto up = static_cast<int16_t>(down + 1);
            const std::string name = architecture.layer_name(layer) + (place == 0 ? "attn_adapter_" : "ffn_adapter_");
            add_site(Kind::bottleneck_weight, name + "down.weight", width, n, layer, down);
            add_site(Kind::bottleneck_bias, name + "down.bias", width, 1, layer, down);
            add_site(Kind::bottleneck_weight, name + "up.weight", n, width, layer, up);
            add_site(Kind::bottleneck_bias, name + "up.bias", n, 1, layer, up);
        }
    }
}

bool Adapter::is_up(const Tensor & tensor) const {
    const bool is_ours = tensor.kind == Kind::bottleneck_weight || tensor.kind == Kind::bottleneck_bias;
    return is_ours && (static_cast<size_t>(tensor.number) - model_->architecture().n_linears(tensor.layer)) % 2 == 1;
}

// As AdapterHub's "mam_adapter" (He et al. 2021): down as torch.nn.Linear begins, without a bias; up is nothing.
std::vector<float> Adapter::bottleneck_start(int32_t i) const {
    const Tensor & t = tensor(i);
    std::vector<float> values(static_cast<size_t>(t.rows * t.cols));
    if (is_up(t) || t.kind == Kind::bottleneck_bias) return values;
    const uint64_t seed = derive_seed(config_.seed, static_cast<uint64_t>(t.layer), static_cast<uint64_t>(t.number));
    const double bound = 1 / std::sqrt(static_cast<double>(t.cols));
    for (size_t j = 0; j < values.size(); ++j)
        values[j] = static_cast<float>((2.0 * random_uniform(seed, j) - 1.0) * bound);
    return values;
}

// ---- with a factor

std::vector<float> Adapter::values_in_effect(int32_t i) const {
    std::vector<float> values = read(i);
    if (scale_factor_ == 1 || is_classifier(tensor(i).kind)) return values;
    if (config_.method == Method::bottleneck) {  // what comes out of it has the factor
        for (float & value : values) value = static_cast<float>(value * (is_up(tensor(i)) ? scale_factor_ : 1));
        return values;
    }
    const std::vector<float> from = start(i);
    for (size_t j = 0; j < values.size(); ++j)
        values[j] = static_cast<float>(from[j] + scale_factor_ * (static_cast<double>(values[j]) - from[j]));
    return values;
}

void Adapter::update_effect() const {
    const bool is_scaled = has_prompt() && prompt_scale(*model_) != 1;
    if (scale_factor_ == 1 && !is_scaled) return;
    Backend & device = model_->device();
    const size_t element = dtype_size(device.formats().param);
    if (!effect_) effect_ = device.allocate(static_cast<size_t>(n_params_) * element);
    if (is_scaled) {  // and has no factor
        const int32_t prompt = find_tensor(-1, Kind::prompt, 0);
        std::vector<double> values;
        if (device.formats().param == Dtype::f32) {  // read() would ask for this
            const std::vector<float> narrow =
                read_values(parameters(prompt), tensor(prompt).rows * tensor(prompt).cols);
            values.assign(narrow.begin(), narrow.end());
        } else {
            values = read_wide(params_, prompt);
        }
        for (double & value : values) value *= prompt_scale(*model_);
        return put(effect_, prompt, values);
    }
    for (int32_t i = first_site(); i < n_tensors(); ++i) put(effect_, i, values_in_effect(i).data());
}

const void * Adapter::in_effect(int32_t i) const {
    const bool is_scaled = tensor(i).kind == Kind::prompt && prompt_scale(*model_) != 1;
    if (scale_factor_ == 1 && !is_scaled) return parameters(i);
    const size_t element = dtype_size(model_->device().formats().param);
    return static_cast<const std::byte *>(effect_) + static_cast<size_t>(tensor(i).offset) * element;
}

// ---- IA3

int64_t Adapter::longest_vector() const {
    int64_t longest = 0;
    for (const Tensor & tensor : tensors_) longest = std::max(longest, tensor.rows * tensor.cols);
    return longest;
}

void Adapter::allocate_ones() {
    Backend & device = model_->device();
    const auto n = static_cast<size_t>(longest_vector());
    ones_ = device.allocate(n * dtype_size(device.formats().param));
    if (device.formats().param == Dtype::f32) {
        const std::vector<float> ones(n, 1);
        device.copy_to_device(ones_, ones.data(), n * sizeof(float));
    } else {
        const std::vector<double> ones(n, 1);
        device.copy_to_device(ones_, ones.data(), n * sizeof(double));
    }
}

// The gradient of a factor is the sum of dy times what it multiplies, where DoRA's has another factor.
DoraRows Adapter::ia3_rows(int32_t i) const {
    DoraRows rows{};
    rows.strength = scale_factor_;
    rows.magnitudes = rows.factors = const_cast<void *>(in_effect(i));
    rows.slopes = ones_;
    return rows;
}

}  // namespace lorica
