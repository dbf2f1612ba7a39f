// UTF-8 and the character properties that tokenizers ask for, of the Unicode version that llama.cpp uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorica {

enum CharacterClass : uint16_t {
    LETTER = 0x01,       // general category L
    NUMBER = 0x02,       // N
    PUNCTUATION = 0x04,  // P
    SYMBOL = 0x08,       // S
    MARK = 0x10,         // M
    WHITE_SPACE = 0x20,  // the property White_Space
    CONTROL = 0x40,      // C, but for code points that are not assigned
    UPPER = 0x80,        // Lu and Lt
    LOWER = 0x100,       // Ll
    NONSPACING = 0x200,  // Mn
};

// The classes of a code point as bits; 0 for what is not assigned.
uint16_t character_class(uint32_t code);

// Lower case by the simple mapping: one code point for one.
uint32_t to_lower(uint32_t code);

// Appends the full canonical decomposition of a character, itself where it has none.
void append_decomposition(std::vector<uint32_t> & codes, uint32_t code);

// Normalization form C of `text`, valid UTF-8: `text` itself where all of it is below U+0300, otherwise `storage`.
std::string_view composed(std::string_view text, std::string & storage);

// `text` itself when it is UTF-8; otherwise `storage`, where each byte that is no part of a character became U+FFFD.
std::string_view valid_utf8(std::string_view text, std::string & storage);

// The character at `position`, which moves behind it. `text` is valid UTF-8.
uint32_t next_character(std::string_view text, size_t & position);

inline size_t utf8_length(uint32_t code) { return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4; }
void append_utf8(std::string & text, uint32_t code);

// Takes bytes as they come and gives them back as valid UTF-8 without ever cutting a character in two.
class Utf8Assembler {
public:
    // Appends to `out` what is complete now. A byte that cannot be part of a character becomes U+FFFD.
    void push(std::string_view bytes, std::string & out);
    // Appends U+FFFD for each byte of a character that never became complete.
    void finish(std::string & out);

private:
    std::string held_;  // the beginning of a character, at most three bytes
};

}  // namespace lorica
