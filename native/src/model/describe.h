// The words that an architecture file describes a model with. Each makes a node and gives its value; a node is computed
// where it was described, so a description names every value in a statement of its own.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "model/program.h"

namespace lorica {

// A linear layer: Linear("attn_q", "self_attn.q_proj", s.q_dim()).bias().rope_rows(s.n_head).
struct Linear {
    LinearSpec spec;

    Linear(std::string gguf, std::string hf, int64_t out);
    Linear bias(bool has = true) &&;
    Linear conv1d() &&;
    Linear rope_rows(int32_t n_head, int32_t head_dim) &&;
    Linear grouped_qkv_rows(int32_t n_head, int32_t n_head_kv, int32_t head_dim) &&;
};

// What is added to the output of a linear layer or a norm: plus(x).
struct Plus {
    Value value;
};
inline Plus plus(Value x) { return {x}; }

// A norm: Rms("attn_norm", "input_layernorm", eps), Layer("ln_1", …).bias().
struct NormOf {
    NormSpec spec;

    NormOf bias(bool has = true) &&;
    NormOf per_head(int32_t n_head) &&;  // each head alone
    NormOf rows(Rows order) &&;
};
NormOf Rms(std::string gguf, std::string hf, double eps);
NormOf Layer(std::string gguf, std::string hf, double eps);

class Block {
public:
    explicit Block(Program & program) : program_(program) {}

    // The rows that the tokens name, and the sum with what is named by their positions or types.
    Value embed(Names names, int64_t rows, int64_t cols, double scale = 1);
    Value positions(Value x, Names names, int64_t rows);
    Value types(Value x, Names names, int64_t rows);

    Value norm(Value x, NormOf norm, Plus residual = {});
    template <typename... Layers> auto linear(Value x, Layers... layers) {
        std::array<Linear, sizeof...(Layers)> all{std::move(layers)...};
        return several<sizeof...(Layers)>(linears(x, all, {}));
    }
    Value linear(Value x, Linear layer, Plus residual) { return linears(x, {&layer, 1}, residual)[0]; }
    // Columns of one value as values of their own.
    template <typename... Cols> std::array<Value, sizeof...(Cols)> split(Value x, Cols... cols) {
        int64_t first = 0;
        return {part(x, first, cols)...};
    }
    // In place: what is rotated is not read afterwards.
    template <typename... Values> auto rope(const RopeSpec & rope, Values... x) {
        const std::array<Value, sizeof...(Values)> all{x...};
        return several<sizeof...(Values)>(ropes(rope, all));
    }
    Value attention(Value q, Value k, Value v, const AttentionSpec & attention);
    Value gated(Act act, Value gate, Value up);
    Value activation(Act act, Value x);
    Value head(Value x, Names names, int64_t out, std::string tied_to, LogitSpec logits = {});

private:
    friend class Describe;
    template <size_t n> static auto several(const std::array<Value, 4> & values) {
        if constexpr (n == 1) {
            return values[0];
        } else {
            std::array<Value, n> first;
            std::copy_n(values.begin(), n, first.begin());
            return first;
        }
    }
    std::array<Value, 4> linears(Value x, std::span<const Linear> layers, Plus residual);
    std::array<Value, 4> ropes(const RopeSpec & rope, std::span<const Value> x);
    Value part(Value x, int64_t & first, int64_t cols);
    Value input(int64_t cols);
    void take_residual(Value x);
    Value add_value(Format format, int64_t cols, size_t output = 0);
    Value add_embedding(Value x, EmbedSpec spec);
    Node & add_node(Op op, size_t spec);

    Program & program_;
};

class Describe {
public:
    explicit Describe(const Shape & shape) { architecture_.shape = shape; }

    void prologue(const std::function<Value(Block &)> & describe);
    // Called for each layer; equal ones are one kind. "{}" stands for the layer's number.
    void layers(std::string gguf, std::string hf,
                const std::function<Value(Block &, Value x, int32_t layer)> & describe);
    // On the rows that are wanted.
    void epilogue(const std::function<Value(Block &, Value x)> & describe);
    void classifier(ClassifierSpec spec) { architecture_.classifier = std::move(spec); }
    Architecture done() { return std::move(architecture_); }

private:
    Architecture architecture_;
};

}  // namespace lorica
