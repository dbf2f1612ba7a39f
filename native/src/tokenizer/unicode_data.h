// The tables of unicode_data.cpp, which unicode.cpp reads.
#pragma once

#include <cstdint>
#include <span>

namespace lorica {

struct CharacterPair {
    uint32_t from, to;
};

// Each entry is first code point << 8 | CharacterClass bits; it holds up to the next entry's first code point.
extern const std::span<const uint32_t> class_runs;
extern const std::span<const CharacterPair> lower_pairs;  // ascending
extern const std::span<const CharacterPair> base_pairs;   // ascending, without the Hangul syllables

}  // namespace lorica
