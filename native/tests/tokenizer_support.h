// Vocabularies for the tokenizer tests: real ones, small ones checked in, and ones made up on the spot.
#pragma once

#include "gguf/gguf_writer.h"
#include "support/temp_dir.h"
#include "tokenizer/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace lorica::test {

inline std::filesystem::path tokenizer_data() {
    return std::filesystem::path(LORICA_REPOSITORY) / "native/tests/data/tokenizer";
}

// The file as given under the repository, or else beside it; nothing when it is in neither place.
inline std::optional<std::filesystem::path> find_vocabulary(const std::string & file) {
    const std::filesystem::path repository(LORICA_REPOSITORY);
    for (const auto & folder : {tokenizer_data(), repository, repository / "../shared"}) {
        if (std::filesystem::exists(folder / file)) {
            return folder / file;
        }
    }
    return std::nullopt;
}

// The keys of a vocabulary-only GGUF file, to be changed and written.
struct VocabularyKeys {
    std::map<std::string, std::string> strings;
    std::map<std::string, uint32_t> numbers;
    std::map<std::string, bool> flags;
    std::map<std::string, std::vector<std::string>> string_arrays;
    std::map<std::string, std::vector<int32_t>> int_arrays;
    std::map<std::string, std::vector<float>> float_arrays;

    // A byte-level BPE that knows the letters a to e, the space, "ab", "abc" and a control token.
    static VocabularyKeys bpe() {
        return {.strings = {{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.pre", "gpt-2"}},
                .numbers = {{"tokenizer.ggml.bos_token_id", 0}, {"tokenizer.ggml.eos_token_id", 0}},
                .flags = {},
                .string_arrays = {{"tokenizer.ggml.tokens", {"<|end|>", "a", "b", "c", "d", "e", "Ġ", "ab", "abc"}},
                                  {"tokenizer.ggml.merges", {"a b", "ab c"}}},
                .int_arrays = {{"tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 1, 1, 1, 1}}},
                .float_arrays = {}};
    }

    // A SentencePiece-style one without byte tokens.
    static VocabularyKeys sentence_piece() {
        return {
            .strings = {{"tokenizer.ggml.model", "llama"}},
            .numbers = {},
            .flags = {},
            .string_arrays = {{"tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab", "ba"}}},
            .int_arrays = {{"tokenizer.ggml.token_type", {2, 3, 3, 1, 1, 1, 1, 1, 1}}},
            .float_arrays = {{"tokenizer.ggml.scores", {0, 0, 0, -9, -8, -7, -2, -1, -2}}}};
    }

    std::string write(const std::string & path) const {
        GgufWriter writer;
        writer.set_string("general.architecture", "llama");
        for (const auto & [key, value] : strings) {
            writer.set_string(key, value);
        }
        for (const auto & [key, value] : numbers) {
            writer.set_u32(key, value);
        }
        for (const auto & [key, value] : flags) {
            writer.set_bool(key, value);
        }
        for (const auto & [key, value] : string_arrays) {
            writer.set_strings(key, value);
        }
        for (const auto & [key, value] : int_arrays) {
            writer.set_i32s(key, value);
        }
        for (const auto & [key, value] : float_arrays) {
            writer.set_f32s(key, value);
        }
        writer.write(path);
        return path;
    }
};

}  // namespace lorica::test
