// The table of tensors that the C ABI serves is the one that files are read by.
#include <gmock/gmock.h>
#include <lorica/lorica.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "support/c_structs.h"
#include "support/temp_dir.h"
#include "support/test_model.h"

namespace lorica {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

struct Free {
    void operator()(lorica_architecture * architecture) const { lorica_architecture_free(architecture); }
    void operator()(lorica_model * model) const { lorica_model_free(model); }
    void operator()(lorica_gguf_writer * writer) const { lorica_gguf_writer_free(writer); }
};
using Table = std::unique_ptr<lorica_architecture, Free>;
using Model = std::unique_ptr<lorica_model, Free>;
using Writer = std::unique_ptr<lorica_gguf_writer, Free>;

std::map<std::string, lorica_architecture_tensor> by_name(const lorica_architecture * table) {
    std::map<std::string, lorica_architecture_tensor> tensors;
    for (int32_t i = 0; i < lorica_architecture_n_tensors(table); ++i) {
        lorica_architecture_tensor tensor{sizeof tensor};
        EXPECT_EQ(lorica_architecture_get_tensor(table, i, &tensor), LORICA_OK) << lorica_last_error();
        EXPECT_TRUE(tensors.emplace(tensor.name, tensor).second) << tensor.name;
    }
    return tensors;
}

Table of_file(const std::string & path, Model & model) {
    auto params = test::defaults(lorica_model_default_params);
    params.device = "cpu";
    lorica_model * loaded = nullptr;
    EXPECT_EQ(lorica_model_load(path.c_str(), &params, &loaded), LORICA_OK) << lorica_last_error();
    model.reset(loaded);
    lorica_architecture * table = nullptr;
    EXPECT_EQ(lorica_architecture_of_model(loaded, &table), LORICA_OK) << lorica_last_error();
    return Table(table);
}

TEST(ApiArchitecture, NamesTheTensorsOfAFileWithTheirShapes) {
    for (const bool tied : {false, true}) {
        test::TempDir dir;
        test::TestModel shape;
        shape.tied_output = tied;
        const std::string path = test::write_test_model(dir / "model.gguf", shape);
        Model model;
        const Table table = of_file(path, model);
        auto tensors = by_name(table.get());
        const GgufFile file = GgufFile::open(path);
        for (const TensorView & view : file.tensors()) {
            ASSERT_TRUE(tensors.contains(view.name)) << view.name;
            const lorica_architecture_tensor & tensor = tensors[view.name];
            if (view.n_dims == 1) {
                EXPECT_EQ(tensor.cols, 1) << view.name;
                EXPECT_EQ(tensor.rows, view.ne[0]) << view.name;
            } else {
                EXPECT_EQ(tensor.cols, view.ne[0]) << view.name;
                EXPECT_EQ(tensor.rows, view.ne[1]) << view.name;
            }
            tensors.erase(view.name);
        }
        for (const auto & [name, tensor] : tensors) EXPECT_TRUE(tensor.is_optional) << name << " is not in the file";
        EXPECT_EQ(tensors.size(), tied ? 2u : 1u);  // a classifier's outputs, and a head that the embedding is
    }
}

TEST(ApiArchitecture, SaysWhatHuggingFaceCallsThemAndHowTheirRowsDiffer) {
    test::TempDir dir;
    Model model;
    const Table table = of_file(test::write_test_model(dir / "model.gguf", {}), model);
    const auto tensors = by_name(table.get());
    const lorica_architecture_tensor & k = tensors.at("blk.1.attn_k.weight");
    EXPECT_STREQ(k.hf_name, "model.layers.1.self_attn.k_proj.weight");
    EXPECT_EQ(k.kind, LORICA_TENSOR_LINEAR);
    EXPECT_EQ(k.layer, 1);
    ASSERT_NE(k.row_order, nullptr);  // two heads of 16 rows, the halves of each interleaved
    EXPECT_THAT(std::span(k.row_order, 32), ElementsAre(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 16, 24,
                                                        17, 25, 18, 26, 19, 27, 20, 28, 21, 29, 22, 30, 23, 31));
    EXPECT_EQ(tensors.at("blk.1.attn_v.weight").row_order, nullptr);
    EXPECT_STREQ(tensors.at("token_embd.weight").hf_name, "model.embed_tokens.weight");
    EXPECT_EQ(tensors.at("token_embd.weight").kind, LORICA_TENSOR_EMBEDDING);
    EXPECT_EQ(tensors.at("token_embd.weight").layer, -1);
    EXPECT_EQ(tensors.at("output_norm.weight").kind, LORICA_TENSOR_NORM);
    EXPECT_EQ(tensors.at("output.weight").kind, LORICA_TENSOR_HEAD);
    lorica_architecture_tensor tensor{sizeof tensor};
    EXPECT_EQ(lorica_architecture_get_tensor(table.get(), -1, &tensor), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(lorica_architecture_get_tensor(table.get(), 1 << 20, &tensor), LORICA_ERROR_INVALID_ARGUMENT);
}

// A Llama's, and each of the three that GGUF has as one: what tells them apart is the tokenizer and the types of
// tokens.
TEST(ApiArchitecture, SaysWhatHuggingFaceCallsTheTensorsOfAClassifier) {
    struct Case {
        const char * architecture;
        const char * tokenizer;
        std::vector<std::string> present;
        std::map<std::string, std::string> names;
    };
    const Case cases[] = {{"llama", "gpt2", {}, {{"cls.output.weight", "score.weight"}}},
                          {"bert",
                           "bert",
                           {"token_types.weight"},
                           {{"cls.weight", "bert.pooler.dense.weight"},
                            {"cls.bias", "bert.pooler.dense.bias"},
                            {"cls.output.weight", "classifier.weight"},
                            {"cls.output.bias", "classifier.bias"}}},
                          {"bert",
                           "gpt2",
                           {"token_types.weight"},
                           {{"cls.weight", "classifier.dense.weight"},
                            {"cls.bias", "classifier.dense.bias"},
                            {"cls.output.weight", "classifier.out_proj.weight"},
                            {"cls.output.bias", "classifier.out_proj.bias"}}},
                          {"bert",
                           "bert",
                           {},
                           {{"cls.weight", "pre_classifier.weight"},
                            {"cls.bias", "pre_classifier.bias"},
                            {"cls.output.weight", "classifier.weight"},
                            {"cls.output.bias", "classifier.bias"}}}};
    for (const Case & c : cases) {
        lorica_gguf_writer * created = nullptr;
        ASSERT_EQ(lorica_gguf_writer_create(&created), LORICA_OK);
        const Writer writer(created);
        ASSERT_EQ(lorica_gguf_writer_set_string(created, "general.architecture", c.architecture), LORICA_OK);
        ASSERT_EQ(lorica_gguf_writer_set_string(created, "tokenizer.ggml.model", c.tokenizer), LORICA_OK);
        const std::string own = std::string(c.architecture) + ".";
        const std::pair<const char *, uint32_t> numbers[] = {{"block_count", 2},          {"embedding_length", 64},
                                                             {"attention.head_count", 4}, {"feed_forward_length", 96},
                                                             {"context_length", 512},     {"vocab_size", 300}};
        for (const auto & [key, value] : numbers)
            ASSERT_EQ(lorica_gguf_writer_set_u32(created, (own + key).c_str(), value), LORICA_OK);
        std::string bytes = "token_embd.weight";
        std::vector<int64_t> offsets{0, static_cast<int64_t>(bytes.size())};
        for (const std::string & name : c.present) {
            bytes += name;
            offsets.push_back(static_cast<int64_t>(bytes.size()));
        }
        ASSERT_EQ(lorica_gguf_writer_set_strings(created, "lorica.tensors", bytes.data(), offsets.data(),
                                                 static_cast<int64_t>(offsets.size()) - 1),
                  LORICA_OK);
        lorica_architecture * told = nullptr;
        ASSERT_EQ(lorica_architecture_of_metadata(created, &told), LORICA_OK) << lorica_last_error();
        const Table table(told);
        std::map<std::string, std::string> names;
        for (const auto & [name, tensor] : by_name(told)) {
            if (tensor.kind != LORICA_TENSOR_CLASSIFIER) continue;
            names[name] = tensor.hf_name;
            EXPECT_TRUE(tensor.is_optional) << name;
            EXPECT_EQ(tensor.rows, name.starts_with("cls.output.") ? 0 : 64) << name;
            EXPECT_EQ(tensor.cols, name.ends_with(".bias") ? 1 : 64) << name;
        }
        EXPECT_EQ(names, c.names);
    }
}

// What a converter asks before there is a file.
TEST(ApiArchitecture, OfMetadataIsTheTableOfTheModelThatIsWrittenWithIt) {
    test::TempDir dir;
    Model model;
    const Table of_model = of_file(test::write_test_model(dir / "model.gguf", {}), model);
    lorica_gguf_writer * created = nullptr;
    ASSERT_EQ(lorica_gguf_writer_create(&created), LORICA_OK);
    const Writer writer(created);
    lorica_architecture * table = nullptr;
    EXPECT_EQ(lorica_architecture_of_metadata(created, &table), LORICA_ERROR_FORMAT);
    EXPECT_THAT(lorica_last_error(), HasSubstr("general.architecture is missing"));
    ASSERT_EQ(lorica_gguf_writer_set_string(created, "general.architecture", "llama"), LORICA_OK);
    ASSERT_EQ(lorica_gguf_writer_set_u32(created, "llama.attention.head_count_kv", 2), LORICA_OK);
    const std::pair<const char *, uint32_t> numbers[] = {
        {"llama.block_count", 2},          {"llama.embedding_length", 64}, {"llama.attention.head_count", 4},
        {"llama.feed_forward_length", 96}, {"llama.context_length", 512},  {"llama.vocab_size", 300}};
    for (const auto & [key, value] : numbers) {
        EXPECT_EQ(lorica_architecture_of_metadata(created, &table), LORICA_ERROR_FORMAT) << "without " << key;
        ASSERT_EQ(lorica_gguf_writer_set_u32(created, key, value), LORICA_OK);
    }
    ASSERT_EQ(lorica_architecture_of_metadata(created, &table), LORICA_OK) << lorica_last_error();
    const Table of_metadata(table);
    const auto one = by_name(of_model.get()), other = by_name(of_metadata.get());
    ASSERT_EQ(one.size(), other.size());
    for (const auto & [name, tensor] : one) {
        const lorica_architecture_tensor & same = other.at(name);
        EXPECT_STREQ(tensor.hf_name, same.hf_name);
        EXPECT_EQ(tensor.kind, same.kind);
        EXPECT_EQ(tensor.rows, same.rows);
        EXPECT_EQ(tensor.cols, same.cols);
        ASSERT_EQ(tensor.row_order == nullptr, same.row_order == nullptr);
        if (!tensor.row_order) continue;
        EXPECT_TRUE(std::ranges::equal(std::span(tensor.row_order, static_cast<size_t>(tensor.rows)),
                                       std::span(same.row_order, static_cast<size_t>(same.rows))));
    }
}

// Falcon's file has q0 q1 k0 v0 | q2 q3 k1 v1 where GGUF has q0 q1 q2 q3 k0 k1 v0 v1.
TEST(ApiArchitecture, FusedQueriesKeysAndValuesArePulledApart) {
    test::TempDir dir;
    test::TestModel shape;
    shape.architecture = "falcon";
    shape.n_embd = 32;  // four heads of 8 rows, two of k and v
    Model model;
    const Table table = of_file(test::write_test_model(dir / "model.gguf", shape), model);
    const auto tensors = by_name(table.get());
    const lorica_architecture_tensor & qkv = tensors.at("blk.0.attn_qkv.weight");
    ASSERT_NE(qkv.row_order, nullptr);
    std::vector<int64_t> expected;
    for (const int64_t head : {0, 1, 4, 5, 2, 6, 3, 7}) {
        for (int64_t row = 0; row < 8; ++row) expected.push_back(head * 8 + row);
    }
    EXPECT_THAT(std::span(qkv.row_order, static_cast<size_t>(qkv.rows)), ElementsAreArray(expected));
}

TEST(ApiArchitecture, OfMetadataHasTheBiasesThatAreNamed) {
    lorica_gguf_writer * created = nullptr;
    ASSERT_EQ(lorica_gguf_writer_create(&created), LORICA_OK);
    const Writer writer(created);
    ASSERT_EQ(lorica_gguf_writer_set_string(created, "general.architecture", "llama"), LORICA_OK);
    const std::pair<const char *, uint32_t> numbers[] = {
        {"llama.block_count", 2},          {"llama.embedding_length", 64}, {"llama.attention.head_count", 4},
        {"llama.feed_forward_length", 96}, {"llama.context_length", 512},  {"llama.vocab_size", 300}};
    for (const auto & [key, value] : numbers) ASSERT_EQ(lorica_gguf_writer_set_u32(created, key, value), LORICA_OK);
    const std::string name = "blk.0.attn_q.bias";
    const int64_t offsets[] = {0, static_cast<int64_t>(name.size())};
    ASSERT_EQ(lorica_gguf_writer_set_strings(created, "lorica.tensors", name.data(), offsets, 1), LORICA_OK);
    lorica_architecture * table = nullptr;
    ASSERT_EQ(lorica_architecture_of_metadata(created, &table), LORICA_OK) << lorica_last_error();
    const Table owned(table);
    const auto tensors = by_name(table);
    ASSERT_TRUE(tensors.contains("blk.1.attn_q.bias"));
    const lorica_architecture_tensor & q = tensors.at("blk.1.attn_q.weight");
    const lorica_architecture_tensor & bias = tensors.at("blk.1.attn_q.bias");
    ASSERT_NE(bias.row_order, nullptr);
    EXPECT_EQ(bias.rows, q.rows);
    EXPECT_TRUE(std::equal(bias.row_order, bias.row_order + bias.rows, q.row_order));
    EXPECT_FALSE(tensors.contains("blk.0.attn_v.bias"));
}

}  // namespace
}  // namespace lorica
