// The 256 values that 8-bit optimizer states are rounded to: "dynamic tree quantization" (Dettmers 2016, "8-bit
// approximations for parallelism in deep learning", section 2.1, and Dettmers et al. 2022, section 1.3). After the
// sign, the number of zero bits is a power of ten, a one ends them, and the bits that are left are a fraction between
// 0.1 and 1: many digits for large values, seven powers of ten for small ones. The unsigned kind has the bit of the
// sign for one more digit.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

namespace lorica {

using DynamicCodebook = std::array<float, 256>;  // ascending, from about -1, or 0, to 1

inline DynamicCodebook dynamic_codebook(bool is_signed) {
    DynamicCodebook values{};
    size_t n = 0;
    constexpr int powers = 7;
    for (int i = 0; i < powers; ++i) {
        const double power = std::pow(10.0, i - (powers - 1));
        const int fractions = 1 << (is_signed ? i : i + 1);
        // The middles of equal parts of [0.1, 1].
        for (int k = 0; k < fractions; ++k) {
            const double value = power * (0.1 + 0.9 * (k + 0.5) / fractions);
            values[n++] = static_cast<float>(value);
            if (is_signed) values[n++] = static_cast<float>(-value);
        }
    }
    values[n++] = 0;
    values[n++] = 1;
    std::sort(values.begin(), values.end());
    return values;
}

}  // namespace lorica
