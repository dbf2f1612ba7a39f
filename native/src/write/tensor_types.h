// Which type each tensor of a model gets when the whole file is to be of one type. The choices of the mixes are those
// of llama.cpp (src/llama-quant.cpp), so that a file is as large, and as good, as people know a file of that name to
// be.
#pragma once

#include <ggml.h>

#include <optional>
#include <string>

#include "gguf/gguf_file.h"

namespace lorica {

class TensorTypes {
public:
    // "F16", "Q8_0", "Q4_K_M", in any case. Errors: INVALID_ARGUMENT naming those that exist; UNSUPPORTED for a type
    // that ggml writes only with an importance matrix.
    TensorTypes(const std::string & name, const GgufFile & model);

    // Of the weight called `name` with rows of n_per_row elements. Vectors are not asked for: they stay as they are.
    ggml_type of(const TensorView & tensor) const;

    // general.file_type, llama.cpp's number for the whole; nullopt where it has none.
    std::optional<uint32_t> file_type() const { return file_type_; }
    bool is_quantized() const { return ggml_is_quantized(type_); }

private:
    enum class Mix { none, q2_k, q3_k_s, q3_k_m, q3_k_l, q4_k_s, q4_k_m, q5_k_s, q5_k_m, iq4 };

    ggml_type wanted(const std::string & name, int64_t n_per_row) const;

    ggml_type type_ = GGML_TYPE_COUNT;
    Mix mix_ = Mix::none;
    std::optional<uint32_t> file_type_;
    int64_t n_layer_ = 0, n_gqa_ = 1;
    bool tied_output_ = false, is_70b_ = false, is_falcon_ = false;
};

}  // namespace lorica
