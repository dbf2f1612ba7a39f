// Text from files, made fit for a one-line message.
#pragma once

#include <string>
#include <string_view>

namespace lorica {

// The text in double quotes; control characters and bytes that are not UTF-8 as \xNN, cut after max_bytes with "…".
std::string quoted(std::string_view text, size_t max_bytes = 80);

// Length in bytes of the well-formed UTF-8 character (Unicode, table 3-7) at the start of `text`; 0 when there is none.
size_t utf8_character_length(std::string_view text);

}  // namespace lorica
