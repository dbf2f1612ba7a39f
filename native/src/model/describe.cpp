#include "model/describe.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace lorica {

// ---- the words

Linear::Linear(std::string gguf, std::string hf, int64_t out) {
    spec.names = {std::move(gguf), std::move(hf)};
    spec.out = out;
}

Linear Linear::bias(bool has) && {
    spec.bias = has;
    return std::move(*this);
}

Linear Linear::conv1d() && {
    spec.conv1d = true;
    return std::move(*this);
}

Linear Linear::rope_rows(int32_t n_head, int32_t head_dim) && {
    spec.rows = {RowOrder::rope_pairs, n_head, n_head, head_dim};
    return std::move(*this);
}

Linear Linear::grouped_qkv_rows(int32_t n_head, int32_t n_head_kv, int32_t head_dim) && {
    spec.rows = {RowOrder::grouped_qkv, n_head, n_head_kv, head_dim};
    return std::move(*this);
}

NormOf NormOf::bias(bool has) && {
    spec.bias = has;
    return std::move(*this);
}

NormOf NormOf::per_head(int32_t n_head) && {
    spec.groups = n_head;
    return std::move(*this);
}

NormOf NormOf::rows(Rows order) && {
    spec.rows = order;
    return std::move(*this);
}

NormOf Rms(std::string gguf, std::string hf, double eps) {
    return {{{std::move(gguf), std::move(hf)}, Norm::rms, eps}};
}
NormOf Layer(std::string gguf, std::string hf, double eps) {
    return {{{std::move(gguf), std::move(hf)}, Norm::layer, eps}};
}

AttentionSpec Shape::attention() const {
    return {n_head, n_head_kv, head_dim, 1 / std::sqrt(static_cast<double>(head_dim))};
}

// ---- nodes

Value Block::add_value(Format format, int64_t cols, size_t output) {
    const auto maker = static_cast<int16_t>(program_.nodes.size()) - 1;
    program_.values.push_back({format, cols, static_cast<int16_t>(maker), static_cast<int8_t>(output)});
    return {static_cast<int16_t>(program_.values.size() - 1)};
}

Node & Block::add_node(Op op, size_t spec) {
    program_.nodes.push_back({op, static_cast<int16_t>(spec)});
    return program_.nodes.back();
}

// What is added to becomes hidden. Sums are a chain: the gradient of all its values lies in one place.
void Block::take_residual(Value x) {
    if (!x) return;
    int n = 0;
    for (const Node & node : program_.nodes) n += node.residual == x;
    if (n > 1) fail(LORICA_ERROR_INTERNAL, "a description adds to one value twice; sums must be a chain");
    program_.values[static_cast<size_t>(x.id)].format = Format::hidden;
}

Value Block::input(int64_t cols) {
    program_.input = add_value(Format::hidden, cols);
    return program_.input;
}

Value Block::add_embedding(Value x, EmbedSpec spec) {
    Node & node = add_node(Op::embed, program_.embeds.size());
    node.n_in = x ? 1 : 0;
    node.in[0] = x;
    node.n_out = 1;
    const int64_t cols = spec.cols;
    program_.embeds.push_back(std::move(spec));
    return node.out[0] = add_value(Format::hidden, cols);
}

Value Block::embed(Names names, int64_t rows, int64_t cols, double scale) {
    return add_embedding({}, {EmbedSpec::token, std::move(names), rows, cols, scale});
}
Value Block::positions(Value x, Names names, int64_t rows) {
    return add_embedding(x, {EmbedSpec::position, std::move(names), rows, program_[x].cols, 1});
}
Value Block::types(Value x, Names names, int64_t rows) {
    return add_embedding(x, {EmbedSpec::type, std::move(names), rows, program_[x].cols, 1});
}

Value Block::norm(Value x, NormOf norm, Plus residual) {
    const int64_t cols = program_[x].cols;
    norm.spec.n = cols / norm.spec.groups;
    Node & node = add_node(Op::norm, program_.norms.size());
    program_.norms.push_back(std::move(norm.spec));
    node.n_in = node.n_out = 1;
    node.in[0] = x;
    node.residual = residual.value;
    take_residual(residual.value);
    return node.out[0] = add_value(residual.value ? Format::hidden : Format::act, cols);
}

std::array<Value, 4> Block::linears(Value x, std::span<const Linear> layers, Plus residual) {
    Node & node = add_node(Op::linear, program_.linears.size());
    node.n_in = 1;
    node.in[0] = x;
    node.n_out = static_cast<int8_t>(layers.size());
    node.residual = residual.value;
    take_residual(residual.value);
    for (size_t i = 0; i < layers.size(); ++i) {
        LinearSpec spec = layers[i].spec;
        spec.in = program_[x].cols;
        spec.stream = static_cast<uint16_t>(program_.linears.size());
        node.out[i] = add_value(residual.value ? Format::hidden : Format::act, spec.out, i);
        program_.linears.push_back(std::move(spec));
    }
    return node.out;
}

Value Block::part(Value x, int64_t & first, int64_t cols) {
    if (first % 8 != 0) {
        fail(LORICA_ERROR_UNSUPPORTED, "a part of a fused layer begins at row ", first,
             "; only multiples of 8 are supported");
    }
    const ValueInfo whole = program_[x];
    program_.values.push_back({whole.format, cols, whole.maker, whole.output, x, first});
    first += cols;
    return {static_cast<int16_t>(program_.values.size() - 1)};
}

std::array<Value, 4> Block::ropes(const RopeSpec & rope, std::span<const Value> x) {
    auto same = std::find(program_.ropes.begin(), program_.ropes.end(), rope);
    const auto index = static_cast<size_t>(same - program_.ropes.begin());
    if (same == program_.ropes.end()) program_.ropes.push_back(rope);
    Node & node = add_node(Op::rope, index);
    node.n_in = node.n_out = static_cast<int8_t>(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
        node.in[i] = x[i];
        node.out[i] = add_value(Format::act, program_[x[i]].cols, i);
    }
    return node.out;
}

Value Block::attention(Value q, Value k, Value v, const AttentionSpec & attention) {
    Node & node = add_node(Op::attention, program_.attentions.size());
    program_.attentions.push_back(attention);
    node.n_in = 3;
    node.in = {q, k, v};
    node.n_out = 1;
    return node.out[0] = add_value(Format::act, int64_t{attention.n_head} * attention.head_dim);
}

Value Block::gated(Act act, Value gate, Value up) {
    Node & node = add_node(Op::gated, static_cast<size_t>(act));
    node.n_in = 2;
    node.in = {gate, up};
    node.n_out = 1;
    return node.out[0] = add_value(Format::act, program_[gate].cols);
}

Value Block::activation(Act act, Value x) {
    Node & node = add_node(Op::activation, static_cast<size_t>(act));
    node.n_in = node.n_out = 1;
    node.in[0] = x;
    return node.out[0] = add_value(Format::act, program_[x].cols);
}

Value Block::head(Value x, Names names, int64_t out, std::string tied_to, LogitSpec logits) {
    Node & node = add_node(Op::head, program_.heads.size());
    program_.heads.push_back({std::move(names), out, program_[x].cols, std::move(tied_to), logits});
    node.n_in = node.n_out = 1;
    node.in[0] = x;
    return node.out[0] = add_value(Format::hidden, out);
}

// ---- the model

void Describe::prologue(const std::function<Value(Block &)> & describe) {
    Block block(architecture_.prologue);
    Program & program = architecture_.prologue;
    program.output = describe(block);
    program.values[static_cast<size_t>(program.output.id)].format = Format::hidden;
}

void Describe::layers(std::string gguf, std::string hf,
                      const std::function<Value(Block &, Value x, int32_t layer)> & describe) {
    architecture_.layer_gguf = std::move(gguf);
    architecture_.layer_hf = std::move(hf);
    for (int32_t l = 0; l < architecture_.shape.n_layer; ++l) {
        Program program;
        Block block(program);
        const Value x = block.input(architecture_.shape.n_embd);
        program.output = describe(block, x, l);
        program.values[static_cast<size_t>(program.output.id)].format = Format::hidden;
        std::vector<Program> & kinds = architecture_.kinds;
        const auto same = std::find(kinds.begin(), kinds.end(), program);
        architecture_.kind_of_layer.push_back(static_cast<uint16_t>(same - kinds.begin()));
        if (same == kinds.end()) kinds.push_back(std::move(program));
    }
}

void Describe::epilogue(const std::function<Value(Block &, Value x)> & describe) {
    Program & program = architecture_.epilogue;
    Block block(program);
    const Value x = block.input(architecture_.shape.n_embd);
    Node & pool = block.add_node(Op::pool, 0);
    pool.n_in = pool.n_out = 1;
    pool.in[0] = x;
    const Value rows = pool.out[0] = block.add_value(Format::hidden, architecture_.shape.n_embd);
    program.output = describe(block, rows);
    Program & features = architecture_.features;
    features = program;
    if (program.heads.empty()) return;
    features.output = program.nodes.back().in[0];
    features.nodes.pop_back();
    features.values.pop_back();
    features.heads.clear();
    features.values[static_cast<size_t>(features.output.id)].format = Format::hidden;
}

// ---- tables

std::string_view LinearSpec::short_name() const {
    const std::string_view name = names.hf;
    const size_t dot = name.rfind('.');
    return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

namespace {

std::string with_layer(const std::string & pattern, int32_t layer) {
    std::string text = pattern;
    const size_t at = text.find("{}");
    return text.replace(at, 2, std::to_string(layer)) + ".";
}

void add_tensors(std::vector<TensorSpec> & all, const Program & program, int32_t layer, const std::string & gguf,
                 const std::string & hf) {
    const auto add = [&](TensorSpec::Kind kind, const Names & names, const char * suffix, int64_t rows, int64_t cols,
                         Rows order, int16_t number) -> TensorSpec & {
        const std::string hf_name = names.hf.empty() ? "" : hf + names.hf + suffix;
        all.push_back({kind, layer, gguf + names.gguf + suffix, hf_name, rows, cols, order, false, false, number});
        return all.back();
    };
    for (const Node & node : program.nodes) {
        const auto spec = static_cast<size_t>(node.spec);
        if (node.op == Op::embed) {
            const EmbedSpec & embed = program.embeds[spec];
            add(TensorSpec::embedding, embed.names, ".weight", embed.rows, embed.cols, {}, node.spec);
        } else if (node.op == Op::norm) {
            const NormSpec & norm = program.norms[spec];
            add(TensorSpec::norm, norm.names, ".weight", norm.n, 1, norm.rows, node.spec);
            if (norm.bias) add(TensorSpec::bias, norm.names, ".bias", norm.n, 1, norm.rows, node.spec);
        } else if (node.op == Op::linear) {
            for (auto i = node.spec; i < node.spec + node.n_out; ++i) {
                const LinearSpec & linear = program.linears[static_cast<size_t>(i)];
                add(TensorSpec::linear, linear.names, ".weight", linear.out, linear.in, linear.rows, i).conv1d =
                    linear.conv1d;
                if (linear.bias) add(TensorSpec::bias, linear.names, ".bias", linear.out, 1, linear.rows, i);
            }
        } else if (node.op == Op::head) {
            const HeadSpec & head = program.heads[spec];
            add(TensorSpec::head, head.names, ".weight", head.out, head.in, {}, node.spec).is_optional =
                !head.tied_to.empty();
        }
    }
}

}  // namespace

std::string Architecture::layer_name(int32_t l) const { return with_layer(layer_gguf, l); }
std::string Architecture::layer_hf_name(int32_t l) const { return with_layer(layer_hf, l); }

LinearSpec Architecture::linear(int32_t l, int16_t number) const {
    if (l < shape.n_layer) return layer(l).linears[static_cast<size_t>(number)];
    const HeadSpec & head = epilogue.heads[static_cast<size_t>(number)];
    LinearSpec spec;
    spec.names = head.names;
    spec.out = head.out;
    spec.in = head.in;
    return spec;
}

size_t Architecture::n_linears(int32_t l) const {
    return l < shape.n_layer ? layer(l).linears.size() : epilogue.heads.size();
}

std::string Architecture::linear_name(int32_t l, int16_t number) const {
    return (l < shape.n_layer ? layer_name(l) : "") + linear(l, number).names.gguf;
}

std::vector<TensorSpec> tensors_of(const Architecture & architecture) {
    std::vector<TensorSpec> all;
    add_tensors(all, architecture.prologue, -1, "", "");
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        add_tensors(all, architecture.layer(l), l, architecture.layer_name(l), with_layer(architecture.layer_hf, l));
    }
    add_tensors(all, architecture.epilogue, -1, "", "");
    return all;
}

std::vector<TensorSpec> classifier_tensors_of(const Architecture & architecture) {
    std::vector<TensorSpec> all;
    const ClassifierSpec & spec = architecture.classifier;
    const int64_t n = architecture.shape.n_embd;
    const auto add = [&](const Names & names, int64_t rows, bool bias) {
        all.push_back(
            {TensorSpec::classifier, -1, names.gguf + ".weight", names.hf + ".weight", rows, n, {}, false, true});
        if (!bias) return;
        all.push_back({TensorSpec::classifier, -1, names.gguf + ".bias", names.hf + ".bias", rows, 1, {}, false, true});
    };
    if (spec.has_dense()) add(spec.dense, n, true);
    add(spec.out, 0, spec.bias);
    return all;
}

std::vector<int64_t> rows_in_huggingface(const Rows & rows) {
    std::vector<int64_t> all;
    const int64_t head_dim = rows.head_dim;
    const auto add = [&](int64_t first, int64_t n) {
        for (int64_t row = first; row < first + n; ++row) all.push_back(row);
    };
    switch (rows.order) {
        case RowOrder::same: break;
        case RowOrder::rope_pairs:
            for (int64_t first = 0; first < rows.n_head * head_dim; first += head_dim) {
                for (int64_t pair = first; pair < first + head_dim / 2; ++pair) {
                    all.push_back(pair);
                    all.push_back(pair + head_dim / 2);
                }
            }
            break;
        case RowOrder::grouped_qkv: {
            const int64_t q_rows = rows.n_head / rows.n_head_kv * head_dim, group_rows = q_rows + 2 * head_dim;
            for (int64_t group = 0; group < rows.n_head_kv; ++group) add(group * group_rows, q_rows);
            for (int64_t group = 0; group < rows.n_head_kv; ++group) add(group * group_rows + q_rows, head_dim);
            for (int64_t group = 0; group < rows.n_head_kv; ++group)
                add(group * group_rows + q_rows + head_dim, head_dim);
            break;
        }
    }
    return all;
}

std::vector<Names> linear_names(const Architecture & architecture) {
    std::vector<Names> all;
    for (const Program & kind : architecture.kinds) {
        for (const LinearSpec & linear : kind.linears) {
            Names names{linear.names.gguf, std::string(linear.short_name())};
            if (std::find(all.begin(), all.end(), names) == all.end()) all.push_back(std::move(names));
        }
    }
    for (size_t i = 0; i < architecture.epilogue.heads.size(); ++i) {
        const LinearSpec head = architecture.linear(architecture.shape.n_layer, static_cast<int16_t>(i));
        all.push_back({head.names.gguf, std::string(head.short_name())});
    }
    return all;
}

}  // namespace lorica
