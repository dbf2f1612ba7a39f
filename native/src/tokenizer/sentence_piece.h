// SentencePiece-style BPE: characters are merged into the piece of the best score; what is no piece is spelled in
// bytes.
#pragma once

#include "gguf/gguf_file.h"
#include "tokenizer/merge_queue.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_cache.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorica {

class SentencePiece {
public:
    // What one thread keeps from text to text.
    struct Session {
        MergeQueue queue;
        WordCache cache;
        std::vector<size_t> starts;  // of the symbols, in bytes
    };

    // Errors: FORMAT (a byte token that names no byte).
    SentencePiece(const GgufFile & file, const Vocabulary & vocabulary);

    // Appends the ids of `text`, valid UTF-8 without special tokens. begins_text: a space may be put before it.
    void encode(std::string_view text, bool begins_text, Session & session, std::vector<int32_t> & ids) const;

    // The bytes behind a token's spelling.
    static std::string decode(const Token & token);

private:
    int32_t find_piece(std::string_view text) const;
    void encode_word(std::string_view word, Session & session, std::vector<int32_t> & ids) const;

    const Vocabulary & vocabulary_;
    std::array<int32_t, 256> byte_ids_;  // -1: no token
    bool words_are_independent_ = true;  // no piece reaches from one word into the next
};

}  // namespace lorica
