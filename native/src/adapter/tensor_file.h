// A GGUF file of what other methods than LoRA have trained, as plain data. llama.cpp has no such adapters and stops at
// adapter.type. Whether it fits a model is not asked here.
//
// Metadata: general.type "adapter", general.architecture that of the base, adapter.type "ia3", "bitfit", "full" or
// "prompt_tuning", "p_tuning", "prefix_tuning" or "bottleneck", lorica.base_fingerprint, lorica.added_tokens: strings
// that stand behind the base's vocabulary. Tensors, F32: of IA3 <base
// tensor>.ia3_l with ne (1, out), or (in, 1) of a feed-forward module; of BitFit the biases and norms, of full
// fine-tuning all that was trained, under the base's names; of a prompt prompt_embeddings with ne (n_embd, n); of a
// bottleneck its layers, with lorica.bottleneck.placement "houlsby" or "pfeiffer" and lorica.bottleneck.non_linearity
// as AdapterHub names it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "adapter/classifier_config.h"

namespace lorica {

inline constexpr const char * added_tokens_key = "lorica.added_tokens";

struct TensorFile {
    struct Tensor {
        std::string name;
        int64_t rows = 0, cols = 0;
        std::vector<float> values;
    };
    std::string architecture, type, base_fingerprint;
    std::vector<std::string> added_tokens;
    std::string placement, non_linearity;  // of a bottleneck
    std::vector<Tensor> tensors;
    ClassifierConfig classifier;  // its tensors are among the others
};

// Whether adapter.type is one of these. Errors: IO, FORMAT.
bool is_tensor_file(const std::string & path);

// Errors: IO; FORMAT (names the key or the tensor at fault; values that are not finite).
TensorFile read_tensor_file(const std::string & path);

// Atomically. Errors: IO.
void write_tensor_file(const std::string & path, const TensorFile & file);

}  // namespace lorica
