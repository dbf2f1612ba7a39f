// Good GGUF files, damaged in every way that a program could trip over, and one function that puts a file through
// everything in the C ABI that reads files.
#pragma once

#include <lorica/lorica.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace lorica::test {

// Small files of each kind, written to `folder`; the adapter belongs to the model.
struct GoodFiles {
    explicit GoodFiles(const std::string & folder);

    std::string model;       // Llama, F32 and Q4_0, SentencePiece-style vocabulary
    std::string vocabulary;  // no tensors, byte-level BPE vocabulary
    std::string adapter;     // LoRA
};

// Calls `use` with every damaged variant of `good`, which must be a sound file: cut short at many places, counts,
// lengths, types, dimensions, offsets and values replaced, names doubled, bits flipped, bytes taken out and put in.
// `what` says what was done. The same variants in the same order each time.
void for_each_damage(const std::vector<std::byte> & good,
                     const std::function<void(const std::string & what, const std::vector<std::byte> & data)> & use);

struct LoadResult {
    std::string function;  // "lorica_model_load"
    lorica_status status;
    std::string message;  // "" for LORICA_OK
};

// Opens `path` as a GGUF file, a tokenizer, a model and an adapter of `base`, and uses what could be opened: reads all
// metadata, encodes and decodes, evaluates a few tokens.
std::vector<LoadResult> load_as_everything(const std::string & path, const lorica_model * base);

}  // namespace lorica::test
