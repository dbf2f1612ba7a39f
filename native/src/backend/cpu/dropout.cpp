// Dropout: Philox4x32-10 over vector lanes, number for number that of common/random.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dropout.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>

#include "backend/cpu/dropout.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"
#include "common/random.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Bits = hn::CappedTag<uint32_t, 16>;
using BitVec = hn::Vec<Bits>;

struct Product {
    BitVec high, low;
};

HWY_INLINE Product multiply_wide(BitVec a, BitVec b) {
    const Bits d;
    const auto even = hn::MulEven(a, b), odd = hn::MulOdd(a, b);
    return {hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even))),
            hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even))};
}

// out[i] = number 4 * block + i of the stream, for i < 4 * lanes.
HWY_INLINE void philox_lanes(uint64_t seed, uint64_t block, uint32_t * out) {
    const Bits d;
    const BitVec base = hn::Set(d, static_cast<uint32_t>(block));
    const BitVec high = hn::Set(d, static_cast<uint32_t>(block >> 32));
    BitVec c0 = hn::Add(base, hn::Iota(d, 0));
    // The carry of the 64-bit block number into its upper half.
    BitVec c1 = hn::IfThenElse(hn::Lt(c0, base), hn::Add(high, hn::Set(d, 1u)), high);
    BitVec c2 = hn::Zero(d), c3 = hn::Zero(d);
    auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const Product p0 = multiply_wide(c0, hn::Set(d, 0xD2511F53u));
        const Product p1 = multiply_wide(c2, hn::Set(d, 0xCD9E8D57u));
        c0 = hn::Xor3(p1.high, c1, hn::Set(d, k0));
        c1 = p1.low;
        c2 = hn::Xor3(p0.high, c3, hn::Set(d, k1));
        c3 = p0.low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    hn::StoreInterleaved4(c0, c1, c2, c3, d, out);
}

constexpr int64_t numbers_at_once = 1024;

// Calls f(offset, lanes, keep) over n elements of the stream from number `first`, keep being 1 / (1 - p) or 0.
template <typename F> HWY_INLINE void for_mask(const Dropout & dropout, uint64_t first, int64_t n, const F & f) {
    const Floats d;
    const Bits du;
    const BitVec threshold = hn::Set(du, dropout_threshold(dropout.p));
    const Vec scale = hn::Set(d, static_cast<float>(1 / (1 - static_cast<double>(dropout.p))));
    // Whole blocks of numbers around the wanted ones; up to three of the first block are not used.
    constexpr auto step = static_cast<int64_t>(4 * n_lanes);
    uint32_t numbers[numbers_at_once + 2 * step];
    for (int64_t done = 0; done < n; done += numbers_at_once) {
        const int64_t count = std::min(numbers_at_once, n - done);
        const uint64_t start = first + static_cast<uint64_t>(done);
        const auto skip = static_cast<int64_t>(start & 3);
        for (int64_t i = 0; i < skip + count; i += step) {
            philox_lanes(dropout.seed, (start >> 2) + static_cast<uint64_t>(i / 4), numbers + i);
        }
        for_lanes(count, [&](int64_t i, auto lanes) {
            const auto drop = hn::Lt(hn::LoadU(du, numbers + skip + i), threshold);
            f(done + i, lanes, hn::IfThenZeroElse(hn::RebindMask(d, drop), scale));
        });
    }
}

void dropout_rows(Matrix x, const Dropout & dropout, Matrix y, int64_t first_row, int64_t begin, int64_t end) {
    with_type(x.type, [&]<typename X>(X *) {
        with_type(y.type, [&]<typename Y>(Y *) {
            for (int64_t r = begin; r < end; ++r) {
                const X * from = x.row_as<X>(r);
                Y * to = y.row_as<Y>(r);
                for_mask(
                    dropout, static_cast<uint64_t>((first_row + r) * x.cols), x.cols,
                    [&](int64_t i, auto lanes, Vec keep) { lanes.put(hn::Mul(lanes.get(from + i), keep), to + i); });
            }
        });
    });
}

void dropout_backward_rows(Matrix g, const Dropout & dropout, Matrix dx, int64_t first_row, int64_t begin,
                           int64_t end) {
    with_type(g.type, [&]<typename G>(G *) {
        with_type(dx.type, [&]<typename X>(X *) {
            for (int64_t r = begin; r < end; ++r) {
                const G * from = g.row_as<G>(r);
                X * to = dx.row_as<X>(r);
                for_mask(dropout, static_cast<uint64_t>((first_row + r) * g.cols), g.cols,
                         [&](int64_t i, auto lanes, Vec keep) {
                             lanes.put(hn::MulAdd(lanes.get(from + i), keep, lanes.get(to + i)), to + i);
                         });
            }
        });
    });
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(dropout_rows);
HWY_EXPORT(dropout_backward_rows);

void dropout(Matrix x, const Dropout & dropout, Matrix y, int n_threads, int64_t first_row) {
    const auto rows = HWY_DYNAMIC_POINTER(dropout_rows);
    parallel_ranges(x.rows, x.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(x, dropout, y, first_row, begin, end); });
}

void dropout_backward_add(Matrix g, const Dropout & dropout, Matrix dx, int n_threads, int64_t first_row) {
    const auto rows = HWY_DYNAMIC_POINTER(dropout_backward_rows);
    parallel_ranges(g.rows, g.cols, n_threads,
                    [&](int64_t begin, int64_t end) { rows(g, dropout, dx, first_row, begin, end); });
}

}  // namespace lorica::cpu
#endif
