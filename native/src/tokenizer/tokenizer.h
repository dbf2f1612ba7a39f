// Text to token ids and back, by the vocabulary of a GGUF file: equal to llama.cpp, and to the model's own tokenizer
// where llama.cpp only comes near it (see pre_tokenizer.cpp, word_piece.cpp).
//
//     const Tokenizer tokenizer(GgufFile::open("model.gguf"));
//     const std::vector<int32_t> ids = tokenizer.encode("Hello", {.add_special = true});
//     const std::string text = tokenizer.decode(ids, false);
//
// Read on in vocabulary.h, special_tokens.h, and then byte_level_bpe.h, sentence_piece.h or word_piece.h.
#pragma once

#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/sentence_piece.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"
#include "tokenizer/word_piece.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lorica {

struct EncodeOptions {
    bool add_special = false;    // BOS and EOS where the vocabulary asks for them
    bool parse_special = false;  // control tokens written out in the text become their ids
};

// Immutable; any number of threads may use it.
class Tokenizer {
public:
    // Errors: FORMAT, UNSUPPORTED. The file may be closed afterwards.
    explicit Tokenizer(const GgufFile & file);

    const Vocabulary & vocabulary() const { return vocabulary_; }

    // What is not UTF-8 is treated as U+FFFD. Errors: INVALID_ARGUMENT (a text above 682 MiB).
    std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const;

    // Encodes the texts on n_threads threads (0: all cores) without BOS and EOS. parse_special(i) is asked for text i.
    std::vector<std::vector<int32_t>> encode_batch(std::span<const std::string_view> texts,
                                                   const std::function<bool(size_t)> & parse_special,
                                                   int n_threads) const;

    // The bytes that ids stand for, without control tokens unless `special`. The space that SentencePiece puts before a
    // text is taken away again. llama.cpp's clean-up of spaces before punctuation is not done: it would change text.
    // Errors: INVALID_ARGUMENT (an id out of range).
    std::string decode(std::span<const int32_t> ids, bool special) const;

private:
    friend class Detokenizer;
    struct Session {
        ByteLevelBpe::Session bpe;
        SentencePiece::Session sentence_piece;
    };

    void encode(std::string_view text, EncodeOptions options, Session & session, std::vector<int32_t> & ids) const;
    // Appends what `id` stands for. at_start: nothing has been shown yet; kept up to date.
    void append_piece(int32_t id, bool special, bool & at_start, std::string & text) const;

    using Algorithm = std::variant<ByteLevelBpe, SentencePiece, WordPiece>;
    static Algorithm make_algorithm(const GgufFile & file, const Vocabulary & vocabulary);

    Vocabulary vocabulary_;
    SpecialTokens special_tokens_;
    Algorithm algorithm_;
    std::vector<std::string> pieces_;  // what each token stands for
};

// Turns a stream of ids into a stream of text that never ends inside a character. In total the text is that of
// Tokenizer::decode, with U+FFFD for each byte that is no part of a character. Used by one thread.
class Detokenizer {
public:
    // The tokenizer outlives it.
    Detokenizer(const Tokenizer & tokenizer, bool special) : tokenizer_(tokenizer), special_(special) {}

    // The text that is complete now. Errors: INVALID_ARGUMENT (an id out of range); the stream is then as before.
    std::string push(int32_t id);
    // The end of the stream: the bytes held back. The next push begins a new stream.
    std::string finish();

private:
    const Tokenizer & tokenizer_;
    bool special_;
    bool at_start_ = true;
    Utf8Assembler assembler_;
};

}  // namespace lorica
