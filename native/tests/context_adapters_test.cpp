// Several adapters at run time: what a context computes with a set of them, and that it can be given another set at any
// time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapter/targets.h"

#include <functional>
#include <limits>

#include "common/error.h"
#include "generate/context.h"
#include "support/training.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;
using testing::HasSubstr;

struct ContextAdaptersTest : testing::Test {
    TempDir dir;
    TestModel shape;
    std::string path = write_test_model(dir / "model.gguf", shape);
    std::vector<int32_t> tokens = random_batch(3, {21}, shape.n_vocab).tokens;

    static AdapterConfig config(int32_t rank, double alpha, const std::string & targets, bool rslora = false) {
        AdapterConfig config;
        config.rank = rank;
        config.alpha = alpha;
        config.target_modules = targets;
        config.use_rslora = rslora;
        return config;
    }
    // They share some layers, and each has some of its own.
    static std::shared_ptr<Adapter> one(std::shared_ptr<const Model> model) {
        return busy_adapter(std::move(model), config(4, 8, "all-linear"));
    }
    static std::shared_ptr<Adapter> other(std::shared_ptr<const Model> model) {
        auto adapter = busy_adapter(std::move(model), config(3, 12, "q_proj,down_proj:5", true));
        for (int32_t i = 1; i < adapter->n_tensors(); i += 2) {
            const auto tensor = adapter->tensor(i);
            adapter->write(adapter->params(), i,
                           exact_values(70 + static_cast<uint64_t>(i), tensor.rows * tensor.cols, 0.08).data());
        }
        return adapter;
    }

    std::vector<float> logits(Context & context) const {
        std::vector<float> result(tokens.size() * static_cast<size_t>(shape.n_vocab));
        const std::span<const int32_t> all(tokens);
        // A prompt and single tokens: products of many rows and of one take different ways.
        context.eval(all.first(15), true, result.data());
        for (size_t t = 15; t < tokens.size(); ++t) {
            context.eval(all.subspan(t, 1), true, result.data() + t * static_cast<size_t>(shape.n_vocab));
        }
        return result;
    }
    std::vector<float> logits(std::shared_ptr<const Model> model, std::shared_ptr<const Adapter> adapter) const {
        Context context(std::move(model), std::move(adapter), 32);
        return logits(context);
    }
    std::vector<float> logits(std::shared_ptr<const Model> model, const std::vector<Adapter::Part> & parts) const {
        Context context(std::move(model), nullptr, 32);
        context.set_adapters(parts);
        return logits(context);
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

TEST_F(ContextAdaptersTest, ASetOfAdaptersIsTheirSumMergedIntoTheModelOneAfterTheOther) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto a = one(model), b = other(model);
    const std::vector<float> actual = logits(model, {{a, 1.5}, {b, -0.5}});

    a->set_scale_factor(1.5);
    merge_model(*model, a.get(), dir / "a.gguf", {"F32", 2});
    const auto with_a = load(dir / "a.gguf", "cpu", Dtype::f32);
    const auto b_again = other(with_a);
    b_again->set_scale_factor(-0.5);
    merge_model(*with_a, b_again.get(), dir / "ab.gguf", {"F32", 2});
    const std::vector<float> expected = logits(load(dir / "ab.gguf", "cpu", Dtype::f32), nullptr);

    EXPECT_LE(relative_error(actual, expected), 2e-6);
    EXPECT_GT(relative_error(logits(model, {{a, 1}}), expected), 0.02);
    EXPECT_GT(relative_error(logits(model, {{b, -0.5}}), expected), 0.02);
}

TEST_F(ContextAdaptersTest, OneAdapterGivesTheSameBitsAsAContextMadeWithIt) {
    for (const Dtype act : {Dtype::bf16, Dtype::f32}) {
        const auto model = load(path, "cpu", act);
        const auto a = one(model);
        EXPECT_EQ(logits(model, {{a, 1}}), logits(model, a));
    }
}

TEST_F(ContextAdaptersTest, AnyNumberOfThreadsGivesTheSameBits) {
    for (const Dtype act : {Dtype::bf16, Dtype::f32}) {
        const auto alone = load(path, "cpu", act, 1);
        const std::vector<float> expected = logits(alone, nullptr), adapted = logits(alone, one(alone));
        for (const int32_t threads : {2, 3}) {
            const auto model = load(path, "cpu", act, threads);
            EXPECT_EQ(logits(model, nullptr), expected) << threads << " threads";
            EXPECT_EQ(logits(model, one(model)), adapted) << threads << " threads";
        }
    }
}

TEST_F(ContextAdaptersTest, ContextsOfAModelShareItsArrangedWeightsWhileAnyOfThemLives) {
    shape.type = GGML_TYPE_Q4_0;
    const auto model = load(write_test_model(dir / "q4_0.gguf", shape), "cpu", Dtype::bf16, 2);
    std::weak_ptr<const ArrangedWeights> seen;
    const auto arranged = [&] { return model->arranged_weights(*model->new_backend()); };
    {
        Context first(model, nullptr, 32), second(model, nullptr, 32);
        const std::vector<float> expected = logits(first);
        seen = arranged();
        ASSERT_FALSE(seen.expired());
        EXPECT_EQ(logits(second), expected);
        EXPECT_EQ(arranged(), seen.lock());
    }
    EXPECT_TRUE(seen.expired());
}

TEST_F(ContextAdaptersTest, AFactorIsThatOfSetScale) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto a = one(model);
    const std::vector<float> actual = logits(model, {{a, 0.25}});
    a->set_scale_factor(0.25);
    EXPECT_LE(relative_error(actual, logits(model, a)), 1e-6);
    // and both at once
    EXPECT_LE(relative_error(logits(model, {{a, 4}}), logits(model, one(model))), 1e-6);
}

TEST_F(ContextAdaptersTest, HalfAnAdapterTwiceIsTheWholeAndAnOppositeTakesItAway) {
    const auto model = load(path, "reference", Dtype::f64);
    const auto a = one(model), b = other(model);
    EXPECT_LE(relative_error(logits(model, {{a, 0.5}, {b, 0}, {a, 0.5}}), logits(model, a)), 1e-6);
    EXPECT_LE(relative_error(logits(model, {{a, 1}, {a, -1}}), logits(model, nullptr)), 1e-6);
}

TEST_F(ContextAdaptersTest, OneContextIsGivenOneSetAfterTheOther) {
    for (const Dtype act : {Dtype::bf16, Dtype::f32}) {
        const auto model = load(path, "cpu", act);
        const auto a = one(model), b = other(model);
        Context context(model, nullptr, 32);
        const std::vector<float> base = logits(context);
        const std::vector<std::vector<Adapter::Part>> sets = {
            {{a, 1}}, {{a, 1}, {b, 2}}, {}, {{b, 1}, {a, 1}, {b, 0.5}}, {{b, 1}}};
        for (const auto & set : sets) {
            context.set_adapters(set);
            EXPECT_EQ(context.n_past(), 0);
            EXPECT_EQ(logits(context), logits(model, set)) << set.size();
        }
        context.set_adapters({});
        EXPECT_EQ(logits(context), base);
    }
}

TEST_F(ContextAdaptersTest, ASingleAdapterIsFollowedASumIsACopy) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto a = one(model), b = other(model);
    Context live(model, nullptr, 32), copy(model, nullptr, 32);
    live.set_adapters(std::vector<Adapter::Part>{{a, 1}});
    copy.set_adapters(std::vector<Adapter::Part>{{a, 1}, {b, 1}});
    const std::vector<float> before = logits(live), both = logits(copy);
    a->set_scale_factor(3);
    live.truncate(0);
    copy.truncate(0);
    EXPECT_EQ(logits(live), logits(model, a));
    EXPECT_GT(relative_error(logits(model, a), before), 0.02);
    EXPECT_EQ(logits(copy), both);
}

TEST_F(ContextAdaptersTest, AStackedAdapterIsSavedAndLoadedAsOne) {
    const auto model = load(path, "cpu", Dtype::f32);
    const std::vector<Adapter::Part> parts = {{one(model), 1.5}, {other(model), -0.5}};
    const auto stack = Adapter::stack(model, parts);
    const auto rank_of = [&](const std::string & name) {
        const LinearPlace place = *find_linear(model->architecture(), name);
        return stack->find(place.layer, place.linear)->rank;
    };
    EXPECT_EQ(rank_of("blk.0.attn_q"), 4 + 3);
    EXPECT_EQ(rank_of("blk.0.ffn_down"), 4 + 5);
    EXPECT_EQ(rank_of("blk.0.attn_v"), 4);
    stack->save(dir / "stack.gguf");
    EXPECT_EQ(logits(model, Adapter::load(model, dir / "stack.gguf")), logits(model, parts));
}

TEST_F(ContextAdaptersTest, WhatDoesNotFitIsRefusedAndChangesNothing) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto a = one(model), foreign = one(load(path, "cpu", Dtype::f32));
    Context context(model, a, 32);
    const std::vector<float> before = logits(context);
    const auto set = [&](std::vector<Adapter::Part> parts) { return error_of([&] { context.set_adapters(parts); }); };
    EXPECT_THAT(set({{foreign, 1}}), HasSubstr("another model handle"));
    EXPECT_THAT(set({{a, 1}, {foreign, 1}}), HasSubstr("another model handle"));
    EXPECT_THAT(set({{a, std::numeric_limits<double>::quiet_NaN()}}), HasSubstr("must be finite"));
    EXPECT_THAT(set({{a, 1}, {a, std::numeric_limits<double>::infinity()}}), HasSubstr("must be finite"));
    EXPECT_EQ(context.n_past(), static_cast<int32_t>(tokens.size()));
    context.truncate(0);
    EXPECT_EQ(logits(context), before);
}

}  // namespace
}  // namespace lorica
