// Attention forward and backward on packed sequences of one length, 2048 tokens in all or one longer sequence, and one
// decoding step. scripts/bench_window.py compares windows at several lengths.
//
//   kernels_attention_bench --benchmark_filter=forward
//
// GFLOP/s count what the mask leaves: two products forward and five backward, of 2 * head_dim operations for
// each visible pair of query and key and each query head, whatever a kernel computes in addition. Heads as in
// SmolLM2-135M unless the name says more.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/attention.h"
#include "common/bf16.h"
#include "common/random.h"

namespace lorica::cpu {
namespace {

struct Buffer {
    Buffer(Dtype type, int64_t rows, int64_t cols)
        : bytes(static_cast<size_t>(rows * cols) * dtype_size(type)), view{bytes.data(), type, rows, cols, cols} {}
    Buffer(Dtype type, int64_t rows, int64_t cols, uint64_t seed) : Buffer(type, rows, cols) {
        for (int64_t i = 0; i < rows * cols; ++i) {
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

struct Problem {
    Problem(Dtype type, AttentionShape shape, int64_t n_queries, int64_t n_keys)
        : shape(shape),
          q(type, n_queries, shape.n_head * shape.head_dim, 1),
          k(type, n_keys, shape.n_head_kv * shape.head_dim, 2),
          v(type, n_keys, shape.n_head_kv * shape.head_dim, 3),
          o(type, n_queries, shape.n_head * shape.head_dim),
          lse(Dtype::f32, n_queries, shape.n_head) {}

    void prepare(int threads, bool training) {
        WorkspaceShape bounds;
        bounds.max_tokens = q.view.rows;
        bounds.max_sequence_length = k.view.rows;
        bounds.n_head = shape.n_head;
        bounds.n_head_kv = shape.n_head_kv;
        bounds.head_dim = shape.head_dim;
        bounds.training = training;
        workspace.resize(attention_workspace_bytes(bounds, threads, q.view.type) / sizeof(float) + 16);
        const auto address = reinterpret_cast<uintptr_t>(workspace.data());
        aligned = reinterpret_cast<void *>((address + 63) / 64 * 64);
    }

    AttentionShape shape;
    Buffer q, k, v, o, lse;
    std::vector<Segment> segments;
    std::vector<float> workspace;
    void * aligned = nullptr;
};

constexpr int64_t n_tokens = 2048;

AttentionShape shape_of(int64_t head_dim) {
    const auto d = static_cast<int32_t>(head_dim);
    return {9, 3, d, 1 / std::sqrt(static_cast<double>(d))};
}

struct Kind {
    MaskSpec mask = {};
    double softcap = 0;
};
constexpr Kind causal{}, window_64{{63, 0}}, window_512{{511, 0}}, full{{MaskSpec::all, MaskSpec::all}}, capped{{}, 50};

Problem training_problem(const benchmark::State & state, Dtype type, const Kind & kind) {
    const auto length = static_cast<int32_t>(state.range(0));
    const int64_t n = std::max<int64_t>(n_tokens, length);
    Problem p(type, shape_of(state.range(1)), n, n);
    p.shape.mask = kind.mask;
    p.shape.softcap = kind.softcap;
    for (int32_t at = 0; at < n; at += length) p.segments.push_back({at, length, at, length});
    p.prepare(static_cast<int>(state.range(2)), true);
    return p;
}

void report(benchmark::State & state, const Problem & p, int n_products) {
    double pairs = 0;
    for (const Segment & s : p.segments) {
        for (int32_t query = 0; query < s.q_len; ++query) {
            const auto [first, end] = p.shape.mask.visible(s, query);
            pairs += end - first;
        }
    }
    const double operations = pairs * p.shape.n_head * n_products * 2 * p.shape.head_dim;
    state.counters["GFLOP/s"] =
        benchmark::Counter(operations * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void forward(benchmark::State & state, Dtype type, AttentionUnits units, const Kind & kind = causal) {
    Problem p = training_problem(state, type, kind);
    for (auto _ : state) {
        attention(p.q.view, p.k.view, p.v.view, p.segments, p.shape, p.o.view, p.lse.view, p.aligned,
                  static_cast<int>(state.range(2)), units);
    }
    report(state, p, 2);
}

void backward(benchmark::State & state, Dtype type, AttentionUnits units, const Kind & kind = causal) {
    Problem p = training_problem(state, type, kind);
    const auto threads = static_cast<int>(state.range(2));
    const int64_t n = p.q.view.rows;
    Buffer d_o(type, n, p.q.view.cols, 4), dq(type, n, p.q.view.cols), dk(type, n, p.k.view.cols),
        dv(type, n, p.k.view.cols);
    attention(p.q.view, p.k.view, p.v.view, p.segments, p.shape, p.o.view, p.lse.view, p.aligned, threads, units);
    for (auto _ : state) {
        attention_backward(p.q.view, p.k.view, p.v.view, p.o.view, p.lse.view, d_o.view, p.segments, p.shape, dq.view,
                           dk.view, dv.view, p.aligned, threads, units);
    }
    report(state, p, 5);
}

// One query after range(0) keys; bytes of K and V per second, those that are outside a window too.
void decode(benchmark::State & state, Dtype type, const Kind & kind = causal) {
    const auto n_keys = static_cast<int32_t>(state.range(0));
    Problem p(type, shape_of(state.range(1)), 1, n_keys);
    p.shape.mask = kind.mask;
    p.segments = {{0, 1, 0, n_keys}};
    p.prepare(static_cast<int>(state.range(2)), false);
    for (auto _ : state) {
        attention(p.q.view, p.k.view, p.v.view, p.segments, p.shape, p.o.view, {}, p.aligned,
                  static_cast<int>(state.range(2)));
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(p.k.view.n_bytes() + p.v.view.n_bytes()));
}

// One thread is timed by its processor time, which other load on the machine disturbs less.
void lengths(benchmark::internal::Benchmark * b) {
    b->ArgNames({"length", "head_dim", "threads"});
    for (const int64_t length : {16, 128, 512, 2048}) b->Args({length, 64, 1});
}
void lengths_two_threads(benchmark::internal::Benchmark * b) {
    b->ArgNames({"length", "head_dim", "threads"})->UseRealTime();
    for (const int64_t length : {128, 2048}) b->Args({length, 64, 2});
}
void caches(benchmark::internal::Benchmark * b) {
    b->ArgNames({"length", "head_dim", "threads"})->Args({512, 64, 1})->Args({8192, 64, 1});
}

BENCHMARK_CAPTURE(forward, f32, Dtype::f32, AttentionUnits::fma)->Apply(lengths);
BENCHMARK_CAPTURE(forward, bf16_dot, Dtype::bf16, AttentionUnits::dot_bf16)->Apply(lengths);
BENCHMARK_CAPTURE(forward, bf16_best, Dtype::bf16, AttentionUnits::amx)->Apply(lengths);
BENCHMARK_CAPTURE(backward, f32, Dtype::f32, AttentionUnits::fma)->Apply(lengths);
BENCHMARK_CAPTURE(backward, bf16_dot, Dtype::bf16, AttentionUnits::dot_bf16)->Apply(lengths);
BENCHMARK_CAPTURE(backward, bf16_best, Dtype::bf16, AttentionUnits::amx)->Apply(lengths);
BENCHMARK_CAPTURE(forward, bf16_best, Dtype::bf16, AttentionUnits::amx)->Apply(lengths_two_threads);
BENCHMARK_CAPTURE(backward, bf16_best, Dtype::bf16, AttentionUnits::amx)->Apply(lengths_two_threads);
void one_length(benchmark::internal::Benchmark * b) {
    b->ArgNames({"length", "head_dim", "threads"})->Args({2048, 64, 1});
}
BENCHMARK_CAPTURE(forward, bf16_best_window_64, Dtype::bf16, AttentionUnits::amx, window_64)->Apply(one_length);
BENCHMARK_CAPTURE(forward, bf16_best_window_512, Dtype::bf16, AttentionUnits::amx, window_512)->Apply(one_length);
BENCHMARK_CAPTURE(forward, bf16_best_full, Dtype::bf16, AttentionUnits::amx, full)->Apply(one_length);
BENCHMARK_CAPTURE(forward, bf16_best_capped, Dtype::bf16, AttentionUnits::amx, capped)->Apply(one_length);
BENCHMARK_CAPTURE(backward, bf16_best_window_64, Dtype::bf16, AttentionUnits::amx, window_64)->Apply(one_length);
BENCHMARK_CAPTURE(backward, bf16_best_window_512, Dtype::bf16, AttentionUnits::amx, window_512)->Apply(one_length);
BENCHMARK_CAPTURE(backward, bf16_best_full, Dtype::bf16, AttentionUnits::amx, full)->Apply(one_length);
BENCHMARK_CAPTURE(backward, bf16_best_capped, Dtype::bf16, AttentionUnits::amx, capped)->Apply(one_length);
void longer(benchmark::internal::Benchmark * b) {
    b->ArgNames({"length", "head_dim", "threads"});
    for (const int64_t length : {2048, 4096, 8192}) b->Args({length, 64, 1});
}
BENCHMARK_CAPTURE(forward, f32_window_512, Dtype::f32, AttentionUnits::fma, window_512)->Apply(longer);
BENCHMARK_CAPTURE(forward, f32_causal, Dtype::f32, AttentionUnits::fma)->Apply(longer);
BENCHMARK_CAPTURE(backward, f32_window_512, Dtype::f32, AttentionUnits::fma, window_512)->Apply(longer);
BENCHMARK_CAPTURE(backward, f32_causal, Dtype::f32, AttentionUnits::fma)->Apply(longer);
BENCHMARK_CAPTURE(decode, f32_window_512, Dtype::f32, window_512)->Apply(longer);
BENCHMARK_CAPTURE(decode, f32_causal, Dtype::f32)->Apply(longer);
BENCHMARK_CAPTURE(decode, f32, Dtype::f32)->Apply(caches);
BENCHMARK_CAPTURE(decode, bf16, Dtype::bf16)->Apply(caches);

}  // namespace
}  // namespace lorica::cpu
