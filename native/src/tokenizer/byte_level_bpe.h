// Byte-level BPE as GPT-2 introduced it: a text is split into words, the bytes of each are merged by rank.
#pragma once

#include "gguf/gguf_file.h"
#include "tokenizer/merge_queue.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_cache.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lorica {

class ByteLevelBpe {
public:
    // What one thread keeps from text to text.
    struct Session {
        MergeQueue queue;
        WordCache cache;
    };

    // Errors: FORMAT (merges missing, or of tokens that the vocabulary does not have), UNSUPPORTED (pre-tokenizer).
    ByteLevelBpe(const GgufFile & file, const Vocabulary & vocabulary);

    // Appends the ids of `text`, valid UTF-8 without special tokens. Bytes that have no token are left out.
    void encode(std::string_view text, Session & session, std::vector<int32_t> & ids) const;

    // The bytes behind a token's spelling, in which each byte is written as a printable character. A character that
    // stands for no byte stands for itself.
    static std::string decode(std::string_view spelling);

private:
    void encode_word(std::string_view word, MergeQueue & queue, std::vector<int32_t> & ids) const;

    const Vocabulary & vocabulary_;
    PreTokenizer pre_tokenizer_;
    std::array<int32_t, 256> byte_ids_;                       // -1: no token
    std::unordered_map<uint64_t, MergeQueue::Merge> merges_;  // by left id << 32 | right id
};

}  // namespace lorica
