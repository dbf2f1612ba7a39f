// Sound files, changed at random: what a fuzzer does, but the same on every machine and without a special compiler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lorica::test {

class Mutator {
public:
    // The corpus must not be empty.
    explicit Mutator(std::vector<std::vector<std::byte>> corpus) : corpus_(std::move(corpus)) {}

    // Input i of the endless list: one of the corpus with 1 to 6 changes. Bits flipped, bytes and numbers replaced by
    // others and by extreme ones, runs removed, repeated, exchanged with a run of another file; the end cut off.
    std::vector<std::byte> input(uint64_t i) const;

private:
    std::vector<std::vector<std::byte>> corpus_;
};

// The GGUF files of a folder, in the order of their names.
std::vector<std::vector<std::byte>> read_gguf_files(const std::string & folder);

}  // namespace lorica::test
