#include "tokenizer/unicode.h"

#include "common/quote.h"
#include "tokenizer/unicode_data.h"

#include <algorithm>
#include <vector>

namespace lorica {

namespace {

constexpr uint32_t code_point_end = 0x110000;
constexpr std::string_view replacement = "\xef\xbf\xbd";  // U+FFFD

template <typename T> std::vector<T> expand_runs(std::span<const uint32_t> runs, int bits) {
    std::vector<T> values(code_point_end);
    const uint32_t mask = (uint32_t{1} << bits) - 1;
    for (size_t i = 0; i < runs.size(); ++i) {
        const uint32_t end = i + 1 < runs.size() ? runs[i + 1] >> bits : code_point_end;
        std::fill(values.begin() + (runs[i] >> bits), values.begin() + end, static_cast<T>(runs[i] & mask));
    }
    return values;
}

uint8_t combining_class(uint32_t code) {
    static const std::vector<uint8_t> classes = expand_runs<uint8_t>(combining_runs, 8);
    return code < code_point_end ? classes[code] : 0;
}

// Unicode, section 3.12: syllables are composed of a leading consonant, a vowel and perhaps a trailing consonant.
namespace hangul {
constexpr uint32_t syllables = 0xac00, leading = 0x1100, vowels = 0x1161, trailing = 0x11a7;
constexpr uint32_t n_leading = 19, n_vowels = 21, n_trailing = 28;
constexpr uint32_t n_syllables = n_leading * n_vowels * n_trailing;
}  // namespace hangul

// What two characters compose to, or 0.
uint32_t composition(uint32_t first, uint32_t second) {
    using namespace hangul;
    if (first - leading < n_leading && second - vowels < n_vowels) {
        return syllables + ((first - leading) * n_vowels + second - vowels) * n_trailing;
    }
    if (first - syllables < n_syllables && (first - syllables) % n_trailing == 0 && second > trailing &&
        second < trailing + n_trailing) {
        return first + second - trailing;
    }
    const auto key = [](const CharacterTriple & entry) { return std::pair(entry.a, entry.b); };
    const auto found = std::ranges::lower_bound(compositions, std::pair(first, second), {}, key);
    return found != compositions.end() && key(*found) == std::pair(first, second) ? found->c : 0;
}

// Unicode, section 3.11, the canonical composition algorithm. `codes` is decomposed and in canonical order.
void compose(std::vector<uint32_t> & codes) {
    size_t n = 0, starter = codes.size();
    int last_class = 0;
    for (const uint32_t code : codes) {
        const int combining = combining_class(code);
        const bool is_blocked = starter < n - 1 && last_class >= combining;
        if (starter < n && !is_blocked) {
            if (const uint32_t whole = composition(codes[starter], code)) {
                codes[starter] = whole;
                continue;
            }
        }
        if (combining == 0) {
            starter = n;
        }
        last_class = combining;
        codes[n++] = code;
    }
    codes.resize(n);
}

uint32_t look_up(std::span<const CharacterPair> pairs, uint32_t code) {
    const auto found = std::ranges::lower_bound(pairs, code, {}, &CharacterPair::from);
    return found != pairs.end() && found->from == code ? found->to : code;
}

// True when `bytes`, fewer than four, could become a character by more bytes.
bool begins_character(std::string_view bytes) {
    const auto lead = static_cast<uint8_t>(bytes[0]);
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || bytes.size() >= length) {
        return false;
    }
    // Completed with the lowest or the highest continuation bytes it is a character, or it never will be.
    for (const char fill : {'\x80', '\xbf'}) {
        std::string complete(bytes);
        complete.resize(length, fill);
        if (utf8_character_length(complete) == length) {
            return true;
        }
    }
    return false;
}

}  // namespace

uint16_t character_class(uint32_t code) {
    static const std::vector<uint16_t> classes = expand_runs<uint16_t>(class_runs, class_bits);
    return code < code_point_end ? classes[code] : 0;
}

uint32_t to_lower(uint32_t code) {
    if (code < 0x80) {
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    }
    return look_up(lower_pairs, code);
}

void append_decomposition(std::vector<uint32_t> & codes, uint32_t code) {
    using namespace hangul;
    if (code - syllables < n_syllables) {
        const uint32_t i = code - syllables;
        codes.push_back(leading + i / (n_vowels * n_trailing));
        codes.push_back(vowels + i / n_trailing % n_vowels);
        if (i % n_trailing != 0) {
            codes.push_back(trailing + i % n_trailing);
        }
        return;
    }
    if (code >= 0xc0) {
        const auto found = std::ranges::lower_bound(decompositions, code, {}, &CharacterTriple::a);
        if (found != decompositions.end() && found->a == code) {
            append_decomposition(codes, found->b);
            if (found->c != 0) {
                append_decomposition(codes, found->c);
            }
            return;
        }
    }
    codes.push_back(code);
}

std::string_view composed(std::string_view text, std::string & storage) {
    // The first byte of U+0300 is 0xcc; what is below composes with nothing before it.
    if (std::ranges::none_of(text, [](char c) { return static_cast<uint8_t>(c) >= 0xcc; })) {
        return text;
    }
    std::vector<uint32_t> codes;
    codes.reserve(text.size());
    for (size_t position = 0; position < text.size();) {
        append_decomposition(codes, next_character(text, position));
    }
    for (auto begin = codes.begin(); begin != codes.end();) {
        const auto is_mark = [](uint32_t code) { return combining_class(code) != 0; };
        begin = std::find_if(begin, codes.end(), is_mark);
        const auto end = std::find_if_not(begin, codes.end(), is_mark);
        std::stable_sort(begin, end, [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
        begin = end;
    }
    compose(codes);
    storage.clear();
    for (const uint32_t code : codes) {
        append_utf8(storage, code);
    }
    return storage;
}

std::string_view valid_utf8(std::string_view text, std::string & storage) {
    size_t position = 0;
    const auto skip_valid = [&] {
        while (position < text.size()) {
            const size_t length = utf8_character_length(text.substr(position));
            if (length == 0) {
                return;
            }
            position += length;
        }
    };
    skip_valid();
    if (position == text.size()) {
        return text;
    }
    storage.clear();
    size_t copied = 0;
    while (position < text.size()) {
        storage += text.substr(copied, position - copied);
        storage += replacement;
        copied = ++position;
        skip_valid();
    }
    return storage += text.substr(copied);
}

uint32_t next_character(std::string_view text, size_t & position) {
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[position + i])); };
    const auto tail = [&](size_t i) { return byte(i) & 0x3f; };
    const uint32_t lead = byte(0);
    uint32_t code = lead;
    size_t length = 1;
    if (lead >= 0xf0) {
        code = (lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
        length = 4;
    } else if (lead >= 0xe0) {
        code = (lead & 0x0f) << 12 | tail(1) << 6 | tail(2);
        length = 3;
    } else if (lead >= 0xc0) {
        code = (lead & 0x1f) << 6 | tail(1);
        length = 2;
    }
    position += length;
    return code;
}

void append_utf8(std::string & text, uint32_t code) {
    const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
    if (code < 0x80) {
        text += static_cast<char>(code);
    } else if (code < 0x800) {
        text += static_cast<char>(0xc0 | code >> 6);
        tail(0);
    } else if (code < 0x10000) {
        text += static_cast<char>(0xe0 | code >> 12);
        tail(6);
        tail(0);
    } else {
        text += static_cast<char>(0xf0 | code >> 18);
        tail(12);
        tail(6);
        tail(0);
    }
}

void Utf8Assembler::push(std::string_view bytes, std::string & out) {
    held_ += bytes;
    std::string_view rest = held_;
    while (!rest.empty()) {
        size_t length = utf8_character_length(rest);
        if (length > 0) {
            out += rest.substr(0, length);
        } else if (begins_character(rest)) {
            break;
        } else {
            out += replacement;
            length = 1;
        }
        rest.remove_prefix(length);
    }
    held_.erase(0, held_.size() - rest.size());
}

void Utf8Assembler::finish(std::string & out) {
    for (size_t i = 0; i < held_.size(); ++i) {
        out += replacement;
    }
    held_.clear();
}

}  // namespace lorica
