// Small models with random weights, written as GGUF files: what the tests of the engine run on. Which tensors a model
// has is what its description says.
//
//     TempDir dir;
//     TestModel shape;
//     shape.type = GGML_TYPE_Q4_0;
//     const std::string path = write_test_model(dir / "model.gguf", shape);
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gguf/gguf_writer.h"

namespace lorica::test {

struct TestModel {
    std::string architecture = "llama";
    std::function<void(GgufWriter &)> add_metadata;  // keys that this architecture needs beside those below

    int32_t n_layer = 2;
    int32_t n_embd = 64;  // the quantized types need rows of whole blocks: 32 elements, 256 for K, IQ and TQ types
    int32_t n_head = 4;
    int32_t n_head_kv = 2;
    int32_t n_ff = 96;
    int32_t n_vocab = 300;  // 3 specials, 256 bytes, the rest words
    int32_t n_ctx = 512;
    bool tied_output = false;

    ggml_type type = GGML_TYPE_F32;        // of the linear weights of each layer
    std::optional<ggml_type> embd_type;    // of token_embd; `type` when absent
    std::optional<ggml_type> output_type;  // of output; `type` when absent

    int32_t head_dim = 0;  // 0: n_embd / n_head; written as attention.key_length and value_length when it differs
    float rope_freq_base = 10000.0f;
    float rms_eps = 1e-5f;
    bool rope_freqs = false;        // rope_freqs.weight, the per-frequency divisors of Llama 3.1, from 1 to 8
    std::string rope_scaling_type;  // "linear", "none", …; "": no rope.scaling keys
    float rope_scaling_factor = 1.0f;

    // Weights are N(0, weight_scale^2 / in), so activations keep their size; norm weights 1 + N(0, 0.1^2).
    float weight_scale = 1.0f;
    uint64_t seed = 1;  // the same seed gives the same file
};

// Returns `path`.
std::string write_test_model(const std::string & path, const TestModel & model);

// The values of N(0, 1) that `seed` and `stream` name.
std::vector<float> random_values(uint64_t seed, uint64_t stream, int64_t n);

// Rows of n_per_row values in blocks of `type`; types that want an importance matrix get a uniform one. F32, F16 and
// BF16 work as well.
std::vector<std::byte> quantize(ggml_type type, std::span<const float> values, int64_t n_per_row);

// A matrix of n_rows by n_per_row random values N(0, deviation^2), quantized; in the types whose quantization ggml
// prepares for many seconds, valid random blocks whose values are as large.
std::vector<std::byte> random_blocks(ggml_type type, int64_t n_rows, int64_t n_per_row, float deviation, uint64_t seed,
                                     uint64_t stream);

// Every type that ggml can both write and read, F32 first.
std::vector<ggml_type> all_weight_types();

}  // namespace lorica::test
