#include "common/quote.h"

#include <cstdint>

namespace lorica {

size_t utf8_character_length(std::string_view text) {
    if (text.empty()) {
        return 0;
    }
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t lead = byte(0);
    if (lead < 0x80) {
        return 1;
    }
    const size_t length = lead >= 0xc2 && lead <= 0xdf   ? 2
                          : (lead & 0xf0) == 0xe0        ? 3
                          : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                         : 0;
    if (length == 0 || text.size() < length) {
        return 0;
    }
    for (size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) {
            return 0;
        }
    }
    // Overlong forms, surrogates and what lies above U+10FFFF show in the second byte.
    if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f) || (lead == 0xf0 && byte(1) < 0x90) ||
        (lead == 0xf4 && byte(1) > 0x8f)) {
        return 0;
    }
    return length;
}

std::string quoted(std::string_view text, size_t max_bytes) {
    static constexpr char hex[] = "0123456789abcdef";
    std::string out = "\"";
    size_t i = 0;
    while (i < text.size()) {
        if (i >= max_bytes) {
            out += "…";
            break;
        }
        const auto byte = static_cast<uint8_t>(text[i]);
        const size_t length = utf8_character_length(text.substr(i));
        if (length == 0 || byte < 0x20 || byte == 0x7f) {
            out += "\\x";
            out += hex[byte >> 4];
            out += hex[byte & 15];
            i += 1;
        } else {
            out += text.substr(i, length);
            i += length;
        }
    }
    return out + '"';
}

}  // namespace lorica
