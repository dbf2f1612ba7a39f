#include "write/tensor_types.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "common/error.h"
#include "common/quote.h"
#include "gguf/dequantize.h"

namespace lorica {

namespace {

std::string upper(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
    return text;
}

// llama.h's llama_ftype of files of a single type.
std::optional<uint32_t> plain_file_type(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: return 0;
        case GGML_TYPE_F16: return 1;
        case GGML_TYPE_Q4_0: return 2;
        case GGML_TYPE_Q4_1: return 3;
        case GGML_TYPE_Q8_0: return 7;
        case GGML_TYPE_Q5_0: return 8;
        case GGML_TYPE_Q5_1: return 9;
        case GGML_TYPE_Q6_K: return 18;
        case GGML_TYPE_IQ4_NL: return 25;
        case GGML_TYPE_IQ3_S: return 26;
        case GGML_TYPE_IQ4_XS: return 30;
        case GGML_TYPE_BF16: return 32;
        case GGML_TYPE_TQ1_0: return 36;
        case GGML_TYPE_TQ2_0: return 37;
        default: return std::nullopt;
    }
}

// "blk.12.ffn_down.weight" -> 12
int64_t layer_of(const std::string & name) {
    int64_t layer = 0;
    if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
    return layer;
}

// 0: it is not there, or an array.
int64_t single(const GgufFile & model, const std::string & key) {
    for (int64_t i = 0; i < model.n_kv(); ++i) {
        if (model.key(i) == key && !model.array_length(i)) return model.find_int(key).value_or(0);
    }
    return 0;
}

// Where a row is no whole number of blocks: the next larger type with blocks of 32.
ggml_type with_smaller_blocks(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_K: return GGML_TYPE_Q5_0;
        case GGML_TYPE_Q5_K: return GGML_TYPE_Q5_1;
        case GGML_TYPE_Q6_K: return GGML_TYPE_Q8_0;
        case GGML_TYPE_TQ1_0:
        case GGML_TYPE_TQ2_0: return GGML_TYPE_Q4_0;
        default: return GGML_TYPE_IQ4_NL;  // Q2_K, Q3_K, IQ*
    }
}

}  // namespace

TensorTypes::TensorTypes(const std::string & name, const GgufFile & model) {
    struct Named {
        const char * name;
        Mix mix;
        ggml_type type;
        uint32_t file_type;
    };
    static constexpr std::array<Named, 11> mixes{{
        {"Q2_K", Mix::q2_k, GGML_TYPE_Q2_K, 10},
        {"Q3_K_S", Mix::q3_k_s, GGML_TYPE_Q3_K, 11},
        {"Q3_K_M", Mix::q3_k_m, GGML_TYPE_Q3_K, 12},
        {"Q3_K_L", Mix::q3_k_l, GGML_TYPE_Q3_K, 13},
        {"Q4_K_S", Mix::q4_k_s, GGML_TYPE_Q4_K, 14},
        {"Q4_K_M", Mix::q4_k_m, GGML_TYPE_Q4_K, 15},
        {"Q5_K_S", Mix::q5_k_s, GGML_TYPE_Q5_K, 16},
        {"Q5_K_M", Mix::q5_k_m, GGML_TYPE_Q5_K, 17},
        {"Q3_K", Mix::q3_k_m, GGML_TYPE_Q3_K, 12},
        {"Q4_K", Mix::q4_k_m, GGML_TYPE_Q4_K, 15},
        {"Q5_K", Mix::q5_k_m, GGML_TYPE_Q5_K, 17},
    }};
    const std::string wanted = upper(name);
    for (const Named & mix : mixes) {
        if (wanted == mix.name) {
            mix_ = mix.mix;
            type_ = mix.type;
            file_type_ = mix.file_type;
        }
    }
    for (int i = 0; i < GGML_TYPE_COUNT && type_ == GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        const bool writable = type == GGML_TYPE_F32 ||
                              (ggml_get_type_traits(type)->from_float_ref && is_supported_weight_type(type)) ||
                              ggml_quantize_requires_imatrix(type);
        if (writable && wanted == type_name(type)) {
            type_ = type;
            file_type_ = plain_file_type(type);
            if (type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_IQ4_XS) mix_ = Mix::iq4;
        }
    }
    if (type_ == GGML_TYPE_COUNT) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "type ", quoted(name),
             " does not exist; there are F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, ",
             "Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, IQ4_NL, IQ4_XS, IQ3_S, MXFP4, …");
    }
    if (ggml_quantize_requires_imatrix(type_)) {
        fail(LORICA_ERROR_UNSUPPORTED, "type ", type_name(type_),
             " needs an importance matrix, which is not supported; IQ4_XS, Q3_K_M or ", "Q2_K do without");
    }

    const std::string architecture = model.find_string("general.architecture").value_or("");
    n_layer_ = model.find_int(architecture + ".block_count").value_or(0);
    tied_output_ = model.find_tensor("output.weight") == nullptr;
    // Read leniently: they steer choices only, and some architectures give a value per layer.
    const TensorView * q = model.find_tensor("blk.0.attn_q.weight");
    const TensorView * k = model.find_tensor("blk.0.attn_k.weight");
    if (q && k) n_gqa_ = std::max<int64_t>(q->ne[1] / k->ne[1], 1);
    if (model.find_tensor("blk.0.attn_qkv.weight")) {
        const int64_t heads = single(model, architecture + ".attention.head_count");
        const int64_t kv_heads = single(model, architecture + ".attention.head_count_kv");
        if (heads > 0 && kv_heads > 0) n_gqa_ = std::max<int64_t>(heads / kv_heads, 1);
    }
    is_falcon_ = architecture == "falcon";
    is_70b_ = (architecture == "llama" || architecture == "qwen2") && n_layer_ == 80 && n_gqa_ > 1;
}

ggml_type TensorTypes::of(const TensorView & tensor) const {
    ggml_type type = wanted(tensor.name, tensor.ne[0]);
    if (tensor.ne[0] % ggml_blck_size(type) != 0) type = with_smaller_blocks(type);
    return tensor.ne[0] % ggml_blck_size(type) == 0 ? type : GGML_TYPE_F16;
}

ggml_type TensorTypes::wanted(const std::string & name, int64_t n_per_row) const {
    if (!is_quantized()) return type_;
    if (name == "output.weight" || (tied_output_ && name == "token_embd.weight")) {
        if (is_falcon_ || n_per_row % ggml_blck_size(type_) != 0) return GGML_TYPE_Q8_0;
        return type_ == GGML_TYPE_Q8_0 ? type_ : GGML_TYPE_Q6_K;
    }
    const int64_t layer = layer_of(name), n = n_layer_;
    // The first and the last eighth of the layers, and every third between.
    const bool more_bits = layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;

    if (name.ends_with("attn_v.weight") || name.ends_with("attn_qkv.weight")) {
        ggml_type type = type_;
        switch (mix_) {
            case Mix::q2_k: type = n_gqa_ >= 4 ? GGML_TYPE_Q4_K : GGML_TYPE_Q3_K; break;
            case Mix::q3_k_m: type = layer < 2 ? GGML_TYPE_Q5_K : GGML_TYPE_Q4_K; break;
            case Mix::q3_k_l: type = GGML_TYPE_Q5_K; break;
            case Mix::q4_k_s: type = layer < 4 ? GGML_TYPE_Q5_K : type_; break;
            case Mix::q4_k_m:
            case Mix::q5_k_m: type = more_bits ? GGML_TYPE_Q6_K : type_; break;
            case Mix::iq4: type = n_gqa_ >= 4 ? GGML_TYPE_Q5_K : type_; break;
            default: break;
        }
        // Eight heads share one V there: more bits cost next to nothing.
        return is_70b_ && (type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q4_K) ? GGML_TYPE_Q5_K : type;
    }
    if (name.ends_with("ffn_down.weight")) {
        switch (mix_) {
            case Mix::q2_k: return GGML_TYPE_Q3_K;
            case Mix::q3_k_m:
                if (layer < n / 16) return GGML_TYPE_Q5_K;
                return is_falcon_ && !more_bits ? GGML_TYPE_Q3_K : GGML_TYPE_Q4_K;
            case Mix::q3_k_l: return is_falcon_ ? GGML_TYPE_Q4_K : GGML_TYPE_Q5_K;
            case Mix::q4_k_s: return layer < n / 8 && !is_falcon_ ? GGML_TYPE_Q5_K : type_;
            case Mix::q4_k_m:
                if (is_falcon_) return layer < n / 16 ? GGML_TYPE_Q6_K : more_bits ? GGML_TYPE_Q5_K : type_;
                return more_bits ? GGML_TYPE_Q6_K : type_;
            case Mix::q5_k_m: return more_bits ? GGML_TYPE_Q6_K : type_;
            case Mix::iq4: return layer < n / 8 ? GGML_TYPE_Q5_K : type_;
            default: return type_;
        }
    }
    if (name.ends_with("attn_output.weight")) {
        if (is_falcon_) return mix_ == Mix::q3_k_l ? GGML_TYPE_Q4_K : type_;
        switch (mix_) {
            case Mix::q2_k: return GGML_TYPE_Q3_K;
            case Mix::q3_k_m: return GGML_TYPE_Q4_K;
            case Mix::q3_k_l: return GGML_TYPE_Q5_K;
            default: return type_;
        }
    }
    return type_;
}

}  // namespace lorica
