// The scales and minima of a block of Q4_K or Q5_K: six bits for each of eight parts, in twelve bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace lorica::cpu {

struct KScales {
    uint64_t scales, minima;  // byte j: of part j
};

// Of parts 0 to 3 they are the low six bits of bytes j and j + 4; of parts 4 to 7 the nibbles of byte j + 4 with the
// upper two bits of bytes j - 4 and j above them.
inline KScales k_scales_at(const uint8_t * bytes) {
    uint32_t s[3];
    std::memcpy(s, bytes, sizeof s);
    constexpr uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, two = 0x03030303;
    // Whole numbers: what is written in parts and read at once waits for the parts.
    return {(uint64_t{(s[2] & four) | (((s[0] >> 6) & two) << 4)} << 32) | (s[0] & six),
            (uint64_t{((s[2] >> 4) & four) | (((s[1] >> 6) & two) << 4)} << 32) | (s[1] & six)};
}

}  // namespace lorica::cpu
