// Attention of a few rows over many keys, bound by reading K and V once: one part of the keys on one thread.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_decode.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "backend/cpu/attention_block-inl.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_products-inl.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

constexpr int64_t rows_at_once = 4, keys_at_once = 4;
// Vectors of a row of V whose sums for four rows stay in registers.
constexpr int64_t vectors_at_once = kernel_rows > 6 ? 4 : 2;

// The sum of the blocks of four lanes.
template <typename V, typename D = hn::DFromV<V>> HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sum_of_blocks(V v) {
    if constexpr (HWY_MAX_LANES_D(D) == 4) {
        return v;
    } else {
        const hn::Half<D> half;
        return sum_of_blocks(hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
    }
}

// The sums of four vectors.
HWY_INLINE hn::Vec<hn::FixedTag<float, 4>> sums_of(Vec a, Vec b, Vec c, Vec e) {
    const Floats d;
    const hn::RepartitionToWide<Floats> d2;
    const auto add_pairs = [&](Vec x, Vec y) HWY_ATTR {
        return hn::BitCast(d2, hn::Add(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y)));
    };
    const auto ab = add_pairs(a, b), ce = add_pairs(c, e);
    return sum_of_blocks(
        hn::Add(hn::BitCast(d, hn::InterleaveLower(d2, ab, ce)), hn::BitCast(d, hn::InterleaveUpper(d2, ab, ce))));
}

// The lines of a row of K or V that will be read soon: heads are strided, and the cache of each layer was last read a
// token ago.
template <typename T> HWY_INLINE void prefetch_row(const T * row, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(T))) hwy::Prefetch(row + i);
}

// scores[row][key] for four keys of K from `key` on and four rows of q from `first` on; what is past the last repeats
// it.
template <typename T>
HWY_INLINE void score_four(const T * k, int64_t stride, int64_t key, int64_t n_keys, const float * q, int64_t padded,
                           int64_t first, int64_t n_rows, int64_t head_dim, float scale, float * scores) {
    const T * keys[keys_at_once];
    for (int64_t i = 0; i < keys_at_once; ++i) keys[i] = k + std::min(key + i, n_keys - 1) * stride;
    const float * rows[rows_at_once];
    for (int64_t r = 0; r < rows_at_once; ++r) rows[r] = q + std::min(first + r, n_rows - 1) * padded;
    Vec sums[rows_at_once][keys_at_once];
    for (auto & of_row : sums) {
        for (Vec & sum : of_row) sum = hn::Zero(Floats());
    }
    for_lanes(head_dim, [&](int64_t at, auto part) HWY_ATTR {
        Vec values[keys_at_once];
        for (int64_t i = 0; i < keys_at_once; ++i) values[i] = part.get(keys[i] + at);
        for (int64_t r = 0; r < rows_at_once; ++r) {
            const Vec of_q = load(rows[r] + at);  // zeros behind head_dim
            for (int64_t i = 0; i < keys_at_once; ++i) sums[r][i] = hn::MulAdd(values[i], of_q, sums[r][i]);
        }
    });
    const hn::FixedTag<float, 4> d4;
    for (int64_t r = 0; r < std::min(rows_at_once, n_rows - first); ++r) {
        const auto products = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        hn::StoreU(hn::Mul(products, hn::Set(d4, scale)), d4, scores + (first + r) * decode_keys + key);
    }
}

// The keys of a part that a row sees: [first, end).
struct SeenKeys {
    int64_t first, end;
};

// o[row] = sum over keys of scores[row][key] V[key] for up to four rows, none of which sees less at its end, or more at
// its beginning, than the row before.
template <typename T>
void weigh_four(const T * v, int64_t stride, const float * scores, int64_t n_rows, const SeenKeys * seen,
                int64_t head_dim, float * o, int64_t o_stride) {
    const int64_t first_any = seen[0].first, first_all = seen[n_rows - 1].first;
    const int64_t end_all = seen[0].end, end_any = seen[n_rows - 1].end;
    const float * of[rows_at_once];
    for (int64_t r = 0; r < rows_at_once; ++r) of[r] = scores + std::min(r, n_rows - 1) * decode_keys;
    const auto weigh = [&](auto vectors, int64_t at, auto part) HWY_ATTR {
        constexpr int64_t count = vectors.value;
        Vec sums[rows_at_once][count];
        for (auto & of_row : sums) {
            for (Vec & sum : of_row) sum = hn::Zero(Floats());
        }
        for (int64_t i = first_any; i < end_any; ++i) {
            Vec values[count];
            for (int64_t j = 0; j < count; ++j) values[j] = part.get(v + i * stride + at + j * lanes);
            for (int64_t r = 0; r < rows_at_once; ++r) {
                // Not times zero: V may not be finite.
                if ((i >= end_all || i < first_all) && (r >= n_rows || i >= seen[r].end || i < seen[r].first)) continue;
                const Vec e = hn::Set(Floats(), of[r][i]);
                for (int64_t j = 0; j < count; ++j) sums[r][j] = hn::MulAdd(e, values[j], sums[r][j]);
            }
        }
        for (int64_t r = 0; r < n_rows; ++r) {
            for (int64_t j = 0; j < count; ++j) part.put(sums[r][j], o + r * o_stride + at + j * lanes);
        }
    };
    int64_t at = 0;
    for (; at + vectors_at_once * lanes <= head_dim; at += vectors_at_once * lanes) {
        weigh(std::integral_constant<int64_t, vectors_at_once>(), at, Whole{});
    }
    for_lanes(head_dim - at,
              [&](int64_t rest, auto part) HWY_ATTR { weigh(std::integral_constant<int64_t, 1>(), at + rest, part); });
}

template <typename T>
void decode_typed(const AttentionOperands & x, const AttentionTask & task, void * scratch, float * parts) {
    const Floats d;
    const int64_t head_dim = x.shape.head_dim, padded = round_up(head_dim, panel_lanes);
    const DecodeScratch w(scratch, padded);
    const int64_t n_rows = task.segment.q_len * x.group(), column = task.kv_head * head_dim;
    const int64_t first_key = task.segment.kv_begin + task.first;
    const T * k = x.k.row_as<T>(first_key) + column;
    const T * v = x.v.row_as<T>(first_key) + column;

    const Block block(x, task, 0, n_rows);
    for (int64_t r = 0; r < n_rows; ++r) widen_row(block.row<T>(x.q, r, head_dim), head_dim, w.q + r * padded, padded);
    constexpr int64_t ahead = 12;  // keys
    for (int64_t key = 0; key < std::min(ahead, task.count); ++key) prefetch_row(k + key * x.k.stride, head_dim);
    for (int64_t key = 0; key < task.count; key += keys_at_once) {
        for (int64_t i = key; i < std::min(key + keys_at_once, task.count); ++i) {
            if (i + ahead < task.count) prefetch_row(k + (i + ahead) * x.k.stride, head_dim);
            prefetch_row(v + i * x.v.stride, head_dim);
        }
        for (int64_t r = 0; r < n_rows; r += rows_at_once) {
            score_four(k, x.k.stride, key, task.count, w.q, padded, r, n_rows, head_dim,
                       static_cast<float>(x.shape.scale), w.scores);
        }
    }

    SeenKeys seen[decode_max_rows];
    for (int64_t r = 0; r < n_rows; ++r) {
        float * scores = w.scores + r * decode_keys;
        seen[r] = {std::clamp<int64_t>(block.lowest(0)[r] - task.first, 0, task.count),
                   std::clamp<int64_t>(block.limits(0)[r] + 1 - task.first, 0, task.count)};
        scores += seen[r].first;
        const int64_t n = std::max<int64_t>(seen[r].end - seen[r].first, 0);
        if (x.shape.softcap > 0) cap_scores(scores, n, 1, x.shape.softcap);
        Vec max = hn::Set(d, -std::numeric_limits<float>::infinity());
        const int64_t in_vectors = n / lanes * lanes;
        for (int64_t i = 0; i < in_vectors; i += lanes) max = hn::Max(max, load(scores + i));
        for (int64_t i = in_vectors; i < n; ++i) max = hn::Max(max, hn::Set(d, scores[i]));
        max = hn::MaxOfLanes(d, max);
        Vec total = hn::Zero(d);
        for_lanes(n, [&](int64_t i, auto lane) {
            const Vec e = exp_clamped(hn::Sub(lane.get(scores + i), max));
            lane.put(e, scores + i);
            total = hn::Add(total, lane.get(scores + i));
        });
        float * part = parts + r * decode_part_floats(head_dim);
        part[0] = hn::GetLane(max);
        part[1] = hn::ReduceSum(d, total);
    }
    for (int64_t r = 0; r < n_rows; r += rows_at_once) {
        weigh_four(v, x.v.stride, w.scores + r * decode_keys, std::min(rows_at_once, n_rows - r), seen + r, head_dim,
                   parts + r * decode_part_floats(head_dim) + 2, decode_part_floats(head_dim));
    }
}

// Adds the parts of all rows of a (segment, kv head) in the order of their keys. parts: [part][row]; their maxima are
// overwritten.
template <typename T>
void merge_typed(const AttentionOperands & x, const AttentionTask & task, float * parts, int64_t n_parts,
                 int64_t part_stride) {
    const int64_t head_dim = x.shape.head_dim;
    const Block block(x, task, 0, task.segment.q_len * x.group());
    for (int64_t r = 0; r < block.count(); ++r) {
        float * row = parts + r * decode_part_floats(head_dim);
        float max = row[0], sum = 0;
        for (int64_t i = 1; i < n_parts; ++i) max = std::max(max, row[i * part_stride]);
        for (int64_t i = 0; i < n_parts; ++i) {
            float * part = row + i * part_stride;
            part[0] = std::exp(part[0] - max);
            sum += part[1] * part[0];
        }
        T * o = block.row<T>(x.o, r, head_dim);
        const Vec normalized = hn::Set(Floats(), 1 / sum);
        for_lanes(head_dim, [&](int64_t at, auto lane) {
            Vec total = hn::Zero(Floats());
            for (int64_t i = 0; i < n_parts; ++i) {
                const float * part = row + i * part_stride;
                total = hn::MulAdd(hn::Set(Floats(), part[0]), lane.get(part + 2 + at), total);
            }
            lane.put(hn::Mul(total, normalized), o + at);
        });
        if (x.lse) block.lse(x.lse, r) = max + std::log(sum);
    }
}

void decode_task(const AttentionOperands & x, const AttentionTask & task, void * scratch, float * parts) {
    with_type(x.q.type, [&]<typename T>(T *) { decode_typed<T>(x, task, scratch, parts); });
}

void decode_merge_task(const AttentionOperands & x, const AttentionTask & task, float * parts, int64_t n_parts,
                       int64_t part_stride) {
    with_type(x.q.type, [&]<typename T>(T *) { merge_typed<T>(x, task, parts, n_parts, part_stride); });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(decode_task);
HWY_EXPORT(decode_merge_task);

PartTask attention_decode_task() { return HWY_DYNAMIC_POINTER(decode_task); }
MergeTask attention_decode_merge_task() { return HWY_DYNAMIC_POINTER(decode_merge_task); }

}  // namespace lorica::cpu
#endif
