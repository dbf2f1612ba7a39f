#include "common/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

namespace lorica {

static_assert(std::endian::native == std::endian::little);

namespace {

// Slicing by 8 (Kounavis & Berry 2005): tables[k][b] is the checksum of byte b followed by k zero bytes.
constexpr auto tables = [] {
    std::array<std::array<uint32_t, 256>, 8> t{};
    for (uint32_t b = 0; b < 256; ++b) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
        }
        t[0][b] = crc;
    }
    for (size_t k = 1; k < 8; ++k) {
        for (size_t b = 0; b < 256; ++b) {
            t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xff];
        }
    }
    return t;
}();

}  // namespace

uint32_t crc32c(uint32_t crc, const void * data, size_t n) {
    const auto * p = static_cast<const uint8_t *>(data);
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        std::memcpy(&word, p, 8);
        word ^= crc;
        crc = 0;
        for (size_t k = 0; k < 8; ++k) {
            crc ^= tables[7 - k][(word >> (8 * k)) & 0xff];
        }
    }
    for (; n > 0; ++p, --n) {
        crc = (crc >> 8) ^ tables[0][(crc ^ *p) & 0xff];
    }
    return ~crc;
}

}  // namespace lorica
