// Caches of layers with a window: as long as the window and a piece of a prompt, and whoever goes through them gets
// what the whole text gives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "generate/context.h"
#include "support/families.h"
#include "support/training.h"

namespace lorica {
namespace {

using namespace test;

constexpr int32_t n_ctx = 1500, n_text = 1400, piece = 512, window = 6;

class EveryWindowedFamily : public testing::TestWithParam<Family> {
protected:
    EveryWindowedFamily()
        : model(load(write_test_model(dir_ / "model.gguf", GetParam().shape), "cpu", Dtype::f32)),
          text(random_batch(9, {n_text}, GetParam().shape.n_vocab)) {
        Session session(busy_adapter(model, {}), session_config());
        text.labels.assign(text.tokens.begin() + 1, text.tokens.end());
        text.labels.push_back(-100);
        losses.resize(text.tokens.size());
        adapter = busy_adapter(model, {});
        session.evaluate(text.view(), losses);
    }

    static SessionConfig session_config() {
        SessionConfig config;
        config.max_tokens = n_text;
        return config;
    }
    std::span<const int32_t> tokens(int32_t first, int32_t n) const {
        return std::span<const int32_t>(text.tokens).subspan(static_cast<size_t>(first), static_cast<size_t>(n));
    }
    // -log p of the token that comes next, of tokens `first` and those behind.
    void expect_losses(const std::vector<float> & logits, int32_t first) const {
        const auto n_vocab = static_cast<size_t>(GetParam().shape.n_vocab);
        for (size_t row = 0; row < logits.size() / n_vocab; ++row) {
            const size_t at = static_cast<size_t>(first) + row;
            if (text.labels[at] < 0) continue;
            double sum = 0;
            for (size_t i = 0; i < n_vocab; ++i) sum += std::exp(double{logits[row * n_vocab + i]});
            const double loss = std::log(sum) - double{logits[row * n_vocab + static_cast<size_t>(text.labels[at])]};
            ASSERT_NEAR(loss, losses[at], 1e-4 * std::abs(losses[at]) + 1e-5) << "token " << at;
        }
    }
    // Appends and compares.
    void go_on(Context & context, int32_t n) const {
        std::vector<float> logits(static_cast<size_t>(n) * static_cast<size_t>(GetParam().shape.n_vocab));
        const int32_t first = context.n_past();
        context.eval(tokens(first, n), true, logits.data());
        expect_losses(logits, first);
    }

    TempDir dir_;
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Adapter> adapter;
    Batch text;
    std::vector<float> losses;
};

TEST_P(EveryWindowedFamily, GivesTheLossesOfTheWholeTextThroughCachesAsLongAsTheWindow) {
    Context context(model, adapter, n_ctx);
    for (const int32_t n : {1, 700, 1, 1, 30, 513, 1, 7, 100, 1, 45}) go_on(context, n);
    ASSERT_EQ(context.n_past(), n_text);
}

TEST_P(EveryWindowedFamily, HasRowsForTheWindowAndAPieceInTheLayersThatHaveOne) {
    int64_t rows = 0, cols = 0;
    for (int32_t l = 0; l < model->shape().n_layer; ++l) {
        const AttentionSpec & attention = model->architecture().layer(l).attentions.front();
        const bool has_window = attention.mask.back != MaskSpec::all;
        rows += has_window ? window - 1 + piece : n_ctx;
        cols = int64_t{attention.n_head_kv} * attention.head_dim;
    }
    ASSERT_LT(rows, int64_t{model->shape().n_layer} * n_ctx);
    EXPECT_EQ(Context(model, adapter, n_ctx).cache_bytes(), static_cast<size_t>(2 * rows * cols) * sizeof(float));
    EXPECT_EQ(Context(model, adapter, n_ctx, 3).cache_bytes(), static_cast<size_t>(6 * rows * cols) * sizeof(float));
    // Too short for a window to move in.
    EXPECT_EQ(Context(model, adapter, 300).cache_bytes(),
              static_cast<size_t>(2 * 300 * cols * model->shape().n_layer) * sizeof(float));
}

TEST_P(EveryWindowedFamily, GoesOnFromWhereItWasCutOrSaysThatNothingIsLeft) {
    Context context(model, adapter, n_ctx);
    go_on(context, 300);
    context.truncate(17);  // nothing has moved yet
    EXPECT_EQ(context.n_past(), 17);
    go_on(context, 700);
    go_on(context, 200);
    context.truncate(910);
    EXPECT_EQ(context.n_past(), 910);
    go_on(context, 90);
    context.truncate(500);  // its window is gone
    EXPECT_EQ(context.n_past(), 0);
    go_on(context, 1100);
    context.truncate(1099);
    EXPECT_EQ(context.n_past(), 1099);
    go_on(context, 1);
}

TEST_P(EveryWindowedFamily, ManyTextsMoveEachByItself) {
    const auto n_vocab = static_cast<size_t>(GetParam().shape.n_vocab);
    Context context(model, adapter, n_ctx, 3);
    const auto append = [&](const std::vector<std::pair<int32_t, int32_t>> & slots) {
        std::vector<Context::Append> appends;
        for (const auto & [slot, n] : slots) appends.push_back({slot, tokens(context.n_past(slot), n)});
        std::vector<float> logits(appends.size() * n_vocab);
        context.eval(appends, logits.data());
        for (size_t i = 0; i < slots.size(); ++i) {
            const auto row = logits.begin() + static_cast<std::ptrdiff_t>(i * n_vocab);
            expect_losses({row, row + static_cast<std::ptrdiff_t>(n_vocab)}, context.n_past(slots[i].first) - 1);
        }
    };
    append({{2, 900}, {0, 3}});
    append({{0, 600}, {1, 1}, {2, 1}});
    context.copy(2, 1, 901);
    EXPECT_EQ(context.n_past(1), 901);
    append({{1, 1}, {2, 300}, {0, 1}});
    append({{0, 1}, {1, 1}, {2, 1}});
    context.copy(2, 0, 700);  // what it would see is gone
    EXPECT_EQ(context.n_past(0), 0);
    append({{0, 2}, {1, 400}});
    context.set_adapters(std::vector<Adapter::Part>{{adapter, 1}});
    append({{0, 1}, {1, 520}, {2, 40}});
}

std::vector<Family> windowed() {
    std::vector<Family> all = families();
    std::erase_if(all, [](const Family & one) {
        return one.name != "mistral_window" && one.name != "gemma2" && one.name != "gemma3" && one.name != "olmo3";
    });
    return all;
}

INSTANTIATE_TEST_SUITE_P(Windows, EveryWindowedFamily, testing::ValuesIn(windowed()),
                         [](const auto & info) { return info.param.name; });

}  // namespace
}  // namespace lorica
