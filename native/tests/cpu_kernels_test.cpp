// The CPU kernels against plain double loops: every instruction set that this machine has, awkward shapes, one thread
// and two.
#include <gtest/gtest.h>

#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/dot_rows.h"
#include "backend/cpu/dropout.h"
#include "backend/cpu/elementwise.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/interleaved.h"
#include "backend/cpu/panel.h"
#include "backend/cpu/token_sums.h"
#include "common/bf16.h"
#include "common/random.h"
#include "gguf/dequantize.h"
#include "support/test_model.h"

#include <sys/mman.h>
#include <unistd.h>

namespace lorica::cpu {
namespace {

constexpr float sentinel = 12288;  // fills what a kernel must not touch; exact in bf16

// Rows in a format, each followed by a gap that must stay as it was.
class Rows {
public:
    Rows(Dtype type, int64_t rows, int64_t cols, int64_t gap = 3)
        : bytes_(static_cast<size_t>(rows * (cols + gap)) * dtype_size(type)),
          view_{bytes_.data(), type, rows, cols, cols + gap} {
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < cols + gap; ++c) set(r, c, sentinel);
        }
    }
    Rows(const Rows & other) : bytes_(other.bytes_), view_(other.view_) { view_.data = bytes_.data(); }

    static Rows random(Dtype type, int64_t rows, int64_t cols, uint64_t seed, double scale = 1) {
        Rows result(type, rows, cols);
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < cols; ++c) {
                result.set(r, c, static_cast<float>(scale * random_normal(seed, static_cast<uint64_t>(r * cols + c))));
            }
        }
        return result;
    }

    double at(int64_t r, int64_t c) const {
        return view_.type == Dtype::bf16 ? static_cast<float>(view_.row_as<Bf16>(r)[c]) : view_.row_as<float>(r)[c];
    }
    void set(int64_t r, int64_t c, float value) {
        if (view_.type == Dtype::bf16) {
            view_.row_as<Bf16>(r)[c] = Bf16(value);
        } else {
            view_.row_as<float>(r)[c] = value;
        }
    }
    Matrix view() const { return view_; }
    bool gaps_untouched() const {
        for (int64_t r = 0; r < view_.rows; ++r) {
            for (int64_t c = view_.cols; c < view_.stride; ++c) {
                if (at(r, c) != sentinel) return false;
            }
        }
        return true;
    }
    bool operator==(const Rows & other) const { return bytes_ == other.bytes_; }

private:
    std::vector<std::byte> bytes_;
    Matrix view_;
};

double tolerance(Dtype type) { return type == Dtype::bf16 ? 0x1p-8 : 2e-6; }

// |actual - expected| <= tolerance * (|expected| + scale) for every element, and the gaps untouched.
template <typename Expected>
void expect_rows(const Rows & actual, double tolerance, double scale, const char * name, const Expected & expected) {
    EXPECT_TRUE(actual.gaps_untouched()) << name;
    for (int64_t r = 0; r < actual.view().rows; ++r) {
        for (int64_t c = 0; c < actual.view().cols; ++c) {
            const double want = expected(r, c), got = actual.at(r, c);
            ASSERT_LE(std::abs(got - want), tolerance * (std::abs(want) + scale))
                << name << " row " << r << " column " << c << ": " << got << " instead of " << want;
        }
    }
}

class CpuKernels : public testing::TestWithParam<int64_t> {
protected:
    void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
    void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

std::vector<int64_t> targets() {
    std::vector<int64_t> result;
    for (int64_t rest = hwy::SupportedTargets() & HWY_TARGETS; rest != 0; rest &= rest - 1) {
        result.push_back(rest & -rest);
    }
    return result;
}

INSTANTIATE_TEST_SUITE_P(Targets, CpuKernels, testing::ValuesIn(targets()),
                         [](const auto & target) { return std::string(hwy::TargetName(target.param)); });

// In a process of its own: the limit is read once.
TEST(CpuKernelsDeathTest, RunUnderTheLimitOfTheInstructionSets) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    const auto runs_under = [](const char * limit, const std::string & name) {
        setenv("LORICA_ISA", limit, 1);
        const auto backend = make_cpu_backend(Dtype::bf16, 1);
        const std::string detail = backend->detail();
        std::exit(detail.starts_with(name) && hwy::TargetName(kernel_target()) == name ? 0 : 1);
    };
    if (!(hwy::SupportedTargets() & HWY_AVX2)) GTEST_SKIP() << "an x86 processor with AVX2 is needed";
    EXPECT_EXIT(runs_under("avx2", "AVX2"), testing::ExitedWithCode(0), "");
    EXPECT_EXIT(runs_under("baseline", "SSE2"), testing::ExitedWithCode(0), "");
}

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::bf16};
constexpr int64_t widths[] = {1, 7, 16, 33, 192, 577};

TEST_P(CpuKernels, RmsnormMatchesItsFormula) {
    for (const Dtype type : dtypes) {
        for (const int64_t n : widths) {
            const Rows x = Rows::random(Dtype::f32, 5, n, 1), w = Rows::random(Dtype::f32, 1, n, 2);
            Rows y(type, 5, n);
            norm(x.view(), {w.view().as<float>(), 1e-5, {}}, {}, y.view(), 2);
            expect_rows(y, tolerance(type), 1e-3, "y", [&](int64_t r, int64_t c) {
                double squares = 0;
                for (int64_t i = 0; i < n; ++i) squares += x.at(r, i) * x.at(r, i);
                return x.at(r, c) * w.at(0, c) / std::sqrt(squares / static_cast<double>(n) + 1e-5);
            });
        }
    }
}

TEST_P(CpuKernels, RmsnormBackwardAddsTheDerivative) {
    for (const Dtype type : dtypes) {
        for (const int64_t n : widths) {
            const Rows x = Rows::random(Dtype::f32, 5, n, 1), w = Rows::random(Dtype::f32, 1, n, 2);
            const Rows dy = Rows::random(type, 5, n, 3), before = Rows::random(Dtype::f32, 5, n, 4);
            Rows dx = before;
            norm_backward(dy.view(), x.view(), {w.view().as<float>(), 1e-5, {}}, true, dx.view(), {}, 2);
            expect_rows(dx, 1e-5, 1, "dx", [&](int64_t r, int64_t c) {
                double squares = 0, dot = 0;
                for (int64_t i = 0; i < n; ++i) {
                    squares += x.at(r, i) * x.at(r, i);
                    dot += dy.at(r, i) * w.at(0, i) * x.at(r, i);
                }
                const double s = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
                return before.at(r, c) + dy.at(r, c) * w.at(0, c) * s -
                       x.at(r, c) * s * s * s * dot / static_cast<double>(n);
            });
        }
    }
}

TEST_P(CpuKernels, RopeRotatesPairsExactlyAtLongPositions) {
    const std::vector<int32_t> positions = {0, 1, 77, 4095, 131071, 1000003};
    for (const Dtype type : dtypes) {
        for (const int32_t head_dim : {2, 6, 64, 80, 256}) {
            for (const int32_t n_rotated : {head_dim / 2, std::max(1, head_dim / 4)}) {
                std::vector<double> frequencies;
                for (int32_t i = 0; i < n_rotated; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / head_dim));
                const auto n_rows = static_cast<int64_t>(positions.size());
                const Rows before = Rows::random(type, n_rows, 3 * head_dim, 5);
                Rows x = before;
                RotationTable table;
                rope(x.view(), positions.data(), {frequencies, head_dim}, RopeDirection::forward, table, 2);
                expect_rows(x, tolerance(type), 0.5, "x", [&](int64_t r, int64_t c) {
                    const int64_t within = c % head_dim;
                    if (within >= 2 * n_rotated) return before.at(r, c);
                    const double angle =
                        positions[static_cast<size_t>(r)] * frequencies[static_cast<size_t>(within / 2)];
                    return within % 2 == 0 ? before.at(r, c) * std::cos(angle) - before.at(r, c + 1) * std::sin(angle)
                                           : before.at(r, c) * std::cos(angle) + before.at(r, c - 1) * std::sin(angle);
                });
                rope(x.view(), positions.data(), {frequencies, head_dim}, RopeDirection::undo, table, 1);
                expect_rows(x, 2 * tolerance(type), 1, "rotated back",
                            [&](int64_t r, int64_t c) { return before.at(r, c); });
            }
        }
    }
}

TEST_P(CpuKernels, SwigluAndItsDerivativeMatchTheirFormulas) {
    for (const Dtype type : dtypes) {
        for (const int64_t n : widths) {
            const Rows gate = Rows::random(type, 4, n, 1, 6), up = Rows::random(type, 4, n, 2),
                       dh = Rows::random(type, 4, n, 3);
            Rows h(type, 4, n), dgate = gate, dup = up;
            const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
            gated(gate.view(), up.view(), Act::silu, h.view(), 2);
            const double relative = type == Dtype::bf16 ? 0x1p-8 : 1e-6;
            expect_rows(h, relative, 1e-30, "h",
                        [&](int64_t r, int64_t c) { return gate.at(r, c) * sigmoid(gate.at(r, c)) * up.at(r, c); });
            Rows dh_then_h = dh;
            gated_backward(dgate.view(), dup.view(), Act::silu, dh_then_h.view(), dgate.view(), dup.view(),
                           dh_then_h.view(), 2);
            for (int64_t r = 0; r < 4; ++r) {
                for (int64_t c = 0; c < n; ++c) EXPECT_EQ(dh_then_h.at(r, c), h.at(r, c));
            }
            expect_rows(dup, relative, 1e-30, "dup",
                        [&](int64_t r, int64_t c) { return dh.at(r, c) * gate.at(r, c) * sigmoid(gate.at(r, c)); });
            expect_rows(dgate, relative, 0.1, "dgate", [&](int64_t r, int64_t c) {
                const double g = gate.at(r, c), s = sigmoid(g);
                return dh.at(r, c) * up.at(r, c) * s * (1 + g * (1 - s));
            });
        }
    }
}

TEST_P(CpuKernels, SwigluKeepsNanAndBoundsExtremes) {
    Rows gate(Dtype::f32, 1, 40), up(Dtype::f32, 1, 40), h(Dtype::f32, 1, 40);
    for (int64_t i = 0; i < 40; ++i) gate.set(0, i, static_cast<float>(40 * (i - 20))), up.set(0, i, 1);
    gate.set(0, 9, std::numeric_limits<float>::quiet_NaN());
    gated(gate.view(), up.view(), Act::silu, h.view(), 1);
    for (int64_t i = 0; i < 40; ++i) {
        if (i == 9) {
            EXPECT_TRUE(std::isnan(h.at(0, i)));
        } else {
            EXPECT_NEAR(h.at(0, i), std::max(gate.at(0, i), 0.0), 1e-12) << gate.at(0, i);
        }
    }
}

TEST_P(CpuKernels, ConversionRoundsLikeTheScalarTypeAndKeepsNan) {
    std::vector<float> values = {0.0f,
                                 -0.0f,
                                 1.0f,
                                 1.00390625f,
                                 1.01171875f,
                                 -3.4e38f,
                                 std::numeric_limits<float>::max(),
                                 std::numeric_limits<float>::infinity(),
                                 -std::numeric_limits<float>::infinity()};
    for (uint64_t i = 0; i < 300; ++i) values.push_back(static_cast<float>(random_normal(3, i)));
    values.push_back(std::numeric_limits<float>::quiet_NaN());
    values.push_back(std::bit_cast<float>(0xffffffffu));
    const auto n = static_cast<int64_t>(values.size());
    Rows y(Dtype::bf16, 1, n), back(Dtype::f32, 1, n);
    convert({values.data(), Dtype::f32, 1, n, n}, y.view(), 2);
    convert(y.view(), back.view(), 2);
    for (int64_t i = 0; i < n; ++i) {
        const auto expected = static_cast<float>(Bf16(values[static_cast<size_t>(i)]));
        if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(y.at(0, i)) && std::isnan(back.at(0, i))) << i;
        } else {
            EXPECT_EQ(y.at(0, i), expected) << i;
            EXPECT_EQ(back.at(0, i), expected) << i;
        }
    }
    EXPECT_TRUE(y.gaps_untouched() && back.gaps_untouched());
}

// Numerators and their sums, or maxima, next to std::exp: whole lines and parts of them, past the caches or not.
TEST_P(CpuKernels, StoresASoftmax) {
    constexpr int64_t rows = 9;
    for (const Dtype type : {Dtype::f32, Dtype::bf16}) {
        for (const int64_t cols : {int64_t{64}, int64_t{32}, int64_t{7}, int64_t{45}}) {
            const Rows c = Rows::random(Dtype::f32, rows, cols, 1);
            const int64_t parts = (cols + softmax_columns - 1) / softmax_columns;
            const std::vector<float> reference{0, 1, -1, 30, -30, 0.5f, 200, 0, 0};
            for (const bool stream : {false, true}) {
                Rows y = Rows::random(type, rows, 128, 2);
                std::vector<float> sums(static_cast<size_t>(parts * rows)), maxima(sums);
                SoftmaxStoreArgs args{c.view().row_as<float>(0),
                                      c.view().stride,
                                      reference.data(),
                                      sums.data(),
                                      rows,
                                      y.view().data,
                                      y.view().stride,
                                      type == Dtype::bf16,
                                      rows,
                                      cols,
                                      stream,
                                      false};
                store_softmax(args);
                stores_done();
                args.reference = nullptr;
                args.sums = maxima.data();
                args.y = nullptr;
                store_softmax(args);
                for (int64_t r = 0; r < rows; ++r) {
                    for (int64_t part = 0; part < parts; ++part) {
                        double sum = 0, highest = -INFINITY;
                        for (int64_t i = part * softmax_columns; i < std::min(cols, (part + 1) * softmax_columns);
                             ++i) {
                            const double e = std::exp(
                                std::max(c.at(r, i) - reference[static_cast<size_t>(r)], -126 * std::log(2.0)));
                            sum += e;
                            highest = std::max(highest, static_cast<double>(c.at(r, i)));
                            EXPECT_NEAR(y.at(r, i), e, e * (type == Dtype::bf16 ? 4e-3 : 1e-5))
                                << cols << " " << r << " " << i;
                        }
                        EXPECT_NEAR(sums[static_cast<size_t>(part * rows + r)], sum, sum * 1e-5);
                        EXPECT_EQ(maxima[static_cast<size_t>(part * rows + r)], static_cast<float>(highest));
                    }
                }
            }
        }
    }
}

// Past the caches or through them, with and without a residual: the same bytes, and nothing beside them.
TEST_P(CpuKernels, StreamedStoresWriteTheSameBytes) {
    constexpr int64_t rows = 5;
    for (const Dtype type : {Dtype::f32, Dtype::bf16}) {
        for (const int64_t cols : {int64_t{64}, int64_t{32}, int64_t{40}}) {
            const Rows c = Rows::random(Dtype::f32, rows, cols, 1), residual = Rows::random(Dtype::f32, rows, cols, 2);
            for (const bool adds : {false, true}) {
                const auto stored = [&](bool stream) {
                    // Rows of whole cache lines, from an aligned address on.
                    std::vector<std::byte> bytes(static_cast<size_t>((rows + 1) * 128 * 4), std::byte{0x5a});
                    const auto address = (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64;
                    const StoreArgs args{c.view().row_as<float>(0),
                                         c.view().stride,
                                         adds ? residual.view().row_as<float>(0) : nullptr,
                                         residual.view().stride,
                                         reinterpret_cast<void *>(address),
                                         128,
                                         rows,
                                         cols,
                                         stream};
                    (type == Dtype::bf16 ? store_block_bf16 : store_block_f32)(args);
                    stores_done();
                    const auto * first = reinterpret_cast<const std::byte *>(address);
                    return std::vector<std::byte>(first, first + rows * 128 * static_cast<int64_t>(dtype_size(type)));
                };
                const auto plain = stored(false);
                EXPECT_EQ(stored(true), plain) << "cols " << cols;
                for (int64_t i = 0; i < rows * cols; ++i) {
                    const int64_t r = i / cols, j = i % cols;
                    const auto want = static_cast<float>(c.at(r, j) + (adds ? residual.at(r, j) : 0));
                    const std::byte * at = plain.data() + (r * 128 + j) * static_cast<int64_t>(dtype_size(type));
                    if (type == Dtype::bf16) {
                        ASSERT_EQ(reinterpret_cast<const Bf16 *>(at)->bits, Bf16(want).bits);
                    } else {
                        ASSERT_EQ(*reinterpret_cast<const float *>(at), want);
                    }
                }
            }
        }
    }
}

// Two sums over one wide matrix, as q and k have them, and one over another; numbers of tokens, ranks and columns that
// fill no tile.
TEST_P(CpuKernels, TokenSumsAddTheGradientsOfALora) {
    for (const Dtype type : {Dtype::f32, Dtype::bf16}) {
        for (const auto & [tokens, rank, cols] :
             {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {31, 4, 24}, {64, 16, 64}, {97, 17, 130}}) {
            const Rows x = Rows::random(type, tokens, cols, 1), dy = Rows::random(type, tokens, cols + 5, 2);
            const Rows u = Rows::random(type, tokens, rank, 3), v = Rows::random(type, tokens, rank, 4),
                       w = Rows::random(type, tokens, rank, 5);
            const Rows before = Rows::random(Dtype::f32, rank, cols, 6),
                       before_t = Rows::random(Dtype::f32, cols + 5, rank, 7);
            for (const int threads : {1, 2}) {
                Rows da = before, da_2 = before, db = before_t;
                Scratch scratch;
                const Context context{type == Dtype::bf16 ? GemmPrecision::bf16 : GemmPrecision::f32, threads, scratch};
                const TokenSum sums[] = {{v.view(), 1, x.view(), da.view(), false},
                                         {w.view(), 1, x.view(), da_2.view(), false},
                                         {u.view(), 2, dy.view(), db.view(), true}};
                add_token_sums(context, sums);
                const auto sum = [&](const Rows & narrow, int64_t i, const Rows & wide, int64_t j) {
                    double total = 0;
                    for (int64_t t = 0; t < tokens; ++t) total += narrow.at(t, i) * wide.at(t, j);
                    return total;
                };
                const double scale = std::sqrt(static_cast<double>(tokens));
                expect_rows(da, 2e-6, scale, "dA",
                            [&](int64_t i, int64_t j) { return before.at(i, j) + sum(v, i, x, j); });
                expect_rows(da_2, 2e-6, scale, "dA",
                            [&](int64_t i, int64_t j) { return before.at(i, j) + sum(w, i, x, j); });
                expect_rows(db, 2e-6, scale, "dB",
                            [&](int64_t j, int64_t i) { return before_t.at(j, i) + 2 * sum(u, i, dy, j); });
            }
        }
    }
}

TEST_P(CpuKernels, RowsAreGatheredScatteredAndEmbedded) {
    const std::vector<int32_t> rows = {4, 0, 3};
    const Rows x = Rows::random(Dtype::f32, 6, 37, 1), dy = Rows::random(Dtype::f32, 3, 37, 2);
    Rows y(Dtype::f32, 3, 37), dx = x;
    gather_rows(x.view(), rows.data(), y.view(), 2);
    expect_rows(y, 0, 0, "y", [&](int64_t r, int64_t c) { return x.at(rows[static_cast<size_t>(r)], c); });
    scatter_add_rows(dy.view(), rows.data(), dx.view(), 2);
    expect_rows(dx, 1e-7, 0, "dx", [&](int64_t r, int64_t c) {
        const auto found = std::find(rows.begin(), rows.end(), static_cast<int32_t>(r));
        return x.at(r, c) + (found == rows.end() ? 0 : dy.at(found - rows.begin(), c));
    });

    std::vector<float> table(6 * 37);
    for (size_t i = 0; i < table.size(); ++i) table[i] = x.view().row_as<float>(static_cast<int64_t>(i / 37))[i % 37];
    const Weight embedding = {GGML_TYPE_F32, 6, 37, 37 * sizeof(float),
                              reinterpret_cast<const std::byte *>(table.data())};
    for (const Dtype type : dtypes) {
        Rows embedded(type, 3, 37);
        embed(embedding, rows.data(), {}, embedded.view(), 2);
        expect_rows(embedded, type == Dtype::bf16 ? 0x1p-8 : 0, 0, "embedded",
                    [&](int64_t r, int64_t c) { return x.at(rows[static_cast<size_t>(r)], c); });
    }
}

TEST_P(CpuKernels, DropoutDrawsTheNumbersOfTheScalarGenerator) {
    for (const int64_t n : widths) {
        for (const int64_t first_row : {int64_t{0}, int64_t{3}, (int64_t{1} << 34) / n - 2}) {
            const Dropout setting = {0.3f, 0x123456789abcdefu};
            const Rows x = Rows::random(Dtype::f32, 5, n, 1), before = Rows::random(Dtype::f32, 5, n, 2);
            Rows y(Dtype::f32, 5, n), dx = before;
            dropout(x.view(), setting, y.view(), 2, first_row);
            dropout_backward_add(x.view(), setting, dx.view(), 2, first_row);
            const auto factor = static_cast<float>(1 / (1 - static_cast<double>(setting.p)));
            const auto expected = [&](int64_t r, int64_t c) {
                const uint32_t number = random_u32(setting.seed, static_cast<uint64_t>((first_row + r) * n + c));
                return number >= dropout_threshold(setting.p) ? static_cast<float>(x.at(r, c)) * factor : 0.0f;
            };
            expect_rows(y, 0, 0, "y", expected);
            expect_rows(dx, 3e-7, 1, "dx", [&](int64_t r, int64_t c) { return before.at(r, c) + expected(r, c); });
        }
    }
}

TEST_P(CpuKernels, SumOfSquaresIsExactAndTheSameForAnyThreads) {
    for (const int64_t n : {0, 1, 63, 64, 65, 100003}) {
        const Rows x = Rows::random(Dtype::f32, 1, n, 1);
        double expected = 0;
        for (int64_t i = 0; i < n; ++i) expected += x.at(0, i) * x.at(0, i);
        const double one = sum_of_squares(x.view().as<float>(), n, 1);
        EXPECT_NEAR(one, expected, 1e-12 * expected);
        EXPECT_EQ(one, sum_of_squares(x.view().as<float>(), n, 2));
    }
    std::vector<float> values(1000, 1.0f);
    values[999] = std::numeric_limits<float>::infinity();
    EXPECT_TRUE(std::isinf(sum_of_squares(values.data(), 1000, 2)));
    values[500] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(sum_of_squares(values.data(), 1000, 2)));
}

TEST_P(CpuKernels, AdamwFollowsTheAlgorithm) {
    constexpr int64_t n = 40007;
    Rows param = Rows::random(Dtype::f32, 1, n, 1), m(Dtype::f32, 1, n), v(Dtype::f32, 1, n);
    std::vector<double> p(n), m64(n, 0.0), v64(n, 0.0);
    for (int64_t i = 0; i < n; ++i) p[static_cast<size_t>(i)] = param.at(0, i), m.set(0, i, 0), v.set(0, i, 0);
    for (int64_t step = 1; step <= 3; ++step) {
        const Rows grad = Rows::random(Dtype::f32, 1, n, static_cast<uint64_t>(10 + step), 50);
        const AdamwParams params = {2e-3, 0.9, 0.999, 1e-8, 0.1, 0.02, step};
        Rows single = param, single_m = m, single_v = v;
        adamw(param.view().as<float>(), grad.view().as<float>(), m.view().as<float>(), v.view().as<float>(), n, params,
              2);
        adamw(single.view().as<float>(), grad.view().as<float>(), single_m.view().as<float>(),
              single_v.view().as<float>(), n, params, 1);
        EXPECT_TRUE(single == param && single_m == m && single_v == v);
        for (size_t i = 0; i < n; ++i) {
            const double g = grad.at(0, static_cast<int64_t>(i)) * params.grad_scale;
            p[i] *= 1 - params.learning_rate * params.weight_decay;
            m64[i] = params.beta1 * m64[i] + (1 - params.beta1) * g;
            v64[i] = params.beta2 * v64[i] + (1 - params.beta2) * g * g;
            const auto t = static_cast<double>(step);
            p[i] -= params.learning_rate * (m64[i] / (1 - std::pow(params.beta1, t))) /
                    (std::sqrt(v64[i] / (1 - std::pow(params.beta2, t))) + params.eps);
        }
    }
    expect_rows(param, 2e-6, 1e-2, "param", [&](int64_t, int64_t c) { return p[static_cast<size_t>(c)]; });
    EXPECT_TRUE(m.gaps_untouched() && v.gaps_untouched());
}

// ---- attention

struct AttentionCase {
    const char * name;
    std::vector<Segment> segments;
    AttentionShape shape;
};

int64_t query_rows(const AttentionCase & c) {
    int64_t n = 0;
    for (const Segment & s : c.segments) n = std::max<int64_t>(n, s.q_begin + s.q_len);
    return n;
}
int64_t key_rows(const AttentionCase & c) {
    int64_t n = 0;
    for (const Segment & s : c.segments) n = std::max<int64_t>(n, s.kv_begin + s.kv_len);
    return n;
}

std::vector<Segment> packed(const std::vector<int32_t> & lengths) {
    std::vector<Segment> result;
    int32_t at = 0;
    for (const int32_t n : lengths) result.push_back({at, n, at, n}), at += n;
    return result;
}

AttentionShape heads(int32_t n_head, int32_t n_head_kv, int32_t head_dim, MaskSpec mask = {}, double softcap = 0) {
    return {n_head, n_head_kv, head_dim, 1 / std::sqrt(static_cast<double>(head_dim)), mask, softcap};
}

std::vector<AttentionCase> training_cases() {
    return {
        {"one token", packed({1}), heads(1, 1, 8)},
        {"short sequences", packed({1, 2, 5, 1, 17, 31, 3}), heads(6, 2, 64)},
        {"around a panel", packed({10, 11, 32, 33}), heads(3, 1, 32)},
        {"around a block of keys", packed({63, 64, 65}), heads(4, 2, 64)},
        {"around a block of rows", packed({127, 128, 129}), heads(2, 2, 40)},
        {"around a chunk of keys", packed({511, 512, 513}), heads(2, 1, 64)},
        {"two chunks and a prefix", {{0, 20, 0, 700}}, heads(2, 1, 64)},
        {"long", packed({1100, 20}), heads(3, 1, 64)},
        {"awkward head", packed({70, 9}), heads(4, 2, 20)},
        {"odd head", packed({37}), heads(3, 3, 5)},
        {"wide head", packed({90}), heads(2, 1, 256)},
        {"prefix in the cache", {{0, 40, 0, 150}, {40, 7, 150, 300}}, heads(6, 2, 64)},
        {"gaps between segments", {{3, 20, 5, 20}, {30, 9, 40, 9}}, heads(4, 1, 16)},
        {"window of few", packed({1, 30, 200}), heads(3, 1, 32, {6, 0})},
        {"window of a panel", packed({130, 33}), heads(2, 2, 64, {31, 0})},
        {"window of a block", packed({300}), heads(4, 1, 64, {63, 0})},
        {"window over chunks", packed({1100, 20}), heads(2, 1, 64, {299, 0})},
        {"window of a chunk behind a prefix", {{0, 90, 0, 700}}, heads(2, 1, 40, {511, 0})},
        {"window wider than the text", packed({70, 9}), heads(2, 1, 32, {1000, 0})},
        {"both ways", packed({1, 2, 100, 33}), heads(4, 2, 64, {MaskSpec::all, MaskSpec::all})},
        {"both ways, long", packed({600}), heads(2, 1, 32, {MaskSpec::all, MaskSpec::all})},
        {"symmetric window", packed({300, 7}), heads(3, 1, 64, {64, 64})},
        {"symmetric window over chunks", packed({1100}), heads(2, 1, 32, {20, 20})},
        {"soft cap", packed({1, 100, 33}), heads(4, 2, 64, {}, 5)},
        {"soft cap and window over chunks", packed({700}), heads(2, 1, 64, {100, 0}, 3)},
    };
}

// A token of each of many sequences, more than have room at once.
std::vector<Segment> one_token_each() {
    std::vector<Segment> segments;
    int32_t keys = 0;
    for (int32_t i = 0; i < 21; ++i) {
        const int32_t n = 2 + 37 * i % 301;
        segments.push_back({i, 1, keys, n});
        keys += n;
    }
    return segments;
}

std::vector<AttentionCase> decoding_cases() {
    return {
        {"many sequences", one_token_each(), heads(8, 2, 40)},
        {"many windows", one_token_each(), heads(6, 2, 64, {130, 0})},
        {"one token after many", {{0, 1, 0, 1000}}, heads(9, 3, 64)},
        {"short cache", {{0, 1, 0, 64}}, heads(2, 1, 128)},
        {"several sequences", {{0, 1, 0, 300}, {1, 1, 300, 77}, {2, 3, 377, 520}}, heads(8, 2, 40)},
        {"odd head and cache", {{0, 2, 0, 513}}, heads(3, 1, 21)},
        {"tokens over a border of parts", {{0, 4, 0, 514}}, heads(4, 4, 64)},
        {"window in the cache", {{0, 1, 0, 1000}}, heads(9, 3, 64, {199, 0})},
        {"window of a part", {{0, 4, 0, 514}, {4, 1, 514, 300}}, heads(4, 2, 40, {127, 0})},
        {"window of few in the cache", {{0, 3, 0, 260}}, heads(2, 1, 64, {2, 0})},
        {"soft cap in the cache", {{0, 2, 0, 400}}, heads(4, 2, 64, {300, 0}, 5)},
    };
}

struct AttentionReference {
    std::vector<double> o, lse, dq, dk, dv;
};

AttentionReference plain_loops(const AttentionCase & c, const Rows & q, const Rows & k, const Rows & v,
                               const Rows & d_o) {
    const AttentionShape & shape = c.shape;
    const int64_t hd = shape.head_dim, q_cols = shape.n_head * hd, kv_cols = shape.n_head_kv * hd;
    const auto nq = static_cast<size_t>(query_rows(c)), nk = static_cast<size_t>(key_rows(c));
    AttentionReference result;
    result.o.resize(nq * static_cast<size_t>(q_cols));
    result.dq.resize(nq * static_cast<size_t>(q_cols));
    result.lse.resize(nq * static_cast<size_t>(shape.n_head));
    result.dk.resize(nk * static_cast<size_t>(kv_cols));
    result.dv.resize(nk * static_cast<size_t>(kv_cols));
    for (const Segment & s : c.segments) {
        for (int64_t i = 0; i < s.q_len; ++i) {
            for (int64_t h = 0; h < shape.n_head; ++h) {
                const int64_t row = s.q_begin + i, qc = h * hd, kc = h / (shape.n_head / shape.n_head_kv) * hd;
                // Written a second time: key j is at distance place - j.
                const int64_t place = i + s.kv_len - s.q_len;
                int64_t first_key = 0, end_key = s.kv_len;
                while (place - first_key > shape.mask.back) ++first_key;
                while (end_key - 1 - place > shape.mask.ahead) --end_key;
                const int64_t n = end_key - first_key, kv_begin = s.kv_begin + first_key;
                std::vector<double> p(static_cast<size_t>(n)), dp(static_cast<size_t>(n)),
                    slope(static_cast<size_t>(n), 1);
                double max = -std::numeric_limits<double>::infinity(), sum = 0, delta = 0;
                for (int64_t j = 0; j < n; ++j) {
                    double score = 0;
                    for (int64_t x = 0; x < hd; ++x) score += q.at(row, qc + x) * k.at(kv_begin + j, kc + x);
                    score *= shape.scale;
                    if (shape.softcap > 0) score = shape.softcap * std::tanh(score / shape.softcap);
                    p[static_cast<size_t>(j)] = score;
                    max = std::max(max, score);
                }
                for (size_t j = 0; shape.softcap > 0 && j < p.size(); ++j)
                    slope[j] = 1 - p[j] / shape.softcap * (p[j] / shape.softcap);
                for (double & score : p) sum += score = std::exp(score - max);
                for (int64_t j = 0; j < n; ++j) {
                    p[static_cast<size_t>(j)] /= sum;
                    for (int64_t x = 0; x < hd; ++x) {
                        result.o[static_cast<size_t>(row * q_cols + qc + x)] +=
                            p[static_cast<size_t>(j)] * v.at(kv_begin + j, kc + x);
                        dp[static_cast<size_t>(j)] += d_o.at(row, qc + x) * v.at(kv_begin + j, kc + x);
                    }
                    delta += p[static_cast<size_t>(j)] * dp[static_cast<size_t>(j)];
                }
                result.lse[static_cast<size_t>(row * shape.n_head + h)] = max + std::log(sum);
                for (int64_t j = 0; j < n; ++j) {
                    const double ds = p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - delta) * shape.scale *
                                      slope[static_cast<size_t>(j)];
                    const auto at_k = static_cast<size_t>((kv_begin + j) * kv_cols + kc),
                               at_q = static_cast<size_t>(row * q_cols + qc);
                    for (int64_t x = 0; x < hd; ++x) {
                        result.dq[at_q + static_cast<size_t>(x)] += ds * k.at(kv_begin + j, kc + x);
                        result.dk[at_k + static_cast<size_t>(x)] += ds * q.at(row, qc + x);
                        result.dv[at_k + static_cast<size_t>(x)] += p[static_cast<size_t>(j)] * d_o.at(row, qc + x);
                    }
                }
            }
        }
    }
    return result;
}

// Inputs of a case and what they give; made once for all instruction sets.
struct AttentionProblem {
    Rows q, k, v, d_o;
    AttentionReference expected;
};

const AttentionProblem & problem(const AttentionCase & c, Dtype type) {
    static std::map<std::pair<std::string, Dtype>, AttentionProblem> made;
    const auto found = made.find({c.name, type});
    if (found != made.end()) return found->second;
    const int64_t nq = query_rows(c), nk = key_rows(c);
    const int64_t q_cols = c.shape.n_head * c.shape.head_dim, kv_cols = c.shape.n_head_kv * c.shape.head_dim;
    AttentionProblem p = {Rows::random(type, nq, q_cols, 1, 1.5),
                          Rows::random(type, nk, kv_cols, 2, 1.5),
                          Rows::random(type, nk, kv_cols, 3),
                          Rows::random(type, nq, q_cols, 4),
                          {}};
    p.expected = plain_loops(c, p.q, p.k, p.v, p.d_o);
    return made.emplace(std::pair(std::string(c.name), type), std::move(p)).first->second;
}

std::vector<AttentionUnits> units_for(Dtype type) {
    if (type == Dtype::f32) return {AttentionUnits::fma};
    return {AttentionUnits::fma, AttentionUnits::dot_bf16, AttentionUnits::amx};
}

// Relative to the largest element: sums of many rounded terms. Where all are 0 they are differences of numbers of
// about 1.
void expect_tensor(const Rows & actual, const std::vector<double> & expected, const std::vector<bool> & covered,
                   double tolerance, const std::string & name) {
    double largest = 0;
    for (const double x : expected) largest = std::max(largest, std::abs(x));
    if (largest == 0) largest = 1;
    ASSERT_TRUE(actual.gaps_untouched()) << name;
    const int64_t cols = actual.view().cols;
    for (int64_t r = 0; r < actual.view().rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            const bool inside = covered[static_cast<size_t>(r)];
            const double want = inside ? expected[static_cast<size_t>(r * cols + c)] : sentinel;
            ASSERT_LE(std::abs(actual.at(r, c) - want), inside ? tolerance * (std::abs(want) + largest) : 0)
                << name << " row " << r << " column " << c << ": " << actual.at(r, c) << " instead of " << want;
        }
    }
}

void check_attention(const AttentionCase & c, Dtype type, AttentionUnits units, bool backward) {
    const AttentionShape & shape = c.shape;
    const int64_t nq = query_rows(c), nk = key_rows(c), q_cols = shape.n_head * shape.head_dim,
                  kv_cols = shape.n_head_kv * shape.head_dim;
    const auto & [q, k, v, d_o, expected] = problem(c, type);
    std::vector<bool> q_covered(static_cast<size_t>(nq)), k_covered(static_cast<size_t>(nk));
    for (const Segment & s : c.segments) {
        std::fill_n(q_covered.begin() + s.q_begin, s.q_len, true);
        std::fill_n(k_covered.begin() + s.kv_begin, s.kv_len, true);
    }

    const WorkspaceShape bounds = {.max_tokens = nq,
                                   .max_sequence_length = nk,
                                   .n_head = shape.n_head,
                                   .n_head_kv = shape.n_head_kv,
                                   .head_dim = shape.head_dim,
                                   .training = backward};
    std::vector<Rows> results[2];
    for (const int threads : {1, 2}) {
        // Guarded, and filled with NaN: kernels may rely on nothing in it.
        const size_t n_bytes = attention_workspace_bytes(bounds, threads, type);
        std::vector<std::byte> memory(n_bytes + 128, std::byte{0xff});
        void * workspace = memory.data();
        size_t space = memory.size();
        std::align(64, n_bytes, workspace, space);
        Rows o(type, nq, q_cols), lse(Dtype::f32, nq, shape.n_head);
        attention(q.view(), k.view(), v.view(), c.segments, shape, o.view(), lse.view(), workspace, threads, units);
        Rows o_alone(type, nq, q_cols);
        attention(q.view(), k.view(), v.view(), c.segments, shape, o_alone.view(), {}, workspace, threads, units);
        EXPECT_TRUE(o == o_alone);
        results[threads - 1] = {o, lse};
        if (backward) {
            Rows dq(type, nq, q_cols), dk(type, nk, kv_cols), dv(type, nk, kv_cols);
            attention_backward(q.view(), k.view(), v.view(), o.view(), lse.view(), d_o.view(), c.segments, shape,
                               dq.view(), dk.view(), dv.view(), workspace, threads, units);
            for (const Rows & gradient : {dq, dk, dv}) results[threads - 1].push_back(gradient);
        }
        const auto * end = static_cast<const std::byte *>(workspace) + n_bytes;
        EXPECT_TRUE(std::all_of(end, static_cast<const std::byte *>(memory.data() + memory.size()), [](std::byte b) {
            return b == std::byte{0xff};
        })) << "written past the workspace";
    }
    EXPECT_TRUE(results[0] == results[1]) << "one thread and two differ";

    const double tolerance = type == Dtype::bf16 ? 1e-2 : 3e-6;
    expect_tensor(results[0][0], expected.o, q_covered, tolerance, "o");
    expect_tensor(results[0][1], expected.lse, q_covered, type == Dtype::bf16 ? 1e-3 : 3e-6, "lse");
    if (backward) {
        expect_tensor(results[0][2], expected.dq, q_covered, tolerance, "dq");
        expect_tensor(results[0][3], expected.dk, k_covered, tolerance, "dk");
        expect_tensor(results[0][4], expected.dv, k_covered, tolerance, "dv");
    }
}

TEST_P(CpuKernels, AttentionAndItsGradientsMatchPlainLoops) {
    for (const AttentionCase & c : training_cases()) {
        for (const Dtype type : dtypes) {
            for (const AttentionUnits units : units_for(type)) {
                SCOPED_TRACE(testing::Message() << c.name << (type == Dtype::bf16 ? ", bf16" : ", f32") << ", units "
                                                << static_cast<int>(units));
                check_attention(c, type, units, true);
                if (HasFatalFailure()) return;
            }
        }
    }
}

TEST_P(CpuKernels, DecodingMatchesPlainLoops) {
    for (const AttentionCase & c : decoding_cases()) {
        for (const Dtype type : dtypes) {
            SCOPED_TRACE(testing::Message() << c.name << (type == Dtype::bf16 ? ", bf16" : ", f32"));
            check_attention(c, type, AttentionUnits::amx, false);
            if (HasFatalFailure()) return;
        }
    }
}

TEST_P(CpuKernels, SequencesInAPackedBatchAreIsolated) {
    // The same sequence alone and between others that hold NaN: the same bytes.
    constexpr int32_t n = 45;
    const AttentionShape shape = heads(6, 2, 64);
    for (const Dtype type : dtypes) {
        for (const AttentionUnits units : units_for(type)) {
            const Rows q = Rows::random(type, 3 * n, 384, 1), kv = Rows::random(type, 3 * n, 128, 2),
                       d_o = Rows::random(type, 3 * n, 384, 3);
            Rows poisoned_q = q, poisoned_kv = kv;
            for (const int32_t r : {0, n - 1, 2 * n, 3 * n - 1}) {
                for (int64_t i = 0; i < 384; ++i) poisoned_q.set(r, i, std::numeric_limits<float>::quiet_NaN());
                for (int64_t i = 0; i < 128; ++i) poisoned_kv.set(r, i, std::numeric_limits<float>::quiet_NaN());
            }
            const WorkspaceShape bounds = {.max_tokens = 3 * n,
                                           .max_sequence_length = n,
                                           .n_head = 6,
                                           .n_head_kv = 2,
                                           .head_dim = 64,
                                           .training = true};
            std::vector<float> workspace(attention_workspace_bytes(bounds, 2, type) / sizeof(float) + 16);
            void * aligned = workspace.data();
            size_t space = workspace.size() * sizeof(float);
            std::align(64, 1, aligned, space);
            const auto run = [&](const Rows & queries, const Rows & keys, const std::vector<Segment> & segments) {
                Rows o(type, 3 * n, 384), lse(Dtype::f32, 3 * n, 6), dq(type, 3 * n, 384), dk(type, 3 * n, 128),
                    dv(type, 3 * n, 128);
                attention(queries.view(), keys.view(), keys.view(), segments, shape, o.view(), lse.view(), aligned, 2,
                          units);
                attention_backward(queries.view(), keys.view(), keys.view(), o.view(), lse.view(), d_o.view(), segments,
                                   shape, dq.view(), dk.view(), dv.view(), aligned, 2, units);
                std::vector<double> result;
                for (const Rows * rows : {&o, &dq, &dk, &dv}) {
                    for (int64_t r = n; r < 2 * n; ++r) {
                        for (int64_t i = 0; i < rows->view().cols; ++i) result.push_back(rows->at(r, i));
                    }
                }
                return result;
            };
            EXPECT_EQ(run(q, kv, {{n, n, n, n}}), run(poisoned_q, poisoned_kv, packed({n, n, n})));
        }
    }
}

// What is multiplied with NaN is NaN, masked or not: rows that stay finite were computed without the poisoned ones. So
// a query costs as much as its window and at most a block of queries and a chunk of keys more, however long the text.
TEST_P(CpuKernels, AttentionMultipliesNothingFarOutsideTheWindow) {
    constexpr int32_t n = 4096, window = 64, poisoned = 256;
    constexpr int64_t reach = window + block_rows + chunk_keys;
    AttentionShape shape = heads(3, 1, 32);
    shape.mask = {window - 1, 0};
    const auto poison = [](Rows & rows, int64_t first, int64_t end) {
        for (int64_t r = first; r < end; ++r) {
            for (int64_t i = 0; i < rows.view().cols; ++i) rows.set(r, i, std::numeric_limits<float>::quiet_NaN());
        }
    };
    const auto expect_finite = [](const Rows & rows, int64_t first, int64_t end, const char * what) {
        ASSERT_LT(first, end);
        for (int64_t r = first; r < end; ++r) {
            for (int64_t i = 0; i < rows.view().cols; ++i) ASSERT_TRUE(std::isfinite(rows.at(r, i))) << what << r;
        }
    };
    const WorkspaceShape bounds = {
        .max_tokens = n, .max_sequence_length = n, .n_head = 3, .n_head_kv = 1, .head_dim = 32, .training = true};
    for (const Dtype type : dtypes) {
        for (const AttentionUnits units : units_for(type)) {
            Rows q = Rows::random(type, n, 96, 1), k = Rows::random(type, n, 32, 2), v = Rows::random(type, n, 32, 3),
                 d_o = Rows::random(type, n, 96, 4);
            poison(k, 0, poisoned);
            poison(v, 0, poisoned);
            poison(q, n - poisoned, n);
            poison(d_o, n - poisoned, n);
            std::vector<float> workspace(attention_workspace_bytes(bounds, 1, type) / sizeof(float) + 16);
            void * aligned = workspace.data();
            size_t space = workspace.size() * sizeof(float);
            std::align(64, 1, aligned, space);
            Rows o(type, n, 96), lse(Dtype::f32, n, 3), dq(type, n, 96), dk(type, n, 32), dv(type, n, 32);
            attention(q.view(), k.view(), v.view(), packed({n}), shape, o.view(), lse.view(), aligned, 1, units);
            attention_backward(q.view(), k.view(), v.view(), o.view(), lse.view(), d_o.view(), packed({n}), shape,
                               dq.view(), dk.view(), dv.view(), aligned, 1, units);
            EXPECT_TRUE(std::isnan(o.at(poisoned, 0)) && std::isnan(dk.at(n - poisoned - 1, 0)));
            const int64_t first = poisoned + reach, end = n - poisoned - reach;
            expect_finite(o, first, n - poisoned, "o ");
            expect_finite(dq, first, n - poisoned, "dq ");
            expect_finite(dk, first + reach, end, "dk ");
            expect_finite(dv, first + reach, end, "dv ");

            Rows one = Rows::random(type, 1, 96, 5), o_of_one(type, 1, 96);
            poison(k, 0, n - window - decode_keys);
            poison(v, 0, n - window - decode_keys);
            attention(one.view(), k.view(), v.view(), std::vector<Segment>{{0, 1, 0, n}}, shape, o_of_one.view(), {},
                      aligned, 1, units);
            expect_finite(o_of_one, 0, 1, "decoded ");
        }
    }
}

TEST_P(CpuKernels, AttentionLetsNanAndLargeScoresThrough) {
    const AttentionShape shape = heads(2, 1, 16);
    for (const Dtype type : dtypes) {
        for (const AttentionUnits units : units_for(type)) {
            Rows q = Rows::random(type, 40, 32, 1, 200), k = Rows::random(type, 40, 16, 2, 200),
                 v = Rows::random(type, 40, 16, 3);
            const WorkspaceShape bounds = {
                .max_tokens = 40, .max_sequence_length = 40, .n_head = 2, .n_head_kv = 1, .head_dim = 16};
            std::vector<float> workspace(attention_workspace_bytes(bounds, 1, type) / sizeof(float) + 16);
            void * aligned = workspace.data();
            size_t space = workspace.size() * sizeof(float);
            std::align(64, 1, aligned, space);
            Rows o(type, 40, 32), lse(Dtype::f32, 40, 2);
            attention(q.view(), k.view(), v.view(), packed({40}), shape, o.view(), lse.view(), aligned, 1, units);
            for (int64_t r = 0; r < 40; ++r) {
                for (int64_t c = 0; c < 32; ++c) EXPECT_TRUE(std::abs(o.at(r, c)) < 6) << r;
            }
            q.set(20, 3, std::numeric_limits<float>::quiet_NaN());
            attention(q.view(), k.view(), v.view(), packed({40}), shape, o.view(), lse.view(), aligned, 1, units);
            EXPECT_TRUE(std::isnan(o.at(20, 0)) && std::isnan(lse.at(20, 0)));
            EXPECT_FALSE(std::isnan(o.at(19, 0)) || std::isnan(o.at(21, 0)) || std::isnan(o.at(20, 16)));
        }
    }
}

// Bytes with the end of the readable memory behind them, as the last tensor of a mapped file may have.
class LastBytes {
public:
    explicit LastBytes(const std::vector<std::byte> & bytes) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
        size_ = (bytes.size() + page_ - 1) / page_ * page_;
        memory_ = mmap(nullptr, size_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED || mprotect(static_cast<std::byte *>(memory_) + size_, page_, PROT_NONE) != 0)
            throw std::bad_alloc();
        data_ = static_cast<std::byte *>(memory_) + size_ - bytes.size();
        std::memcpy(data_, bytes.data(), bytes.size());
    }
    ~LastBytes() { munmap(memory_, size_ + page_); }
    LastBytes(const LastBytes &) = delete;
    LastBytes & operator=(const LastBytes &) = delete;

    const std::byte * data() const { return data_; }

private:
    size_t page_, size_;
    void * memory_;
    std::byte * data_;
};

// The first n rows of W with those of x, at out[t * n + i], are what the sums over their elements say.
void expect_products(const Weight & w, int64_t n, const Rows & x, const std::vector<float> & out) {
    std::vector<float> row(static_cast<size_t>(w.in));
    for (int64_t i = 0; i < n; ++i) {
        dequantize_row(w.type, w.data + static_cast<size_t>(i) * w.row_bytes, row.data(), w.in);
        for (int64_t t = 0; t < x.view().rows; ++t) {
            double want = 0, sizes = 0, weights = 0, largest = 0;
            for (int64_t c = 0; c < w.in; ++c) {
                const double value = row[static_cast<size_t>(c)];
                want += value * x.at(t, c);
                sizes += std::abs(value * x.at(t, c));
                weights += std::abs(value);
                largest = std::max(largest, std::abs(x.at(t, c)));
            }
            // Half a unit of the integers for each element, and the sums' own rounding.
            const double rounding = x.view().type == Dtype::bf16 ? 0.5 * largest / 32639 * weights : 0;
            ASSERT_NEAR(out[static_cast<size_t>(t * n + i)], want, 4e-6 * sizes + rounding)
                << ggml_type_name(w.type) << ", " << w.in << " columns, row " << i << ", x " << t << " of "
                << x.view().rows;
        }
    }
}

TEST_P(CpuKernels, DotRowsMultipliesEveryTypeAndReadsNothingBehindIt) {
    for (const ggml_type type : test::all_weight_types()) {
        for (const int64_t cols : {32, 96, 576, 1280}) {
            if (cols % ggml_blck_size(type) != 0) continue;
            const int64_t n = 7;
            const LastBytes blocks(test::random_blocks(type, n, cols, 0.1f, 1, 0));
            const Weight w = {type, n, cols, ggml_row_size(type, cols), blocks.data()};
            std::vector<float> scratch(static_cast<size_t>(dot_scratch_rows * cols)), out(n * dot_max_rows);
            for (const Dtype dtype : dtypes) {
                for (int64_t rows = 1; rows <= dot_max_rows; ++rows) {
                    Rows x = Rows::random(dtype, rows, cols, 2);
                    x.set(0, cols / 2, 300);
                    Scratch memory;
                    const Scratch::Mark mark(memory);
                    const DotInput input = prepare_dot_input(x.view(), memory);
                    dot_rows(w, 0, 5, input, scratch.data(), out.data(), n);
                    dot_rows(w, 5, 2, input, scratch.data(), out.data() + 5, n);
                    expect_products(w, n, x, out);
                }
            }
        }
    }
}

// A panel holds what ggml's values round to, bit by bit, wherever it lies in the matrix.
TEST_P(CpuKernels, PanelsHoldTheRoundedValuesOfEveryType) {
    std::vector<float> scratch(row_scratch_elements);
    for (const ggml_type type : test::all_weight_types()) {
        const int64_t rows = 70, cols = 768;
        const LastBytes blocks(test::random_blocks(type, rows, cols, 0.1f, 1, 0));
        std::vector<float> values(static_cast<size_t>(rows * cols));
        dequantize_row(type, blocks.data(), values.data(), rows * cols);
        struct Part {
            bool by_rows;
            int64_t k0, k_count, n0, n_count;
        };
        for (const Part & part : {Part{true, 0, 768, 0, 64},
                                  {true, 256, 160, 35, 35},
                                  {true, 32, 20, 1, 17},
                                  {false, 0, 70, 0, 288},
                                  {false, 3, 33, 288, 96},
                                  {false, 60, 10, 16, 40}}) {
            const float scale = type == GGML_TYPE_F32 && part.k0 > 0 ? 0.75f : 1;
            const GemmB b{type, blocks.data(), ggml_row_size(type, cols), rows, cols, part.by_rows, scale};
            const int64_t k_pad = (part.k_count + 31) / 32 * 32, groups = (part.n_count + group_n - 1) / group_n;
            std::vector<uint16_t> memory(static_cast<size_t>(groups * k_pad * group_n) + 32, 0x1234);
            uint16_t * panel = memory.data();
            while (reinterpret_cast<uintptr_t>(panel) % 64 != 0) ++panel;
            pack_panel_bf16(b, part.k0, part.k_count, k_pad, part.n0, part.n_count, scratch.data(), panel);
            for (int64_t n = 0; n < groups * group_n; ++n) {
                for (int64_t k = 0; k < k_pad; ++k) {
                    float want = 0;
                    if (n < part.n_count && k < part.k_count) {
                        const int64_t r = part.by_rows ? part.n0 + n : part.k0 + k,
                                      c = part.by_rows ? part.k0 + k : part.n0 + n;
                        want = values[static_cast<size_t>(r * cols + c)] * scale;
                    }
                    const uint16_t got = panel[((n / group_n * k_pad / 2 + k / 2) * group_n + n % group_n) * 2 + k % 2];
                    ASSERT_EQ(got, Bf16(want).bits)
                        << ggml_type_name(type) << (part.by_rows ? " by rows, " : " by columns, ") << "k " << k
                        << ", n " << n;
                }
            }
        }
    }
}

// Products of the rows of a copy, which ends with unreadable memory as its source does.
std::vector<float> interleaved_products(const Weight & w, const DotInput & x, int n_threads) {
    std::vector<std::byte> copy(static_cast<size_t>(interleaved_bytes(w)));
    interleave(w, n_threads, copy.data());
    const LastBytes guarded(copy);
    const int64_t stride = (w.out + strip_rows - 1) / strip_rows * strip_rows;
    std::vector<float> padded(static_cast<size_t>(x.rows * stride)), out;
    const int64_t half = stride / strip_rows / 2 * strip_rows;
    dot_interleaved(w, guarded.data(), 0, half, x, padded.data(), stride);
    dot_interleaved(w, guarded.data(), half, w.out - half, x, padded.data() + half, stride);
    for (int64_t t = 0; t < x.rows; ++t)
        out.insert(out.end(), padded.begin() + t * stride, padded.begin() + t * stride + w.out);
    return out;
}

std::vector<ggml_type> interleaved_types() {
    std::vector<ggml_type> types;
    for (const ggml_type type : test::all_weight_types()) {
        if (can_interleave({type, 1, ggml_blck_size(type), 0, nullptr})) types.push_back(type);
    }
    return types;
}

TEST_P(CpuKernels, InterleavedRowsMultiplyAsTheirBlocksDo) {
    EXPECT_GE(interleaved_types().size(), 6u);
    for (const ggml_type type : interleaved_types()) {
        for (const int64_t cols : {32, 96, 576, 1280}) {
            if (cols % ggml_blck_size(type) != 0) continue;
            for (const int64_t n : {1, 32, 75}) {
                const LastBytes blocks(test::random_blocks(type, n, cols, 0.1f, 1, 0));
                const Weight w = {type, n, cols, ggml_row_size(type, cols), blocks.data()};
                for (int64_t rows = 1; rows <= dot_max_rows; ++rows) {
                    Rows x = Rows::random(Dtype::bf16, rows, cols, 2);
                    x.set(0, cols / 2, 300);
                    Scratch memory;
                    const Scratch::Mark mark(memory);
                    expect_products(w, n, x, interleaved_products(w, prepare_dot_input(x.view(), memory), 2));
                }
            }
        }
    }
}

// The largest codes and integers, and those whose lower bytes are the smallest: sums of 16 bits must have room for all
// of them.
TEST_P(CpuKernels, InterleavedRowsOfExtremesDoNotOverflow) {
    const int64_t cols = 512, n = 40;
    for (const ggml_type type : interleaved_types()) {
        const size_t block = ggml_type_size(type);
        for (const int byte : {0x00, 0x7f, 0x80, 0xff}) {
            std::vector<std::byte> bytes = test::random_blocks(type, n, cols, 0.1f, 1, 0);
            const std::vector<std::byte> random = bytes;
            std::fill(bytes.begin(), bytes.end(), std::byte(byte));
            // The scales in f16 stay: they are the first or, in Q6_K, the last two or four bytes of a block.
            const bool last = type == GGML_TYPE_Q6_K, two = type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q8_0 || last;
            for (size_t at = 0; at < bytes.size(); at += block) {
                const size_t from = at + (last ? block - 2 : 0);
                std::copy_n(random.begin() + static_cast<ptrdiff_t>(from), two ? 2 : 4,
                            bytes.begin() + static_cast<ptrdiff_t>(from));
            }
            const Weight w = {type, n, cols, ggml_row_size(type, cols), bytes.data()};
            for (const float value : {255.0f, -255.0f, 1.0f, -1.0f}) {  // 255 is the largest, and 1 then 128 units
                Rows x(Dtype::bf16, 1, cols);
                for (int64_t c = 0; c < cols; ++c) x.set(0, c, value);
                x.set(0, 7, 255);
                Scratch memory;
                const Scratch::Mark mark(memory);
                expect_products(w, n, x, interleaved_products(w, prepare_dot_input(x.view(), memory), 1));
            }
        }
    }
}

TEST_P(CpuKernels, InterleavedWeightsAreCopiedOnceAndOnlyWhereThereIsRoom) {
    const auto q4_0 = test::random_blocks(GGML_TYPE_Q4_0, 40, 64, 0.1f, 1, 0),
               f16 = test::random_blocks(GGML_TYPE_F16, 40, 64, 0.1f, 1, 0);
    const Weight quantized{GGML_TYPE_Q4_0, 40, 64, ggml_row_size(GGML_TYPE_Q4_0, 64), q4_0.data()}, tied = quantized;
    const Weight halves{GGML_TYPE_F16, 40, 64, ggml_row_size(GGML_TYPE_F16, 64), f16.data()};
    const Weight * all[] = {&quantized, &halves, &tied};
    const int64_t needed = interleaved_bytes(quantized);
    EXPECT_EQ(needed, 64 * 2 * 18);  // two strips
    const auto copies = InterleavedWeights::make(all, needed, 1);
    ASSERT_TRUE(copies);
    EXPECT_TRUE(copies->find(quantized));
    EXPECT_EQ(copies->find(quantized), copies->find(tied));
    EXPECT_FALSE(copies->find(halves));
    EXPECT_FALSE(InterleavedWeights::make(all, needed - 1, 1));
    EXPECT_FALSE(InterleavedWeights::make({all + 1, 1}, int64_t{1} << 30, 1));
}

// Kernels take several rows at once; the columns are whole and partial groups of what they take of each.
TEST_P(CpuKernels, DotRowsOfManyRowsAreThoseOfEach) {
    for (const ggml_type type : test::all_weight_types()) {
        for (const int64_t cols : {32, 64, 96, 576, 1280}) {
            if (cols % ggml_blck_size(type) != 0) continue;
            constexpr int64_t n = 21;
            const LastBytes blocks(test::random_blocks(type, n, cols, 0.1f, 1, 0));
            const Weight w = {type, n, cols, ggml_row_size(type, cols), blocks.data()};
            std::vector<float> scratch(static_cast<size_t>(dot_scratch_rows * cols)), together(n * dot_max_rows),
                alone(n * dot_max_rows);
            const Rows x = Rows::random(Dtype::bf16, dot_max_rows, cols, 2);
            Scratch memory;
            const Scratch::Mark mark(memory);
            const DotInput input = prepare_dot_input(x.view(), memory);
            dot_rows(w, 0, n, input, scratch.data(), together.data(), n);
            for (int64_t i = 0; i < n; ++i) dot_rows(w, i, 1, input, scratch.data(), alone.data() + i, n);
            double largest = 0;
            for (const float value : alone) largest = std::max(largest, std::abs(static_cast<double>(value)));
            for (size_t i = 0; i < alone.size(); ++i) {
                ASSERT_NEAR(together[i], alone[i], 2e-6 * largest)
                    << ggml_type_name(type) << ", " << cols << " columns, product " << i;
            }
        }
    }
}

// What a text is computed to be does not depend on those beside it.
TEST_P(CpuKernels, ARowOfXHasTheSameSumsToTheBitBesideAnyOthers) {
    constexpr int64_t n = 37;
    for (const ggml_type type : test::all_weight_types()) {
        for (const int64_t cols : {32, 96, 576, 1280}) {
            if (cols % ggml_blck_size(type) != 0) continue;
            const LastBytes blocks(test::random_blocks(type, n, cols, 0.1f, 1, 0));
            const Weight w = {type, n, cols, ggml_row_size(type, cols), blocks.data()};
            std::vector<float> scratch(static_cast<size_t>(dot_scratch_rows * cols));
            for (const Dtype dtype : dtypes) {
                const Rows x = Rows::random(dtype, dot_max_rows, cols, 2);
                const auto products = [&](int64_t first, int64_t rows) {
                    Scratch memory;
                    const Scratch::Mark mark(memory);
                    const DotInput input = prepare_dot_input(x.view().slice_rows(first, rows), memory);
                    std::vector<float> out(static_cast<size_t>(n * rows));
                    dot_rows(w, 0, n, input, scratch.data(), out.data(), n);
                    if (can_interleave(w) && input.has_ints()) {
                        const std::vector<float> more = interleaved_products(w, input, 1);
                        out.insert(out.end(), more.begin(), more.end());
                    }
                    return out;
                };
                std::vector<std::vector<float>> alone;
                for (int64_t t = 0; t < dot_max_rows; ++t) alone.push_back(products(t, 1));
                for (const auto & [first, rows] :
                     {std::pair{0, 16}, {0, 15}, {1, 7}, {5, 6}, {10, 5}, {3, 4}, {8, 3}, {2, 2}}) {
                    const std::vector<float> together = products(first, rows);
                    for (size_t i = 0; i < together.size(); ++i) {
                        const size_t copy = i / static_cast<size_t>(n * rows), at = i % static_cast<size_t>(n * rows);
                        const size_t t = static_cast<size_t>(first) + at / n;
                        ASSERT_EQ(std::bit_cast<uint32_t>(together[i]),
                                  std::bit_cast<uint32_t>(alone[t][copy * n + at % n]))
                            << ggml_type_name(type) << ", " << cols << " columns, x " << t << " of " << rows << ", row "
                            << at % n << (copy == 0 ? "" : ", interleaved");
                    }
                }
            }
        }
    }
}

TEST_P(CpuKernels, DotRowsOfZeroIsZeroAndOfWhatIsNotFiniteIsNotFinite) {
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_Q8_0}) {
        const int64_t cols = 512;
        const std::vector<std::byte> blocks = test::random_blocks(type, 1, cols, 0.1f, 1, 0);
        const Weight w = {type, 1, cols, ggml_row_size(type, cols), blocks.data()};
        std::vector<float> scratch(static_cast<size_t>(dot_scratch_rows * cols));
        for (const float value : {0.0f, 1e-38f, INFINITY, NAN}) {
            Rows x(Dtype::bf16, 1, cols);
            for (int64_t c = 0; c < cols; ++c) x.set(0, c, 0);
            x.set(0, 3, value);
            Scratch memory;
            const Scratch::Mark mark(memory);
            float out = 1;
            dot_rows(w, 0, 1, prepare_dot_input(x.view(), memory), scratch.data(), &out, 1);
            if (std::isfinite(value)) {
                EXPECT_NEAR(out, 0, 1e-36) << ggml_type_name(type) << ", x " << value;
            } else {
                EXPECT_FALSE(std::isfinite(out)) << ggml_type_name(type) << ", x " << value;
            }
        }
    }
}

}  // namespace
}  // namespace lorica::cpu
