// The kernels as the host sees them, by file. All run in order on the stream they are given.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/workspace.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>

namespace lorica::cuda {

class AdapterCopies;

// What an operation works with.
struct Context {
    cudaStream_t stream;
    Workspace & workspace;
    int n_multiprocessors;
    Dtype act;      // bf16: tensor cores; f32: plain kernels
    bool wgmma;     // products may use the instructions of sm_90a
    bool tma;       // and have their operands brought by the tensor memory accelerator
    bool overlaps;  // kernels of decoding may begin while the one before ends
    AdapterCopies & adapters;
    bool recording;  // nothing that is made now is kept
};

// ---- dequantize.cu

// True where kernels read the type's blocks. Other types are expanded to BF16 beforehand: see WeightStore.
bool is_device_type(ggml_type type);
// to[rows, cols] = elements [first_row, + rows) x [first_col, + cols) of W, act. first_col: a multiple of 32; stride:
// of 8.
void dequantize(const Context & context, const Weight & w, int64_t first_row, int64_t rows, int64_t first_col,
                int64_t cols, void * to, int64_t stride);
void embed(const Context & context, const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x);

// ---- norms.cu

size_t norm_workspace_bytes(const WorkspaceShape & shape, int n_multiprocessors);
void norm(const Context & context, Matrix x, const Norm & norm, Matrix residual, Matrix y);
void norm_backward(const Context & context, Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx,
                   Matrix dx_act);
void norm_gradient(const Context & context, Matrix dy, Matrix x, const Norm & norm, float * dw, float * db);
// sums += the sum of the rows of dy.
void add_row_sums(const Context & context, Matrix dy, float * sums);

// ---- rope.cu

void rope(const Context & context, Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction);
void rope_into_cache(const Context & context, Matrix q, Matrix k, Matrix v, const int32_t * positions,
                     const int32_t * rows, const Rope & rope, Matrix k_cache, Matrix v_cache);

// ---- activation.cu

// up, dup empty: without a gate.
void gated(const Context & context, Matrix gate, Matrix up, Act act, Matrix h);
void gated_backward(const Context & context, Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup);

// ---- rows.cu

void embed_backward(const Context & context, Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n,
                    double scale, float * d_table);
void gather_rows(const Context & context, Matrix x, const int32_t * rows, Matrix y);
void scatter_add_rows(const Context & context, Matrix dy, const int32_t * rows, Matrix dx);
void scale(const Context & context, Matrix x, double factor, Matrix y);
void scale_rows(const Context & context, Matrix x, const float * factors, Matrix y);
void segment_mean(const Context & context, Matrix x, std::span<const Segment> segments, Matrix y);
void segment_mean_backward(const Context & context, Matrix dy, std::span<const Segment> segments, Matrix dx);
// y = dropout(x), bf16 or f32; p == 0: a copy.
void copy_with_dropout(const Context & context, Matrix x, const Dropout & dropout, Matrix y);
// y = scale x of a dense f32 matrix, act.
void convert(const Context & context, const float * x, int64_t rows, int64_t cols, float scale, Matrix y);
// Several of them by one launch, all to act.
struct Conversion {
    const float * x;
    int64_t rows, cols;
    float scale;
    void * y;
    int64_t stride;
};
constexpr int max_conversions = 32;
void convert(const Context & context, std::span<const Conversion> conversions);

void add_noise(const Context & context, Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed);

// ---- dora.cu

size_t dora_workspace_bytes(const WorkspaceShape & shape);
void row_squares(const Context & context, const Weight & w, float * squares);
void dora_factors(const Context & context, const Lora & lora, int64_t in, int64_t out, const DoraRows & rows);
void scale_columns(const Context & context, Matrix x, const float * factors, const float * bias, Matrix residual,
                   Matrix y);
void dora_backward(const Context & context, Matrix dy, Matrix y, const float * bias, Matrix residual,
                   const DoraRows & rows, float * d_magnitudes, Matrix dx);

// ---- optimizer.cu

constexpr int n_partial_sums = 256;
// partial: device memory for n_partial_sums doubles; the first receives the sum.
void sum_of_squares(const Context & context, const float * x, int64_t n, double * partial);
void adamw(const Context & context, float * param, const float * grad, float * m, float * v, int64_t n,
           const AdamwParams & params);
void adamw_8bit(const Context & context, float * param, const float * grad, const Moments8bit & moments, int64_t n,
                const AdamwParams & params);

// ---- measure.cu

inline unsigned read_bandwidth_blocks(const Context & context) {
    return static_cast<unsigned>(8 * context.n_multiprocessors);
}
// Bytes per second. sums: a number for each block.
double read_bandwidth(const Context & context, const void * memory, size_t n_bytes, uint32_t * sums);
// 0: not known.
double nominal_peak(int major, int minor, int n_multiprocessors, int clock_khz);

// ---- linear.cu

size_t linear_workspace_bytes(const WorkspaceShape & shape, Dtype act, int n_multiprocessors);
void linear(const Context & context, Matrix x, std::span<const LinearForward> layers);
void linear_backward(const Context & context, Matrix x, std::span<const LinearBackward> layers, bool accumulate,
                     Matrix dx);

// ---- matvec.cu

constexpr int64_t matvec_max_rows = 8;
// What `linear` does, for few rows of x or, with a norm, of rmsnorm(x).
void linear_few_rows(const Context & context, Matrix x, const Norm * norm, std::span<const LinearForward> layers);
// And h = act(gate) up of the outputs of two layers with weights of one type and shape.
void linear_gated_few_rows(const Context & context, Matrix x, const Norm & norm,
                           std::span<const LinearForward> gate_and_up, Act act, Matrix h);
// y = x W^T, f32.
void matvec(const Context & context, Matrix x, const Weight & w, Matrix y);

// ---- cross_entropy.cu

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, Dtype act);
void linear_cross_entropy(const Context & context, Matrix x, const Head & head, const int32_t * labels, float * nll,
                          Matrix dx);
void logits(const Context & context, Matrix x, const Head & head, float * out);

// ---- attention: attention_plan.cpp, attention_forward.cu, attention_backward.cu, attention_decode.cu,
// attention_plain.cu

// Rows [begin, begin + n) of q, or of k and v, of one segment.
struct AttentionTile {
    Segment segment;
    int32_t begin, n;  // within the segment
};
struct AttentionTiles {
    const AttentionTile * tiles;
    int64_t n;
};

class AttentionPlan;
// What attention_forward and attention_backward take: delta, and copies of operands whose heads are not aligned.
size_t attention_workspace_bytes(const WorkspaceShape & shape, Dtype act);
void attention_forward(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionPlan & plan,
                       const AttentionShape & shape, Matrix o, Matrix lse);
// delta: device memory for q.rows * n_head floats.
void attention_backward(const Context & context, Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        const AttentionPlan & plan, const AttentionShape & shape, float * delta, Matrix dq, Matrix dk,
                        Matrix dv);

// Few queries per segment: tiles of one query each, whose keys are shared out to n_parts blocks, a power of two so that
// few numbers of keys need a grid of their own.
constexpr int32_t decode_max_queries = 4, decode_max_parts = 32;
int32_t decode_parts(int32_t n_keys);
size_t decode_workspace_bytes(int64_t n_queries, const AttentionShape & shape);
void attention_decode(const Context & context, Matrix q, Matrix k, Matrix v, const AttentionTiles & queries,
                      int32_t n_parts, const AttentionShape & shape, Matrix o);

// In how many parts a sum over rows is made, each by a block for every 32 columns, that are added in order.
constexpr int most_row_parts = 32;
inline int row_parts(const Context & context, int64_t rows, int64_t cols) {
    const int64_t blocks = (cols + 31) / 32;
    return static_cast<int>(
        std::clamp<int64_t>(std::min(4 * context.n_multiprocessors / blocks, rows / 64), 1, most_row_parts));
}

}  // namespace lorica::cuda
