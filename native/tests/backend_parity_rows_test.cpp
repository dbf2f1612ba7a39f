// The operations that go row by row or element by element, on every backend present, against the f64 reference;
// support/parity.h says how.
#include "support/parity.h"

#include <numeric>

namespace lorica::test {
namespace {

class BackendParity : public testing::TestWithParam<Target> {};
INSTANTIATE_TEST_SUITE_P(, BackendParity, testing::ValuesIn(targets()), target_name);

WorkspaceShape workspace_of(int64_t rows, int64_t cols) {
    return {.max_tokens = rows, .max_features = cols, .training = true};
}

// ---- norms

struct NormKind {
    Norm::Kind kind;
    int32_t groups;
    bool bias;
};

// With x, weight and bias as operands.
Norm norm_of(Execution & run, const NormKind & of, int64_t cols, Matrix statistics) {
    const int64_t n = cols / of.groups;
    Norm norm{run.input(Role::f32, 1, n, normal(2, n)).as<float>(), 1e-5, statistics, of.kind};
    norm.groups = of.groups;
    if (of.bias) norm.bias = run.input(Role::f32, 1, n, normal(12, n)).as<float>();
    return norm;
}

Matrix statistics_of(Execution & run, const NormKind & of, int64_t rows) {
    return run.output("statistics", Role::hidden, rows, of.groups * (of.kind == Norm::layer ? 2 : 1));
}

// Plain root mean squares at three magnitudes.
TEST_P(BackendParity, Rmsnorm) {
    for (const auto & [rows, cols] : extents) {
        for (const double deviation : {1.0, 1e-3, 300.0}) {
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", deviation " << deviation);
            const Values x = normal(1, rows * cols, deviation);
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix mx = run.input(Role::hidden, rows, cols, x);
                const Norm norm = norm_of(run, {Norm::rms, 1, false}, cols, statistics_of(run, {Norm::rms, 1}, rows));
                run.backend.norm(mx, norm, {}, run.output("y", Role::act, rows, cols));
            });
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix mx = run.input(Role::hidden, rows, cols, x);
                const Matrix dy = run.input(Role::act, rows, cols, normal(3, rows * cols));
                const Norm norm = norm_of(run, {Norm::rms, 1, false}, cols, {});
                const Matrix dx = run.in_out("dx", Role::hidden, rows, cols, normal(4, rows * cols, 1 / deviation));
                run.backend.norm_backward(dy, mx, norm, true, dx, run.output("dx_act", Role::act, rows, cols));
            });
        }
    }
}

constexpr NormKind norm_kinds[] = {{Norm::rms, 1, true},    {Norm::rms, 4, false},  {Norm::layer, 1, true},
                                   {Norm::layer, 1, false}, {Norm::layer, 3, true}, {Norm::rms, 1, false}};
constexpr Extent norm_extents[] = {{1, 96}, {3, 180}, {5, 576}, {33, 768}, {257, 48}, {2, 12}};

template <typename F> void for_norms(const F & f) {
    for (const NormKind & kind : norm_kinds) {
        for (const auto & [rows, cols] : norm_extents) {
            SCOPED_TRACE(testing::Message() << (kind.kind == Norm::rms ? "rms, " : "layer, ") << kind.groups
                                            << " groups" << (kind.bias ? ", bias, " : ", ") << rows << " x " << cols);
            f(kind, rows, cols);
        }
    }
}

// A mean next to the deviation, as hidden states have it.
Values shifted(uint64_t seed, int64_t n) {
    Values values = normal(seed, n, 2);
    for (double & x : values) x += 1.5;
    return values;
}

TEST_P(BackendParity, NormOfEveryKind) {
    for_norms([&](const NormKind & kind, int64_t rows, int64_t cols) {
        const int64_t n = rows * cols;
        for (const auto & [x_role, y_role] : {std::pair{Role::hidden, Role::act},
                                              {Role::act, Role::act},
                                              {Role::hidden, Role::hidden},
                                              {Role::act, Role::hidden}}) {
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(x_role, rows, cols, shifted(1, n));
                const Norm norm = norm_of(run, kind, cols, statistics_of(run, kind, rows));
                run.backend.norm(x, norm, {}, run.output("y", y_role, rows, cols));
            });
            SCOPED_TRACE("residual");
            if (y_role != Role::hidden) continue;
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(x_role, rows, cols, shifted(1, n));
                const Matrix residual = run.input(Role::hidden, rows, cols, normal(5, n));
                const Norm norm = norm_of(run, kind, cols, {});
                run.backend.norm(x, norm, residual, run.output("y", y_role, rows, cols));
            });
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(x_role, rows, cols, shifted(1, n));
                const Matrix y = run.in_out("y", Role::hidden, rows, cols, normal(5, n));
                run.backend.norm(x, norm_of(run, kind, cols, {}), y, y);
            });
        }
        SCOPED_TRACE("in place");
        expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
            const Matrix x = run.in_out("x", Role::act, rows, cols, shifted(1, n));
            run.backend.norm(x, norm_of(run, kind, cols, {}), {}, x);
        });
    });
}

TEST_P(BackendParity, NormBackwardOfEveryKind) {
    for_norms([&](const NormKind & kind, int64_t rows, int64_t cols) {
        const int64_t n = rows * cols;
        for (const Role dy_role : {Role::act, Role::hidden}) {
            SCOPED_TRACE("added, with its twin");
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(Role::hidden, rows, cols, shifted(1, n));
                const Matrix dy = run.input(dy_role, rows, cols, normal(3, n));
                const Matrix dx = run.in_out("dx", Role::hidden, rows, cols, normal(4, n));
                run.backend.norm_backward(dy, x, norm_of(run, kind, cols, {}), true, dx,
                                          run.output("dx_act", Role::act, rows, cols));
            });
            SCOPED_TRACE("with what norm() made of x");
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(Role::hidden, rows, cols, shifted(1, n));
                const Matrix dy = run.input(dy_role, rows, cols, normal(3, n));
                const Norm norm = norm_of(run, kind, cols, statistics_of(run, kind, rows));
                run.backend.norm(x, norm, {}, run.output("y", Role::act, rows, cols));
                run.backend.norm_backward(dy, x, norm, false, run.output("dx", Role::hidden, rows, cols), {});
            });
            for (const Role dx_role : {Role::act, Role::hidden}) {
                SCOPED_TRACE("set");
                expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                    const Matrix x = run.input(dx_role, rows, cols, shifted(1, n));
                    const Matrix dy = run.input(dy_role, rows, cols, normal(3, n));
                    const Matrix twin =
                        dx_role == Role::hidden ? run.output("dx_act", Role::act, rows, cols) : Matrix{};
                    run.backend.norm_backward(dy, x, norm_of(run, kind, cols, {}), false,
                                              run.output("dx", dx_role, rows, cols), twin);
                });
            }
            SCOPED_TRACE("in place");
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(Role::act, rows, cols, shifted(1, n));
                const Matrix dy = run.in_out("dx", dy_role, rows, cols, normal(3, n));
                run.backend.norm_backward(dy, x, norm_of(run, kind, cols, {}), false, dy, {});
            });
        }
    });
}

TEST_P(BackendParity, NormGradientOfEveryKind) {
    for_norms([&](const NormKind & kind, int64_t rows, int64_t cols) {
        const int64_t n = cols / kind.groups;
        for (const auto & [x_role, dy_role] : {std::pair{Role::hidden, Role::hidden}, {Role::act, Role::act}}) {
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(x_role, rows, cols, shifted(1, rows * cols));
                const Matrix dy = run.input(dy_role, rows, cols, normal(3, rows * cols));
                const Matrix dw = run.in_out("dw", Role::param, 1, n, normal(6, n));
                const Matrix db = kind.bias ? run.in_out("db", Role::param, 1, n, normal(7, n)) : Matrix{};
                run.backend.norm_gradient(dy, x, norm_of(run, kind, cols, {}), dw.data, db.data);
            });
        }
    });
}

// ---- rope

struct RopeCase {
    int32_t n_head, head_dim, n_rotated;
    bool halves = false;
    double magnitude = 1, temperature = 0;
};

Values frequencies_of(const RopeCase & c) {
    Values inverse_frequency;
    for (int i = 0; i < c.n_rotated / 2; ++i) inverse_frequency.push_back(std::pow(10000.0, -2.0 * i / c.n_rotated));
    return inverse_frequency;
}

constexpr RopeCase rope_cases[] = {
    {1, 16, 16},
    {4, 32, 32},
    {9, 64, 64},
    {3, 80, 80},
    {8, 128, 128},
    {4, 64, 16},
    {2, 80, 20},
    {3, 32, 2},
    {1, 16, 16, true},
    {9, 64, 64, true},
    {3, 80, 20, true},
    {8, 128, 128, true, 1.19},
    {2, 96, 72, true},
    {4, 64, 16, false, 0.9},
    {2, 256, 256, true},
    {1, 32, 0},
    {2, 64, 64, false, 1.1, 0.1},
};

TEST_P(BackendParity, RopeThereAndBack) {
    for (const RopeCase & c : rope_cases) {
        const Values inverse_frequency = frequencies_of(c);
        const Rope rope{inverse_frequency, c.head_dim, c.halves, c.magnitude, c.temperature, 16};
        const int64_t cols = int64_t{c.n_head} * c.head_dim;
        for (const int64_t n_tokens : {1, 2, 31, 100}) {
            SCOPED_TRACE(testing::Message() << c.n_head << " heads of " << c.head_dim << ", " << c.n_rotated
                                            << (c.halves ? " rotated by halves, T " : " rotated, T ") << n_tokens);
            // Positions that grow within a sequence, start again, and go far beyond what f32 angles resolve.
            std::vector<int32_t> positions(n_tokens);
            for (int64_t t = 0; t < n_tokens; ++t) {
                positions[t] = static_cast<int32_t>(t < 20 ? t : t < 40 ? t - 20 : 1000 * t + 7);
            }
            positions.back() = 131071;
            for (const RopeDirection direction :
                 {RopeDirection::forward, RopeDirection::backward, RopeDirection::undo}) {
                expect_parity(GetParam(), {.max_tokens = n_tokens, .max_features = cols, .head_dim = c.head_dim},
                              [&](Execution & run) {
                                  const Matrix x =
                                      run.in_out("x", Role::act, n_tokens, cols, normal(1, n_tokens * cols));
                                  run.backend.rope(x, run.integers(positions), rope, direction);
                              });
            }
        }
    }
}

TEST_P(BackendParity, LayersWithDifferentRopesTakeTurns) {
    const auto backend = GetParam().make(2), fresh = GetParam().make(1);
    const int64_t n_tokens = 40, cols = 128;
    for (const auto & one : {backend.get(), fresh.get()})
        one->reserve({.max_tokens = n_tokens, .max_features = cols, .head_dim = 64, .n_ropes = 2});
    std::vector<int32_t> positions(n_tokens);
    std::iota(positions.begin(), positions.end(), 3);
    const Values one = frequencies_of({2, 64, 64}), other = frequencies_of({2, 64, 16});
    const Rope ropes[] = {{one, 64, true, 1}, {other, 64, true, 1}, {one, 64, false, 1}, {one, 64, true, 1.5}};
    const auto rotated = [&](Backend & device, const Rope & rope) {
        const DeviceArray<int32_t> on_device(device, positions);
        DeviceMatrix x(device, device.formats().act, n_tokens, cols, cols);
        x.write(normal(1, n_tokens * cols));
        device.rope(x.view(), on_device.data(), rope, RopeDirection::forward);
        return x.read();
    };
    try {
        for (int turn = 0; turn < 3; ++turn) {
            for (const Rope & rope : ropes) {
                const auto alone = GetParam().make(1);
                alone->reserve({.max_tokens = n_tokens, .max_features = cols, .head_dim = 64});
                EXPECT_EQ(rotated(*backend, rope), rotated(*alone, rope));
            }
        }
    } catch (const Error & error) {
        if (error.status() != LORICA_ERROR_UNSUPPORTED) throw;
        GTEST_SKIP() << error.what();
    }
}

TEST_P(BackendParity, RopeIntoACache) {
    struct Case {
        RopeCase rope;
        int32_t n_head_kv;
    };
    for (const auto & [c, n_head_kv] : {Case{{4, 32, 32}, 4},
                                        {{9, 64, 64}, 3},
                                        {{2, 80, 20}, 1},
                                        {{8, 128, 128}, 2},
                                        {{1, 16, 2}, 1},
                                        {{4, 64, 64, true}, 2},
                                        {{4, 64, 32, true, 1.2}, 2},
                                        {{4, 64, 64, false, 0.8, 0.5}, 2},
                                        {{2, 64, 0}, 2}}) {
        const Values inverse_frequency = frequencies_of(c);
        const Rope rope{inverse_frequency, c.head_dim, c.halves, c.magnitude, c.temperature, 16};
        for (const int32_t n_past : {0, 5, 100}) {
            for (const int64_t n_tokens : {1, 3, 40}) {
                for (const bool elsewhere : {false, true}) {
                    SCOPED_TRACE(testing::Message()
                                 << c.n_head << " and " << n_head_kv << " heads of " << c.head_dim << ", "
                                 << c.n_rotated << (c.halves ? " rotated by halves, T " : " rotated, T ") << n_tokens
                                 << " behind " << n_past << (elsewhere ? ", in rows of their own" : ""));
                    std::vector<int32_t> positions(static_cast<size_t>(n_tokens)), rows(positions.size());
                    std::iota(positions.begin(), positions.end(), n_past);
                    const int64_t q_dim = int64_t{c.n_head} * c.head_dim, kv_dim = int64_t{n_head_kv} * c.head_dim,
                                  n_ctx = n_past + n_tokens + 3;
                    for (size_t t = 0; t < rows.size(); ++t)
                        rows[t] = static_cast<int32_t>(n_ctx - 1 - static_cast<int64_t>(t));
                    expect_parity(
                        GetParam(), {.max_tokens = n_tokens, .max_features = q_dim, .head_dim = c.head_dim},
                        [&](Execution & run) {
                            const Matrix q = run.in_out("q", Role::act, n_tokens, q_dim, normal(1, n_tokens * q_dim));
                            const Matrix k = run.input(Role::act, n_tokens, kv_dim, normal(2, n_tokens * kv_dim));
                            const Matrix v = run.input(Role::act, n_tokens, kv_dim, normal(3, n_tokens * kv_dim));
                            // Rows of other tokens stay as they are.
                            const Matrix k_cache =
                                run.in_out("k_cache", Role::act, n_ctx, kv_dim, normal(4, n_ctx * kv_dim));
                            const Matrix v_cache =
                                run.in_out("v_cache", Role::act, n_ctx, kv_dim, normal(5, n_ctx * kv_dim));
                            run.backend.rope_into_cache(q, k, v, run.integers(positions),
                                                        elsewhere ? run.integers(rows) : nullptr, rope, k_cache,
                                                        v_cache);
                        });
                }
            }
        }
    }
}

// ---- activations

constexpr Act all_acts[] = {Act::silu, Act::gelu_tanh, Act::gelu_erf, Act::relu, Act::tanh};

TEST_P(BackendParity, Gates) {
    for (const Act act : all_acts) {
        for (const auto & [rows, cols] : extents) {
            for (const double deviation : {2.0, 200.0}) {
                SCOPED_TRACE(testing::Message() << "act " << static_cast<int>(act) << ", " << rows << " x " << cols
                                                << ", gates of " << deviation);
                const WorkspaceShape workspace = workspace_of(rows, cols);
                const Values gate = normal(1, rows * cols, deviation), up = normal(2, rows * cols);
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix g = run.input(Role::act, rows, cols, gate), u = run.input(Role::act, rows, cols, up);
                    run.backend.gated(g, u, act, run.output("h", Role::act, rows, cols));
                });
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix g = run.input(Role::act, rows, cols, gate), u = run.input(Role::act, rows, cols, up);
                    const Matrix dh = run.input(Role::act, rows, cols, normal(3, rows * cols));
                    const Matrix dgate = run.output("dgate", Role::act, rows, cols);
                    run.backend.gated_backward(g, u, act, dh, dgate, run.output("dup", Role::act, rows, cols));
                });
                SCOPED_TRACE("in place");
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix g = run.in_out("dgate", Role::act, rows, cols, gate);
                    const Matrix u = run.in_out("dup", Role::act, rows, cols, up);
                    const Matrix dh = run.input(Role::act, rows, cols, normal(3, rows * cols));
                    run.backend.gated_backward(g, u, act, dh, g, u);
                });
            }
        }
    }
}

TEST_P(BackendParity, Activations) {
    for (const Act act : all_acts) {
        for (const auto & [rows, cols] : extents) {
            for (const double deviation : {0.05, 2.0, 200.0}) {
                SCOPED_TRACE(testing::Message() << "act " << static_cast<int>(act) << ", " << rows << " x " << cols
                                                << ", deviation " << deviation);
                const WorkspaceShape workspace = workspace_of(rows, cols);
                const Values x = normal(1, rows * cols, deviation), dh = normal(3, rows * cols);
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    run.backend.activation(run.input(Role::act, rows, cols, x), act,
                                           run.output("h", Role::act, rows, cols));
                });
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix mx = run.input(Role::act, rows, cols, x), mdh = run.input(Role::act, rows, cols, dh);
                    run.backend.activation_backward(mx, act, mdh, run.output("dx", Role::act, rows, cols));
                });
                SCOPED_TRACE("in place");
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix mx = run.in_out("x", Role::act, rows, cols, x);
                    run.backend.activation(mx, act, mx);
                });
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix mx = run.in_out("dx", Role::act, rows, cols, x);
                    run.backend.activation_backward(mx, act, run.input(Role::act, rows, cols, dh), mx);
                });
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix mdh = run.in_out("dx", Role::act, rows, cols, dh);
                    run.backend.activation_backward(run.input(Role::act, rows, cols, x), act, mdh, mdh);
                });
            }
        }
    }
}

// ---- rows

// Every third row, last first.
std::vector<int32_t> some_rows(int64_t n_rows) {
    std::vector<int32_t> rows;
    for (int64_t row = n_rows - 1; row >= 0; row -= 3) {
        rows.push_back(static_cast<int32_t>(row));
    }
    return rows;
}

TEST_P(BackendParity, GatherAndScatterRows) {
    for (const auto & [n_rows, cols] : extents) {
        SCOPED_TRACE(testing::Message() << n_rows << " x " << cols);
        const std::vector<int32_t> rows = some_rows(n_rows);
        const auto n = static_cast<int64_t>(rows.size());
        for (const auto & [from, to] : {std::pair{Role::hidden, Role::hidden},
                                        {Role::act, Role::act},
                                        {Role::hidden, Role::act},
                                        {Role::act, Role::hidden}}) {
            expect_parity(GetParam(), workspace_of(n_rows, cols), [&](Execution & run) {
                const Matrix x = run.input(from, n_rows, cols, normal(1, n_rows * cols));
                run.backend.gather_rows(x, run.integers(rows), run.output("y", to, n, cols));
            });
            expect_parity(GetParam(), workspace_of(n_rows, cols), [&](Execution & run) {
                const Matrix dy = run.input(from, n, cols, normal(1, n * cols));
                const Matrix dx = run.in_out("dx", to, n_rows, cols, normal(2, n_rows * cols));
                run.backend.scatter_add_rows(dy, run.integers(rows), dx);
            });
        }
    }
}

TEST_P(BackendParity, EmbedOnEveryWeightType) {
    for (const ggml_type type : weight_types()) {
        SCOPED_TRACE(ggml_type_name(type));
        const int64_t n_vocab = 259, cols = 256;
        const QuantizedWeight blocks(type, n_vocab, cols, 1);
        const std::vector<int32_t> tokens{258, 0, 17, 17, 100};
        const auto n = static_cast<int64_t>(tokens.size());
        const WorkspaceShape workspace{.max_tokens = n, .max_features = cols, .n_vocab = n_vocab};
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Matrix x = run.output("x", Role::hidden, n, cols);
            run.backend.embed(blocks.on(run.backend), run.integers(tokens), {}, x);
        });
        SCOPED_TRACE("added, times a factor");
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Matrix x = run.in_out("x", Role::hidden, n, cols, normal(2, n * cols));
            run.backend.embed(blocks.on(run.backend), run.integers(tokens), {.scale = 16.5, .accumulate = true}, x);
        });
    }
}

TEST_P(BackendParity, EmbedWithVirtualRows) {
    for (const int64_t cols : {45, 576}) {
        const QuantizedWeight blocks(GGML_TYPE_F16, 30, cols, 1);
        const std::vector<int32_t> ids{-1, -2, -7, 4, 29, -1, 0};
        const auto n = static_cast<int64_t>(ids.size());
        for (const bool accumulate : {false, true}) {
            expect_parity(GetParam(), {.max_tokens = n, .max_features = cols}, [&](Execution & run) {
                const EmbedOptions options{3, run.input(Role::param, 7, cols, normal(2, 7 * cols)), accumulate};
                const Matrix x = accumulate ? run.in_out("x", Role::hidden, n, cols, normal(3, n * cols))
                                            : run.output("x", Role::hidden, n, cols);
                run.backend.embed(blocks.on(run.backend), run.integers(ids), options, x);
            });
        }
    }
}

// Few ids of many rows, as types of tokens; many of few; some never.
TEST_P(BackendParity, EmbedBackwardAddsRepeatedRowsInTheirOrder) {
    for (const auto & [n_rows, n_tokens, cols] : {std::tuple{2, 300, 160}, {40, 257, 96}, {1000, 31, 45}, {3, 1, 64}}) {
        SCOPED_TRACE(testing::Message() << n_tokens << " tokens of " << n_rows << ", " << cols << " columns");
        std::vector<std::pair<int32_t, int32_t>> sorted;
        for (int32_t t = 0; t < n_tokens; t += 1 + t % 2)
            sorted.emplace_back(static_cast<int32_t>(random_u32(9, t) % n_rows), t);
        std::sort(sorted.begin(), sorted.end());
        std::vector<int32_t> ids, rows;
        for (const auto & [id, row] : sorted) ids.push_back(id), rows.push_back(row);
        expect_parity(GetParam(), workspace_of(n_tokens, cols), [&](Execution & run) {
            const Matrix dx = run.input(Role::hidden, n_tokens, cols, normal(1, n_tokens * cols));
            const Matrix table = run.in_out("d_table", Role::param, n_rows, cols, normal(2, n_rows * cols));
            run.backend.embed_backward(dx, run.integers(ids), run.integers(rows), static_cast<int64_t>(ids.size()), 2.5,
                                       table.data);
        });
    }
}

TEST_P(BackendParity, FactorsOfRowsAndOfAll) {
    for (const auto & [rows, cols] : extents) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        const Values values = normal(1, rows * cols);
        for (const auto & [from, to] : {std::pair{Role::hidden, Role::hidden},
                                        {Role::act, Role::act},
                                        {Role::hidden, Role::act},
                                        {Role::act, Role::hidden}}) {
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(from, rows, cols, values);
                const Matrix factors = run.input(Role::f32, 1, rows, normal(2, rows));
                run.backend.scale_rows(x, factors.as<float>(), run.output("y", to, rows, cols));
            });
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                run.backend.scale(run.input(from, rows, cols, values), 33.25, run.output("y", to, rows, cols));
            });
        }
        SCOPED_TRACE("in place");
        expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
            const Matrix x = run.in_out("x", Role::act, rows, cols, values);
            run.backend.scale_rows(x, run.input(Role::f32, 1, rows, normal(2, rows)).as<float>(), x);
            const Matrix y = run.in_out("y", Role::hidden, rows, cols, values);
            run.backend.scale(y, 0.125, y);
        });
    }
}

TEST_P(BackendParity, MeansOfSegments) {
    for (const int64_t cols : {64, 45, 576}) {
        const std::vector<Segment> segments{{0, 1, 0, 0}, {1, 100, 0, 0}, {103, 33, 0, 0}};
        const int64_t n_rows = 140, n = 3;
        SCOPED_TRACE(cols);
        expect_parity(GetParam(), workspace_of(n_rows, cols), [&](Execution & run) {
            const Matrix x = run.input(Role::hidden, n_rows, cols, shifted(1, n_rows * cols));
            run.backend.segment_mean(x, segments, run.output("y", Role::hidden, n, cols));
        });
        expect_parity(GetParam(), workspace_of(n_rows, cols), [&](Execution & run) {
            const Matrix dy = run.input(Role::hidden, n, cols, normal(1, n * cols));
            run.backend.segment_mean_backward(dy, segments,
                                              run.in_out("dx", Role::hidden, n_rows, cols, normal(2, n_rows * cols)));
        });
    }
}

// ---- factors of columns

TEST_P(BackendParity, FactorsOfColumnsForwardAndBackward) {
    if (!GetParam().make(1)->has_dora()) GTEST_SKIP() << "not on this device";
    for (const auto & [rows, cols] : extents) {
        for (const bool with_residual : {false, true}) {
            for (const bool with_bias : {false, true}) {
                SCOPED_TRACE(testing::Message() << rows << " x " << cols << (with_residual ? ", residual" : "")
                                                << (with_bias ? ", bias" : ""));
                const WorkspaceShape workspace = workspace_of(rows, cols);
                const Values factors = normal(2, cols), values = normal(1, rows * cols);
                const Role role = with_residual ? Role::hidden : Role::act;
                const auto residual = [&](Execution & run) {
                    return with_residual ? run.input(Role::hidden, rows, cols, normal(3, rows * cols)) : Matrix{};
                };
                const auto bias = [&](Execution & run) {
                    return with_bias ? Vector(run.input(Role::f32, 1, cols, normal(8, cols)).as<float>()) : Vector();
                };
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix x = run.in_out("x", role, rows, cols, values);
                    run.backend.scale_columns(x, run.input(Role::param, 1, cols, factors).data, bias(run),
                                              residual(run), x);
                });
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix dy = run.input(role, rows, cols, normal(4, rows * cols));
                    const Matrix y = run.input(role, rows, cols, normal(5, rows * cols));
                    DoraRows dora{};
                    dora.factors = run.input(Role::param, 1, cols, factors).data;
                    dora.slopes = run.input(Role::param, 1, cols, normal(6, cols)).data;
                    void * d_magnitudes = run.in_out("d_magnitudes", Role::param, 1, cols, normal(7, cols)).data;
                    run.backend.dora_backward(dy, y, bias(run), residual(run), dora, d_magnitudes,
                                              run.output("dx", Role::act, rows, cols));
                });
                SCOPED_TRACE("in place");
                expect_parity(GetParam(), workspace, [&](Execution & run) {
                    const Matrix dy = run.in_out("dx", Role::act, rows, cols, normal(4, rows * cols));
                    const Matrix y = run.input(Role::act, rows, cols, normal(5, rows * cols));
                    DoraRows dora{};
                    dora.factors = run.input(Role::param, 1, cols, factors).data;
                    dora.slopes = run.input(Role::param, 1, cols, normal(6, cols)).data;
                    run.backend.dora_backward(dy, y, bias(run), {}, dora,
                                              run.in_out("d_magnitudes", Role::param, 1, cols, normal(7, cols)).data,
                                              dy);
                });
            }
        }
    }
}

TEST_P(BackendParity, SumsOfMatrices) {
    for (const auto & [rows, cols] : extents) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols);
        for (const auto & [x_role, y_role] : {std::pair{Role::hidden, Role::hidden},
                                              {Role::act, Role::hidden},
                                              {Role::act, Role::act},
                                              {Role::hidden, Role::act}}) {
            expect_parity(GetParam(), workspace_of(rows, cols), [&](Execution & run) {
                const Matrix x = run.input(x_role, rows, cols, normal(1, rows * cols));
                const Matrix y = run.in_out("y", y_role, rows, cols, normal(2, rows * cols));
                run.backend.scale_columns(x, nullptr, {}, y, y);
            });
        }
    }
}

}  // namespace
}  // namespace lorica::test
