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

constexpr int64_t pairs_at_once = 64;

// cosine[2i] = cosine[2i + 1] = cos(angle i); sine[2i] = -sin, sine[2i + 1] = sin: the multipliers of the pair and of
// the pair with its halves exchanged. The angle is brought into [-pi, pi] first, where the polynomials hold at any
// position.
void rotation(double position, const double * inverse_frequency, int64_t n_pairs, bool inverse, float * cosine,
              float * sine) {
    const hn::CappedTag<double, 8> d;
    const size_t lanes = hn::Lanes(d);
    alignas(64) double buffer[2][8];
    const auto direction = hn::Set(d, inverse ? -1.0 : 1.0);
    for (int64_t first = 0; first < n_pairs; first += static_cast<int64_t>(lanes)) {
        const size_t n = std::min<size_t>(lanes, static_cast<size_t>(n_pairs - first));
        const auto angle = hn::Mul(hn::Set(d, position), hn::LoadN(d, inverse_frequency + first, n));
        const auto turns = hn::Round(hn::Mul(angle, hn::Set(d, 0x1.45f306dc9c883p-3)));  // 1 / 2 pi
        // 2 pi in two parts; the upper one has 33 bits, its product with the turns is exact.
        auto reduced = hn::NegMulAdd(turns, hn::Set(d, 0x1.921fb544p+2), angle);
        reduced = hn::NegMulAdd(turns, hn::Set(d, 0x1.0b4611a626331p-32), reduced);
        hn::Store(hn::Cos(d, reduced), d, buffer[0]);
        hn::Store(hn::Mul(hn::Sin(d, reduced), direction), d, buffer[1]);
        for (size_t i = 0; i < n; ++i) {
            const size_t at = 2 * (static_cast<size_t>(first) + i);
            cosine[at] = cosine[at + 1] = static_cast<float>(buffer[0][i]);
            sine[at + 1] = static_cast<float>(buffer[1][i]);
            sine[at] = -sine[at + 1];
        }
    }
}

template <typename X>
HWY_INLINE void rotate(X * x, const float * cosine, const float * sine, int64_t n) {
    for_lanes(n, [&](int64_t i, auto lanes) {
        const Vec v = lanes.get(x + i);
        lanes.put(hn::MulAdd(v, lanes.get(cosine + i), hn::Mul(hn::Reverse2(Floats(), v), lanes.get(sine + i))), x + i);
    });
}

void rope_rows(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
               bool inverse, int64_t begin, int64_t end) {
    float cosine[2 * pairs_at_once], sine[2 * pairs_at_once];
    const auto n_pairs = static_cast<int64_t>(inverse_frequency.size());
    with_type(x.type, [&]<typename X>(X *) {
        for (int64_t r = begin; r < end; ++r) {
            for (int64_t first = 0; first < n_pairs; first += pairs_at_once) {
                const int64_t n = std::min(pairs_at_once, n_pairs - first);
                rotation(positions[r], inverse_frequency.data() + first, n, inverse, cosine, sine);
                for (int64_t head = 0; head + head_dim <= x.cols; head += head_dim) {
                    rotate(x.row_as<X>(r) + head + 2 * first, cosine, sine, 2 * n);
                }
            }
        }
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(rope_rows);

void rope(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
          bool inverse, int n_threads) {
    const auto rows = HWY_DYNAMIC_POINTER(rope_rows);
    parallel_ranges(x.rows, x.cols, n_threads, [&](int64_t begin, int64_t end) {
        rows(x, positions, head_dim, inverse_frequency, inverse, begin, end);
    });
}

}  // namespace lorica::cpu
#endif
