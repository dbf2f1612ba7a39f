// The models that are measured: shapes with random weights, their matrix products and operations per token, and the
// GGUF files made from them.
#pragma once

#include <ggml.h>
#include <lorica/lorica.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lorica::bench {

// y = x W^T and dx = dy W of one weight W[out, in], `count` times in the model.
struct LinearShape {
    std::string name;  // Hugging Face's, its last part: "q_proj"
    int64_t out, in, count;

    int64_t weights() const { return count * out * in; }
};

struct Shape {
    std::string name;
    int64_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab;
    std::string architecture = "llama";
    std::vector<LinearShape> linears;  // as its description has them, the head last

    // N of "4N operations per token": linear weights and head, not the embedding.
    int64_t n() const;
};

// mini, s135, tiny1b, llama7b, llama8b; of another architecture with about as many weights. Errors: INVALID_ARGUMENT.
Shape named_shape(const std::string & name, const std::string & architecture = "llama");
// Of the model in a file.
Shape shape_of(const std::string & name, const std::string & path);

// Operations of one step over sequences of `length` tokens, `tokens` in all.
struct StepOperations {
    double weights;          // 4N per token: forward and dx
    double recompute_layer;  // of one block, all of its products except the last once more
    double attention;        // what the causal mask leaves: two products forward, five backward
    double lora;             // forward, dx, dA, dB: 6 r (in + out) per pair and token
};
StepOperations step_operations(const Shape & shape, int64_t tokens, int64_t length, int64_t rank,
                               const std::vector<std::string> & targets);

// Any spelling of ggml's: q4_0, Q4_K, bf16. Errors: INVALID_ARGUMENT.
ggml_type parse_type(const std::string & name);

// Random values N(0, deviation^2) (approximately: sums of four uniform ones), as blocks of `type`.
std::vector<std::byte> random_blocks(ggml_type type, int64_t n_rows, int64_t n_per_row, float deviation, uint64_t seed);

// Path of the file of this shape and type in `folder`, written if it is not there.
std::string cached_model(const std::string & folder, const Shape & shape, ggml_type type);
std::string default_cache_folder();

// Questions and answers to tokenize: prompt, response, prompt, response, … Errors: IO.
std::vector<std::string> example_texts();

}  // namespace lorica::bench
