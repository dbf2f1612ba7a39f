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

// cosine[2i] = cosine[2i + 1] = cos(angle i); sine[2i] = -sin, sine[2i + 1] = sin: the multipliers of the pair and of
// the pair with its halves exchanged. The angle is brought into [-pi, pi] first, where the polynomials hold at any
// position.
void rotation(double position, const double * inverse_frequency, int64_t n_pairs, float * cosine, float * sine) {
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
        hn::Store(hn::Cos(d, reduced), d, buffer[0]);
        hn::Store(hn::Sin(d, reduced), d, buffer[1]);
        for (size_t i = 0; i < n; ++i) {
            const size_t at = 2 * (static_cast<size_t>(first) + i);
            cosine[at] = cosine[at + 1] = static_cast<float>(buffer[0][i]);
            sine[at + 1] = static_cast<float>(buffer[1][i]);
            sine[at] = -sine[at + 1];
        }
    }
}

void rotations(const int32_t * positions, std::span<const double> inverse_frequency, float * table, int64_t begin,
               int64_t end) {
    const auto n_pairs = static_cast<int64_t>(inverse_frequency.size());
    for (int64_t r = begin; r < end; ++r) {
        float * row = table + r * 4 * n_pairs;
        rotation(positions[r], inverse_frequency.data(), n_pairs, row, row + 2 * n_pairs);
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

void rope_rows(Matrix x, int32_t head_dim, const float * table, int64_t n_pairs, bool inverse, int64_t begin,
               int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
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

void RotationTable::reserve(int64_t n_rows, int64_t head_dim) {
    positions_.reserve(static_cast<size_t>(n_rows));
    rows_.reserve(static_cast<size_t>(2 * n_rows * head_dim));
}

const float * RotationTable::rows(std::span<const int32_t> positions, std::span<const double> inverse_frequency,
                                  int n_threads) {
    if (std::ranges::equal(positions, positions_) && std::ranges::equal(inverse_frequency, inverse_frequency_))
        return rows_.data();
    positions_.assign(positions.begin(), positions.end());
    inverse_frequency_.assign(inverse_frequency.begin(), inverse_frequency.end());
    rows_.resize(4 * positions.size() * inverse_frequency.size());
    const auto compute = HWY_DYNAMIC_POINTER(rotations);
    const auto n_rows = static_cast<int64_t>(positions.size());
    // An angle costs as much as some twenty additions.
    parallel_ranges(
        n_rows, static_cast<int64_t>(20 * inverse_frequency.size()), n_threads,
        [&](int64_t begin, int64_t end) { compute(positions_.data(), inverse_frequency_, rows_.data(), begin, end); });
    return rows_.data();
}

void rope(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
          bool inverse, RotationTable & table, int n_threads) {
    const float * rotations = table.rows({positions, static_cast<size_t>(x.rows)}, inverse_frequency, n_threads);
    const auto rows = HWY_DYNAMIC_POINTER(rope_rows);
    const auto n_pairs = static_cast<int64_t>(inverse_frequency.size());
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, head_dim, rotations, n_pairs, inverse, begin, end); });
}

}  // namespace lorica::cpu
#endif
