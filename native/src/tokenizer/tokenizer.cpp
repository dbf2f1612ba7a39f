#include "tokenizer/tokenizer.h"

#include "common/error.h"
#include "common/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <limits>

namespace lorica {

namespace {

std::string piece_of(const Token & token, TokenizerModel model) {
    switch (token.type) {
        case TokenType::UNDEFINED:
        case TokenType::UNUSED: return "";
        case TokenType::CONTROL:
        case TokenType::UNKNOWN:
        case TokenType::USER_DEFINED: return token.text;
        case TokenType::BYTE: return SentencePiece::decode(token);
        case TokenType::NORMAL: break;
    }
    return model == TokenizerModel::BYTE_LEVEL_BPE ? ByteLevelBpe::decode(token.text) : SentencePiece::decode(token);
}

}  // namespace

Tokenizer::Algorithm Tokenizer::make_algorithm(const GgufFile & file, const Vocabulary & vocabulary) {
    switch (vocabulary.model) {
        case TokenizerModel::BYTE_LEVEL_BPE: return ByteLevelBpe(file, vocabulary);
        case TokenizerModel::SENTENCEPIECE: return SentencePiece(file, vocabulary);
        case TokenizerModel::WORDPIECE: return WordPiece(vocabulary);
    }
    fail(LORICA_ERROR_INTERNAL, "no algorithm for tokenizer model ", vocabulary.model_name);
}

Tokenizer::Tokenizer(const GgufFile & file)
    : vocabulary_(file), special_tokens_(vocabulary_), algorithm_(make_algorithm(file, vocabulary_)) {
    pieces_.reserve(static_cast<size_t>(vocabulary_.size()));
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
        pieces_.push_back(piece_of(vocabulary_[id], vocabulary_.model));
    }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
    Session session;
    std::vector<int32_t> ids;
    encode(text, options, session, ids);
    return ids;
}

void Tokenizer::encode(std::string_view text, EncodeOptions options, Session & session,
                       std::vector<int32_t> & ids) const {
    // Positions are 32-bit numbers, and U+2581 for a space or U+FFFD for a byte makes a text up to three times as long.
    constexpr size_t longest_text = std::numeric_limits<int32_t>::max() / 3;
    if (text.size() > longest_text) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "a text of ", text.size(),
             " bytes is too long to be tokenized at once; the most is ", longest_text, ", split it");
    }
    std::string storage;
    const std::vector<Fragment> fragments = special_tokens_.split(valid_utf8(text, storage), options.parse_special);

    if (options.add_special && vocabulary_.add_bos) {
        ids.push_back(vocabulary_.bos);
    }
    bool after_special = true;
    for (const Fragment & fragment : fragments) {
        if (fragment.id >= 0) {
            ids.push_back(fragment.id);
            after_special = true;
            continue;
        }
        if (const auto * bpe = std::get_if<ByteLevelBpe>(&algorithm_)) {
            bpe->encode(fragment.text, session.bpe, ids);
        } else if (const auto * sentence_piece = std::get_if<SentencePiece>(&algorithm_)) {
            sentence_piece->encode(fragment.text, after_special, session.sentence_piece, ids);
        } else {
            std::get<WordPiece>(algorithm_).encode(fragment.text, ids);
        }
        after_special = false;
    }
    if (options.add_special && vocabulary_.add_eos) {
        ids.push_back(vocabulary_.eos);
    }
}

std::vector<std::vector<int32_t>> Tokenizer::encode_batch(std::span<const std::string_view> texts,
                                                          const std::function<bool(size_t)> & parse_special,
                                                          int n_threads) const {
    std::vector<std::vector<int32_t>> ids(texts.size());
    // A few texts at a time: short ones cost less than the counter they are taken from.
    constexpr size_t texts_at_once = 16;
    std::atomic<size_t> next = 0;
    const size_t useful = (texts.size() + texts_at_once - 1) / texts_at_once;
    const int wanted = n_threads > 0 ? n_threads : ThreadPool::instance().n_threads();
    parallel(static_cast<int>(std::min(static_cast<size_t>(wanted), useful)), [&](int) {
        Session session;
        for (size_t begin; (begin = next.fetch_add(texts_at_once)) < texts.size();) {
            const size_t end = std::min(begin + texts_at_once, texts.size());
            for (size_t i = begin; i < end; ++i) {
                encode(texts[i], {.parse_special = parse_special(i)}, session, ids[i]);
            }
        }
    });
    return ids;
}

void Tokenizer::append_piece(int32_t id, bool special, bool & at_start, std::string & text) const {
    if (!vocabulary_.contains(id)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "token id ", id, " is out of range, the vocabulary has ",
             vocabulary_.size(), " tokens");
    }
    if (!special && vocabulary_[id].is_hidden()) {
        return;
    }
    std::string_view piece = pieces_[static_cast<size_t>(id)];
    if (at_start && vocabulary_.add_space_prefix && piece.starts_with(' ')) {
        piece.remove_prefix(1);
    }
    at_start = false;
    text += piece;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool special) const {
    std::string text;
    bool at_start = true;
    for (const int32_t id : ids) {
        append_piece(id, special, at_start, text);
    }
    return text;
}

std::string Detokenizer::push(int32_t id) {
    std::string piece, text;
    tokenizer_.append_piece(id, special_, at_start_, piece);
    assembler_.push(piece, text);
    return text;
}

std::string Detokenizer::finish() {
    std::string text;
    assembler_.finish(text);
    at_start_ = true;
    return text;
}

}  // namespace lorica
