// IA3, BitFit, full fine-tuning, weights that are trained beside a LoRA and LoRA on output heads, on models of every
// family: gradients against finite differences, one result however it is computed, files, factors, and models with them
// folded in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <sstream>

#include "generate/context.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_file.h"
#include "support/expect_error.h"
#include "support/training.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;
using testing::HasSubstr;

std::string model_of(const std::string & family) {
    return LORICA_REPOSITORY "/native/tests/data/model_goldens/" + family + "/model.gguf";
}

struct Setting {
    std::string name;
    Method method;
    std::string targets, feedforward;
    std::string saved = {}, layers = {}, frozen = {};
    TrainedBiases bias = TrainedBiases::none;
    float dropout = 0;
};

const Setting settings[] = {
    {"Ia3OfPeft", Method::ia3, "", ""},
    {"Ia3OnAll", Method::ia3, "all-linear", ""},
    {"Ia3OfAllInputs", Method::ia3, "all-linear", "all-linear"},
    {"BitFit", Method::bitfit, "", ""},
    {"Full", Method::full, "", ""},
    {"Prompt", Method::prompt_tuning, "", ""},
    {"EncodedPrompt", Method::p_tuning, "", ""},
    {"Prefix", Method::prefix_tuning, "", ""},
    {"Houlsby", Method::bottleneck, "houlsby", "swish"},
    {"Pfeiffer", Method::bottleneck, "pfeiffer", "gelu"},  // relu has no derivative at 0, where steps may reach
};
const std::string families[] = {"grouped_heads_f32", "gpt2",       "qwen2", "qwen3",          "gemma2", "gemma3",
                                "falcon_7b",         "falcon_40b", "phi3",  "gptneox_serial", "olmo2",  "llama_biases"};

AdapterConfig config_of(const Setting & setting) {
    AdapterConfig config;
    config.method = setting.method;
    config.target_modules = setting.targets;
    config.feedforward_modules = setting.feedforward;
    config.modules_to_save = setting.saved;
    config.layers = setting.layers;
    config.frozen = setting.frozen;
    config.bias = setting.bias;
    config.n_virtual_tokens = 3;
    if (setting.method == Method::bottleneck) {
        config.target_modules.clear();
        config.feedforward_modules.clear();
        config.bottleneck_size = 5;
        config.pfeiffer = setting.targets == "pfeiffer";
        config.non_linearity = non_linearity_of(setting.feedforward);
    }
    if (setting.method == Method::lora) {
        config.rank = 2;
        config.alpha = 2;
        config.dropout = setting.dropout;
    }
    return config;
}

// At other values than those it begins with.
std::shared_ptr<Adapter> moved_adapter(std::shared_ptr<const Model> model, const AdapterConfig & config) {
    auto adapter = Adapter::create(std::move(model), config);
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter->tensor(i);
        std::vector<float> values = adapter->read(i);
        const std::vector<float> steps = exact_values(900 + static_cast<uint64_t>(i), tensor.rows * tensor.cols, 0.2);
        for (size_t j = 0; j < values.size(); ++j) values[j] = std::round((values[j] + steps[j]) * 4096) / 4096;
        adapter->write(adapter->params(), i, values.data());
    }
    return adapter;
}

SessionConfig session_config(Recomputation recomputation = Recomputation::off) {
    SessionConfig config;
    config.max_tokens = 64;
    config.recomputation = recomputation;
    return config;
}

Batch batch_for(const Model & model) { return random_batch(5, {7, 1, 12}, model.shape().n_vocab); }

std::vector<float> token_losses(std::shared_ptr<const Model> model, std::shared_ptr<Adapter> adapter,
                                const Batch & batch) {
    Session session(std::move(model), std::move(adapter), session_config());
    std::vector<float> losses(batch.tokens.size());
    session.evaluate(batch.view(), losses);
    return losses;
}

void expect_near(const std::vector<float> & a, const std::vector<float> & b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << i;
}

// From others, to which its gradient goes on: the prompt that an encoder makes.
bool follows(const Adapter & adapter, int32_t tensor) {
    return adapter.config().method == Method::p_tuning && adapter.tensor(tensor).kind == Adapter::Kind::prompt;
}

class AdapterMethodsTest : public testing::TestWithParam<std::tuple<std::string, Setting>> {
protected:
    std::shared_ptr<const Model> open(const std::string & device, Dtype act) const {
        return load(model_of(std::get<0>(GetParam())), device, act);
    }
    AdapterConfig config() const { return config_of(std::get<1>(GetParam())); }
    TempDir dir_;
};

TEST_P(AdapterMethodsTest, GradientsAreThoseOfFiniteDifferencesOnAllDevices) {
    const auto model = open("reference", Dtype::f64);
    const auto adapter = moved_adapter(model, config());
    const Batch batch = batch_for(*model);
    std::vector<std::vector<float>> exact;
    double loss = 0;
    {
        Session session(adapter, session_config());
        loss = session.forward_backward(batch.view()).loss_sum;
        exact = gradients(session);
    }
    const auto loss_now = [&] { return Session(adapter, session_config()).forward_backward(batch.view()).loss_sum; };
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        if (follows(*adapter, i)) continue;
        const std::vector<float> start = adapter->read(i);
        const std::vector<float> & gradient = exact[static_cast<size_t>(i)];
        std::vector<float> direction(start.size());
        double predicted = 0, size = 0;
        for (size_t j = 0; j < start.size(); ++j) {
            direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
            predicted += static_cast<double>(gradient[j]) * direction[j];
            size += std::abs(static_cast<double>(gradient[j]));
        }
        constexpr double step = 0x1p-13;
        const auto at = [&](double steps) {
            std::vector<float> moved = start;
            for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
            adapter->write(adapter->params(), i, moved.data());
            return loss_now();
        };
        const double measured = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step);
        adapter->write(adapter->params(), i, start.data());
        EXPECT_LE(std::abs(measured - predicted), 2e-6 * std::max(std::abs(predicted), 0.05 * size))
            << adapter->tensor(i).name << " " << predicted;
        // A position's row that no token has stays as it is, and so does B while A is 0.
        EXPECT_GT(size, 0) << adapter->tensor(i).name;
    }
    const auto on_cpu = open("cpu", Dtype::f32);
    const auto same = moved_adapter(on_cpu, config());
    std::vector<std::vector<float>> kept;
    for (const Recomputation recomputation : {Recomputation::off, Recomputation::on}) {
        Session session(same, session_config(recomputation));
        EXPECT_NEAR(session.forward_backward(batch.view()).loss_sum, loss, 1e-5 * loss);
        for (int32_t i = 0; i < same->n_tensors(); ++i) {
            if (follows(*same, i)) continue;
            const auto n = static_cast<size_t>(i);
            EXPECT_LE(relative_error(gradients(session)[n], exact[n]), 3e-5) << same->tensor(i).name;
        }
        if (recomputation == Recomputation::off) kept = gradients(session);
        EXPECT_EQ(gradients(session), kept) << "recomputed";
    }
}

TEST_P(AdapterMethodsTest, ACacheAFileAndAMergedModelGiveTheLossesOfTraining) {
    const auto model = open("cpu", Dtype::f32);
    const auto adapter = moved_adapter(model, config());
    const Batch batch = random_batch(8, {12}, model->shape().n_vocab);
    const std::vector<float> losses = token_losses(model, adapter, batch);
    const std::vector<float> base = token_losses(model, nullptr, batch);
    EXPECT_NE(losses, base);

    // token by token
    Context context(model, adapter, session_config().max_tokens);  // LongRoPE asks how long it may get
    const auto n_vocab = static_cast<size_t>(model->shape().n_vocab);
    std::vector<float> logits(n_vocab), by_cache(batch.tokens.size());
    for (size_t t = 0; t < batch.tokens.size(); ++t) {
        context.eval({&batch.tokens[t], 1}, false, logits.data());
        if (batch.labels[t] < 0) continue;
        double sum = 0;
        for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
        by_cache[t] = static_cast<float>(std::log(sum) - logits[static_cast<size_t>(batch.labels[t])]);
    }
    expect_near(by_cache, losses, 2e-5);

    const std::string file = dir_ / "adapter.gguf";
    adapter->save(file);
    const auto loaded = Adapter::load(model, file);
    EXPECT_EQ(loaded->config().method, adapter->config().method);
    EXPECT_EQ(loaded->target_modules(), adapter->target_modules());
    EXPECT_EQ(token_losses(model, loaded, batch), losses);

    if (adapter->n_virtual_tokens() > 0) {
        expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("cannot be folded into a model"),
                     [&] { merge_model(*model, adapter.get(), dir_ / "merged.gguf", {"F32", 2}); });
        expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("has no strength"), [&] { adapter->set_scale_factor(0.5); });
        return;
    }
    if (adapter->bottlenecks()) {
        expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("a bottleneck cannot be folded into a model"),
                     [&] { merge_model(*model, adapter.get(), dir_ / "merged.gguf", {"F32", 2}); });
        const std::vector<Adapter::Part> half{{adapter, 0.5}};
        const std::vector<float> halfway = token_losses(model, Adapter::stack(model, half), batch);
        EXPECT_NE(halfway, losses);
        EXPECT_NE(halfway, base);
        adapter->set_scale_factor(0);
        expect_near(token_losses(model, adapter, batch), base, 1e-5);
        return;
    }
    merge_model(*model, adapter.get(), dir_ / "merged.gguf", {"F32", 2});
    const auto merged = load(dir_ / "merged.gguf", "cpu", Dtype::f32);
    expect_near(token_losses(merged, nullptr, batch), losses, 5e-5);

    // A factor goes from the base to the adapter.
    const std::vector<Adapter::Part> half{{adapter, 0.5}};
    const auto scaled = Adapter::stack(model, half);
    const std::vector<float> halfway = token_losses(model, scaled, batch);
    EXPECT_NE(halfway, losses);
    merge_model(*model, scaled.get(), dir_ / "half.gguf", {"F32", 2});
    expect_near(token_losses(load(dir_ / "half.gguf", "cpu", Dtype::f32), nullptr, batch), halfway, 5e-5);
    adapter->set_scale_factor(0);
    expect_near(token_losses(model, adapter, batch), base, 1e-6);
}

std::string bytes_of(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

TEST_P(AdapterMethodsTest, TrainingLearnsAndGoesOnFromASavedStateInTheVeryBytes) {
    const auto model = open("cpu", Dtype::bf16);
    const auto run = [&](bool stops) {
        auto adapter = Adapter::create(model, config());
        auto session = std::make_unique<Session>(adapter, session_config());
        double first = 0, last = 0;
        for (int step = 0; step < 6; ++step) {
            if (stops && step == 3) {
                session->save_state(dir_ / "state");
                session.reset();
                adapter = Adapter::create(model, config());
                session = std::make_unique<Session>(adapter, session_config());
                session->load_state(dir_ / "state");
            }
            const LossSum loss = session->forward_backward(batch_for(*model).view());
            (step == 0 ? first : last) = loss.loss_sum;
            session->optimizer_step(
                {config().method == Method::full ? 0.002 : 0.02, 0, 1.0 / static_cast<double>(loss.n_trained), 1});
        }
        EXPECT_LT(last, first);
        adapter->save(dir_ / "trained.gguf");
        return bytes_of(dir_ / "trained.gguf");
    };
    EXPECT_EQ(run(false), run(true));
}

INSTANTIATE_TEST_SUITE_P(Families, AdapterMethodsTest,
                         testing::Combine(testing::ValuesIn(families), testing::ValuesIn(settings)),
                         [](const auto & info) { return std::get<0>(info.param) + std::get<1>(info.param).name; });

// A model that scales what it is given as embeddings; bottlenecks are not defined there.
INSTANTIATE_TEST_SUITE_P(Granite, AdapterMethodsTest,
                         testing::Combine(testing::Values("granite"),
                                          testing::ValuesIn(std::begin(settings), std::end(settings) - 2)),
                         [](const auto & info) { return std::get<0>(info.param) + std::get<1>(info.param).name; });

// What each shape of a model can make different: a head of its own or a tied one, biases, positions, norms alone.
const Setting some_of_full[] = {
    {"UpperLayer", Method::full, "", "", "", "1"},
    {"WithoutTables", Method::full, "", "", "", "", "embed,head"},
    {"LoraAndTables", Method::lora, "default", "", "token_embd,output,output_norm"},
    {"LoraAndHead", Method::lora, "default", "", "output"},
    {"LoraAndEmbedding", Method::lora, "default", "", "token_embd"},
    {"LoraAndItsBiases", Method::lora, "all-linear", "", "", "", "", TrainedBiases::lora_only},
    {"LoraAndAllBiases", Method::lora, "all-linear", "", "", "", "", TrainedBiases::all},
};
INSTANTIATE_TEST_SUITE_P(Parts, AdapterMethodsTest,
                         testing::Combine(testing::Values("tied_output_q4_0", "gpt2", "llama_biases"),
                                          testing::ValuesIn(some_of_full)),
                         [](const auto & info) { return std::get<0>(info.param) + std::get<1>(info.param).name; });

// The gradient of a head's own weight is a sum that the weights of the rows belong in.
TEST(AdapterMethods, WeightsOfTokensReachTheHeadsOwnGradient) {
    for (const std::string family : {"tied_output_q4_0", "grouped_heads_f32"}) {
        const auto model = load(model_of(family), "reference", Dtype::f64);
        AdapterConfig config;
        config.method = Method::full;
        const auto adapter = moved_adapter(model, config);
        const Batch batch = batch_for(*model);
        const std::vector<float> evaluated = token_losses(model, adapter, batch);
        Session session(adapter, session_config());
        std::vector<float> losses(batch.tokens.size()), weights(batch.tokens.size());
        session.forward_backward(batch.view());
        const std::vector<std::vector<float>> plain = gradients(session);
        session.zero_gradients();
        session.forward(batch.view(), losses);
        session.backward(std::vector<float>(weights.size(), 1));
        for (size_t i = 0; i < plain.size(); ++i) EXPECT_LE(relative_error(gradients(session)[i], plain[i]), 1e-12);
        session.zero_gradients();
        for (size_t t = 0; t < weights.size(); ++t) weights[t] = static_cast<float>(t % 3) - 0.5f;
        const LossSum sum = session.forward(batch.view(), losses);
        EXPECT_NEAR(sum.loss_sum, std::accumulate(losses.begin(), losses.end(), 0.0), 1e-4);
        expect_near(losses, evaluated, 1e-6);
        session.backward(weights);
        const std::vector<std::vector<float>> weighted = gradients(session);
        // The same batch with each third of its labels, one after another.
        std::vector<std::vector<float>> expected = plain;
        for (auto & tensor : expected) std::fill(tensor.begin(), tensor.end(), 0.0f);
        for (size_t third = 0; third < 3; ++third) {
            Batch part = batch;
            for (size_t t = 0; t < part.labels.size(); ++t) {
                if (t % 3 != third) part.labels[t] = -100;
            }
            session.zero_gradients();
            session.forward_backward(part.view());
            for (size_t i = 0; i < expected.size(); ++i) {
                const std::vector<float> gradient = session.gradient(static_cast<int32_t>(i));
                for (size_t j = 0; j < gradient.size(); ++j)
                    expected[i][j] += (static_cast<float>(third) - 0.5f) * gradient[j];
            }
        }
        for (size_t i = 0; i < expected.size(); ++i)
            EXPECT_LE(relative_error(weighted[i], expected[i]), 1e-6)
                << family << " " << adapter->tensor(static_cast<int32_t>(i)).name;
    }
}

// Virtual tokens that begin as the embeddings of tokens are these tokens, in training and in a cache of several texts.
TEST(AdapterMethods, APromptOfTokensIsTheseTokensInFrontOfEveryText) {
    for (const std::string family : {"grouped_heads_f32", "gpt2", "gemma2", "granite"}) {
        const auto model = load(model_of(family), "cpu", Dtype::f32);
        AdapterConfig config;
        config.method = Method::prompt_tuning;
        config.n_virtual_tokens = 3;
        config.virtual_ids = {7, 2, 7};
        const auto adapter = Adapter::create(model, config);
        EXPECT_FALSE(adapter->has_effect());
        const Batch texts = random_batch(4, {5, 1, 6}, model->shape().n_vocab);
        Batch longer;
        size_t given = 0;
        for (const int32_t length : texts.sequence_lengths) {
            longer.sequence_lengths.push_back(length + 3);
            for (const int32_t id : config.virtual_ids) {
                longer.tokens.push_back(id);
                longer.labels.push_back(-100);
            }
            for (int32_t i = 0; i < length; ++i, ++given) {
                longer.tokens.push_back(texts.tokens[given]);
                longer.labels.push_back(texts.labels[given]);
            }
        }
        std::vector<float> expected;
        size_t t = 0;
        const std::vector<float> all = token_losses(model, nullptr, longer);
        for (const int32_t length : texts.sequence_lengths) {
            t += 3;
            for (int32_t i = 0; i < length; ++i) expected.push_back(all[t++]);
        }
        expect_near(token_losses(model, adapter, texts), expected, 1e-6);
        // Without it, in the session that has it.
        Session session(adapter, session_config());
        std::vector<float> bare(texts.tokens.size());
        session.evaluate(texts.view(), bare, false);
        EXPECT_EQ(bare, token_losses(model, nullptr, texts));

        Context one(model, nullptr, 16), two(model, nullptr, 16, 2);
        const std::vector<Adapter::Part> parts{{adapter, 1}};
        two.set_adapters(parts);  // that there was no room for
        const auto n_vocab = static_cast<size_t>(model->shape().n_vocab);
        std::vector<float> plain(n_vocab), logits(2 * n_vocab);
        const std::vector<int32_t> prompted{7, 2, 7, 4, 9, 1}, text{4, 9, 1};
        one.eval(prompted, false, plain.data());
        const std::vector<Context::Append> both{{0, text}, {1, std::span(text).first(2)}};
        two.eval(both, logits.data());
        EXPECT_EQ(two.n_past(0), 3);
        expect_near({logits.begin(), logits.begin() + n_vocab}, plain, 1e-5);
        two.copy(0, 1, 2);
        const std::vector<Context::Append> again{{1, std::span(text).subspan(2)}};
        two.eval(again, logits.data());
        expect_near({logits.begin(), logits.begin() + n_vocab}, plain, 1e-5);
        two.truncate(0, 0);
        two.eval(text, false, logits.data());
        expect_near({logits.begin(), logits.begin() + n_vocab}, plain, 1e-5);
        const std::vector<int32_t> full(14, 4);
        expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("the context holds 3 of 16 tokens; 14 more do not fit"),
                     [&] { two.eval(full, false, nullptr); });
    }
}

TEST(AdapterMethods, APrefixStandsInFrontOfEveryTextOfACache) {
    for (const std::string family : {"grouped_heads_f32", "gpt2", "gemma3"}) {
        const auto model = load(model_of(family), "cpu", Dtype::f32);
        AdapterConfig config;
        config.method = Method::prefix_tuning;
        config.n_virtual_tokens = 3;
        const std::shared_ptr<const Adapter> adapter = moved_adapter(model, config);
        Context one(model, adapter, 16), two(model, nullptr, 16, 2);
        two.set_adapters(std::vector<Adapter::Part>{{adapter, 1}});
        const auto n_vocab = static_cast<size_t>(model->shape().n_vocab);
        std::vector<float> alone(n_vocab), bare(n_vocab), logits(2 * n_vocab);
        const std::vector<int32_t> text{4, 9, 1};
        one.eval(text, false, alone.data());
        Context(model, nullptr, 16).eval(text, false, bare.data());
        EXPECT_NE(alone, bare);
        const std::vector<Context::Append> both{{0, text}, {1, std::span(text).first(2)}};
        two.eval(both, logits.data());
        EXPECT_EQ(two.n_past(0), 3);
        expect_near({logits.begin(), logits.begin() + static_cast<ptrdiff_t>(n_vocab)}, alone, 1e-5);
        const std::vector<Context::Append> last{{1, std::span(text).subspan(2)}};
        two.eval(last, logits.data());
        expect_near({logits.begin(), logits.begin() + static_cast<ptrdiff_t>(n_vocab)}, alone, 1e-5);
    }
}

// Heads of their own, tied ones, one under a cap, one whose logits have a scale.
const Setting on_heads[] = {
    {"LoraOnHead", Method::lora, "output", ""},
    {"LoraOnHeadAndLayers", Method::lora, "attn_output,output:5", "", "", "", "", TrainedBiases::none, 0.25f},
    {"LoraOnHeadBesideTable", Method::lora, "output", "", "token_embd"},
};
INSTANTIATE_TEST_SUITE_P(Heads, AdapterMethodsTest,
                         testing::Combine(testing::Values("qwen2", "gemma2", "granite", "gptneox_serial"),
                                          testing::ValuesIn(on_heads)),
                         [](const auto & info) { return std::get<0>(info.param) + std::get<1>(info.param).name; });

TEST(LoraOnHead, IsNamedAsHuggingFaceAndLlamaCppNameItAndIsNoPartOfAllLinear) {
    const auto model = load(model_of("gptneox"), "cpu", Dtype::f32);
    AdapterConfig config;
    config.rank = 2;
    for (const char * name : {"embed_out", "output", "output.weight"}) {
        config.target_modules = name;
        const auto adapter = Adapter::create(model, config);
        EXPECT_EQ(adapter->target_modules(), "embed_out");
        ASSERT_EQ(adapter->n_tensors(), 2);
        EXPECT_EQ(adapter->tensor(0).name, "output.weight.lora_a");
        EXPECT_EQ(adapter->tensor(1).rows, model->shape().n_vocab);
    }
    for (const char * name : {"all-linear", "default"}) {
        config.target_modules = name;
        EXPECT_EQ(Adapter::create(model, config)->head_rank(), 0) << name;
    }
    config.target_modules = "all-linear,embed_out:5";
    EXPECT_EQ(Adapter::create(model, config)->head_rank(), 5);
    config.use_dora = true;
    expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("DoRA on the output head (embed_out) cannot be computed"),
                 [&] { Adapter::create(model, config); });
    config.use_dora = false;
    config.modules_to_save = "output";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("trained whole and as a target of the LoRA"),
                 [&] { Adapter::create(model, config); });
    config.modules_to_save.clear();
    config.method = Method::ia3;
    expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("IA3 on the output head (embed_out) cannot be computed"),
                 [&] { Adapter::create(model, config); });
}

TEST(LoraOnHead, WeightsOfTokensWeightItsGradients) {
    for (const auto & [device, act] : {std::pair{"reference", Dtype::f64}, std::pair{"cpu", Dtype::f32}}) {
        const auto model = load(model_of("gemma2"), device, act);
        AdapterConfig config;
        config.target_modules = "output,attn_q";
        config.rank = 3;
        const auto adapter = moved_adapter(model, config);
        const Batch batch = batch_for(*model);
        const std::vector<float> ones(batch.tokens.size(), 1), some = exact_values(3, ones.size(), 1.5);
        std::vector<float> rest(ones.size()), losses(ones.size());
        for (size_t t = 0; t < rest.size(); ++t) rest[t] = 1 - some[t];
        const std::vector<float> evaluated = token_losses(model, adapter, batch);
        Session session(adapter, session_config());
        const auto with = [&](const std::vector<float> & weights) {
            session.zero_gradients();
            session.forward(batch.view(), losses);
            expect_near(losses, evaluated, 1e-5);
            session.backward(weights);
            return gradients(session);
        };
        session.forward_backward(batch.view());
        const auto whole = gradients(session), all = with(ones), a = with(some), b = with(rest);
        for (size_t i = 0; i < whole.size(); ++i) {
            EXPECT_LE(relative_error(all[i], whole[i]), 1e-6) << adapter->tensor(static_cast<int32_t>(i)).name;
            std::vector<float> sum(whole[i].size());
            for (size_t j = 0; j < sum.size(); ++j) sum[j] = a[i][j] + b[i][j];
            EXPECT_LE(relative_error(sum, whole[i]), 1e-5) << adapter->tensor(static_cast<int32_t>(i)).name;
        }
        // Nor does an evaluation add to them.
        session.evaluate(batch.view(), losses);
        EXPECT_EQ(gradients(session), b);
    }
}

TEST(LoraOnHead, SumsAndChangingAdaptersAreDecodedAsTheyAreTrained) {
    const auto model = load(model_of("qwen2"), "cpu", Dtype::f32);
    AdapterConfig config;
    config.rank = 2;
    config.target_modules = "output";
    const auto on_head = moved_adapter(model, config);
    config.target_modules = "attn_q,output:7";
    const auto on_both = moved_adapter(model, config);
    const std::vector<Adapter::Part> parts{{on_head, 0.5}, {on_both, -1}};
    const auto sum = Adapter::stack(model, parts);
    EXPECT_EQ(sum->head_rank(), 9);
    const std::vector<int32_t> tokens{5, 6, 7, 8};
    const auto n_vocab = static_cast<size_t>(model->shape().n_vocab);
    const auto logits = [&](Context & context) {
        context.truncate(0);
        std::vector<float> last(n_vocab);
        context.eval(tokens, false, last.data());
        return last;
    };
    Context own(model, sum, 16), changing(model, nullptr, 16);
    const std::vector<float> bare = logits(changing);
    changing.set_adapters(parts);
    EXPECT_EQ(logits(changing), logits(own));
    EXPECT_NE(logits(own), bare);
    changing.set_adapters({});
    EXPECT_EQ(logits(changing), bare);
}

AdapterConfig pissa_config() {
    AdapterConfig config;
    config.rank = 4;
    config.alpha = 8;
    config.init = LoraInit::pissa;
    return config;
}

// y = x M^T or, transposed, x M of M[rows, cols].
std::vector<double> product(const std::vector<double> & m, int64_t rows, int64_t cols, const std::vector<double> & x,
                            bool transposed = false) {
    std::vector<double> y(static_cast<size_t>(transposed ? cols : rows));
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
            const double value = m[static_cast<size_t>(r * cols + c)];
            y[static_cast<size_t>(transposed ? c : r)] += value * x[static_cast<size_t>(transposed ? r : c)];
        }
    }
    return y;
}

double length(const std::vector<double> & x) {
    return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

// What is left of W has nothing in common with A and B, and no part that is larger than the smallest of theirs.
TEST(Pissa, BeginsAsThePrincipalPartsOfTheWeightsAndTakesThemAway) {
    for (const std::string family : {"tied_output_q4_0", "gpt2"}) {
        const auto model = load(model_of(family), "cpu", Dtype::f32);
        for (const int32_t iterations : {0, 12}) {
            AdapterConfig config = pissa_config();
            config.pissa_iterations = iterations;
            const auto adapter = Adapter::create(model, config);
            EXPECT_FALSE(adapter->has_effect());
            EXPECT_EQ(adapter->n_trained() * 2, adapter->n_params());
            const Batch batch = batch_for(*model);
            expect_near(token_losses(model, adapter, batch), token_losses(model, nullptr, batch), 1e-5);
            for (const LoraPair & pair : adapter->pairs()) {
                EXPECT_EQ(pair.rank, 8);
                const TensorView & view = *model->file().find_tensor(pair.base_name);
                std::vector<float> w(static_cast<size_t>(view.n_elements()));
                dequantize_row(view.type, view.data, w.data(), view.n_elements());
                std::vector<double> left(w.begin(), w.end());
                const std::vector<float> a = adapter->read(pair.a), b = adapter->read(pair.b);
                const double scale = adapter->own_scale(pair);
                EXPECT_EQ(scale, 2);
                double smallest = 0;
                for (int64_t r = 0; r < 4; ++r) {
                    const std::vector<double> right(a.begin() + r * pair.in, a.begin() + (r + 1) * pair.in);
                    for (int64_t o = 0; o < pair.out; ++o) {
                        for (int64_t i = 0; i < pair.in; ++i)
                            left[static_cast<size_t>(o * pair.in + i)] -=
                                scale * b[static_cast<size_t>(o * pair.rank + r)] * right[static_cast<size_t>(i)];
                    }
                    smallest = scale * length(right) * length(right);
                }
                std::vector<double> x(static_cast<size_t>(pair.in));
                for (int64_t r = 0; r < 4; ++r) {
                    std::copy(a.begin() + r * pair.in, a.begin() + (r + 1) * pair.in, x.begin());
                    EXPECT_LE(length(product(left, pair.out, pair.in, x)), 2e-3 * smallest * length(x))
                        << pair.base_name << " " << r;
                }
                for (size_t i = 0; i < x.size(); ++i) x[i] = random_normal(3, i);
                double size = 0;
                for (int turn = 0; turn < 60; ++turn) {
                    const std::vector<double> y = product(left, pair.out, pair.in, x);
                    size = length(y) / length(x);
                    x = product(left, pair.out, pair.in, y, true);
                }
                EXPECT_LE(size, smallest * 1.001) << pair.base_name;
            }
        }
    }
}

// PEFT's principal parts: A and B are the same up to a sign of each, which their product does not have.
TEST(Pissa, BeginsAsInPeft) {
    for (const std::string name : {"pissa_q4_0", "pissa_gpt2"}) {
        const auto model = load(model_of(name), "cpu", Dtype::f32);
        const auto peft =
            Adapter::load(model, LORICA_REPOSITORY "/native/tests/data/model_goldens/" + name + "/adapter.gguf");
        EXPECT_TRUE(peft->config().frozen_half);
        AdapterConfig config = pissa_config();
        config.rank = static_cast<int32_t>(peft->pairs().front().rank / 2);
        config.use_rslora = name == "pissa_gpt2";
        config.alpha = config.use_rslora ? 4 : 8;
        const auto adapter = Adapter::create(model, config);
        for (const LoraPair & theirs : peft->pairs()) {
            const LoraPair & ours = *adapter->find(theirs.layer, theirs.linear);
            const auto taken_away = [](const Adapter & of, const LoraPair & pair) {
                const std::vector<float> a = of.read(pair.a), b = of.read(pair.b);
                std::vector<float> sum(static_cast<size_t>(pair.out * pair.in));
                for (int64_t o = 0; o < pair.out; ++o) {
                    for (int64_t r = pair.rank / 2; r < pair.rank; ++r) {
                        for (int64_t i = 0; i < pair.in; ++i)
                            sum[static_cast<size_t>(o * pair.in + i)] += static_cast<float>(of.own_scale(pair)) *
                                                                         b[static_cast<size_t>(o * pair.rank + r)] *
                                                                         a[static_cast<size_t>(r * pair.in + i)];
                    }
                }
                return sum;
            };
            EXPECT_LE(relative_error(taken_away(*adapter, ours), taken_away(*peft, theirs)), 1e-3) << theirs.base_name;
        }
    }
}

TEST(Pissa, SecondHalvesHaveNoMoments) {
    const auto model = load(model_of("tied_output_q4_0"), "cpu", Dtype::bf16);
    AdapterConfig plain = pissa_config();
    plain.init = LoraInit::kaiming_uniform;
    const auto pissa = Adapter::create(model, pissa_config()), lora = Adapter::create(model, plain);
    ASSERT_EQ(pissa->n_params(), 2 * lora->n_params());
    int64_t columns = 0, rows = 0;
    for (const LoraPair & pair : lora->pairs()) {
        columns = std::max(columns, pair.rank * pair.out);
        rows = std::max({rows, pair.rank, pair.out});
    }
    for (const Optimizer optimizer : {Optimizer::adamw, Optimizer::adamw_8bit}) {
        SessionConfig settings = session_config();
        settings.optimizer = optimizer;
        const auto bytes = [&](const std::shared_ptr<Adapter> & adapter) {
            return Session::plan(*model, adapter.get(), settings).optimizer;
        };
        // Beside those, the columns of one B and their gradients, and the numbers of their rows.
        EXPECT_EQ(bytes(pissa), bytes(lora) + 8 * columns + 8 * rows);
    }
}

TEST(Pissa, SecondHalvesStayWhileTheFirstLearnAndARunGoesOnInTheVeryBytes) {
    const auto model = load(model_of("tied_output_q4_0"), "cpu", Dtype::bf16);
    const TempDir dir;
    for (const Optimizer optimizer : {Optimizer::adamw, Optimizer::adamw_8bit}) {
        SessionConfig settings = session_config();
        settings.optimizer = optimizer;
        const auto run = [&](bool stops) {
            auto adapter = Adapter::create(model, pissa_config());
            const auto start = Adapter::create(model, pissa_config());
            auto session = std::make_unique<Session>(adapter, settings);
            double first = 0, last = 0;
            for (int step = 0; step < 6; ++step) {
                if (stops && step == 3) {
                    session->save_state(dir / "state");
                    session.reset();
                    adapter->save(dir / "adapter.gguf");
                    adapter = Adapter::load(model, dir / "adapter.gguf");
                    session = std::make_unique<Session>(adapter, settings);
                    session->load_state(dir / "state");
                }
                const LossSum loss = session->forward_backward(batch_for(*model).view());
                (step == 0 ? first : last) = loss.loss_sum;
                session->optimizer_step({0.005, 0.1, 1.0 / static_cast<double>(loss.n_trained), 1});
            }
            EXPECT_LT(last, first);
            EXPECT_TRUE(adapter->has_effect());
            for (const LoraPair & pair : adapter->pairs()) {
                const std::vector<float> a = adapter->read(pair.a), b = adapter->read(pair.b);
                const std::vector<float> a0 = start->read(pair.a), b0 = start->read(pair.b);
                bool is_kept = true;
                for (size_t i = a.size() / 2; i < a.size(); ++i) is_kept = is_kept && a[i] == a0[i];
                for (size_t i = 0; i < b.size(); ++i) is_kept = is_kept && (i % 8 < 4 || b[i] == b0[i]);
                EXPECT_TRUE(is_kept) << pair.base_name;
                EXPECT_NE(a, a0);
                EXPECT_NE(b, b0);
            }
            adapter->save(dir / "trained.gguf");
            return bytes_of(dir / "trained.gguf");
        };
        EXPECT_EQ(run(false), run(true));
    }
}

TEST(Pissa, WhatItCannotBeIsSaidInOneLine) {
    const auto model = load(model_of("grouped_heads_f32"), "cpu", Dtype::f32);
    AdapterConfig config = pissa_config();
    config.dropout = 0.1f;
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("init pissa cannot have dropout"),
                 [&] { Adapter::create(model, config); });
    config.dropout = 0;
    config.rank = 33;
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("rank 33 is more than blk.0.attn_k.weight [32, 64] has"),
                 [&] { Adapter::create(model, config); });
}

TEST(AdapterMethods, AFactorOfZeroKeepsItsGradient) {
    const auto model = load(model_of("llama_biases"), "reference", Dtype::f64);
    AdapterConfig config;
    config.method = Method::ia3;
    const auto adapter = moved_adapter(model, config);
    std::vector<float> values = adapter->read(0);
    values[3] = 0;
    adapter->write(adapter->params(), 0, values.data());
    const Batch batch = batch_for(*model);
    Session session(adapter, session_config());
    session.forward_backward(batch.view());
    EXPECT_GT(std::abs(session.gradient(0)[3]), 1e-6);
}

TEST(AdapterMethods, WhatDoesNotGoTogetherIsRefusedInOneLine) {
    const auto model = load(model_of("grouped_heads_f32"), "cpu", Dtype::f32);
    AdapterConfig config;
    config.method = Method::ia3;
    config.target_modules = "k_proj,v_proj";
    config.feedforward_modules = "down_proj";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("'down_proj' is none of the target modules"),
                 [&] { Adapter::create(model, config); });
    config.feedforward_modules.clear();
    config.use_dora = true;
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("DoRA belongs to LoRA; method ia3 has none"),
                 [&] { Adapter::create(model, config); });
    config.use_dora = false;
    AdapterConfig full;
    full.method = Method::full;
    full.layers = "0-9";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("there is no layer 9; the model has layers 0 to 1"),
                 [&] { Adapter::create(model, full); });
    full.layers = "a";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("layers cannot be 'a'"),
                 [&] { Adapter::create(model, full); });
    full.layers.clear();
    full.frozen = "norms";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("'norms' cannot be frozen; embed and head can"),
                 [&] { Adapter::create(model, full); });
    AdapterConfig lora;
    lora.modules_to_save = "q_proj";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("'q_proj' is trained whole and as a target"),
                 [&] { Adapter::create(model, lora); });
    lora.modules_to_save = "score";
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("module to save 'score' does not exist"),
                 [&] { Adapter::create(model, lora); });
    const auto adapter = Adapter::create(model, config);
    const std::vector<Adapter::Part> two{{adapter, 1}, {adapter, 1}};
    expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("method ia3 cannot be added to others"),
                 [&] { Adapter::stack(model, two); });
    const TempDir dir;
    adapter->save(dir / "ia3.gguf");
    const auto other = load(model_of("gpt2"), "cpu", Dtype::f32);
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("was made for architecture 'llama'"),
                 [&] { Adapter::load(other, dir / "ia3.gguf"); });
}

// PEFT's own where it has some.
TEST(AdapterMethods, Ia3HasModulesInEveryFamily) {
    const std::pair<std::string, std::string> cases[] = {
        {"grouped_heads_f32", "k_proj,v_proj,down_proj"},
        {"qwen3", "q_proj,v_proj,down_proj"},
        {"gpt2", "c_attn,c_proj"},
        {"phi3", "qkv_proj,down_proj"},
        {"olmo2", "k_proj,v_proj,down_proj"},
        {"granite", "k_proj,v_proj,down_proj"},
        {"smollm3", "k_proj,v_proj,down_proj"},
    };
    for (const auto & [family, modules] : cases) {
        AdapterConfig config;
        config.method = Method::ia3;
        config.target_modules.clear();
        EXPECT_EQ(Adapter::create(load(model_of(family), "cpu", Dtype::f32), config)->target_modules(), modules);
    }
}

}  // namespace
}  // namespace lorica
