// Random numbers and bf16: every device relies on these bits.
#include "common/bf16.h"
#include "common/random.h"

#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>

namespace lorica::test {
namespace {

TEST(Random, PhiloxGivesItsPublishedNumbers) {
    // Random123's known answers (kat_vectors, philox4x32 with 10 rounds): counter and key all zero.
    const PhiloxBlock zero = philox(0, 0);
    EXPECT_EQ(zero.value[0], 0x6627e8d5u);
    EXPECT_EQ(zero.value[1], 0xe169c58du);
    EXPECT_EQ(zero.value[2], 0xbc57ac4cu);
    EXPECT_EQ(zero.value[3], 0x9b00dbd8u);
}

TEST(Random, NumberIIsPartOfBlockIOver4) {
    for (uint64_t i = 0; i < 64; ++i) {
        EXPECT_EQ(random_u32(77, i), philox(77, i / 4).value[i % 4]);
    }
    EXPECT_NE(random_u32(1, 0), random_u32(2, 0));
    // Neither half of counter or key is dropped.
    EXPECT_NE(random_u32(1, 0), random_u32(1 + (uint64_t{1} << 32), 0));
    EXPECT_NE(random_u32(1, 0), random_u32(1, uint64_t{1} << 40));
}

TEST(Random, NormalHasMeanZeroAndVarianceOne) {
    const int n = 100000;
    double sum = 0, squares = 0, fourth = 0;
    for (int i = 0; i < n; ++i) {
        const double x = random_normal(5, i);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
    EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2.0 / n));
    EXPECT_NEAR(fourth / n, 3, 4 * std::sqrt(96.0 / n));
}

TEST(Random, UniformIsInTheUnitInterval) {
    const int n = 100000;
    double sum = 0;
    for (int i = 0; i < n; ++i) {
        const float x = random_uniform(6, i);
        ASSERT_GE(x, 0.0f);
        ASSERT_LT(x, 1.0f);
        sum += x;
    }
    EXPECT_NEAR(sum / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
}

TEST(Bf16, RoundsToNearestEvenAsGgmlDoes) {
    for (uint64_t i = 0; i < 200000; ++i) {
        const float x = std::bit_cast<float>(random_u32(3, i));
        if (!std::isnan(x)) {
            EXPECT_EQ(Bf16(x).bits, ggml_fp32_to_bf16(x).bits) << x;
        }
    }
    EXPECT_EQ(static_cast<float>(Bf16(1.00390625f)), 1.0f);       // a tie: to the even 1
    EXPECT_EQ(static_cast<float>(Bf16(1.01171875f)), 1.015625f);  // a tie: to the even 1.015625
    EXPECT_TRUE(std::isinf(static_cast<float>(Bf16(3.4e38f))));
}

TEST(Bf16, NanStaysNan) {
    for (const uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xff800001u, 0x7fc00000u}) {
        EXPECT_TRUE(std::isnan(static_cast<float>(Bf16(std::bit_cast<float>(bits)))));
    }
}

}  // namespace
}  // namespace lorica::test
