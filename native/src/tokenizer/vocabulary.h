// The vocabulary of a GGUF file: tokens, what kind each one is, special tokens, and the rules that the file sets.
#pragma once

#include "gguf/gguf_file.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lorica {

enum class TokenizerModel {
    SENTENCEPIECE,   // "llama"
    BYTE_LEVEL_BPE,  // "gpt2"
    WORDPIECE,       // "bert"
};

// Values of tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
    UNDEFINED = 0,
    NORMAL = 1,
    UNKNOWN = 2,
    CONTROL = 3,
    USER_DEFINED = 4,
    UNUSED = 5,
    BYTE = 6,
};

struct Token {
    std::string text;  // as the file spells it, never empty
    float score = 0;
    TokenType type = TokenType::NORMAL;
    bool end_of_generation = false;
    bool strip_right = false;  // swallows the white space behind it when it is parsed out of a text

    // Left out of decoded text, and found in a text only on demand.
    bool is_hidden() const { return type == TokenType::CONTROL || type == TokenType::UNKNOWN; }
};

class Vocabulary {
public:
    // Errors: FORMAT (names key and token), UNSUPPORTED (a tokenizer that is none of TokenizerModel).
    explicit Vocabulary(const GgufFile & file);
    Vocabulary(const Vocabulary &) = delete;  // ids_ points into tokens_
    Vocabulary & operator=(const Vocabulary &) = delete;

    int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
    bool contains(int32_t id) const { return id >= 0 && id < size(); }
    const Token & operator[](int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
    int32_t find(std::string_view text) const;             // -1 when there is no such token
    int32_t find_producible(std::string_view text) const;  // the same for tokens that plain text may become

    TokenizerModel model;
    std::string model_name;
    std::string pre;  // tokenizer.ggml.pre of a byte-level BPE, "default" when the file has none, "" for other models
    std::optional<std::string> chat_template;
    int32_t bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
    bool add_bos = false, add_eos = false;
    bool add_space_prefix = false;
    bool ignore_merges = false;                   // a word that is a token becomes it, merges or not
    bool lowercase = true, strip_accents = true;  // WordPiece's normalization

private:
    void load_tokens(const GgufFile & file);
    void load_special_ids(const GgufFile & file);
    void mark_end_of_generation(const GgufFile & file);
    void load_rules(const GgufFile & file);
    void mark_stripping(const GgufFile & file);
    std::optional<int32_t> find_id(const GgufFile & file, const std::string & key) const;
    int32_t required_id(const GgufFile & file, const std::string & key, int32_t otherwise) const;

    std::vector<Token> tokens_;
    std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace lorica
