// Writes model files from model files: an adapter folded in, other tensor types. One tensor's rows at a time.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "adapter/adapter.h"
#include "gguf/gguf_file.h"

namespace lorica {

struct WriteConfig {
    std::optional<std::string> type;  // as lorica_write_params has it
    int32_t n_threads = 0;
};

// W + scale B A for every pair of the adapter, which may be null; IA3's factors times rows with their biases, or times
// columns; trained vectors in their places; a classifier's tensors, in f32. Errors: INVALID_ARGUMENT, UNSUPPORTED,
// NON_FINITE, IO.
void merge_model(const Model & model, const Adapter * adapter, const std::string & path, const WriteConfig & config);

// Any architecture; config.type is needed. Errors: IO, FORMAT and those above.
void quantize_model(const std::string & source, const std::string & target, const WriteConfig & config);

// The same model with these tokens behind those that it has, as user-defined ones: each is one token wherever it stands
// in a text. Their rows of the embedding and of the head are the means of all that are there, in the same types.
// Errors: INVALID_ARGUMENT (no token, one twice or already there), UNSUPPORTED (WordPiece, a tensor of another kind by
// tokens, a type that needs an importance matrix), IO, FORMAT.
void add_tokens(const std::string & source, std::span<const std::string> tokens, const std::string & target);

}  // namespace lorica
