// The metadata of a model file, typed and checked, as the architecture files ask for it.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "model/program.h"

namespace lorica {

// Keys are named without the architecture in front of them. Errors: FORMAT for values that are missing or contradict
// each other, UNSUPPORTED for what no description here computes.
class Reader {
public:
    explicit Reader(const GgufFile & file);

    const std::string & architecture() const { return architecture_; }
    const GgufFile & file() const { return file_; }

    int32_t integer(const std::string & key, int64_t min, int64_t max) const;
    std::optional<int32_t> optional_integer(const std::string & key, int64_t min, int64_t max) const;
    // A value per layer where the file has an array of them.
    std::vector<int32_t> integers(const std::string & key, int32_t n_layer, int64_t min, int64_t max) const;
    double positive(const std::string & key, double otherwise) const;
    double number(const std::string & key, double otherwise) const;
    bool has(const std::string & key) const;
    bool boolean(const std::string & key, bool otherwise) const;
    double optional_positive(const std::string & key) const;  // 0: not there
    // A tensor of the file or, where there is metadata alone, one that its array lorica.tensors names.
    bool has_tensor(const std::string & name) const;
    bool lists_tensors() const;
    // Rows of token_types.weight or, where there is metadata alone, what it says of them.
    int32_t n_token_types() const;
    // A tensor beside the weights: F32 with n positive elements; empty where there is none.
    std::vector<float> factors(const std::string & tensor, int64_t n) const;

    // What all decoders have. The vocabulary is as large as the embedding or, in a file without tensors, as vocab_size.
    Shape shape() const;
    // base^(-2i / n_rot) / factor_i by the keys and the tensor rope_freqs.weight, where n_rot is rope.dimension_count
    // or head_dim. Scaling: none; linear; Llama 3's, which converters store in rope_freqs.weight; yarn (Peng et al.
    // 2023, section 3); longrope (Ding et al. 2024), whose factors are tensors.
    RopeSpec rope(const Shape & shape, bool halves) const;
    int32_t original_context() const;  // that scaling starts from
    RopeSpec unscaled_rope(const Shape & shape, bool halves, double base) const;
    // Causal, of the number of keys that the key gives; 0 or not there: all.
    MaskSpec window(const std::string & key, int32_t otherwise = 0) const;
    // Which layers see a window alone: an array of the file's; or all except every n-th, where the key gives n.
    std::vector<bool> pattern(const Shape & shape, const std::string & key, int32_t otherwise) const;
    void refuse_experts() const;
    // Refuses keys that change what other programs compute and that no description here obeys, and warns of keys that
    // are neither among those that all architectures share nor among `own`.
    void check_keys(std::initializer_list<std::string_view> own = {}) const;

private:
    std::string scaling() const;
    void yarn(RopeSpec & rope, int32_t n_rot, double base) const;
    void longrope(RopeSpec & rope, int32_t n_rot) const;
    std::optional<int64_t> find(const std::string & key) const;
    bool is_array(const std::string & key) const;
    void check_vocabulary(int32_t n_rows) const;
    void only(const std::string & key, double value, double otherwise) const;

    const GgufFile & file_;
    std::string architecture_;
};

}  // namespace lorica
