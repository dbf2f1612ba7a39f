// One task of the backward pass of attention on one thread (Dao 2023, algorithm 2, with rows as lanes).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_backward.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_block-inl.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_products-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

template <typename T> HWY_INLINE float dot(const T * a, const T * b, int64_t n) {
    Vec sum = hn::Zero(Floats());
    for_lanes(n, [&](int64_t i, auto part) { sum = hn::MulAdd(part.get(a + i), part.get(b + i), sum); });
    return hn::ReduceSum(Floats(), sum);
}

// Packs Q and dO of a block's rows with their statistics; by_row: also as operands of dK and dV.
template <typename P>
void pack_block(const P & products, const AttentionOperands & x, const Block & block, bool by_row,
                const BackwardScratch & w) {
    using T = typename P::Element;
    const int64_t d = products.d, head_dim = products.head_dim;
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        const int64_t first = panel * panel_lanes, n = block.panel_rows(panel);
        const auto q = [&](int64_t i) { return block.row<T>(x.q, first + i, head_dim); };
        const auto d_o = [&](int64_t i) { return block.row<T>(x.d_o, first + i, head_dim); };
        products.pack_rows_t(q, n, w.staging, w.q_t + first * d);
        products.pack_rows_t(d_o, n, w.staging, w.do_t + first * d);
        if (by_row) {
            const int64_t at = P::pairs ? first / 2 * panel_lanes : first * panel_lanes;
            products.pack_rows(q, n, w.staging, w.q_rows + at);
            products.pack_rows(d_o, n, w.staging, w.do_rows + at);
        }
        products.stay_awake();
        for (int64_t i = 0; i < panel_lanes; ++i) {
            const int64_t r = first + i;
            const bool pads = i >= n;  // then p is 1, but q and dO are zero
            w.lse[r] = pads ? 0 : block.lse(x.lse, r);
            w.delta[r] = pads ? 0 : dot<T>(d_o(i), block.row<T>(x.o, r, head_dim), head_dim);
        }
    }
}

// The rows of one panel.
struct PanelRows {
    const float *lse, *delta;
    const int32_t *lowest, *limit;
};

// P^T = e^(scale S^T - lse) and dS^T = P^T (dP^T - delta) for n keys from n0 of one panel. p_a, ds_a: as A operands,
// zero up to n_fill keys; ds_b: dS^T as B operand, its columns in the order of P::slot; null: not wanted. Capped: S^T
// is what cap_scores left, and dS^T is multiplied by its slope, 1 - (scale S^T / cap)^2.
template <bool Capped, typename P>
void softmax_backward_panel(const P & products, const float * s, const float * dp, int64_t n, int64_t n_fill,
                            int64_t n0, bool masked, const AttentionShape & shape, const PanelRows & rows,
                            uint32_t * p_a, uint32_t * ds_a, uint32_t * ds_b) {
    constexpr int64_t vectors = panel_lanes / lanes;
    const Floats d;
    const Ints di;
    const Vec scale2 = hn::Set(d, static_cast<float>(shape.scale) * log2_e);
    const Vec of_cap = hn::Set(d, Capped ? static_cast<float>(shape.scale / shape.softcap) : 0.0f);
    Vec row_lse2[vectors], row_delta[vectors];
    for (int64_t v = 0; v < vectors; ++v) {
        row_lse2[v] = hn::Mul(hn::LoadU(d, rows.lse + v * lanes), hn::Set(d, log2_e));
        row_delta[v] = hn::LoadU(d, rows.delta + v * lanes);
    }
    // Of key i and one vector of rows.
    const auto weight = [&](int64_t i, int64_t v) HWY_ATTR {
        const Vec e = exp2_clamped(hn::MulSub(hn::LoadU(d, s + i * panel_lanes + v * lanes), scale2, row_lse2[v]));
        if (!masked) return e;
        const auto key = hn::Set(di, static_cast<int32_t>(n0 + i));
        const auto seen = hn::And(hn::Ge(hn::LoadU(di, rows.limit + v * lanes), key),
                                  hn::Le(hn::LoadU(di, rows.lowest + v * lanes), key));
        return hn::IfThenElseZero(hn::RebindMask(d, seen), e);
    };
    const auto gradient = [&](Vec e, int64_t i, int64_t v) HWY_ATTR {
        const Vec gradient = hn::Mul(e, hn::Sub(hn::LoadU(d, dp + i * panel_lanes + v * lanes), row_delta[v]));
        if constexpr (!Capped) return gradient;
        const Vec ratio = hn::Mul(hn::LoadU(d, s + i * panel_lanes + v * lanes), of_cap);
        return hn::Mul(gradient, hn::NegMulAdd(ratio, ratio, hn::Set(d, 1.0f)));
    };
    if constexpr (P::pairs) {
        const hn::Repartition<hwy::bfloat16_t, Floats> half;
        using Halves = hn::Vec<decltype(half)>;
        // dS^T of key i, a vector for two of the rows; stores what is wanted as A operand.
        const auto key = [&](int64_t i, Halves * gradients) HWY_ATTR {
            for (int64_t v = 0; v < vectors; v += 2) {
                const Vec e0 = weight(i, v), e1 = weight(i, v + 1);
                gradients[v / 2] = hn::OrderedDemote2To(half, gradient(e0, i, v), gradient(e1, i, v + 1));
                if (!p_a) continue;
                const int64_t at = i * panel_lanes + v * lanes;
                hn::StoreU(hn::OrderedDemote2To(half, e0, e1), half, reinterpret_cast<hwy::bfloat16_t *>(p_a) + at);
                hn::StoreU(gradients[v / 2], half, reinterpret_cast<hwy::bfloat16_t *>(ds_a) + at);
            }
        };
        const Words du;
        const hn::Repartition<uint16_t, Words> bits;  // Arm interleaves numbers, but not bf16
        int64_t i = 0;
        for (; i < n; i += 2) {
            if (i % 20 == 0 && i > 0) products.stay_awake();
            Halves even[vectors / 2], odd[vectors / 2];
            key(i, even);
            if (i + 1 < n) {
                key(i + 1, odd);
            } else {
                for (Halves & zero : odd) zero = hn::Zero(half);
            }
            if (!ds_b) continue;
            for (int64_t v = 0; v < vectors; v += 2) {
                uint32_t * to = ds_b + i / 2 * panel_lanes + v * lanes;
                const auto e = hn::BitCast(bits, even[v / 2]), o = hn::BitCast(bits, odd[v / 2]);
                hn::StoreU(hn::BitCast(du, hn::InterleaveLower(bits, e, o)), du, to);
                hn::StoreU(hn::BitCast(du, hn::InterleaveUpper(bits, e, o)), du, to + lanes);
            }
        }
        if (ds_b && i < P::padded_keys(n)) {
            std::memset(ds_b + i / 2 * panel_lanes, 0,
                        static_cast<size_t>((P::padded_keys(n) - i) / 2 * panel_lanes) * 4);
        }
        if (p_a && n < n_fill) {
            const auto bytes = static_cast<size_t>((n_fill - n) * panel_lanes) * 2;
            std::memset(static_cast<void *>(reinterpret_cast<Bf16 *>(p_a) + n * panel_lanes), 0, bytes);
            std::memset(static_cast<void *>(reinterpret_cast<Bf16 *>(ds_a) + n * panel_lanes), 0, bytes);
        }
    } else {
        for (int64_t i = 0; i < n; ++i) {
            for (int64_t v = 0; v < vectors; ++v) {
                const int64_t at = i * panel_lanes + v * lanes;
                const Vec e = weight(i, v);
                hn::StoreU(e, d, reinterpret_cast<float *>(p_a) + at);
                hn::StoreU(gradient(e, i, v), d, reinterpret_cast<float *>(ds_a) + at);
            }
        }
    }
}

// One block of rows, packed in w, against `count` keys from n0. dk and dv (+=) when given; dq_t (= from the first key,
// then +=) when given.
template <typename P>
void backward_block(const P & products, const AttentionOperands & x, const Block & block, const BackwardScratch & w,
                    int64_t n0, int64_t count, bool with_keys, float * dq_t) {
    const int64_t d = products.d, n_panels = block.n_panels(), n_any = block.n_until(n_panels - 1, n0, count);
    // The first block of keys that any row sees.
    const int64_t begin = std::max<int64_t>(0, block.first_key() - n0) / block_keys * block_keys;
    constexpr int64_t panel_words = P::pairs ? block_keys * panel_lanes / 2 : block_keys * panel_lanes;  // of scores
    const bool as_a = with_keys || !P::pairs;
    const auto scores = [&](uint32_t * of, int64_t key, int64_t panel) {
        return as_a ? of + (key / block_keys * n_panels + panel) * panel_words : nullptr;
    };
    const auto keys_t = [&](int64_t key) { return P::pairs ? w.keys_t + key * (d / 2) : w.keys + key * d; };

    // A panel meets all keys before the next one does: its operands and its dQ stay in the first-level cache. dQ waits
    // for the scores of the next keys, see forward().
    for (int64_t panel = 0; panel < n_panels; ++panel) {
        const int64_t first = panel * panel_lanes;
        int64_t waiting = -1, n_waiting = 0;
        const auto weigh_waiting = [&] {
            if (waiting < 0) return;
            const uint32_t * of = P::pairs ? w.ds_b : scores(w.ds, waiting, panel);
            products.weigh(keys_t(waiting), of, n_waiting, dq_t + first * d, block.begun(panel, n0 + waiting));
            waiting = -1;
        };
        for (int64_t key = begin; key < n_any; key += block_keys) {
            const int64_t n_block = std::min(block_keys, n_any - key), n = block.n_visible(panel, n0 + key, n_block);
            if (n > 0) {
                products.score({w.keys + key * d, d}, n, w.q_t + first * d, w.s);
                products.score({w.values + key * d, d}, n, w.do_t + first * d, w.dp);
                if (x.shape.softcap > 0) cap_scores(w.s, n * panel_lanes, x.shape.scale, x.shape.softcap);
            }
            weigh_waiting();
            // Tiles read whole rows of 16 keys.
            const auto softmax =
                x.shape.softcap > 0 ? softmax_backward_panel<true, P> : softmax_backward_panel<false, P>;
            softmax(products, w.s, w.dp, n, round_up(n_block, 16), n0 + key, block.masked(panel, n0 + key, n), x.shape,
                    {w.lse + first, w.delta + first, block.lowest(panel), block.limits(panel)}, scores(w.p, key, panel),
                    scores(w.ds, key, panel), dq_t ? w.ds_b : nullptr);
            if (dq_t && n > 0) waiting = key, n_waiting = n;
        }
        weigh_waiting();
    }
    if (!with_keys) return;
    for (int64_t key = begin; key < n_any; key += block_keys) {
        const auto until = [&](int64_t panel) {
            const int64_t n = std::min(block_keys, n_any - key);
            return P::pairs ? block.n_until(panel, n0 + key, n) : block.n_visible(panel, n0 + key, n);
        };
        products.gather(scores(w.p, key, 0), panel_words, until, block.count(), w.do_rows, w.dv + key * panel_lanes);
        products.gather(scores(w.ds, key, 0), panel_words, until, block.count(), w.q_rows, w.dk + key * panel_lanes);
    }
}

template <typename P>
void store_dq(const P & products, const AttentionOperands & x, const Block & block, const BackwardScratch & w) {
    using T = typename P::Element;
    const int64_t d = products.d;
    const Vec scale = hn::Set(Floats(), static_cast<float>(x.shape.scale));
    for (int64_t panel = 0; panel < block.n_panels(); ++panel) {
        products.stay_awake();
        const int64_t first = panel * panel_lanes;
        transpose(reinterpret_cast<const uint32_t *>(w.dq_t + first * d), panel_lanes, d, panel_lanes, w.staging, d);
        for (int64_t i = 0; i < block.panel_rows(panel); ++i) {
            store_scaled(reinterpret_cast<const float *>(w.staging) + P::slot(i) * d, products.head_dim, scale,
                         block.row<T>(x.dq, first + i, products.head_dim));
        }
    }
}

template <typename P>
void store_key_gradient(const P & products, const AttentionTask & task, const float * sums, double scale, Matrix out) {
    using T = typename P::Element;
    for (int64_t i = 0; i < task.count; ++i) {
        T * to = out.row_as<T>(task.segment.kv_begin + task.first + i) + task.kv_head * products.head_dim;
        for (int64_t column = 0; column < products.head_dim; column += panel_lanes) {
            store_scaled(sums + column * chunk_keys + i * panel_lanes,
                         std::min(panel_lanes, products.head_dim - column),
                         hn::Set(Floats(), static_cast<float>(scale)), to + column);
        }
    }
}

// Packs the keys and values from `first` on, in blocks.
template <typename P>
void pack_chunk(const P & products, const AttentionOperands & x, const AttentionTask & task, int64_t first,
                int64_t count, bool with_dq, const BackwardScratch & w) {
    const int64_t d = products.d, column = task.kv_head * products.head_dim;
    for (int64_t key = 0; key < count; key += block_keys) {
        const int64_t n = std::min(block_keys, count - key), at = task.segment.kv_begin + first + key;
        products.pack_keys(x.k, at, column, n, w.keys + key * d);
        products.pack_keys(x.v, at, column, n, w.values + key * d);
        if (P::pairs && with_dq) products.pack_keys_t(x.k, at, column, n, w.staging, w.keys_t + key * (d / 2));
    }
}

// dK and dV of one chunk of keys; when the chunk is the whole segment also dQ, from the same scores.
template <typename P>
void backward_keys(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    const BackwardScratch w(scratch, products.d);
    const bool with_dq = task.count == task.segment.kv_len;
    pack_chunk(products, x, task, task.first, task.count, with_dq, w);
    for (int64_t at = 0; at < products.d; at += panel_lanes) {
        std::fill_n(w.dk + at * chunk_keys, task.count * panel_lanes, 0.0f);
        std::fill_n(w.dv + at * chunk_keys, task.count * panel_lanes, 0.0f);
    }

    // From the first query that sees the chunk's first key to the last that sees its last one.
    const MaskSpec & mask = x.shape.mask;
    const int64_t first_query = mask.seeing(task.segment, static_cast<int32_t>(task.first)).first;
    const int64_t end_query = mask.seeing(task.segment, static_cast<int32_t>(task.first + task.count - 1)).end;
    const int64_t n_rows = end_query * x.group();
    for (int64_t row = first_query * x.group(); row < n_rows; row += block_rows) {
        const Block block(x, task, row, std::min(block_rows, n_rows - row));
        pack_block(products, x, block, true, w);
        backward_block(products, x, block, w, task.first, task.count, true, with_dq ? w.dq_t : nullptr);
        if (with_dq) store_dq(products, x, block, w);
    }
    store_key_gradient(products, task, w.dk, x.shape.scale, x.dk);
    store_key_gradient(products, task, w.dv, 1, x.dv);
}

// dQ of one block of rows of a segment that is longer than a chunk.
template <typename P>
void backward_queries(const P & products, const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    const BackwardScratch w(scratch, products.d);
    const Block block(x, task, task.first, task.count);
    pack_block(products, x, block, false, w);
    for (int64_t n0 = block.first_key(); n0 < block.end_key(); n0 += chunk_keys) {
        const int64_t count = std::min(chunk_keys, block.end_key() - n0);
        pack_chunk(products, x, task, n0, count, true, w);
        backward_block(products, x, block, w, n0, count, false, w.dq_t);
    }
    store_dq(products, x, block, w);
}

void backward_keys_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { backward_keys(products, x, task, scratch); });
}

void backward_queries_task(const AttentionOperands & x, const AttentionTask & task, void * scratch) {
    with_products(x, [&](const auto & products) { backward_queries(products, x, task, scratch); });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(backward_keys_task);
HWY_EXPORT(backward_queries_task);

RowsTask attention_backward_keys_task() { return HWY_DYNAMIC_POINTER(backward_keys_task); }
RowsTask attention_backward_queries_task() { return HWY_DYNAMIC_POINTER(backward_queries_task); }

}  // namespace lorica::cpu
#endif
