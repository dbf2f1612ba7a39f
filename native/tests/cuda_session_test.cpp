// The whole engine on the cuda device, against the reference and the cpu: gradients, steps of the optimizer,
// generation. Here matrices lie as a session lays them out, dense and aligned; backend_parity_test has them otherwise.
// Without a GPU these tests are skipped, unless LORICA_TEST_DEVICES names a cuda device: then its absence is a failure.
#include "common/error.h"
#include "generate/context.h"
#include "support/training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

namespace lorica {
namespace {

using namespace test;

std::string cuda_device() {
    const std::string chosen = std::getenv("LORICA_TEST_DEVICES") ? std::getenv("LORICA_TEST_DEVICES") : "";
    const size_t begin = chosen.find("cuda");
    return begin == std::string::npos ? "cuda" : chosen.substr(begin, chosen.find(',', begin) - begin);
}

class CudaSession : public testing::Test {
protected:
    void SetUp() override {
        const char * chosen = std::getenv("LORICA_TEST_DEVICES");
        if (chosen && std::string(chosen).find("cuda") != std::string::npos) return;
        try {
            make_backend(cuda_device(), Dtype::bf16, 0);
        } catch (const Error & error) {
            GTEST_SKIP() << error.what();
        }
    }
};

AdapterConfig adapter_config(float dropout = 0) {
    AdapterConfig config;
    config.rank = 8;
    config.alpha = 16;
    config.dropout = dropout;
    return config;
}

SessionConfig session_config(Recomputation recomputation = Recomputation::off) {
    SessionConfig config;
    config.max_tokens = 128;
    config.recomputation = recomputation;
    return config;
}

struct Result {
    double loss;
    std::vector<std::vector<float>> gradients;
};

Result run(const std::string & path, const std::string & device, Dtype act, const AdapterConfig & adapter,
           const SessionConfig & config, const Batch & batch) {
    Session session(busy_adapter(load(path, device, act), adapter), config);
    const double loss = session.forward_backward(batch.view()).loss_sum;
    return {loss, gradients(session)};
}

std::vector<float> joined(const std::vector<std::vector<float>> & parts) {
    std::vector<float> all;
    for (const auto & part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}

// bf16 keeps 8 bits: single gradients differ by a few parts in a hundred, all together by less. The cpu's tests allow
// the same.
void expect_same(const Result & actual, const Result & expected) {
    EXPECT_NEAR(actual.loss, expected.loss, 0.01 * std::abs(expected.loss));
    EXPECT_LT(relative_error(joined(actual.gradients), joined(expected.gradients)), 0.05);
    ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
        EXPECT_LT(relative_error(actual.gradients[i], expected.gradients[i]), 0.15) << "tensor " << i;
    }
}

TEST_F(CudaSession, GradientsAreThoseOfTheReferenceForEveryKindOfWeight) {
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_F16,
                                 GGML_TYPE_BF16, GGML_TYPE_F32, GGML_TYPE_IQ4_XS, GGML_TYPE_TQ2_0}) {
        SCOPED_TRACE(ggml_type_name(type));
        const TempDir dir;
        TestModel shape;
        shape.n_embd = shape.n_ff = 256;
        shape.type = type;
        const std::string path = write_test_model(dir / "model.gguf", shape);
        const Batch batch = random_batch(5, {17, 1, 40, 30}, shape.n_vocab);
        expect_same(run(path, cuda_device(), Dtype::bf16, adapter_config(), session_config(), batch),
                    run(path, "reference", Dtype::f64, adapter_config(), session_config(), batch));
    }
}

TEST_F(CudaSession, GradientsAreThoseOfTheReferenceWithDropoutAndRecomputation) {
    const TempDir dir;
    TestModel shape;
    shape.type = GGML_TYPE_Q4_0;
    shape.tied_output = true;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    // Few tokens have kernels of their own.
    for (const std::vector<int> & lengths : {std::vector{33, 64, 2}, {4, 3}}) {
        SCOPED_TRACE(testing::PrintToString(lengths));
        const Batch batch = random_batch(6, lengths, shape.n_vocab);
        const Result expected = run(path, "reference", Dtype::f64, adapter_config(0.1f), session_config(), batch);
        const Result kept = run(path, cuda_device(), Dtype::bf16, adapter_config(0.1f), session_config(), batch);
        const Result again =
            run(path, cuda_device(), Dtype::bf16, adapter_config(0.1f), session_config(Recomputation::on), batch);
        expect_same(kept, expected);
        EXPECT_EQ(again.loss, kept.loss);
        EXPECT_EQ(again.gradients, kept.gradients) << "recomputation changes nothing";
    }
}

// So many tokens that quantized weights are expanded, for each product or, where the plan has room, once for all.
TEST_F(CudaSession, CopiesOfWeightsAreMadeWhereThePlanHasRoomAndChangeNothing) {
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 256;
    shape.type = GGML_TYPE_Q4_K;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(5, {170, 120}, shape.n_vocab);
    SessionConfig config = session_config();
    config.max_tokens = 290;
    const auto model = load(path, cuda_device(), Dtype::bf16);
    const auto adapter = busy_adapter(model, adapter_config());
    const auto planned = [&] { return Session::plan(*model, adapter.get(), config); };
    const MemoryPlan whole = planned();
    EXPECT_GT(whole.expanded, 2 * 256 * 256 * 7) << "each weight of two layers in two bytes";
    const Result copied = run(path, cuda_device(), Dtype::bf16, adapter_config(), config, batch);
    expect_same(copied, run(path, "reference", Dtype::f64, adapter_config(), config, batch));
    config.memory_limit = whole.total();  // half of what copies would take stays free
    EXPECT_GT(planned().expanded, 0);
    EXPECT_LT(planned().expanded, whole.expanded);
    EXPECT_TRUE(planned().fits());
    const Result half = run(path, cuda_device(), Dtype::bf16, adapter_config(), config, batch);
    config.memory_limit = whole.total() - whole.expanded;
    EXPECT_EQ(planned().expanded, 0);
    const Result without = run(path, cuda_device(), Dtype::bf16, adapter_config(), config, batch);
    EXPECT_NEAR(without.loss, copied.loss, 1e-4 * copied.loss);
    EXPECT_LT(relative_error(joined(without.gradients), joined(copied.gradients)), 0.01);
    EXPECT_LT(relative_error(joined(half.gradients), joined(copied.gradients)), 0.01);
}

// Operands made of an adapter's parameters are those of the parameters as they are.
TEST_F(CudaSession, WhatFollowsAStepSeesTheParametersThatItLeft) {
    const TempDir dir;
    const TestModel shape;
    const auto model = load(write_test_model(dir / "model.gguf", shape), cuda_device(), Dtype::bf16);
    const auto adapter = busy_adapter(model, adapter_config());
    const Batch batch = random_batch(5, {17, 30}, shape.n_vocab);
    std::vector<std::vector<float>> after_steps;
    std::vector<float> losses;
    {
        Session session(adapter, session_config());
        for (int i = 0; i < 4; ++i) {
            losses.push_back(static_cast<float>(session.forward_backward(batch.view()).loss_sum));
            after_steps = gradients(session);
            if (i == 3) break;
            OptimizerStep step;
            step.learning_rate = 0.01;
            session.optimizer_step(step);
        }
        EXPECT_NE(losses[1], losses[0]);
        // Parameters that are written from outside count as well.
        const std::vector<float> before = adapter->read(adapter->params(), 0);
        std::vector<float> other = before;
        for (float & value : other) value = -value;
        adapter->write(adapter->params(), 0, other.data());
        EXPECT_NE(session.evaluate(batch.view(), {}).loss_sum, losses[3]);
        adapter->write(adapter->params(), 0, before.data());
    }
    Session fresh(adapter, session_config());
    EXPECT_EQ(static_cast<float>(fresh.forward_backward(batch.view()).loss_sum), losses[3]);
    EXPECT_EQ(gradients(fresh), after_steps);
}

TEST_F(CudaSession, GradientsInF32AreThoseOfTheReference) {
    const TempDir dir;
    TestModel shape;
    shape.type = GGML_TYPE_Q4_0;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(5, {17, 1, 30}, shape.n_vocab);
    const Result expected = run(path, "reference", Dtype::f64, adapter_config(0.1f), session_config(), batch);
    const Result actual = run(path, cuda_device(), Dtype::f32, adapter_config(0.1f), session_config(), batch);
    EXPECT_NEAR(actual.loss, expected.loss, 1e-5 * std::abs(expected.loss));
    EXPECT_LT(relative_error(joined(actual.gradients), joined(expected.gradients)), 1e-4);
}

TEST_F(CudaSession, GradientsOfADoraAreThoseOfTheReference) {
    const TempDir dir;
    TestModel shape;
    shape.type = GGML_TYPE_Q8_0;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(8, {33, 20}, shape.n_vocab);
    AdapterConfig dora = adapter_config();
    dora.use_dora = true;
    expect_same(run(path, cuda_device(), Dtype::bf16, dora, session_config(), batch),
                run(path, "reference", Dtype::f64, dora, session_config(), batch));
}

// What a session computes in some steps, with all that may be recorded and played again: dropout with a new mask in
// every step, shapes that come and go, noise, DoRA's factors and 8-bit moments, which change between steps.
std::vector<float> steps_of(const std::string & path, const AdapterConfig & adapter, SessionConfig config,
                            std::string & detail) {
    const auto model = load(path, cuda_device(), Dtype::bf16);
    Session session(busy_adapter(model, adapter), config);
    std::vector<float> numbers;
    for (uint64_t step = 0; step < 5; ++step) {
        const bool other = step == 2 || step == 4;
        const Batch batch =
            random_batch(other ? 90 : 70, other ? std::vector{20} : std::vector{5, 12}, TestModel{}.n_vocab);
        // The same labels, so that the shape is the same; other tokens.
        Batch own = batch;
        for (int32_t & token : own.tokens) token = static_cast<int32_t>((token + 3 * step) % TestModel{}.n_vocab);
        const LossSum loss = session.forward_backward(own.view());
        numbers.push_back(static_cast<float>(loss.loss_sum));
        for (const auto & gradient : gradients(session))
            numbers.insert(numbers.end(), gradient.begin(), gradient.end());
        OptimizerStep optimizer;
        optimizer.learning_rate = 1e-3;
        optimizer.grad_scale = 1.0 / static_cast<double>(loss.n_trained);
        session.optimizer_step(optimizer);
    }
    detail = model->device().detail();
    return numbers;
}

// -1: only the library for the CPU counts them.
long graphs_played() {
    const char * library = std::getenv("LORICA_CUDA_LIBRARY");
    void * opened = library ? dlopen(library, RTLD_NOW | RTLD_NOLOAD) : nullptr;
    auto * played = opened ? reinterpret_cast<long (*)()>(dlsym(opened, "cuda_on_cpu_graphs_played")) : nullptr;
    return played ? played() : -1;
}

TEST_F(CudaSession, StepsAreTheSameRecordedOrNot) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", TestModel{});
    AdapterConfig adapter = adapter_config(0.2f);
    SessionConfig config = session_config();
    std::string detail;
    auto compare = [&] {
        setenv("LORICA_CUDA_GRAPHS", "0", 1);
        const std::vector<float> plain = steps_of(path, adapter, config, detail);
        EXPECT_THAT(detail, testing::HasSubstr("no graphs"));
        unsetenv("LORICA_CUDA_GRAPHS");
        EXPECT_TRUE(steps_of(path, adapter, config, detail) == plain);
        EXPECT_THAT(detail, testing::Not(testing::HasSubstr("no graphs"))) << "recording failed";
        return plain;
    };
    const std::vector<float> plain = compare();

    if (graphs_played() >= 0) {
        EXPECT_GT(graphs_played(), 0) << "nothing was recorded";
        setenv("LORICA_CUDA_ON_CPU_NO_GRAPHS", "1", 1);
        EXPECT_TRUE(steps_of(path, adapter, config, detail) == plain);
        EXPECT_THAT(detail, testing::HasSubstr("no graphs"));
        unsetenv("LORICA_CUDA_ON_CPU_NO_GRAPHS");
    }

    adapter.use_dora = true;
    config.recomputation = Recomputation::on;
    config.neftune_alpha = 5;
    config.optimizer = Optimizer::adamw_8bit;
    compare();
}

// Several tokens at each position, as distillation has them: losses and gradients, once more when both halves are
// recorded, and the likeliest.
TEST_F(CudaSession, CandidatesAreThoseOfTheReference) {
    constexpr int32_t n_candidates = 5;
    const TempDir dir;
    TestModel shape;
    shape.type = GGML_TYPE_Q8_0;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(7, {12, 30, 2}, shape.n_vocab);
    const auto rows = static_cast<size_t>(
        std::count_if(batch.labels.begin(), batch.labels.end(), [](int32_t label) { return label != -100; }));
    std::vector<int32_t> ids;
    std::vector<float> weights;
    for (size_t i = 0; i < rows * n_candidates; ++i) {
        const auto k = static_cast<int32_t>(i % n_candidates);
        const int32_t begin = shape.n_vocab * k / n_candidates, end = shape.n_vocab * (k + 1) / n_candidates;
        ids.push_back(begin + static_cast<int32_t>(random_u32(3, i) % static_cast<uint32_t>(end - begin)));
        weights.push_back(static_cast<float>(random_u32(4, i) % 256) / 256 - 0.25f);
    }
    struct Found {
        std::vector<float> nll, gradients, log_probs;
        std::vector<int32_t> likeliest;
    };
    SessionConfig config = session_config();
    config.n_candidates = n_candidates;
    config.likeliest = true;
    const auto find = [&](const std::string & device, Dtype act, int n_times) {
        Session session(busy_adapter(load(path, device, act), adapter_config()), config);
        Found found{std::vector<float>(ids.size()), {}, std::vector<float>(rows), std::vector<int32_t>(rows)};
        for (int i = 0; i < n_times; ++i) {
            session.forward_candidates(batch.view(), {ids, 1.5}, found.nll);
            session.backward_candidates(weights);
        }
        found.gradients = joined(gradients(session));
        for (float & gradient : found.gradients) gradient /= static_cast<float>(n_times);
        session.evaluate_likeliest(batch.view(), 1.5, found.likeliest, found.log_probs);
        return found;
    };
    const Found expected = find("reference", Dtype::f64, 1);
    const Found exact = find(cuda_device(), Dtype::f32, 3);
    EXPECT_LT(relative_error(exact.nll, expected.nll), 1e-5);
    EXPECT_LT(relative_error(exact.gradients, expected.gradients), 1e-4);
    EXPECT_LT(relative_error(exact.log_probs, expected.log_probs), 1e-5);
    EXPECT_EQ(exact.likeliest, expected.likeliest);
    const Found rounded = find(cuda_device(), Dtype::bf16, 3);
    EXPECT_LT(relative_error(rounded.nll, expected.nll), 0.01);
    EXPECT_LT(relative_error(rounded.gradients, expected.gradients), 0.05);
}

TEST_F(CudaSession, LossOfManyStepsIsThatOfTheCpu) {
    const char * chosen = std::getenv("LORICA_TEST_CUDA_STEPS");
    const int n_steps = chosen ? std::atoi(chosen) : 10;
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 256;
    shape.type = GGML_TYPE_Q4_K;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    auto losses = [&](const std::string & device) {
        Session session(Adapter::create(load(path, device, Dtype::bf16, 0), adapter_config()), session_config());
        std::vector<double> result;
        for (int step = 0; step < n_steps; ++step) {
            const Batch batch = random_batch(static_cast<uint64_t>(40 + step % 4), {50, 14, 60}, shape.n_vocab);
            const LossSum loss = session.forward_backward(batch.view());
            OptimizerStep optimizer;
            optimizer.learning_rate = 1e-3;
            optimizer.grad_scale = 1.0 / static_cast<double>(loss.n_trained);
            optimizer.max_grad_norm = 1;
            session.optimizer_step(optimizer);
            result.push_back(loss.loss_sum / static_cast<double>(loss.n_trained));
        }
        return result;
    };
    const std::vector<double> expected = losses("cpu"), actual = losses(cuda_device());
    double worst = 0;
    for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(actual[i] / expected[i] - 1));
    EXPECT_LT(worst, 0.01);
    EXPECT_LT(actual.back(), actual.front());
    RecordProperty("steps", n_steps);
    std::printf("loss of %d steps: cuda %.4f to %.4f, cpu %.4f to %.4f, largest difference %.3f %%\n", n_steps,
                actual.front(), actual.back(), expected.front(), expected.back(), 100 * worst);
}

TEST_F(CudaSession, GeneratesWithACacheAsTheReferenceDoes) {
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 256;
    shape.type = GGML_TYPE_Q4_K;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const std::vector<int32_t> tokens = random_batch(7, {90}, shape.n_vocab).tokens;
    auto logits_of = [&](const std::string & device, Dtype act, std::initializer_list<size_t> pieces) {
        const auto model = load(path, device, act);
        Context context(model, busy_adapter(model, adapter_config()), 128);
        std::vector<float> logits(static_cast<size_t>(shape.n_vocab));
        size_t first = 0;
        for (const size_t n : pieces) {
            context.eval(std::span(tokens).subspan(first, n), false, logits.data());
            first += n;
        }
        return logits;
    };
    const std::vector<float> expected = logits_of("reference", Dtype::f64, {90});
    EXPECT_LT(relative_error(logits_of(cuda_device(), Dtype::bf16, {90}), expected), 0.05);
    EXPECT_LT(relative_error(logits_of(cuda_device(), Dtype::bf16, {70, 6, 10, 1, 1, 1, 1}), expected), 0.05);
}

// Tokens one by one, with all that changes from one to the next: positions, how many keys there are, which logits are
// wanted, adapters and their scale.
TEST_F(CudaSession, TokensAreTheSameRecordedOrNot) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", TestModel{});
    const std::vector<int32_t> tokens = random_batch(7, {150}, TestModel{}.n_vocab).tokens;
    std::string detail;
    auto logits = [&] {
        const auto model = load(path, cuda_device(), Dtype::bf16);
        const auto adapter = busy_adapter(model, adapter_config());
        AdapterConfig dora = adapter_config();
        dora.use_dora = true;
        const auto other = busy_adapter(model, dora);
        Context context(model, nullptr, 160);
        std::vector<float> all;
        const auto n_vocab = static_cast<size_t>(TestModel{}.n_vocab);
        const auto eval = [&](size_t first, size_t n, bool all_logits) {
            std::vector<float> some((all_logits ? n : 1) * n_vocab);
            context.eval(std::span(tokens).subspan(first, n), all_logits, some.data());
            all.insert(all.end(), some.begin(), some.end());
        };
        eval(0, 57, false);
        for (size_t i = 57; i < 75; ++i) eval(i, 1, i == 60);  // past 64 keys
        eval(75, 3, true);
        eval(78, 1, false);
        context.eval(std::span(tokens).subspan(79, 1), false, nullptr);
        context.truncate(62);
        for (size_t i = 100; i < 106; ++i) eval(i, 1, false);
        for (const auto & one : {adapter, other}) {
            context.set_adapters(std::vector<Adapter::Part>{{one, 1}});
            for (size_t i = 0; i < 5; ++i) eval(i, 1, false);
            one->set_scale_factor(0.25);
            for (size_t i = 5; i < 9; ++i) eval(i, 1, false);
        }
        context.set_adapters({});
        for (size_t i = 120; i < 125; ++i) eval(i, 1, false);
        detail = model->device().detail();
        return all;
    };
    setenv("LORICA_CUDA_GRAPHS", "0", 1);
    const std::vector<float> plain = logits();
    EXPECT_THAT(detail, testing::HasSubstr("no graphs"));
    unsetenv("LORICA_CUDA_GRAPHS");
    const long before = graphs_played();
    EXPECT_TRUE(logits() == plain);
    EXPECT_THAT(detail, testing::Not(testing::HasSubstr("no graphs"))) << "recording failed";
    if (before >= 0) {
        EXPECT_GT(graphs_played(), before + 25) << "tokens are not recorded";
    }
}

// Tokens one by one, as recorded graphs too, before and after the window has moved to the front of its cache.
TEST_F(CudaSession, DecodesThroughACacheOfAWindowThatHasMoved) {
    const TempDir dir;
    TestModel shape;
    shape.n_ctx = 1024;
    shape.add_metadata = [](GgufWriter & w) { w.set_u32("llama.attention.sliding_window", 6); };
    const std::string path = write_test_model(dir / "model.gguf", shape);
    constexpr size_t n_prompt = 510, n_tokens = 526;  // the cache has 517 rows
    const std::vector<int32_t> tokens = random_batch(7, {n_tokens}, shape.n_vocab).tokens;
    const auto n_vocab = static_cast<size_t>(shape.n_vocab);
    const auto logits_of = [&](const std::string & device, Dtype act, size_t step) {
        const auto model = load(path, device, act);
        Context context(model, busy_adapter(model, adapter_config()), 600);
        context.eval(std::span(tokens).first(n_prompt), false, nullptr);
        std::vector<float> logits((n_tokens - n_prompt) * n_vocab);
        for (size_t first = n_prompt; first < n_tokens; first += step) {
            context.eval(std::span(tokens).subspan(first, step), true, logits.data() + (first - n_prompt) * n_vocab);
        }
        context.truncate(100);  // which it has forgotten
        EXPECT_EQ(context.n_past(), 0);
        return logits;
    };
    const std::vector<float> expected = logits_of("reference", Dtype::f64, n_tokens - n_prompt);
    EXPECT_LT(relative_error(logits_of(cuda_device(), Dtype::bf16, 1), expected), 0.05);
}

// A head in f32 is converted to bf16 in the workspace, which must have been reckoned with it.
TEST_F(CudaSession, GivesTheLogitsOfEveryTokenUnderAHeadInF32) {
    const TempDir dir;
    TestModel shape;
    shape.n_vocab = 12000;
    shape.output_type = GGML_TYPE_F32;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const std::vector<int32_t> tokens = random_batch(7, {20}, shape.n_vocab).tokens;
    auto logits_of = [&](const std::string & device, Dtype act) {
        Context context(load(path, device, act), nullptr, 64);
        std::vector<float> logits(tokens.size() * static_cast<size_t>(shape.n_vocab));
        context.eval(tokens, true, logits.data());
        return logits;
    };
    EXPECT_LT(relative_error(logits_of(cuda_device(), Dtype::bf16), logits_of("reference", Dtype::f64)), 0.05);
}

}  // namespace
}  // namespace lorica
