// Remembers the ids of short words: most of a text is words that came before.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lorica {

class WordCache {
public:
    // Appends the ids of `word` to `ids`. encode() appends them when the word is new.
    template <typename Encode> void append(std::string_view word, std::vector<int32_t> & ids, Encode encode) {
        if (word.size() > longest_word) {
            return encode();
        }
        if (const auto known = words_.find(word); known != words_.end()) {
            ids.insert(ids.end(), known->second.begin(), known->second.end());
            return;
        }
        const auto begin = static_cast<std::ptrdiff_t>(ids.size());
        encode();
        if (words_.size() >= most_words) {
            words_.clear();
        }
        words_.emplace(word, std::vector<int32_t>(ids.begin() + begin, ids.end()));
    }

private:
    static constexpr size_t longest_word = 48;
    static constexpr size_t most_words = 1 << 16;

    struct Hash : std::hash<std::string_view> {
        using is_transparent = void;
    };
    std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
};

}  // namespace lorica
