// One task of the forward pass of attention on one thread, written once for every instruction set.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_forward.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <limits>

#include "backend/cpu/attention_block-inl.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_products-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

struct PanelStatistics {
    float *max, *sum, *alpha;
    const int32_t *lowest, *limit;
};

// P^T = 2^(scale S^T log2 e - max) over n keys from n0, with the sum of each row and about its maximum; alpha is what
// sums of earlier keys are to be multiplied with.
template <typename P>
void softmax_panel(const P & products, const float * s, int64_t n, int64_t n0, bool masked, float scale_value,
                   const PanelStatistics & statistics, uint32_t * p) {
    const Floats d;
    const Ints di;
    const Vec scale2 = hn::Set(d, scale_value * log2_e);
    const Vec minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (int64_t lane = 0; lane < panel_lanes; lane += lanes) {
        if (lane > 0) products.stay_awake();
        const float * column = s + lane;
        const auto lowest = hn::LoadU(di, statistics.lowest + lane), limit = hn::LoadU(di, statistics.limit + lane);
        const auto visible = [&](int64_t i) {
            const auto key = hn::Set(di, static_cast<int32_t>(n0 + i));
            return hn::RebindMask(d, hn::And(hn::Ge(limit, key), hn::Le(lowest, key)));
        };
        const auto score = [&](int64_t i) { return hn::LoadU(d, column + i * panel_lanes); };

        Vec highest = minus_infinity;  // score; the scale is positive
        int64_t i = 0;
        if (masked) {
            for (; i < n; ++i) highest = hn::Max(highest, hn::IfThenElse(visible(i), score(i), minus_infinity));
        } else {
            Vec m1 = highest, m2 = highest, m3 = highest;
            for (; i + 4 <= n; i += 4) {
                highest = hn::Max(highest, score(i));
                m1 = hn::Max(m1, score(i + 1));
                m2 = hn::Max(m2, score(i + 2));
                m3 = hn::Max(m3, score(i + 3));
            }
            for (; i < n; ++i) highest = hn::Max(highest, score(i));
            highest = hn::Max(hn::Max(highest, m1), hn::Max(m2, m3));
        }
        // Sums are scaled anew only where the maximum has grown by more than this: until then weights are at most 2^10,
        // and what all of them are relative to does not matter.
        const Vec old_max = hn::LoadU(d, statistics.max + lane), new_max = hn::Mul(highest, scale2);
        const Vec max = hn::IfThenElse(hn::Gt(new_max, hn::Add(old_max, hn::Set(d, 10.0f))), new_max, old_max);

        const auto weight = [&](int64_t key) {
            const Vec e = exp2_clamped(hn::MulSub(score(key), scale2, max));
            return masked ? hn::IfThenElseZero(visible(key), e) : e;
        };
        Vec sum = hn::Zero(d);
        if constexpr (P::pairs) {
            const Words du;
            for (i = 0; i + 2 <= n; i += 2) {
                const Vec e0 = weight(i), e1 = weight(i + 1);
                sum = hn::Add(sum, hn::Add(e0, e1));
                hn::StoreU(to_pair(e0, e1), du, p + i / 2 * panel_lanes + lane);
            }
            if (i < n) {
                const Vec e0 = weight(i);
                sum = hn::Add(sum, e0);
                hn::StoreU(to_pair(e0, hn::Zero(d)), du, p + i / 2 * panel_lanes + lane);
                i += 2;
            }
            for (; i < P::padded_keys(n); i += 2) hn::StoreU(hn::Zero(du), du, p + i / 2 * panel_lanes + lane);
        } else {
            for (i = 0; i < n; ++i) {
                const Vec e = weight(i);
                sum = hn::Add(sum, e);
                hn::StoreU(e, d, reinterpret_cast<float *>(p) + i * panel_lanes + lane);
            }
        }
        const Vec alpha = exp2_clamped(hn::Sub(old_max, max));
        hn::StoreU(max, d, statistics.max + lane);
        hn::StoreU(alpha, d, statistics.alpha + lane);
        hn::StoreU(hn::MulAdd(hn::LoadU(d, statistics.sum + lane), alpha, sum), d, statistics.sum + lane);
    }
}

// x[n][32] *= alpha[32]; nothing to do when the maxima stayed.
void rescale_panel(float * x, int64_t n, const float * alpha) {
    const Floats d;
    for (int64_t lane = 0; lane < panel_lanes; lane += lanes) {
        const Vec factor = hn::LoadU(d, alpha + lane);
        if (hn::AllTrue(d, hn::Eq(factor, hn::Set(d, 1.0f)))) continue;
        for (int64_t i = 0; i < n; ++i) {
            float * at = x + i * panel_lanes + lane;
            hn::StoreU(hn::Mul(hn::LoadU(d, at), factor), d, at);
        }
    }
}

template <typename P>
void forward(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    using T = typename P::Element;
    const ForwardScratch w(scratch, products.d);
    const Block block(x, task, task.first, task.count);
    const int64_t d = products.d, head_dim = products.head_dim, column = task.kv_head * head_dim;
    const auto scale = static_cast<float>(x.shape.scale);

    // Where a row may see none of the first keys of its panel, its maximum must be a number until it sees one.
    constexpr float lowest_number = -1e30f;
    const bool windowed = x.shape.mask.back != MaskSpec::all;
    std::fill_n(w.max, block_rows, windowed ? lowest_number : -std::numeric_limits<float>::infinity());
    std::fill_n(w.sum, block_rows, 0.0f);
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        const int64_t first = panel * panel_lanes;
        products.pack_rows_t([&](int64_t i) { return block.row<T>(x.q, first + i, head_dim); }, block.panel_rows(panel),
                             w.staging, w.q_t + first * d);
    }

    for (int64_t n0 = block.first_key(); n0 < block.end_key(); n0 += block_keys) {
        // The sums of a panel wait for the scores of the next one: tiles cannot read what is still on its way into the
        // cache.
        struct {
            float * o_t;
            int64_t n;
            bool begun;
        } waiting{};
        const auto weigh_waiting = [&] {
            if (!waiting.o_t) return;
            if (waiting.begun) rescale_panel(waiting.o_t, head_dim, w.alpha);
            products.weigh(w.values, w.p, waiting.n, waiting.o_t, waiting.begun);
            waiting.o_t = nullptr;
        };
        const int64_t n_block = std::min(block_keys, block.end_key() - n0), first_key = task.segment.kv_begin + n0;
        const Keys keys = products.keys(x.k, first_key, column, n_block, w.keys);
        products.pack_keys_t(x.v, first_key, column, n_block, w.staging, w.values);
        for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
            const int64_t first = panel * panel_lanes, n = block.n_visible(panel, n0, n_block);
            if (n == 0) continue;
            products.score(keys, n, w.q_t + first * d, w.s);
            if (x.shape.softcap > 0) cap_scores(w.s, n * panel_lanes, x.shape.scale, x.shape.softcap);
            weigh_waiting();
            softmax_panel(products, w.s, n, n0, block.masked(panel, n0, n), scale,
                          {w.max + first, w.sum + first, w.alpha, block.lowest(panel), block.limits(panel)}, w.p);
            waiting = {w.o_t + first * d, n, block.begun(panel, n0)};
        }
        weigh_waiting();
    }

    const auto * rows = reinterpret_cast<const float *>(w.staging);
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        products.stay_awake();
        const int64_t first = panel * panel_lanes;
        transpose(reinterpret_cast<const uint32_t *>(w.o_t + first * d), panel_lanes, d, panel_lanes, w.staging, d);
        for (int64_t i = 0; i < block.panel_rows(panel); ++i) {
            const int64_t r = first + i;
            store_scaled(rows + i * d, head_dim, hn::Set(Floats(), 1 / w.sum[r]), block.row<T>(x.o, r, head_dim));
        }
    }
    if (!x.lse) return;
    const Floats floats;
    for (int64_t r = 0; r < block.n_panels() * panel_lanes; r += lanes) {
        const Vec sum = hn::LoadU(floats, w.sum + r),
                  max = hn::Mul(hn::LoadU(floats, w.max + r), hn::Set(floats, ln_2));
        // Log makes a number of NaN.
        const Vec log = hn::IfThenElse(hn::IsNaN(sum), sum, hn::Log(floats, sum));
        hn::StoreU(hn::Add(max, log), floats, w.max + r);
    }
    for (int64_t r = 0; r < block.count(); ++r) block.lse(x.lse, r) = w.max[r];
}

void forward_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { forward(products, x, task, scratch); });
}

bool multiplies_pairs() { return LORICA_DOT_BF16; }

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(multiplies_pairs);
HWY_EXPORT(forward_task);

bool attention_multiplies_pairs() { return HWY_DYNAMIC_DISPATCH(multiplies_pairs)(); }
RowsTask attention_forward_task() { return HWY_DYNAMIC_POINTER(forward_task); }

}  // namespace lorica::cpu
#endif
