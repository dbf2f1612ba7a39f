// WordPiece as BERT has it: normalized words are cut greedily into the longest tokens.
#pragma once

#include "tokenizer/vocabulary.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorica {

class WordPiece {
public:
    explicit WordPiece(const Vocabulary & vocabulary);

    // Appends the ids of `text`, valid UTF-8 without special tokens.
    void encode(std::string_view text, std::vector<int32_t> & ids) const;

private:
    std::vector<std::string> split(std::string_view text) const;
    void encode_word(const std::string & word, std::vector<int32_t> & ids) const;

    const Vocabulary & vocabulary_;
    size_t longest_token_ = 0;  // in bytes
};

}  // namespace lorica
