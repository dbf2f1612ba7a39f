// What training has beside LoRA and AdamW: 8-bit optimizer state, parameter groups, NEFTune, DoRA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/dynamic_codebook.h"
#include "generate/context.h"
#include "support/expect_error.h"
#include "support/training.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;
using testing::HasSubstr;

// ---- 8-bit optimizer state: one step on each backend

// Params, gradients and 8-bit moments of n elements in plain memory.
struct State8bit {
    std::vector<float> param, grad;
    std::vector<uint8_t> m, v;
    std::vector<float> m_scales, v_scales;

    explicit State8bit(int64_t n)
        : param(static_cast<size_t>(n)),
          grad(param.size()),
          m(param.size()),
          v(param.size()),
          m_scales(static_cast<size_t>(Moments8bit::n_blocks(n))),
          v_scales(m_scales.size()) {}
    void step(Backend & backend, const AdamwParams & params) {
        backend.adamw_8bit(param.data(), grad.data(), {m.data(), v.data(), m_scales.data(), v_scales.data()},
                           static_cast<int64_t>(param.size()), params);
    }
    bool operator==(const State8bit &) const = default;
};

AdamwParams adamw_params(int64_t step, double beta1 = 0.9) { return {1e-2, beta1, 0.999, 1e-8, 0.1, 0.5, step}; }

void draw_gradients(State8bit & state, uint64_t seed) {
    for (size_t i = 0; i < state.grad.size(); ++i) {
        // From 1e-6 to 1 times the largest.
        state.grad[i] = static_cast<float>(random_normal(seed, i) *
                                           std::pow(10.0, -6.0 * static_cast<double>(random_uniform(seed + 1, i))));
    }
}

TEST(DynamicCodebook, HasSevenPowersOfTenAndEndsAtOne) {
    for (const bool is_signed : {true, false}) {
        const DynamicCodebook values = dynamic_codebook(is_signed);
        EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
        EXPECT_EQ(std::adjacent_find(values.begin(), values.end()), values.end());
        EXPECT_EQ(values.back(), 1);
        EXPECT_EQ(std::count(values.begin(), values.end(), 0.0f), 1);
    }
    const DynamicCodebook with_sign = dynamic_codebook(true), without = dynamic_codebook(false);
    EXPECT_FLOAT_EQ(with_sign.front(), -0.99296875f);
    EXPECT_FLOAT_EQ(*std::upper_bound(with_sign.begin(), with_sign.end(), 0.0f), 5.5e-7f);
    EXPECT_EQ(without.front(), 0);
    EXPECT_FLOAT_EQ(without[1], 3.25e-7f);
}

TEST(Adamw8bit, FirstStepIsThatOfAdamwAndMomentsAreRoundedToTheNearest) {
    const auto cpu = make_backend("cpu", Dtype::f32, 2);
    State8bit state(1000);
    draw_gradients(state, 3);
    for (size_t i = 0; i < state.param.size(); ++i) state.param[i] = static_cast<float>(random_normal(9, i));
    std::vector<float> plain = state.param, m(1000), v(1000);
    cpu->adamw(plain.data(), state.grad.data(), m.data(), v.data(), 1000, adamw_params(1));
    state.step(*cpu, adamw_params(1));
    EXPECT_EQ(state.param, plain);

    const auto expect_nearest = [](const std::vector<uint8_t> & codes, const std::vector<float> & scales,
                                   const std::vector<float> & moments, bool is_signed) {
        const DynamicCodebook values = dynamic_codebook(is_signed);
        for (size_t i = 0; i < codes.size(); ++i) {
            const double wanted = static_cast<double>(moments[i]) / scales[i / 256];
            double best = 1e9;
            for (const float value : values) best = std::min(best, std::abs(wanted - static_cast<double>(value)));
            ASSERT_NEAR(std::abs(wanted - static_cast<double>(values[codes[i]])), best, 1e-7 * std::abs(wanted) + 1e-15)
                << i << ": " << wanted;
        }
    };
    expect_nearest(state.m, state.m_scales, m, true);
    expect_nearest(state.v, state.v_scales, v, false);
}

TEST(Adamw8bit, OnTheCpuIsThatOfTheReferenceWithAnyNumberOfThreads) {
    const auto reference = make_backend("reference", Dtype::f32, 1);
    State8bit expected(70000);
    std::vector<State8bit> on_cpu(2, expected);
    for (int64_t step = 1; step <= 5; ++step) {
        draw_gradients(expected, static_cast<uint64_t>(10 * step));
        expected.step(*reference, adamw_params(step));
        for (size_t i = 0; i < on_cpu.size(); ++i) {
            on_cpu[i].grad = expected.grad;
            on_cpu[i].step(*make_backend("cpu", Dtype::f32, i == 0 ? 1 : 3), adamw_params(step));
        }
    }
    EXPECT_TRUE(on_cpu[0] == on_cpu[1]);
    // Where the two round a moment that lies between two values differently, they part by one value of the codebook.
    size_t different = 0;
    for (size_t i = 0; i < expected.param.size(); ++i)
        different += std::abs(on_cpu[0].param[i] - expected.param[i]) > 1e-6f;
    EXPECT_LE(different, expected.param.size() / 200);
    EXPECT_LE(relative_error(on_cpu[0].param, expected.param), 1e-3);
    EXPECT_LE(relative_error(on_cpu[0].v_scales, expected.v_scales), 1e-6);
}

// ---- sessions

struct TrainMethodsTest : testing::Test {
    TempDir dir;
    TestModel shape;
    std::string path = write_test_model(dir / "model.gguf", shape);
    std::shared_ptr<const Model> model = load(path, "cpu", Dtype::f32);

    Batch batch(uint64_t seed) const { return random_batch(seed, {20, 5, 30}, shape.n_vocab); }

    static AdapterConfig adapter_config(bool use_dora = false) {
        AdapterConfig config;
        config.rank = 4;
        config.alpha = 8;
        config.use_dora = use_dora;
        return config;
    }
    static SessionConfig session_config() {
        SessionConfig config;
        config.max_tokens = 64;
        return config;
    }
    double step(Session & session, uint64_t seed, double learning_rate = 1e-2) const {
        const LossSum loss = session.forward_backward(batch(seed).view());
        session.optimizer_step({learning_rate, 0.01, 1.0 / static_cast<double>(loss.n_trained), 1.0});
        return loss.loss_sum / static_cast<double>(loss.n_trained);
    }
    static std::vector<std::vector<float>> values(const Adapter & adapter) {
        std::vector<std::vector<float>> all;
        for (int32_t i = 0; i < adapter.n_tensors(); ++i) all.push_back(adapter.read(adapter.params(), i));
        return all;
    }
    // Six steps through, and three, a saved state and three more: the same bytes.
    void expect_exact_resume(const AdapterConfig & adapter_config, const SessionConfig & config) const {
        const auto through = Adapter::create(model, adapter_config);
        {
            Session session(through, config);
            for (uint64_t i = 0; i < 6; ++i) step(session, i);
        }
        const auto stopped = Adapter::create(model, adapter_config);
        {
            Session session(stopped, config);
            for (uint64_t i = 0; i < 3; ++i) step(session, i);
            session.save_state(dir / "state.bin");
        }
        const auto resumed = Adapter::create(model, adapter_config);
        Session session(resumed, config);
        session.load_state(dir / "state.bin");
        for (uint64_t i = 3; i < 6; ++i) step(session, i);
        EXPECT_EQ(values(*resumed), values(*through));
    }
};

TEST_F(TrainMethodsTest, Adamw8bitLearnsAsAdamwDoes) {
    std::vector<double> last;
    for (const Optimizer optimizer : {Optimizer::adamw, Optimizer::adamw_8bit}) {
        SessionConfig config = session_config();
        config.optimizer = optimizer;
        Session session(Adapter::create(model, adapter_config()), config);
        const double first = step(session, 1);
        for (int i = 0; i < 40; ++i) last.push_back(step(session, 1));
        EXPECT_LT(last.back(), 0.5 * first);
    }
    for (size_t i = 0; i < 40; ++i) EXPECT_NEAR(last[40 + i], last[i], 0.05 * last[i]) << "step " << i;
}

TEST_F(TrainMethodsTest, StateOf8BitsTakesAQuarterOfTheMemoryAndItsPlanSaysSo) {
    const auto adapter = Adapter::create(model, adapter_config());
    SessionConfig config = session_config();
    const MemoryPlan plain = Session::plan(*model, adapter.get(), config);
    config.optimizer = Optimizer::adamw_8bit;
    const MemoryPlan small = Session::plan(*model, adapter.get(), config);
    EXPECT_EQ(plain.optimizer, 8 * adapter->n_params());
    EXPECT_LT(small.optimizer, 2.2 * static_cast<double>(adapter->n_params()));
    EXPECT_EQ(plain.total() - small.total(), plain.optimizer - small.optimizer);
    Session session(adapter, config);
    step(session, 1);
    session.save_state(dir / "state.bin");
    const auto file_size =
        static_cast<int64_t>(std::ifstream(dir / "state.bin", std::ios::ate | std::ios::binary).tellg());
    EXPECT_EQ(file_size, 56 + 4 * adapter->n_params() + small.optimizer + 4);
}

TEST_F(TrainMethodsTest, EveryMethodGoesOnFromASavedStateInTheVeryBytes) {
    SessionConfig config = session_config();
    config.optimizer = Optimizer::adamw_8bit;
    config.neftune_alpha = 5;
    AdapterConfig dora = adapter_config(true);
    dora.dropout = 0.1f;
    expect_exact_resume(dora, config);
}

TEST_F(TrainMethodsTest, TheStateOfAnotherOptimizerIsRefused) {
    const auto adapter = Adapter::create(model, adapter_config());
    {
        Session session(adapter, session_config());
        step(session, 1);
        session.save_state(dir / "state.bin");
    }
    SessionConfig config = session_config();
    config.optimizer = Optimizer::adamw_8bit;
    Session session(adapter, config);
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("state of AdamW, this session trains with AdamW with 8-bit state"),
                 [&] { session.load_state(dir / "state.bin"); });
}

TEST_F(TrainMethodsTest, AGroupHasItsOwnLearningRateAndDecay) {
    for (const Optimizer optimizer : {Optimizer::adamw, Optimizer::adamw_8bit}) {
        SessionConfig config = session_config();
        config.optimizer = optimizer;
        const auto after_one_step = [&](double rate, double decay, TensorGroup of_b) {
            const auto adapter = busy_adapter(model, adapter_config());
            Session session(adapter, config);
            for (int32_t i = 1; i < adapter->n_tensors(); i += 2) session.set_group(i, of_b);
            const LossSum loss = session.forward_backward(batch(1).view());
            session.optimizer_step({rate, decay, 1.0 / static_cast<double>(loss.n_trained), 0});
            return values(*adapter);
        };
        const auto slow = after_one_step(1e-3, 0.1, {}), fast = after_one_step(16e-3, 0.1, {});
        const auto plus = after_one_step(1e-3, 0.1, {16, 1});
        const auto undecayed = after_one_step(1e-3, 0, {}), no_decay = after_one_step(1e-3, 0.1, {1, 0});
        for (size_t i = 0; i < slow.size(); ++i) {
            EXPECT_NE(slow[i], fast[i]);
            EXPECT_EQ(plus[i], i % 2 == 0 ? slow[i] : fast[i]) << i;
            EXPECT_EQ(no_decay[i], i % 2 == 0 ? slow[i] : undecayed[i]) << i;
        }
    }
    const auto adapter = busy_adapter(model, adapter_config());
    Session session(adapter, session_config());
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("finite and not negative"),
                 [&] { session.set_group(0, {-1, 1}); });
}

TEST_F(TrainMethodsTest, NoiseIsUniformWithTheMagnitudeOfItsSequence) {
    constexpr int64_t cols = 64;
    const std::vector<Segment> segments{{0, 4, 0, 4}, {4, 100, 4, 100}};
    std::vector<std::vector<double>> seen;
    for (const auto & [device, act] :
         {std::pair{"reference", Dtype::f64}, std::pair{"reference", Dtype::f32}, std::pair{"cpu", Dtype::bf16}}) {
        const auto backend = make_backend(device, act, 2);
        const Dtype hidden = backend->formats().hidden;
        std::vector<double> wide(104 * cols, 1.0);
        std::vector<float> single(104 * cols, 1.0f);
        void * data = hidden == Dtype::f64 ? static_cast<void *>(wide.data()) : single.data();
        backend->add_noise({data, hidden, 104, cols, cols}, segments, 5, 77);
        if (hidden == Dtype::f32) wide.assign(single.begin(), single.end());
        seen.push_back(wide);
    }
    for (const Segment & segment : segments) {
        const double magnitude = 5 / std::sqrt(static_cast<double>(segment.q_len) * cols);
        double sum = 0, squares = 0, largest = 0;
        const int64_t n = segment.q_len * cols;
        for (int64_t i = segment.q_begin * cols; i < segment.q_begin * cols + n; ++i) {
            const double noise = (seen[0][static_cast<size_t>(i)] - 1) / magnitude;
            sum += noise;
            squares += noise * noise;
            largest = std::max(largest, std::abs(noise));
            EXPECT_NEAR(seen[1][static_cast<size_t>(i)], seen[0][static_cast<size_t>(i)], 1e-6);
            EXPECT_EQ(seen[2][static_cast<size_t>(i)], seen[1][static_cast<size_t>(i)]);
        }
        EXPECT_LE(largest, 1);
        EXPECT_GT(largest, 0.95);
        EXPECT_NEAR(sum / static_cast<double>(n), 0, 4 / std::sqrt(3.0 * static_cast<double>(n)));
        EXPECT_NEAR(squares / static_cast<double>(n), 1 / 3.0, 0.1);
    }
}

TEST_F(TrainMethodsTest, NoiseIsForTrainingAloneAndNewInEveryMicroBatch) {
    SessionConfig noisy = session_config();
    noisy.neftune_alpha = 5;
    const auto losses = [&](const SessionConfig & config) {
        Session session(busy_adapter(model, adapter_config()), config);
        const double evaluated = session.evaluate(batch(1).view(), {}).loss_sum;
        return std::array{evaluated, session.forward_backward(batch(1).view()).loss_sum,
                          session.forward_backward(batch(1).view()).loss_sum};
    };
    const auto plain = losses(session_config()), with_noise = losses(noisy), again = losses(noisy);
    EXPECT_EQ(plain[1], plain[2]);
    EXPECT_EQ(with_noise[0], plain[0]);
    EXPECT_NE(with_noise[1], plain[1]);
    EXPECT_NE(with_noise[1], with_noise[2]);
    EXPECT_EQ(with_noise, again);
    noisy.recomputation = Recomputation::on;
    EXPECT_EQ(with_noise, losses(noisy));
    noisy.neftune_alpha = -1;
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("neftune_alpha is -1"), [&] { losses(noisy); });
}

// ---- DoRA

std::vector<float> logits(const std::shared_ptr<const Model> & model, const std::shared_ptr<const Adapter> & adapter,
                          const Batch & batch) {
    std::vector<float> all(batch.tokens.size() * static_cast<size_t>(model->shape().n_vocab));
    Context(model, adapter, 64).eval(batch.tokens, true, all.data());
    return all;
}

TEST_F(TrainMethodsTest, AnUntrainedDoraIsTheBaseAndATrainedOneIsNot) {
    const auto adapter = Adapter::create(model, adapter_config(true));
    const auto base = logits(model, nullptr, batch(9));
    EXPECT_LE(relative_error(logits(model, adapter, batch(9)), base), 1e-6);
    Context watching(model, adapter, 64);
    Session session(adapter, session_config());
    const double first = step(session, 1);
    double last = first;
    for (int i = 0; i < 30; ++i) last = step(session, 1);
    EXPECT_LT(last, 0.5 * first);
    // A context that is there already sees the new norms.
    std::vector<float> seen(base.size());
    watching.eval(batch(9).tokens, true, seen.data());
    EXPECT_EQ(seen, logits(model, adapter, batch(9)));
    EXPECT_GT(relative_error(base, seen), 0.05);
}

TEST_F(TrainMethodsTest, ADoraComesBackFromItsFileAndLlamaCppStopsAtIt) {
    AdapterConfig config = adapter_config(true);
    config.target_modules = "q_proj,down_proj:2:3,blk.1.attn_v";
    config.use_rslora = true;
    const auto adapter = busy_adapter(model, config);
    adapter->save(dir / "adapter.gguf");
    const auto loaded = Adapter::load(model, dir / "adapter.gguf");
    EXPECT_TRUE(loaded->config().use_dora);
    EXPECT_EQ(loaded->n_params(), adapter->n_params());
    EXPECT_LE(relative_error(logits(model, loaded, batch(9)), logits(model, adapter, batch(9))), 1e-6);
    const GgufFile file = GgufFile::open(dir / "adapter.gguf");
    EXPECT_EQ(file.find_string("adapter.type"), "dora");
    EXPECT_NE(file.find_tensor("blk.1.attn_v.weight.lora_magnitude_vector"), nullptr);
}

TEST_F(TrainMethodsTest, ADoraMergedIntoTheModelIsTheDoraAtAnyScale) {
    const auto adapter = busy_adapter(model, adapter_config(true));
    for (const double scale : {1.0, 0.5, 0.0}) {
        adapter->set_scale_factor(scale);
        WriteConfig config;
        config.type = "F32";
        merge_model(*model, adapter.get(), dir / "merged.gguf", config);
        const auto merged = load(dir / "merged.gguf", "cpu", Dtype::f32);
        EXPECT_LE(relative_error(logits(merged, nullptr, batch(9)), logits(model, adapter, batch(9))), 1e-5) << scale;
    }
    EXPECT_LE(relative_error(logits(model, adapter, batch(9)), logits(model, nullptr, batch(9))), 1e-6);
}

TEST_F(TrainMethodsTest, ADoraIsScaledAloneButNotAddedToOthers) {
    const auto adapter = busy_adapter(model, adapter_config(true));
    const auto half = Adapter::stack(model, std::array{Adapter::Part{adapter, 0.5}});
    adapter->set_scale_factor(0.5);
    EXPECT_EQ(logits(model, half, batch(9)), logits(model, adapter, batch(9)));
    expect_error(LORICA_ERROR_UNSUPPORTED, HasSubstr("DoRA adapter cannot be added to others"), [&] {
        Adapter::stack(model,
                       std::array{Adapter::Part{adapter, 1}, Adapter::Part{busy_adapter(model, adapter_config()), 1}});
    });
}

TEST_F(TrainMethodsTest, ThePlanOfADoraIsForRanksAboveTheTokensToo) {
    AdapterConfig config = adapter_config(true);
    config.rank = 16;
    SessionConfig small = session_config();
    small.max_tokens = 3;
    const auto adapter = Adapter::create(model, config);
    Session session(adapter, small);
    const Batch three = random_batch(4, {3}, shape.n_vocab);
    EXPECT_TRUE(std::isfinite(session.forward_backward(three.view()).loss_sum));
    EXPECT_GT(Session::plan(*model, adapter.get(), small).adapter, 4 * adapter->n_params());
}

}  // namespace
}  // namespace lorica
