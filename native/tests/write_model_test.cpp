// Models written from models: what is in them, which type each tensor gets, and how much memory it takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "common/error.h"
#include "generate/context.h"
#include "gguf/added_tokens.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "support/counted_memory.h"
#include "support/training.h"
#include "write/row_stream.h"
#include "write/tensor_types.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;
using testing::ElementsAreArray;
using testing::HasSubstr;

std::vector<float> values_of(const TensorView & tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.n_elements()));
    dequantize_row(tensor.type, tensor.data, values.data(), tensor.n_elements());
    return values;
}

// -1: there is none.
int64_t index_of(const GgufFile & file, const std::string & key) {
    for (int64_t i = 0; i < file.n_kv(); ++i) {
        if (file.key(i) == key) return i;
    }
    return -1;
}

std::vector<std::byte> bytes_of(const TensorView & tensor) { return {tensor.data, tensor.data + tensor.n_bytes}; }

std::string error_of(const std::function<void()> & call) {
    try {
        call();
    } catch (const Error & e) {
        return e.what();
    }
    return "no error";
}

struct WriteModelTest : testing::Test {
    TempDir dir;
    TestModel shape;

    std::shared_ptr<const Model> model(ggml_type type) {
        shape.type = type;
        return load(write_test_model(dir / "model.gguf", shape), "cpu", Dtype::f32);
    }
    static std::shared_ptr<Adapter> adapter(std::shared_ptr<const Model> model) {
        AdapterConfig config;
        config.rank = 3;
        config.alpha = 12;
        config.target_modules = "q_proj,blk.1.ffn_down:5";
        return busy_adapter(std::move(model), config);
    }
    // W + scale B A in double.
    static std::vector<float> merged(const Adapter & adapter, const TensorView & tensor) {
        std::vector<float> w = values_of(tensor);
        for (const LoraPair & pair : adapter.pairs()) {
            if (pair.base_name != tensor.name) continue;
            const std::vector<float> a = adapter.read(pair.a);
            const std::vector<float> b = adapter.read(pair.b);
            for (int64_t i = 0; i < pair.out; ++i) {
                for (int64_t j = 0; j < pair.in; ++j) {
                    double sum = 0;
                    for (int64_t k = 0; k < pair.rank; ++k) {
                        sum +=
                            double{b[static_cast<size_t>(i * pair.rank + k)]} * a[static_cast<size_t>(k * pair.in + j)];
                    }
                    w[static_cast<size_t>(i * pair.in + j)] += static_cast<float>(adapter.scale(pair) * sum);
                }
            }
        }
        return w;
    }
    static double largest_difference(const std::vector<float> & a, const std::vector<float> & b) {
        double largest = 0;
        for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
        return largest;
    }
};

TEST_F(WriteModelTest, EveryWeightIsTheSumRoundedToItsType) {
    for (const ggml_type base : {GGML_TYPE_F32, GGML_TYPE_Q4_0}) {
        const auto source = model(base);
        const auto lora = adapter(source);
        lora->set_scale_factor(0.75);
        // The largest error of a type relative to the largest value of a block: half a step.
        for (const auto & [name, tolerance] :
             {std::pair("F32", 1e-6), std::pair("F16", 6e-4), std::pair("BF16", 5e-3), std::pair("Q8_0", 5e-3)}) {
            merge_model(*source, lora.get(), dir / "merged.gguf", {name, 2});
            const GgufFile file = GgufFile::open(dir / "merged.gguf");
            ASSERT_EQ(file.tensors().size(), source->file().tensors().size());
            for (const TensorView & tensor : source->file().tensors()) {
                const std::vector<float> expected = merged(*lora, tensor);
                const float largest = std::abs(*std::max_element(
                    expected.begin(), expected.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
                EXPECT_LE(largest_difference(values_of(*file.find_tensor(tensor.name)), expected), tolerance * largest)
                    << name << " " << tensor.name;
            }
        }
    }
}

TEST_F(WriteModelTest, WithoutATypeOnlyAdaptedTensorsChangeTheirs) {
    const auto source = model(GGML_TYPE_Q4_0);
    const auto lora = adapter(source);
    merge_model(*source, lora.get(), dir / "merged.gguf", {});
    const GgufFile file = GgufFile::open(dir / "merged.gguf");
    std::set<std::string> changed;
    for (const TensorView & tensor : source->file().tensors()) {
        const TensorView & now = *file.find_tensor(tensor.name);
        if (now.type == tensor.type) {
            EXPECT_EQ(bytes_of(now), bytes_of(tensor)) << tensor.name;
        } else {
            EXPECT_EQ(now.type, GGML_TYPE_F16);
            changed.insert(tensor.name);
        }
    }
    EXPECT_THAT(changed,
                testing::UnorderedElementsAre("blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.1.ffn_down.weight"));
}

TEST_F(WriteModelTest, AStackIsMergedAsItsPartsOneAfterTheOther) {
    const auto source = model(GGML_TYPE_F32);
    const auto one = adapter(source), other = adapter(source);
    other->set_scale_factor(-2);
    const auto stack = Adapter::stack(source, std::vector<Adapter::Part>{{one, 1}, {other, 0.5}});  // one - one
    merge_model(*source, stack.get(), dir / "merged.gguf", {"F32", 1});
    const GgufFile file = GgufFile::open(dir / "merged.gguf");
    for (const TensorView & tensor : source->file().tensors()) {
        EXPECT_LE(largest_difference(values_of(*file.find_tensor(tensor.name)), values_of(tensor)), 1e-6)
            << tensor.name;
    }
}

TEST_F(WriteModelTest, AModelThatIsOfTheTypeAlreadyIsCopied) {
    const auto source = model(GGML_TYPE_F32);
    quantize_model(dir / "model.gguf", dir / "again.gguf", {"F32", 2});
    const GgufFile file = GgufFile::open(dir / "again.gguf");
    for (const TensorView & tensor : source->file().tensors())
        EXPECT_EQ(bytes_of(*file.find_tensor(tensor.name)), bytes_of(tensor));
    EXPECT_EQ(file.find_int("general.file_type"), 0);
}

TEST_F(WriteModelTest, WhatCannotBeWrittenLeavesTheOldFile) {
    const auto source = model(GGML_TYPE_F32);
    const auto lora = adapter(source);
    std::ofstream(dir / "old.gguf") << "old";
    const auto tensor = lora->tensor(1);
    std::vector<float> b(static_cast<size_t>(tensor.rows * tensor.cols), std::numeric_limits<float>::infinity());
    lora->write(lora->params(), 1, b.data());
    EXPECT_THAT(error_of([&] { merge_model(*source, lora.get(), dir / "old.gguf", {"F16", 2}); }),
                HasSubstr("nothing is written"));
    EXPECT_THAT(error_of([&] { merge_model(*source, nullptr, dir / "no/where.gguf", {"F16", 2}); }),
                HasSubstr("no/where.gguf"));
    EXPECT_THAT(error_of([&] { merge_model(*source, nullptr, dir / "old.gguf", {"F17", 2}); }),
                HasSubstr("\"F17\" does not exist"));
    EXPECT_THAT(error_of([&] { merge_model(*source, nullptr, dir / "old.gguf", {"IQ1_S", 2}); }),
                HasSubstr("importance matrix"));
    const auto foreign = adapter(load(dir / "model.gguf", "cpu", Dtype::f32));
    EXPECT_THAT(error_of([&] { merge_model(*source, foreign.get(), dir / "old.gguf", {"F16", 2}); }),
                HasSubstr("another model"));
    std::ifstream old(dir / "old.gguf");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(old), {}), "old");
}

TEST_F(WriteModelTest, NoOutputIsItsInputUnderWhateverName) {
    const auto source = model(GGML_TYPE_F32);
    std::filesystem::create_symlink(dir / "model.gguf", dir / "link.gguf");
    std::filesystem::create_hard_link(dir / "model.gguf", dir / "hard.gguf");
    const auto size = std::filesystem::file_size(dir / "model.gguf");
    for (const char * name : {"model.gguf", "link.gguf", "hard.gguf"}) {
        EXPECT_THAT(error_of([&] { quantize_model(dir / "model.gguf", dir / name, {"F16", 1}); }),
                    HasSubstr("choose another name"));
        EXPECT_THAT(error_of([&] { quantize_model(dir / name, dir / "model.gguf", {"F16", 1}); }),
                    HasSubstr("choose another name"));
        EXPECT_THAT(error_of([&] { merge_model(*source, nullptr, dir / name, {"F16", 1}); }),
                    HasSubstr("choose another name"));
    }
    EXPECT_EQ(std::filesystem::file_size(dir / "model.gguf"), size);
}

// The layers of the Q6_K tensors that llama.cpp's log shows for a Llama of 32 layers.
TEST_F(WriteModelTest, MixesAreThoseOfLlamaCpp) {
    GgufWriter writer;
    writer.set_string("general.architecture", "llama");
    writer.set_u32("llama.block_count", 32);
    const std::vector<float> zeros(2 * 256);
    const auto add = [&](const std::string & name) { writer.add_tensor(name, GGML_TYPE_F32, {256, 2}, zeros.data()); };
    for (int l = 0; l < 32; ++l) {
        for (const char * name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
            add("blk." + std::to_string(l) + "." + name + ".weight");
        }
    }
    add("token_embd.weight");
    add("output.weight");
    writer.write(dir / "large.gguf");
    const GgufFile file = GgufFile::open(dir / "large.gguf");

    const auto layers = [&](const char * mix, const std::string & module, ggml_type type) {
        const TensorTypes types(mix, file);
        std::vector<int> result;
        for (int l = 0; l < 32; ++l) {
            if (types.of(*file.find_tensor("blk." + std::to_string(l) + "." + module + ".weight")) == type)
                result.push_back(l);
        }
        return result;
    };
    const std::vector<int> more_bits{0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31};
    for (const char * mix : {"Q4_K_M", "Q5_K_M"}) {
        EXPECT_THAT(layers(mix, "attn_v", GGML_TYPE_Q6_K), ElementsAreArray(more_bits)) << mix;
        EXPECT_THAT(layers(mix, "ffn_down", GGML_TYPE_Q6_K), ElementsAreArray(more_bits)) << mix;
        for (const char * module : {"attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"}) {
            EXPECT_EQ(layers(mix, module, mix[1] == '4' ? GGML_TYPE_Q4_K : GGML_TYPE_Q5_K).size(), 32u)
                << mix << " " << module;
        }
    }
    EXPECT_THAT(layers("Q4_K_S", "attn_v", GGML_TYPE_Q5_K), testing::ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(layers("Q4_K_S", "ffn_down", GGML_TYPE_Q5_K), testing::ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(layers("Q3_K_M", "attn_v", GGML_TYPE_Q5_K), testing::ElementsAre(0, 1));
    EXPECT_THAT(layers("Q3_K_M", "ffn_down", GGML_TYPE_Q5_K), testing::ElementsAre(0, 1));
    EXPECT_EQ(layers("Q3_K_M", "attn_output", GGML_TYPE_Q4_K).size(), 32u);
    EXPECT_EQ(layers("Q2_K", "attn_output", GGML_TYPE_Q3_K).size(), 32u);
    EXPECT_THAT(layers("IQ4_XS", "ffn_down", GGML_TYPE_Q5_K), testing::ElementsAre(0, 1, 2, 3));
    for (const auto & [mix, output] :
         {std::pair("Q4_0", GGML_TYPE_Q6_K), std::pair("Q4_K_M", GGML_TYPE_Q6_K), std::pair("Q8_0", GGML_TYPE_Q8_0)}) {
        EXPECT_EQ(TensorTypes(mix, file).of(*file.find_tensor("output.weight")), output) << mix;
    }
    EXPECT_EQ(TensorTypes("Q4_0", file).of(*file.find_tensor("token_embd.weight")), GGML_TYPE_Q4_0);
}

TEST_F(WriteModelTest, TokensAreAddedBehindTheOthersAndBeginAsTheirMean) {
    const std::vector<std::string> tokens = {"<tool>", "caf\u00e9"};
    for (const auto & [type, tied] :
         {std::pair{GGML_TYPE_F32, false}, std::pair{GGML_TYPE_Q4_0, true}, std::pair{GGML_TYPE_Q8_0, false}}) {
        shape.tied_output = tied;
        const auto before = model(type);
        add_tokens(dir / "model.gguf", tokens, dir / "grown.gguf");
        const GgufFile old = GgufFile::open(dir / "model.gguf"), grown = GgufFile::open(dir / "grown.gguf");
        ASSERT_EQ(grown.tensors().size(), old.tensors().size());
        for (const TensorView & tensor : old.tensors()) {
            const TensorView & now = *grown.find_tensor(tensor.name);
            std::vector<std::byte> bytes = bytes_of(now);
            EXPECT_EQ(now.type, tensor.type);
            if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") {
                ASSERT_EQ(now.ne[1], shape.n_vocab + 2);
                const std::vector<float> rows = values_of(tensor), more = values_of(now);
                float largest = 0;
                for (const float value : rows) largest = std::max(largest, std::abs(value));
                for (int64_t j = 0; j < shape.n_embd; ++j) {
                    double mean = 0;
                    for (int64_t i = 0; i < shape.n_vocab; ++i) mean += rows[static_cast<size_t>(i * shape.n_embd + j)];
                    mean /= shape.n_vocab;
                    for (int64_t i = shape.n_vocab; i < shape.n_vocab + 2; ++i)
                        EXPECT_NEAR(more[static_cast<size_t>(i * shape.n_embd + j)], mean, 0.02 * largest) << j;
                }
                bytes.resize(tensor.n_bytes);
            }
            EXPECT_EQ(bytes, bytes_of(tensor)) << tensor.name;
        }
        const auto texts = grown.find_strings("tokenizer.ggml.tokens").value();
        EXPECT_EQ(texts.size(), static_cast<size_t>(shape.n_vocab) + 2);
        EXPECT_EQ(texts.back(), tokens.back());

        // The logits of the tokens that were there are what they were.
        const auto after = load(dir / "grown.gguf", "cpu", Dtype::f32);
        EXPECT_EQ(after->shape().n_vocab, shape.n_vocab + 2);
        const std::vector<int32_t> text = random_batch(3, {9}, shape.n_vocab).tokens;
        std::vector<float> was(static_cast<size_t>(shape.n_vocab)), is(was.size() + 2);
        Context(before, nullptr, 16).eval(text, false, was.data());
        Context(after, nullptr, 16).eval(text, false, is.data());
        is.resize(was.size());
        EXPECT_LE(relative_error(is, was), 1e-6);
        // The model's own file, opened with them, is that file.
        const GgufFile opened = with_added_tokens(GgufFile::open(dir / "model.gguf"), tokens);
        for (const TensorView & tensor : grown.tensors())
            EXPECT_EQ(bytes_of(*opened.find_tensor(tensor.name)), bytes_of(tensor)) << tensor.name;
        for (const char * key : {"tokens", "token_type", "scores", "merges"}) {
            const std::string name = std::string("tokenizer.ggml.") + key;
            ASSERT_EQ(index_of(opened, name) < 0, index_of(grown, name) < 0) << key;
            if (index_of(opened, name) < 0) continue;
            EXPECT_EQ(opened.value_json(index_of(opened, name), -1), grown.value_json(index_of(grown, name), -1));
        }
        const auto with = Model::load(dir / "model.gguf", "cpu", Dtype::f32, 1, true, tokens);
        EXPECT_EQ(with->fingerprint(), before->fingerprint());
        EXPECT_EQ(with->n_params(), after->n_params());
        std::vector<float> same(is.size() + 2);
        Context(with, nullptr, 16).eval(text, false, same.data());
        same.resize(is.size());
        EXPECT_EQ(same, is);
        // They are read like any other, and learned where they are trained whole.
        AdapterConfig config;
        config.modules_to_save = "embed_tokens,lm_head";
        if (tied) config.modules_to_save = "embed_tokens";
        config.target_modules = "q_proj";
        const auto adapter = Adapter::create(after, config);
        SessionConfig session_config;
        session_config.max_tokens = 16;
        Session session(adapter, session_config);
        const std::vector<int32_t> ids = {5, shape.n_vocab, shape.n_vocab + 1, 9},
                                   labels = {shape.n_vocab, -100, 9, -100}, lengths = {4};
        session.forward_backward({ids, labels, {}, lengths});
        session.optimizer_step({0.1, 0, 1, 0});
        merge_model(*after, adapter.get(), dir / "merged.gguf", {"F32", 1});
        EXPECT_EQ(GgufFile::open(dir / "merged.gguf").find_strings("tokenizer.ggml.tokens"), texts);
        const std::vector<float> begun = values_of(*grown.find_tensor("token_embd.weight")),
                                 learned =
                                     values_of(*GgufFile::open(dir / "merged.gguf").find_tensor("token_embd.weight"));
        const auto row = [&](const std::vector<float> & all, int64_t i) {
            return std::vector<float>(all.begin() + i * shape.n_embd, all.begin() + (i + 1) * shape.n_embd);
        };
        EXPECT_GT(relative_error(row(learned, shape.n_vocab), row(begun, shape.n_vocab)), 0.1);
    }
    const auto refusal = [&](std::vector<std::string> more) {
        return error_of([&] { add_tokens(dir / "model.gguf", more, dir / "none.gguf"); });
    };
    EXPECT_THAT(refusal({}), HasSubstr("no tokens to add"));
    EXPECT_THAT(refusal({"x", "x"}), HasSubstr("\"x\" is there already"));
    EXPECT_THAT(refusal({"<s>"}), HasSubstr("\"<s>\" is there already"));
    EXPECT_THAT(refusal({""}), HasSubstr("is empty"));
    EXPECT_THAT(error_of([&] { add_tokens(dir / "model.gguf", tokens, dir / "model.gguf"); }), HasSubstr("model.gguf"));
    EXPECT_FALSE(std::filesystem::exists(dir / "none.gguf"));
}

TEST_F(WriteModelTest, MemoryDoesNotGrowWithTheModel) {
    std::map<int, int64_t> most;
    shape.n_embd = 256;
    shape.n_ff = 1024;
    for (const int32_t n_layer : {2, 12}) {
        shape.n_layer = n_layer;
        const auto source = model(GGML_TYPE_Q8_0);
        AdapterConfig config;
        config.rank = 1;
        config.target_modules = "blk.0.attn_q";
        const auto lora = busy_adapter(source, config);
        reset_most_bytes();
        const int64_t before = live_bytes();
        merge_model(*source, lora.get(), dir / "merged.gguf", {"F32", 2});
        most[n_layer] = most_bytes() - before;
        EXPECT_GT(GgufFile::open(dir / "merged.gguf").tensors().size(), static_cast<size_t>(n_layer));
    }
    // Twelve layers are 50 MB in F32.
    EXPECT_LE(most[12] - most[2], 1 << 20);
    EXPECT_LE(most[12], 8 << 20);
}

TEST(RowStreamTest, PiecesAreTheWholeAndComeAgain) {
    // More than one piece: 2^22 elements are one.
    const int64_t n_rows = 5000, n_per_row = 1024;
    const RowSource source = [=](int64_t first, int64_t n, float * out) {
        for (int64_t i = 0; i < n * n_per_row; ++i) out[i] = static_cast<float>((first * n_per_row + i) % 1001);
    };
    for (const int32_t threads : {1, 3}) {
        const auto data = RowStreams(threads).stream("x", GGML_TYPE_F32, n_rows, n_per_row, source);
        for (int time = 0; time < 2; ++time) {
            int64_t i = 0;
            while (i < n_rows * n_per_row) {
                const auto piece = data();
                ASSERT_FALSE(piece.empty());
                for (size_t at = 0; at < piece.size(); at += sizeof(float), ++i) {
                    float value;
                    std::memcpy(&value, &piece[at], sizeof value);
                    ASSERT_EQ(value, static_cast<float>(i % 1001)) << i;
                }
            }
            EXPECT_EQ(i, n_rows * n_per_row);
        }
    }
}

TEST(RowStreamTest, AnErrorOfOneThreadEndsAll) {
    const auto data = RowStreams(2).stream("x", GGML_TYPE_F16, 100, 64, [](int64_t first, int64_t n, float * out) {
        std::fill_n(out, n * 64, first == 0 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
    });
    EXPECT_THAT(error_of([&] { data(); }), HasSubstr("tensor \"x\": row 0 has the value nan"));
}

}  // namespace
}  // namespace lorica
