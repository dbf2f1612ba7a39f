// The rows of one task of attention: where they lie and which keys they see. Included once per target.
#if defined(LORICA_CPU_ATTENTION_BLOCK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LORICA_CPU_ATTENTION_BLOCK_INL_H
#undef LORICA_CPU_ATTENTION_BLOCK_INL_H
#else
#define LORICA_CPU_ATTENTION_BLOCK_INL_H
#endif

#include <hwy/highway.h>

#include <algorithm>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// Where the rows of a block are, without a division for each.
class Block {
public:
    Block(const AttentionOperands & x, const AttentionTask & task, int64_t first, int64_t count) : count_(count) {
        const int64_t g = x.group();
        int64_t query = first / g, head = first % g;
        for (int64_t r = 0; r < count; ++r) {
            token_[r] = static_cast<int32_t>(task.segment.q_begin + query);
            head_[r] = static_cast<int32_t>(task.kv_head * g + head);
            const auto [first_key, end_key] = x.shape.mask.visible(task.segment, static_cast<int32_t>(query));
            lowest_[r] = first_key;
            limit_[r] = end_key - 1;
            if (++head == g) head = 0, ++query;
        }
        // Rows that pad a panel see what the last row sees.
        for (int64_t r = count; r < round_up(count, panel_lanes); ++r) {
            lowest_[r] = lowest_[count - 1];
            limit_[r] = limit_[count - 1];
        }
    }

    int64_t count() const { return count_; }
    int64_t n_panels() const { return round_up(count_, panel_lanes) / panel_lanes; }
    int64_t panel_rows(int64_t panel) const { return std::min(panel_lanes, count_ - panel * panel_lanes); }
    // For each row the first and the last key that it sees; neither falls from one row to the next.
    const int32_t * lowest(int64_t panel) const { return lowest_ + panel * panel_lanes; }
    const int32_t * limits(int64_t panel) const { return limit_ + panel * panel_lanes; }
    int64_t first_key() const { return lowest_[0]; }
    int64_t end_key() const { return limit_[count_ - 1] + 1; }
    // Of n keys from n0, those up to the last one that any row of the panel sees.
    int64_t n_until(int64_t panel, int64_t n0, int64_t n) const {
        return std::clamp<int64_t>(limits(panel)[panel_lanes - 1] + 1 - n0, 0, n);
    }
    // The same, and 0 where the panel sees none of them.
    int64_t n_visible(int64_t panel, int64_t n0, int64_t n) const {
        const int64_t until = n_until(panel, n0, n);
        return *lowest(panel) < n0 + until ? until : 0;
    }
    // Whether the panel sees keys before n0.
    bool begun(int64_t panel, int64_t n0) const { return *lowest(panel) < n0; }
    // False when every row of the panel sees all n keys from n0.
    bool masked(int64_t panel, int64_t n0, int64_t n) const {
        return n0 + n - 1 > *limits(panel) || lowest(panel)[panel_lanes - 1] > n0;
    }

    template <typename T> T * row(const Matrix & m, int64_t r, int64_t head_dim) const {
        return m.row_as<T>(token_[r]) + head_[r] * head_dim;
    }
    float & lse(const Matrix & m, int64_t r) const { return m.row_as<float>(token_[r])[head_[r]]; }

private:
    int64_t count_;
    int32_t token_[block_rows], head_[block_rows], lowest_[block_rows], limit_[block_rows];
};

// to[i] = factor * from[i] for n elements.
template <typename T> HWY_INLINE void store_scaled(const float * from, int64_t n, Vec factor, T * to) {
    for_lanes(n, [&](int64_t i, auto part) { part.put(hn::Mul(part.get(from + i), factor), to + i); });
}

// tanh(x) = 1 - 2 / (1 + e^(2 x)), within 2e-7.
HWY_INLINE Vec tanh_within(Vec x) {
    const Floats d;
    const Vec one = hn::Set(d, 1.0f), e = exp_clamped(hn::Add(x, x));
    return hn::NegMulAdd(hn::Set(d, 2.0f), hn::Div(one, hn::Add(one, e)), one);
}

// s = cap / scale tanh(scale s / cap): what is scaled afterwards, as products without a cap are.
inline void cap_scores(float * s, int64_t n, double scale, double cap) {
    const Floats d;
    const Vec inner = hn::Set(d, static_cast<float>(scale / cap)), outer = hn::Set(d, static_cast<float>(cap / scale));
    for_lanes(n, [&](int64_t i, auto part) {
        part.put(hn::Mul(tanh_within(hn::Mul(part.get(s + i), inner)), outer), s + i);
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
