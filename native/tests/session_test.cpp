#include "train/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapter/targets.h"

#include <chrono>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>

#include "common/error.h"
#include "generate/context.h"
#include "support/training.h"

namespace lorica {
namespace {

using namespace test;
using testing::HasSubstr;

std::string file_bytes(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

AdapterConfig small_adapter(float dropout = 0) {
    AdapterConfig config;
    config.rank = 4;
    config.alpha = 8;
    config.dropout = dropout;
    return config;
}

SessionConfig small_session() {
    SessionConfig config;
    config.max_tokens = 64;
    return config;
}

struct SessionTest : testing::Test {
    TempDir dir;
    TestModel shape;
    std::string path = write_test_model(dir / "model.gguf", shape);

    Batch batch(uint64_t seed) const { return random_batch(seed, {20, 5, 30}, shape.n_vocab); }

    std::shared_ptr<const Model> eight_layers() const {
        TestModel larger = shape;
        larger.n_layer = 8;
        return load(write_test_model(dir / "larger.gguf", larger), "cpu", Dtype::f32);
    }

    void train(Session & session, int first, int count) const {
        for (int step = first; step < first + count; ++step) {
            const LossSum one = session.forward_backward(batch(static_cast<uint64_t>(step)).view());
            const LossSum two = session.forward_backward(batch(static_cast<uint64_t>(100 + step)).view());
            session.optimizer_step({1e-2, 0.01, 1.0 / static_cast<double>(one.n_trained + two.n_trained), 1.0});
        }
    }

    std::string error_of(const std::function<void()> & call) const {
        try {
            call();
        } catch (const Error & e) {
            return e.what();
        }
        return "no error";
    }
};

TEST_F(SessionTest, TrainingLowersTheLoss) {
    const auto adapter = Adapter::create(load(path, "cpu", Dtype::bf16), small_adapter());
    Session session(adapter, small_session());
    const Batch same = batch(1);
    const double before = session.evaluate(same.view(), {}).loss_sum;
    for (int i = 0; i < 20; ++i) {
        const LossSum loss = session.forward_backward(same.view());
        session.optimizer_step({1e-2, 0, 1.0 / static_cast<double>(loss.n_trained), 1.0});
    }
    EXPECT_LT(session.evaluate(same.view(), {}).loss_sum, 0.5 * before);
    EXPECT_EQ(session.step_count(), 20);
}

TEST_F(SessionTest, MeasuresItsSpeedAgainstAPeakThatNoStepExceeds) {
    const auto adapter = Adapter::create(load(path, "cpu", Dtype::bf16), small_adapter());
    Session session(adapter, small_session());
    double weights = static_cast<double>(shape.n_vocab) * shape.n_embd;
    const double q = static_cast<double>(shape.n_embd) * shape.n_embd, kv = q * shape.n_head_kv / shape.n_head;
    weights += shape.n_layer * (2 * q + 2 * kv + 3.0 * shape.n_embd * shape.n_ff);
    EXPECT_EQ(session.operations_per_token(), 4 * weights);

    const Batch same = batch(1);
    // Once more where others had the processor while the peak was measured, and not during the step.
    double peak = 0, speed = 0;
    for (int attempt = 0; attempt < 20 && peak <= speed; ++attempt) {
        peak = session.measure_peak();
        const auto begin = std::chrono::steady_clock::now();
        session.forward_backward(same.view());
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        speed = session.operations_per_token() * static_cast<double>(same.tokens.size()) / seconds;
    }
    EXPECT_GT(peak, speed);

    EXPECT_EQ(
        Session(Adapter::create(load(path, "reference", Dtype::f64), small_adapter()), small_session()).measure_peak(),
        0);
}

TEST_F(SessionTest, TheSameSeedGivesTheSameAdapterBytesWithAnyNumberOfThreads) {
    for (const Dtype act : {Dtype::bf16, Dtype::f32}) {
        std::vector<std::string> saved;
        for (const int32_t threads : {1, 2, 3}) {
            const auto adapter = Adapter::create(load(path, "cpu", act, threads), small_adapter(0.1f));
            Session session(adapter, small_session());
            train(session, 0, 3);
            adapter->save(dir / "adapter.gguf");
            saved.push_back(file_bytes(dir / "adapter.gguf"));
        }
        EXPECT_TRUE(saved[0] == saved[1]);
        EXPECT_TRUE(saved[0] == saved[2]);
    }
}

TEST_F(SessionTest, TrainingFromASavedStateEndsInTheBytesOfTrainingThatRanThrough) {
    const auto model = load(path, "cpu", Dtype::bf16);
    const auto through = Adapter::create(model, small_adapter(0.1f));
    {
        Session session(through, small_session());
        train(session, 0, 6);
    }
    const auto first = Adapter::create(model, small_adapter(0.1f));
    {
        Session session(first, small_session());
        train(session, 0, 3);
        session.forward_backward(batch(17).view());  // of a step that is given up
        session.save_state(dir / "state.bin");
    }
    const auto second = Adapter::create(model, small_adapter(0.1f));
    Session session(second, small_session());
    session.load_state(dir / "state.bin");
    EXPECT_EQ(session.step_count(), 3);
    train(session, 3, 3);
    for (int32_t i = 0; i < through->n_tensors(); ++i) {
        EXPECT_EQ(through->read(through->params(), i), second->read(second->params(), i)) << through->tensor(i).name;
    }
}

TEST_F(SessionTest, ADamagedOrForeignStateIsRefused) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto adapter = Adapter::create(model, small_adapter());
    Session session(adapter, small_session());
    train(session, 0, 1);
    session.save_state(dir / "state.bin");
    const std::string good = file_bytes(dir / "state.bin");
    auto write = [&](const std::string & bytes) { std::ofstream(dir / "bad.bin", std::ios::binary) << bytes; };

    std::string flipped = good;
    flipped[good.size() / 2] ^= 1;
    write(flipped);
    EXPECT_THAT(error_of([&] { session.load_state(dir / "bad.bin"); }), HasSubstr("checksum"));
    write(good.substr(0, good.size() - 10));
    EXPECT_THAT(error_of([&] { session.load_state(dir / "bad.bin"); }), HasSubstr("cut short"));
    write("something else entirely, and long enough to hold a whole header of a state file");
    EXPECT_THAT(error_of([&] { session.load_state(dir / "bad.bin"); }), HasSubstr("no training state"));
    EXPECT_THAT(error_of([&] { session.load_state(dir / "absent.bin"); }), HasSubstr("cannot open"));

    AdapterConfig other = small_adapter();
    other.rank = 2;
    const auto smaller = Adapter::create(model, other);
    Session second(smaller, small_session());
    EXPECT_THAT(error_of([&] { second.load_state(dir / "state.bin"); }), HasSubstr("other shapes"));
}

TEST_F(SessionTest, AnAdapterSavedAndLoadedGivesTheLogitsOfTheLiveOne) {
    for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
        const auto model = load(path, "cpu", act);
        const auto live = Adapter::create(model, small_adapter());
        {
            Session session(live, small_session());
            train(session, 0, 3);
        }
        live->save(dir / "adapter.gguf");
        const auto loaded = Adapter::load(model, dir / "adapter.gguf");
        const Batch b = batch(9);
        const auto n = b.tokens.size() * static_cast<size_t>(shape.n_vocab);
        std::vector<float> expected(n), actual(n), base(n);
        Context(model, live, 64).eval(b.tokens, true, expected.data());
        Context(model, loaded, 64).eval(b.tokens, true, actual.data());
        Context(model, nullptr, 64).eval(b.tokens, true, base.data());
        EXPECT_EQ(expected, actual);
        EXPECT_GT(relative_error(base, expected), 0.05);
    }
}

TEST_F(SessionTest, RsLoraKeepsItsScaleThroughTheFile) {
    AdapterConfig config = small_adapter();
    config.use_rslora = true;
    const auto model = load(path, "cpu", Dtype::f32);
    const auto adapter = busy_adapter(model, config);
    adapter->save(dir / "adapter.gguf");
    const auto loaded = Adapter::load(model, dir / "adapter.gguf");
    EXPECT_NEAR(adapter->scale(adapter->pairs().front()), 8 / std::sqrt(4.0), 1e-12);
    EXPECT_EQ(loaded->scale(loaded->pairs().front()), adapter->scale(adapter->pairs().front()));
    EXPECT_EQ(loaded->config().rank, 4);
    EXPECT_EQ(loaded->config().alpha, 8);
    EXPECT_TRUE(loaded->config().use_rslora);
    loaded->save(dir / "again.gguf");
    EXPECT_EQ(file_bytes(dir / "again.gguf"), file_bytes(dir / "adapter.gguf"));
}

TEST_F(SessionTest, RsLoraOfSeveralRanksKeepsItsScalesThroughTheFile) {
    AdapterConfig config = small_adapter();
    config.use_rslora = true;
    config.target_modules = "q_proj,v_proj:2,down_proj:4:5";
    const auto model = load(path, "cpu", Dtype::f32);
    const auto adapter = busy_adapter(model, config);
    adapter->save(dir / "adapter.gguf");
    const auto loaded = Adapter::load(model, dir / "adapter.gguf");
    for (size_t p = 0; p < adapter->pairs().size(); ++p) {
        const LoraPair &saved = adapter->pairs()[p], &pair = loaded->pairs()[p];
        const std::vector<float> b = adapter->read(saved.b), loaded_b = loaded->read(pair.b);
        for (size_t i = 0; i < b.size(); ++i) {
            const double expected = adapter->scale(saved) * b[i];
            EXPECT_NEAR(loaded->scale(pair) * loaded_b[i], expected, 1e-6 * std::abs(expected)) << pair.base_name;
        }
    }
}

TEST_F(SessionTest, AnEvaluationNeedsNoAdapter) {
    const auto model = load(path, "cpu", Dtype::f32);
    Session bare(model, nullptr, small_session());
    std::vector<float> alone(batch(3).tokens.size()), beside(alone.size());
    const LossSum loss = bare.evaluate(batch(3).view(), alone);
    // B is 0: this adapter changes nothing.
    Session session(Adapter::create(model, small_adapter()), small_session());
    EXPECT_EQ(loss.loss_sum, session.evaluate(batch(3).view(), beside).loss_sum);
    EXPECT_EQ(alone, beside);
    EXPECT_THAT(error_of([&] { bare.forward_backward(batch(3).view()); }), HasSubstr("no adapter"));
    EXPECT_THAT(error_of([&] { bare.optimizer_step({1e-3, 0, 1, 1}); }), HasSubstr("no adapter"));
    EXPECT_THAT(error_of([&] { bare.save_state(dir / "state.bin"); }), HasSubstr("no adapter"));
    const MemoryPlan plan = Session::plan(*model, nullptr, small_session());
    EXPECT_EQ(plan.adapter + plan.gradients + plan.optimizer, 0);
    EXPECT_LT(plan.activations, Session::plan(*model, &session.adapter(), small_session()).activations);
}

TEST_F(SessionTest, OfGradientsOnlyItHasNoOptimizerAndGivesTheSameGradients) {
    const auto model = load(path, "cpu", Dtype::f32);
    for (const Optimizer optimizer : {Optimizer::adamw, Optimizer::adamw_8bit}) {
        SessionConfig config = small_session();
        config.optimizer = optimizer;
        AdapterConfig of_halves = small_adapter(0.1f);
        of_halves.frozen_half = true;
        for (const AdapterConfig & method : {small_adapter(0.1f), of_halves}) {
            SCOPED_TRACE(method.frozen_half);
            const auto one = Adapter::create(model, method), other = Adapter::create(model, method);
            Session whole(one, config);
            const MemoryPlan with = Session::plan(*model, one.get(), config);
            config.gradients_only = true;
            const MemoryPlan without = Session::plan(*model, one.get(), config);
            EXPECT_GT(with.optimizer, 0);
            EXPECT_EQ(without.optimizer, 0);
            EXPECT_EQ(without.total(), with.total() - with.optimizer);
            // There is no room for more.
            config.memory_limit = without.total();
            Session session(other, config);
            config.memory_limit = 0;
            config.gradients_only = false;

            whole.forward_backward(batch(3).view());
            session.forward_backward(batch(3).view());
            for (int32_t i = 0; i < one->n_tensors(); ++i) EXPECT_EQ(session.gradient(i), whole.gradient(i));
            for (const std::function<void()> & refused : std::vector<std::function<void()>>{
                     [&] { session.optimizer_step({1e-3, 0, 1, 1}); }, [&] { session.set_group(0, {}); },
                     [&] { session.save_state(dir / "state.bin"); }, [&] { session.load_state(dir / "state.bin"); }}) {
                EXPECT_THAT(error_of(refused), HasSubstr("gradients_only"));
            }
        }
    }
}

TEST_F(SessionTest, AnAdapterOfAnotherBaseIsRefused) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    adapter->save(dir / "adapter.gguf");
    TestModel other = shape;
    other.seed = 2;
    const auto model = load(write_test_model(dir / "other.gguf", other), "cpu", Dtype::f32);
    EXPECT_THAT(error_of([&] { Adapter::load(model, dir / "adapter.gguf"); }), HasSubstr("another base model"));
}

TEST_F(SessionTest, ACacheFilledInAnyPiecesGivesTheLogitsOfOnePass) {
    for (const auto & [device, act, tolerance] :
         {std::tuple{"reference", Dtype::f64, 1e-6}, std::tuple{"cpu", Dtype::f32, 1e-5},
          std::tuple{"cpu", Dtype::bf16, 2e-2}}) {
        const auto model = load(path, device, act);
        const auto adapter = busy_adapter(model, small_adapter());
        const Batch b = random_batch(2, {40}, shape.n_vocab);
        const auto row = static_cast<size_t>(shape.n_vocab);
        std::vector<float> whole(b.tokens.size() * row), pieces(whole.size());
        Context(model, adapter, 64).eval(b.tokens, true, whole.data());
        Context context(model, adapter, 64);
        const std::span<const int32_t> tokens(b.tokens);
        size_t done = 0;
        for (const size_t count : {1u, 5u, 1u, 17u, 1u, 3u, 1u, 11u}) {
            context.eval(tokens.subspan(done, count), true, pieces.data() + done * row);
            done += count;
        }
        ASSERT_EQ(done, tokens.size());
        EXPECT_LE(relative_error(pieces, whole), tolerance) << device;

        // Going back and taking the same way again changes nothing.
        context.truncate(20);
        std::vector<float> last(row);
        context.eval(tokens.subspan(20), false, last.data());
        EXPECT_LE(relative_error(last, {whole.end() - static_cast<std::ptrdiff_t>(row), whole.end()}), tolerance)
            << device;
    }
}

TEST_F(SessionTest, TextsBesideOneAnotherHaveTheLogitsThatEachHasAlone) {
    for (const auto & [device, act, tolerance] :
         {std::tuple{"reference", Dtype::f64, 1e-6}, std::tuple{"cpu", Dtype::f32, 1e-5},
          std::tuple{"cpu", Dtype::bf16, 3e-2}}) {  // of single rows, which differ more than all together
        const auto model = load(path, device, act);
        const auto adapter = busy_adapter(model, small_adapter());
        const auto row = static_cast<size_t>(shape.n_vocab);
        std::vector<std::vector<int32_t>> texts;
        for (uint64_t i = 0; i < 5; ++i)
            texts.push_back(random_batch(10 + i, {20 + static_cast<int32_t>(7 * i)}, shape.n_vocab).tokens);
        Context many(model, adapter, 64, 5);
        std::vector<size_t> done(5);
        // Prompts of one to several tokens, then one token each; some end, others come in later.
        for (int step = 0; step < 24; ++step) {
            std::vector<Context::Append> appends;
            for (const size_t i : {3u, 0u, 4u, 1u, 2u}) {
                if (static_cast<size_t>(step) < i) continue;
                const size_t n = std::min(done[i] == 0 ? 5 + 4 * i : 1, texts[i].size() - done[i]);
                if (n == 0) continue;
                appends.push_back({static_cast<int32_t>(i), std::span<const int32_t>(texts[i]).subspan(done[i], n)});
                done[i] += n;
            }
            if (appends.empty()) continue;
            std::vector<float> logits(appends.size() * row);
            many.eval(appends, logits.data());
            for (size_t a = 0; a < appends.size(); ++a) {
                const auto i = static_cast<size_t>(appends[a].slot);
                EXPECT_EQ(many.n_past(appends[a].slot), static_cast<int32_t>(done[i]));
                std::vector<float> alone(row);
                Context(model, adapter, 64)
                    .eval(std::span<const int32_t>(texts[i]).first(done[i]), false, alone.data());
                const auto first = logits.begin() + static_cast<std::ptrdiff_t>(a * row);
                ASSERT_LE(relative_error({first, first + static_cast<std::ptrdiff_t>(row)}, alone), tolerance)
                    << device << " text " << i << " of " << done[i] << " tokens";
            }
        }
    }
}

TEST_F(SessionTest, ManyTextsGoOnTogetherToTheBitAsEachDoesAlone) {
    const auto model = load(path, "cpu", Dtype::bf16);
    const auto adapter = busy_adapter(model, small_adapter());
    const auto row = static_cast<size_t>(shape.n_vocab);
    constexpr int32_t n = 21, n_steps = 5;
    std::vector<std::vector<int32_t>> texts;
    for (int32_t i = 0; i < n; ++i)
        texts.push_back(random_batch(10 + static_cast<uint64_t>(i), {n_steps + 4 + 2 * i}, shape.n_vocab).tokens);
    // All logits of texts first to first + count, each begun by itself and gone on with together.
    const auto logits_of = [&](size_t first, size_t count) {
        Context context(model, adapter, 64, static_cast<int32_t>(count));
        std::vector<std::vector<float>> result(count);
        std::vector<float> logits(count * row);
        std::vector<Context::Append> appends(count);
        for (size_t i = 0; i < count; ++i) {
            const std::span<const int32_t> text(texts[first + i]);
            appends[i] = {static_cast<int32_t>(i), text.first(text.size() - n_steps)};
            context.eval({&appends[i], 1}, nullptr);
        }
        for (size_t step = n_steps; step > 0; --step) {
            for (size_t i = 0; i < count; ++i) {
                const std::span<const int32_t> text(texts[first + i]);
                appends[i].tokens = text.subspan(text.size() - step, 1);
            }
            context.eval(appends, logits.data());
            for (size_t i = 0; i < count; ++i) {
                const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(i * row);
                result[i].insert(result[i].end(), begin, begin + static_cast<std::ptrdiff_t>(row));
            }
        }
        return result;
    };
    const auto together = logits_of(0, n), some = logits_of(3, 7);
    for (size_t i = 0; i < n; ++i) EXPECT_TRUE(logits_of(i, 1)[0] == together[i]) << "text " << i;
    for (size_t i = 0; i < some.size(); ++i) EXPECT_TRUE(some[i] == together[3 + i]) << "text " << i << " of seven";
}

TEST_F(SessionTest, APromptIsCopiedFromSlotToSlotToTheBit) {
    const auto model = load(path, "cpu", Dtype::bf16);
    const Batch b = random_batch(2, {40}, shape.n_vocab);
    const std::span<const int32_t> tokens(b.tokens);
    const auto row = static_cast<size_t>(shape.n_vocab);
    Context context(model, busy_adapter(model, small_adapter()), 64, 3);
    const Context::Append prompt{1, tokens.first(30)};
    context.eval({&prompt, 1}, nullptr);
    context.copy(1, 2, 25);
    context.copy(1, 0, 30);
    context.truncate(25, 1);
    EXPECT_EQ(context.n_past(0), 30);
    EXPECT_EQ(context.n_past(2), 25);
    const Context::Append both[] = {{1, tokens.subspan(25, 1)}, {2, tokens.subspan(25, 1)}};
    std::vector<float> logits(2 * row);
    context.eval(both, logits.data());
    EXPECT_TRUE(std::equal(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(row),
                           logits.begin() + static_cast<std::ptrdiff_t>(row)));
    const Context::Append twice[] = {{1, tokens.first(1)}, {1, tokens.first(1)}};
    EXPECT_THAT(error_of([&] { context.eval(twice, nullptr); }), HasSubstr("named twice"));
    const Context::Append missing{3, tokens.first(1)};
    EXPECT_THAT(error_of([&] { context.eval({&missing, 1}, nullptr); }), HasSubstr("slot 3 does not exist"));
    EXPECT_THAT(error_of([&] { context.copy(2, 1, 27); }), HasSubstr("it holds 26"));
    EXPECT_THAT(error_of([&] { context.truncate(31, 0); }), HasSubstr("it holds 30"));
}

TEST_F(SessionTest, EvaluationGivesTheLossOfTheForwardPassAndOneValuePerToken) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    Session session(adapter, small_session());
    const Batch b = batch(6);
    std::vector<float> nll(b.tokens.size(), -1);
    const LossSum evaluated = session.evaluate(b.view(), nll);
    const LossSum trained = session.forward_backward(b.view());
    EXPECT_EQ(evaluated.loss_sum, trained.loss_sum);
    EXPECT_EQ(evaluated.n_trained, trained.n_trained);
    double sum = 0;
    for (size_t i = 0; i < nll.size(); ++i) {
        if (b.labels[i] == -100) {
            EXPECT_EQ(nll[i], 0);
        }
        sum += nll[i];
    }
    EXPECT_NEAR(sum, evaluated.loss_sum, 1e-5 * sum);
}

TEST_F(SessionTest, GradientsAreSumsAndTheStepClearsThem) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    Session session(adapter, small_session());
    session.forward_backward(batch(1).view());
    const auto once = gradients(session);
    session.forward_backward(batch(1).view());
    const auto twice = gradients(session);
    double squares = 0;
    for (size_t i = 0; i < once.size(); ++i) {
        for (size_t j = 0; j < once[i].size(); ++j) {
            ASSERT_NEAR(twice[i][j], 2 * once[i][j], 1e-4 * (std::abs(once[i][j]) + 1e-2));
            squares += static_cast<double>(twice[i][j]) * twice[i][j];
        }
    }
    EXPECT_NEAR(session.optimizer_step({1e-3, 0, 0.5, 1}), 0.5 * std::sqrt(squares), 1e-4 * std::sqrt(squares));
    for (const auto & gradient : gradients(session)) {
        EXPECT_TRUE(std::all_of(gradient.begin(), gradient.end(), [](float x) { return x == 0; }));
    }
}

TEST_F(SessionTest, WeightsOfOneAreTheSupervisedStepToTheBit) {
    for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
        const auto adapter = busy_adapter(load(path, "cpu", act), small_adapter(0.2f));
        const Batch b = batch(4);
        Session session(adapter, small_session());
        session.set_micro_batch_number(7);
        const LossSum whole = session.forward_backward(b.view());
        const auto expected = gradients(session);
        session.zero_gradients();
        session.set_micro_batch_number(7);
        std::vector<float> nll(b.tokens.size(), -1);
        const LossSum half = session.forward(b.view(), nll);
        EXPECT_EQ(half.loss_sum, whole.loss_sum);
        EXPECT_EQ(half.n_trained, whole.n_trained);
        EXPECT_NEAR(std::accumulate(nll.begin(), nll.end(), 0.0), whole.loss_sum, 1e-5 * whole.loss_sum);
        session.backward(std::vector<float>(b.tokens.size(), 1));
        EXPECT_EQ(gradients(session), expected);
    }
}

TEST_F(SessionTest, WeightsThatLeaveOutSequencesGiveTheGradientsOfTheOthers) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    const Batch b = batch(4);
    Session session(adapter, small_session());
    session.forward_backward(part(b, 2).view());
    const auto expected = gradients(session);
    session.zero_gradients();
    std::vector<float> weights(b.tokens.size(), 0), nll(b.tokens.size());
    std::fill(weights.begin() + 25, weights.end(), -0.5f);
    session.forward(b.view(), nll);
    session.backward(weights);
    const auto scaled = gradients(session);
    for (size_t i = 0; i < expected.size(); ++i) {
        std::vector<float> halves = expected[i];
        for (float & x : halves) x *= -0.5f;
        EXPECT_LE(relative_error(scaled[i], halves), 1e-5) << adapter->tensor(static_cast<int32_t>(i)).name;
    }
}

TEST_F(SessionTest, BackwardWantsTheForwardPassBeforeIt) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    Session session(adapter, small_session());
    const Batch b = batch(4);
    std::vector<float> nll(b.tokens.size());
    const std::vector<float> weights(b.tokens.size(), 0.5f);
    const auto refused = [&] { return error_of([&] { session.backward(weights); }); };
    EXPECT_THAT(refused(), HasSubstr("no forward pass"));
    for (const auto & between : std::vector<std::function<void()>>{
             [&] { session.evaluate(b.view(), {}); }, [&] { session.evaluate(b.view(), {}, false); },
             [&] { session.forward_backward(b.view()); }, [&] { session.optimizer_step({1e-3, 0, 1, 1}); },
             [&] { session.backward(weights); }}) {
        session.forward(b.view(), nll);
        between();
        EXPECT_THAT(refused(), HasSubstr("no forward pass"));
    }
    session.forward(b.view(), nll);
    EXPECT_THAT(error_of([&] { session.backward(std::span(weights).first(3)); }), HasSubstr("3 weights"));
    std::vector<float> wrong = weights;
    wrong[0] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THAT(error_of([&] { session.backward(wrong); }), HasSubstr("weight of token 0"));
    EXPECT_EQ(error_of([&] { session.backward(weights); }), "no error");
}

TEST_F(SessionTest, WithoutItsAdapterASessionEvaluatesTheBaseToTheBit) {
    for (const bool use_dora : {false, true}) {
        AdapterConfig config = small_adapter(0.2f);
        config.use_dora = use_dora;
        const auto model = load(path, "cpu", Dtype::bf16);
        Session session(busy_adapter(model, config), small_session());
        const Batch b = batch(4);
        std::vector<float> bare(b.tokens.size()), off(b.tokens.size()), on(b.tokens.size());
        const LossSum expected = Session(model, nullptr, small_session()).evaluate(b.view(), bare);
        session.forward_backward(b.view());
        const auto before = gradients(session);
        EXPECT_EQ(session.evaluate(b.view(), off, false).loss_sum, expected.loss_sum);
        EXPECT_EQ(off, bare);
        EXPECT_NE(session.evaluate(b.view(), on).loss_sum, expected.loss_sum);
        EXPECT_EQ(gradients(session), before);
    }
}

TEST_F(SessionTest, WrongBatchesAreRefusedWithAReason) {
    const auto adapter = Adapter::create(load(path, "cpu", Dtype::f32), small_adapter());
    Session session(adapter, small_session());
    auto refused = [&](Batch b) { return error_of([&] { session.forward_backward(b.view()); }); };
    Batch b = batch(1);
    b.tokens[3] = shape.n_vocab;
    EXPECT_THAT(refused(b), HasSubstr("token 3 has id 300"));
    b = batch(1);
    b.labels[4] = -5;
    EXPECT_THAT(refused(b), HasSubstr("label 4 is -5"));
    b = batch(1);
    b.sequence_lengths.back() += 1;
    EXPECT_THAT(refused(b), HasSubstr("add up to"));
    EXPECT_THAT(refused(random_batch(1, {65}, 300)), HasSubstr("1 to 64"));
    b = batch(1);
    std::fill(b.labels.begin(), b.labels.end(), -100);
    EXPECT_THAT(refused(b), HasSubstr("every label is -100"));
    EXPECT_THAT(error_of([&] { Session(adapter, small_session()); }), HasSubstr("already being trained"));
}

TEST_F(SessionTest, NonFiniteNumbersStopTheStepAndNameTheirPlace) {
    const auto adapter = busy_adapter(load(path, "cpu", Dtype::f32), small_adapter());
    Session session(adapter, small_session());
    const float inf = std::numeric_limits<float>::infinity();

    session.forward_backward(batch(1).view());
    const auto tensor = adapter->tensor(5);
    std::vector<float> gradient(static_cast<size_t>(tensor.rows * tensor.cols), 0.0f);
    gradient[3] = inf;
    session.set_gradient(5, gradient.data());
    const auto before = adapter->read(adapter->params(), 0);
    EXPECT_THAT(error_of([&] { session.optimizer_step({1e-3, 0, 1, 1}); }), HasSubstr(tensor.name));
    EXPECT_EQ(adapter->read(adapter->params(), 0), before);
    EXPECT_EQ(session.step_count(), 0);
    session.zero_gradients();

    const LinearPlace down = *find_linear(adapter->model()->architecture(), "blk.1.ffn_down");
    const int32_t i = adapter->find(down.layer, down.linear)->a;
    std::vector<float> a = adapter->read(adapter->params(), i);
    a[0] = inf;
    adapter->write(adapter->params(), i, a.data());
    EXPECT_THAT(error_of([&] { session.forward_backward(batch(1).view()); }), HasSubstr("layer 1"));
}

// What was planned for this model and these settings when a block's memory was laid out by hand.
TEST_F(SessionTest, ThePlanTakesNoMoreMemoryThanOneLaidOutByHand) {
    TestModel mini;
    mini.n_layer = 4;
    mini.n_embd = 256;
    mini.n_ff = 512;
    mini.head_dim = 64;
    mini.n_vocab = 2000;
    const auto model = load(write_test_model(dir / "mini.gguf", mini), "cpu", Dtype::bf16);
    AdapterConfig adapter_config;
    const auto adapter = Adapter::create(model, adapter_config);
    SessionConfig config;
    config.recomputation = Recomputation::off;
    EXPECT_LE(Session::plan(*model, adapter.get(), config).activations, 17721344);
    config.recomputation = Recomputation::on;
    EXPECT_LE(Session::plan(*model, adapter.get(), config).activations, 10778624);
}

TEST_F(SessionTest, ThePlanRecomputesAsFewLayersAsItCan) {
    const auto model = eight_layers();
    const auto adapter = Adapter::create(model, small_adapter());
    SessionConfig config = small_session();
    config.max_tokens = 4096;
    config.recomputation = Recomputation::off;
    const int64_t most = Session::plan(*model, adapter.get(), config).total();
    config.recomputation = Recomputation::on;
    const int64_t least = Session::plan(*model, adapter.get(), config).total(), a_layer = (most - least) / 7;

    config.recomputation = Recomputation::automatic;
    for (int32_t kept = 1; kept <= 8; ++kept) {
        config.memory_limit = least + a_layer * (kept - 1) + a_layer / 2;
        const MemoryPlan plan = Session::plan(*model, adapter.get(), config);
        EXPECT_EQ(plan.recomputed_layers, 8 - kept);
        EXPECT_LE(plan.total(), config.memory_limit);
    }
    config.memory_limit = least - 1;
    EXPECT_EQ(Session::plan(*model, adapter.get(), config).recomputed_layers, 7) << "which does not fit";

    config.memory_limit = 0;
    config.max_tokens =
        1 << 20;  // more than fits anywhere; the machine's own memory is the limit, of which a tenth is left
    const MemoryPlan too_large = Session::plan(*model, adapter.get(), config);
    config.max_tokens = small_session().max_tokens;
    EXPECT_EQ(Session::plan(*model, adapter.get(), config).recomputed_layers, 0);
    EXPECT_TRUE(too_large.recomputed_layers == 7 || too_large.total() <= too_large.available / 10 * 9);
}

TEST_F(SessionTest, ThePlanRefusesWhatDoesNotFitAndSaysWhatWould) {
    const auto model = eight_layers();
    const auto adapter = Adapter::create(model, small_adapter());
    SessionConfig config = small_session();
    config.max_tokens = 4096;
    config.recomputation = Recomputation::off;
    const MemoryPlan keep = Session::plan(*model, adapter.get(), config);
    config.recomputation = Recomputation::on;
    const MemoryPlan recompute = Session::plan(*model, adapter.get(), config);
    EXPECT_LT(recompute.activations, keep.activations);

    EXPECT_EQ(keep.recomputed_layers, 0);
    EXPECT_EQ(recompute.recomputed_layers, 7) << "the last layer is passed backwards at once";

    config.memory_limit = (keep.total() + recompute.total()) / 2;
    config.recomputation = Recomputation::off;
    EXPECT_THAT(error_of([&] { Session(adapter, config); }), HasSubstr("recomputation would fit"));
    config.memory_limit = recompute.total() - 1;
    EXPECT_THAT(error_of([&] { Session(adapter, config); }), HasSubstr("tokens per micro-batch would fit"));
    config.memory_limit = 1 << 20;
    EXPECT_THAT(error_of([&] { Session(adapter, config); }), HasSubstr("no micro-batch fits"));
    config.memory_limit = 0;
    EXPECT_NO_THROW(Session(adapter, config));
}

TEST_F(SessionTest, WrongAdapterSettingsAreRefusedWithAReason) {
    const auto model = load(path, "cpu", Dtype::f32);
    auto refused = [&](auto change) {
        AdapterConfig config = small_adapter();
        change(config);
        return error_of([&] { Adapter::create(model, config); });
    };
    EXPECT_THAT(refused([](AdapterConfig & c) { c.rank = 0; }), HasSubstr("rank is 0"));
    EXPECT_THAT(refused([](AdapterConfig & c) { c.alpha = -1; }), HasSubstr("alpha is -1"));
    EXPECT_THAT(refused([](AdapterConfig & c) { c.dropout = 1; }), HasSubstr("dropout is 1"));
    EXPECT_THAT(refused([](AdapterConfig & c) { c.target_modules = "q_proj,w_proj"; }),
                HasSubstr("'w_proj' does not exist"));
    EXPECT_THAT(refused([](AdapterConfig & c) { c.target_modules = "blk.2.attn_q"; }),
                HasSubstr("'blk.2.attn_q' does not exist"));
    EXPECT_THAT(refused([](AdapterConfig & c) { c.target_modules = " , "; }), HasSubstr("empty"));

    AdapterConfig both = small_adapter();
    both.target_modules = "q_proj, blk.1.ffn_down";
    EXPECT_EQ(Adapter::create(model, both)->target_modules(), "q_proj,down_proj");
    EXPECT_EQ(Adapter::create(model, both)->pairs().size(), 3u);
}

}  // namespace
}  // namespace lorica
