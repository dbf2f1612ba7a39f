#include "model/llama_config.h"

#include <cmath>
#include <limits>

#include "common/error.h"
#include "gguf/dequantize.h"

namespace lorica {

namespace {

class Reader {
public:
    explicit Reader(const GgufFile & file) : file_(file) {}

    std::string prefix;

    int32_t integer(const std::string & key, int64_t min, int64_t max) const {
        const auto value = optional_integer(key, min, max);
        if (!value) fail(LORICA_ERROR_FORMAT, file_.path(), ": metadata key ", prefix, key, " is missing");
        return *value;
    }

    std::optional<int32_t> optional_integer(const std::string & key, int64_t min, int64_t max) const {
        const auto value = find(prefix + key);
        if (!value) return std::nullopt;
        if (*value < min || *value > max) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", prefix, key, " is ", *value, "; it must lie between ", min,
                 " and ", max);
        }
        return static_cast<int32_t>(*value);
    }

    double positive(const std::string & key, double otherwise) const {
        const double value = file_.find_float(prefix + key).value_or(otherwise);
        if (!(value > 0) || !std::isfinite(value)) {
            fail(LORICA_ERROR_FORMAT, file_.path(), ": ", prefix, key, " is ", value, "; it must be positive");
        }
        return value;
    }

private:
    // Some files give a value per layer. Only equal ones make the one model that is computed here.
    std::optional<int64_t> find(const std::string & key) const {
        if (!is_array(key)) return file_.find_int(key);
        const auto values = file_.find_ints(key);
        if (values->empty()) fail(LORICA_ERROR_FORMAT, file_.path(), ": ", key, " is an empty array");
        for (const int64_t value : *values) {
            if (value != values->front()) {
                fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": ", key,
                     " differs between layers, which is not supported");
            }
        }
        return values->front();
    }

    bool is_array(const std::string & key) const {
        for (int64_t i = 0; i < file_.n_kv(); ++i) {
            if (file_.key(i) == key) return file_.array_length(i).has_value();
        }
        return false;
    }

    const GgufFile & file_;
};

void read_rope(const GgufFile & file, const Reader & reader, LlamaConfig & config) {
    const int32_t n_rot = reader.optional_integer("rope.dimension_count", 0, config.head_dim).value_or(config.head_dim);
    if (n_rot % 2 != 0)
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", reader.prefix, "rope.dimension_count is odd (", n_rot, ")");
    const double base = reader.positive("rope.freq_base", 10000.0);

    double linear_factor = 1;
    const std::string scaling = file.find_string(reader.prefix + "rope.scaling.type").value_or("none");
    if (scaling == "linear") {
        linear_factor = reader.positive("rope.scaling.factor", 1.0);
    } else if (scaling != "none") {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": RoPE scaling '", scaling,
             "' is not supported (none, linear and rope_freqs are)");
    }

    config.inverse_frequency.resize(static_cast<size_t>(n_rot / 2));
    for (int32_t i = 0; i < n_rot / 2; ++i) {
        config.inverse_frequency[static_cast<size_t>(i)] = std::pow(base, -2.0 * i / n_rot) / linear_factor;
    }

    const TensorView * factors = file.find_tensor("rope_freqs.weight");
    if (!factors) return;
    if (factors->type != GGML_TYPE_F32 || factors->n_elements() != n_rot / 2) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": rope_freqs.weight must be F32 with ", n_rot / 2, " elements");
    }
    std::vector<float> values(static_cast<size_t>(n_rot / 2));
    dequantize_row(GGML_TYPE_F32, factors->data, values.data(), n_rot / 2);
    for (size_t i = 0; i < values.size(); ++i) {
        if (!(values[i] > 0) || !std::isfinite(values[i])) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": rope_freqs.weight[", i, "] is ", values[i],
                 "; it must be positive");
        }
        config.inverse_frequency[i] /= values[i];
    }
}

}  // namespace

LlamaConfig LlamaConfig::read(const GgufFile & file) {
    LlamaConfig config;
    const auto architecture = file.find_string("general.architecture");
    if (!architecture) fail(LORICA_ERROR_FORMAT, file.path(), ": metadata key general.architecture is missing");
    if (file.find_string("general.type").value_or("model") == "adapter") {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), " is an adapter, not a model; give the base model here");
    }
    config.architecture = *architecture;
    if (config.architecture != "llama") {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": architecture '", config.architecture,
             "' is not supported (llama is)");
    }

    Reader reader(file);
    reader.prefix = config.architecture + ".";
    constexpr int32_t large = 1 << 20;
    config.n_layer = reader.integer("block_count", 1, 4096);
    config.n_embd = reader.integer("embedding_length", 1, large);
    config.n_head = reader.integer("attention.head_count", 1, 4096);
    config.n_head_kv = reader.optional_integer("attention.head_count_kv", 1, 4096).value_or(config.n_head);
    config.n_ff = reader.integer("feed_forward_length", 1, large);
    config.n_ctx_train = reader.integer("context_length", 1, std::numeric_limits<int32_t>::max());
    config.rms_eps = reader.positive("attention.layer_norm_rms_epsilon", 1e-5);

    if (reader.optional_integer("expert_count", 0, 4096).value_or(0) > 0) {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": mixture-of-experts models are not supported");
    }
    if (config.n_head % config.n_head_kv != 0) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": attention.head_count ", config.n_head,
             " is no multiple of head_count_kv ", config.n_head_kv);
    }
    const auto key_length = reader.optional_integer("attention.key_length", 1, 4096);
    if (!key_length && config.n_embd % config.n_head != 0) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": embedding_length ", config.n_embd, " is no multiple of head_count ",
             config.n_head);
    }
    config.head_dim = key_length.value_or(config.n_embd / config.n_head);
    if (config.head_dim % 2 != 0) {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": attention heads of odd size ", config.head_dim,
             " are not supported");
    }
    if (reader.optional_integer("attention.value_length", 1, 4096).value_or(config.head_dim) != config.head_dim) {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": keys and values of different size are not supported");
    }

    const TensorView * embedding = file.find_tensor("token_embd.weight");
    if (!embedding)
        fail(LORICA_ERROR_FORMAT, file.path(),
             ": tensor token_embd.weight is missing; is this a vocabulary-only file?");
    if (embedding->ne[1] < 1 || embedding->ne[1] > (1 << 26)) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": token_embd.weight has ", embedding->ne[1], " rows");
    }
    config.n_vocab = static_cast<int32_t>(embedding->ne[1]);
    read_rope(file, reader, config);
    return config;
}

}  // namespace lorica
