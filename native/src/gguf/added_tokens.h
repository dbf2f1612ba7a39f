// A vocabulary that has grown.
#pragma once

#include <span>
#include <string>

#include "gguf/gguf_file.h"

namespace lorica {

// The same model with these tokens behind those that it has, as user-defined ones: each is one token wherever it stands
// in a text. Their rows of the embedding and of the head are the means of all that are there, in the same types; these
// two tensors are in memory then. Of a file without tensors the vocabulary alone grows. Errors: INVALID_ARGUMENT (no
// token, one twice or already there), UNSUPPORTED (WordPiece, a tensor of another kind by tokens, a type that needs an
// importance matrix), FORMAT.
GgufFile with_added_tokens(GgufFile file, std::span<const std::string> tokens);

}  // namespace lorica
