// Cuts the special tokens that are written out in a text from the plain text between them.
#pragma once

#include "tokenizer/vocabulary.h"

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lorica {

struct Fragment {
    int32_t id;             // of the special token, -1 for plain text
    std::string_view text;  // plain text, not empty
};

class SpecialTokens {
public:
    explicit SpecialTokens(const Vocabulary & vocabulary);

    // User-defined tokens are always cut out, control and unknown tokens with parse_special. As in llama.cpp, a longer
    // token wins over a shorter one that overlaps it, wherever the two stand.
    std::vector<Fragment> split(std::string_view text, bool parse_special) const;

private:
    std::vector<int32_t> find_present(std::string_view text, bool parse_special) const;

    const Vocabulary & vocabulary_;
    std::vector<int32_t> by_length_;                        // special tokens, longest first
    std::array<std::vector<uint32_t>, 256> by_first_byte_;  // indices into by_length_
};

}  // namespace lorica
