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

// Texts of several slots, each with its own adapters: begun by a prompt each, then gone on with together, a token of
// each at a time. By slot: logits of the last token of the prompt and of each token behind it.
struct Texts {
    std::vector<std::vector<int32_t>> tokens;
    static constexpr size_t n_prompt = 7;

    std::vector<std::vector<float>> together(Context & context, const std::vector<std::vector<Adapter::Part>> & sets,
                                             int32_t n_vocab) const {
        std::vector<Context::Append> appends;
        for (size_t i = 0; i < sets.size(); ++i) {
            context.set_adapters(sets[i], static_cast<int32_t>(i));
            appends.push_back({static_cast<int32_t>(i), std::span(tokens[i]).first(n_prompt)});
        }
        std::vector<std::vector<float>> result(sets.size());
        const auto step = [&] {
            std::vector<float> logits(sets.size() * static_cast<size_t>(n_vocab));
            context.eval(appends, logits.data());
            for (size_t i = 0; i < sets.size(); ++i) {
                const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(i) * n_vocab;
                result[i].insert(result[i].end(), begin, begin + n_vocab);
            }
        };
        step();
        for (size_t t = n_prompt; t < tokens[0].size(); ++t) {
            for (size_t i = 0; i < sets.size(); ++i) appends[i].tokens = std::span(tokens[i]).subspan(t, 1);
            step();
        }
        return result;
    }

    std::vector<float> alone(std::shared_ptr<const Model> model, size_t i,
                             const std::vector<Adapter::Part> & set) const {
        const auto n_vocab = static_cast<size_t>(model->shape().n_vocab);
        Context context(std::move(model), nullptr, 32);
        context.set_adapters(set);
        std::vector<float> all, logits(n_vocab);
        for (size_t t = 0; t < tokens[i].size();) {
            const size_t n = t == 0 ? n_prompt : 1;
            context.eval(std::span(tokens[i]).subspan(t, n), false, logits.data());
            all.insert(all.end(), logits.begin(), logits.end());
            t += n;
        }
        return all;
    }

    static Texts random(size_t n, int32_t n_vocab) {
        Texts texts;
        for (size_t i = 0; i < n; ++i) texts.tokens.push_back(random_batch(40 + i, {19}, n_vocab).tokens);
        return texts;
    }
};

TEST_F(ContextAdaptersTest, TextsWithAdaptersOfTheirOwnAreComputedTogetherAsEachIsAlone) {
    for (const auto & [device, act, tolerance] :
         {std::tuple{"reference", Dtype::f64, 1e-6}, std::tuple{"cpu", Dtype::f32, 2e-6},
          std::tuple{"cpu", Dtype::bf16, 2e-2}}) {
        const auto model = load(path, device, act);
        const auto a = one(model), b = other(model);
        const auto head = busy_adapter(model, config(2, 6, "q_proj,lm_head"));
        const std::vector<std::vector<Adapter::Part>> sets = {{{a, 1}},   {}, {{b, 1}}, {{a, 1}}, {{a, 0.5}, {b, -1}},
                                                              {{head, 1}}};
        const Texts texts = Texts::random(sets.size(), shape.n_vocab);
        Context context(model, nullptr, 32, static_cast<int32_t>(sets.size()));
        const auto together = texts.together(context, sets, shape.n_vocab);
        for (size_t i = 0; i < sets.size(); ++i)
            EXPECT_LE(relative_error(together[i], texts.alone(model, i, sets[i])), tolerance)
                << device << " text " << i;
        EXPECT_GT(relative_error(together[0], texts.alone(model, 0, {})), 0.03);
    }
}

TEST_F(ContextAdaptersTest, WhatIsNoSumGoesOnBesideTheOthersByItself) {
    const auto model = load(path, "cpu", Dtype::f32);
    const auto a = one(model), b = other(model);
    AdapterConfig dora = config(3, 6, "all-linear"), ia3;
    dora.use_dora = true;
    ia3.method = Method::ia3;
    ia3.target_modules = "k_proj,v_proj,down_proj";
    ia3.feedforward_modules = "down_proj";
    const std::vector<std::vector<Adapter::Part>> sets = {
        {{busy_adapter(model, dora), 1}}, {{a, 1}}, {{busy_adapter(model, ia3), 1}}, {{b, 1}}, {}};
    const Texts texts = Texts::random(sets.size(), shape.n_vocab);
    Context context(model, nullptr, 32, static_cast<int32_t>(sets.size()));
    const auto together = texts.together(context, sets, shape.n_vocab);
    for (size_t i = 0; i < sets.size(); ++i)
        EXPECT_LE(relative_error(together[i], texts.alone(model, i, sets[i])), 2e-6) << "text " << i;
}

TEST_F(ContextAdaptersTest, ASlotIsGivenOtherAdaptersWhileTheOthersGoOn) {
    const auto model = load(path, "reference", Dtype::f64);
    const auto a = one(model), b = other(model);
    Context context(model, nullptr, 32, 2);
    const Texts texts = Texts::random(2, shape.n_vocab);
    const auto first = texts.together(context, {{{a, 1}}, {{b, 1}}}, shape.n_vocab);
    context.truncate(5, 0);
    context.set_adapters({}, 1);
    EXPECT_EQ(context.n_past(0), 5);
    EXPECT_EQ(context.n_past(1), 0);
    EXPECT_THAT(error_of([&] { context.copy(0, 1, 5); }), HasSubstr("different adapters"));
    // b changes while no slot has it, and is seen as it is then.
    b->set_scale_factor(2);
    const auto again = texts.together(context, {{{a, 1}}, {{b, 1}}}, shape.n_vocab);
    EXPECT_LE(relative_error(again[0], first[0]), 1e-9);
    EXPECT_LE(relative_error(again[1], texts.alone(model, 1, {{b, 1}})), 1e-6);
    EXPECT_GT(relative_error(again[1], first[1]), 0.02);
}

TEST_F(ContextAdaptersTest, VirtualTokensAreThoseOfAllTextsOfACacheOrOfNone) {
    const auto model = load(path, "cpu", Dtype::f32);
    AdapterConfig prefix;
    prefix.method = Method::prefix_tuning;
    prefix.n_virtual_tokens = 3;
    const auto virtual_tokens = Adapter::create(model, prefix);
    const std::vector<Adapter::Part> set = {{virtual_tokens, 1}};
    Context context(model, nullptr, 32, 2);
    EXPECT_THAT(error_of([&] { context.set_adapters(set, 1); }), HasSubstr("a cache of its own"));
    context.set_adapters(set);
    EXPECT_THAT(error_of([&] { context.set_adapters({}, 1); }), HasSubstr("a cache of its own"));
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
