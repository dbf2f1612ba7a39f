// bfloat16: the upper half of a float. Rounds to nearest, ties to even; NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace lorica {

struct Bf16 {
    uint16_t bits = 0;

    Bf16() = default;
    explicit Bf16(float value) {
        const uint32_t x = std::bit_cast<uint32_t>(value);
        if ((x & 0x7fffffffu) > 0x7f800000u) {
            bits = static_cast<uint16_t>((x >> 16) | 64);
        } else {
            bits = static_cast<uint16_t>((x + 0x7fffu + ((x >> 16) & 1)) >> 16);
        }
    }
    explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};
static_assert(sizeof(Bf16) == 2);

}  // namespace lorica
