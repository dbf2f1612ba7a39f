// GGUF files byte by byte, right or wrong in any place.
#pragma once

#include <gguf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace lorica::test {

class RawGguf {
public:
    // "GGUF", version and counts
    RawGguf & header(uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
        return bytes("GGUF").number(version).number(n_tensors).number(n_kv);
    }
    RawGguf & bytes(std::string_view text) {
        const auto * p = reinterpret_cast<const std::byte *>(text.data());
        data_.insert(data_.end(), p, p + text.size());
        return *this;
    }
    template <typename T> RawGguf & number(T value) {
        static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
        const auto * p = reinterpret_cast<const std::byte *>(&value);
        data_.insert(data_.end(), p, p + sizeof(T));
        return *this;
    }
    RawGguf & string(std::string_view text) { return number(uint64_t{text.size()}).bytes(text); }
    // Key and type of an entry; the value is for the caller to append.
    RawGguf & key(std::string_view name, uint32_t type) { return string(name).number(type); }
    RawGguf & array_key(std::string_view name, uint32_t element_type, uint64_t count) {
        return key(name, GGUF_TYPE_ARRAY).number(element_type).number(count);
    }
    RawGguf & tensor(std::string_view name, std::initializer_list<uint64_t> ne, uint32_t type, uint64_t offset) {
        string(name).number(static_cast<uint32_t>(ne.size()));
        for (uint64_t n : ne) {
            number(n);
        }
        return number(type).number(offset);
    }
    RawGguf & zeros(size_t n) {
        data_.resize(data_.size() + n);
        return *this;
    }
    RawGguf & pad(size_t alignment = GGUF_DEFAULT_ALIGNMENT) {
        return zeros((alignment - data_.size() % alignment) % alignment);
    }
    const std::vector<std::byte> & data() const { return data_; }

private:
    std::vector<std::byte> data_;
};

inline std::string write_file(const std::string & path, const std::vector<std::byte> & data) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(data.data()), static_cast<std::streamsize>(data.size()));
    return path;
}

inline std::vector<std::byte> read_file(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto * p = reinterpret_cast<const std::byte *>(text.data());
    return {p, p + text.size()};
}

}  // namespace lorica::test
