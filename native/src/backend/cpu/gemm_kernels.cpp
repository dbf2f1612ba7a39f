// Vector kernels for every target of Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/gemm_kernels.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/cpu/dot_bf16-inl.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/simd-inl.h"
#include "backend/cpu/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// One group is 16 columns: one vector of AVX-512, two of AVX2, four of NEON.
using DF = Floats;
using DB = hn::Repartition<hwy::bfloat16_t, DF>;
using DU32 = hn::RebindToUnsigned<DF>;
constexpr size_t group_vectors = 16 / n_lanes;
// Sums that stay in registers: rows x vectors, leaving room for B and one broadcast of A.
constexpr size_t max_sums = n_lanes == 16 ? 24 : 12;

// Without an instruction for products of bf16, A comes in f32 and pairs of B are taken apart: each product is exact in
// f32, and sums are the same whether a pair is multiplied at once or one after the other.
#if LORICA_DOT_BF16
using BlockA = uint16_t;
#else
using BlockA = float;
#endif
int64_t KernelAElement() { return sizeof(BlockA); }

// Where B is taken apart, compilers mix the two halves of a step, and want registers for both.
constexpr size_t max_sums_bf16 = n_lanes == 16 && !LORICA_DOT_BF16 ? 16 : max_sums;

// Rows x Groups groups; the reduction runs over pairs of k.
template <size_t Rows, size_t Groups>
HWY_INLINE void block_bf16(const BlockA * HWY_RESTRICT a, int64_t lda, const uint16_t * HWY_RESTRICT panel,
                           int64_t group_stride, int64_t k, float * HWY_RESTRICT c, int64_t ldc, bool accumulate) {
    constexpr size_t nv = group_vectors * Groups;
    const DF df;
    const DU32 du32;
    hn::Vec<DF> sum[Rows][nv];
    for (size_t r = 0; r < Rows; ++r) {
        for (size_t v = 0; v < nv; ++v) {
            sum[r][v] = accumulate ? hn::LoadU(df, c + r * ldc + v * n_lanes) : hn::Zero(df);
        }
    }
    for (int64_t p = 0; p < k / 2; ++p) {
        const auto pairs = [&](size_t v) HWY_ATTR {
            const size_t group = v / group_vectors, part = v % group_vectors;
            return hn::LoadU(
                du32, reinterpret_cast<const uint32_t *>(panel + group * group_stride + p * 32) + part * n_lanes);
        };
#if LORICA_DOT_BF16
        const DB db;
        hn::Vec<DB> b[nv];
        for (size_t v = 0; v < nv; ++v) b[v] = hn::BitCast(db, pairs(v));
        for (size_t r = 0; r < Rows; ++r) {
            uint32_t pair;
            std::memcpy(&pair, a + r * lda + 2 * p, sizeof pair);
            const auto a_pair = hn::BitCast(db, hn::Set(du32, pair));
            for (size_t v = 0; v < nv; ++v) {
                auto unused = hn::Zero(df);
                sum[r][v] = hn::ReorderWidenMulAccumulate(df, a_pair, b[v], sum[r][v], unused);
            }
        }
#else
        for (int64_t half = 0; half < 2; ++half) {
            hn::Vec<DF> b[nv];
            for (size_t v = 0; v < nv; ++v) {
                b[v] = hn::BitCast(
                    df, half == 0 ? hn::ShiftLeft<16>(pairs(v)) : hn::And(pairs(v), hn::Set(du32, 0xffff0000u)));
            }
            for (size_t r = 0; r < Rows; ++r) {
                const auto a_value = hn::Set(df, a[r * lda + 2 * p + half]);
                for (size_t v = 0; v < nv; ++v) sum[r][v] = hn::MulAdd(a_value, b[v], sum[r][v]);
            }
        }
#endif
    }
    for (size_t r = 0; r < Rows; ++r) {
        for (size_t v = 0; v < nv; ++v) hn::StoreU(sum[r][v], df, c + r * ldc + v * n_lanes);
    }
}

template <size_t Rows, size_t Groups>
HWY_INLINE void block_f32(const float * HWY_RESTRICT a, int64_t lda, const float * HWY_RESTRICT panel,
                          int64_t group_stride, int64_t k_count, float * HWY_RESTRICT c, int64_t ldc, bool accumulate) {
    constexpr size_t nv = group_vectors * Groups;
    const DF df;
    hn::Vec<DF> sum[Rows][nv];
    for (size_t r = 0; r < Rows; ++r) {
        for (size_t v = 0; v < nv; ++v) {
            sum[r][v] = accumulate ? hn::LoadU(df, c + r * ldc + v * n_lanes) : hn::Zero(df);
        }
    }
    for (int64_t k = 0; k < k_count; ++k) {
        hn::Vec<DF> b[nv];
        for (size_t v = 0; v < nv; ++v) {
            const size_t group = v / group_vectors, part = v % group_vectors;
            b[v] = hn::LoadU(df, panel + group * group_stride + k * 16 + part * n_lanes);
        }
        for (size_t r = 0; r < Rows; ++r) {
            const auto a_value = hn::Set(df, a[r * lda + k]);
            for (size_t v = 0; v < nv; ++v) sum[r][v] = hn::MulAdd(a_value, b[v], sum[r][v]);
        }
    }
    for (size_t r = 0; r < Rows; ++r) {
        for (size_t v = 0; v < nv; ++v) hn::StoreU(sum[r][v], df, c + r * ldc + v * n_lanes);
    }
}

// As few blocks of up to Most rows as there must be, all nearly as tall: a low one has too few sums to hide a
// multiply-add's latency.
template <size_t Most, size_t Groups, typename Block> HWY_INLINE void cover_rows(int64_t rows, const Block & block) {
    const int64_t most = static_cast<int64_t>(Most), n_blocks = (rows + most - 1) / most;
    const auto with_rows = [&]<size_t... I>(std::index_sequence<I...>, int64_t first, int64_t count) HWY_ATTR {
        static_cast<void>(
            ((count == static_cast<int64_t>(I + 1) && (block.template operator()<I + 1, Groups>(first), true)) || ...));
    };
    for (int64_t i = 0, first = 0; i < n_blocks; ++i) {
        const int64_t end = rows * (i + 1) / n_blocks;
        with_rows(std::make_index_sequence<Most>(), first, end - first);
        first = end;
    }
}

template <size_t MaxSums, size_t Groups, typename Block> HWY_INLINE void cover(int64_t rows, const Block & block) {
    constexpr size_t most = MaxSums / (group_vectors * Groups);
    cover_rows<(most > 0 ? most : 1), Groups>(rows, block);
}

// Two groups at a time where a vector is a whole group, else one: enough sums to hide the latency of a fused
// multiply-add.
constexpr int64_t groups_at_once = group_vectors == 1 ? 2 : 1;

template <typename A, typename B, size_t MaxSums, typename Call>
HWY_INLINE void run(const KernelArgs & args, const Call & call) {
    bool accumulate = args.accumulate;
    for (const KernelSegment & segment : args.segments) {
        const A * a = static_cast<const A *>(segment.a);
        const B * panel = static_cast<const B *>(segment.panel) + args.first_group * segment.group_stride;
        int64_t g = 0;
        auto block = [&]<size_t Rows, size_t Groups>(int64_t r) {
            call.template operator()<Rows, Groups>(segment, a + r * segment.lda, panel + g * segment.group_stride,
                                                   args.c + r * args.ldc + g * 16, accumulate);
        };
        if constexpr (groups_at_once == 2) {
            for (; g + 2 <= args.groups; g += 2) cover<MaxSums, 2>(args.rows, block);
        }
        for (; g < args.groups; ++g) cover<MaxSums, 1>(args.rows, block);
        accumulate = true;
    }
}

void KernelBf16(const KernelArgs & args) {
    run<BlockA, uint16_t, max_sums_bf16>(
        args, [&]<size_t Rows, size_t Groups>(const KernelSegment & s, const BlockA * a, const uint16_t * panel,
                                              float * c, bool accumulate) {
            block_bf16<Rows, Groups>(a, s.lda, panel, s.group_stride, s.k, c, args.ldc, accumulate);
        });
}

void KernelF32(const KernelArgs & args) {
    run<float, float, max_sums>(args, [&]<size_t Rows, size_t Groups>(const KernelSegment & s, const float * a,
                                                                      const float * panel, float * c, bool accumulate) {
        block_f32<Rows, Groups>(a, s.lda, panel, s.group_stride, s.k, c, args.ldc, accumulate);
    });
}

int64_t KernelTarget() { return HWY_TARGET; }

constexpr int64_t two_vectors = 2 * static_cast<int64_t>(n_lanes);

// Whether all that is stored are whole lines of the cache, and pairs of vectors.
template <typename Out, typename Args> bool in_whole_lines(const Args & args) {
    constexpr uintptr_t line = 64;
    const auto bytes = [](int64_t n) { return static_cast<uintptr_t>(n) * sizeof(Out); };
    return (reinterpret_cast<uintptr_t>(args.y) | bytes(args.y_stride) | bytes(args.n)) % line == 0 &&
           args.n % two_vectors == 0;
}

// Extras: bias or accumulate.
template <typename Out, bool Extras> HWY_INLINE void store_block_with(const StoreArgs & args) {
    const auto stay_awake = [&](int64_t row) HWY_ATTR {
        if (args.amx && row % 8 == 0) keep_tiles_awake();
    };
    if (args.stream && in_whole_lines<Out>(args)) {
        for (int64_t r = 0; r < args.rows; ++r) {
            stay_awake(r);
            const float * c = args.c + r * args.ldc;
            const float * residual = args.residual ? args.residual + r * args.residual_stride : nullptr;
            Out * y = static_cast<Out *>(args.y) + r * args.y_stride;
            const auto value = [&](int64_t i) HWY_ATTR {
                Vec v = load(c + i);
                if constexpr (Extras) {
                    if (args.bias) v = hn::Add(v, load(args.bias + i));
                    if (args.accumulate) v = hn::Add(v, load(y + i));
                }
                return residual ? hn::Add(v, load(residual + i)) : v;
            };
            for (int64_t i = 0; i < args.n; i += two_vectors)
                stream(value(i), value(i + static_cast<int64_t>(n_lanes)), y + i);
        }
        return;
    }
    for (int64_t r = 0; r < args.rows; ++r) {
        stay_awake(r);
        const float * c = args.c + r * args.ldc;
        Out * y = static_cast<Out *>(args.y) + r * args.y_stride;
        if constexpr (Extras) {
            const float * residual = args.residual ? args.residual + r * args.residual_stride : nullptr;
            for_lanes(args.n, [&](int64_t i, auto part) HWY_ATTR {
                Vec v = part.get(c + i);
                if (args.bias) v = hn::Add(v, part.get(args.bias + i));
                if (args.accumulate) v = hn::Add(v, part.get(y + i));
                part.put(residual ? hn::Add(v, part.get(residual + i)) : v, y + i);
            });
        } else if (args.residual) {
            const float * residual = args.residual + r * args.residual_stride;
            for_lanes(args.n, [&](int64_t i, auto part)
                                  HWY_ATTR { part.put(hn::Add(part.get(c + i), part.get(residual + i)), y + i); });
        } else {
            for_lanes(args.n, [&](int64_t i, auto part) HWY_ATTR { part.put(part.get(c + i), y + i); });
        }
    }
}

template <typename Out> HWY_INLINE void store_block(const StoreArgs & args) {
    if (args.bias || args.accumulate) return store_block_with<Out, true>(args);
    store_block_with<Out, false>(args);
}

// cap tanh(z / cap), where tanh(x) = 1 - 2 / (1 + e^(2 x)).
struct Capped {
    Vec value, slope;
};
HWY_INLINE Capped cap_logit(Vec z, float cap) {
    const DF d;
    const Vec one = hn::Set(d, 1.0f), e = exp_clamped(hn::Mul(z, hn::Set(d, 2 / cap)));
    const Vec t = hn::NegMulAdd(hn::Set(d, 2.0f), hn::Div(one, hn::Add(one, e)), one);
    return {hn::Mul(t, hn::Set(d, cap)), hn::NegMulAdd(t, t, one)};
}

// The same with what LogitSpec makes of C.
template <typename Out> HWY_NOINLINE void store_softmax_of_logits(const SoftmaxStoreArgs & args) {
    const Vec scale = hn::Set(DF(), args.scale);
    for (int64_t first = 0; first < args.n; first += softmax_columns) {
        const int64_t n = std::min(softmax_columns, args.n - first);
        float * sums = args.sums + first / softmax_columns * args.sums_stride;
        for (int64_t r = 0; r < args.rows; ++r) {
            if (args.amx && r % 8 == 0) keep_tiles_awake();
            const float * c = args.c + r * args.ldc + first;
            Out * y = args.y ? static_cast<Out *>(args.y) + r * args.y_stride + first : nullptr;
            float logits[softmax_columns], slopes[softmax_columns], e[softmax_columns] = {};
            for_lanes(n, [&](int64_t i, auto part) HWY_ATTR {
                Capped logit{hn::Mul(part.get(c + i), scale), hn::Set(DF(), 1.0f)};
                if (args.cap > 0) logit = cap_logit(logit.value, args.cap);
                part.put(logit.value, logits + i);
                part.put(logit.slope, slopes + i);
            });
            if (!args.reference) {
                sums[r] = *std::max_element(logits, logits + n);
                continue;
            }
            const Vec reference = hn::Set(DF(), args.reference[r]);
            for_lanes(n, [&](int64_t i, auto part) HWY_ATTR {
                const Vec exponent = hn::Mul(hn::Sub(part.get(logits + i), reference), hn::Set(DF(), log2_e));
                part.put(exp2_clamped(at_most(hn::Set(DF(), 127.0f), exponent)), e + i);
                if (y) part.put(hn::Mul(part.get(e + i), part.get(slopes + i)), y + i);
            });
            Vec sum = hn::Zero(DF());
            for (int64_t i = 0; i < softmax_columns; i += static_cast<int64_t>(n_lanes))
                sum = hn::Add(sum, load(e + i));
            sums[r] = hn::ReduceSum(DF(), sum);
        }
    }
}

template <typename Out> HWY_INLINE void store_softmax_as(const SoftmaxStoreArgs & args) {
    if (args.scale != 1 || args.cap > 0) return store_softmax_of_logits<Out>(args);
    const bool stream_y = args.y && args.stream && in_whole_lines<Out>(args);
    for (int64_t first = 0; first < args.n; first += softmax_columns) {
        const int64_t n = std::min(softmax_columns, args.n - first);
        float * sums = args.sums + first / softmax_columns * args.sums_stride;
        for (int64_t r = 0; r < args.rows; ++r) {
            if (args.amx && r % 8 == 0) keep_tiles_awake();
            const float * c = args.c + r * args.ldc + first;
            if (!args.reference) {
                sums[r] = *std::max_element(c, c + n);
                continue;
            }
            const Vec reference = hn::Set(DF(), args.reference[r]);
            const auto numerator = [&](Vec x) HWY_ATTR {
                return exp2_clamped(
                    at_most(hn::Set(DF(), 127.0f), hn::Mul(hn::Sub(x, reference), hn::Set(DF(), log2_e))));
            };
            Out * y = args.y ? static_cast<Out *>(args.y) + r * args.y_stride + first : nullptr;
            Vec sum = hn::Zero(DF());
            if (n == softmax_columns) {
                for (int64_t i = 0; i < softmax_columns; i += two_vectors) {
                    const int64_t second = i + static_cast<int64_t>(n_lanes);
                    const Vec e0 = numerator(load(c + i)), e1 = numerator(load(c + second));
                    sum = hn::Add(hn::Add(sum, e0), e1);
                    if (!y) continue;
                    if (stream_y) {
                        stream(e0, e1, y + i);
                    } else {
                        store(e0, y + i);
                        store(e1, y + second);
                    }
                }
            } else {
                float e[softmax_columns] = {};
                for_lanes(n, [&](int64_t i, auto part) HWY_ATTR { part.put(numerator(part.get(c + i)), e + i); });
                std::fill(e + n, e + softmax_columns, 0.0f);
                for (int64_t i = 0; i < softmax_columns; i += static_cast<int64_t>(n_lanes))
                    sum = hn::Add(sum, load(e + i));
                if (y) for_lanes(n, [&](int64_t i, auto part) HWY_ATTR { part.put(part.get(e + i), y + i); });
            }
            sums[r] = hn::ReduceSum(DF(), sum);
        }
    }
}

void StoreSoftmax(const SoftmaxStoreArgs & args) {
    if (args.y_is_bf16) {
        store_softmax_as<Bf16>(args);
    } else {
        store_softmax_as<float>(args);
    }
}

void StoreBlockBf16(const StoreArgs & args) { store_block<Bf16>(args); }
void StoreBlockF32(const StoreArgs & args) { store_block<float>(args); }

template <typename X, typename Y> HWY_INLINE void convert_row(const X * x, Y * y, int64_t n) {
    for_lanes(n, [&](int64_t i, auto part) HWY_ATTR { part.put(part.get(x + i), y + i); });
}

void ConvertF32ToBf16(const float * x, uint16_t * y, int64_t n) { convert_row(x, reinterpret_cast<Bf16 *>(y), n); }
void ConvertBf16ToF32(const uint16_t * x, float * y, int64_t n) {
    convert_row(reinterpret_cast<const Bf16 *>(x), y, n);
}

HWY_INLINE float DotF32(const float * a, const float * b, int64_t n) {
    const DF df;
    constexpr int64_t step = n_lanes;
    auto s0 = hn::Zero(df), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 4 * step <= n; i += 4 * step) {
        s0 = hn::MulAdd(hn::LoadU(df, a + i), hn::LoadU(df, b + i), s0);
        s1 = hn::MulAdd(hn::LoadU(df, a + i + step), hn::LoadU(df, b + i + step), s1);
        s2 = hn::MulAdd(hn::LoadU(df, a + i + 2 * step), hn::LoadU(df, b + i + 2 * step), s2);
        s3 = hn::MulAdd(hn::LoadU(df, a + i + 3 * step), hn::LoadU(df, b + i + 3 * step), s3);
    }
    for (; i + step <= n; i += step) s0 = hn::MulAdd(hn::LoadU(df, a + i), hn::LoadU(df, b + i), s0);
    float sum = hn::ReduceSum(df, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

void AddRowDotsF32(const float * rows, int64_t n_rows, const float * x, int64_t n, float scale, float * y) {
    for (int64_t i = 0; i < n_rows; ++i) y[i] += scale * DotF32(x, rows + i * n, n);
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(KernelBf16);
HWY_EXPORT(KernelF32);
HWY_EXPORT(KernelAElement);
HWY_EXPORT(KernelTarget);
HWY_EXPORT(StoreSoftmax);
HWY_EXPORT(StoreBlockBf16);
HWY_EXPORT(StoreBlockF32);
HWY_EXPORT(ConvertF32ToBf16);
HWY_EXPORT(ConvertBf16ToF32);
HWY_EXPORT(DotF32);
HWY_EXPORT(AddRowDotsF32);

void kernel_bf16_simd(const KernelArgs & args) { HWY_DYNAMIC_DISPATCH(KernelBf16)(args); }
void kernel_f32_simd(const KernelArgs & args) { HWY_DYNAMIC_DISPATCH(KernelF32)(args); }
int64_t kernel_bf16_simd_a_element() { return HWY_DYNAMIC_DISPATCH(KernelAElement)(); }
int64_t kernel_target() { return HWY_DYNAMIC_DISPATCH(KernelTarget)(); }
void store_softmax(const SoftmaxStoreArgs & args) { HWY_DYNAMIC_DISPATCH(StoreSoftmax)(args); }
void store_block_bf16(const StoreArgs & args) { HWY_DYNAMIC_DISPATCH(StoreBlockBf16)(args); }
void stores_done() { hwy::FlushStream(); }
void store_block_f32(const StoreArgs & args) { HWY_DYNAMIC_DISPATCH(StoreBlockF32)(args); }
void convert_f32_to_bf16(const float * x, uint16_t * y, int64_t n) { HWY_DYNAMIC_DISPATCH(ConvertF32ToBf16)(x, y, n); }
void convert_bf16_to_f32(const uint16_t * x, float * y, int64_t n) { HWY_DYNAMIC_DISPATCH(ConvertBf16ToF32)(x, y, n); }
void add_row_dots_f32(const float * rows, int64_t n_rows, const float * x, int64_t n, float scale, float * y) {
    HWY_DYNAMIC_DISPATCH(AddRowDotsF32)(rows, n_rows, x, n, scale, y);
}
float dot_f32(const float * a, const float * b, int64_t n) { return HWY_DYNAMIC_DISPATCH(DotF32)(a, b, n); }

}  // namespace lorica::cpu
#endif
