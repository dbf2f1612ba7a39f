// The blocks of weights as products expand them, next to ggml's to_float.
#include "backend/cuda/block_pairs.cuh"

#include "common/bf16.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace lorica::cuda {

namespace {

constexpr int n_units = 24, n_elements = n_units * unit_size;

// Where a block has halves, and how many bytes apart rows may begin from a multiple of 16.
struct Layout {
    std::vector<size_t> halves;
    int step;
};
Layout layout_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F16: return {{}, 16};
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K: return {{0, 2}, 16};
        case GGML_TYPE_Q2_K: return {{80, 82}, 4};
        case GGML_TYPE_Q3_K: return {{108}, 2};
        case GGML_TYPE_Q6_K: return {{208}, 2};
        case GGML_TYPE_IQ4_XS: return {{0}, 8};
        case GGML_TYPE_MXFP4: return {{}, 1};
        default: return {{0}, 2};
    }
}
// What is off by no more than the rounding to bf16.
bool is_exact(ggml_type type) { return has_raised_expansion(type) || type == GGML_TYPE_MXFP4 || type == GGML_TYPE_F16; }

// Any bits at all, but scales and offsets of 2^-10 to 8 to either side of zero.
std::vector<uint8_t> random_row(ggml_type type) {
    std::mt19937 random(static_cast<unsigned>(type));
    const auto half = [&] { return static_cast<uint16_t>((random() & 0x83ffu) | (5 + random() % 13) << 10); };
    std::vector<uint8_t> row(static_cast<size_t>(n_units * unit_bytes_of(type)));
    if (type == GGML_TYPE_F16) {
        for (size_t i = 0; i < row.size(); i += 2) {
            const uint16_t bits = half();
            std::memcpy(&row[i], &bits, 2);
        }
        return row;
    }
    for (uint8_t & byte : row) byte = static_cast<uint8_t>(random());
    const size_t block_bytes = ggml_type_size(type);
    for (size_t at = 0, i = 0; at < row.size(); at += block_bytes, ++i) {
        for (const size_t place : layout_of(type).halves) {
            const uint16_t bits = half();
            std::memcpy(&row[at + place], &bits, 2);
        }
        // All powers of two; the last one stands for no number.
        if (type == GGML_TYPE_MXFP4) row[at] = static_cast<uint8_t>(i * 4 % 255 + i / 64);
    }
    return row;
}

template <ggml_type type> void expect_what_ggml_expands(int misaligned_by) {
    SCOPED_TRACE(testing::Message() << ggml_type_name(type) << ", " << misaligned_by << " bytes from alignment");
    const std::vector<uint8_t> row = random_row(type);
    std::vector<float> expected(n_elements);
    ggml_get_type_traits(type)->to_float(row.data(), expected.data(), n_elements);

    // Up to 4 bytes after the blocks may be read, and no more.
    std::vector<uint8_t> memory(row.size() + 16 + static_cast<size_t>(misaligned_by) + 4);
    uint8_t * at = memory.data();
    while (reinterpret_cast<uintptr_t>(at) % 16 != static_cast<uintptr_t>(misaligned_by)) ++at;
    memory.resize(static_cast<size_t>(at - memory.data()) + row.size() + 4);
    std::memcpy(at, row.data(), row.size());

    const auto expect_piece = [&](int first, const uint32_t * pairs) {
        const float * wanted = expected.data() + first;
        float most = 0;
        for (int i = first / 256 * 256; i < first / 256 * 256 + 256; ++i)
            most = std::max(most, std::abs(expected[static_cast<size_t>(i)]));
        for (int i = 0; i < piece_size; ++i) {
            const float got = i % 2 ? high_bf16(pairs[i / 2]) : low_bf16(pairs[i / 2]);
            if (is_exact(type)) {
                ASSERT_EQ(got, static_cast<float>(Bf16(wanted[i]))) << "element " << first + i;
            } else {
                const float half_of_a_unit = wanted[i] == 0 ? 0 : std::ldexp(1.0f, std::ilogb(wanted[i]) - 8);
                ASSERT_LE(std::abs(got - wanted[i]), half_of_a_unit + std::ldexp(most, -15))
                    << "element " << first + i << " is " << got << ", not " << wanted[i];
            }
        }
    };
    for (int pair = 0; pair < n_elements / pair_size; ++pair) {
        const auto quarter = static_cast<unsigned>(pair % 4);
        PairPlace place = place_of_pair<type>(at + pair / 4 * unit_bytes_of(type), quarter, true);
        RawPair raw;
        load_pair<type>(place, raw);
        expand_pair<type>(raw, place.shift, quarter, [&](auto which, const uint32_t * pairs) {
            expect_piece(pair * pair_size + which() * piece_size, pairs);
        });
        if (ggml_blck_size(type) > piece_size) continue;
        // A row that ends with the first piece.
        const size_t piece_bytes = static_cast<size_t>(unit_bytes_of(type)) / 8;
        const size_t n_bytes = static_cast<size_t>(2 * pair + 1) * piece_bytes;
        std::vector<uint8_t> shorter(static_cast<size_t>(at - memory.data()) + n_bytes + 4);
        uint8_t * begin = shorter.data();
        while (reinterpret_cast<uintptr_t>(begin) % 16 != static_cast<uintptr_t>(misaligned_by)) ++begin;
        std::memcpy(begin, row.data(), std::min(n_bytes, static_cast<size_t>(shorter.data() + shorter.size() - begin)));
        place = place_of_pair<type>(begin + pair / 4 * unit_bytes_of(type), quarter, false);
        load_pair<type>(place, raw);
        expand_pair<type>(raw, place.shift, quarter, [&](auto which, const uint32_t * pairs) {
            if (which() == 0) expect_piece(pair * pair_size, pairs);
        });
    }
}

class BlockPairs : public testing::TestWithParam<ggml_type> {};

TEST_P(BlockPairs, AreWhatGgmlExpands) {
    for (int by = 0; by < 4; by += layout_of(GetParam()).step) {
        const auto expand = [&](auto type) { expect_what_ggml_expands<decltype(type)::value>(by); };
        with_fused_type(GetParam(), expand);
    }
}

// An instance of a type with the same blocks, so many rows later.
TEST_P(BlockPairs, ArePlacedOnceForManyRows) {
    with_fused_type(GetParam(), [&](auto type_) {
        constexpr ggml_type type = decltype(type_)::value;
        const std::vector<uint8_t> row = random_row(type);
        const int64_t step = int64_t{4} * unit_bytes_of(type);
        alignas(16) static uint8_t memory[n_units * 512 + 16];
        std::memcpy(memory, row.data(), row.size());
        for (unsigned quarter = 0; quarter < 4; ++quarter) {
            PairPlace place = place_of_pair<type>(memory, quarter, true);
            place.advance(step);
            const PairPlace same = place_of_pair<type>(memory + step, quarter, true);
            RawPair raw{}, raw_of_same{};
            load_pair<type>(place, raw);
            load_pair<type>(same, raw_of_same);
            EXPECT_EQ(std::memcmp(&raw, &raw_of_same, sizeof(raw)), 0) << "quarter " << quarter;
            EXPECT_EQ(place.shift, same.shift);
        }
    });
}

INSTANTIATE_TEST_SUITE_P(, BlockPairs,
                         testing::Values(GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1,
                                         GGML_TYPE_Q8_0, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,
                                         GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS, GGML_TYPE_MXFP4),
                         [](const auto & info) { return std::string(ggml_type_name(info.param)); });

}  // namespace

}  // namespace lorica::cuda
