// Activated LoRAs (aLoRA): added from the last invocation in a text on, in training, in a cache that grows, and beside
// other adapters. What PEFT computes with them is in model_golden_test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "common/error.h"
#include "generate/context.h"
#include "gguf/gguf_file.h"
#include "support/training.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;
using testing::HasSubstr;

const std::vector<int32_t> invocation{5, 9, 7}, other_invocation{8, 8};

struct ActivatedLoraTest : testing::Test {
    TempDir dir;
    TestModel shape;
    std::string path = write_test_model(dir / "model.gguf", shape);
    std::shared_ptr<const Model> model = load(path, "cpu", Dtype::f32);

    static AdapterConfig config(std::vector<int32_t> tokens = invocation,
                                const std::string & targets = "all-linear,lm_head") {
        AdapterConfig config;
        config.rank = 4;
        config.alpha = 8;
        config.target_modules = targets;
        config.invocation_tokens = std::move(tokens);
        return config;
    }
    static SessionConfig session_config(Recomputation recomputation = Recomputation::off) {
        SessionConfig config;
        config.max_tokens = 64;
        config.recomputation = recomputation;
        return config;
    }
    // Random tokens, with the invocation where it is wanted.
    static std::vector<int32_t> text(uint64_t seed, int32_t n, const std::vector<size_t> & at,
                                     const std::vector<int32_t> & tokens = invocation) {
        std::vector<int32_t> ids = random_batch(seed, {n}, 290).tokens;
        for (int32_t & id : ids) id += 10;
        for (const size_t i : at) std::copy(tokens.begin(), tokens.end(), ids.begin() + static_cast<ptrdiff_t>(i));
        return ids;
    }
    static Batch batch_of(const std::vector<std::vector<int32_t>> & texts) {
        Batch batch;
        for (const std::vector<int32_t> & ids : texts) {
            batch.tokens.insert(batch.tokens.end(), ids.begin(), ids.end());
            batch.labels.insert(batch.labels.end(), ids.begin() + 1, ids.end());
            batch.labels.push_back(-100);
            batch.sequence_lengths.push_back(static_cast<int32_t>(ids.size()));
        }
        return batch;
    }
    // Of the text at once, in a cache of its own; or of its last token alone.
    std::vector<float> logits(const std::vector<Adapter::Part> & parts, std::span<const int32_t> ids, bool all) const {
        Context context(model, nullptr, 64);
        context.set_adapters(parts);
        std::vector<float> values((all ? ids.size() : 1) * static_cast<size_t>(shape.n_vocab));
        context.eval(ids, all, values.data());
        return values;
    }
    std::vector<float> row(const std::vector<float> & logits, size_t i) const {
        const auto n = static_cast<ptrdiff_t>(shape.n_vocab), at = static_cast<ptrdiff_t>(i) * n;
        return {logits.begin() + at, logits.begin() + at + n};
    }
    static std::string error_of(const std::function<void()> & call) {
        try {
            call();
        } catch (const Error & e) {
            return e.what();
        }
        return "no error";
    }
};

TEST_F(ActivatedLoraTest, TokensBeforeTheLastInvocationAreTheBasesAndThoseFromThereOnALorasAsIfItBeganThere) {
    const auto adapter = busy_adapter(model, config());
    AdapterConfig plain_config = config({});
    const auto plain = busy_adapter(model, plain_config);
    const std::vector<int32_t> ids = text(1, 30, {4, 17});
    const std::vector<float> actual = logits({{adapter, 1}}, ids, true), base = logits({}, ids, true);
    for (size_t i = 0; i < 17; ++i) EXPECT_EQ(row(actual, i), row(base, i)) << i;
    for (size_t i = 17; i < 30; ++i) EXPECT_GT(relative_error(row(actual, i), row(base, i)), 0.01) << i;
    // The same keys and values before it, and the LoRA for all tokens behind them.
    const std::vector<int32_t> without = text(1, 30, {});
    EXPECT_EQ(logits({{adapter, 1}}, without, true), logits({}, without, true));
    const std::vector<int32_t> from_the_start = text(1, 30, {0});
    EXPECT_LE(relative_error(logits({{adapter, 1}}, from_the_start, true), logits({{plain, 1}}, from_the_start, true)),
              1e-6);
}

TEST_F(ActivatedLoraTest, ATextThatGrowsHasTheLogitsOfTheTextSoFar) {
    const auto adapter = busy_adapter(model, config());
    const std::vector<Adapter::Part> parts = {{adapter, 1}};
    const std::vector<int32_t> ids = text(2, 40, {3, 12, 30});
    Context context(model, adapter, 64);
    std::vector<float> last(static_cast<size_t>(shape.n_vocab));
    const auto expect_as_alone = [&](size_t n) {
        EXPECT_EQ(context.n_past(), static_cast<int32_t>(n));
        EXPECT_LE(relative_error(last, logits(parts, std::span(ids).first(n), false)), 2e-6) << n << " tokens";
    };
    for (size_t done = 0; done < ids.size();) {  // token by token, and pieces that cut the invocation
        const size_t n = done == 13 ? 9 : done == 22 ? 7 : 1;
        context.eval(std::span(ids).subspan(done, n), false, last.data());
        expect_as_alone(done += n);
    }
    // Another turn: back to before the last invocation, where the one before counts again.
    context.truncate(25);
    context.eval(std::span(ids).subspan(25, 3), false, last.data());
    expect_as_alone(28);
    context.truncate(1);
    context.eval(std::span(ids).subspan(1, 4), false, last.data());
    expect_as_alone(5);
    context.eval(std::span(ids).subspan(5, 35), false, last.data());
    expect_as_alone(40);
}

TEST_F(ActivatedLoraTest, TextsOfManySlotsHaveEachItsOwnAndArePartOfSums) {
    for (const auto & [device, act, tolerance] :
         {std::tuple{"reference", Dtype::f64, 1e-6}, std::tuple{"cpu", Dtype::f32, 3e-6}}) {
        model = load(path, device, act);
        const auto one = busy_adapter(model, config()), other = busy_adapter(model, config(other_invocation, "q_proj")),
                   plain = busy_adapter(model, config({}, "v_proj,lm_head"));
        const std::vector<std::vector<Adapter::Part>> sets = {
            {{one, 1}}, {{plain, 1}}, {}, {{other, 0.5}}, {{one, 1}, {plain, -1}, {other, 2}}, {{one, 1}}};
        std::vector<std::vector<int32_t>> texts;
        for (size_t i = 0; i < sets.size(); ++i) texts.push_back(text(10 + i, 24, {6, 14 + i}));
        std::copy(other_invocation.begin(), other_invocation.end(), texts[3].begin() + 10);
        std::copy(other_invocation.begin(), other_invocation.end(), texts[4].begin() + 2);
        Context context(model, nullptr, 32, static_cast<int32_t>(sets.size()));
        for (size_t i = 0; i < sets.size(); ++i) context.set_adapters(sets[i], static_cast<int32_t>(i));
        const auto n_vocab = static_cast<size_t>(shape.n_vocab);
        std::vector<float> last(sets.size() * n_vocab);
        for (size_t done = 0; done < 24;) {
            const size_t n = done == 0 ? 9 : 1;
            std::vector<Context::Append> appends;
            for (size_t i = 0; i < sets.size(); ++i)
                appends.push_back({static_cast<int32_t>(i), std::span(texts[i]).subspan(done, n)});
            context.eval(appends, last.data());
            done += n;
            for (size_t i = 0; i < sets.size(); ++i) {
                EXPECT_LE(relative_error(row(last, i), logits(sets[i], std::span(texts[i]).first(done), false)),
                          tolerance)
                    << device << " text " << i << " of " << done;
            }
        }
        // What slot 5 takes over from slot 0 goes on as there.
        context.copy(0, 5, 20);
        const Context::Append more{5, std::span(texts[0]).subspan(20, 4)};
        context.eval({&more, 1}, last.data());
        EXPECT_LE(relative_error(row(last, 0), logits(sets[0], texts[0], false)), tolerance);
        EXPECT_GT(relative_error(row(last, 0), logits({}, texts[0], false)), 0.01);
    }
}

TEST_F(ActivatedLoraTest, GradientsEqualFiniteDifferences) {
    model = load(path, "reference", Dtype::f64);
    const auto adapter = busy_adapter(model, config());
    const Batch batch = batch_of({text(3, 14, {2, 7}), text(4, 5, {}), text(5, 9, {6})});
    std::vector<std::vector<float>> exact;
    {
        Session session(adapter, session_config());
        session.forward_backward(batch.view());
        exact = gradients(session);
    }
    constexpr double step = 0x1p-11;
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const auto tensor = adapter->tensor(i);
        const std::vector<float> start = adapter->read(i), &gradient = exact[static_cast<size_t>(i)];
        std::vector<float> direction(start.size());
        double predicted = 0, size = 0;
        for (size_t j = 0; j < direction.size(); ++j) {
            direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
            predicted += double{gradient[j]} * direction[j];
            size += std::abs(double{gradient[j]});
        }
        const auto loss_at = [&](double steps) {
            std::vector<float> moved = start;
            for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
            adapter->write(adapter->params(), i, moved.data());
            return Session(adapter, session_config()).evaluate(batch.view(), {}).loss_sum;
        };
        const double measured = (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * step);
        adapter->write(adapter->params(), i, start.data());
        EXPECT_LE(std::abs(measured - predicted), 1e-6 * std::max(std::abs(predicted), 0.05 * size)) << tensor.name;
        EXPECT_GT(size, 0) << tensor.name;
    }
}

TEST_F(ActivatedLoraTest, SequencesOfABatchAreAsAloneOnAllDevicesAndRecomputed) {
    const std::vector<std::vector<int32_t>> texts = {text(3, 14, {2, 7}), text(4, 5, {}), text(5, 20, {6})};
    std::vector<std::vector<float>> expected;
    for (const auto & [device, act, recomputation, tolerance] :
         {std::tuple{"reference", Dtype::f64, Recomputation::off, 0.0},
          std::tuple{"cpu", Dtype::f32, Recomputation::off, 1e-5},
          std::tuple{"cpu", Dtype::f32, Recomputation::on, 1e-5},
          std::tuple{"cpu", Dtype::bf16, Recomputation::on, 3e-2}}) {
        model = load(path, device, act);
        const auto adapter = busy_adapter(model, config());
        Session session(adapter, session_config(recomputation));
        const Batch all = batch_of(texts);
        double sum = session.forward_backward(all.view()).loss_sum;
        if (expected.empty()) expected = gradients(session);
        const auto together = gradients(session);
        session.zero_gradients();
        std::vector<float> nll(all.tokens.size());
        for (size_t i = 0; i < texts.size(); ++i) {  // one by one, in two halves
            const Batch one = part(all, i);
            std::vector<float> token_nll(one.tokens.size());
            sum -= session.forward(one.view(), token_nll).loss_sum;
            session.backward(std::vector<float>(one.tokens.size(), 1.0f));
        }
        // A text of few tokens meets the weights as they are, a batch of many a copy of them in bf16.
        EXPECT_LE(std::abs(sum), act == Dtype::bf16 ? 5e-2 : 1e-3);
        const auto one_by_one = gradients(session);
        for (size_t i = 0; i < expected.size(); ++i) {
            EXPECT_LE(relative_error(together[i], expected[i]), tolerance) << device << " tensor " << i;
            EXPECT_LE(relative_error(one_by_one[i], expected[i]), std::max(tolerance, 1e-6))
                << device << " tensor " << i;
        }
        // An evaluation sees the same; without the adapter it is the base's.
        const double evaluated = session.evaluate(all.view(), nll).loss_sum;
        EXPECT_GT(std::abs(session.evaluate(all.view(), nll, false).loss_sum - evaluated), 1e-2);
        // Of a text without the invocation nothing is learned, and nothing changed.
        session.zero_gradients();
        const Batch plain = batch_of({text(6, 12, {})});
        const double loss = session.forward_backward(plain.view()).loss_sum;
        EXPECT_NEAR(loss, session.evaluate(plain.view(), {}, false).loss_sum, 1e-3);
        for (const std::vector<float> & gradient : gradients(session))
            EXPECT_EQ(gradient, std::vector<float>(gradient.size()));
    }
}

TEST_F(ActivatedLoraTest, ASavedOneIsLoadedAsItWasAndASumOfSuchHasTheirInvocation) {
    const auto adapter = busy_adapter(model, config());
    const std::vector<int32_t> ids = text(7, 20, {9});
    adapter->save(dir / "adapter.gguf");
    // As llama.cpp reads it: an array of unsigned numbers.
    const GgufFile file = GgufFile::open(dir / "adapter.gguf");
    EXPECT_EQ(file.find_ints("adapter.alora.invocation_tokens"), (std::vector<int64_t>{5, 9, 7}));
    const auto loaded = Adapter::load(model, dir / "adapter.gguf");
    EXPECT_EQ(loaded->config().invocation_tokens, invocation);
    EXPECT_EQ(logits({{loaded, 1}}, ids, true), logits({{adapter, 1}}, ids, true));

    const std::vector<Adapter::Part> halves = {{adapter, 0.5}, {loaded, 0.5}};
    const auto sum = Adapter::stack(model, halves);
    EXPECT_EQ(sum->config().invocation_tokens, invocation);
    EXPECT_LE(relative_error(logits({{sum, 1}}, ids, true), logits({{adapter, 1}}, ids, true)), 1e-6);
}

TEST_F(ActivatedLoraTest, PissaTakesNothingAwayWhereItIsNotAdded) {
    AdapterConfig pissa = config(invocation, "q_proj,down_proj");
    pissa.init = LoraInit::pissa;
    const auto adapter = Adapter::create(model, pissa);
    const std::vector<int32_t> ids = text(8, 20, {9});
    EXPECT_LE(relative_error(logits({{adapter, 1}}, ids, true), logits({}, ids, true)), 1e-5);
}

TEST_F(ActivatedLoraTest, WhatItCannotBeIsRefused) {
    const auto refusal = [&](const std::function<void(AdapterConfig &)> & change) {
        AdapterConfig changed = config(invocation, "q_proj");
        change(changed);
        return error_of([&] { Adapter::create(model, changed); });
    };
    EXPECT_THAT(refusal([](AdapterConfig & c) { c.use_dora = true; }), HasSubstr("DoRA"));
    EXPECT_THAT(refusal([](AdapterConfig & c) { c.classifier.n_outputs = 2; }), HasSubstr("classified"));
    EXPECT_THAT(refusal([](AdapterConfig & c) { c.method = Method::ia3; }), HasSubstr("only a LoRA"));
    EXPECT_THAT(refusal([](AdapterConfig & c) { c.invocation_tokens = {3, 300}; }), HasSubstr("token 300"));
    const auto one = busy_adapter(model, config()), other = busy_adapter(model, config(other_invocation));
    EXPECT_THAT(error_of([&] { merge_model(*model, one.get(), dir / "merged.gguf", {"F32", 1}); }),
                HasSubstr("before its invocation"));
    const std::vector<Adapter::Part> both = {{one, 1}, {other, 1}};
    EXPECT_THAT(error_of([&] { Adapter::stack(model, both); }), HasSubstr("different tokens"));
}

}  // namespace
}  // namespace lorica
