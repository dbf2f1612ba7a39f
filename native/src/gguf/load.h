// A number as it lies in a file, little-endian and anywhere.
#pragma once

#include <cstddef>
#include <cstring>

namespace lorica {

template <typename T> T load(const std::byte * p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}

}  // namespace lorica
