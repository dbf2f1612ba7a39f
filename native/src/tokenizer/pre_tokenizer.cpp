// The names are llama.cpp's (src/llama-vocab.cpp), the patterns those of the models' own tokenizers, each scanned by
// hand. llama.cpp has approximations of some: it takes A to Z for the only capitals of tekken and gpt-4o. Where a rule
// has several patterns, each of them splits further what the one before it left, and a look-ahead does not see past
// such a piece.
#include "tokenizer/pre_tokenizer.h"

#include "common/error.h"
#include "common/quote.h"
#include "tokenizer/unicode.h"

#include <algorithm>

namespace lorica {

struct PreTokenizer::Name {
    std::string_view name;
    Family family;
    bool composes = false;
};

const std::vector<PreTokenizer::Name> & PreTokenizer::names() {
    static const std::vector<Name> names = {
        {"default", Family::DEFAULT},
        {"gpt-2", Family::GPT2},
        {"phi-2", Family::GPT2},
        {"mpt", Family::GPT2, true},
        {"olmo", Family::GPT2, true},
        {"roberta-bpe", Family::GPT2},
        {"modern-bert", Family::GPT2, true},
        {"jais", Family::GPT2},
        {"exaone4", Family::GPT2},
        {"smollm", Family::DIGITS_GPT2},
        {"starcoder", Family::DIGITS_GPT2},
        {"refact", Family::DIGITS_GPT2},
        {"command-r", Family::DIGITS_GPT2},
        {"codeshell", Family::DIGITS_GPT2},
        {"exaone", Family::DIGITS_GPT2},
        {"minerva-7b", Family::DIGITS_GPT2},
        {"falcon", Family::FALCON},
        {"llama-bpe", Family::LLAMA3},
        {"llama3", Family::LLAMA3},
        {"llama-v3", Family::LLAMA3},
        {"falcon3", Family::LLAMA3},
        {"pixtral", Family::LLAMA3},
        {"dbrx", Family::DBRX},
        {"smaug-bpe", Family::DBRX},
        {"qwen2", Family::QWEN2, true},
        {"qwen35", Family::QWEN35, true},
        {"deepseek-r1-qwen", Family::QWEN2},
        {"megrez", Family::QWEN2},
        {"stablelm2", Family::QWEN2},
        {"tekken", Family::TEKKEN},
        {"gpt-4o", Family::GPT4O},
        {"llama4", Family::GPT4O},
    };
    return names;
}

PreTokenizer PreTokenizer::named(const GgufFile & file, std::string_view name) {
    const auto found = std::ranges::find(names(), name, &Name::name);
    if (found == names().end()) {
        std::string known;
        for (const Name & entry : names()) {
            known += known.empty() ? "" : ", ";
            known += entry.name;
        }
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": tokenizer.ggml.pre is ", quoted(name), "; supported are ",
             known);
    }
    return PreTokenizer(found->family, found->composes);
}

namespace {

// Code point in the low 21 bits, CharacterClass bits above: a text is decoded once and looked at often.
class Characters {
public:
    explicit Characters(std::string_view text) {
        packed_.reserve(text.size());
        for (size_t position = 0; position < text.size();) {
            const uint32_t code = next_character(text, position);
            packed_.push_back(static_cast<uint32_t>(character_class(code)) << 21 | code);
        }
    }

    size_t size() const { return packed_.size(); }
    uint32_t operator[](size_t i) const { return packed_[i] & 0x1fffff; }
    bool is(size_t i, uint32_t classes) const { return (packed_[i] >> 21 & classes) != 0; }

private:
    std::vector<uint32_t> packed_;
};

// Lengths in characters.
using Words = std::vector<uint32_t>;

// Calls split(begin, end, emit) for every word so far; emit(end) closes the next part at `end`.
template <typename Split> Words refine(const Words & words, Split split) {
    Words parts;
    parts.reserve(words.size());
    size_t begin = 0;
    for (const uint32_t length : words) {
        size_t start = begin;
        const auto emit = [&](size_t end) {
            if (end > start) {
                parts.push_back(static_cast<uint32_t>(end - start));
                start = end;
            }
        };
        split(begin, begin + length, emit);
        begin += length;
        emit(begin);
    }
    return parts;
}

// [accepted]+ : each run of accepted characters is a word.
template <typename Accept> Words isolate_runs(const Words & words, Accept accept) {
    return refine(words, [&](size_t begin, size_t end, auto emit) {
        for (size_t i = begin + 1; i < end; ++i) {
            if (accept(i) != accept(i - 1)) {
                emit(i);
            }
        }
    });
}

// [accepted]{n} : each group of n accepted characters in a row is a word.
template <typename Accept> Words isolate_groups(const Words & words, size_t n, Accept accept) {
    return refine(words, [&](size_t begin, size_t end, auto emit) {
        size_t run = 0;
        for (size_t i = begin; i < end; ++i) {
            run = accept(i) ? run + 1 : 0;
            if (run == n) {
                emit(i + 1 - n);
                emit(i + 1);
                run = 0;
            }
        }
    });
}

template <typename Accept> size_t skip(size_t i, size_t end, Accept accept) {
    while (i < end && accept(i)) {
        ++i;
    }
    return i;
}

// 's|'t|'re|'ve|'m|'ll|'d : the length of such an ending at i, or 0.
size_t contraction(const Characters & text, size_t i, size_t end, bool any_case) {
    if (text[i] != '\'' || i + 1 >= end) {
        return 0;
    }
    const auto letter = [&](size_t k) { return any_case ? to_lower(text[k]) : text[k]; };
    const uint32_t first = letter(i + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') {
        return 2;
    }
    if (i + 2 >= end) {
        return 0;
    }
    const uint32_t second = letter(i + 2);
    const bool matches = ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
    return matches ? 3 : 0;
}

// \s+(?!\S)|\s+ : white space up to `space_end`, but for the last character of it when a word follows.
size_t white_space_end(size_t i, size_t space_end, size_t end) {
    return space_end < end && space_end - i > 1 ? space_end - 1 : space_end;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
Words split_gpt2(const Characters & text, const Words & words) {
    return refine(words, [&](size_t begin, size_t end, auto emit) {
        for (size_t i = begin; i < end; emit(i)) {
            if (const size_t length = contraction(text, i, end, false)) {
                i += length;
                continue;
            }
            const size_t k = text[i] == ' ' && i + 1 < end ? i + 1 : i;
            if (text.is(k, LETTER)) {
                i = skip(k, end, [&](size_t c) { return text.is(c, LETTER); });
            } else if (text.is(k, NUMBER)) {
                i = skip(k, end, [&](size_t c) { return text.is(c, NUMBER); });
            } else if (!text.is(k, WHITE_SPACE)) {
                i = skip(k, end, [&](size_t c) { return !text.is(c, WHITE_SPACE | LETTER | NUMBER); });
            } else {
                i = white_space_end(i, skip(i, end, [&](size_t c) { return text.is(c, WHITE_SPACE); }), end);
            }
        }
    });
}

bool is_line_break(const Characters & text, size_t i) { return text[i] == '\r' || text[i] == '\n'; }

//  ?[^\s<letters>\p{N}]+[<line breaks, and '/' with slashes>]*|\s*[\r\n]+|\s+(?!\S)|\s+ : where a match at i ends.
size_t marks_or_space_end(const Characters & text, size_t i, size_t end, uint32_t letters, bool slashes) {
    const size_t k = text[i] == ' ' && i + 1 < end ? i + 1 : i;
    if (!text.is(k, WHITE_SPACE | letters | NUMBER)) {
        i = skip(k, end, [&](size_t c) { return !text.is(c, WHITE_SPACE | letters | NUMBER); });
        return skip(i, end, [&](size_t c) { return is_line_break(text, c) || (slashes && text[c] == '/'); });
    }
    const size_t space_end = skip(i, end, [&](size_t c) { return text.is(c, WHITE_SPACE); });
    size_t line_end = space_end;  // behind the last line break of the white space
    while (line_end > i && !is_line_break(text, line_end - 1)) {
        --line_end;
    }
    return line_end > i ? line_end : white_space_end(i, space_end, end);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[<letters>]+|\p{N}{1,max_digits}|
// ?[^\s<letters>\p{N}]+[\r\n]*|\s*[\r\n]+|
// \s+(?!\S)|\s+
Words split_llama3(const Characters & text, const Words & words, size_t max_digits, uint32_t letters) {
    return refine(words, [&](size_t begin, size_t end, auto emit) {
        for (size_t i = begin; i < end; emit(i)) {
            if (const size_t length = contraction(text, i, end, true)) {
                i += length;
                continue;
            }
            const bool may_lead = !is_line_break(text, i) && !text.is(i, LETTER | NUMBER);
            if (text.is(i, letters) || (may_lead && i + 1 < end && text.is(i + 1, letters))) {
                i = skip(i + 1, end, [&](size_t c) { return text.is(c, letters); });
            } else if (text.is(i, NUMBER)) {
                i = skip(i, std::min(end, i + max_digits), [&](size_t c) { return text.is(c, NUMBER); });
            } else {
                i = marks_or_space_end(text, i, end, letters, false);
            }
        }
    });
}

// The words of tekken and gpt-4o: capitals, then small letters. U is [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L is
// [\p{Ll}\p{Lm}\p{Lo}\p{M}]; they share all but Lu, Lt and Ll.
//
//     [^\r\n\p{L}\p{N}]?U*L+<ending>|[^\r\n\p{L}\p{N}]?U+L*<ending>
//
// Where a match at i ends without its ending, or i: a regular expression tries the first alternative with and without
// the leading character, giving back capitals one by one, before it tries the second.
size_t cased_word_end(const Characters & text, size_t i, size_t end) {
    const auto is_letter = [&](size_t c) { return text.is(c, LETTER | MARK); };
    const auto in_u = [&](size_t c) { return is_letter(c) && !text.is(c, LOWER); };
    const auto in_l = [&](size_t c) { return is_letter(c) && !text.is(c, UPPER); };
    const auto capitals_then_small = [&](size_t start) -> size_t {
        size_t k = skip(start, end, in_u);
        if (k < end && in_l(k)) {
            return skip(k, end, in_l);
        }
        while (k > start && !in_l(k - 1)) {
            --k;
        }
        return k;  // start where there is no small letter
    };
    const bool may_lead = !is_line_break(text, i) && !text.is(i, LETTER | NUMBER);
    for (const size_t start : {may_lead ? i + 1 : i, i}) {
        if (const size_t found = capitals_then_small(start); found > start) {
            return found;
        }
    }
    for (const size_t start : {may_lead ? i + 1 : i, i}) {
        if (const size_t capitals = skip(start, end, in_u); capitals > start) {
            return skip(capitals, end, in_l);
        }
    }
    return i;
}

// <words as above>|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
// where a word may end in (?i:'s|'t|'re|'ve|'m|'ll|'d) with `contractions`.
Words split_cased(const Characters & text, const Words & words, size_t max_digits, bool contractions) {
    return refine(words, [&](size_t begin, size_t end, auto emit) {
        for (size_t i = begin; i < end; emit(i)) {
            if (const size_t word_end = cased_word_end(text, i, end); word_end > i) {
                i = word_end;
                if (contractions && i < end) {
                    i += contraction(text, i, end, true);
                }
            } else if (text.is(i, NUMBER)) {
                i = skip(i, std::min(end, i + max_digits), [&](size_t c) { return text.is(c, NUMBER); });
            } else {
                i = marks_or_space_end(text, i, end, LETTER, true);
            }
        }
    });
}

}  // namespace

std::vector<uint32_t> PreTokenizer::split(std::string_view text) const {
    const Characters characters(text);
    const auto is_number = [&](size_t i) { return characters.is(i, NUMBER); };
    const auto is_ascii_digit = [&](size_t i) { return characters[i] >= '0' && characters[i] <= '9'; };
    const auto is_mark = [&](size_t i, std::string_view more) {
        return characters.is(i, PUNCTUATION) ||
               (characters[i] < 0x80 && more.find(static_cast<char>(characters[i])) != std::string_view::npos);
    };

    Words words = {static_cast<uint32_t>(characters.size())};
    switch (family_) {
        case Family::GPT2: words = split_gpt2(characters, words); break;
        case Family::DIGITS_GPT2:  // \p{N}, then GPT-2's
            words = split_gpt2(characters, isolate_groups(words, 1, is_number));
            break;
        case Family::FALCON:  // [\p{P}\$\+<=>\^~\|`]+, GPT-2's, [0-9][0-9][0-9]
            words = isolate_runs(words, [&](size_t i) { return is_mark(i, "$+<=>^~|`"); });
            words = isolate_groups(split_gpt2(characters, words), 3, is_ascii_digit);
            break;
        case Family::DEFAULT:  // [\p{P}\$\+<=>\^~\|]+, GPT-2's, \p{N}+, [0-9][0-9][0-9]
            words = isolate_runs(words, [&](size_t i) { return is_mark(i, "$+<=>^~|"); });
            words = isolate_runs(split_gpt2(characters, words), is_number);
            words = isolate_groups(words, 3, is_ascii_digit);
            break;
        case Family::LLAMA3:
        case Family::DBRX: words = split_llama3(characters, words, 3, LETTER); break;
        case Family::QWEN2: words = split_llama3(characters, words, 1, LETTER); break;
        case Family::QWEN35: words = split_llama3(characters, words, 1, LETTER | MARK); break;
        case Family::TEKKEN: words = split_cased(characters, words, 1, false); break;
        case Family::GPT4O: words = split_cased(characters, words, 3, true); break;
    }

    size_t i = 0;
    for (uint32_t & length : words) {
        const size_t end = i + length;
        for (length = 0; i < end; ++i) {
            length += static_cast<uint32_t>(utf8_length(characters[i]));
        }
    }
    return words;
}

}  // namespace lorica
