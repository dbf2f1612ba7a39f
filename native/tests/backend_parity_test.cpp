// Every operation of every backend present, against the f64 reference; support/parity.h says how. Norms, rope,
// activations and rows: backend_parity_rows_test.cpp.
#include "support/parity.h"

#include <limits>

namespace lorica::test {
namespace {

class BackendParity : public testing::TestWithParam<Target> {};
INSTANTIATE_TEST_SUITE_P(, BackendParity, testing::ValuesIn(targets()), target_name);

// ---- linear layers

struct LayerCase {
    ggml_type type;
    int64_t out, rank;
    float dropout = 0;
    enum { act, hidden, separate_residual, own_residual, only_u } y = act;
    bool bias = false;
    int64_t gate_parts = 0;
    bool trained = false;  // weight and bias have gradients
};

struct LinearCase {
    int64_t n_tokens, in;
    std::vector<LayerCase> layers;
    Role x = Role::act;
    std::optional<Role> dx = Role::act;
    bool arranged = false;  // forward reads what Backend::arrange makes
    bool normed = false;    // forward is Backend::norm_linear
    Norm::Kind norm = Norm::rms;
    bool accumulate = false;  // of dx
};

WorkspaceShape workspace_of(const LinearCase & c) {
    WorkspaceShape shape{.max_tokens = c.n_tokens, .max_features = c.in, .training = true};
    for (const LayerCase & layer : c.layers) {
        shape.max_features = std::max(shape.max_features, layer.out);
        shape.max_rank = std::max(shape.max_rank, layer.rank);
        shape.dropout |= layer.dropout > 0;
        shape.trained_weights |= layer.trained;
    }
    shape.max_shared = static_cast<int32_t>(c.layers.size());
    return shape;
}

void expect_linear_parity(const Target & target, const LinearCase & c) {
    std::ostringstream trace;
    trace << "T " << c.n_tokens << ", in " << c.in;
    std::vector<QuantizedWeight> blocks;
    for (const LayerCase & layer : c.layers) {
        trace << ", " << ggml_type_name(layer.type) << " out " << layer.out << " rank " << layer.rank;
        blocks.emplace_back(layer.type, layer.out, c.in, 10 * (blocks.size() + 1));
    }
    SCOPED_TRACE(trace.str());
    const double a_deviation = 1 / std::sqrt(static_cast<double>(c.in));

    auto lora = [&](Execution & run, size_t i) {
        const LayerCase & layer = c.layers[i];
        Lora lora;
        if (layer.rank) {
            lora.a = run.input(Role::param, layer.rank, c.in, normal(100 * i + 1, layer.rank * c.in, a_deviation)).data;
            lora.b = run.input(Role::param, layer.out, layer.rank, normal(100 * i + 2, layer.out * layer.rank)).data;
            lora.rank = layer.rank;
            lora.scale = 0.75;
            lora.dropout = {layer.dropout, 1000 + i};
        }
        if (layer.gate_parts) {
            Values gate = normal(100 * i + 8, c.n_tokens * layer.gate_parts);
            for (size_t at = 0; at < gate.size(); at += 3) gate[at] = 0;
            lora.gate = run.input(Role::f32, c.n_tokens, layer.gate_parts, gate);
        }
        return lora;
    };

    {
        SCOPED_TRACE("forward");
        expect_parity(target, workspace_of(c), [&](Execution & run) {
            const Matrix x = run.input(c.x, c.n_tokens, c.in, normal(1, c.n_tokens * c.in));
            std::vector<Weight> weights;
            for (const QuantizedWeight & b : blocks) {
                weights.push_back(b.on(run.backend));
            }
            std::vector<LinearForward> layers;
            for (size_t i = 0; i < blocks.size(); ++i) {
                const LayerCase & layer = c.layers[i];
                const std::string number = std::to_string(i);
                LinearForward forward{.weight = &weights[i], .lora = lora(run, i), .u = {}, .residual = {}, .y = {}};
                if (layer.bias)
                    forward.bias = run.input(Role::f32, 1, layer.out, normal(100 * i + 9, layer.out)).as<float>();
                if (layer.rank) {
                    forward.u = run.output("u" + number, Role::act, c.n_tokens, layer.rank);
                }
                const Values residual = normal(100 * i + 3, c.n_tokens * layer.out);
                switch (layer.y) {
                    case LayerCase::act: forward.y = run.output("y" + number, Role::act, c.n_tokens, layer.out); break;
                    case LayerCase::hidden:
                        forward.y = run.output("y" + number, Role::hidden, c.n_tokens, layer.out);
                        break;
                    case LayerCase::separate_residual:
                        forward.residual = run.input(Role::hidden, c.n_tokens, layer.out, residual);
                        forward.y = run.output("y" + number, Role::hidden, c.n_tokens, layer.out);
                        break;
                    case LayerCase::own_residual:
                        forward.y = run.in_out("y" + number, Role::hidden, c.n_tokens, layer.out, residual);
                        forward.residual = forward.y;
                        break;
                    case LayerCase::only_u: break;
                }
                layers.push_back(forward);
            }
            if (c.arranged) {
                std::vector<const Weight *> all;
                for (const Weight & weight : weights) all.push_back(&weight);
                run.backend.use(run.backend.arrange(all, 1 << 24));
            }
            if (!c.normed) return run.backend.linear(x, layers);
            const Matrix weight = run.input(Role::f32, 1, c.in, normal(2, c.in));
            const int64_t n_statistics = c.norm == Norm::layer ? 2 : 1;
            Norm norm{weight.as<float>(), 1e-5, run.output("statistics", Role::hidden, c.n_tokens, n_statistics),
                      c.norm};
            if (c.norm == Norm::layer) norm.bias = run.input(Role::f32, 1, c.in, normal(3, c.in)).as<float>();
            const Matrix normed =
                run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(c.n_tokens * c.in)));
            run.backend.norm_linear(x, norm, layers, normed);
        });
    }
    {
        SCOPED_TRACE("backward");
        expect_parity(target, workspace_of(c), [&](Execution & run) {
            const Matrix x = run.input(c.x, c.n_tokens, c.in, normal(1, c.n_tokens * c.in));
            std::vector<Weight> weights;
            for (const QuantizedWeight & b : blocks) {
                weights.push_back(b.on(run.backend));
            }
            std::vector<LinearBackward> layers;
            for (size_t i = 0; i < blocks.size(); ++i) {
                const LayerCase & layer = c.layers[i];
                const std::string number = std::to_string(i);
                LinearBackward backward{.weight = &weights[i], .lora = lora(run, i), .u = {}, .dy = {}};
                if (layer.rank) {
                    const int64_t rank = layer.rank;
                    backward.lora.da =
                        run.in_out("da" + number, Role::param, rank, c.in, normal(100 * i + 4, rank * c.in)).data;
                    backward.lora.db =
                        run.in_out("db" + number, Role::param, layer.out, rank, normal(100 * i + 5, layer.out * rank))
                            .data;
                    backward.u = run.input(Role::act, c.n_tokens, rank, normal(100 * i + 6, c.n_tokens * rank));
                }
                if (layer.trained) {
                    backward.dw =
                        run.in_out("dw" + number, Role::param, layer.out, c.in, normal(100 * i + 10, layer.out * c.in))
                            .data;
                    backward.dbias =
                        run.in_out("dbias" + number, Role::param, 1, layer.out, normal(100 * i + 11, layer.out)).data;
                }
                const Role role = layer.y == LayerCase::act ? Role::act : Role::hidden;
                backward.dy = run.input(role, c.n_tokens, layer.out, normal(100 * i + 7, c.n_tokens * layer.out));
                layers.push_back(backward);
            }
            Matrix dx;
            if (c.dx) {
                dx = c.accumulate ? run.in_out("dx", *c.dx, c.n_tokens, c.in, normal(4, c.n_tokens * c.in))
                                  : run.output("dx", *c.dx, c.n_tokens, c.in);
            }
            run.backend.linear_backward(x, layers, c.accumulate, dx);
        });
    }
}

TEST_P(BackendParity, LinearOverShapes) {
    using L = LayerCase;
    const LinearCase cases[] = {
        {1, 64, {{GGML_TYPE_Q4_0, 64, 0}}},
        {1, 576, {{GGML_TYPE_Q4_0, 576, 8}, {GGML_TYPE_Q4_0, 192, 8}, {GGML_TYPE_Q4_0, 192, 8}}},
        {2, 96, {{GGML_TYPE_Q8_0, 160, 1, 0, L::hidden}}},
        {5, 160, {{GGML_TYPE_Q4_1, 96, 4, 0.1f}, {GGML_TYPE_Q5_0, 64, 0}}, Role::act, Role::hidden},
        {31, 256, {{GGML_TYPE_Q4_K, 160, 16, 0.05f, L::separate_residual}}},
        {31, 160, {{GGML_TYPE_F32, 96, 20}}, Role::hidden, Role::hidden},
        {40, 1024, {{GGML_TYPE_Q4_0, 96, 32}}},
        {64, 576, {{GGML_TYPE_Q4_0, 64, 64, 0, L::own_residual}}},
        {64, 768, {{GGML_TYPE_Q6_K, 256, 0}, {GGML_TYPE_Q4_K, 256, 16}}, Role::act, std::nullopt},
        {100, 96, {{GGML_TYPE_F16, 576, 20, 0.5f}, {GGML_TYPE_BF16, 96, 1}, {GGML_TYPE_Q8_0, 64, 4, 0, L::hidden}}},
        {100, 64, {{GGML_TYPE_Q5_1, 768, 0, 0, L::own_residual}}, Role::hidden, Role::hidden},
        {257, 160, {{GGML_TYPE_Q4_0, 64, 8, 0.1f}, {GGML_TYPE_Q4_0, 160, 0}}},
        {257, 576, {{GGML_TYPE_Q4_0, 96, 0, 0, L::separate_residual}}, Role::act, Role::hidden},
        {257, 64, {{GGML_TYPE_Q4_0, 96, 64, 0.9f, L::own_residual}}},
        {1, 96, {{GGML_TYPE_Q4_0, 64, 4, 0, L::only_u}}},
        {64, 256, {{GGML_TYPE_Q4_K, 96, 16, 0.1f, L::only_u}, {GGML_TYPE_Q4_K, 64, 16}, {GGML_TYPE_Q4_K, 64, 0}}},
        // No multiple of anything.
        {7, 45, {{GGML_TYPE_F32, 37, 3, 0.2f}, {GGML_TYPE_F16, 1, 5}}},
    };
    for (const LinearCase & c : cases) {
        expect_linear_parity(GetParam(), c);
    }
}

// Many rows take other ways than few: panels of weights, and on some devices other instructions.
TEST_P(BackendParity, LinearOfManyRows) {
    using L = LayerCase;
    expect_linear_parity(GetParam(), {300, 256, {{GGML_TYPE_Q4_K, 392, 12}, {GGML_TYPE_Q8_0, 130, 0, 0, L::hidden}}});
    expect_linear_parity(GetParam(),
                         {270, 160, {{GGML_TYPE_BF16, 264, 20, 0.1f, L::separate_residual}}, Role::act, Role::hidden});
    // Sums so long that every place of a pipeline in shared memory is used several times.
    expect_linear_parity(GetParam(), {140, 1000, {{GGML_TYPE_BF16, 392, 8}, {GGML_TYPE_BF16, 136, 0}}});
    // Few rows and long sums, which are made in parts.
    expect_linear_parity(GetParam(), {40, 1024, {{GGML_TYPE_Q4_K, 136, 8}, {GGML_TYPE_Q6_K, 40, 0}}});
    // Ranks of several widths, and one that is too large for a kernel of its own.
    expect_linear_parity(GetParam(), {530, 96, {{GGML_TYPE_Q8_0, 200, 40}, {GGML_TYPE_BF16, 72, 72}}});
}

TEST_P(BackendParity, LinearWithBiases) {
    using L = LayerCase;
    const auto biased = [](L layer) {
        layer.bias = true;
        return layer;
    };
    for (const int64_t n_tokens : {1, 4, 5, 33, 257}) {
        expect_linear_parity(GetParam(), {n_tokens,
                                          96,
                                          {biased({GGML_TYPE_Q4_0, 64, 0}),
                                           biased({GGML_TYPE_Q8_0, 33, 4, 0.2f}),
                                           {GGML_TYPE_F16, 64, 0},
                                           biased({GGML_TYPE_Q4_0, 576, 8, 0, L::hidden})}});
        expect_linear_parity(GetParam(), {n_tokens,
                                          160,
                                          {biased({GGML_TYPE_Q4_0, 96, 8, 0, L::separate_residual}),
                                           biased({GGML_TYPE_F32, 64, 0, 0, L::own_residual})},
                                          Role::act,
                                          Role::hidden});
        LinearCase behind_a_norm{
            n_tokens, 96,  {biased({GGML_TYPE_Q4_0, 40, 4}), biased({GGML_TYPE_F16, 7, 0})}, Role::hidden, std::nullopt,
            false,    true};
        expect_linear_parity(GetParam(), behind_a_norm);
        behind_a_norm.norm = Norm::layer;
        expect_linear_parity(GetParam(), behind_a_norm);
    }
    // So much output that it is stored past the caches.
    expect_linear_parity(GetParam(), {520, 64, {biased({GGML_TYPE_Q4_0, 1024, 0})}});
}

TEST_P(BackendParity, LinearWithGatedAdapters) {
    using L = LayerCase;
    const auto gated = [](L layer, int64_t parts) {
        layer.gate_parts = parts;
        return layer;
    };
    for (const int64_t n_tokens : {1, 4, 5, 33, 257}) {
        expect_linear_parity(GetParam(), {n_tokens,
                                          96,
                                          {gated({GGML_TYPE_Q4_0, 64, 8}, 1),
                                           gated({GGML_TYPE_Q4_0, 64, 12}, 3),
                                           gated({GGML_TYPE_F16, 33, 6, 0.3f}, 2),
                                           {GGML_TYPE_F16, 33, 6}}});
    }
}

TEST_P(BackendParity, LinearAddsToTheGradientOfItsInput) {
    using L = LayerCase;
    for (const Role dx : {Role::hidden, Role::act}) {
        for (const int64_t n_tokens : {1, 5, 33, 257}) {
            LinearCase c{
                n_tokens, 96, {{GGML_TYPE_Q4_0, 64, 4}, {GGML_TYPE_F16, 96, 3, 0.2f, L::hidden}}, Role::act, dx};
            c.accumulate = true;
            expect_linear_parity(GetParam(), c);
        }
    }
}

TEST_P(BackendParity, LinearWithTrainedWeights) {
    using L = LayerCase;
    const auto trained = [](L layer) {
        layer.trained = layer.bias = true;
        return layer;
    };
    for (const int64_t n_tokens : {1, 5, 33, 257}) {
        expect_linear_parity(GetParam(), {n_tokens, 96, {trained({GGML_TYPE_F32, 64, 0})}});
        expect_linear_parity(
            GetParam(),
            {n_tokens,
             45,
             {trained({GGML_TYPE_F32, 37, 0, 0, L::hidden}), trained({GGML_TYPE_F32, 64, 4}), {GGML_TYPE_F16, 33, 4}},
             Role::hidden,
             Role::hidden});
    }
}

TEST_P(BackendParity, LinearOnEveryWeightType) {
    for (const ggml_type type : weight_types()) {
        for (const int64_t n_tokens : {1, 5, 40}) {
            expect_linear_parity(GetParam(), {n_tokens, 512, {{type, 72, 8}}});
        }
    }
}

TEST_P(BackendParity, LinearBehindANorm) {
    using L = LayerCase;
    const auto norm_and = [](int64_t n_tokens, int64_t in, std::vector<LayerCase> layers) {
        return LinearCase{n_tokens, in, std::move(layers), Role::hidden, std::nullopt, false, true};
    };
    const LinearCase cases[] = {
        norm_and(1, 512, {{GGML_TYPE_Q4_K, 512, 0}, {GGML_TYPE_Q4_K, 128, 0}, {GGML_TYPE_Q6_K, 128, 0}}),
        norm_and(1, 576, {{GGML_TYPE_Q4_0, 576, 8}, {GGML_TYPE_Q4_0, 192, 4, 0.3f}, {GGML_TYPE_Q4_0, 192, 0}}),
        norm_and(3, 96, {{GGML_TYPE_Q8_0, 40, 0, 0, L::separate_residual}, {GGML_TYPE_F16, 7, 3, 0, L::hidden}}),
        norm_and(8, 1088,
                 {{GGML_TYPE_Q4_0, 33, 2}, {GGML_TYPE_Q4_0, 1, 0}, {GGML_TYPE_Q4_0, 64, 20}, {GGML_TYPE_Q4_0, 17, 0}}),
        norm_and(1, 45, {{GGML_TYPE_F32, 37, 3, 0.2f}, {GGML_TYPE_BF16, 21, 0}}),
        norm_and(40, 256, {{GGML_TYPE_Q4_K, 160, 16}, {GGML_TYPE_Q5_K, 96, 0}}),
        norm_and(2, 64, {{GGML_TYPE_Q4_0, 64, 4, 0, L::only_u}}),
    };
    for (const LinearCase & c : cases) expect_linear_parity(GetParam(), c);
}

TEST_P(BackendParity, GateAndUpBehindANorm) {
    struct Case {
        int64_t n_tokens, in, out, rank;
        ggml_type gate, up;
        Act act = Act::silu;
        Norm::Kind norm = Norm::rms;
        bool bias = false;
    };
    for (const Case & c : {Case{1, 512, 200, 0, GGML_TYPE_Q4_K, GGML_TYPE_Q4_K},
                           {1, 1056, 33, 4, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0},
                           {5, 96, 77, 3, GGML_TYPE_F16, GGML_TYPE_F16},
                           {8, 45, 9, 0, GGML_TYPE_F32, GGML_TYPE_F32},
                           {2, 256, 64, 2, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K},
                           {30, 96, 64, 8, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0},
                           {1, 512, 200, 4, GGML_TYPE_Q4_K, GGML_TYPE_Q4_K, Act::gelu_tanh},
                           {30, 96, 64, 8, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, Act::gelu_tanh},
                           {3, 96, 77, 0, GGML_TYPE_F16, GGML_TYPE_F16, Act::gelu_erf, Norm::layer},
                           {1, 96, 64, 0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, Act::silu, Norm::rms, true},
                           {40, 96, 64, 4, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, Act::gelu_erf, Norm::layer, true}}) {
        SCOPED_TRACE(testing::Message() << "T " << c.n_tokens << ", " << c.in << " to " << c.out << ", rank "
                                        << c.rank);
        const QuantizedWeight gate(c.gate, c.out, c.in, 1), up(c.up, c.out, c.in, 2);
        const WorkspaceShape workspace{
            .max_tokens = c.n_tokens, .max_features = std::max(c.in, c.out), .max_rank = c.rank};
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Weight weights[] = {gate.on(run.backend), up.on(run.backend)};
            const Matrix x = run.input(Role::hidden, c.n_tokens, c.in, normal(1, c.n_tokens * c.in, 3));
            const Matrix weight = run.input(Role::f32, 1, c.in, normal(2, c.in));
            const Norm norm{weight.as<float>(), 1e-5,
                            run.output("statistics", Role::hidden, c.n_tokens, c.norm == Norm::layer ? 2 : 1), c.norm};
            const Matrix normed =
                run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(c.n_tokens * c.in)));
            LinearForward layers[2];
            for (size_t i = 0; i < 2; ++i) {
                const std::string number = std::to_string(i);
                layers[i].weight = &weights[i];
                layers[i].y = run.output("y" + number, Role::act, c.n_tokens, c.out);
                if (c.bias) layers[i].bias = run.input(Role::f32, 1, c.out, normal(30 + i, c.out)).as<float>();
                if (c.rank == 0) continue;
                layers[i].lora.a = run.input(Role::param, c.rank, c.in, normal(10 + i, c.rank * c.in, 0.1)).data;
                layers[i].lora.b = run.input(Role::param, c.out, c.rank, normal(20 + i, c.out * c.rank)).data;
                layers[i].lora.rank = c.rank;
                layers[i].lora.scale = 0.5;
                layers[i].u = run.output("u" + number, Role::act, c.n_tokens, c.rank);
            }
            run.backend.norm_linear_gated(x, norm, layers[0], layers[1], c.act, normed,
                                          run.output("h", Role::act, c.n_tokens, c.out));
        });
    }
}

// Whole strips of rows and parts of one; some types are arranged, others read as they are; from five rows on none is.
TEST_P(BackendParity, LinearOnArrangedWeights) {
    using L = LayerCase;
    for (const ggml_type type : weight_types()) {
        for (const int64_t n_tokens : {1, 3, 4, 5}) {
            expect_linear_parity(GetParam(), {n_tokens,
                                              512,
                                              {{type, 72, 8}, {GGML_TYPE_Q4_0, 32, 0, 0, L::separate_residual}},
                                              Role::act,
                                              std::nullopt,
                                              true});
        }
    }
}

TEST_P(BackendParity, FrozenAdapterGivesDxWithoutItsOwnGradients) {
    const int64_t n_tokens = 9, in = 96, out = 64, rank = 4;
    const QuantizedWeight blocks(GGML_TYPE_Q4_0, out, in, 1);
    expect_parity(GetParam(), {.max_tokens = n_tokens, .max_features = in, .max_rank = rank, .training = true},
                  [&](Execution & run) {
                      const Weight weight = blocks.on(run.backend);
                      const Matrix x = run.input(Role::act, n_tokens, in, normal(2, n_tokens * in));
                      LinearBackward layer{.weight = &weight, .lora = {}, .u = {}, .dy = {}};
                      layer.lora.a = run.input(Role::param, rank, in, normal(3, rank * in, 0.1)).data;
                      layer.lora.b = run.input(Role::param, out, rank, normal(4, out * rank)).data;
                      layer.lora.rank = rank;
                      layer.lora.scale = 2;
                      layer.u = run.input(Role::act, n_tokens, rank, normal(5, n_tokens * rank));
                      layer.dy = run.input(Role::act, n_tokens, out, normal(6, n_tokens * out));
                      run.backend.linear_backward(x, {&layer, 1}, false, run.output("dx", Role::act, n_tokens, in));
                  });
}

// ---- several operations in one

struct FusedCase {
    int64_t n_tokens, in, out;
    int64_t rank = 8;
    float dropout = 0;
    bool with_input_gradient = true;
    bool trained = false;  // the layers' weights and biases
};
constexpr FusedCase fused_cases[] = {
    {1, 64, 96},
    {5, 96, 64, 0},
    {33, 576, 160, 16},
    {100, 160, 96, 20, 0.1f},
    {64, 96, 64, 4, 0, false},
    {290, 192, 320, 8},
    {37, 45, 70, 3},
    {300, 64, 96, 4, 0.2f, false},
    {33, 96, 64, 0, 0, true, true},
    {100, 64, 96, 4, 0, true, true},
    {40, 45, 70, 0, 0, false, true},
};

// The layer's weight, and its LoRA with gradients that are reported as da and db.
LinearBackward fused_layer(Execution & run, const FusedCase & c, const Weight & weight, uint64_t seed) {
    const std::string number = std::to_string(seed);
    LinearBackward layer{.weight = &weight, .lora = {}, .u = {}, .dy = {}};
    if (c.rank) {
        layer.lora.a = run.input(Role::param, c.rank, c.in,
                                 normal(seed + 1, c.rank * c.in, 1 / std::sqrt(static_cast<double>(c.in))))
                           .data;
        layer.lora.b = run.input(Role::param, c.out, c.rank, normal(seed + 2, c.out * c.rank)).data;
        layer.lora.da = run.in_out("da" + number, Role::param, c.rank, c.in, normal(seed + 3, c.rank * c.in)).data;
        layer.lora.db = run.in_out("db" + number, Role::param, c.out, c.rank, normal(seed + 4, c.out * c.rank)).data;
        layer.lora.rank = c.rank;
        layer.lora.scale = 0.75;
        layer.lora.dropout = {c.dropout, 1000 + seed};
        layer.u = run.input(Role::act, c.n_tokens, c.rank, normal(seed + 5, c.n_tokens * c.rank));
    }
    if (c.trained) {
        layer.dw = run.in_out("dw" + number, Role::param, c.out, c.in, normal(seed + 6, c.out * c.in)).data;
        layer.dbias = run.in_out("dbias" + number, Role::param, 1, c.out, normal(seed + 7, c.out)).data;
    }
    return layer;
}

WorkspaceShape workspace_of(const FusedCase & c) {
    return {.max_tokens = c.n_tokens,
            .max_features = std::max(c.in, c.out),
            .max_rank = c.rank,
            .training = true,
            .dropout = c.dropout > 0,
            .trained_weights = c.trained};
}

void expect_gate_and_layer_parity(const Target & target, Act act) {
    for (const FusedCase & c : fused_cases) {
        const QuantizedWeight blocks(c.in % 32 ? GGML_TYPE_F16 : GGML_TYPE_Q4_0, c.out, c.in, 1);
        for (const bool in_place : {true, false}) {
            SCOPED_TRACE(testing::Message()
                         << "T " << c.n_tokens << ", " << c.in << " to " << c.out << (in_place ? ", in place" : ""));
            expect_parity(target, workspace_of(c), [&](Execution & run) {
                const Weight weight = blocks.on(run.backend);
                LinearBackward down = fused_layer(run, c, weight, 10);
                down.dy = run.input(Role::act, c.n_tokens, c.out, normal(1, c.n_tokens * c.out));
                const int64_t n = c.n_tokens * c.in;
                const auto memory = [&] {
                    return run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(n)));
                };
                const Matrix h = memory(), dh = c.with_input_gradient ? memory() : Matrix{};
                // Without dh nothing is written there.
                const bool reported = in_place && c.with_input_gradient;
                const Values gates = normal(2, n, 2), ups = normal(3, n);
                const Matrix gate = reported ? run.in_out("dgate", Role::act, c.n_tokens, c.in, gates)
                                             : run.input(Role::act, c.n_tokens, c.in, gates);
                const Matrix up = reported ? run.in_out("dup", Role::act, c.n_tokens, c.in, ups)
                                           : run.input(Role::act, c.n_tokens, c.in, ups);
                const bool elsewhere = !in_place && c.with_input_gradient;
                const Matrix dgate = elsewhere ? run.output("dgate", Role::act, c.n_tokens, c.in) : gate;
                run.backend.gated_linear_backward(gate, up, act, down, h, dh, dgate,
                                                  elsewhere ? run.output("dup", Role::act, c.n_tokens, c.in) : up);
            });
        }
    }
}

TEST_P(BackendParity, SwigluAndTheLayerBehindIt) { expect_gate_and_layer_parity(GetParam(), Act::silu); }
TEST_P(BackendParity, GegluAndTheLayerBehindIt) {
    expect_gate_and_layer_parity(GetParam(), Act::gelu_tanh);
    expect_gate_and_layer_parity(GetParam(), Act::gelu_erf);
}

void expect_norm_and_layers_parity(const Target & target, Norm::Kind kind, int32_t groups) {
    for (const FusedCase & c : fused_cases) {
        if (c.in % groups) continue;
        const QuantizedWeight first(c.in % 32 ? GGML_TYPE_F16 : GGML_TYPE_Q4_0, c.out, c.in, 1);
        const QuantizedWeight second(GGML_TYPE_F16, c.out, c.in, 2);
        for (const bool keeps_statistics : {true, false}) {
            SCOPED_TRACE(testing::Message() << "T " << c.n_tokens << ", " << c.in << " to " << c.out
                                            << (keeps_statistics ? ", statistics kept" : ""));
            expect_parity(target, workspace_of(c), [&](Execution & run) {
                const int64_t n = c.n_tokens * c.in;
                const Weight weights[] = {first.on(run.backend), second.on(run.backend)};
                const Matrix x = run.input(Role::hidden, c.n_tokens, c.in, normal(1, n, 3));
                const int64_t n_weights = c.in / groups;
                Norm norm{
                    run.input(Role::f32, 1, n_weights, normal(2, n_weights)).as<float>(), 1e-5, {}, kind, {}, groups};
                if (kind == Norm::layer)
                    norm.bias = run.input(Role::f32, 1, n_weights, normal(5, n_weights)).as<float>();
                const Matrix normed = run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(n)));
                if (keeps_statistics) {
                    norm.statistics = run.output("statistics", Role::hidden, c.n_tokens, norm.n_statistics());
                    run.backend.norm(x, norm, {}, normed);
                }
                const Matrix d_normed = run.input(Role::hidden, c.n_tokens, c.in, Values(static_cast<size_t>(n)));
                LinearBackward layers[] = {fused_layer(run, c, weights[0], 10), fused_layer(run, c, weights[1], 20)};
                for (LinearBackward & layer : layers)
                    layer.dy = run.input(Role::act, c.n_tokens, c.out, normal(3, c.n_tokens * c.out));
                Matrix dx, dx_act;
                if (c.with_input_gradient) {
                    dx = run.in_out("dx", Role::hidden, c.n_tokens, c.in, normal(4, n));
                    dx_act = run.output("dx_act", Role::act, c.n_tokens, c.in);
                }
                run.backend.norm_linear_backward(x, norm, layers, normed, d_normed, dx, dx_act);
            });
        }
    }
}

TEST_P(BackendParity, RmsnormAndTheLayersBehindIt) { expect_norm_and_layers_parity(GetParam(), Norm::rms, 1); }
TEST_P(BackendParity, LayerNormAndTheLayersBehindIt) { expect_norm_and_layers_parity(GetParam(), Norm::layer, 1); }
TEST_P(BackendParity, NormOfGroupsAndTheLayersBehindIt) { expect_norm_and_layers_parity(GetParam(), Norm::rms, 4); }

TEST_P(BackendParity, NoRowsAreNoWork) {
    // A micro-batch none of whose tokens is trained on.
    const auto backend = GetParam().make(2);
    backend->reserve({.max_tokens = 1, .max_features = 64, .n_vocab = 259, .training = true});
    const QuantizedWeight blocks(GGML_TYPE_Q4_0, 259, 64, 1);
    Execution run(*backend, backend->formats());
    const Matrix none = run.input(Role::hidden, 0, 64, {}), none_act = run.input(Role::act, 0, 64, {});
    const Matrix some = run.in_out("x", Role::hidden, 3, 64, normal(1, 3 * 64));
    const Matrix nll = run.output("nll", Role::hidden, 1, 0);
    backend->gather_rows(some, nullptr, none);
    const Weight weight = blocks.on(*backend);
    backend->linear_cross_entropy(none_act, {&weight}, nullptr, nll.data, none_act);
    backend->scatter_add_rows(none, nullptr, some);
    EXPECT_EQ(run.outputs()[0].bytes, encode(backend->formats().hidden, normal(1, 3 * 64)));
}

// ---- attention

std::vector<Segment> packed(std::initializer_list<int32_t> lengths) {
    std::vector<Segment> segments;
    int32_t begin = 0;
    for (const int32_t length : lengths) {
        segments.push_back({begin, length, begin, length});
        begin += length;
    }
    return segments;
}

struct AttentionCase {
    AttentionShape shape;
    std::vector<Segment> segments;
    int64_t n_q = 0, n_kv = 0, longest = 0;
    Values q, k, v, d_o;

    AttentionCase(int32_t n_head, int32_t n_head_kv, int32_t head_dim, std::vector<Segment> list, double deviation = 1,
                  MaskSpec mask = {}, double softcap = 0)
        : shape{n_head, n_head_kv, head_dim, 1 / std::sqrt(head_dim), mask, softcap}, segments(std::move(list)) {
        for (const Segment & segment : segments) {
            n_q = std::max<int64_t>(n_q, segment.q_begin + segment.q_len);
            n_kv = std::max<int64_t>(n_kv, segment.kv_begin + segment.kv_len);
            longest = std::max<int64_t>(longest, segment.kv_len);
        }
        q = normal(1, n_q * q_cols(), deviation);
        k = normal(2, n_kv * kv_cols(), deviation);
        v = normal(3, n_kv * kv_cols());
        d_o = normal(4, n_q * q_cols());
    }
    int64_t q_cols() const { return int64_t{shape.n_head} * shape.head_dim; }
    int64_t kv_cols() const { return int64_t{shape.n_head_kv} * shape.head_dim; }
    WorkspaceShape workspace(bool training) const {
        return {.max_tokens = n_q,
                .max_sequence_length = longest,
                .max_features = q_cols(),
                .n_head = shape.n_head,
                .n_head_kv = shape.n_head_kv,
                .head_dim = shape.head_dim,
                .training = training,
                .max_kv_rows = n_kv};
    }
    std::string description() const {
        std::ostringstream out;
        out << shape.n_head << '/' << shape.n_head_kv << " heads of " << shape.head_dim << ", segments";
        for (const Segment & segment : segments) {
            out << ' ' << segment.q_len << ':' << segment.kv_len;
        }
        out << ", back " << shape.mask.back << ", ahead " << shape.mask.ahead << ", cap " << shape.softcap;
        return out.str();
    }

    void forward(Execution & run, bool keep_lse) const {
        const Matrix mq = run.input(Role::act, n_q, q_cols(), q);
        const Matrix mk = run.input(Role::act, n_kv, kv_cols(), k);
        const Matrix mv = run.input(Role::act, n_kv, kv_cols(), v);
        const Matrix o = run.output("o", Role::act, n_q, q_cols());
        const Matrix lse = keep_lse ? run.output("lse", Role::hidden, n_q, shape.n_head) : Matrix{};
        run.backend.attention(mq, mk, mv, segments, shape, o, lse);
    }
    // o and lse: as a forward pass left them.
    void backward(Execution & run, const Values & o, const Values & lse) const {
        const Matrix mq = run.input(Role::act, n_q, q_cols(), q);
        const Matrix mk = run.input(Role::act, n_kv, kv_cols(), k);
        const Matrix mv = run.input(Role::act, n_kv, kv_cols(), v);
        const Matrix mo = run.input(Role::act, n_q, q_cols(), o);
        const Matrix mlse = run.input(Role::hidden, n_q, shape.n_head, lse);
        const Matrix mdo = run.input(Role::act, n_q, q_cols(), d_o);
        const Matrix dq = run.output("dq", Role::act, n_q, q_cols());
        const Matrix dk = run.output("dk", Role::act, n_kv, kv_cols());
        const Matrix dv = run.output("dv", Role::act, n_kv, kv_cols());
        run.backend.attention_backward(mq, mk, mv, mo, mlse, mdo, segments, shape, dq, dk, dv);
    }
};

void expect_attention_parity(const Target & target, std::span<const AttentionCase> cases) {
    for (const AttentionCase & c : cases) {
        SCOPED_TRACE(c.description());
        {
            SCOPED_TRACE("forward");
            expect_parity(target, c.workspace(true), [&](Execution & run) { c.forward(run, true); });
        }
        {
            SCOPED_TRACE("forward without log-sum-exp");
            expect_parity(target, c.workspace(false), [&](Execution & run) { c.forward(run, false); });
        }
        const auto reference = make_backend("reference", Dtype::f64, 1);
        const std::vector<Output> forward =
            execute(*reference, target.make(1)->formats(), [&](Execution & run) { c.forward(run, true); });
        {
            // A query that sees one key has dq = dk = 0 by cancellation of numbers near 1.
            SCOPED_TRACE("backward");
            const bool all_cancel = c.shape.mask == MaskSpec{0, 0};
            expect_parity(
                target, c.workspace(true),
                [&](Execution & run) { c.backward(run, forward[0].values, forward[1].values); },
                all_cancel ? 0.1 : 0.01);
        }
    }
}

TEST_P(BackendParity, AttentionForwardAndBackward) {
    const AttentionCase cases[] = {
        {1, 1, 16, packed({1})},
        {4, 2, 16, packed({2, 5, 1})},
        {4, 2, 32, packed({31, 1, 64})},
        {8, 1, 32, packed({33})},
        {9, 3, 64, packed({1, 2, 7, 33, 100})},
        {1, 1, 64, packed({257})},
        {4, 2, 80, packed({100, 31})},
        {8, 1, 128, packed({5, 64})},
        {9, 3, 128, packed({129, 2})},
        {2, 1, 96, packed({65, 64, 63})},
        // Heads that do not begin at multiples of 16 bytes, wherever their rows do.
        {4, 2, 20, packed({70, 3})},
        {2, 1, 100, packed({65})},
        {4, 2, 160, packed({3, 40})},
        {2, 1, 256, packed({33, 7})},
        // Peaked softmax: scores of some tens.
        {4, 2, 64, packed({40, 25}), 3.0},
    };
    expect_attention_parity(GetParam(), cases);
}

constexpr int32_t all = MaskSpec::all;

// Windows smaller than, equal to and larger than the blocks of kernels (32, 64 and 512 keys) and the segment.
TEST_P(BackendParity, AttentionWithAWindow) {
    std::vector<AttentionCase> cases;
    for (const int32_t window : {1, 2, 31, 32, 33, 63, 64, 65, 100, 128, 129, 1000}) {
        cases.push_back({4, 2, 64, packed({1, 2, 100, 33}), 1, {window - 1, 0}});
        cases.push_back({3, 1, 32, packed({257}), 1, {window - 1, 0}});
    }
    cases.push_back({2, 2, 80, packed({40, 130}), 1, {15, 0}});
    for (const int32_t window : {7, 511, 512, 513}) cases.push_back({2, 1, 32, packed({600}), 1, {window - 1, 0}});
    for (const int32_t window : {300, 700}) cases.push_back({2, 1, 16, packed({3, 1100}), 1, {window - 1, 0}});
    expect_attention_parity(GetParam(), cases);
}

TEST_P(BackendParity, AttentionBothWays) {
    std::vector<AttentionCase> cases;
    for (const MaskSpec mask : {MaskSpec{all, all}, {64, 64}, {5, 5}, {0, all}, {31, 2}, {0, 0}, {1000, 1000}}) {
        cases.push_back({4, 2, 64, packed({1, 2, 100, 33}), 1, mask});
        cases.push_back({3, 3, 32, packed({130}), 1, mask});
        cases.push_back({2, 1, 16, packed({600, 5}), 1, mask});
    }
    expect_attention_parity(GetParam(), cases);
}

TEST_P(BackendParity, AttentionWithASoftCap) {
    const AttentionCase cases[] = {
        {4, 2, 64, packed({1, 2, 100, 33}), 1, {}, 50}, {4, 2, 64, packed({1, 2, 100, 33}), 3, {}, 20},
        {8, 4, 256, packed({65}), 2, {}, 50},           {3, 1, 32, packed({600}), 2, {}, 5},
        {4, 2, 64, packed({100, 40}), 3, {20, 0}, 10},  {2, 1, 32, packed({70}), 6, {all, all}, 30},
    };
    expect_attention_parity(GetParam(), cases);
}

// A prefix that every segment has for itself.
TEST_P(BackendParity, AttentionBehindMoreKeysThanQueries) {
    const AttentionCase cases[] = {
        {4, 2, 64, {{0, 40, 0, 50}}},
        {3, 1, 32, {{0, 1, 0, 21}, {1, 64, 21, 84}, {65, 33, 105, 133}}},
        {2, 1, 64, {{0, 20, 0, 700}}},
        {2, 2, 32, {{0, 590, 0, 600}, {590, 4, 600, 30}}},
        {4, 2, 64, {{0, 40, 0, 50}}, 1, {7, 0}},
        {2, 1, 32, {{0, 100, 0, 650}}, 1, {63, 0}},
        {2, 1, 32, {{0, 100, 0, 650}}, 2, {all, 0}, 8},
        {4, 2, 64, {{0, 40, 0, 50}}, 1, {all, all}},
    };
    expect_attention_parity(GetParam(), cases);
}

TEST_P(BackendParity, AttentionOverACache) {
    const AttentionCase cases[] = {
        {9, 3, 64, {{0, 1, 0, 100}}},
        {8, 1, 32, {{0, 1, 0, 1}}},
        {4, 2, 80, {{0, 5, 0, 37}}},
        {4, 2, 128, {{0, 64, 0, 257}}},
        // Several sequences whose caches lie apart and in another order.
        {4, 2, 64, {{0, 1, 300, 77}, {1, 3, 0, 3}, {4, 1, 128, 129}}},
        {1, 1, 16, {{0, 2, 5, 600}}},
        {4, 2, 256, {{0, 1, 20, 70}, {1, 2, 0, 9}}},
        {4, 2, 192, {{0, 20, 0, 50}}},
        // exp of its scores overflows in f32: the maximum must be taken off first.
        {4, 2, 64, {{0, 40, 0, 40}}, 6.0},
        {4, 2, 64, {{0, 1, 0, 90}}, 6.0},
        {4, 2, 64, {{0, 1, 0, 400}}, 1, {99, 0}},
        {4, 2, 64, {{0, 1, 0, 400}}, 1, {128, 0}},
        {8, 1, 128, {{0, 4, 3, 333}, {4, 1, 340, 600}}, 1, {31, 0}},
        {2, 1, 32, {{0, 3, 0, 130}}, 1, {0, 0}},
        {2, 1, 32, {{0, 16, 0, 300}}, 1, {20, 0}},
        {4, 2, 64, {{0, 1, 0, 400}}, 3, {}, 15},
        {4, 2, 64, {{0, 3, 0, 400}}, 3, {200, 0}, 15},
    };
    for (const AttentionCase & c : cases) {
        SCOPED_TRACE(c.description());
        expect_parity(GetParam(), c.workspace(false), [&](Execution & run) { c.forward(run, false); });
    }
}

TEST_P(BackendParity, PackedSegmentsGiveWhatTheyGiveAlone) {
    const AttentionCase whole(4, 2, 64, packed({1, 2, 70, 33}));
    const auto backend = GetParam().make(2);
    backend->reserve(whole.workspace(true));
    const Formats formats = backend->formats();
    const std::vector<Output> forward = execute(*backend, formats, [&](Execution & run) { whole.forward(run, true); });
    const std::vector<Output> backward =
        execute(*backend, formats, [&](Execution & run) { whole.backward(run, forward[0].values, forward[1].values); });

    const int64_t q_cols = whole.q_cols(), kv_cols = whole.kv_cols(), n_head = whole.shape.n_head;
    for (const Segment & segment : whole.segments) {
        SCOPED_TRACE("segment of " + std::to_string(segment.q_len));
        const int64_t begin = segment.q_begin, end = segment.q_begin + segment.q_len;
        AttentionCase alone(4, 2, 64, packed({segment.q_len}));
        alone.q = part(whole.q, begin * q_cols, end * q_cols);
        alone.k = part(whole.k, begin * kv_cols, end * kv_cols);
        alone.v = part(whole.v, begin * kv_cols, end * kv_cols);
        alone.d_o = part(whole.d_o, begin * q_cols, end * q_cols);
        const std::vector<Output> alone_forward =
            execute(*backend, formats, [&](Execution & run) { alone.forward(run, true); });
        EXPECT_EQ(alone_forward[0].values, part(forward[0].values, begin * q_cols, end * q_cols));
        EXPECT_EQ(alone_forward[1].values, part(forward[1].values, begin * n_head, end * n_head));

        const std::vector<Output> alone_backward = execute(*backend, formats, [&](Execution & run) {
            alone.backward(run, alone_forward[0].values, alone_forward[1].values);
        });
        EXPECT_EQ(alone_backward[0].values, part(backward[0].values, begin * q_cols, end * q_cols));
        EXPECT_EQ(alone_backward[1].values, part(backward[1].values, begin * kv_cols, end * kv_cols));
        EXPECT_EQ(alone_backward[2].values, part(backward[2].values, begin * kv_cols, end * kv_cols));
    }
}

// ---- the head

struct HeadLora {
    int64_t rank = 0;
    float dropout = 0;
    bool gated = false;
};

void expect_head_parity(const Target & target, ggml_type type, int64_t n, int64_t in, int64_t n_vocab,
                        std::optional<Role> dx, const LogitSpec & spec = {}, bool weighted = false,
                        bool trained = false, const HeadLora & lora = {}) {
    SCOPED_TRACE(testing::Message() << ggml_type_name(type) << ", " << n << " rows of " << in << ", vocabulary "
                                    << n_vocab << ", scale " << spec.scale << ", cap " << spec.cap
                                    << (trained ? ", trained" : "") << ", rank " << lora.rank << ", dropout "
                                    << lora.dropout);
    const QuantizedWeight blocks(type, n_vocab, in, 1);
    const auto put_lora = [&](Execution & run, Head & head, bool backward) {
        if (lora.rank == 0) return;
        const int64_t rank = lora.rank;
        head.lora.a = run.input(Role::param, rank, in, normal(11, rank * in, 0.1)).data;
        head.lora.b = run.input(Role::param, n_vocab, rank, normal(12, n_vocab * rank, 0.3)).data;
        head.lora.rank = rank;
        head.lora.scale = 0.75;
        if (lora.gated) {
            Values ones(static_cast<size_t>(2 * n));
            for (size_t i = 0; i < ones.size(); ++i) ones[i] = i % 3 == 0 ? 0 : 1;
            head.lora.gate = run.input(Role::f32, n, 2, ones);
        }
        if (!backward) return;
        head.lora.dropout = {lora.dropout, 77};
        head.lora.da = run.in_out("da", Role::param, rank, in, normal(13, rank * in)).data;
        head.lora.db = run.in_out("db", Role::param, n_vocab, rank, normal(14, n_vocab * rank)).data;
    };
    std::vector<int32_t> labels(n);
    for (int64_t i = 0; i < n; ++i) {
        labels[i] = static_cast<int32_t>(random_u32(3, i) % n_vocab);
    }
    labels.back() = static_cast<int32_t>(n_vocab - 1);
    labels.front() = n > 1 ? 0 : labels.front();
    const WorkspaceShape workspace{.max_tokens = n,
                                   .max_features = in,
                                   .n_vocab = n_vocab,
                                   .max_rank = lora.rank,
                                   .training = true,
                                   .dropout = lora.dropout > 0,
                                   .trained_weights = trained,
                                   .head_rank = lora.rank};
    // Logits with a deviation of 3: some rows are certain, some are not.
    const Values x = normal(2, n * in, 3);
    expect_parity(target, workspace, [&](Execution & run) {
        const Matrix mx = run.input(Role::act, n, in, x);
        const Matrix nll = run.output("nll", Role::hidden, 1, n);
        const Matrix mdx = dx ? run.output("dx", *dx, n, in) : Matrix{};
        const Weight weight = blocks.on(run.backend);
        Head head{&weight, spec};
        if (weighted) head.row_weights = run.input(Role::f32, 1, n, normal(5, n)).as<float>();
        if (trained) head.dw = run.in_out("dw", Role::param, n_vocab, in, normal(6, n_vocab * in)).data;
        put_lora(run, head, true);
        run.backend.linear_cross_entropy(mx, head, run.integers(labels), nll.data, mdx);
    });
    expect_parity(target, workspace, [&](Execution & run) {
        const Matrix mx = run.input(Role::act, n, in, x);
        const Weight weight = blocks.on(run.backend);
        Head head{&weight, spec};
        put_lora(run, head, false);
        run.backend.logits(mx, head, run.output("logits", Role::f32, n, n_vocab).as<float>());
    });
}

TEST_P(BackendParity, HeadOverShapes) {
    expect_head_parity(GetParam(), GGML_TYPE_Q8_0, 1, 64, 259, Role::act);
    expect_head_parity(GetParam(), GGML_TYPE_Q4_0, 2, 576, 259, Role::hidden);
    expect_head_parity(GetParam(), GGML_TYPE_F16, 5, 160, 4096, Role::act);
    expect_head_parity(GetParam(), GGML_TYPE_Q6_K, 31, 256, 4096, std::nullopt);
    expect_head_parity(GetParam(), GGML_TYPE_Q4_0, 64, 96, 259, std::nullopt);
    expect_head_parity(GetParam(), GGML_TYPE_Q6_K, 100, 256, 1031, Role::hidden);
    expect_head_parity(GetParam(), GGML_TYPE_F32, 257, 64, 259, Role::act);
    expect_head_parity(GetParam(), GGML_TYPE_Q4_1, 33, 768, 4096, Role::act);
    expect_head_parity(GetParam(), GGML_TYPE_F32, 3, 45, 7, Role::act);
}

void expect_head_parity_of_labels(const Target & target, ggml_type type, int64_t n, int64_t in, int64_t n_vocab,
                                  int32_t n_labels, const LogitSpec & spec, bool trained, int64_t rank) {
    SCOPED_TRACE(testing::Message() << ggml_type_name(type) << ", " << n << " rows of " << in << ", vocabulary "
                                    << n_vocab << ", " << n_labels << " labels, cap " << spec.cap
                                    << (trained ? ", trained" : "") << ", rank " << rank);
    const QuantizedWeight blocks(type, n_vocab, in, 1);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < n; ++i) {
        // Distinct and ascending: one of each stretch of the vocabulary.
        for (int64_t k = 0; k < n_labels; ++k) {
            const int64_t begin = n_vocab * k / n_labels, end = n_vocab * (k + 1) / n_labels;
            labels.push_back(static_cast<int32_t>(begin + random_u32(3, i * n_labels + k) % (end - begin)));
        }
    }
    const WorkspaceShape workspace{.max_tokens = n,
                                   .max_features = in,
                                   .n_vocab = n_vocab,
                                   .max_rank = rank,
                                   .training = true,
                                   .trained_weights = trained,
                                   .head_rank = rank};
    const Values x = normal(2, n * in, 3);
    expect_parity(target, workspace, [&](Execution & run) {
        const Matrix mx = run.input(Role::act, n, in, x);
        const Matrix nll = run.output("nll", Role::hidden, 1, n * n_labels);
        const Matrix mdx = run.output("dx", Role::hidden, n, in);
        const Weight weight = blocks.on(run.backend);
        Head head{&weight, spec};
        head.n_labels = n_labels;
        head.row_weights = run.input(Role::f32, 1, n * n_labels, normal(5, n * n_labels)).as<float>();
        if (trained) head.dw = run.in_out("dw", Role::param, n_vocab, in, normal(6, n_vocab * in)).data;
        if (rank > 0) {
            head.lora.a = run.input(Role::param, rank, in, normal(11, rank * in, 0.1)).data;
            head.lora.b = run.input(Role::param, n_vocab, rank, normal(12, n_vocab * rank, 0.3)).data;
            head.lora.rank = rank;
            head.lora.scale = 0.75;
            head.lora.da = run.in_out("da", Role::param, rank, in, normal(13, rank * in)).data;
            head.lora.db = run.in_out("db", Role::param, n_vocab, rank, normal(14, n_vocab * rank)).data;
        }
        run.backend.linear_cross_entropy(mx, head, run.integers(labels), nll.data, mdx);
    });
}

TEST_P(BackendParity, HeadWithSeveralLabels) {
    if (!GetParam().make(1)->has_many_labels()) GTEST_SKIP() << "not on this device";
    expect_head_parity_of_labels(GetParam(), GGML_TYPE_Q8_0, 1, 64, 259, 2, {}, false, 0);
    expect_head_parity_of_labels(GetParam(), GGML_TYPE_Q4_0, 33, 96, 1031, 64, {}, false, 0);
    expect_head_parity_of_labels(GetParam(), GGML_TYPE_F32, 3, 45, 7, 7, {0.5, 5}, true, 0);
    expect_head_parity_of_labels(GetParam(), GGML_TYPE_Q6_K, 100, 256, 259, 13, {1, 30}, true, 4);
}

TEST_P(BackendParity, HeadWithScaledAndCappedLogits) {
    for (const LogitSpec spec : {LogitSpec{0.125, 0}, {1, 30}, {2, 5}}) {
        expect_head_parity(GetParam(), GGML_TYPE_Q8_0, 1, 64, 259, Role::act, spec);
        expect_head_parity(GetParam(), GGML_TYPE_Q4_0, 33, 96, 1031, Role::hidden, spec);
        expect_head_parity(GetParam(), GGML_TYPE_F32, 3, 45, 7, Role::act, spec);
        expect_head_parity(GetParam(), GGML_TYPE_F16, 100, 160, 259, std::nullopt, spec);
    }
}

TEST_P(BackendParity, HeadWithWeightsOfRowsAndTrained) {
    for (const LogitSpec spec : {LogitSpec{}, LogitSpec{0.5, 10}}) {
        expect_head_parity(GetParam(), GGML_TYPE_Q8_0, 5, 64, 259, Role::act, spec, true);
        expect_head_parity(GetParam(), GGML_TYPE_F32, 100, 96, 259, Role::hidden, spec, true, true);
        expect_head_parity(GetParam(), GGML_TYPE_F32, 3, 45, 7, std::nullopt, spec, false, true);
    }
}

TEST_P(BackendParity, HeadWithLora) {
    for (const LogitSpec spec : {LogitSpec{}, LogitSpec{0.5, 10}}) {
        expect_head_parity(GetParam(), GGML_TYPE_Q8_0, 1, 64, 259, Role::act, spec, true, false, {4});
        expect_head_parity(GetParam(), GGML_TYPE_Q4_0, 100, 96, 1031, Role::hidden, spec, true, true, {16});
        expect_head_parity(GetParam(), GGML_TYPE_F16, 33, 160, 259, Role::act, spec, true, false, {5, 0.25f});
        expect_head_parity(GetParam(), GGML_TYPE_F32, 3, 45, 7, std::nullopt, spec, false, false, {2, 0.5f});
        expect_head_parity(GetParam(), GGML_TYPE_Q6_K, 40, 256, 259, Role::hidden, spec, false, false, {8, 0, true});
    }
}

TEST_P(BackendParity, HeadOnEveryWeightType) {
    for (const ggml_type type : weight_types()) {
        expect_head_parity(GetParam(), type, 5, 256, 259, Role::act);
    }
}

TEST_P(BackendParity, HeadWithHugeLogits) {
    // exp of them overflows, and where a row of three has only negative ones, vanishes: the row's maximum must be taken
    // off first.
    const int64_t n = 24, in = 64;
    for (const int32_t n_vocab : {259, 3}) {
        const QuantizedWeight blocks(GGML_TYPE_F32, n_vocab, in, 1);
        std::vector<int32_t> labels(n);
        for (int32_t i = 0; i < n; ++i) labels[i] = (i * 7 + n_vocab - 1) % n_vocab;
        expect_parity(GetParam(), {.max_tokens = n, .max_features = in, .n_vocab = n_vocab, .training = true},
                      [&](Execution & run) {
                          const Matrix x = run.input(Role::act, n, in, normal(2, n * in, 1000));
                          const Matrix nll = run.output("nll", Role::hidden, 1, n);
                          const Matrix dx = run.output("dx", Role::act, n, in);
                          const Weight weight = blocks.on(run.backend);
                          run.backend.linear_cross_entropy(x, {&weight}, run.integers(labels), nll.data, dx);
                      });
    }
}

// ---- optimizer

TEST_P(BackendParity, SumOfSquares) {
    for (const int64_t n : {1, 7, 1000, 4099, 300001}) {
        SCOPED_TRACE(n);
        expect_parity(GetParam(), {}, [&](Execution & run) {
            const Matrix x = run.input(Role::param, 1, n, normal(1, n));
            run.output_number("sum", run.backend.sum_of_squares(x.data, n));
        });
    }
}

TEST_P(BackendParity, SumOfSquaresKeepsNanAndInfinity) {
    const auto backend = GetParam().make(2);
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        for (const int64_t at : {0, 4098, 2000}) {
            Values values(4099, 1);
            values[at] = bad;
            Execution run(*backend, backend->formats());
            const double sum = backend->sum_of_squares(run.input(Role::param, 1, 4099, values).data, 4099);
            EXPECT_EQ(std::isnan(sum), std::isnan(bad));
            EXPECT_FALSE(std::isfinite(sum));
        }
    }
    EXPECT_EQ(backend->sum_of_squares(nullptr, 0), 0);
}

TEST_P(BackendParity, Adamw) {
    for (const int64_t n : {1, 7, 1000, 4099}) {
        for (const int64_t step : {1, 10, 100000}) {
            SCOPED_TRACE(testing::Message() << n << " elements, step " << step);
            expect_parity(GetParam(), {}, [&](Execution & run) {
                Values variance = normal(4, n);
                for (double & v : variance) {
                    v *= v;
                }
                const Matrix p = run.in_out("p", Role::param, 1, n, normal(1, n));
                const Matrix g = run.input(Role::param, 1, n, normal(2, n));
                const Matrix m = run.in_out("m", Role::param, 1, n, normal(3, n));
                const Matrix v = run.in_out("v", Role::param, 1, n, variance);
                run.backend.adamw(p.data, g.data, m.data, v.data, n, {0.01, 0.9, 0.999, 1e-8, 0.1, 0.3, step});
            });
        }
    }
}

// ---- what a backend may lack

TEST_P(BackendParity, Adamw8bit) {
    const auto backend = GetParam().make(2), reference = make_backend("reference", Dtype::f32, 1);
    if (!backend->has_adamw_8bit()) GTEST_SKIP() << "not on this device";
    const int64_t n = 5000, n_blocks = Moments8bit::n_blocks(n);
    struct State {
        DeviceMatrix param, grad, m_scales, v_scales;
        DeviceArray<uint8_t> m, v;

        State(Backend & backend, int64_t n, int64_t n_blocks)
            : param(backend, Dtype::f32, 1, n, n),
              grad(backend, Dtype::f32, 1, n, n),
              m_scales(backend, Dtype::f32, 1, n_blocks, n_blocks),
              v_scales(backend, Dtype::f32, 1, n_blocks, n_blocks),
              m(backend, std::vector<uint8_t>(static_cast<size_t>(n))),
              v(backend, std::vector<uint8_t>(static_cast<size_t>(n))) {
            param.write(normal(1, n));
            m_scales.write(Values(static_cast<size_t>(n_blocks)));
            v_scales.write(Values(static_cast<size_t>(n_blocks)));
        }
        void step(Backend & backend, int64_t number) {
            Values gradient = normal(10 + number, param.view().cols);
            // From 1e-6 to 1 times the largest; a block of zeros.
            for (size_t i = 0; i < gradient.size(); ++i) {
                gradient[i] *=
                    i / 256 == 3 ? 0 : std::pow(10.0, -6.0 * static_cast<double>(random_uniform(20 + number, i)));
            }
            grad.write(gradient);
            const Moments8bit moments{const_cast<uint8_t *>(m.data()), const_cast<uint8_t *>(v.data()),
                                      m_scales.view().as<float>(), v_scales.view().as<float>()};
            backend.adamw_8bit(param.view().data, grad.view().data, moments, param.view().cols,
                               {1e-2, 0.9, 0.999, 1e-8, 0.1, 0.5, number});
        }
    };
    State actual(*backend, n, n_blocks), expected(*reference, n, n_blocks);
    for (int64_t number = 1; number <= 3; ++number) {
        actual.step(*backend, number);
        expected.step(*reference, number);
    }
    // Where the two round a moment that lies between two values differently, they part by one value of the codebook.
    EXPECT_LE(relative_error(actual.param.read(), expected.param.read()), 1e-3);
    EXPECT_LE(relative_error(actual.m_scales.read(), expected.m_scales.read()), 1e-5);
    EXPECT_LE(relative_error(actual.v_scales.read(), expected.v_scales.read()), 1e-5);
    const Values own = actual.param.read(), other = expected.param.read();
    EXPECT_LE(std::count_if(own.begin(), own.end(),
                            [&](const double & x) { return std::abs(x - other[&x - own.data()]) > 1e-5; }),
              n / 100);
    EXPECT_TRUE(actual.param.surroundings_are_intact());
}

TEST_P(BackendParity, RowSquaresOnEveryWeightType) {
    if (!GetParam().make(1)->has_dora()) GTEST_SKIP() << "not on this device";
    for (const ggml_type type : weight_types()) {
        SCOPED_TRACE(ggml_type_name(type));
        const QuantizedWeight blocks(type, 37, 256, 1);
        expect_parity(GetParam(), {.max_features = 256}, [&](Execution & run) {
            run.backend.row_squares(blocks.on(run.backend), run.output("squares", Role::param, 1, 37).data);
        });
    }
}

TEST_P(BackendParity, DoraFactors) {
    if (!GetParam().make(1)->has_dora()) GTEST_SKIP() << "not on this device";
    for (const auto & [rank, in, out, strength] :
         {std::tuple{1, 64, 96, 1.0}, {8, 160, 577, 1.0}, {20, 256, 33, 0.25}, {40, 96, 64, 0.0}}) {
        SCOPED_TRACE(testing::Message() << "rank " << rank << ", " << in << " to " << out << ", strength " << strength);
        expect_parity(GetParam(), {.max_features = out, .max_rank = rank}, [&](Execution & run) {
            Lora lora;
            lora.a = run.input(Role::param, rank, in, normal(1, rank * in, 0.1)).data;
            lora.b = run.input(Role::param, out, rank, normal(2, out * rank, 0.1)).data;
            lora.rank = rank;
            lora.scale = 2;
            // Norms of about 3: no row cancels. The first is one of zeros.
            Values squares = normal(3, out, 0.5), magnitudes = normal(4, out, 0.5);
            for (double & x : squares) x = 9 + x;
            for (double & x : magnitudes) x = 3 + x;
            Values b = normal(2, out * rank, 0.1);
            magnitudes[0] = strength == 1 ? 0 : magnitudes[0];
            const DoraRows rows{run.input(Role::hidden, rank, out, normal(5, rank * out, 0.3)),
                                run.input(Role::param, 1, out, squares).data,
                                run.input(Role::param, 1, out, magnitudes).data,
                                strength,
                                run.output("factors", Role::param, 1, out).data,
                                run.output("slopes", Role::param, 1, out).data};
            run.backend.dora_factors(lora, in, out, rows);
        });
    }
}

TEST_P(BackendParity, NoiseIsThatOfEveryOtherDevice) {
    const auto backend = GetParam().make(1), reference = make_backend("reference", Dtype::f32, 1);
    const Segment segments[] = {{0, 7, 0, 7}, {7, 1, 7, 1}, {8, 40, 8, 40}};
    auto noisy = [&](Backend & device) {
        DeviceMatrix x(device, Dtype::f32, 48, 45, 45);
        x.write(normal(1, 48 * 45));
        device.add_noise(x.view(), segments, 5, 77);
        return x.read();
    };
    EXPECT_EQ(noisy(*backend), noisy(*reference));
}

// Work that is repeated with other seeds, other contents of memory and other shapes in between: as if it were called
// each time.
TEST_P(BackendParity, RepeatedWorkIsAsIfItWereCalled) {
    const auto backend = GetParam().make(1), plain = GetParam().make(1);
    const WorkspaceShape workspace{.max_tokens = 40,
                                   .max_features = 96,
                                   .max_rank = 8,
                                   .n_head = 2,
                                   .n_head_kv = 2,
                                   .head_dim = 32,
                                   .training = true,
                                   .dropout = true};
    backend->reserve(workspace);
    plain->reserve(workspace);
    const std::vector<Segment> shapes[] = {{{0, 40, 0, 40}}, {{0, 9, 0, 9}, {9, 31, 9, 31}}};
    struct Side {
        Backend & backend;
        QuantizedWeight blocks{GGML_TYPE_Q4_0, 64, 96, 3};
        DeviceMatrix x{backend, backend.formats().act, 40, 96, 96}, u{backend, backend.formats().act, 40, 8, 8};
        DeviceMatrix y{backend, backend.formats().act, 40, 64, 64}, o{backend, backend.formats().act, 40, 64, 64};
        DeviceMatrix lse{backend, Dtype::f32, 40, 2, 2};
        DeviceMatrix a{backend, Dtype::f32, 8, 96, 96}, b{backend, Dtype::f32, 64, 8, 8};
        DeviceArray<uint64_t> seed{backend, {0}};
        Weight weight = blocks.on(backend);

        explicit Side(Backend & backend_) : backend(backend_) {
            a.write(normal(1, 8 * 96));
            b.write(normal(2, 64 * 8));
        }
        void prepare(uint64_t number) {
            x.write(normal(100 + number, 40 * 96));
            backend.copy_to_device(const_cast<uint64_t *>(seed.data()), &number, sizeof number);
        }
        void work(std::span<const Segment> segments, uint64_t number) {
            Lora lora;
            lora.a = a.view().data;
            lora.b = b.view().data;
            lora.rank = 8;
            lora.scale = 0.5;
            lora.dropout = {0.4f, number, seed.data()};
            const LinearForward layer{&weight, lora, u.view(), {}, y.view()};
            backend.linear(x.view(), {&layer, 1});
            backend.attention(y.view(), y.view(), y.view(), segments, {2, 2, 32, 0.2}, o.view(), lse.view());
        }
    };
    Side repeated(*backend), called(*plain);
    for (uint64_t number = 0; number < 9; ++number) {
        SCOPED_TRACE(number);
        const uint64_t shape = number % 3 == 2 ? 1 : 0;
        repeated.prepare(number);
        called.prepare(number);
        backend->repeat(shapes[shape], shape, [&] { repeated.work(shapes[shape], number); });
        called.work(shapes[shape], number);
        EXPECT_TRUE(repeated.o.read_bytes() == called.o.read_bytes());
    }
}

// ---- memory

TEST_P(BackendParity, MemoryIsZeroedAlignedAndCopied) {
    const auto backend = GetParam().make(1);
    for (const size_t n : {size_t{1}, size_t{100}, size_t{1} << 20}) {
        void * memory = backend->allocate(n);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
        std::vector<unsigned char> host(n, 7);
        backend->copy_to_host(host.data(), memory, n);
        EXPECT_EQ(host, std::vector<unsigned char>(n, 0));
        const std::vector<unsigned char> pattern(n, 42);
        backend->copy_to_device(memory, pattern.data(), n);
        backend->copy_to_host(host.data(), memory, n);
        EXPECT_EQ(host, pattern);
        backend->fill_zero(memory, n);
        backend->copy_to_host(host.data(), memory, n);
        EXPECT_EQ(host, std::vector<unsigned char>(n, 0));
        backend->release(memory);
    }
    EXPECT_GT(backend->available_memory(), 0);
}

TEST_P(BackendParity, MemoryThatCannotBeHadIsAnError) {
    const auto backend = GetParam().make(1);
    try {
        backend->allocate(size_t{1} << 60);
        FAIL() << "an exabyte was allocated";
    } catch (const Error & error) {
        EXPECT_EQ(error.status(), LORICA_ERROR_OUT_OF_MEMORY);
    }
}

TEST_P(BackendParity, FormatsFollowThePrecisionAskedFor) {
    const Formats formats = GetParam().make(1)->formats();
    EXPECT_EQ(formats.hidden, Dtype::f32);
    EXPECT_EQ(formats.act, GetParam().act);
    EXPECT_EQ(formats.param, Dtype::f32);
}

// ---- make_backend

TEST(MakeBackend, RefusesWhatItDoesNotKnow) {
    auto status_of = [](const std::string & device, Dtype act, int32_t n_threads) {
        try {
            make_backend(device, act, n_threads);
        } catch (const Error & error) {
            EXPECT_FALSE(std::string(error.what()).empty());
            return error.status();
        }
        return LORICA_OK;
    };
    EXPECT_EQ(status_of("abacus", Dtype::f32, 1), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of("", Dtype::f32, 1), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of("reference", Dtype::f32, -1), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(status_of("reference", Dtype::bf16, 1), LORICA_ERROR_UNSUPPORTED);
    EXPECT_EQ(status_of("reference", Dtype::f64, 0), LORICA_OK);
}

}  // namespace
}  // namespace lorica::test
