// What derive() says about single blocks: formats, what is kept, what runs. No backend is needed for that.
#include "model/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "model/describe.h"

namespace lorica {
namespace {

using testing::ElementsAre;

Program block(const std::function<Value(Block &, Value)> & describe) {
    Shape s;
    s.n_layer = 1;
    s.n_embd = 64;
    Describe d(s);
    d.layers("blk.{}", "h.{}", [&](Block & b, Value x, int32_t) { return describe(b, x); });
    return d.done().kinds[0];
}

// Attention whose q and k have norms of their heads, as Qwen 3 has them.
Program with_head_norms() {
    return block([](Block & b, Value x) {
        const Value n1 = b.norm(x, Rms("n1", "n1", 1e-6));
        const auto [q0, k0, v] = b.linear(n1, Linear("q", "q", 64), Linear("k", "k", 32), Linear("v", "v", 32));
        const Value qn = b.norm(q0, Rms("qn", "qn", 1e-6).per_head(4));
        const Value kn = b.norm(k0, Rms("kn", "kn", 1e-6).per_head(2));
        const auto [q, k] = b.rope({{1, 0.5}, true, 16}, qn, kn);
        const Value o = b.attention(q, k, v, {4, 2, 16, 0.25});
        return b.linear(o, Linear("o", "o", 64), plus(x));
    });
}

TrainedSites on(const Program & program, std::initializer_list<int16_t> linears) {
    TrainedSites sites;
    sites.linears.resize(program.linears.size());
    for (const int16_t linear : linears) sites.linears[static_cast<size_t>(linear)] = TrainedSites::lora;
    return sites;
}

Wanted training(bool dx) {
    Wanted wanted;
    wanted.backward = true;
    wanted.dx = dx;
    return wanted;
}

const Call & only(const std::vector<Call> & calls, Call::Kind kind) {
    const Call * found = nullptr;
    for (const Call & call : calls) {
        if (call.kind != kind) continue;
        EXPECT_EQ(found, nullptr) << "there are two";
        found = &call;
    }
    if (!found) throw std::logic_error("there is none");
    return *found;
}

std::vector<int> kinds(const std::vector<Call> & calls) {
    std::vector<int> all;
    for (const Call & call : calls) all.push_back(call.kind);
    return all;
}

TEST(Schedule, TheGradientOfANormsOutputHasTheFormatOfItsInput) {
    const Program program = with_head_norms();
    const BlockPlan plan = derive(program, on(program, {0, 1, 2, 3}), training(true));
    const auto format = [&](SlotId slot) { return plan.slots[static_cast<size_t>(slot)].format; };
    EXPECT_EQ(format(only(plan.backward, Call::norm_linear_backward).d_normed), Format::hidden);
    int n = 0;
    for (const Call & call : plan.backward) {
        if (call.kind != Call::norm_backward) continue;
        EXPECT_EQ(format(call.dy), Format::act);
        EXPECT_EQ(format(call.dx), Format::act);
        ++n;
    }
    EXPECT_EQ(n, 2);
}

TEST(Schedule, WhatIsCheapIsMadeAgainAndItsInputsAreKept) {
    const Program program = with_head_norms();
    const BlockPlan plan = derive(program, on(program, {0}), training(true));
    std::vector<int64_t> kept;
    for (const Slot & slot : plan.slots) {
        if (slot.place == Slot::kept && !slot.is_u && slot.format == Format::act) kept.push_back(slot.cols);
    }
    EXPECT_THAT(kept, testing::UnorderedElementsAre(64, 32, 32, 64)) << "q, k, v before their norms, and o";
    EXPECT_THAT(kinds(plan.backward), ElementsAre(Call::linear_backward, Call::norm, Call::rope, Call::norm, Call::rope,
                                                  Call::attention_backward, Call::rope, Call::rope, Call::norm_backward,
                                                  Call::norm_backward, Call::norm_linear_backward));
}

TEST(Schedule, AFrozenLayerKeepsNothing) {
    const BlockPlan plan = derive(with_head_norms(), {}, {});
    EXPECT_TRUE(plan.backward.empty());
    for (const Slot & slot : plan.slots) EXPECT_NE(slot.place, Slot::kept);
}

TEST(Schedule, BackwardEndsAtTheLowestLayerThatIsTrained) {
    const Program program = with_head_norms();
    EXPECT_THAT(kinds(derive(program, on(program, {3}), training(false)).backward), ElementsAre(Call::linear_backward));
}

TEST(Schedule, ANormWaitsForAllWhoReadIt) {
    const Program program = block([](Block & b, Value x) {
        const Value n1 = b.norm(x, Rms("n1", "n1", 1e-6));
        const Value a = b.linear(n1, Linear("a", "a", 64), plus(x));
        const Value n2 = b.norm(a, Rms("n2", "n2", 1e-6));
        const Value c = b.linear(n2, Linear("c", "c", 64), plus(a));
        return b.linear(n1, Linear("d", "d", 64), plus(c));
    });
    EXPECT_THAT(kinds(derive(program, on(program, {0, 1, 2}), training(true)).backward),
                ElementsAre(Call::norm, Call::linear_backward, Call::norm, Call::linear_backward, Call::norm_backward,
                            Call::linear_backward, Call::norm_backward));
}

TEST(Schedule, SumsThatAreNoChainAreRefused) {
    EXPECT_THROW(block([](Block & b, Value x) {
                     const Value n1 = b.norm(x, Rms("n1", "n1", 1e-6));
                     const Value a = b.linear(n1, Linear("a", "a", 64), plus(x));
                     const Value n2 = b.norm(a, Rms("n2", "n2", 1e-6));
                     return b.linear(n2, Linear("c", "c", 64), plus(x));
                 }),
                 Error);
}

}  // namespace
}  // namespace lorica
