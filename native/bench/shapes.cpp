#include "shapes.h"

#include "common/error.h"
#include "common/random.h"
#include "common/thread_pool.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "model/arch/architectures.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <sstream>

namespace lorica::bench {

namespace {

// To be raised when the files are made differently.
constexpr int recipe = 1;

// llama.cpp's token types.
constexpr int32_t token_normal = 1, token_unknown = 2, token_control = 3, token_byte = 6;

constexpr uint32_t benchmark_window = 512;

const std::string space = "\xe2\x96\x81";  // SentencePiece's sign for a space

// The parts of the words of the example texts, the most frequent first, so that merging takes as many steps as with a
// learned vocabulary; where they do not suffice, made-up words.
std::vector<std::string> word_pieces(size_t n) {
    constexpr size_t longest = 12;
    std::map<std::string, int64_t> words, counts;
    for (const std::string & text : example_texts()) {
        std::istringstream stream(text);
        for (std::string word; stream >> word;) ++words[word];
    }
    for (const auto & [word, count] : words) {
        if (std::any_of(word.begin(), word.end(), [](char c) { return c < 0; })) continue;
        for (size_t length = 0; length <= longest; ++length) {
            if (length <= word.size()) counts[space + word.substr(0, length)] += count;
            for (size_t begin = 0; length > 0 && begin + length <= word.size(); ++begin)
                counts[word.substr(begin, length)] += count;
        }
    }
    std::vector<std::pair<std::string, int64_t>> ranked(counts.begin(), counts.end());
    std::stable_sort(ranked.begin(), ranked.end(), [](const auto & a, const auto & b) { return a.second > b.second; });
    std::vector<std::string> pieces;
    for (size_t i = 0; i < std::min(n, ranked.size()); ++i) pieces.push_back(ranked[i].first);
    for (size_t i = 0; pieces.size() < n; ++i) pieces.push_back(space + "#" + std::to_string(i));
    return pieces;
}

void set_tokenizer(GgufWriter & writer, int64_t n_vocab) {
    std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
    std::vector<int32_t> types = {token_unknown, token_control, token_control};
    for (int byte = 0; byte < 256; ++byte) {
        char text[8];
        std::snprintf(text, sizeof(text), "<0x%02X>", static_cast<unsigned>(byte));
        tokens.emplace_back(text);
        types.push_back(token_byte);
    }
    for (std::string & piece : word_pieces(static_cast<size_t>(n_vocab) - tokens.size()))
        tokens.push_back(std::move(piece));
    types.resize(tokens.size(), token_normal);
    std::vector<float> scores;
    for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i));
    writer.set_string("tokenizer.ggml.model", "llama");
    writer.set_strings("tokenizer.ggml.tokens", tokens);
    writer.set_f32s("tokenizer.ggml.scores", scores);
    writer.set_i32s("tokenizer.ggml.token_type", types);
    writer.set_u32("tokenizer.ggml.bos_token_id", 1);
    writer.set_u32("tokenizer.ggml.eos_token_id", 2);
    writer.set_u32("tokenizer.ggml.unknown_token_id", 0);
    writer.set_bool("tokenizer.ggml.add_bos_token", true);
    writer.set_bool("tokenizer.ggml.add_eos_token", false);
}

// Beyond what all architectures have: windows, and scales that are not 1.
void set_own_keys(GgufWriter & writer, const std::string & architecture) {
    const std::string prefix = architecture + ".";
    if (architecture == "gemma2" || architecture == "gemma3")
        writer.set_u32(prefix + "attention.sliding_window", benchmark_window);
    if (architecture == "granite") {
        writer.set_f32(prefix + "attention.scale", 1.0f / 64);
        writer.set_f32(prefix + "embedding_scale", 12);
        writer.set_f32(prefix + "residual_scale", 0.22f);
        writer.set_f32(prefix + "logit_scale", 8);
    }
    if (architecture == "mistral3") writer.set_f32(prefix + "attention.temperature_scale", 0.1f);
}

void set_numbers(GgufWriter & writer, const Shape & shape) {
    const std::string prefix = shape.architecture + ".";
    const auto u32 = [&](const char * key, int64_t value) {
        writer.set_u32(prefix + key, static_cast<uint32_t>(value));
    };
    writer.set_string("general.architecture", shape.architecture);
    writer.set_string("general.name", "random " + shape.name);
    writer.set_u32("general.quantization_version", GGML_QNT_VERSION);
    u32("vocab_size", shape.n_vocab);
    u32("context_length", 4096);
    u32("embedding_length", shape.n_embd);
    u32("block_count", shape.n_layer);
    u32("feed_forward_length", shape.n_ff);
    u32("attention.head_count", shape.n_head);
    u32("attention.head_count_kv", shape.n_head_kv);
    u32("rope.dimension_count", shape.head_dim);
    writer.set_f32(prefix + "attention.layer_norm_rms_epsilon", 1e-5f);
    writer.set_f32(prefix + "rope.freq_base", 10000.0f);
    set_own_keys(writer, shape.architecture);
}

// Metadata alone is enough for a description, which says what tensors there are.
Architecture described(const Shape & shape) {
    GgufWriter writer;
    set_numbers(writer, shape);
    const std::vector<std::byte> metadata = writer.header();
    return lorica::describe(GgufFile::from_memory(shape.name, metadata));
}

// Those of one name and size are one; a head that the embedding stands in for counts as well.
std::vector<LinearShape> linears_of(const Architecture & architecture) {
    std::vector<LinearShape> linears;
    for (const TensorSpec & tensor : tensors_of(architecture)) {
        if (tensor.kind != TensorSpec::linear && tensor.kind != TensorSpec::head) continue;
        std::string name = tensor.hf.substr(0, tensor.hf.rfind('.'));
        name = tensor.kind == TensorSpec::head ? "head" : name.substr(name.rfind('.') + 1);
        const auto same = std::find_if(linears.begin(), linears.end(), [&](const LinearShape & one) {
            return one.name == name && one.out == tensor.rows && one.in == tensor.cols;
        });
        if (same != linears.end()) {
            ++same->count;
        } else {
            linears.push_back({name, tensor.rows, tensor.cols, 1});
        }
    }
    return linears;
}

bool is_gated(const Architecture & architecture) {
    const std::vector<Node> & nodes = architecture.layer(0).nodes;
    return std::any_of(nodes.begin(), nodes.end(), [](const Node & node) { return node.op == Op::gated; });
}

void write_model(const std::string & path, const Shape & shape, ggml_type type) {
    GgufWriter writer;
    set_numbers(writer, shape);
    set_tokenizer(writer, shape.n_vocab);
    const std::vector<TensorSpec> tensors = tensors_of(described(shape));
    const auto buffer = std::make_shared<std::vector<std::byte>>();  // of the tensor that is being written
    std::list<std::vector<float>> vectors;
    uint64_t stream = 0;
    for (const TensorSpec & tensor : tensors) {
        if (tensor.cols == 1) {
            vectors.emplace_back(static_cast<size_t>(tensor.rows), tensor.kind == TensorSpec::bias ? 0.01f : 1.0f);
            writer.add_tensor(tensor.gguf, GGML_TYPE_F32, {tensor.rows}, vectors.back().data());
            continue;
        }
        const int64_t ne[] = {tensor.cols, tensor.rows};
        writer.add_tensor(tensor.gguf, type, ne,
                          [=, out = tensor.rows, in = tensor.cols, seed = derive_seed(1, stream++)] {
                              *buffer = random_blocks(type, out, in, 1.0f / std::sqrt(static_cast<float>(in)), seed);
                              return std::span<const std::byte>(*buffer);
                          });
    }
    writer.write(path);
}

// Backslash escapes of JSON, but \u, of which the example texts have none.
std::string unescaped(const std::string & text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\' || i + 1 == text.size()) {
            out += text[i];
        } else {
            const char c = text[++i];
            out += c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
    }
    return out;
}

}  // namespace

int64_t Shape::n() const {
    int64_t sum = 0;
    for (const LinearShape & linear : linears) sum += linear.weights();
    return sum;
}

Shape named_shape(const std::string & name, const std::string & architecture) {
    const Shape shapes[] = {
        {"mini", 4, 256, 512, 4, 2, 64, 2000},
        {"s135", 30, 576, 1536, 9, 3, 64, 32000},
        {"tiny1b", 22, 2048, 5632, 32, 4, 64, 32000},
        {"llama7b", 32, 4096, 11008, 32, 32, 128, 32000},
        {"llama8b", 32, 4096, 14336, 32, 8, 128, 128256},
    };
    for (const Shape & shape : shapes) {
        if (shape.name != name) continue;
        Shape other = shape;
        if (architecture != "llama") {
            other.architecture = architecture;
            other.name += "-" + architecture;
            if (architecture == "gpt2" || architecture == "gptneox") other.n_head_kv = other.n_head;
            if (architecture == "falcon") other.n_head_kv = 1;
            // As many weights without a gate as with one.
            if (!is_gated(described(other))) other.n_ff = other.n_ff * 3 / 2;
        }
        other.linears = linears_of(described(other));
        return other;
    }
    fail(LORICA_ERROR_INVALID_ARGUMENT, "--shape ", name,
         ": it is one of mini, s135, tiny1b, llama7b, llama8b; or use --model FILE");
}

Shape shape_of(const std::string & name, const std::string & path) {
    const Architecture architecture = lorica::describe(GgufFile::open(path));
    const lorica::Shape & s = architecture.shape;
    return {name,        s.n_layer,  s.n_embd,  s.n_ff,         s.n_head,
            s.n_head_kv, s.head_dim, s.n_vocab, s.architecture, linears_of(architecture)};
}

StepOperations step_operations(const Shape & shape, int64_t tokens, int64_t length, int64_t rank,
                               const std::vector<std::string> & targets) {
    StepOperations operations{};
    const auto t = static_cast<double>(tokens);
    operations.weights = 4.0 * static_cast<double>(shape.n()) * t;
    const LinearShape & head = shape.linears.back();
    const LinearShape & last = shape.linears[shape.linears.size() - 2];
    const int64_t recomputed = shape.n() - head.weights() - last.weights();
    operations.recompute_layer = 2.0 * static_cast<double>(recomputed) / static_cast<double>(shape.n_layer) * t;
    double pairs = 0;  // of query and key
    for (int64_t left = tokens; left > 0; left -= length) {
        const auto n = static_cast<double>(std::min(left, length));
        pairs += n * (n + 1) / 2;
    }
    operations.attention = 7 * 2.0 * pairs * static_cast<double>(shape.n_layer * shape.n_head * shape.head_dim);
    for (const LinearShape & linear : shape.linears) {
        const bool target = std::find(targets.begin(), targets.end(), linear.name) != targets.end() ||
                            (linear.name != "head" && targets == std::vector<std::string>{"all-linear"});
        if (target) operations.lora += 6.0 * t * static_cast<double>(rank * (linear.in + linear.out) * linear.count);
    }
    return operations;
}

ggml_type parse_type(const std::string & name) {
    const auto lower = [](std::string text) {
        std::transform(text.begin(), text.end(), text.begin(),
                       [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        return text;
    };
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (is_supported_weight_type(type) && lower(type_name(type)) == lower(name)) return type;
    }
    fail(LORICA_ERROR_INVALID_ARGUMENT, "--type ", name, " is no tensor type of ggml; q4_0, q8_0, q4_k, bf16, … are");
}

std::vector<std::byte> random_blocks(ggml_type type, int64_t n_rows, int64_t n_per_row, float deviation,
                                     uint64_t seed) {
    if (n_per_row % ggml_blck_size(type) != 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "rows of ", n_per_row, " values are no whole number of ", type_name(type),
             " blocks of ", ggml_blck_size(type));
    }
    ggml_quantize_init(type);
    const size_t row_bytes = ggml_row_size(type, n_per_row);
    std::vector<std::byte> blocks(row_bytes * static_cast<size_t>(n_rows));
    // The sum of four values of [0, 65536) has mean 4 * 32767.5 and variance 4 * 65536^2 / 12.
    const float factor = deviation / (65536.0f * std::sqrt(1.0f / 3));
    parallel_pieces(n_rows, ThreadPool::instance().n_threads(), [&](int, int64_t begin, int64_t end) {
        std::vector<float> values(static_cast<size_t>(n_per_row));
        const std::vector<float> importance(ggml_quantize_requires_imatrix(type) ? values.size() : 0, 1.0f);
        for (int64_t row = begin; row < end; ++row) {
            uint64_t state = derive_seed(seed, static_cast<uint64_t>(row)) | 1;
            for (float & value : values) {
                state ^= state << 13;  // Marsaglia 2003, xorshift64
                state ^= state >> 7;
                state ^= state << 17;
                const auto sum = static_cast<float>((state & 0xffff) + (state >> 16 & 0xffff) + (state >> 32 & 0xffff) +
                                                    (state >> 48));
                value = (sum - 131070.0f) * factor;
            }
            ggml_quantize_chunk(type, values.data(), blocks.data() + row_bytes * static_cast<size_t>(row), 0, 1,
                                n_per_row, importance.empty() ? nullptr : importance.data());
        }
    });
    return blocks;
}

std::string cached_model(const std::string & folder, const Shape & shape, ggml_type type) {
    std::filesystem::create_directories(folder);
    std::string path = folder + "/" + shape.name + "-" + type_name(type) + "-r" + std::to_string(recipe) + ".gguf";
    if (!std::filesystem::exists(path)) {
        std::fprintf(stderr, "writing %s\n", path.c_str());
        write_model(path, shape, type);
    }
    return path;
}

std::string default_cache_folder() {
    const char * cache = std::getenv("XDG_CACHE_HOME");
    const char * home = std::getenv("HOME");
    return (cache && *cache ? std::string(cache) : std::string(home ? home : "/tmp") + "/.cache") + "/lorica/bench";
}

std::vector<std::string> example_texts() {
    // A program that was built elsewhere is told where the repository lies here.
    const char * repository = std::getenv("LORICA_REPOSITORY");
    const std::string path = std::string(repository && *repository ? repository : LORICA_REPOSITORY) +
                             "/models/data/pride_and_prejudice_train.json";
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(LORICA_ERROR_IO, path, " cannot be read; the benchmarks take their example texts from it");
    const std::string json((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    // All strings but the keys, which a colon follows.
    std::vector<std::string> texts;
    for (size_t at = json.find('"'); at != std::string::npos; at = json.find('"', at)) {
        size_t end = at + 1;
        while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
        const size_t next = json.find_first_not_of(" \t\r\n", end + 1);
        if (next == std::string::npos || json[next] != ':')
            texts.push_back(unescaped(json.substr(at + 1, end - at - 1)));
        at = end + 1;
    }
    if (texts.size() < 2) fail(LORICA_ERROR_FORMAT, path, " holds no pairs of texts");
    return texts;
}

}  // namespace lorica::bench
