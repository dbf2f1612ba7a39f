// Between attention.cpp, which splits the work into tasks, and the files that do one task on one thread:
// attention_forward.cpp, attention_backward.cpp, attention_decode.cpp. attention_products-inl.h packs and multiplies
// for them, attention_block-inl.h knows which rows see which keys.
//
// The g = n_head / n_head_kv query heads that share a kv head are handled together: row r of a (segment, kv head) is
// query r / g of head r % g. Everything is laid out with rows as vector lanes, in panels of 32: scores are
// S^T[key][32 rows], so that the softmax over keys, the mask and the statistics need no operation across lanes,
// and the output is O^T[dimension][32 rows]. Every product is C[n][32] (+)= A[n][k] B[k][32].
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/attention.h"

namespace lorica::cpu {

constexpr int64_t panel_lanes = 32;
constexpr int64_t block_rows = 128;  // rows of a task: four panels
constexpr int64_t block_keys = 64;
constexpr int64_t chunk_keys =
    512;  // keys whose gradients one task accumulates; shorter segments get dQ from the same scores
constexpr int64_t decode_max_rows = 32;
constexpr int64_t decode_keys = 128;  // keys of one part of a decoding step

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct AttentionOperands {
    Matrix q, k, v, o, lse, d_o, dq, dk, dv;  // the gradients only in the backward pass
    AttentionShape shape;
    AttentionUnits units;

    int64_t group() const { return shape.n_head / shape.n_head_kv; }
};

struct AttentionTask {
    Segment segment;
    int64_t kv_head;
    int64_t first, count;  // rows or keys
};

// Pieces of one buffer, 64-byte aligned. From a null base it only counts.
class Carver {
public:
    explicit Carver(void * base) : base_(static_cast<std::byte *>(base)) {}
    template <typename T> void take(T *& piece, int64_t n) {
        piece = base_ ? reinterpret_cast<T *>(base_ + used_) : nullptr;
        used_ += static_cast<size_t>(round_up(n * static_cast<int64_t>(sizeof(T)), 64));
    }
    size_t used() const { return used_; }

private:
    std::byte * base_;
    size_t used_ = 0;
};

// Scratch of one thread. `d` is head_dim rounded up to 32. A 32-bit word holds a float, or two bf16 along the summed
// dimension.
struct ForwardScratch {
    uint32_t *staging, *q_t, *keys, *values, *p;
    float *s, *o_t, *max, *sum, *alpha;
    size_t n_bytes;

    ForwardScratch(void * base, int64_t d) {
        Carver carver(base);
        carver.take(staging, panel_lanes * d);
        carver.take(q_t, block_rows * d);
        carver.take(keys, block_keys * d);
        carver.take(values, block_keys * d);
        carver.take(p, block_keys * panel_lanes);
        carver.take(s, block_keys * panel_lanes);
        carver.take(o_t, block_rows * d);
        carver.take(max, block_rows);
        carver.take(sum, block_rows);
        carver.take(alpha, panel_lanes);
        n_bytes = carver.used();
    }
};

struct BackwardScratch {
    uint32_t *staging, *q_t, *do_t, *q_rows, *do_rows, *keys, *values, *keys_t, *p, *ds, *ds_b;
    float *s, *dp, *dq_t, *dk, *dv, *lse, *delta;
    size_t n_bytes;

    BackwardScratch(void * base, int64_t d) {
        Carver carver(base);
        carver.take(staging, panel_lanes * d);
        carver.take(q_t, block_rows * d);
        carver.take(do_t, block_rows * d);
        carver.take(q_rows, block_rows * d);
        carver.take(do_rows, block_rows * d);
        carver.take(keys, chunk_keys * d);
        carver.take(values, chunk_keys * d);
        carver.take(keys_t, chunk_keys / 2 * d);
        carver.take(p, block_rows * chunk_keys);
        carver.take(ds, block_rows * chunk_keys);
        carver.take(ds_b, panel_lanes * block_keys / 2);
        carver.take(s, block_keys * panel_lanes);
        carver.take(dp, block_keys * panel_lanes);
        carver.take(dq_t, block_rows * d);
        carver.take(dk, chunk_keys * d);
        carver.take(dv, chunk_keys * d);
        carver.take(lse, block_rows);
        carver.take(delta, block_rows);
        n_bytes = carver.used();
    }
};

struct DecodeScratch {
    float *q, *scores;
    size_t n_bytes;

    DecodeScratch(void * base, int64_t d) {
        Carver carver(base);
        carver.take(q, decode_max_rows * d);
        carver.take(scores, decode_max_rows * decode_keys);
        n_bytes = carver.used();
    }
};

// Softmax numerators of one row over some keys: maximum, sum of e^(score - maximum), and o[d].
constexpr int64_t decode_part_floats(int64_t d) { return round_up(2 + d, 16); }

// The kernels of the instruction set in use.
using RowsTask = void (*)(const AttentionOperands &, const AttentionTask &, void * scratch);
using PartTask = void (*)(const AttentionOperands &, const AttentionTask & keys, void * scratch, float * parts);
using MergeTask = void (*)(const AttentionOperands &, const AttentionTask &, float * parts, int64_t n_parts,
                           int64_t part_stride);
bool attention_multiplies_pairs();  // has a dot product of bf16 pairs: what `dot_bf16` and `amx` need
RowsTask attention_forward_task();  // of a block of rows
// dK and dV of a chunk of keys; also dQ when the chunk is the whole segment.
RowsTask attention_backward_keys_task();
// dQ of a block of rows of a segment longer than a chunk.
RowsTask attention_backward_queries_task();
// parts[row]: the softmax over the task's keys alone, see decode_part_floats.
PartTask attention_decode_task();
// Merges parts[n_parts][row] in the order of the keys; overwrites them.
MergeTask attention_decode_merge_task();

// C[rows][32] (+)= A B with AMX tiles. A is bf16: row i at a + i * a_stride bytes, its 32 elements of step s at
// + s * a_step bytes. B is [k / 2][32] words of two bf16. Works on whole tiles: rows are rounded up to 16.
// steps = k / 32.
void amx_multiply(const void * a, int64_t a_stride, int64_t a_step, const uint32_t * b, float * c, int64_t rows,
                  int64_t steps, bool accumulate);

}  // namespace lorica::cpu
