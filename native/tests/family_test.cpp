// What must hold for every architecture: gradients are derivatives, devices agree, packing, recomputation and threads
// change nothing, a cache gives what the whole sequence gives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "generate/context.h"
#include "model/arch/architectures.h"
#include "support/families.h"
#include "support/training.h"

namespace lorica {
namespace {

using namespace test;

AdapterConfig adapter_config(bool use_dora = false) {
    AdapterConfig config;
    config.rank = 2;
    config.alpha = 4;
    config.use_dora = use_dora;
    return config;
}

SessionConfig session_config(Recomputation recomputation = Recomputation::off) {
    SessionConfig config;
    config.max_tokens = 128;
    config.recomputation = recomputation;
    return config;
}

class EveryFamily : public testing::TestWithParam<Family> {
protected:
    std::string write(ggml_type type = GGML_TYPE_F32, int32_t wider = 1) const {
        TestModel shape = GetParam().shape;
        shape.type = type;
        shape.n_embd *= wider;
        shape.n_ff *= wider;
        if (shape.head_dim == 0) shape.head_dim = shape.n_embd / shape.n_head;
        return write_test_model(dir_ / (std::to_string(wider) + ".gguf"), shape);
    }
    // Longer than a window, shorter, and one token alone.
    Batch batch() const { return random_batch(5, {13, 1, 4}, GetParam().shape.n_vocab); }

    TempDir dir_;
};

std::vector<float> concatenated(const std::vector<std::vector<float>> & tensors) {
    std::vector<float> all;
    for (const auto & tensor : tensors) all.insert(all.end(), tensor.begin(), tensor.end());
    return all;
}

// Along a direction of +-1 in every tensor, in f64.
void expect_derivatives(const std::shared_ptr<Adapter> & adapter, const Batch & batch) {
    Session session(adapter, session_config());
    session.forward_backward(batch.view());
    const auto exact = gradients(session);
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        // DoRA's norms are constants to the gradient, so that A and B move without the adapter being told.
        const Adapter::Tensor & tensor = adapter->tensor(i);
        const std::vector<float> start = adapter->read(adapter->params(), i);
        const auto put = [&](const std::vector<float> & values) {
            if (tensor.kind == Adapter::Kind::magnitude) {
                adapter->write(adapter->params(), i, values.data());
            } else {
                std::copy(values.begin(), values.end(), static_cast<double *>(adapter->params()) + tensor.offset);
            }
        };
        std::vector<float> direction(start.size());
        double predicted = 0, size = 0;
        for (size_t j = 0; j < start.size(); ++j) {
            direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
            predicted += static_cast<double>(exact[static_cast<size_t>(i)][j]) * direction[j];
            size += std::abs(static_cast<double>(exact[static_cast<size_t>(i)][j]));
        }
        constexpr double step = 0x1p-11;
        const auto loss_at = [&](double steps) {
            std::vector<float> moved = start;
            for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
            put(moved);
            return session.evaluate(batch.view(), {}).loss_sum;
        };
        // From four points: error O(step^4) (Abramowitz and Stegun 25.3.6).
        const double measured = (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * step);
        put(start);
        EXPECT_LE(std::abs(measured - predicted), 1e-6 * std::max(std::abs(predicted), 0.05 * size))
            << tensor.name << " " << predicted;
        EXPECT_GT(size, 0) << tensor.name;
    }
}

TEST_P(EveryFamily, GradientsEqualFiniteDifferences) {
    const auto model = load(write(), "reference", Dtype::f64, 1);
    for (const bool use_dora : {false, true})
        expect_derivatives(busy_adapter(model, adapter_config(use_dora)), batch());
}

// What is trained decides which calls there are, and where the backward pass ends: each layer by itself, of the lowest
// block of every kind.
TEST_P(EveryFamily, GradientsOfASingleLayerEqualFiniteDifferences) {
    const auto model = load(write(), "reference", Dtype::f64, 1);
    const Architecture & architecture = model->architecture();
    const Batch batch = random_batch(5, {9, 1}, GetParam().shape.n_vocab);
    std::set<uint16_t> kinds;
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        if (!kinds.insert(architecture.kind_of_layer[static_cast<size_t>(l)]).second) continue;
        for (const LinearSpec & linear : architecture.layer(l).linears) {
            for (const bool use_dora : {false, true}) {
                AdapterConfig config = adapter_config(use_dora);
                config.target_modules = architecture.layer_name(l) + linear.names.gguf;
                const auto adapter = busy_adapter(model, config);
                ASSERT_EQ(adapter->n_tensors(), use_dora ? 3 : 2) << config.target_modules;
                expect_derivatives(adapter, batch);
            }
        }
    }
}

TEST_P(EveryFamily, TheCpuGivesTheGradientsOfTheReferenceRecomputedOrNot) {
    const std::string path = write(GGML_TYPE_Q4_0);
    const Batch batch = random_batch(6, {40, 1, 20}, GetParam().shape.n_vocab);
    for (const bool use_dora : {false, true}) {
        const auto run = [&](const char * device, Dtype act, Recomputation recomputation) {
            Session session(busy_adapter(load(path, device, act), adapter_config(use_dora)),
                            session_config(recomputation));
            session.forward_backward(batch.view());
            return gradients(session);
        };
        const auto expected = run("reference", Dtype::f64, Recomputation::off);
        for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
            const auto kept = run("cpu", act, Recomputation::off);
            EXPECT_EQ(run("cpu", act, Recomputation::on), kept);
            // bf16 rounds what every layer gives, by itself: errors add up as the square root of the depth. Measured,
            // at most, over instruction sets of x86 and Arm: of all gradients together, of two layers 1.9e-2, of four
            // 3.1e-2 (olmo3), of gemma3's six 4.1e-2; of one tensor alone 4.1e-2, 7.7e-2 (smollm3) and 8.4e-2, where
            // terms cancel: the f64 gradient of smollm3's tensor, DoRA's magnitudes of blk.1.attn_k, moves by 6.5e-2
            // when the adapter's values alone are changed by a bf16 rounding, 2^-9. In f32 4.6e-6, of the same tensor.
            const double depth = std::sqrt(GetParam().shape.n_layer);
            const double tolerance = act == Dtype::f32 ? 1e-5 : 4.2e-2 * depth;
            for (size_t i = 0; i < expected.size(); ++i)
                EXPECT_LE(relative_error(kept[i], expected[i]), tolerance) << i;
            EXPECT_LE(relative_error(concatenated(kept), concatenated(expected)),
                      act == Dtype::f32 ? 5e-6 : 2.4e-2 * depth);
        }
    }
}

TEST_P(EveryFamily, APackedBatchIsTheSumOverItsSequences) {
    const std::string path = write();
    const Batch batch = this->batch();
    for (const auto & [device, act, tolerance] :
         {std::tuple{"reference", Dtype::f64, 1e-6}, {"cpu", Dtype::f32, 2e-5}}) {
        const auto model = load(path, device, act);
        Session packed(busy_adapter(model, adapter_config()), session_config());
        const double loss = packed.forward_backward(batch.view()).loss_sum;
        Session single(busy_adapter(model, adapter_config()), session_config());
        double sum = 0;
        for (size_t i = 0; i < batch.sequence_lengths.size(); ++i)
            if (batch.sequence_lengths[i] > 1) sum += single.forward_backward(part(batch, i).view()).loss_sum;
        EXPECT_NEAR(loss, sum, tolerance * sum);
        const auto together = gradients(packed), alone = gradients(single);
        for (size_t i = 0; i < alone.size(); ++i) EXPECT_LE(relative_error(together[i], alone[i]), tolerance) << i;
    }
}

TEST_P(EveryFamily, OneAndTwoThreadsGiveTheSameBytes) {
    const std::string path = write(GGML_TYPE_Q4_0, 4);
    const Batch batch = random_batch(7, {70, 50}, GetParam().shape.n_vocab);
    std::vector<std::vector<std::vector<float>>> all;
    for (const int32_t n_threads : {1, 2}) {
        Session session(busy_adapter(load(path, "cpu", Dtype::bf16, n_threads), adapter_config()), session_config());
        session.forward_backward(batch.view());
        all.push_back(gradients(session));
    }
    EXPECT_EQ(all[0], all[1]);
}

TEST_P(EveryFamily, ACacheGivesTheLogitsOfTheWholeSequence) {
    const std::string path = write(GGML_TYPE_Q4_0);
    const Batch batch = random_batch(8, {17}, GetParam().shape.n_vocab);
    const auto n_vocab = static_cast<size_t>(GetParam().shape.n_vocab);
    const auto run = [&](Dtype act, const std::vector<size_t> & pieces) {
        const auto model = load(path, "cpu", act);
        Context context(model, busy_adapter(model, adapter_config()), 32);
        std::vector<float> logits;
        size_t first = 0;
        for (const size_t n : pieces) {
            std::vector<float> part(n * n_vocab);
            context.eval({batch.tokens.data() + first, n}, true, part.data());
            logits.insert(logits.end(), part.begin(), part.end());
            first += n;
        }
        return logits;
    };
    const std::vector<float> whole = run(Dtype::f32, {17});
    EXPECT_LE(relative_error(run(Dtype::f32, std::vector<size_t>(17, 1)), whole), 1e-5);
    EXPECT_LE(relative_error(run(Dtype::f32, {8, 1, 5, 3}), whole), 1e-5);
    // The kernels of few rows, for what is read from the stream too.
    for (const auto & pieces : {std::vector<size_t>{17}, std::vector<size_t>(17, 1)})
        EXPECT_LE(relative_error(run(Dtype::bf16, pieces), whole), 0.05);
}

TEST_P(EveryFamily, TextsOfDifferentAdaptersAreComputedTogetherAsEachIsAlone) {
    const auto model = load(write(), "cpu", Dtype::f32);
    const int32_t n_vocab = GetParam().shape.n_vocab;
    AdapterConfig wide = adapter_config();
    wide.rank = 5;
    const std::vector<std::vector<Adapter::Part>> sets = {
        {{busy_adapter(model, adapter_config()), 1}}, {}, {{busy_adapter(model, wide), -0.5}}};
    Context together(model, nullptr, 32, 3);
    std::vector<std::unique_ptr<Context>> alone;
    for (size_t i = 0; i < sets.size(); ++i) {
        together.set_adapters(sets[i], static_cast<int32_t>(i));
        alone.push_back(std::make_unique<Context>(model, nullptr, 32));
        alone.back()->set_adapters(sets[i]);
    }
    const std::vector<int32_t> tokens = random_batch(6, {13}, n_vocab).tokens;
    for (size_t t = 0; t < tokens.size();) {
        const auto next = std::span(tokens).subspan(t, t == 0 ? 9 : 1);
        const std::vector<Context::Append> appends = {{0, next}, {1, next}, {2, next}};
        std::vector<float> actual(3 * static_cast<size_t>(n_vocab)), expected(actual.size());
        together.eval(appends, actual.data());
        for (size_t i = 0; i < 3; ++i) alone[i]->eval(next, false, expected.data() + i * static_cast<size_t>(n_vocab));
        EXPECT_LE(relative_error(actual, expected), 2e-6) << "token " << t;
        t += next.size();
    }
}

INSTANTIATE_TEST_SUITE_P(Families, EveryFamily, testing::ValuesIn(families()),
                         [](const auto & info) { return info.param.name; });

TEST(Families, HaveAModelOfEveryArchitecture) {
    std::set<std::string> tested;
    for (const Family & one : families()) tested.insert(one.shape.architecture);
    for (const Family & one : encoders()) tested.insert(one.shape.architecture);
    std::string names;
    for (const std::string & one : tested) {
        EXPECT_THAT(architecture_names(), testing::HasSubstr(one));
    }
    EXPECT_EQ(std::ranges::count(architecture_names(), ',') + 1, static_cast<ptrdiff_t>(tested.size()));
}

// Devices are compared by what they make of one adapter, so nothing in it may be made of what a device has rounded, as
// DoRA's norms are. Many rows, so that some norm would be at the bound of whatever rounding.
TEST(Families, HaveTheSameAdapterOnEveryDevice) {
    const TempDir dir;
    TestModel shape = families().front().shape;
    shape.type = GGML_TYPE_Q4_0;
    shape.n_ff = 4096;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const auto params = [&](const char * device, Dtype act) {
        const auto adapter = busy_adapter(load(path, device, act), adapter_config(true));
        std::vector<std::vector<float>> all;
        for (int32_t i = 0; i < adapter->n_tensors(); ++i) all.push_back(adapter->read(adapter->params(), i));
        return all;
    };
    const auto expected = params("reference", Dtype::f64);
    for (const Dtype act : {Dtype::f32, Dtype::bf16}) EXPECT_TRUE(params("cpu", act) == expected);
}

// PEFT's names for layers that are fused or named twice, and what it adapts when nothing is named.
TEST(Families, HaveTheTargetsOfPeft) {
    const TempDir dir;
    const auto layers = [&](const std::string & family, const std::string & targets) {
        for (const Family & one : families()) {
            if (one.name != family) continue;
            AdapterConfig config = adapter_config();
            config.target_modules = targets;
            const auto adapter =
                Adapter::create(load(write_test_model(dir / "model.gguf", one.shape), "cpu", Dtype::f32), config);
            std::set<std::string> names;
            for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
                const std::string name = adapter->tensor(i).name;
                const size_t begin = name.find('.', 4) + 1;
                names.insert(name.substr(begin, name.find(".weight") - begin));
            }
            return std::vector<std::string>(names.begin(), names.end());
        }
        throw std::out_of_range(family);
    };
    using testing::ElementsAre;
    EXPECT_THAT(layers("gpt2", "c_attn,c_proj"), ElementsAre("attn_output", "attn_qkv", "ffn_down"));
    EXPECT_THAT(layers("gpt2", "attn.c_proj"), ElementsAre("attn_output"));
    EXPECT_THAT(layers("gpt2", "transformer.h.1.mlp.c_proj"), ElementsAre("ffn_down"));
    EXPECT_THAT(layers("falcon_7b", "query_key_value"), ElementsAre("attn_qkv"));
    EXPECT_THAT(layers("falcon_40b", "dense"), ElementsAre("attn_output"));
    EXPECT_THAT(layers("gptneox", "query_key_value,dense_4h_to_h"), ElementsAre("attn_qkv", "ffn_down"));
    EXPECT_THAT(layers("phi3", "qkv_proj,gate_up_proj"), ElementsAre("attn_qkv", "ffn_up"));
    EXPECT_THAT(layers("qwen3", "self_attn.q_proj"), ElementsAre("attn_q"));
    EXPECT_THAT(layers("qwen2", "default"), ElementsAre("attn_q", "attn_v"));
    EXPECT_THAT(layers("gemma3", "default"), ElementsAre("attn_q", "attn_v"));
    for (const char * fused : {"gpt2", "falcon_7b", "gptneox", "phi3"})
        EXPECT_THAT(layers(fused, "default"), ElementsAre("attn_qkv")) << fused;
}

}  // namespace
}  // namespace lorica
