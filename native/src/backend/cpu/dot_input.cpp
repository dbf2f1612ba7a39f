#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dot_input.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/dot_input.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

using Ints = hn::RebindToSigned<Floats>;

// The largest |value|; not finite when any is not.
float largest_of(const float * values, int64_t n) {
    // As integers the magnitudes have the same order, and infinity and NaN come last.
    const Ints d;
    auto bits = hn::Zero(d);
    for_lanes(n, [&](int64_t i, auto lanes) HWY_ATTR {
        bits = hn::Max(bits, hn::And(hn::BitCast(d, lanes.get(values + i)), hn::Set(d, 0x7fffffff)));
    });
    return std::bit_cast<float>(hn::ReduceMax(d, bits));
}

struct RoundedRow {
    float * sums;
    DotInput::Starts * starts;
    int16_t *ints, *pairs;  // one of them, see DotInput
    int8_t * planes;        // with the ints
};

// Of each four the first and the third, then the second and the fourth.
template <typename V> HWY_INLINE V as_pairs(V words) {
    const hn::DFromV<V> d;
    const hn::Repartition<uint64_t, decltype(d)> fours;
    const auto v = hn::BitCast(fours, words);
    const auto outer = hn::And(v, hn::Set(fours, 0xffff00000000ffff));
    const auto second = hn::And(hn::ShiftLeft<16>(v), hn::Set(fours, 0x0000ffff00000000)),
               third = hn::And(hn::ShiftRight<16>(v), hn::Set(fours, 0x00000000ffff0000));
    return hn::BitCast(d, hn::Or(outer, hn::Or(second, third)));
}

void round_row(const float * values, int64_t n, float per_unit, int64_t stride, const RoundedRow & out) {
    constexpr int64_t lanes = n_lanes;
    const Ints d;
    for (int64_t i = 0; i < stride; i += 32) {
        int32_t sums[2];
        for (int64_t half = 0; half < 2; ++half) {
            auto sum = hn::Zero(d);
            for (int64_t j = 0; j < 16; j += lanes) {
                const int64_t at = i + 16 * half + j;
                const Vec v =
                    load_n(values + std::min(at, n), static_cast<size_t>(std::clamp<int64_t>(n - at, 0, lanes)));
                const auto rounded = hn::NearestInt(hn::Mul(v, hn::Set(Floats(), per_unit)));
                const hn::Rebind<int16_t, Floats> words;
                if constexpr (LORICA_DOT_BYTES) {
                    const auto upper = hn::ShiftRight<8>(hn::Add(rounded, hn::Set(d, 128)));
                    const auto lower = hn::Sub(rounded, hn::ShiftLeft<8>(upper));
                    const hn::Rebind<int8_t, Floats> bytes;
                    int8_t * plane = out.planes + DotInput::plane_offset(i + 16 * half) + j;
                    hn::StoreU(hn::DemoteTo(bytes, upper), bytes, plane);
                    hn::StoreU(hn::DemoteTo(bytes, lower), bytes, plane + DotInput::lower_plane);
                    hn::StoreU(hn::DemoteTo(words, rounded), words, out.ints + at);
                } else {
                    hn::StoreU(as_pairs(hn::DemoteTo(words, rounded)), words, out.pairs + at);
                }
                sum = hn::Add(sum, rounded);
            }
            sums[half] = hn::ReduceSum(d, sum);
            out.sums[i / 16 + half] = static_cast<float>(sums[half]);
        }
        out.starts[i / 32] = {-8 * (sums[0] + sums[1]), {-32 * sums[0], -32 * sums[1]}, -128 * (sums[0] + sums[1])};
    }
}

void RoundToInts(DotInput & x, Scratch & scratch) {
    // The largest number whose upper byte, rounded, fits in eight bits with its sign.
    constexpr float largest_int = 32639;
    const int64_t stride = (x.cols + 127) / 128 * 128;
    auto * words = scratch.take_as<int16_t>(x.rows * stride);
    const RoundedRow all{scratch.take_as<float>(x.rows * stride / 16),
                         scratch.take_as<DotInput::Starts>(x.rows * stride / 32), words, words,
                         LORICA_DOT_BYTES ? scratch.take_as<int8_t>(x.rows * stride * 2) : nullptr};
    for (int64_t t = 0; t < x.rows; ++t) {
        const float * values = x.values + t * x.cols;
        const float largest = largest_of(values, x.cols);
        if (!std::isfinite(largest)) return;  // f32 carries it on
        // A power of two would keep more elements as they are, but waste up to a bit of all others.
        x.unit[t] = largest / largest_int;
        const float per_unit = largest > 1e-30f ? largest_int / largest : 0;
        const int64_t at = t * stride;
        round_row(values, x.cols, per_unit, stride,
                  {all.sums + at / 16, all.starts + at / 32, words + at, words + at,
                   LORICA_DOT_BYTES ? all.planes + 2 * at : nullptr});
    }
    x.sums = all.sums;
    x.starts = all.starts;
    (LORICA_DOT_BYTES ? x.ints : x.pairs) = words;
    x.planes = all.planes;
    x.stride = stride;
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(RoundToInts);

DotInput prepare_dot_input(const Matrix & x, Scratch & scratch) {
    DotInput input;
    input.rows = x.rows;
    input.cols = x.cols;
    auto * values = scratch.take_as<float>(x.rows * x.cols);
    input.values = values;
    for (int64_t t = 0; t < x.rows; ++t) {
        if (x.type == Dtype::bf16) {
            convert_bf16_to_f32(x.row_as<uint16_t>(t), values + t * x.cols, x.cols);
        } else {
            std::copy_n(x.row_as<float>(t), x.cols, values + t * x.cols);
        }
    }
    if (x.type == Dtype::bf16) HWY_DYNAMIC_DISPATCH(RoundToInts)(input, scratch);
    return input;
}

}  // namespace lorica::cpu
#endif
