// Metadata that changes what a model computes is obeyed as llama.cpp obeys it, or refused.
#include <gmock/gmock.h>
#include <lorica/lorica.h>

#include <functional>
#include <string>
#include <vector>

#include "gguf/gguf_writer.h"
#include "support/c_structs.h"
#include "support/temp_dir.h"
#include "support/test_model.h"

namespace lorica {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class ModelMetadata : public testing::Test {
protected:
    void SetUp() override {
        test::write_test_model(dir_ / "plain.gguf", {});
        lorica_log_set(
            [](lorica_log_level level, const char * message, void * self) {
                if (level == LORICA_LOG_WARN) static_cast<ModelMetadata *>(self)->warnings_.push_back(message);
            },
            this);
    }
    void TearDown() override { lorica_log_set(nullptr, nullptr); }

    // The model with other metadata.
    std::string with(const std::function<void(GgufWriter &)> & set, const std::vector<std::string> & without = {}) {
        const GgufFile file = GgufFile::open(dir_ / "plain.gguf");
        GgufWriter writer;
        set(writer);
        writer.copy_metadata(file, without);
        for (const TensorView & tensor : file.tensors()) {
            writer.add_tensor(tensor.name, tensor.type, std::span(tensor.ne.data(), static_cast<size_t>(tensor.n_dims)),
                              [&tensor] { return std::span(tensor.data, static_cast<size_t>(tensor.n_bytes)); });
        }
        writer.write(dir_ / "model.gguf");
        return dir_ / "model.gguf";
    }
    std::string with_f32(const char * key, float value) {
        return with([&](GgufWriter & writer) { writer.set_f32(key, value); }, {key});
    }

    static lorica_status load(const std::string & path, lorica_model ** model) {
        auto params = test::defaults(lorica_model_default_params);
        params.device = "cpu";
        params.precision = LORICA_PRECISION_F32;
        params.n_threads = 1;
        return lorica_model_load(path.c_str(), &params, model);
    }

    static std::vector<float> logits(const std::string & path) {
        lorica_model * model = nullptr;
        EXPECT_EQ(load(path, &model), LORICA_OK) << lorica_last_error();
        lorica_kv_cache * context = nullptr;
        EXPECT_EQ(lorica_kv_cache_create(model, nullptr, 32, &context), LORICA_OK);
        std::vector<float> values(300);
        const std::vector<int32_t> tokens = {5, 9, 17, 200, 41, 8, 77, 300 - 1};
        EXPECT_EQ(
            lorica_kv_cache_eval(context, tokens.data(), static_cast<int32_t>(tokens.size()), false, values.data()),
            LORICA_OK);
        lorica_kv_cache_free(context);
        lorica_model_free(model);
        return values;
    }

    static void refused(const std::string & path, lorica_status status, const testing::Matcher<std::string> & message) {
        lorica_model * model = nullptr;
        EXPECT_EQ(load(path, &model), status);
        EXPECT_THAT(std::string(lorica_last_error()), message);
        lorica_model_free(model);
    }

    test::TempDir dir_;
    std::vector<std::string> warnings_;
};

TEST_F(ModelMetadata, AFactorOfRopeWithoutATypeIsLinear) {
    const auto plain = logits(dir_ / "plain.gguf");
    const auto linear = logits(with([](GgufWriter & writer) {
        writer.set_string("llama.rope.scaling.type", "linear");
        writer.set_f32("llama.rope.scaling.factor", 4);
    }));
    EXPECT_NE(linear, plain);
    EXPECT_EQ(logits(with_f32("llama.rope.scaling.factor", 4)), linear);
    EXPECT_EQ(logits(with_f32("llama.rope.scale_linear", 4)), linear) << "the factor's older name";
    EXPECT_EQ(logits(with_f32("llama.rope.scaling.factor", 0)), plain) << "0 is no factor";
    EXPECT_EQ(logits(with([](GgufWriter & writer) {
                  writer.set_string("llama.rope.scaling.type", "none");
                  writer.set_f32("llama.rope.scaling.factor", 4);
              })),
              plain);
    EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ModelMetadata, WhatIsNotComputedIsRefusedByItsKey) {
    refused(with([](GgufWriter & writer) { writer.set_string("llama.rope.scaling.type", "ntk"); }),
            LORICA_ERROR_UNSUPPORTED, HasSubstr("ntk"));
    refused(with([](GgufWriter & writer) { writer.set_string("llama.rope.scaling.type", "longrope"); }),
            LORICA_ERROR_FORMAT, HasSubstr("rope_factors_short.weight"));
    refused(with([](GgufWriter & writer) {
                writer.set_string("llama.rope.scaling.type", "yarn");
                writer.set_f32("llama.rope.scaling.yarn_ext_factor", 0.5f);
            }),
            LORICA_ERROR_UNSUPPORTED, HasSubstr("yarn_ext_factor is 0.5"));
    refused(with([](GgufWriter & writer) { writer.set_bool("llama.attention.causal", false); }),
            LORICA_ERROR_UNSUPPORTED, HasSubstr("llama.attention.causal"));
    for (const char * key :
         {"llama.rope.scaling.attn_factor", "llama.rope.scaling.yarn_ext_factor", "llama.attention.scale",
          "llama.logit_scale", "llama.embedding_scale", "llama.residual_scale", "llama.attn_logit_softcapping",
          "llama.final_logit_softcapping", "llama.attention.clamp_kqv", "llama.attention.max_alibi_bias"}) {
        refused(with_f32(key, 3), LORICA_ERROR_UNSUPPORTED, HasSubstr(key));
    }
    refused(with_f32("llama.rope.scaling.factor", -2), LORICA_ERROR_FORMAT, HasSubstr("rope.scaling.factor is -2"));
}

TEST_F(ModelMetadata, ValuesThatChangeNothingAreTaken) {
    const auto plain = logits(dir_ / "plain.gguf");
    EXPECT_EQ(logits(with_f32("llama.rope.scaling.attn_factor", 1)), plain);
    EXPECT_EQ(logits(with_f32("llama.attention.scale", 1)), plain);
    EXPECT_EQ(logits(with([](GgufWriter & writer) {
                  writer.set_bool("llama.attention.causal", true);
                  writer.set_u32("llama.rope.scaling.original_context_length", 4096);
                  writer.set_u32("llama.expert_count", 0);
              })),
              plain);
}

TEST_F(ModelMetadata, AKeyThatNobodyKnowsIsNamedInAWarning) {
    logits(with_f32("llama.attention.novelty", 3));
    EXPECT_THAT(warnings_, testing::ElementsAre(HasSubstr("llama.attention.novelty is unknown")));
}

TEST_F(ModelMetadata, RopeTurnsWholeHeads) {
    for (const uint32_t n : {0u, 2u, 15u, 32u}) {
        refused(with([&](GgufWriter & writer) { writer.set_u32("llama.rope.dimension_count", n); },
                     {"llama.rope.dimension_count"}),
                LORICA_ERROR_FORMAT, HasSubstr("rope.dimension_count is " + std::to_string(n)));
    }
}

TEST_F(ModelMetadata, RowsOfTheEmbeddingAreTheTokens) {
    const GgufFile file = GgufFile::open(dir_ / "plain.gguf");
    auto tokens = *file.find_strings("tokenizer.ggml.tokens");
    const auto with_tokens = [&](size_t n) {
        tokens.resize(n, "one more");
        return with([&](GgufWriter & writer) { writer.set_strings("tokenizer.ggml.tokens", tokens); },
                    {"tokenizer.ggml.tokens"});
    };
    refused(with_tokens(301), LORICA_ERROR_FORMAT, AllOf(HasSubstr("300 rows"), HasSubstr("301 tokens")));
    refused(with_tokens(299), LORICA_ERROR_FORMAT, AllOf(HasSubstr("300 rows"), HasSubstr("299 tokens")));
}

TEST_F(ModelMetadata, ASizeOfTheVocabularyThatCannotBeIsRefusedAndAnotherIsNamed) {
    const auto with_size = [&](uint32_t n, const std::vector<std::string> & without = {}) {
        std::vector<std::string> all = without;
        all.push_back("llama.vocab_size");
        return with([&](GgufWriter & writer) { writer.set_u32("llama.vocab_size", n); }, all);
    };
    refused(with_size(0), LORICA_ERROR_FORMAT, HasSubstr("llama.vocab_size is 0"));
    refused(with_size(4'000'000'000), LORICA_ERROR_FORMAT, HasSubstr("llama.vocab_size is 4000000000"));
    refused(with_size(299, {"tokenizer.ggml.tokens"}), LORICA_ERROR_FORMAT, HasSubstr("llama.vocab_size is 299"));
    logits(with_size(299));
    EXPECT_THAT(warnings_, testing::ElementsAre(HasSubstr("llama.vocab_size is 299 and not obeyed")));
}

}  // namespace
}  // namespace lorica
