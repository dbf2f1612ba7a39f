// Rotary position embedding (Su et al. 2021, eq. 34).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise_rope.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include <algorithm>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// factor times: cosine[2i] = cosine[2i + 1] = cos(angle i); sine[2i] = -sin, sine[2i + 1] = sin: the multipliers of the
// pair and of the pair with its halves exchanged. Of halves: cosine[i], sine[i], one of each per pair. The angle is
// brought into [-pi, pi] first, where the polynomials hold at any position.
void rotation(double position, const double * inverse_frequency, int64_t n_pairs, double factor, bool halves,
              float * cosine, float * sine) {
    const hn::CappedTag<double, 8> d;
    const size_t lanes = hn::Lanes(d);
    alignas(64) double buffer[2][8];
    for (int64_t first = 0; first < n_pairs; first += static_cast<int64_t>(lanes)) {
        const size_t n = std::min<size_t>(lanes, static_cast<size_t>(n_pairs - first));
        const auto angle = hn::Mul(hn::Set(d, position), hn::LoadN(d, inverse_frequency + first, n));
        const auto turns = hn::Round(hn::Mul(angle, hn::Set(d, 0x1.45f306dc9c883p-3)));  // 1 / 2 pi
        // 2 pi in two parts; the upper one has 33 bits, its product with the turns is exact.
        auto reduced = hn::NegMulAdd(turns, hn::Set(d, 0x1.921fb544p+2), angle);
        reduced = hn::NegMulAdd(turns, hn::Set(d, 0x1.0b4611a626331p-32), reduced);
        hn::Store(hn::Mul(hn::Cos(d, reduced), hn::Set(d, factor)), d, buffer[0]);
        hn::Store(hn::Mul(hn::Sin(d, reduced), hn::Set(d, factor)), d, buffer[1]);
        for (size_t i = 0; i < n; ++i) {
            if (halves) {
                cosine[static_cast<size_t>(first) + i] = static_cast<float>(buffer[0][i]);
                sine[static_cast<size_t>(first) + i] = static_cast<float>(buffer[1][i]);
                continue;
            }
            const size_t at = 2 * (static_cast<size_t>(first) + i);
            cosine[at] = cosine[at + 1] = static_cast<float>(buffer[0][i]);
            sine[at + 1] = static_cast<float>(buffer[1][i]);
            sine[at] = -sine[at + 1];
        }
    }
}

void rotations(const int32_t * positions, const Rope & rope, RopeDirection direction, float * table, int64_t begin,
               int64_t end) {
    const auto n_pairs = static_cast<int64_t>(rope.inverse_frequency.size()), width = (rope.halves ? 1 : 2) * n_pairs;
    for (int64_t r = begin; r < end; ++r) {
        float * row = table + r * 2 * width;
        rotation(positions[r], rope.inverse_frequency.data(), n_pairs, growth(rope, direction, positions[r]),
                 rope.halves, row, row + width);
    }
}

template <bool Inverse, typename X> HWY_INLINE void rotate(X * x, const float * cosine, const float * sine, int64_t n) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec v = lanes.get(x + i), exchanged = hn::Reverse2(Floats(), v);
        const Vec turned = hn::Mul(exchanged, lanes.get(sine + i));
        lanes.put(Inverse ? hn::MulSub(v, lanes.get(cosine + i), turned) : hn::MulAdd(v, lanes.get(cosine + i), turned),
                  x + i);
    });
}

template <bool Inverse, typename X>
HWY_INLINE void rotate_halves(X * x, const float * cosine, const float * sine, int64_t n) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec a = lanes.get(x + i), b = lanes.get(x + n + i), c = lanes.get(cosine + i), s = lanes.get(sine + i);
        const Vec a_turned = hn::Mul(b, s), b_turned = hn::Mul(a, s);
        lanes.put(Inverse ? hn::MulAdd(a, c, a_turned) : hn::MulSub(a, c, a_turned), x + i);
        lanes.put(Inverse ? hn::MulSub(b, c, b_turned) : hn::MulAdd(b, c, b_turned), x + n + i);
    });
}

void rope_rows(Matrix x, int32_t head_dim, const float * table, int64_t n_pairs, bool halves, bool inverse,
               int64_t begin, int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        if (halves) {
            const auto rotate_head = inverse ? rotate_halves<true, X> : rotate_halves<false, X>;
            for (int64_t r = begin; r < end; ++r) {
                const float * cosine = table + r * 2 * n_pairs;
                for (int64_t head = 0; head + head_dim <= x.cols; head += head_dim)
                    rotate_head(x.row_as<X>(r) + head, cosine, cosine + n_pairs, n_pairs);
            }
            return;
        }
        const auto rotate_head = inverse ? rotate<true, X> : rotate<false, X>;
        for (int64_t r = begin; r < end; ++r) {
            const float * cosine = table + r * 4 * n_pairs;
            for (int64_t head = 0; head + head_dim <= x.cols; head += head_dim) {
                rotate_head(x.row_as<X>(r) + head, cosine, cosine + 2 * n_pairs, 2 * n_pairs);
            }
        }
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(rotations);
HWY_EXPORT(rope_rows);

void RotationTable::reserve(int64_t n_rows, int64_t head_dim, int32_t n_ropes) {
    if (entries_.size() < static_cast<size_t>(n_ropes)) entries_.resize(static_cast<size_t>(n_ropes));
    for (Entry & entry : entries_) {
        entry.positions.reserve(static_cast<size_t>(n_rows));
        entry.rows.reserve(static_cast<size_t>(2 * n_rows * head_dim));
    }
}

const float * RotationTable::rows(std::span<const int32_t> positions, const Rope & rope, RopeDirection direction,
                                  int n_threads) {
    const bool undoes = direction == RopeDirection::undo && (rope.magnitude != 1 || rope.temperature != 0);
    const auto same = [&](const Entry & entry) {
        return entry.magnitude == rope.magnitude && entry.temperature == rope.temperature &&
               entry.temperature_length == rope.temperature_length && entry.undoes == undoes &&
               entry.halves == rope.halves && std::ranges::equal(positions, entry.positions) &&
               std::ranges::equal(rope.inverse_frequency, entry.inverse_frequency);
    };
    const auto known = std::ranges::find_if(entries_, same);
    if (known != entries_.end()) return known->rows.data();
    Entry & entry = entries_[next_];
    next_ = (next_ + 1) % entries_.size();
    entry.positions.assign(positions.begin(), positions.end());
    entry.inverse_frequency.assign(rope.inverse_frequency.begin(), rope.inverse_frequency.end());
    entry.magnitude = rope.magnitude;
    entry.temperature = rope.temperature;
    entry.temperature_length = rope.temperature_length;
    entry.undoes = undoes;
    entry.halves = rope.halves;
    entry.rows.resize((rope.halves ? 2 : 4) * positions.size() * rope.inverse_frequency.size());
    const auto compute = HWY_DYNAMIC_POINTER(rotations);
    const auto n_rows = static_cast<int64_t>(positions.size());
    // An angle costs as much as some twenty additions.
    parallel_ranges(
        n_rows, static_cast<int64_t>(20 * rope.inverse_frequency.size()), n_threads,
        [&](int64_t begin, int64_t end) { compute(positions.data(), rope, direction, entry.rows.data(), begin, end); });
    return entry.rows.data();
}

void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction, RotationTable & table,
          int n_threads) {
    if (rope.inverse_frequency.empty()) return;
    const float * rotations = table.rows({positions, static_cast<size_t>(x.rows)}, rope, direction, n_threads);
    const auto rows = HWY_DYNAMIC_POINTER(rope_rows);
    const auto n_pairs = static_cast<int64_t>(rope.inverse_frequency.size());
    const bool inverse = direction != RopeDirection::forward;
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) {
        rows(x, rope.head_dim, rotations, n_pairs, rope.halves, inverse, begin, end);
    });
}

}  // namespace lorica::cpu
#endif
