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

    bool ignores_merges() const { return family_ == Family::LLAMA3; }
    bool adds_bos() const { return family_ == Family::LLAMA3; }

    // Lengths in bytes of the words that `text`, valid UTF-8, consists of.
    std::vector<uint32_t> split(std::string_view text) const;

private:
    enum class Family { DEFAULT, GPT2, DIGITS_GPT2, FALCON, LLAMA3, DBRX, QWEN2 };
    struct Name;
    static const std::vector<Name> & names();

    explicit PreTokenizer(Family family) : family_(family) {}

    Family family_;
};

}  // namespace lorica
