#include "support/test_model.h"

#include "common/random.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "model/arch/architectures.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <list>
#include <stdexcept>

namespace lorica::test {

namespace {

// llama.cpp's token types.
constexpr int32_t token_normal = 1, token_unknown = 2, token_control = 3, token_byte = 6;

// A SentencePiece-style vocabulary: <unk> <s> </s>, the 256 bytes, then short words; a small n_vocab cuts it short.
void set_tokenizer(GgufWriter & writer, int32_t n_vocab) {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
    std::vector<int32_t> types = {token_unknown, token_control, token_control};
    for (int byte = 0; byte < 256; ++byte) {
        char text[8];
        std::snprintf(text, sizeof(text), "<0x%02X>", byte);
        tokens.emplace_back(text);
        types.push_back(token_byte);
    }
    for (int32_t i = 259; i < n_vocab; ++i) {
        // ▁a, ▁b, …, ▁aa, ▁ba, …: bijective base 26
        std::string word = "\xe2\x96\x81";
        for (int32_t rest = i - 258; rest > 0; rest = (rest - 1) / 26) {
            word += static_cast<char>('a' + (rest - 1) % 26);
        }
        tokens.push_back(word);
        types.push_back(token_normal);
    }
    tokens.resize(static_cast<size_t>(n_vocab));
    types.resize(static_cast<size_t>(n_vocab));
    std::vector<float> scores;
    for (int32_t i = 0; i < n_vocab; ++i) {
        scores.push_back(static_cast<float>(-i));
    }
    writer.set_string("tokenizer.ggml.model", "llama");
    writer.set_strings("tokenizer.ggml.tokens", tokens);
    writer.set_f32s("tokenizer.ggml.scores", scores);
    writer.set_i32s("tokenizer.ggml.token_type", types);
    writer.set_u32("tokenizer.ggml.bos_token_id", 1);
    writer.set_u32("tokenizer.ggml.eos_token_id", 2);
    writer.set_u32("tokenizer.ggml.unknown_token_id", 0);
    writer.set_bool("tokenizer.ggml.add_bos_token", true);
    writer.set_bool("tokenizer.ggml.add_eos_token", false);
}

class ModelWriter {
public:
    explicit ModelWriter(const TestModel & model) : model_(model) {}

    GgufWriter & gguf() { return writer_; }

    // W[out, in]
    void add_linear(const std::string & name, ggml_type type, int64_t in, int64_t out) {
        const float deviation = model_.weight_scale / std::sqrt(static_cast<float>(in));
        const auto & data = kept_.emplace_back(random_blocks(type, out, in, deviation, model_.seed, stream_++));
        writer_.add_tensor(name, type, {in, out}, data.data());
    }

    void add_norm(const std::string & name, int64_t n) {
        std::vector<float> values = random_values(model_.seed, stream_++, n);
        for (float & value : values) {
            value = 1.0f + 0.1f * value;
        }
        add(name, GGML_TYPE_F32, n, 0, values);
    }

    void add_bias(const std::string & name, int64_t n) {
        std::vector<float> values = random_values(model_.seed, stream_++, n);
        for (float & value : values) {
            value *= 0.1f;
        }
        add(name, GGML_TYPE_F32, n, 0, values);
    }

    // n_rows 0: one dimension
    void add(const std::string & name, ggml_type type, int64_t n_per_row, int64_t n_rows,
             const std::vector<float> & values) {
        const auto & data = kept_.emplace_back(quantize(type, values, n_per_row));
        if (n_rows == 0) {
            writer_.add_tensor(name, type, {n_per_row}, data.data());
        } else {
            writer_.add_tensor(name, type, {n_per_row, n_rows}, data.data());
        }
    }

private:
    const TestModel & model_;
    GgufWriter writer_;
    std::list<std::vector<std::byte>> kept_;
    uint64_t stream_ = 0;
};

bool has_grid_to_search(ggml_type type) {
    return type == GGML_TYPE_IQ2_XXS || type == GGML_TYPE_IQ2_XS || type == GGML_TYPE_IQ2_S ||
           type == GGML_TYPE_IQ1_S || type == GGML_TYPE_IQ1_M;
}

// Of the types above: the scale of a block is an f16 in its first two bytes or, in IQ1_M, in the upper four bits of
// each of its last four 16-bit words.
void set_scale(ggml_type type, std::byte * block, float scale) {
    const ggml_fp16_t half = ggml_fp32_to_fp16(scale);
    if (type != GGML_TYPE_IQ1_M) {
        std::memcpy(block, &half, sizeof(half));
        return;
    }
    for (size_t i = 0; i < 4; ++i) {
        std::byte & upper = block[ggml_type_size(type) - 8 + 2 * i + 1];
        upper = (upper & std::byte{0x0f}) | static_cast<std::byte>((half >> (4 * i) & 15) << 4);
    }
}

}  // namespace

std::vector<float> random_values(uint64_t seed, uint64_t stream, int64_t n) {
    const uint64_t own = derive_seed(seed, stream);
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(random_normal(own, i));
    }
    return values;
}

std::vector<std::byte> quantize(ggml_type type, std::span<const float> values, int64_t n_per_row) {
    const auto n = static_cast<int64_t>(values.size());
    if (n_per_row % ggml_blck_size(type) != 0 || n % n_per_row != 0) {
        throw std::invalid_argument(std::string("rows of ") + std::to_string(n_per_row) + " are no whole number of " +
                                    type_name(type) + " blocks");
    }
    const std::vector<float> importance(static_cast<size_t>(n_per_row), 1.0f);
    std::vector<std::byte> blocks(ggml_row_size(type, n_per_row) * static_cast<size_t>(n / n_per_row));
    const size_t written = ggml_quantize_chunk(type, values.data(), blocks.data(), 0, n / n_per_row, n_per_row,
                                               ggml_quantize_requires_imatrix(type) ? importance.data() : nullptr);
    if (written != blocks.size()) {
        throw std::logic_error(std::string("ggml wrote another number of bytes for ") + type_name(type));
    }
    return blocks;
}

std::vector<std::byte> random_blocks(ggml_type type, int64_t n_rows, int64_t n_per_row, float deviation, uint64_t seed,
                                     uint64_t stream) {
    if (!has_grid_to_search(type)) {
        std::vector<float> values = random_values(seed, stream, n_rows * n_per_row);
        for (float & value : values) {
            value *= deviation;
        }
        return quantize(type, values, n_per_row);
    }
    // But for the scale, any bits are a valid block.
    const uint64_t own = derive_seed(seed, stream);
    std::vector<std::byte> blocks(ggml_row_size(type, n_per_row) * static_cast<size_t>(n_rows));
    for (size_t i = 0; i < blocks.size(); ++i) {
        blocks[i] = static_cast<std::byte>(random_u32(own, i));
    }
    const auto set_scales = [&](float scale) {
        for (size_t i = 0; i < blocks.size(); i += ggml_type_size(type)) {
            set_scale(type, &blocks[i], scale);
        }
    };
    set_scales(1);
    std::vector<float> values(static_cast<size_t>(n_rows * n_per_row));
    dequantize_row(type, blocks.data(), values.data(), n_rows * n_per_row);
    double squares = 0;
    for (const float value : values) {
        squares += double{value} * value;
    }
    set_scales(deviation / static_cast<float>(std::sqrt(squares / static_cast<double>(values.size()))));
    return blocks;
}

std::vector<ggml_type> all_weight_types() {
    std::vector<ggml_type> types;
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (is_supported_weight_type(type)) {
            types.push_back(type);
        }
    }
    return types;
}

std::string write_test_model(const std::string & path, const TestModel & model) {
    ModelWriter writer(model);
    GgufWriter & gguf = writer.gguf();
    const auto key = [&](const std::string & name) { return model.architecture + "." + name; };
    const auto u32 = [&](const std::string & name, int64_t value) {
        gguf.set_u32(key(name), static_cast<uint32_t>(value));
    };

    const int64_t head_dim = model.head_dim != 0 ? model.head_dim : model.n_embd / model.n_head;
    gguf.set_string("general.architecture", model.architecture);
    gguf.set_string("general.name", "test model");
    gguf.set_u32("general.quantization_version", GGML_QNT_VERSION);
    u32("vocab_size", model.n_vocab);
    u32("context_length", model.n_ctx);
    u32("embedding_length", model.n_embd);
    u32("block_count", model.n_layer);
    u32("feed_forward_length", model.n_ff);
    u32("attention.head_count", model.n_head);
    u32("attention.head_count_kv", model.n_head_kv);
    u32("rope.dimension_count", head_dim);
    if (head_dim * model.n_head != model.n_embd) {
        u32("attention.key_length", head_dim);
        u32("attention.value_length", head_dim);
    }
    gguf.set_f32(key("attention.layer_norm_rms_epsilon"), model.rms_eps);
    gguf.set_f32(key("rope.freq_base"), model.rope_freq_base);
    if (!model.rope_scaling_type.empty()) {
        gguf.set_string(key("rope.scaling.type"), model.rope_scaling_type);
        gguf.set_f32(key("rope.scaling.factor"), model.rope_scaling_factor);
    }
    if (model.add_metadata) model.add_metadata(gguf);
    set_tokenizer(gguf, model.n_vocab);

    // A file of metadata alone is enough for a description.
    gguf.write(path);
    const std::vector<TensorSpec> tensors = tensors_of(describe(GgufFile::open(path)));
    for (const TensorSpec & tensor : tensors) {
        switch (tensor.kind) {
            case TensorSpec::embedding:
                writer.add_linear(tensor.gguf, model.embd_type.value_or(model.type), tensor.cols, tensor.rows);
                break;
            case TensorSpec::linear: writer.add_linear(tensor.gguf, model.type, tensor.cols, tensor.rows); break;
            case TensorSpec::norm: writer.add_norm(tensor.gguf, tensor.rows); break;
            case TensorSpec::bias: writer.add_bias(tensor.gguf, tensor.rows); break;
            case TensorSpec::head:
                if (model.tied_output && tensor.is_optional) break;
                writer.add_linear(tensor.gguf, model.output_type.value_or(model.type), tensor.cols, tensor.rows);
                break;
            case TensorSpec::classifier: break;  // not of tensors_of
        }
        if (model.rope_freqs && tensor.kind == TensorSpec::embedding && tensor.number == 0) {
            std::vector<float> factors;
            for (int64_t i = 0; i < head_dim / 2; ++i) {
                factors.push_back(1.0f + 7.0f * static_cast<float>(i) /
                                             static_cast<float>(std::max<int64_t>(head_dim / 2 - 1, 1)));
            }
            writer.add("rope_freqs.weight", GGML_TYPE_F32, head_dim / 2, 0, factors);
        }
    }
    gguf.write(path);
    return path;
}

}  // namespace lorica::test
