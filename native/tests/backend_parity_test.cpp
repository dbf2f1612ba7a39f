// Every operation of every backend present, against the f64 reference.
//
// A test describes an operation once (inputs, outputs, call) and execute() runs it on the reference and on the backend
// under test. Inputs are rounded to the formats of the backend under test on both sides, so that only arithmetic
// differs. Of each run it is checked that
//   - the results agree: norm-wise, and element by element, so that one wrong element in a large matrix is seen;
//   - "=" writes every element (outputs start as NaN), and nothing outside of the views, NaN too, is touched or used;
//   - a second run, and a run with 2 threads, give the same bytes.
// LORICA_TEST_DEVICES (comma-separated: "cpu,cuda:0") chooses the devices and makes a missing one a failure.
#include "common/error.h"
#include "support/backend_tensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <sstream>

namespace lorica::test {
namespace {

struct Target {
    std::string device;
    Dtype act;

    std::unique_ptr<Backend> make(int32_t n_threads) const { return make_backend(device, act, n_threads); }
    double tolerance() const { return act == Dtype::bf16 ? 2e-2 : 1e-5; }
};

void PrintTo(const Target & target, std::ostream * out) {
    *out << target.device << (target.act == Dtype::bf16 ? " bf16" : " f32");
}

std::vector<Target> targets() {
    const char * chosen = std::getenv("LORICA_TEST_DEVICES");
    std::stringstream devices(chosen ? chosen : "reference,cpu,cuda");
    std::vector<Target> found;
    for (std::string device; std::getline(devices, device, ',');) {
        const size_t before = found.size();
        for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
            try {
                make_backend(device, act, 1);
                found.push_back({device, act});
            } catch (const Error &) {
                // Not in this build or on this machine.
            }
        }
        if (chosen && found.size() == before) {
            found.push_back({device, Dtype::f32});  // its tests fail with make_backend's message
        }
    }
    return found;
}

// What an operand is to the backend: decides its format.
enum class Role { hidden, act, param, f32 };

struct Output {
    std::string name;
    Values values;
    std::vector<std::byte> bytes;
};

// One execution of an operation on one backend.
class Execution {
public:
    // rounding: the formats of the backend under test.
    Execution(Backend & backend, Formats rounding) : backend(backend), rounding_(rounding) {}

    // A matrix that the operation reads.
    Matrix input(Role role, int64_t rows, int64_t cols, const Values & values) {
        DeviceMatrix & matrix = add(role, rows, cols);
        matrix.write(rounded(format(rounding_, role), values));
        return matrix.view();
    }
    // One that it writes: "=".
    Matrix output(const std::string & name, Role role, int64_t rows, int64_t cols) {
        return report(name, add(role, rows, cols));
    }
    // One that it reads and writes: in place, or "+=".
    Matrix in_out(const std::string & name, Role role, int64_t rows, int64_t cols, const Values & values) {
        DeviceMatrix & matrix = add(role, rows, cols);
        matrix.write(rounded(format(rounding_, role), values));
        return report(name, matrix);
    }
    void output_number(const std::string & name, double value) {
        numbers_.push_back({name, {value}, encode(Dtype::f64, {value})});
    }
    const int32_t * integers(const std::vector<int32_t> & values) {
        return integers_.emplace_back(backend, values).data();
    }

    std::vector<Output> outputs() {
        std::vector<Output> outputs = numbers_;
        for (const auto & [name, matrix] : reported_) {
            outputs.push_back({name, matrix->read(), matrix->read_bytes()});
        }
        for (const DeviceMatrix & matrix : matrices_) {
            EXPECT_TRUE(matrix.surroundings_are_intact()) << "written outside of a matrix by " << backend.name();
        }
        return outputs;
    }

    Backend & backend;

private:
    static Dtype format(const Formats & formats, Role role) {
        switch (role) {
            case Role::hidden: return formats.hidden;
            case Role::act: return formats.act;
            case Role::param: return formats.param;
            case Role::f32: break;
        }
        return Dtype::f32;
    }
    // Parameters are dense; every other matrix gets a stride of its own that is no round number.
    DeviceMatrix & add(Role role, int64_t rows, int64_t cols) {
        const bool dense = role == Role::param || role == Role::f32;
        const int64_t padding = dense ? 0 : 3 + 2 * static_cast<int64_t>(matrices_.size());
        return matrices_.emplace_back(backend, format(backend.formats(), role), rows, cols, cols + padding);
    }
    Matrix report(const std::string & name, DeviceMatrix & matrix) {
        reported_.emplace_back(name, &matrix);
        return matrix.view();
    }

    Formats rounding_;
    std::deque<DeviceMatrix> matrices_;  // a deque keeps addresses
    std::deque<DeviceArray<int32_t>> integers_;
    std::vector<std::pair<std::string, DeviceMatrix *>> reported_;
    std::vector<Output> numbers_;
};

using Operation = std::function<void(Execution &)>;

std::vector<Output> execute(Backend & backend, const Formats & rounding, const Operation & operation) {
    Execution run(backend, rounding);
    operation(run);
    return run.outputs();
}

// least_rms: what the expected root mean square counts as at least.
void expect_close(const Output & actual, const Output & expected, double tolerance, double least_rms) {
    ASSERT_EQ(actual.values.size(), expected.values.size());
    double squares = 0, error_squares = 0;
    for (size_t i = 0; i < expected.values.size(); ++i) {
        squares += expected.values[i] * expected.values[i];
        error_squares += (actual.values[i] - expected.values[i]) * (actual.values[i] - expected.values[i]);
    }
    const auto n = static_cast<double>(expected.values.size());
    const double rms = std::max(least_rms, std::sqrt(squares / n));
    EXPECT_LE(std::sqrt(error_squares / n), tolerance * rms) << actual.name << ", rms " << rms;
    for (size_t i = 0; i < actual.values.size(); ++i) {
        // Negated, so that NaN fails too.
        if (!(std::abs(actual.values[i] - expected.values[i]) <=
              tolerance * (5 * rms + std::abs(expected.values[i])))) {
            ADD_FAILURE() << actual.name << ": element " << i << " of " << actual.values.size() << " is "
                          << actual.values[i] << ", expected " << expected.values[i] << " (rms " << rms << ")";
            return;
        }
    }
}

void expect_parity(const Target & target, const WorkspaceShape & workspace, const Operation & operation,
                   double least_rms = 0) {
    const auto one_thread = target.make(1), two_threads = target.make(2),
               reference = make_backend("reference", Dtype::f64, 1);
    one_thread->reserve(workspace);
    two_threads->reserve(workspace);
    const Formats rounding = one_thread->formats();

    const std::vector<Output> expected = execute(*reference, rounding, operation);
    const std::vector<Output> actual = execute(*one_thread, rounding, operation);
    const std::vector<Output> again = execute(*one_thread, rounding, operation);
    const std::vector<Output> threaded = execute(*two_threads, rounding, operation);
    for (size_t i = 0; i < expected.size(); ++i) {
        expect_close(actual[i], expected[i], target.tolerance(), least_rms);
        EXPECT_TRUE(again[i].bytes == actual[i].bytes) << actual[i].name << " differs in a second run";
        EXPECT_TRUE(threaded[i].bytes == actual[i].bytes) << actual[i].name << " differs with 2 threads";
    }
}

class BackendParity : public testing::TestWithParam<Target> {};

INSTANTIATE_TEST_SUITE_P(, BackendParity, testing::ValuesIn(targets()),
                         [](const testing::TestParamInfo<Target> & info) {
                             std::string name = info.param.device + (info.param.act == Dtype::bf16 ? "_bf16" : "_f32");
                             std::replace(name.begin(), name.end(), ':', '_');
                             return name;
                         });

// ---- linear layers

struct LayerCase {
    ggml_type type;
    int64_t out, rank;
    float dropout = 0;
    enum { act, hidden, separate_residual, own_residual, only_u } y = act;
};

struct LinearCase {
    int64_t n_tokens, in;
    std::vector<LayerCase> layers;
    Role x = Role::act;
    std::optional<Role> dx = Role::act;
    bool arranged = false;  // forward reads what Backend::arrange makes
    bool normed = false;    // forward is Backend::norm_linear
};

WorkspaceShape workspace_of(const LinearCase & c) {
    WorkspaceShape shape{.max_tokens = c.n_tokens, .max_features = c.in, .training = true};
    for (const LayerCase & layer : c.layers) {
        shape.max_features = std::max(shape.max_features, layer.out);
        shape.max_rank = std::max(shape.max_rank, layer.rank);
        shape.dropout |= layer.dropout > 0;
    }
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
            const Matrix inverse_rms = run.output("inverse_rms", Role::hidden, c.n_tokens, 1);
            const Matrix normed =
                run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(c.n_tokens * c.in)));
            run.backend.norm_linear(x, {weight.as<float>(), 1e-5, inverse_rms}, layers, normed);
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
                const Role role = layer.y == LayerCase::act ? Role::act : Role::hidden;
                backward.dy = run.input(role, c.n_tokens, layer.out, normal(100 * i + 7, c.n_tokens * layer.out));
                layers.push_back(backward);
            }
            run.backend.linear_backward(x, layers, c.dx ? run.output("dx", *c.dx, c.n_tokens, c.in) : Matrix{});
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
    };
    for (const Case & c : {Case{1, 512, 200, 0, GGML_TYPE_Q4_K, GGML_TYPE_Q4_K},
                           {1, 1056, 33, 4, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0},
                           {5, 96, 77, 3, GGML_TYPE_F16, GGML_TYPE_F16},
                           {8, 45, 9, 0, GGML_TYPE_F32, GGML_TYPE_F32},
                           {2, 256, 64, 2, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K},
                           {30, 96, 64, 8, GGML_TYPE_Q4_0, GGML_TYPE_Q4_0}}) {
        SCOPED_TRACE(testing::Message() << "T " << c.n_tokens << ", " << c.in << " to " << c.out << ", rank "
                                        << c.rank);
        const QuantizedWeight gate(c.gate, c.out, c.in, 1), up(c.up, c.out, c.in, 2);
        const WorkspaceShape workspace{
            .max_tokens = c.n_tokens, .max_features = std::max(c.in, c.out), .max_rank = c.rank};
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Weight weights[] = {gate.on(run.backend), up.on(run.backend)};
            const Matrix x = run.input(Role::hidden, c.n_tokens, c.in, normal(1, c.n_tokens * c.in, 3));
            const Matrix weight = run.input(Role::f32, 1, c.in, normal(2, c.in));
            const Norm norm{weight.as<float>(), 1e-5, run.output("inverse_rms", Role::hidden, c.n_tokens, 1)};
            const Matrix normed =
                run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(c.n_tokens * c.in)));
            LinearForward layers[2];
            for (size_t i = 0; i < 2; ++i) {
                const std::string number = std::to_string(i);
                layers[i].weight = &weights[i];
                layers[i].y = run.output("y" + number, Role::act, c.n_tokens, c.out);
                if (c.rank == 0) continue;
                layers[i].lora.a = run.input(Role::param, c.rank, c.in, normal(10 + i, c.rank * c.in, 0.1)).data;
                layers[i].lora.b = run.input(Role::param, c.out, c.rank, normal(20 + i, c.out * c.rank)).data;
                layers[i].lora.rank = c.rank;
                layers[i].lora.scale = 0.5;
                layers[i].u = run.output("u" + number, Role::act, c.n_tokens, c.rank);
            }
            run.backend.norm_linear_swiglu(x, norm, layers[0], layers[1], normed,
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
                      run.backend.linear_backward(x, {&layer, 1}, run.output("dx", Role::act, n_tokens, in));
                  });
}

// ---- several operations in one

struct FusedCase {
    int64_t n_tokens, in, out;
    int64_t rank = 8;
    float dropout = 0;
    bool with_input_gradient = true;
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
    return layer;
}

WorkspaceShape workspace_of(const FusedCase & c) {
    return {.max_tokens = c.n_tokens,
            .max_features = std::max(c.in, c.out),
            .max_rank = c.rank,
            .training = true,
            .dropout = c.dropout > 0};
}

TEST_P(BackendParity, SwigluAndTheLayerBehindIt) {
    for (const FusedCase & c : fused_cases) {
        const QuantizedWeight blocks(c.in % 32 ? GGML_TYPE_F16 : GGML_TYPE_Q4_0, c.out, c.in, 1);
        for (const bool in_place : {true, false}) {
            SCOPED_TRACE(testing::Message()
                         << "T " << c.n_tokens << ", " << c.in << " to " << c.out << (in_place ? ", in place" : ""));
            expect_parity(GetParam(), workspace_of(c), [&](Execution & run) {
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
                run.backend.swiglu_linear_backward(gate, up, down, h, dh, dgate,
                                                   elsewhere ? run.output("dup", Role::act, c.n_tokens, c.in) : up);
            });
        }
    }
}

TEST_P(BackendParity, RmsnormAndTheLayersBehindIt) {
    for (const FusedCase & c : fused_cases) {
        const QuantizedWeight first(c.in % 32 ? GGML_TYPE_F16 : GGML_TYPE_Q4_0, c.out, c.in, 1);
        const QuantizedWeight second(GGML_TYPE_F16, c.out, c.in, 2);
        for (const bool keeps_inverse_rms : {true, false}) {
            SCOPED_TRACE(testing::Message() << "T " << c.n_tokens << ", " << c.in << " to " << c.out
                                            << (keeps_inverse_rms ? ", 1 / rms kept" : ""));
            expect_parity(GetParam(), workspace_of(c), [&](Execution & run) {
                const int64_t n = c.n_tokens * c.in;
                const Weight weights[] = {first.on(run.backend), second.on(run.backend)};
                const Matrix x = run.input(Role::hidden, c.n_tokens, c.in, normal(1, n, 3));
                Norm norm{run.input(Role::f32, 1, c.in, normal(2, c.in)).as<float>(), 1e-5, {}};
                const Matrix normed = run.input(Role::act, c.n_tokens, c.in, Values(static_cast<size_t>(n)));
                if (keeps_inverse_rms) {
                    norm.inverse_rms = run.output("inverse_rms", Role::hidden, c.n_tokens, 1);
                    run.backend.rmsnorm(x, norm, normed);
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
    backend->linear_cross_entropy(none_act, blocks.on(*backend), nullptr, nll.data, none_act);
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

    AttentionCase(int32_t n_head, int32_t n_head_kv, int32_t head_dim, std::vector<Segment> list, double deviation = 1)
        : shape{n_head, n_head_kv, head_dim, 1 / std::sqrt(head_dim)}, segments(std::move(list)) {
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
                .training = training};
    }
    std::string description() const {
        std::ostringstream out;
        out << shape.n_head << '/' << shape.n_head_kv << " heads of " << shape.head_dim << ", segments";
        for (const Segment & segment : segments) {
            out << ' ' << segment.q_len << ':' << segment.kv_len;
        }
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
        {4, 2, 160, packed({3, 40})},
        {2, 1, 256, packed({33, 7})},
        // Peaked softmax: scores of some tens.
        {4, 2, 64, packed({40, 25}), 3.0},
    };
    for (const AttentionCase & c : cases) {
        SCOPED_TRACE(c.description());
        {
            SCOPED_TRACE("forward");
            expect_parity(GetParam(), c.workspace(true), [&](Execution & run) { c.forward(run, true); });
        }
        {
            SCOPED_TRACE("forward without log-sum-exp");
            expect_parity(GetParam(), c.workspace(false), [&](Execution & run) { c.forward(run, false); });
        }
        const auto reference = make_backend("reference", Dtype::f64, 1);
        const std::vector<Output> forward =
            execute(*reference, GetParam().make(1)->formats(), [&](Execution & run) { c.forward(run, true); });
        {
            // A query that sees one key has dq = dk = 0 by cancellation of numbers near 1.
            SCOPED_TRACE("backward");
            expect_parity(
                GetParam(), c.workspace(true),
                [&](Execution & run) { c.backward(run, forward[0].values, forward[1].values); }, 0.01);
        }
    }
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
    };
    for (const AttentionCase & c : cases) {
        SCOPED_TRACE(c.description());
        expect_parity(GetParam(), c.workspace(false), [&](Execution & run) { c.forward(run, false); });
    }
}

// Elements [begin, end) of v.
Values part(const Values & v, int64_t begin, int64_t end) { return {v.begin() + begin, v.begin() + end}; }

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

// ---- element by element, row by row

struct Extent {
    int64_t rows, cols;
};
constexpr Extent extents[] = {{1, 64}, {2, 96}, {5, 160}, {31, 256}, {64, 576}, {100, 768}, {257, 64}, {3, 45}, {1, 1}};

TEST_P(BackendParity, Rmsnorm) {
    for (const auto & [rows, cols] : extents) {
        for (const double deviation : {1.0, 1e-3, 300.0}) {
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", deviation " << deviation);
            const WorkspaceShape workspace{.max_tokens = rows, .max_features = cols, .training = true};
            const Values x = normal(1, rows * cols, deviation), weight = normal(2, cols);
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix mx = run.input(Role::hidden, rows, cols, x);
                const Matrix w = run.input(Role::f32, 1, cols, weight);
                const Matrix inverse_rms = run.output("inverse_rms", Role::hidden, rows, 1);
                run.backend.rmsnorm(mx, {w.as<float>(), 1e-5, inverse_rms}, run.output("y", Role::act, rows, cols));
            });
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix mx = run.input(Role::hidden, rows, cols, x);
                const Matrix dy = run.input(Role::act, rows, cols, normal(3, rows * cols));
                const Matrix w = run.input(Role::f32, 1, cols, weight);
                const Matrix dx = run.in_out("dx", Role::hidden, rows, cols, normal(4, rows * cols, 1 / deviation));
                run.backend.rmsnorm_backward(dy, mx, {w.as<float>(), 1e-5, {}}, dx,
                                             run.output("dx_act", Role::act, rows, cols));
            });
        }
    }
}

TEST_P(BackendParity, RopeThereAndBack) {
    for (const auto & [n_head, head_dim, n_rotated] : {std::tuple{1, 16, 16},
                                                       {4, 32, 32},
                                                       {9, 64, 64},
                                                       {3, 80, 80},
                                                       {8, 128, 128},
                                                       {4, 64, 16},
                                                       {2, 80, 20},
                                                       {3, 32, 2}}) {
        for (const int64_t n_tokens : {1, 2, 31, 100}) {
            SCOPED_TRACE(testing::Message()
                         << n_head << " heads of " << head_dim << ", " << n_rotated << " rotated, T " << n_tokens);
            Values inverse_frequency;
            for (int i = 0; i < n_rotated / 2; ++i) {
                inverse_frequency.push_back(std::pow(10000.0, -2.0 * i / n_rotated));
            }
            // Positions that grow within a sequence, start again, and go far beyond what f32 angles resolve.
            std::vector<int32_t> positions(n_tokens);
            for (int64_t t = 0; t < n_tokens; ++t) {
                positions[t] = static_cast<int32_t>(t < 20 ? t : t < 40 ? t - 20 : 1000 * t + 7);
            }
            positions.back() = 131071;
            for (const bool inverse : {false, true}) {
                const int64_t cols = int64_t{n_head} * head_dim;
                expect_parity(GetParam(), {.max_tokens = n_tokens, .max_features = cols, .head_dim = head_dim},
                              [&](Execution & run) {
                                  const Matrix x =
                                      run.in_out("x", Role::act, n_tokens, cols, normal(1, n_tokens * cols));
                                  run.backend.rope(x, run.integers(positions), head_dim, inverse_frequency, inverse);
                              });
            }
        }
    }
}

TEST_P(BackendParity, RopeIntoACache) {
    for (const auto & [n_head, n_head_kv, head_dim, n_rotated] :
         {std::tuple{4, 4, 32, 32}, {9, 3, 64, 64}, {2, 1, 80, 20}, {8, 2, 128, 128}, {1, 1, 16, 2}}) {
        for (const int32_t n_past : {0, 5, 100}) {
            for (const int64_t n_tokens : {1, 3, 40}) {
                SCOPED_TRACE(testing::Message() << n_head << " and " << n_head_kv << " heads of " << head_dim << ", "
                                                << n_rotated << " rotated, T " << n_tokens << " behind " << n_past);
                Values inverse_frequency;
                for (int i = 0; i < n_rotated / 2; ++i)
                    inverse_frequency.push_back(std::pow(10000.0, -2.0 * i / n_rotated));
                std::vector<int32_t> positions(static_cast<size_t>(n_tokens));
                std::iota(positions.begin(), positions.end(), n_past);
                const int64_t q_dim = int64_t{n_head} * head_dim, kv_dim = int64_t{n_head_kv} * head_dim,
                              n_ctx = n_past + n_tokens + 3;
                expect_parity(GetParam(), {.max_tokens = n_tokens, .max_features = q_dim, .head_dim = head_dim},
                              [&](Execution & run) {
                                  const Matrix q =
                                      run.in_out("q", Role::act, n_tokens, q_dim, normal(1, n_tokens * q_dim));
                                  const Matrix k = run.input(Role::act, n_tokens, kv_dim, normal(2, n_tokens * kv_dim));
                                  const Matrix v = run.input(Role::act, n_tokens, kv_dim, normal(3, n_tokens * kv_dim));
                                  // Rows of other tokens stay as they are.
                                  const Matrix k_cache =
                                      run.in_out("k_cache", Role::act, n_ctx, kv_dim, normal(4, n_ctx * kv_dim));
                                  const Matrix v_cache =
                                      run.in_out("v_cache", Role::act, n_ctx, kv_dim, normal(5, n_ctx * kv_dim));
                                  run.backend.rope_into_cache(q, k, v, run.integers(positions), head_dim,
                                                              inverse_frequency, k_cache, v_cache);
                              });
            }
        }
    }
}

TEST_P(BackendParity, Swiglu) {
    for (const auto & [rows, cols] : extents) {
        for (const double deviation : {2.0, 200.0}) {
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << ", gates of " << deviation);
            const WorkspaceShape workspace{.max_tokens = rows, .max_features = cols, .training = true};
            const Values gate = normal(1, rows * cols, deviation), up = normal(2, rows * cols);
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix g = run.input(Role::act, rows, cols, gate), u = run.input(Role::act, rows, cols, up);
                run.backend.swiglu(g, u, run.output("h", Role::act, rows, cols));
            });
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix g = run.input(Role::act, rows, cols, gate), u = run.input(Role::act, rows, cols, up);
                const Matrix dh = run.input(Role::act, rows, cols, normal(3, rows * cols));
                const Matrix dgate = run.output("dgate", Role::act, rows, cols);
                run.backend.swiglu_backward(g, u, dh, dgate, run.output("dup", Role::act, rows, cols));
            });
            SCOPED_TRACE("in place");
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix g = run.in_out("dgate", Role::act, rows, cols, gate);
                const Matrix u = run.in_out("dup", Role::act, rows, cols, up);
                const Matrix dh = run.input(Role::act, rows, cols, normal(3, rows * cols));
                run.backend.swiglu_backward(g, u, dh, g, u);
            });
        }
    }
}

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
        const WorkspaceShape workspace{.max_tokens = n_rows, .max_features = cols, .training = true};
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Matrix x = run.input(Role::hidden, n_rows, cols, normal(1, n_rows * cols));
            run.backend.gather_rows(x, run.integers(rows), run.output("y", Role::hidden, n, cols));
        });
        expect_parity(GetParam(), workspace, [&](Execution & run) {
            const Matrix dy = run.input(Role::hidden, n, cols, normal(1, n * cols));
            const Matrix dx = run.in_out("dx", Role::hidden, n_rows, cols, normal(2, n_rows * cols));
            run.backend.scatter_add_rows(dy, run.integers(rows), dx);
        });
    }
}

TEST_P(BackendParity, EmbedOnEveryWeightType) {
    for (const ggml_type type : weight_types()) {
        SCOPED_TRACE(ggml_type_name(type));
        const int64_t n_vocab = 259, cols = 256;
        const QuantizedWeight blocks(type, n_vocab, cols, 1);
        const std::vector<int32_t> tokens{258, 0, 17, 17, 100};
        const auto n = static_cast<int64_t>(tokens.size());
        expect_parity(GetParam(), {.max_tokens = n, .max_features = cols, .n_vocab = n_vocab}, [&](Execution & run) {
            const Matrix x = run.output("x", Role::hidden, n, cols);
            run.backend.embed(blocks.on(run.backend), run.integers(tokens), x);
        });
    }
}

// ---- the head

void expect_head_parity(const Target & target, ggml_type type, int64_t n, int64_t in, int64_t n_vocab,
                        std::optional<Role> dx) {
    SCOPED_TRACE(testing::Message() << ggml_type_name(type) << ", " << n << " rows of " << in << ", vocabulary "
                                    << n_vocab);
    const QuantizedWeight blocks(type, n_vocab, in, 1);
    std::vector<int32_t> labels(n);
    for (int64_t i = 0; i < n; ++i) {
        labels[i] = static_cast<int32_t>(random_u32(3, i) % n_vocab);
    }
    labels.back() = static_cast<int32_t>(n_vocab - 1);
    labels.front() = n > 1 ? 0 : labels.front();
    const WorkspaceShape workspace{.max_tokens = n, .max_features = in, .n_vocab = n_vocab, .training = true};
    // Logits with a deviation of 3: some rows are certain, some are not.
    const Values x = normal(2, n * in, 3);
    expect_parity(target, workspace, [&](Execution & run) {
        const Matrix mx = run.input(Role::act, n, in, x);
        const Matrix nll = run.output("nll", Role::hidden, 1, n);
        const Matrix mdx = dx ? run.output("dx", *dx, n, in) : Matrix{};
        run.backend.linear_cross_entropy(mx, blocks.on(run.backend), run.integers(labels), nll.data, mdx);
    });
    expect_parity(target, workspace, [&](Execution & run) {
        const Matrix mx = run.input(Role::act, n, in, x);
        run.backend.logits(mx, blocks.on(run.backend), run.output("logits", Role::f32, n, n_vocab).as<float>());
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
                          run.backend.linear_cross_entropy(x, blocks.on(run.backend), run.integers(labels), nll.data,
                                                           dx);
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

TEST_P(BackendParity, DoraScalesColumnsForwardAndBackward) {
    if (!GetParam().make(1)->has_dora()) GTEST_SKIP() << "not on this device";
    for (const auto & [rows, cols] : extents) {
        for (const bool with_residual : {false, true}) {
            SCOPED_TRACE(testing::Message() << rows << " x " << cols << (with_residual ? ", residual" : ""));
            const WorkspaceShape workspace{.max_tokens = rows, .max_features = cols, .training = true};
            const Values factors = normal(2, cols), values = normal(1, rows * cols);
            const Role role = with_residual ? Role::hidden : Role::act;
            auto residual = [&](Execution & run) {
                return with_residual ? run.input(Role::hidden, rows, cols, normal(3, rows * cols)) : Matrix{};
            };
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix x = run.in_out("x", role, rows, cols, values);
                run.backend.scale_columns(x, run.input(Role::param, 1, cols, factors).data, residual(run), x);
            });
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix dy = run.input(role, rows, cols, normal(4, rows * cols));
                const Matrix y = run.input(role, rows, cols, normal(5, rows * cols));
                DoraRows dora{};
                dora.factors = run.input(Role::param, 1, cols, factors).data;
                dora.slopes = run.input(Role::param, 1, cols, normal(6, cols)).data;
                void * d_magnitudes = run.in_out("d_magnitudes", Role::param, 1, cols, normal(7, cols)).data;
                run.backend.dora_backward(dy, y, residual(run), dora, d_magnitudes,
                                          run.output("dx", Role::act, rows, cols));
            });
            SCOPED_TRACE("in place");
            expect_parity(GetParam(), workspace, [&](Execution & run) {
                const Matrix dy = run.in_out("dx", Role::act, rows, cols, normal(4, rows * cols));
                const Matrix y = run.input(Role::act, rows, cols, normal(5, rows * cols));
                DoraRows dora{};
                dora.factors = run.input(Role::param, 1, cols, factors).data;
                dora.slopes = run.input(Role::param, 1, cols, normal(6, cols)).data;
                run.backend.dora_backward(dy, y, {}, dora,
                                          run.in_out("d_magnitudes", Role::param, 1, cols, normal(7, cols)).data, dy);
            });
        }
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
