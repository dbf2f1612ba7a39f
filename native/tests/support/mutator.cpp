#include "support/mutator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/random.h"

namespace lorica::test {

namespace {

constexpr std::array<uint64_t, 20> extremes{0,
                                            1,
                                            2,
                                            3,
                                            7,
                                            16,
                                            31,
                                            32,
                                            64,
                                            127,
                                            255,
                                            256,
                                            0xffff,
                                            0x7fffffff,
                                            0x80000000,
                                            0xffffffff,
                                            uint64_t{1} << 32,
                                            uint64_t{1} << 61,
                                            uint64_t{1} << 63,
                                            ~uint64_t{0}};

class Dice {
public:
    explicit Dice(uint64_t seed) : seed_(seed) {}
    size_t below(size_t n) { return n == 0 ? 0 : random_u32(seed_, next_++) % n; }

private:
    uint64_t seed_, next_ = 0;
};

using Bytes = std::vector<std::byte>;

// Headers are small and data are not: half of all changes go to the first part.
size_t place(Dice & dice, const Bytes & data) {
    const size_t first = std::min<size_t>(data.size(), 4096);
    return dice.below(dice.below(2) == 0 ? first : data.size());
}

void put(Bytes & data, size_t at, uint64_t value, size_t n_bytes) {
    std::memcpy(&data[at], &value, std::min(n_bytes, data.size() - at));
}

void change(Dice & dice, Bytes & data, const Bytes & other) {
    if (data.empty()) data.push_back(std::byte{0});
    const size_t at = place(dice, data);
    const size_t run = 1 + dice.below(dice.below(4) == 0 ? 256 : 16);
    const auto begin = data.begin() + static_cast<std::ptrdiff_t>(at);
    const auto end = data.begin() + static_cast<std::ptrdiff_t>(std::min(at + run, data.size()));
    constexpr std::array<size_t, 4> widths{1, 2, 4, 8};
    const size_t width = widths[dice.below(widths.size())];
    switch (dice.below(10)) {
        case 0: data[at] ^= std::byte(1u << dice.below(8)); break;
        case 1: data[at] = std::byte(dice.below(256)); break;
        case 2:
        case 3: put(data, at, extremes[dice.below(extremes.size())], width); break;
        case 4: {
            uint64_t value = 0;
            std::memcpy(&value, &data[at], std::min(width, data.size() - at));
            put(data, at, value + dice.below(65) - 32, width);
            break;
        }
        case 5: data.erase(begin, end); break;
        case 6: {
            const Bytes piece(begin, end);
            data.insert(begin, piece.begin(), piece.end());
            break;
        }
        case 7: {
            if (other.empty()) break;
            const size_t from = dice.below(other.size()), n = std::min(run, other.size() - from);
            for (size_t i = 0; i < n && at + i < data.size(); ++i) data[at + i] = other[from + i];
            break;
        }
        case 8: {
            // Two runs of one file change places: names, numbers, whole entries.
            const size_t with = place(dice, data), n = std::min({run, data.size() - at, data.size() - with});
            for (size_t i = 0; i < n; ++i) std::swap(data[at + i], data[with + i]);
            break;
        }
        default:
            if (dice.below(4) == 0)
                data.resize(at);
            else
                data[at] = std::byte(dice.below(2) == 0 ? 0x00 : 0xff);
    }
}

}  // namespace

std::vector<std::byte> Mutator::input(uint64_t i) const {
    Dice dice(derive_seed(2026, i));
    std::vector<std::byte> data = corpus_[dice.below(corpus_.size())];
    const std::vector<std::byte> & other = corpus_[dice.below(corpus_.size())];
    for (size_t n = 1 + dice.below(6); n > 0; --n) change(dice, data, other);
    return data;
}

std::vector<std::vector<std::byte>> read_gguf_files(const std::string & folder) {
    std::vector<std::filesystem::path> paths;
    for (const auto & entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() == ".gguf") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    std::vector<std::vector<std::byte>> corpus;
    for (const auto & path : paths) {
        std::ifstream file(path, std::ios::binary);
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        const auto * bytes = reinterpret_cast<const std::byte *>(text.data());
        corpus.emplace_back(bytes, bytes + text.size());
    }
    return corpus;
}

}  // namespace lorica::test
