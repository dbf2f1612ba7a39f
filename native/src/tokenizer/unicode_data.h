// The tables of unicode_data.cpp, which unicode.cpp reads.
#pragma once

#include <cstdint>
#include <span>

namespace lorica {

struct CharacterPair {
    uint32_t from, to;
};
struct CharacterTriple {
    uint32_t a, b, c;
};

constexpr int class_bits = 10;

// An entry holds up to the next entry's first code point.
extern const std::span<const uint32_t> class_runs;        // first code point << class_bits | CharacterClass bits
extern const std::span<const uint32_t> combining_runs;    // first code point << 8 | canonical combining class
extern const std::span<const CharacterPair> lower_pairs;  // ascending
// Without the Hangul syllables, ascending.
extern const std::span<const CharacterTriple> decompositions;  // a is b, or b and c
extern const std::span<const CharacterTriple> compositions;    // a and b are c

}  // namespace lorica
