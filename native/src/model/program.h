// A model as data: what its architecture file (arch/) describes, and what everything else is derived from. A program is
// a list of coarse operations on values; a value is an integer, so nothing that runs looks up a name. A model is a
// prologue (tokens to the residual stream), a program per layer, of which many layers share one, and an epilogue (to
// logits).
//
// The same tables say what a model file must hold, which linear layers an adapter may sit on, and what Hugging Face
// calls each tensor.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace lorica {

struct Value {
    int16_t id = -1;

    explicit operator bool() const { return id >= 0; }
    bool operator==(const Value &) const = default;
};

// hidden: embeddings, sums with a residual, and norms that one is added to or that blocks read as their stream. act:
// everything else.
enum class Format : uint8_t { hidden, act };

struct ValueInfo {
    Format format = Format::act;
    int64_t cols = 0;
    int16_t maker = -1;  // node; -1: the input of the program
    int8_t output = 0;   // which of the node's
    Value part_of = {};  // some columns of another value, which its maker makes
    int64_t first_col = 0;

    bool operator==(const ValueInfo &) const = default;
};

// Without the layer in front and without ".weight": "attn_q", "self_attn.q_proj".
struct Names {
    std::string gguf, hf;

    bool operator==(const Names &) const = default;
};

// How the rows of a tensor in a GGUF file differ from those in Hugging Face's: rope_pairs has the two halves of each
// head interleaved; grouped_qkv has [q][k][v] there and [kv group][its q heads, k, v] here. B, magnitudes, biases and
// whatever else has an element per row follow.
enum class RowOrder : uint8_t { same, rope_pairs, grouped_qkv };

struct Rows {
    RowOrder order = RowOrder::same;
    int32_t n_head = 0, n_head_kv = 0, head_dim = 0;

    bool operator==(const Rows &) const = default;
};

// Row i of GGUF's is row [i] of Hugging Face's; empty: row i.
std::vector<int64_t> rows_in_huggingface(const Rows & rows);

struct LinearSpec {
    Names names;
    int64_t out = 0, in = 0;
    bool bias = false;
    bool conv1d = false;  // Hugging Face stores it transposed (GPT-2)
    Rows rows;
    // Number of the random streams of an adapter on it: where A starts, and its dropout. A released model's never
    // change.
    uint16_t stream = 0;

    bool operator==(const LinearSpec &) const = default;
    std::string_view short_name() const;  // the last part of the name in Hugging Face, as PEFT's target_modules have it
};

struct NormSpec {
    Names names;
    Norm::Kind kind = Norm::rms;
    double eps = 0;
    int64_t n = 0;  // of its weight; a row has n * groups
    int32_t groups = 1;
    bool bias = false;
    Rows rows;  // of a norm over all heads, whose weight follows the order of q's or k's rows

    bool operator==(const NormSpec &) const = default;
};

// no inverse_frequency: nothing is rotated. See Rope.
struct RopeSpec {
    std::vector<double> inverse_frequency;
    bool halves = false;
    int32_t head_dim = 0;
    double magnitude = 1;
    double temperature = 0;  // of q alone
    int32_t temperature_length = 1;
    // LongRoPE: other frequencies where sequences may be longer than original_context; 0: there are none.
    std::vector<double> long_inverse_frequency = {};
    int32_t original_context = 0;

    // The frequencies for sequences of at most so many tokens.
    const std::vector<double> & frequencies(int64_t max_length) const {
        return original_context > 0 && max_length > original_context ? long_inverse_frequency : inverse_frequency;
    }
    bool operator==(const RopeSpec &) const = default;
};

struct EmbedSpec {
    enum Index : uint8_t { token, position, type } index = token;
    Names names;
    int64_t rows = 0, cols = 0;
    double scale = 1;

    bool operator==(const EmbedSpec &) const = default;
};

struct HeadSpec {
    Names names;
    int64_t out = 0, in = 0;
    std::string tied_to;  // the tensor that stands in where a file has none of its own
    LogitSpec logits = {};

    bool operator==(const HeadSpec & other) const {
        return names == other.names && out == other.out && in == other.in && tied_to == other.tied_to &&
               logits.scale == other.logits.scale && logits.cap == other.logits.cap;
    }
};

// What makes outputs of a text from the hidden state of one of its tokens, in which a classifier ends:
// out(act(dense(x))), or out(x) alone. Weights are the file's or an adapter's.
struct ClassifierSpec {
    enum Token : uint8_t { last, first } token = last;
    Names dense = {};  // [n_embd, n_embd] with a bias; no name: there is none
    Act act = Act::tanh;
    bool trains_dense = true;  // with the outputs; BERT's pooler is a part of the base
    Names out = {"cls.output", "score"};
    bool bias = false;  // of out

    bool has_dense() const { return !dense.gguf.empty(); }
};

struct AttentionSpec {
    int32_t n_head = 0, n_head_kv = 0, head_dim = 0;
    double scale = 0;
    MaskSpec mask = {};
    double softcap = 0;

    AttentionShape shape() const { return {n_head, n_head_kv, head_dim, scale, mask, softcap}; }
    bool operator==(const AttentionSpec &) const = default;
};

// Inputs and outputs of a node, in order:
//   embed       – → x; with an input: input + embedding
//   norm        x → y [+ residual]
//   linear      x → y of each of up to four linear layers, numbers spec, spec + 1, …; [+ residual] of one alone
//   rope        up to four values → the same rotated, in place
//   attention   q, k, v → o
//   gated       gate, up → act(gate) * up
//   activation  x → act(x)
//   pool        x → some rows of it, which the batch picks
//   head        x → logits
//   scale       x → its columns times what is trained of layer `spec` (IA3; -1: as they are) [+ residual]; no
//               description has it: derive() puts it where it belongs
enum class Op : uint8_t { embed, norm, linear, rope, attention, gated, activation, pool, head, scale };

struct Node {
    Op op = Op::norm;
    int16_t spec = -1;  // in the table of its kind; of gated and activation an Act
    int8_t n_in = 0, n_out = 0;
    std::array<Value, 4> in = {}, out = {};
    Value residual = {};

    bool operator==(const Node &) const = default;
};

struct Program {
    std::vector<ValueInfo> values;
    std::vector<Node> nodes;
    std::vector<LinearSpec> linears;
    std::vector<NormSpec> norms;
    std::vector<RopeSpec> ropes;
    std::vector<AttentionSpec> attentions;
    std::vector<EmbedSpec> embeds;
    std::vector<HeadSpec> heads;
    Value input = {}, output = {};

    const ValueInfo & operator[](Value v) const { return values[static_cast<size_t>(v.id)]; }
    bool operator==(const Program &) const = default;
};

// The numbers that a model file gives, checked against each other.
struct Shape {
    std::string architecture;
    int32_t n_layer = 0, n_embd = 0, n_head = 0, n_head_kv = 0, head_dim = 0, n_ff = 0, n_vocab = 0, n_ctx_train = 0;

    int64_t q_dim() const { return int64_t{n_head} * head_dim; }
    int64_t kv_dim() const { return int64_t{n_head_kv} * head_dim; }
    // Causal, and with the usual scale.
    AttentionSpec attention() const;
};

struct Architecture {
    Shape shape;
    std::string layer_gguf, layer_hf;  // "blk.{}", "model.layers.{}"
    // Of a model that looks both ways the epilogue has no head: it gives the picked rows as they are.
    Program prologue, epilogue;
    Program features;  // the epilogue without its head: hidden states of picked rows
    ClassifierSpec classifier;
    std::vector<Program> kinds;  // the different programs of layers
    std::vector<uint16_t> kind_of_layer;

    // Predicts tokens; else it is an encoder.
    bool has_head() const { return !epilogue.heads.empty(); }
    const Program & layer(int32_t l) const { return kinds[kind_of_layer[static_cast<size_t>(l)]]; }
    // -1: the prologue; n_layer: the epilogue.
    const Program & program(int32_t l) const { return l < 0 ? prologue : l < shape.n_layer ? layer(l) : epilogue; }
    std::string layer_name(int32_t l) const;     // "blk.3."
    std::string layer_hf_name(int32_t l) const;  // "model.layers.3."
    // A linear layer of layer l; behind the last one, number 0 is the output head, which adapters may sit on too.
    LinearSpec linear(int32_t l, int16_t number) const;
    size_t n_linears(int32_t l) const;  // for l up to n_layer
    // "blk.3.attn_q", "output"
    std::string linear_name(int32_t l, int16_t number) const;
};

// One tensor of a model, for whoever reads or writes files.
struct TensorSpec {
    enum Kind : uint8_t { embedding, linear, norm, bias, head, classifier } kind;
    int32_t layer;  // -1: none
    std::string gguf, hf;
    int64_t rows, cols;  // W[rows, cols]; cols 1: a vector, whose length is rows
    Rows order;
    bool conv1d = false;
    bool is_optional = false;  // a head that the embedding may stand in for; what only a classifier has
    int16_t number = -1;       // of a linear layer or its bias, of a norm or its bias: which of its program
};

// In the order of the computation.
std::vector<TensorSpec> tensors_of(const Architecture & architecture);
// Of the classifier that may stand behind it, in a file of its own or in an adapter's. Its outputs are as many as there
// are classes, which no description says: rows 0.
std::vector<TensorSpec> classifier_tensors_of(const Architecture & architecture);

// A target of adapters, as it is called in "target_modules": the last parts of its names. Each only once, in the order
// of the layers and of their computation, the head behind them.
std::vector<Names> linear_names(const Architecture & architecture);

}  // namespace lorica
