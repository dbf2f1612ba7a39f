#include "model/arch/reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.h"
#include "common/log.h"
#include "gguf/dequantize.h"

namespace lorica {

Reader::Reader(const GgufFile & file) : file_(file) {
    const auto architecture = file.find_string("general.architecture");
    if (!architecture) fail(LORICA_ERROR_FORMAT, file.path(), ": metadata key general.architecture is missing");
    if (file.find_string("general.type").value_or("model") == "adapter") {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), " is an adapter, not a model; give the base model here");
    }
    architecture_ = *architecture;
}

// ---- values

int32_t Reader::integer(const std::string & key, int64_t min, int64_t max) const {
    const auto value = optional_integer(key, min, max);
    if (!value) fail(LORICA_ERROR_FORMAT, file_.path(), ": metadata key ", architecture_, ".", key, " is missing");
    return *value;
}

std::optional<int32_t> Reader::optional_integer(const std::string & key, int64_t min, int64_t max) const {
    const auto value = find(architecture_ + "." + key);
    if (!value) return std::nullopt;
    if (*value < min || *value > max) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", architecture_, ".", key, " is ", *value, "; it must lie between ",
             min, " and ", max);
    }
    return static_cast<int32_t>(*value);
}

std::vector<int32_t> Reader::integers(const std::string & key, int32_t n_layer, int64_t min, int64_t max) const {
    const std::string full = architecture_ + "." + key;
    if (!is_array(full)) return std::vector<int32_t>(static_cast<size_t>(n_layer), integer(key, min, max));
    const std::vector<int64_t> wide = *file_.find_ints(full);
    std::vector<int32_t> values;
    for (const int64_t value : wide) {
        if (value < min || value > max) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", full, " has the value ", value, "; it must lie between ", min,
                 " and ", max);
        }
        values.push_back(static_cast<int32_t>(value));
    }
    if (values.size() != static_cast<size_t>(n_layer)) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", full, " has ", values.size(), " values for ", n_layer, " layers");
    }
    return values;
}

double Reader::positive(const std::string & key, double otherwise) const {
    const double value = file_.find_float(architecture_ + "." + key).value_or(otherwise);
    if (!(value > 0) || !std::isfinite(value)) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", architecture_, ".", key, " is ", value, "; it must be positive");
    }
    return value;
}

double Reader::number(const std::string & key, double otherwise) const {
    return file_.find_float(architecture_ + "." + key).value_or(otherwise);
}

double Reader::optional_positive(const std::string & key) const { return has(key) ? positive(key, 1) : 0; }

bool Reader::has(const std::string & key) const {
    for (int64_t i = 0; i < file_.n_kv(); ++i) {
        if (file_.key(i) == architecture_ + "." + key) return true;
    }
    return false;
}

constexpr std::string_view tensors_key = "lorica.tensors";

bool Reader::has_tensor(const std::string & name) const {
    if (!file_.tensors().empty()) return file_.find_tensor(name) != nullptr;
    const std::vector<std::string> names = file_.find_strings(tensors_key).value_or(std::vector<std::string>());
    return std::find(names.begin(), names.end(), name) != names.end();
}

bool Reader::lists_tensors() const { return !file_.tensors().empty() || file_.find_strings(tensors_key); }

int32_t Reader::n_token_types() const {
    constexpr int64_t most = 1 << 20;
    const TensorView * table = file_.find_tensor("token_types.weight");
    const int64_t n = table ? table->ne[1] : file_.find_int("tokenizer.ggml.token_type_count").value_or(2);
    if (n < 1 || n > most) fail(LORICA_ERROR_FORMAT, file_.path(), ": there are ", n, " types of tokens");
    return static_cast<int32_t>(n);
}

bool Reader::boolean(const std::string & key, bool otherwise) const {
    return file_.find_bool(architecture_ + "." + key).value_or(otherwise);
}

// Some files give a value per layer. Equal ones are one value.
std::optional<int64_t> Reader::find(const std::string & key) const {
    if (!is_array(key)) return file_.find_int(key);
    const auto values = file_.find_ints(key);
    if (values->empty()) fail(LORICA_ERROR_FORMAT, file_.path(), ": ", key, " is an empty array");
    for (const int64_t value : *values) {
        if (value != values->front()) {
            fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": ", key, " differs between layers, which is not supported");
        }
    }
    return values->front();
}

bool Reader::is_array(const std::string & key) const {
    for (int64_t i = 0; i < file_.n_kv(); ++i) {
        if (file_.key(i) == key) return file_.array_length(i).has_value();
    }
    return false;
}

std::vector<float> Reader::factors(const std::string & tensor, int64_t n) const {
    const TensorView * view = file_.find_tensor(tensor);
    if (!view) return {};
    if (view->type != GGML_TYPE_F32 || view->n_elements() != n) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", tensor, " must be F32 with ", n, " elements");
    }
    std::vector<float> values(static_cast<size_t>(n));
    dequantize_row(GGML_TYPE_F32, view->data, values.data(), n);
    for (size_t i = 0; i < values.size(); ++i) {
        if (!(values[i] > 0) || !std::isfinite(values[i])) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", tensor, "[", i, "] is ", values[i], "; it must be positive");
        }
    }
    return values;
}

// ---- what architectures share

void Reader::refuse_experts() const {
    if (optional_integer("expert_count", 0, 4096).value_or(0) > 0) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": architecture '", architecture_,
             "' with experts needs mixtures of experts, which Lorica does not have");
    }
}

Shape Reader::shape() const {
    Shape s;
    constexpr int32_t large = 1 << 20;
    s.architecture = architecture_;
    s.n_layer = integer("block_count", 1, 4096);
    s.n_embd = integer("embedding_length", 1, large);
    s.n_head = integer("attention.head_count", 1, 4096);
    s.n_head_kv = optional_integer("attention.head_count_kv", 1, 4096).value_or(s.n_head);
    s.n_ff = integer("feed_forward_length", 1, large);
    s.n_ctx_train = integer("context_length", 1, std::numeric_limits<int32_t>::max());

    if (s.n_head % s.n_head_kv != 0) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": attention.head_count ", s.n_head,
             " is no multiple of head_count_kv ", s.n_head_kv);
    }
    const auto key_length = optional_integer("attention.key_length", 1, 4096);
    if (!key_length && s.n_embd % s.n_head != 0) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": embedding_length ", s.n_embd, " is no multiple of head_count ",
             s.n_head);
    }
    s.head_dim = key_length.value_or(s.n_embd / s.n_head);
    if (s.head_dim % 2 != 0) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": attention heads of odd size ", s.head_dim,
             " are not supported");
    }
    if (optional_integer("attention.value_length", 1, 4096).value_or(s.head_dim) != s.head_dim) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": keys and values of different size are not supported");
    }
    if (file_.tensors().empty()) {
        s.n_vocab = integer("vocab_size", 1, 1 << 26);
        return s;
    }
    const TensorView * embedding = file_.find_tensor("token_embd.weight");
    if (!embedding) {
        fail(LORICA_ERROR_FORMAT, file_.path(),
             ": tensor token_embd.weight is missing; is this a vocabulary-only file?");
    }
    if (embedding->ne[1] < 1 || embedding->ne[1] > (1 << 26)) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": token_embd.weight has ", embedding->ne[1], " rows");
    }
    s.n_vocab = static_cast<int32_t>(embedding->ne[1]);
    check_vocabulary(s.n_vocab);
    return s;
}

// Rows of the embedding and tokens are the same thing. llama.cpp refuses other files too: a row without a token could
// be sampled, a token without a row could not be read.
void Reader::check_vocabulary(int32_t n_rows) const {
    std::optional<int64_t> n_tokens;
    for (int64_t i = 0; i < file_.n_kv(); ++i) {
        if (file_.key(i) == "tokenizer.ggml.tokens") n_tokens = file_.array_length(i);
    }
    if (n_tokens && *n_tokens != n_rows) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": token_embd.weight has ", n_rows, " rows, the vocabulary has ",
             *n_tokens, " tokens; convert the model again");
    }
    const auto said = optional_integer("vocab_size", 1, 1 << 26);
    if (!said || *said == n_rows) return;
    if (!n_tokens) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", architecture_, ".vocab_size is ", *said,
             ", token_embd.weight has ", n_rows, " rows");
    }
    log(LORICA_LOG_WARN, file_.path(), ": ", architecture_, ".vocab_size is ", *said, " and not obeyed: there are ",
        n_rows, " tokens");
}

void Reader::only(const std::string & key, double value, double otherwise) const {
    const double found = number(key, otherwise);
    if (found != value) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": ", architecture_, ".", key, " is ", found, "; only ", value,
             " is supported");
    }
}

// What llama.cpp reads for every architecture (load_hparams in llama-model.cpp) or its converter writes.
void Reader::check_keys(std::initializer_list<std::string_view> own) const {
    static constexpr std::string_view shared[] = {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.causal", "rope.dimension_count",
        "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor",
        "rope.scaling.yarn_ext_factor", "expert_count", "attention.scale", "logit_scale", "embedding_scale",
        "residual_scale", "attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv",
        "attention.max_alibi_bias", "rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier",
        // without an effect on what is computed here
        "expert_used_count", "pooling_type", "rope.scaling.finetuned", "rope.scaling.yarn_attn_factor",
        "tensor_data_layout", "classifier.output_labels"};
    const auto is_own = [&](std::string_view name) { return std::find(own.begin(), own.end(), name) != own.end(); };
    const std::string prefix = architecture_ + ".";
    for (int64_t i = 0; i < file_.n_kv(); ++i) {
        const std::string & key = file_.key(i);
        if (!key.starts_with(prefix)) continue;
        const std::string_view name = std::string_view(key).substr(prefix.size());
        if (!is_own(name) && std::find(std::begin(shared), std::end(shared), name) == std::end(shared))
            log(LORICA_LOG_WARN, file_.path(), ": metadata key ", key, " is unknown and not obeyed");
    }
    if (!is_own("attention.causal") && !boolean("attention.causal", true)) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": ", prefix,
             "attention.causal is false; only models that look back are supported");
    }
    for (const char * key : {"attention.scale", "logit_scale", "embedding_scale", "residual_scale"}) {
        if (!is_own(key)) only(key, 1, 1);
    }
    for (const char * key :
         {"attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv", "attention.max_alibi_bias"}) {
        if (!is_own(key)) only(key, 0, 0);
    }
    const std::string scaling = this->scaling();
    const double yarn = scaling == "yarn" ? 1 : 0;
    only("rope.scaling.yarn_ext_factor", yarn, yarn);
    if (scaling != "yarn" && scaling != "longrope") only("rope.scaling.attn_factor", 1, 1);
}

MaskSpec Reader::window(const std::string & key, int32_t otherwise) const {
    const int32_t keys = optional_integer(key, 0, std::numeric_limits<int32_t>::max()).value_or(otherwise);
    MaskSpec mask;
    if (keys > 0) mask.back = keys - 1;
    return mask;
}

std::vector<bool> Reader::pattern(const Shape & shape, const std::string & key, int32_t otherwise) const {
    const auto n_layer = static_cast<size_t>(shape.n_layer);
    const std::string full = architecture_ + "." + key;
    if (is_array(full)) {
        const std::vector<bool> values = *file_.find_bools(full);
        if (values.size() != n_layer) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", full, " must have a value for each of ", n_layer, " layers");
        }
        return values;
    }
    const int32_t period = optional_integer(key, 1, 4096).value_or(otherwise);
    std::vector<bool> windowed;
    for (int32_t l = 0; l < shape.n_layer; ++l) windowed.push_back((l + 1) % period != 0);
    return windowed;
}

RopeSpec Reader::unscaled_rope(const Shape & shape, bool halves, double base) const {
    RopeSpec rope;
    rope.halves = halves;
    rope.head_dim = shape.head_dim;
    // llama.cpp refuses parts of heads for "llama" as well.
    const int32_t least = architecture_ == "llama" || architecture_ == "mistral3" ? shape.head_dim : 2;
    const int32_t n_rot = optional_integer("rope.dimension_count", least, shape.head_dim).value_or(shape.head_dim);
    if (n_rot % 2 != 0) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", architecture_, ".rope.dimension_count is odd (", n_rot, ")");
    }
    for (int32_t i = 0; i < n_rot / 2; ++i) rope.inverse_frequency.push_back(std::pow(base, -2.0 * i / n_rot));
    return rope;
}

// The factors of longrope are enough: llama.cpp takes them whatever the key says, and its converter of Phi-3 writes
// none.
std::string Reader::scaling() const {
    if (has_tensor("rope_factors_short.weight")) return "longrope";
    return file_.find_string(architecture_ + ".rope.scaling.type").value_or("linear");
}

int32_t Reader::original_context() const {
    constexpr int64_t largest = std::numeric_limits<int32_t>::max();
    const auto said = optional_integer("rope.scaling.original_context_length", 1, largest);
    return said ? *said : integer("context_length", 1, largest);
}

RopeSpec Reader::rope(const Shape & shape, bool halves) const {
    const double base = positive("rope.freq_base", 10000.0);
    RopeSpec rope = unscaled_rope(shape, halves, base);
    const auto n_rot = static_cast<int32_t>(2 * rope.inverse_frequency.size());
    // As llama.cpp reads it: a factor without a type is linear, the factor's older name counts where the newer one is
    // not there, and 0 is no factor.
    const std::string scaling = this->scaling();
    if (scaling == "linear") {
        const double factor = number("rope.scaling.factor", number("rope.scale_linear", 0));
        if (!(factor >= 0) || !std::isfinite(factor)) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", architecture_, ".rope.scaling.factor is ", factor,
                 "; it must be positive");
        }
        if (factor > 0) {
            for (double & one : rope.inverse_frequency) one /= factor;
        }
    } else if (scaling == "yarn") {
        yarn(rope, n_rot, base);
    } else if (scaling == "longrope") {
        longrope(rope, n_rot);
    } else if (scaling != "none") {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": RoPE scaling '", scaling,
             "' is not supported (none, linear, yarn, longrope and rope_freqs are)");
    }
    const std::vector<float> factors = this->factors("rope_freqs.weight", n_rot / 2);
    for (size_t i = 0; i < factors.size(); ++i) rope.inverse_frequency[i] /= factors[i];
    return rope;
}

// Frequencies that turn often within the original context stay, those that turn less than once are divided by the
// factor, and between the two there is a ramp (Peng et al. 2023, equations 18 to 23).
void Reader::yarn(RopeSpec & rope, int32_t n_rot, double base) const {
    const double factor = positive("rope.scaling.factor", 1.0);
    const int32_t original = original_context();
    // The pair that makes so many turns.
    const auto pair_of = [&](double turns) {
        constexpr double two_pi = 6.283185307179586;
        return n_rot * std::log(original / (turns * two_pi)) / (2 * std::log(base));
    };
    const double low = std::max(0.0, std::floor(pair_of(positive("rope.scaling.yarn_beta_fast", 32.0))));
    const double high = std::min(n_rot - 1.0, std::ceil(pair_of(positive("rope.scaling.yarn_beta_slow", 1.0))));
    for (size_t i = 0; i < rope.inverse_frequency.size(); ++i) {
        const double ramp = (static_cast<double>(i) - low) / std::max(0.001, high - low);
        const double divided = std::clamp(ramp, 0.0, 1.0);
        rope.inverse_frequency[i] *= divided / factor + (1 - divided);
    }
    // Section 3.4. A log multiplier is DeepSeek's mscale_all_dim, by which the factor is divided again.
    const double logarithm = 0.1 * std::log(std::max(1.0, factor));
    rope.magnitude = positive("rope.scaling.attn_factor", 1.0) * (1 + logarithm) /
                     (1 + logarithm * optional_positive("rope.scaling.yarn_log_multiplier"));
}

void Reader::longrope(RopeSpec & rope, int32_t n_rot) const {
    if (file_.tensors().empty()) return;  // metadata alone, from which nobody computes
    const std::vector<float> near = factors("rope_factors_short.weight", n_rot / 2);
    const std::vector<float> far = factors("rope_factors_long.weight", n_rot / 2);
    if (near.empty() || far.empty()) {
        fail(LORICA_ERROR_FORMAT, file_.path(),
             ": longrope needs the tensors rope_factors_short.weight and rope_factors_long.weight");
    }
    rope.original_context = original_context();
    rope.long_inverse_frequency = rope.inverse_frequency;
    for (size_t i = 0; i < rope.inverse_frequency.size(); ++i) {
        rope.inverse_frequency[i] /= near[i];
        rope.long_inverse_frequency[i] /= far[i];
    }
    rope.magnitude = positive("rope.scaling.attn_factor", 1.0);
}

}  // namespace lorica
