// Backward of the operations that go row by row or element by element is the derivative of their forward; see
// backend_gradient_test.cpp.
#include "support/finite_differences.h"

namespace lorica::test {
namespace {

constexpr double tolerance = gradient_tolerance;

Vector vector(const Values & values) { return {values.data(), Dtype::f64}; }

// ---- norms

struct NormCase {
    Norm::Kind kind;
    int32_t groups;
    bool bias;
    double eps;

    std::string description() const {
        return std::string(kind == Norm::rms ? "rms" : "layer") + ", " + std::to_string(groups) + " groups" +
               (bias ? ", bias" : "") + ", eps " + std::to_string(eps);
    }
};
constexpr NormCase norm_cases[] = {
    {Norm::rms, 1, false, 1e-5},  {Norm::rms, 1, false, 0.3},   {Norm::rms, 4, false, 1e-5}, {Norm::rms, 1, true, 1e-5},
    {Norm::layer, 1, true, 1e-5}, {Norm::layer, 1, false, 0.3}, {Norm::layer, 3, true, 1e-5}};

TEST(BackendGradient, NormThroughItsInputWeightAndBias) {
    const auto backend = reference();
    const int64_t n_tokens = 5, n = 24;
    for (const NormCase & c : norm_cases) {
        SCOPED_TRACE(c.description());
        const int64_t n_weights = n / c.groups;
        Values x = normal(1, n_tokens * n), y(n_tokens * n), w = normal(2, n_tokens * n);
        Values weight = normal(3, n_weights), bias = normal(5, n_weights), residual = normal(6, n_tokens * n);
        for (double & value : x) value += 0.7;  // a mean that is not zero
        const Norm norm{vector(weight), c.eps, {}, c.kind, c.bias ? vector(bias) : Vector{}, c.groups};
        for (const bool with_residual : {false, true}) {
            const auto objective = [&] {
                backend->norm(matrix(x, n_tokens, n), norm, with_residual ? matrix(residual, n_tokens, n) : Matrix{},
                              matrix(y, n_tokens, n));
                return dot(w, y);
            };
            const Values expected = finite_differences(x, objective);

            const Values before = normal(4, n_tokens * n);
            Values dx = before, dx_act(n_tokens * n, NAN);
            backend->norm_backward(matrix(w, n_tokens, n), matrix(x, n_tokens, n), norm, true, matrix(dx, n_tokens, n),
                                   matrix(dx_act, n_tokens, n));
            EXPECT_LE(relative_error(minus(dx, before), expected), tolerance) << "added";
            EXPECT_EQ(dx_act, dx);
            Values in_place = w;
            backend->norm_backward(matrix(in_place, n_tokens, n), matrix(x, n_tokens, n), norm, false,
                                   matrix(in_place, n_tokens, n), {});
            EXPECT_LE(relative_error(in_place, expected), tolerance) << "in place";

            const Values dw_before = normal(7, n_weights), db_before = normal(8, n_weights);
            Values dw = dw_before, db = db_before;
            backend->norm_gradient(matrix(w, n_tokens, n), matrix(x, n_tokens, n), norm, dw.data(), db.data());
            EXPECT_LE(relative_error(minus(dw, dw_before), finite_differences(weight, objective)), tolerance);
            if (!c.bias) continue;
            EXPECT_LE(relative_error(minus(db, db_before), finite_differences(bias, objective)), tolerance);
        }
    }
}

TEST(BackendGradient, NormKeepsWhatItDividedByAndItsMean) {
    const auto backend = reference();
    Values x{1, 2, 3, 6, -1, -1, 1, 1}, y(8), statistics(4), weight{1, 1, 1, 1};
    const Norm norm{vector(weight), 0, matrix(statistics, 1, 4), Norm::layer, {}, 2};
    backend->norm(matrix(x, 1, 8), norm, {}, matrix(y, 1, 8));
    EXPECT_NEAR(statistics[0], 1 / std::sqrt(3.5), 1e-15);
    EXPECT_NEAR(statistics[1], 1, 1e-15);
    EXPECT_EQ(statistics[2], 3);
    EXPECT_EQ(statistics[3], 0);
    EXPECT_NEAR(y[3], 3 / std::sqrt(3.5), 1e-15);
    EXPECT_EQ(y[7], 1);
}

// ---- rope

TEST(BackendGradient, RopeRotatesBack) {
    const auto backend = reference();
    const int64_t n_tokens = 4, n_head = 3;
    const int32_t head_dim = 8;
    const std::vector<int32_t> positions{0, 3, 17, 4000};
    for (const size_t n_pairs : {4, 3, 1, 0}) {
        for (const bool halves : {false, true}) {
            for (const auto & [magnitude, temperature] : {std::pair{1.0, 0.0}, {1.3, 0.0}, {1.3, 0.5}}) {
                SCOPED_TRACE(testing::Message() << n_pairs << (halves ? " halves" : " pairs") << " times " << magnitude
                                                << ", temperature " << temperature);
                const Values all_frequencies{1.0, 0.1, 0.01, 0.001};
                const Rope rope{{all_frequencies.data(), n_pairs}, head_dim, halves, magnitude, temperature, 16};
                const int64_t cols = n_head * head_dim;
                Values x = normal(1, n_tokens * cols), w = normal(2, n_tokens * cols);

                Values dx = w;
                backend->rope(matrix(dx, n_tokens, cols), positions.data(), rope, RopeDirection::backward);
                const auto rotated = [&] {
                    Values y = x;
                    backend->rope(matrix(y, n_tokens, cols), positions.data(), rope, RopeDirection::forward);
                    return y;
                };
                EXPECT_LE(relative_error(dx, finite_differences(x, [&] { return dot(w, rotated()); })), tolerance);

                // Elements beyond the rotated pairs pass through.
                Values y = rotated();
                for (int64_t i = 0; i < n_tokens * cols; ++i) {
                    if (i % head_dim >= static_cast<int64_t>(2 * n_pairs)) {
                        EXPECT_EQ(y[i], x[i]);
                    }
                }
                backend->rope(matrix(y, n_tokens, cols), positions.data(), rope, RopeDirection::undo);
                EXPECT_LE(relative_error(y, x), 1e-14);
            }
        }
    }
}

TEST(BackendGradient, RopeOfHalvesIsThatOfPairsInAnotherOrder) {
    const auto backend = reference();
    const Values frequencies{1.0, 0.3, 0.02};
    const int32_t position = 5;
    Values pairs = normal(1, 8), halves(8);
    const auto place = [](size_t i) { return i < 6 ? i / 2 + i % 2 * 3 : i; };
    for (size_t i = 0; i < 8; ++i) halves[place(i)] = pairs[i];
    backend->rope(matrix(pairs, 1, 8), &position, {frequencies, 8, false, 1.1}, RopeDirection::forward);
    backend->rope(matrix(halves, 1, 8), &position, {frequencies, 8, true, 1.1}, RopeDirection::forward);
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(halves[place(i)], pairs[i]);
}

// ---- activations

// Away from the corner of relu, on both sides of which finite differences would step.
Values without_zero(Values values) {
    for (double & x : values) x += x < 0 ? -0.01 : 0.01;
    return values;
}

constexpr Act all_acts[] = {Act::silu, Act::gelu_tanh, Act::gelu_erf, Act::relu, Act::tanh};

TEST(BackendGradient, ActivationsAreWhatTheirNamesSay) {
    const auto backend = reference();
    // torch.nn.functional: silu, gelu(approximate='tanh'), gelu, relu, tanh of -1.5, -0.2, 0.7, 3
    const double expected[][4] = {{-0.273638286, -0.090033201, 0.467731441, 2.857722380},
                                  {-0.100428423, -0.084148570, 0.530570135, 2.996362608},
                                  {-0.100210802, -0.084148058, 0.530625443, 2.995950306},
                                  {0, 0, 0.7, 3},
                                  {-0.905148254, -0.197375320, 0.604367777, 0.995054754}};
    for (size_t i = 0; i < std::size(all_acts); ++i) {
        Values x{-1.5, -0.2, 0.7, 3}, h(4);
        backend->activation(matrix(x, 1, 4), all_acts[i], matrix(h, 1, 4));
        for (size_t j = 0; j < 4; ++j) EXPECT_NEAR(h[j], expected[i][j], 1e-9) << i << ' ' << j;
    }
}

TEST(BackendGradient, GatesWithSeparateAndAliasedOutputs) {
    const auto backend = reference();
    const int64_t n_tokens = 3, n = 16, size = n_tokens * n;
    for (const Act act : all_acts) {
        SCOPED_TRACE(static_cast<int>(act));
        Values gate = without_zero(normal(1, size, 3)), up = normal(2, size), h(size), w = normal(3, size);
        const auto objective = [&] {
            backend->gated(matrix(gate, n_tokens, n), matrix(up, n_tokens, n), act, matrix(h, n_tokens, n));
            return dot(w, h);
        };
        const Values expected_dgate = finite_differences(gate, objective);
        const Values expected_dup = finite_differences(up, objective);

        Values dgate(size), dup(size);
        backend->gated_backward(matrix(gate, n_tokens, n), matrix(up, n_tokens, n), act, matrix(w, n_tokens, n),
                                matrix(dgate, n_tokens, n), matrix(dup, n_tokens, n));
        EXPECT_LE(relative_error(dgate, expected_dgate), tolerance);
        EXPECT_LE(relative_error(dup, expected_dup), tolerance);

        backend->gated_backward(matrix(gate, n_tokens, n), matrix(up, n_tokens, n), act, matrix(w, n_tokens, n),
                                matrix(gate, n_tokens, n), matrix(up, n_tokens, n));
        EXPECT_EQ(gate, dgate);
        EXPECT_EQ(up, dup);
    }
}

TEST(BackendGradient, ActivationsWithSeparateAndAliasedOutputs) {
    const auto backend = reference();
    const int64_t n_tokens = 3, n = 16, size = n_tokens * n;
    for (const Act act : all_acts) {
        SCOPED_TRACE(static_cast<int>(act));
        Values x = without_zero(normal(1, size, 2)), h(size), w = normal(3, size);
        const Values expected = finite_differences(x, [&] {
            backend->activation(matrix(x, n_tokens, n), act, matrix(h, n_tokens, n));
            return dot(w, h);
        });
        Values dx(size, NAN), in_place_of_x = x, in_place_of_dh = w;
        backend->activation_backward(matrix(x, n_tokens, n), act, matrix(w, n_tokens, n), matrix(dx, n_tokens, n));
        EXPECT_LE(relative_error(dx, expected), tolerance);
        backend->activation_backward(matrix(in_place_of_x, n_tokens, n), act, matrix(w, n_tokens, n),
                                     matrix(in_place_of_x, n_tokens, n));
        EXPECT_EQ(in_place_of_x, dx);
        backend->activation_backward(matrix(x, n_tokens, n), act, matrix(in_place_of_dh, n_tokens, n),
                                     matrix(in_place_of_dh, n_tokens, n));
        EXPECT_EQ(in_place_of_dh, dx);
        backend->activation(matrix(x, n_tokens, n), act, matrix(h, n_tokens, n));
        backend->activation(matrix(x, n_tokens, n), act, matrix(x, n_tokens, n));
        EXPECT_EQ(x, h);
    }
}

// ---- rows

TEST(BackendGradient, ScatterAddIsTheTransposeOfGather) {
    const auto backend = reference();
    const int64_t n_rows = 6, n = 5;
    const std::vector<int32_t> rows{4, 0, 5};
    const auto n_picked = static_cast<int64_t>(rows.size());
    Values x = normal(1, n_rows * n), y(n_picked * n), w = normal(2, n_picked * n);
    const Values before = normal(3, n_rows * n);
    Values dx = before;

    backend->scatter_add_rows(matrix(w, n_picked, n), rows.data(), matrix(dx, n_rows, n));
    const Values expected = finite_differences(x, [&] {
        backend->gather_rows(matrix(x, n_rows, n), rows.data(), matrix(y, n_picked, n));
        return dot(w, y);
    });
    EXPECT_LE(relative_error(minus(dx, before), expected), tolerance);
}

TEST(BackendGradient, EmbeddingsThroughRepeatedAndVirtualRows) {
    const auto backend = reference();
    const int64_t n_rows = 7, n = 5;
    Values table = normal(1, n_rows * n), virtual_rows = normal(2, 2 * n);
    const Weight weight{GGML_TYPE_F64, n_rows, n, n * sizeof(double),
                        reinterpret_cast<const std::byte *>(table.data())};
    const std::vector<int32_t> ids{3, -1, 3, 0, -2, 3, 6, -1};
    const auto n_tokens = static_cast<int64_t>(ids.size());
    const EmbedOptions options{2.5, matrix(virtual_rows, 2, n), true};
    const Values start = normal(3, n_tokens * n);
    Values x, w = normal(4, n_tokens * n);
    const auto objective = [&] {
        x = start;
        backend->embed(weight, ids.data(), options, matrix(x, n_tokens, n));
        return dot(w, x);
    };
    objective();
    EXPECT_EQ(x[2 * n], start[2 * n] + 2.5 * table[3 * n]);
    EXPECT_EQ(x[4 * n], start[4 * n] + virtual_rows[n]);

    const Values table_before = normal(5, n_rows * n), virtual_before = normal(6, 2 * n);
    Values d_table = table_before, d_virtual = virtual_before;
    const std::vector<int32_t> sorted_ids{0, 3, 3, 3, 6}, rows{3, 0, 2, 5, 6};
    backend->embed_backward(matrix(w, n_tokens, n), sorted_ids.data(), rows.data(), 5, 2.5, d_table.data());
    EXPECT_LE(relative_error(minus(d_table, table_before), finite_differences(table, objective)), tolerance);
    const std::vector<int32_t> virtual_ids{0, 0, 1}, of_virtual{1, 7, 4};
    backend->embed_backward(matrix(w, n_tokens, n), virtual_ids.data(), of_virtual.data(), 3, 1, d_virtual.data());
    EXPECT_LE(relative_error(minus(d_virtual, virtual_before), finite_differences(virtual_rows, objective)), tolerance);
}

TEST(BackendGradient, FactorsOfRowsAndOfAll) {
    const auto backend = reference();
    Values x = normal(1, 6), y(6);
    const float factors[] = {2, -0.5f};
    backend->scale_rows(matrix(x, 2, 3), factors, matrix(y, 2, 3));
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(y[i], x[i] * (i < 3 ? 2 : -0.5));
    backend->scale(matrix(x, 2, 3), 3, matrix(x, 2, 3));
    for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(x[i], y[i] * (i < 3 ? 1.5 : -6), 1e-15);
}

TEST(BackendGradient, MeanOfASegment) {
    const auto backend = reference();
    const int64_t n = 4;
    const std::vector<Segment> segments{{1, 3, 0, 0}, {4, 1, 0, 0}};
    Values x = normal(1, 6 * n), y(2 * n), w = normal(2, 2 * n);
    const Values before = normal(3, 6 * n);
    Values dx = before;
    const Values expected = finite_differences(x, [&] {
        backend->segment_mean(matrix(x, 6, n), segments, matrix(y, 2, n));
        return dot(w, y);
    });
    backend->segment_mean_backward(matrix(w, 2, n), segments, matrix(dx, 6, n));
    EXPECT_LE(relative_error(minus(dx, before), expected), tolerance);
    EXPECT_NEAR(y[0], (x[n] + x[2 * n] + x[3 * n]) / 3, 1e-15);
}

TEST(BackendGradient, FactorsOfColumnsWithBiasAndResidual) {
    const auto backend = reference();
    const int64_t n_tokens = 4, n = 6;
    Values x = normal(1, n_tokens * n), y(n_tokens * n), w = normal(2, n_tokens * n), factors = normal(3, n);
    Values bias = normal(4, n), residual = normal(5, n_tokens * n), slopes(n, 0);
    const auto objective = [&] {
        backend->scale_columns(matrix(x, n_tokens, n), factors.data(), vector(bias), matrix(residual, n_tokens, n),
                               matrix(y, n_tokens, n));
        return dot(w, y);
    };
    objective();
    DoraRows rows{};
    rows.factors = factors.data();
    for (int64_t i = 0; i < n; ++i) slopes[i] = 1 / factors[i];
    rows.slopes = slopes.data();
    const Values before = normal(6, n);
    Values d_factors = before, dx(n_tokens * n, NAN);
    backend->dora_backward(matrix(w, n_tokens, n), matrix(y, n_tokens, n), vector(bias), matrix(residual, n_tokens, n),
                           rows, d_factors.data(), matrix(dx, n_tokens, n));
    EXPECT_LE(relative_error(dx, finite_differences(x, objective)), tolerance);
    EXPECT_LE(relative_error(minus(d_factors, before), finite_differences(factors, objective)), tolerance);

    // A sum.
    Values sum = residual;
    backend->scale_columns(matrix(x, n_tokens, n), nullptr, {}, matrix(sum, n_tokens, n), matrix(sum, n_tokens, n));
    for (int64_t i = 0; i < n_tokens * n; ++i) EXPECT_EQ(sum[i], residual[i] + x[i]);
}

}  // namespace
}  // namespace lorica::test
