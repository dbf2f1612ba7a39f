#include "backend/cpu/adamw_8bit.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "common/dynamic_codebook.h"

namespace lorica::cpu {

namespace {

// Finds the nearest value of a codebook without searching: the upper 16 bits of a float, its sign, exponent and 7 bits
// of the fraction, leave at most one border between two values open, and one comparison decides.
class Rounding {
public:
    explicit Rounding(bool is_signed) : values_(dynamic_codebook(is_signed)) {
        for (size_t code = 0; code + 1 < values_.size(); ++code) {
            borders_[code] = 0.5f * (values_[code] + values_[code + 1]);
        }
        borders_.back() = 2;
        for (uint32_t upper = 0; upper < n_buckets; ++upper) {
            // The end of the bucket that is nearer to minus infinity.
            for (const uint32_t sign : {0u, 1u}) {
                const uint32_t bits = (sign << 31) | (upper << 16) | (sign ? 0xffffu : 0u);
                lowest_[sign][upper] = search(std::bit_cast<float>(bits));
            }
        }
    }

    float value(uint8_t code) const { return values_[code]; }

    // |x| <= 1
    uint8_t code(float x) const {
        const uint32_t bits = std::bit_cast<uint32_t>(x);
        const uint8_t lowest = lowest_[bits >> 31][(bits >> 16) & 0x7fffu];
        return static_cast<uint8_t>(lowest + (x > borders_[lowest]));
    }

private:
    static constexpr uint32_t n_buckets = (0x3f800000u >> 16) + 1;  // up to 1

    uint8_t search(float x) const {
        return static_cast<uint8_t>(std::lower_bound(borders_.begin(), borders_.end() - 1, x) - borders_.begin());
    }

    DynamicCodebook values_;
    std::array<float, 256> borders_;  // x is nearer to value i + 1 than to value i iff x > borders_[i]
    std::array<std::array<uint8_t, n_buckets>, 2> lowest_;
};

void step_block(float * param, const float * grad, uint8_t * m_codes, uint8_t * v_codes, float & m_scale,
                float & v_scale, int64_t n, const AdamwParams & params) {
    static const Rounding signed_values(true), unsigned_values(false);
    float m[Moments8bit::block_size], v[Moments8bit::block_size];
    for (int64_t i = 0; i < n; ++i) {
        m[i] = signed_values.value(m_codes[i]) * m_scale;
        v[i] = unsigned_values.value(v_codes[i]) * v_scale;
    }
    adamw(param, grad, m, v, n, params, 1);
    float m_max = 0, v_max = 0;
    for (int64_t i = 0; i < n; ++i) {
        m_max = std::max(m_max, std::abs(m[i]));
        v_max = std::max(v_max, v[i]);
    }
    // A division each: what is largest must become 1.
    for (int64_t i = 0; i < n; ++i) {
        m_codes[i] = signed_values.code(m_max > 0 ? m[i] / m_max : 0.0f);
        v_codes[i] = unsigned_values.code(v_max > 0 ? v[i] / v_max : 0.0f);
    }
    m_scale = m_max;
    v_scale = v_max;
}

}  // namespace

void adamw_8bit(float * param, const float * grad, const Moments8bit & moments, int64_t n, const AdamwParams & params,
                int n_threads) {
    constexpr int64_t size = Moments8bit::block_size;
    parallel_ranges(Moments8bit::n_blocks(n), size, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * size;
            step_block(param + first, grad + first, moments.m + first, moments.v + first, moments.m_scales[block],
                       moments.v_scales[block], std::min(size, n - first), params);
        }
    });
}

}  // namespace lorica::cpu
