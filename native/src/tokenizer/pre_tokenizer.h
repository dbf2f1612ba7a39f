// Splits a text into the words within which byte-level BPE merges. GGUF names the rules in tokenizer.ggml.pre.
#pragma once

#include "gguf/gguf_file.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorica {

class PreTokenizer {
public:
    // Errors: UNSUPPORTED, with the path of the file that asks for it and the names that are known.
    static PreTokenizer named(const GgufFile & file, std::string_view name);

    bool ignores_merges() const { return family_ == Family::LLAMA3 || family_ == Family::TEKKEN; }
    bool adds_bos() const { return ignores_merges(); }
    // Texts are brought to normalization form C before they are split. GGUF does not say so, and llama.cpp does not do
    // it; it is how the models were trained.
    bool composes() const { return composes_; }

    // Lengths in bytes of the words that `text`, valid UTF-8, consists of.
    std::vector<uint32_t> split(std::string_view text) const;

private:
    enum class Family { DEFAULT, GPT2, DIGITS_GPT2, FALCON, LLAMA3, DBRX, QWEN2, QWEN35, TEKKEN, GPT4O };
    struct Name;
    static const std::vector<Name> & names();

    PreTokenizer(Family family, bool composes) : family_(family), composes_(composes) {}

    Family family_;
    bool composes_;
};

}  // namespace lorica
