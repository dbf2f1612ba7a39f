// Every block format that ggml reads: what it quantizes comes back as close as the format's bits allow.
#include "common/error.h"
#include "common/random.h"
#include "gguf/dequantize.h"
#include "support/test_model.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace lorica {
namespace {

constexpr int64_t n_rows = 4, n_per_row = 512;

double relative_error(const std::vector<float> & expected, const std::vector<float> & actual) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double(expected[i]) - actual[i], 2);
        norm += std::pow(double(expected[i]), 2);
    }
    return std::sqrt(difference / norm);
}

class DequantizeTest : public testing::TestWithParam<ggml_type> {
protected:
    const ggml_type type = GetParam();

    static std::vector<std::byte> random_bytes(uint64_t seed, size_t n) {
        std::vector<std::byte> bytes(n);
        for (size_t i = 0; i < n; ++i) {
            bytes[i] = static_cast<std::byte>(random_u32(seed, i));
        }
        return bytes;
    }

    std::vector<float> dequantized(const std::vector<std::byte> & blocks, int64_t n) const {
        std::vector<float> values(static_cast<size_t>(n));
        dequantize_row(type, blocks.data(), values.data(), n);
        return values;
    }
};

TEST_P(DequantizeTest, gives_back_quantized_values_within_the_error_of_the_format) {
    const std::vector<float> values = test::random_values(7, type, n_rows * n_per_row);
    const std::vector<std::byte> blocks = test::quantize(type, values, n_per_row);
    const std::vector<float> back = dequantized(blocks, n_rows * n_per_row);

    static const std::map<ggml_type, double> floats = {
        {GGML_TYPE_F32, 0.0}, {GGML_TYPE_F16, 0x1p-11}, {GGML_TYPE_BF16, 0x1p-8}};
    if (const auto found = floats.find(type); found != floats.end()) {
        for (size_t i = 0; i < values.size(); ++i) {
            // F16's subnormal numbers have a fixed spacing of 2^-24.
            EXPECT_NEAR(back[i], values[i], found->second * (std::abs(values[i]) + 0x1p-14)) << i;
        }
        return;
    }
    // No code of b bits per value keeps Gaussian values better than 2^-b (Shannon's rate-distortion bound); scalar
    // codes with block scales stay within 3.5 times of it. Below two bits that says nothing any more, and what is worse
    // than 0.85 is not far from giving zeros, which has an error of 1.
    const double bits = 8.0 * static_cast<double>(blocks.size()) / static_cast<double>(values.size());
    EXPECT_GT(relative_error(values, back), std::exp2(-bits));
    EXPECT_LT(relative_error(values, back), std::min(3.5 * std::exp2(-bits), 0.85));
}

TEST_P(DequantizeTest, gives_the_same_values_for_single_blocks_as_for_the_whole_row) {
    const std::vector<std::byte> blocks = random_bytes(8, ggml_row_size(type, n_per_row));
    const std::vector<float> whole = dequantized(blocks, n_per_row);
    const int64_t block = ggml_blck_size(type);
    for (int64_t i = 0; i < n_per_row; i += block) {
        const auto offset = static_cast<ptrdiff_t>(ggml_row_size(type, i));
        const std::vector<float> part = dequantized({blocks.begin() + offset, blocks.end()}, block);
        EXPECT_EQ(std::memcmp(part.data(), &whole[static_cast<size_t>(i)], part.size() * sizeof(float)), 0)
            << "block at " << i;
    }
}

TEST_P(DequantizeTest, reads_any_bytes) {
    const size_t n_bytes = ggml_row_size(type, 64 * n_per_row);
    EXPECT_NO_THROW(dequantized(std::vector(n_bytes, std::byte{0xff}), 64 * n_per_row));
    for (uint64_t seed = 0; seed < 20; ++seed) {
        EXPECT_NO_THROW(dequantized(random_bytes(seed, n_bytes), 64 * n_per_row));
    }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DequantizeTest, testing::ValuesIn(test::all_weight_types()),
                         [](const auto & param) { return std::string(type_name(param.param)); });

TEST(TernaryTypesTest, keep_ternary_values_exactly) {
    std::vector<float> values(n_per_row);
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(random_u32(3, i) % 3) - 1.0f;
    }
    for (ggml_type type : {GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0}) {
        std::vector<float> back(values.size());
        dequantize_row(type, test::quantize(type, values, n_per_row).data(), back.data(), n_per_row);
        EXPECT_EQ(back, values) << type_name(type);
    }
}

TEST(WeightTypesTest, are_all_that_ggml_can_expand) {
    using testing::IsSupersetOf;
    std::vector<std::string> names;
    for (ggml_type type : test::all_weight_types()) {
        names.emplace_back(type_name(type));
    }
    EXPECT_THAT(names,
                IsSupersetOf({"F32",     "F16",   "BF16",   "Q4_0",   "Q4_1",  "Q5_0",  "Q5_1",    "Q8_0",   "Q2_K",
                              "Q3_K",    "Q4_K",  "Q5_K",   "Q6_K",   "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S",
                              "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4"}));
}

TEST(WeightTypesTest, are_not_the_intermediate_integer_and_removed_ones) {
    for (ggml_type type : {GGML_TYPE_Q8_1, GGML_TYPE_Q8_K, GGML_TYPE_I8, GGML_TYPE_I32, GGML_TYPE_F64, ggml_type(4),
                           ggml_type(31), GGML_TYPE_COUNT}) {
        EXPECT_FALSE(is_supported_weight_type(type)) << int(type);
        float value = 0;
        EXPECT_THROW(dequantize_row(type, &value, &value, 1), Error) << int(type);
    }
    EXPECT_STREQ(type_name(GGML_TYPE_COUNT), "unknown");
}

TEST(WeightTypesTest, are_read_in_whole_blocks) {
    const std::vector<std::byte> block(ggml_row_size(GGML_TYPE_Q4_0, 32));
    std::vector<float> values(32);
    EXPECT_THROW(dequantize_row(GGML_TYPE_Q4_0, block.data(), values.data(), 31), Error);
}

}  // namespace
}  // namespace lorica
