// The tables that a description gives: what a file must hold, what adapters sit on, how rows are ordered.
#include "model/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/gguf_writer.h"
#include "model/arch/architectures.h"
#include "support/expect_error.h"
#include "support/training.h"

namespace lorica {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

class DescribeTest : public testing::Test {
protected:
    TempDir dir;
    TestModel shape;
    std::string path = write_test_model(dir / "model.gguf", shape);
};

TEST_F(DescribeTest, TheTableOfTensorsIsWhatTheFileHolds) {
    const GgufFile file = GgufFile::open(path);
    const std::vector<TensorSpec> tensors = tensors_of(describe(file));
    ASSERT_EQ(tensors.size(), file.tensors().size());
    for (const TensorSpec & spec : tensors) {
        const TensorView * view = file.find_tensor(spec.gguf);
        ASSERT_TRUE(view) << spec.gguf;
        EXPECT_EQ(spec.cols == 1 ? view->ne[0] : view->ne[1], spec.rows) << spec.gguf;
    }
}

TEST_F(DescribeTest, TheTableHasTheNamesOfHuggingFaceAndTheOrderOfRows) {
    const std::vector<TensorSpec> tensors = tensors_of(describe(GgufFile::open(path)));
    const auto find = [&](const std::string & gguf) {
        for (const TensorSpec & spec : tensors) {
            if (spec.gguf == gguf) return spec;
        }
        throw std::out_of_range(gguf);
    };
    EXPECT_EQ(find("token_embd.weight").hf, "model.embed_tokens.weight");
    EXPECT_EQ(find("output.weight").hf, "lm_head.weight");
    EXPECT_TRUE(find("output.weight").is_optional);
    const TensorSpec q = find("blk.1.attn_q.weight"), v = find("blk.1.attn_v.weight");
    EXPECT_EQ(q.hf, "model.layers.1.self_attn.q_proj.weight");
    EXPECT_EQ(q.order, (Rows{RowOrder::rope_pairs, 4, 4, 16}));
    EXPECT_EQ(find("blk.0.attn_k.weight").order, (Rows{RowOrder::rope_pairs, 2, 2, 16}));
    EXPECT_EQ(v.order, Rows{});
    EXPECT_EQ(v.number, 2);
    EXPECT_EQ(find("blk.1.ffn_norm.weight").hf, "model.layers.1.post_attention_layernorm.weight");
}

TEST_F(DescribeTest, AFileOfMetadataAloneHasTheSameTable) {
    GgufWriter writer;
    writer.copy_metadata(GgufFile::open(path), {});
    writer.write(dir / "metadata.gguf");
    const std::vector<TensorSpec> whole = tensors_of(describe(GgufFile::open(path))),
                                  alone = tensors_of(describe(GgufFile::open(dir / "metadata.gguf")));
    ASSERT_EQ(whole.size(), alone.size());
    for (size_t i = 0; i < whole.size(); ++i) {
        EXPECT_EQ(whole[i].gguf, alone[i].gguf);
        EXPECT_EQ(whole[i].rows, alone[i].rows);
    }
}

TEST_F(DescribeTest, TargetsAreTheLastPartsOfTheNamesInTheOrderOfTheComputation) {
    std::vector<std::string> names;
    for (const Names & one : linear_names(describe(GgufFile::open(path)))) names.push_back(one.hf + "=" + one.gguf);
    EXPECT_THAT(names, ElementsAre("q_proj=attn_q", "k_proj=attn_k", "v_proj=attn_v", "o_proj=attn_output",
                                   "gate_proj=ffn_gate", "up_proj=ffn_up", "down_proj=ffn_down", "lm_head=output"));
}

TEST_F(DescribeTest, LayersThatAreDescribedAlikeShareAProgram) {
    const Architecture llama = describe(GgufFile::open(path));
    EXPECT_EQ(llama.kinds.size(), 1u);

    Shape s = llama.shape;
    s.n_layer = 6;
    Describe d(s);
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t l) {
        const auto [q, k, v] = b.linear(x, Linear("q", "q", 64), Linear("k", "k", 64), Linear("v", "v", 64));
        AttentionSpec attention{4, 4, 16, 0.25};
        if (l % 3 != 2) attention.mask.back = 7;  // a window in two layers of three
        const Value o = b.attention(q, k, v, attention);
        return b.linear(o, Linear("o", "o", 64), plus(x));
    });
    const Architecture windows = d.done();
    EXPECT_EQ(windows.kinds.size(), 2u);
    EXPECT_THAT(windows.kind_of_layer, ElementsAre(0, 0, 1, 0, 0, 1));
    EXPECT_EQ(windows.layer_name(4), "blk.4.");
}

TEST_F(DescribeTest, AnUnknownArchitectureIsRefusedInOneLineWithThoseThatAreKnown) {
    GgufWriter writer;
    writer.set_string("general.architecture", "novelty");
    writer.write(dir / "novelty.gguf");
    try {
        describe(GgufFile::open(dir / "novelty.gguf"));
        FAIL() << "it was described";
    } catch (const Error & error) {
        EXPECT_THAT(error.what(), HasSubstr("'novelty' is not supported (llama"));
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
}

TEST_F(DescribeTest, AnArchitectureThatNeedsMoreIsRefusedInOneLineWithWhatIsMissing) {
    const auto refusal = [&](const std::string & architecture, bool has_experts) {
        GgufWriter writer;
        if (has_experts) writer.copy_metadata(GgufFile::open(path), {"general.architecture"});
        writer.set_string("general.architecture", architecture);
        if (has_experts) writer.set_u32("llama.expert_count", 8);
        writer.write(dir / "other.gguf");
        try {
            describe(GgufFile::open(dir / "other.gguf"));
        } catch (const Error & error) {
            EXPECT_EQ(error.status(), LORICA_ERROR_UNSUPPORTED);
            return std::string(error.what());
        }
        return std::string("it was described");
    };
    EXPECT_THAT(refusal("lfm2", false),
                EndsWith(": architecture 'lfm2' needs short convolutions, which Lorica does not have"));
    EXPECT_THAT(refusal("qwen35", false), HasSubstr("needs the gated delta rule,"));
    EXPECT_THAT(refusal("qwen3moe", false), HasSubstr("needs mixtures of experts,"));
    EXPECT_THAT(refusal("gemma4", false), HasSubstr("needs embeddings per layer and keys that layers share,"));
    EXPECT_THAT(refusal("llama", true), HasSubstr("'llama' with experts needs mixtures of experts,"));
}

TEST_F(DescribeTest, APartOfAFusedLayerBeginsAtAMultipleOf8) {
    Shape s;
    s.n_layer = 1;
    s.n_embd = 64;
    Describe d(s);
    EXPECT_THROW(d.layers("blk.{}", "h.{}",
                          [&](Block & b, Value x, int32_t) {
                              const Value qkv = b.linear(x, Linear("qkv", "qkv", 24));
                              return b.split(qkv, 4, 20)[0];
                          }),
                 Error);
}

}  // namespace
}  // namespace lorica
