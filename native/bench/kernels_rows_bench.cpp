// Norms, activations and their derivatives on one thread: bytes read and written per second, 512 rows of 576 hidden or
// 1536 feed-forward columns, as SmolLM2-135M has them.
//
//   kernels_rows_bench --benchmark_filter=norm
#include <benchmark/benchmark.h>

#include <vector>

#include "backend/cpu/elementwise.h"
#include "common/bf16.h"
#include "common/random.h"

namespace lorica::cpu {
namespace {

constexpr int64_t n_rows = 512, n_hidden = 576, n_ff = 1536;

struct Rows {
    Rows(Dtype type, int64_t cols, uint64_t seed)
        : bytes(static_cast<size_t>(n_rows * cols) * dtype_size(type)), view{bytes.data(), type, n_rows, cols, cols} {
        for (int64_t i = 0; i < n_rows * cols; ++i) {
            const auto value = static_cast<float>(random_normal(seed, static_cast<uint64_t>(i)));
            if (type == Dtype::bf16) {
                view.as<Bf16>()[i] = Bf16(value);
            } else {
                view.as<float>()[i] = value;
            }
        }
    }
    std::vector<std::byte> bytes;
    Matrix view;
};

template <typename... M> void report(benchmark::State & state, const M &... matrices) {
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>((matrices.view.n_bytes() + ...)));
}

void forward_norm(benchmark::State & state, Norm::Kind kind, bool bias, int32_t groups) {
    const Rows x(Dtype::f32, n_hidden, 1), y(Dtype::bf16, n_hidden, 2);
    const std::vector<float> weight(n_hidden, 1.25f), shift(n_hidden, 0.5f);
    Norm how{weight.data(), 1e-5, {}, kind};
    if (bias) how.bias = shift.data();
    how.groups = groups;
    for (auto _ : state) norm(x.view, how, {}, y.view, 1);
    report(state, x, y);
}

void backward_norm(benchmark::State & state, Norm::Kind kind, int32_t groups) {
    const Rows x(Dtype::f32, n_hidden, 1), dy(Dtype::f32, n_hidden, 2), dx(Dtype::f32, n_hidden, 3);
    const Rows dx_act(Dtype::bf16, n_hidden, 4);
    const std::vector<float> weight(n_hidden, 1.25f);
    Norm how{weight.data(), 1e-5, {}, kind};
    how.groups = groups;
    for (auto _ : state) norm_backward(dy.view, x.view, how, true, dx.view, dx_act.view, 1);
    report(state, x, dy, dx, dx, dx_act);
}

void forward_gate(benchmark::State & state, Act act) {
    const Rows gate(Dtype::bf16, n_ff, 1), up(Dtype::bf16, n_ff, 2), h(Dtype::bf16, n_ff, 3);
    for (auto _ : state) gated(gate.view, up.view, act, h.view, 1);
    report(state, gate, up, h);
}

void backward_gate(benchmark::State & state, Act act) {
    const Rows gate(Dtype::bf16, n_ff, 1), up(Dtype::bf16, n_ff, 2), dh(Dtype::bf16, n_ff, 3);
    const Rows dgate(Dtype::bf16, n_ff, 4), dup(Dtype::bf16, n_ff, 5), h(Dtype::bf16, n_ff, 6);
    for (auto _ : state) gated_backward(gate.view, up.view, act, dh.view, dgate.view, dup.view, h.view, 1);
    report(state, gate, up, dh, dgate, dup, h);
}

void forward_activation(benchmark::State & state, Act act) {
    const Rows x(Dtype::bf16, n_ff, 1), h(Dtype::bf16, n_ff, 2);
    for (auto _ : state) activation(x.view, act, h.view, 1);
    report(state, x, h);
}

void backward_activation(benchmark::State & state, Act act) {
    const Rows x(Dtype::bf16, n_ff, 1), dh(Dtype::bf16, n_ff, 2), dx(Dtype::bf16, n_ff, 3);
    for (auto _ : state) activation_backward(x.view, act, dh.view, dx.view, 1);
    report(state, x, dh, dx);
}

void rotate(benchmark::State & state, bool halves) {
    const Rows x(Dtype::bf16, n_hidden, 1);
    std::vector<double> frequencies;
    for (int i = 0; i < 32; ++i) frequencies.push_back(1.0 / (1 + i));
    std::vector<int32_t> positions(n_rows, 7);
    RotationTable table;
    for (auto _ : state) rope(x.view, positions.data(), {frequencies, 64, halves, 1}, RopeDirection::forward, table, 1);
    report(state, x, x);
}

BENCHMARK_CAPTURE(forward_norm, rms, Norm::rms, false, 1);
BENCHMARK_CAPTURE(forward_norm, layer, Norm::layer, true, 1);
BENCHMARK_CAPTURE(forward_norm, rms_of_heads, Norm::rms, false, 9);
BENCHMARK_CAPTURE(backward_norm, rms, Norm::rms, 1);
BENCHMARK_CAPTURE(backward_norm, layer, Norm::layer, 1);
BENCHMARK_CAPTURE(backward_norm, rms_of_heads, Norm::rms, 9);
BENCHMARK_CAPTURE(forward_gate, silu, Act::silu);
BENCHMARK_CAPTURE(forward_gate, gelu_tanh, Act::gelu_tanh);
BENCHMARK_CAPTURE(forward_gate, gelu_erf, Act::gelu_erf);
BENCHMARK_CAPTURE(backward_gate, silu, Act::silu);
BENCHMARK_CAPTURE(backward_gate, gelu_tanh, Act::gelu_tanh);
BENCHMARK_CAPTURE(backward_gate, gelu_erf, Act::gelu_erf);
BENCHMARK_CAPTURE(forward_activation, gelu_tanh, Act::gelu_tanh);
BENCHMARK_CAPTURE(forward_activation, gelu_erf, Act::gelu_erf);
BENCHMARK_CAPTURE(backward_activation, gelu_tanh, Act::gelu_tanh);
BENCHMARK_CAPTURE(backward_activation, gelu_erf, Act::gelu_erf);
BENCHMARK_CAPTURE(rotate, pairs, false);
BENCHMARK_CAPTURE(rotate, halves, true);

}  // namespace
}  // namespace lorica::cpu
