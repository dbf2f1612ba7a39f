#include "tokenizer/sentence_piece.h"

#include "common/error.h"
#include "common/quote.h"
#include "tokenizer/unicode.h"

namespace lorica {

namespace {

constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581, which stands for a space

// Where the word that begins at `begin` ends: before the next mark that follows another character.
size_t word_end(std::string_view text, size_t begin) {
    size_t i = begin;
    while (text.substr(i).starts_with(space_mark)) {
        i += space_mark.size();
    }
    return std::min(text.find(space_mark, i), text.size());
}

std::optional<uint8_t> byte_named(std::string_view text) {
    const auto digit = [&](size_t i) {
        const char c = text[i];
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : -1;
    };
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>' || digit(3) < 0 || digit(4) < 0) {
        return std::nullopt;
    }
    return static_cast<uint8_t>(digit(3) * 16 + digit(4));
}

}  // namespace

SentencePiece::SentencePiece(const GgufFile & file, const Vocabulary & vocabulary) : vocabulary_(vocabulary) {
    static constexpr char hex[] = "0123456789ABCDEF";
    for (size_t byte = 0; byte < 256; ++byte) {
        const std::string name = {'<', '0', 'x', hex[byte >> 4], hex[byte & 15], '>'};
        const int32_t id = vocabulary.find(name);
        byte_ids_[byte] = id >= 0 ? id : vocabulary.find(std::string(1, static_cast<char>(byte)));
    }
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
        const Token & token = vocabulary[id];
        if (token.type == TokenType::BYTE && !byte_named(token.text)) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": token ", id, " is a byte, but its text ", quoted(token.text),
                 " is not of the form <0x0A>");
        }
        if (find_piece(token.text) == id && word_end(token.text, 0) < token.text.size()) {
            words_are_independent_ = false;
        }
    }
}

// Control, unknown and byte tokens are no pieces, as in SentencePiece: text that spells them stays text.
int32_t SentencePiece::find_piece(std::string_view text) const {
    const int32_t id = vocabulary_.find_producible(text);
    return id >= 0 && vocabulary_[id].type != TokenType::BYTE ? id : -1;
}

void SentencePiece::encode(std::string_view text, bool begins_text, Session & session,
                           std::vector<int32_t> & ids) const {
    std::string marked;
    marked.reserve(text.size() + text.size() / 2);
    if (begins_text && vocabulary_.add_space_prefix) {
        marked += space_mark;
    }
    for (const char c : text) {
        if (c == ' ') {
            marked += space_mark;
        } else {
            marked += c;
        }
    }
    for (size_t begin = 0; begin < marked.size();) {
        const size_t end = words_are_independent_ ? word_end(marked, begin) : marked.size();
        const std::string_view word = std::string_view(marked).substr(begin, end - begin);
        session.cache.append(word, ids, [&] { encode_word(word, session, ids); });
        begin = end;
    }
}

void SentencePiece::encode_word(std::string_view word, Session & session, std::vector<int32_t> & ids) const {
    // A symbol's value is its length in bytes.
    MergeQueue & queue = session.queue;
    std::vector<size_t> & starts = session.starts;
    queue.clear();
    starts.clear();
    for (size_t position = 0; position < word.size();) {
        const size_t start = position;
        next_character(word, position);
        starts.push_back(start);
        queue.push(static_cast<int32_t>(position - start));
    }
    queue.run([&](size_t left, size_t right) -> std::optional<MergeQueue::Merge> {
        const int32_t length = queue.value(left) + queue.value(right);
        const int32_t id = find_piece(word.substr(starts[left], static_cast<size_t>(length)));
        if (id < 0) {
            return std::nullopt;
        }
        return MergeQueue::Merge{-static_cast<double>(vocabulary_[id].score), length};
    });
    queue.for_each([&](size_t i, int32_t length) {
        const std::string_view symbol = word.substr(starts[i], static_cast<size_t>(length));
        if (const int32_t id = find_piece(symbol); id >= 0) {
            ids.push_back(id);
            return;
        }
        for (const char c : symbol) {
            const int32_t byte_id = byte_ids_[static_cast<uint8_t>(c)];
            const int32_t id = byte_id >= 0 ? byte_id : vocabulary_.unk;
            if (id >= 0) {
                ids.push_back(id);
            }
        }
    });
}

std::string SentencePiece::decode(const Token & token) {
    if (const auto byte = byte_named(token.text); byte && token.type == TokenType::BYTE) {
        return std::string(1, static_cast<char>(*byte));
    }
    std::string text;
    for (size_t i = 0; i < token.text.size();) {
        if (std::string_view(token.text).substr(i).starts_with(space_mark)) {
            text += ' ';
            i += space_mark.size();
        } else {
            text += token.text[i++];
        }
    }
    return text;
}

}  // namespace lorica
