#include "tokenizer/unicode.h"

#include "common/quote.h"
#include "tokenizer/unicode_data.h"

#include <algorithm>
#include <vector>

namespace lorica {

namespace {

constexpr uint32_t code_point_end = 0x110000;
constexpr std::string_view replacement = "\xef\xbf\xbd";  // U+FFFD

// One byte for every code point: texts are classified character by character.
std::vector<uint8_t> expand_class_runs() {
    std::vector<uint8_t> classes(code_point_end);
    for (size_t i = 0; i < class_runs.size(); ++i) {
        const uint32_t end = i + 1 < class_runs.size() ? class_runs[i + 1] >> 8 : code_point_end;
        std::fill(classes.begin() + (class_runs[i] >> 8), classes.begin() + end, static_cast<uint8_t>(class_runs[i]));
    }
    return classes;
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

uint8_t character_class(uint32_t code) {
    static const std::vector<uint8_t> classes = expand_class_runs();
    return code < code_point_end ? classes[code] : 0;
}

uint32_t to_lower(uint32_t code) {
    if (code < 0x80) {
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    }
    return look_up(lower_pairs, code);
}

uint32_t base_character(uint32_t code) {
    // Unicode, section 3.12: a syllable is 588 apart from the first one with the next leading consonant.
    if (code >= 0xac00 && code < 0xd7a4) {
        return 0x1100 + (code - 0xac00) / 588;
    }
    return code < 0xc0 ? code : look_up(base_pairs, code);
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
