#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/token_sums.cpp"
#include "backend/cpu/simd_targets.h"
// after simd_targets.h
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <algorithm>
#include <map>
#include <vector>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd-inl.h"
#include "backend/cpu/token_sums.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// tile[c][t] = scale x[t][c] for at most 32 tokens and 16 columns, zeros elsewhere.
void NarrowTile(const uint16_t * x, int64_t stride, int64_t tokens, int64_t columns, float scale, uint16_t * tile) {
    float rows[32][16];
    for (int64_t t = 0; t < 32; ++t) {
        const int64_t filled = t < tokens ? columns : 0;
        const Bf16 * row = reinterpret_cast<const Bf16 *>(x + t * stride);
        for_lanes(filled, [&](int64_t i, auto part) {
            store(hn::Mul(part.get(row + i), hn::Set(Floats(), scale)), rows[t] + i);
        });
        std::fill(rows[t] + filled, rows[t] + 16, 0.0f);
    }
    // Two tokens of a column are a word.
    const hn::FixedTag<float, 4> d;
    const hn::FixedTag<uint32_t, 4> d32;
    const hn::Rebind<hwy::bfloat16_t, decltype(d)> d16;
    const hn::Rebind<uint16_t, decltype(d)> bits;
    uint32_t words[16][16];
    for (int64_t pair = 0; pair < 16; ++pair) {
        for (int64_t c = 0; c < 16; c += 4) {
            const auto rounded = [&](int64_t t) {
                return hn::PromoteTo(d32, hn::BitCast(bits, hn::DemoteTo(d16, hn::LoadU(d, rows[t] + c))));
            };
            hn::StoreU(hn::Or(rounded(2 * pair), hn::ShiftLeft<16>(rounded(2 * pair + 1))), d32, words[pair] + c);
        }
    }
    transpose_16(words[0], 16, 16, reinterpret_cast<uint32_t *>(tile));
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(NarrowTile);

namespace {

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- AMX: the wide side is read once, where it lies, and is packed a step at a time into the first-level cache. The
// panels of gemm() would carry all of it through the second-level cache for the sake of 16 rows.

constexpr int64_t tile_elements = 16 * 32;

// scale narrow^T as tiles [block of 16 columns][step of 32 tokens].
struct NarrowTiles {
    uint16_t * data;
    int64_t steps;
    uint16_t * tile(int64_t block, int64_t step) const { return data + (block * steps + step) * tile_elements; }
};

// 16 rows of a sum: of its narrow side's columns.
struct SumBlock {
    const TokenSum * sum;
    const NarrowTiles * tiles;
    int64_t block;
};

// To columns of the result: first and up to narrow_columns more. All blocks have the same wide side.
void add_blocks(std::span<const SumBlock> blocks, int64_t first) {
    const TokenSum & any = *blocks[0].sum;
    const int64_t columns = std::min(narrow_columns, any.wide.cols - first);
    float c[narrow_sides][16 * narrow_columns];
    NarrowArgs args{
        {},     static_cast<int64_t>(blocks.size()), nullptr, any.wide.stride, any.wide.rows, columns, c[0], nullptr, 0,
        nullptr};
    for (size_t i = 0; i < blocks.size(); ++i) args.a[i] = blocks[i].tiles->tile(blocks[i].block, 0);
    if (any.norm) {
        args.b = any.wide.row_as<float>(0) + first;
        args.row_scales = any.norm->statistics.as<float>();
        args.row_scale_stride = any.norm->statistics.stride;
        args.column_scales = any.norm->weight.f32() + first;
    } else {
        args.b = any.wide.row_as<uint16_t>(0) + first;
    }
    narrow_product_amx(args);
    for (size_t s = 0; s < blocks.size(); ++s) {
        const auto & [sum, tiles, block] = blocks[s];
        const int64_t n_rows = std::min<int64_t>(16, sum->narrow.cols - block * 16);
        if (!sum->transposed) {
            for (int64_t i = 0; i < n_rows; ++i) {
                float * out = sum->out.row_as<float>(block * 16 + i) + first;
                for (int64_t j = 0; j < columns; ++j) out[j] += c[s][i * narrow_columns + j];
            }
            continue;
        }
        for (int64_t j = 0; j < columns; ++j) {
            float * out = sum->out.row_as<float>(first + j) + block * 16;
            for (int64_t i = 0; i < n_rows; ++i) out[i] += c[s][i * narrow_columns + j];
        }
    }
}

void add_with_tiles(const Context & context, std::span<const TokenSum> sums) {
    const auto pack = HWY_DYNAMIC_POINTER(NarrowTile);
    std::vector<NarrowTiles> tiles;
    struct Part {
        size_t sum;
        int64_t block, step;
    };
    std::vector<Part> parts;
    // Sums over the same wide matrix share a reading of its columns.
    std::map<const void *, std::vector<SumBlock>> same_wide;
    tiles.reserve(sums.size());
    for (size_t i = 0; i < sums.size(); ++i) {
        const int64_t blocks = divide_up(sums[i].narrow.cols, 16), steps = divide_up(sums[i].narrow.rows, 32);
        tiles.push_back({context.scratch.take_as<uint16_t>(blocks * steps * tile_elements), steps});
        for (int64_t block = 0; block < blocks; ++block) {
            for (int64_t step = 0; step < steps; ++step) parts.push_back({i, block, step});
            same_wide[sums[i].wide.data].push_back({&sums[i], &tiles.back(), block});
        }
    }
    struct Task {
        std::span<const SumBlock> blocks;
        int64_t first;
    };
    std::vector<Task> tasks;
    for (const auto & [wide, of_wide] : same_wide) {
        for (int64_t first = 0; first < of_wide[0].sum->wide.cols; first += narrow_columns)
            tasks.push_back({of_wide, first});
    }
    parallel_ranges(static_cast<int64_t>(parts.size()), 32 * 16, context.n_threads, [&](int64_t begin, int64_t end) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
            const auto & [sum, block, step] = parts[i];
            const Matrix & x = sums[sum].narrow;
            pack(x.row_as<uint16_t>(step * 32) + block * 16, x.stride, std::min<int64_t>(32, x.rows - step * 32),
                 std::min<int64_t>(16, x.cols - block * 16), sums[sum].scale, tiles[sum].tile(block, step));
        }
    });
    TaskNumbers numbers(static_cast<int64_t>(tasks.size()), context.n_threads);
    parallel(context.n_threads, [&](int rank) {
        amx_configure_thread();
        numbers.take(rank, [&](int64_t i) {
            // Equal shares of at most narrow_sides.
            const Task & task = tasks[static_cast<size_t>(i)];
            std::span<const SumBlock> rest = task.blocks;
            for (int64_t shares = divide_up(static_cast<int64_t>(rest.size()), narrow_sides); shares > 0; --shares) {
                const auto n = static_cast<size_t>(divide_up(static_cast<int64_t>(rest.size()), shares));
                add_blocks(rest.first(n), task.first);
                rest = rest.subspan(n);
            }
        });
        amx_release_thread();
    });
}

// ---- everything else: as products, with the narrow side transposed

uint16_t scale_bf16(uint16_t bits, float scale) {
    Bf16 value;
    value.bits = bits;
    return Bf16(static_cast<float>(value) * scale).bits;
}

// scale x^T: [cols, rows], act. Tokens in blocks that the first-level cache holds.
Matrix transposed(const Context & context, const Matrix & x, float scale) {
    constexpr int64_t block = 64;
    Matrix y = context.take_act(x.cols, divide_up(x.rows, 32) * 32);
    y.cols = x.rows;
    parallel_tasks(divide_up(x.rows, block), context.n_threads, [&](int, int64_t i) {
        const int64_t first = i * block, end = std::min(first + block, x.rows);
        for (int64_t c = 0; c < x.cols; ++c) {
            for (int64_t t = first; t < end; ++t) {
                if (x.type == Dtype::bf16) {
                    y.row_as<uint16_t>(c)[t] = scale_bf16(x.row_as<uint16_t>(t)[c], scale);
                } else {
                    y.row_as<float>(c)[t] = x.row_as<float>(t)[c] * scale;
                }
            }
        }
    });
    return y;
}

}  // namespace

bool token_sums_take_norms(const Context & context) {
    return context.precision == GemmPrecision::bf16 && has_amx_bf16();
}

void add_token_sums(const Context & context, std::span<const TokenSum> sums) {
    if (sums.empty()) return;
    const Scratch::Mark mark(context.scratch);
    if (token_sums_take_norms(context)) return add_with_tiles(context, sums);
    std::vector<GemmJob> jobs;
    for (const TokenSum & sum : sums) {
        GemmOutput out{sum.out, {}, true};
        if (!sum.transposed) out = {sum.out, sum.out, false};
        jobs.push_back({{{transposed(context, sum.narrow, sum.scale), GemmB::matrix(sum.wide, false)}},
                        sum.narrow.cols,
                        sum.wide.cols,
                        out});
    }
    gemm(jobs, context.precision, context.scratch, context.n_threads);
}

}  // namespace lorica::cpu
#endif
