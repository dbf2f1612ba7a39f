// Hyper-parameters of the Llama architecture, read from GGUF metadata and checked against each other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"

namespace lorica {

struct LlamaConfig {
    std::string architecture;
    int32_t n_layer = 0;
    int32_t n_embd = 0;
    int32_t n_head = 0;
    int32_t n_head_kv = 0;
    int32_t head_dim = 0;
    int32_t n_ff = 0;
    int32_t n_vocab = 0;
    int32_t n_ctx_train = 0;
    double rms_eps = 1e-5;
    // Of RoPE, one per rotated pair: base^(-2i / n_rot) / factor_i, where the factors are those of rope_freqs.weight
    // (Llama 3's scaling, as llama.cpp's converter stores it) or of linear scaling.
    std::vector<double> inverse_frequency;

    int32_t q_dim() const { return n_head * head_dim; }
    int32_t kv_dim() const { return n_head_kv * head_dim; }

    // Errors: UNSUPPORTED for another architecture or a variant of Llama that the engine does not compute, FORMAT for
    // values that are missing or contradict each other.
    static LlamaConfig read(const GgufFile & file);
};

}  // namespace lorica
