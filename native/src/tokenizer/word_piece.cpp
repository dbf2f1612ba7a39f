// In the GGUF vocabulary a token that begins a word has U+2581 before it, and one that continues a word has nothing,
// where BERT's own vocabulary has nothing and "##".
#include "tokenizer/word_piece.h"

#include "tokenizer/unicode.h"

#include <algorithm>

namespace lorica {

namespace {

constexpr std::string_view word_mark = "\xe2\x96\x81";  // U+2581

// A longer word is unknown, as in BERT's own tokenizer (max_input_chars_per_word).
constexpr size_t most_characters = 100;

size_t character_count(std::string_view text) {
    return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

// The blocks that llama.cpp splits into single characters.
bool is_ideograph(uint32_t code) {
    struct Range {
        uint32_t first, last;
    };
    static constexpr Range ranges[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                                       {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    return std::ranges::any_of(ranges, [&](const Range & range) { return code >= range.first && code <= range.last; });
}

bool is_mark_of_ascii(uint32_t code) { return code < 0x7f && (character_class(code) & SYMBOL) != 0; }

}  // namespace

WordPiece::WordPiece(const Vocabulary & vocabulary) : vocabulary_(vocabulary) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
        longest_token_ = std::max(longest_token_, vocabulary[id].text.size());
    }
}

// BertNormalizer and BertPreTokenizer of Hugging Face's tokenizers.
std::vector<std::string> WordPiece::split(std::string_view text) const {
    std::vector<std::string> words;
    bool in_word = false;
    std::vector<uint32_t> codes;
    for (size_t position = 0; position < text.size();) {
        const uint32_t code = next_character(text, position);
        const uint16_t classes = character_class(code);
        const bool is_line_space = code == '\t' || code == '\n' || code == '\r';
        if (code == 0 || code == 0xfffd || ((classes & CONTROL) != 0 && !is_line_space)) {
            continue;
        }
        if ((classes & WHITE_SPACE) != 0) {
            in_word = false;
            continue;
        }
        in_word = in_word && !is_ideograph(code);
        codes.clear();
        if (vocabulary_.strip_accents) {
            append_decomposition(codes, code);
            std::erase_if(codes, [](uint32_t part) { return (character_class(part) & NONSPACING) != 0; });
        } else {
            codes.push_back(code);
        }
        for (const uint32_t part : codes) {
            const bool alone = (character_class(part) & PUNCTUATION) != 0 || is_mark_of_ascii(part);
            if (alone || !in_word) {
                words.emplace_back();
            }
            append_utf8(words.back(), vocabulary_.lowercase ? to_lower(part) : part);
            in_word = !alone;
        }
        in_word = in_word && !is_ideograph(code);
    }
    return words;
}

void WordPiece::encode(std::string_view text, std::vector<int32_t> & ids) const {
    for (const std::string & word : split(text)) {
        encode_word(std::string(word_mark) + word, ids);
    }
}

void WordPiece::encode_word(const std::string & word, std::vector<int32_t> & ids) const {
    const size_t first = ids.size();
    const bool is_too_long = character_count(word) > most_characters + 1;  // one is the mark
    for (size_t begin = 0; begin < word.size();) {
        size_t length = std::min(word.size() - begin, longest_token_);
        int32_t id = -1;
        while (!is_too_long && length > 0 &&
               (id = vocabulary_.find_producible(std::string_view(word).substr(begin, length))) < 0) {
            --length;
        }
        if (id < 0) {
            // One part without a token makes the whole word unknown.
            ids.resize(first);
            if (vocabulary_.unk >= 0) {
                ids.push_back(vocabulary_.unk);
            }
            return;
        }
        ids.push_back(id);
        begin += length;
    }
}

}  // namespace lorica
