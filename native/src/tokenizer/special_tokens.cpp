#include "tokenizer/special_tokens.h"

#include <algorithm>

namespace lorica {

namespace {

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

SpecialTokens::SpecialTokens(const Vocabulary & vocabulary) : vocabulary_(vocabulary) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
        if (vocabulary[id].is_hidden() || vocabulary[id].type == TokenType::USER_DEFINED) {
            by_length_.push_back(id);
        }
    }
    std::ranges::stable_sort(by_length_, std::greater{}, [&](int32_t id) { return vocabulary[id].text.size(); });
    for (uint32_t i = 0; i < by_length_.size(); ++i) {
        by_first_byte_[static_cast<uint8_t>(vocabulary[by_length_[i]].text[0])].push_back(i);
    }
}

// One pass over the text finds the few tokens that it has, so that the splitting below need not look for hundreds.
std::vector<int32_t> SpecialTokens::find_present(std::string_view text, bool parse_special) const {
    std::vector<bool> is_present(by_length_.size());
    for (size_t position = 0; position < text.size(); ++position) {
        for (const uint32_t i : by_first_byte_[static_cast<uint8_t>(text[position])]) {
            const Token & token = vocabulary_[by_length_[i]];
            const bool is_wanted = parse_special || !token.is_hidden();
            if (!is_present[i] && is_wanted && text.substr(position).starts_with(token.text)) {
                is_present[i] = true;
            }
        }
    }
    std::vector<int32_t> present;
    for (size_t i = 0; i < by_length_.size(); ++i) {
        if (is_present[i]) {
            present.push_back(by_length_[i]);
        }
    }
    return present;
}

std::vector<Fragment> SpecialTokens::split(std::string_view text, bool parse_special) const {
    std::vector<Fragment> fragments;
    if (!text.empty()) {
        fragments.push_back({-1, text});
    }
    for (const int32_t id : find_present(text, parse_special)) {
        const Token & token = vocabulary_[id];
        std::vector<Fragment> parts;
        for (const Fragment & fragment : fragments) {
            if (fragment.id >= 0) {
                parts.push_back(fragment);
                continue;
            }
            std::string_view rest = fragment.text;
            for (size_t match; (match = rest.find(token.text)) != std::string_view::npos;) {
                if (match > 0) {
                    parts.push_back({-1, rest.substr(0, match)});
                }
                parts.push_back({id, {}});
                rest.remove_prefix(match + token.text.size());
                while (token.strip_right && !rest.empty() && is_ascii_space(rest[0])) {
                    rest.remove_prefix(1);
                }
            }
            if (!rest.empty()) {
                parts.push_back({-1, rest});
            }
        }
        fragments = std::move(parts);
    }
    return fragments;
}

}  // namespace lorica
