// c = [residual +] [c +] scale sum_t a_t b_t with f32 sums: of bf16 operands on tensor cores, or of f32 operands.
#pragma once

#include "backend/cuda/kernels.h"
#include "backend/cuda/random.cuh"

#include <ggml.h>

namespace lorica::cuda {

// How the operands of c[m, n] lie in memory, by rows each.
enum class GemmLayout {
    forward,   // a[m, k], b[n, k]: y = x W^T
    backward,  // a[m, k], b[k, n]: dx = dy W
    gradient,  // a[k, m], b[k, n]: da = v^T x
};

struct GemmTerm {
    const void * a = nullptr;  // act; bf16: 16-byte aligned
    int64_t a_stride = 0;      // in elements; bf16: a multiple of 8
    const void * b = nullptr;  // the same, or a weight's blocks
    int64_t b_stride = 0;      // in elements; of blocks: in bytes
    int64_t k = 0;
    int b_type = dense;  // or the ggml_type of the blocks

    static constexpr int dense = -1;
};

// A part of a result that lies elsewhere: its rows, or its columns, from `begin` on.
struct GemmPart {
    int64_t begin = 0;
    void * c = nullptr;
    int64_t stride = 0;
};
constexpr int max_gemm_parts = 4;

// Where sums go, in this order: times scale, masked and scaled by dropout, times gate, plus bias, plus residual, plus
// c, to c.
struct GemmResult {
    void * c = nullptr;
    int64_t stride = 0;
    bool bf16 = false;        // else f32
    bool transposed = false;  // c[n, m]
    bool accumulate = false;
    float scale = 1;
    const float * gate = nullptr;  // of row m for every gate_columns columns
    int64_t gate_stride = 0, gate_columns = 1;
    const float * bias = nullptr;  // of each column
    const float * residual = nullptr;
    int64_t residual_stride = 0;
    uint32_t dropout_threshold = 0;  // 0: none; elements are numbered m * n_columns + n
    float dropout_keep = 1;
    Seed dropout_seed;
    // Where given, c and stride are those of the last part that begins at or before a row (or column).
    GemmPart parts[max_gemm_parts];
    int n_parts = 0;
    bool parts_of_rows = false;

    static GemmResult to(const Matrix & c) {
        GemmResult result;
        result.c = c.data;
        result.stride = c.stride;
        result.bf16 = c.type == Dtype::bf16;
        return result;
    }
};

// True when elements (m, n) to (m, n + 7), n a multiple of 8, can be stored at once.
bool has_eights(const GemmResult & result, int64_t n);

constexpr int max_gemm_terms = 8;
struct Gemm {
    GemmLayout layout = GemmLayout::forward;
    int64_t m = 0, n = 0;
    GemmTerm terms[max_gemm_terms];
    int n_terms = 0;
    GemmResult result;
    bool of_adapter = false;     // m or n is a rank: see gemm_workspace_bytes()
    bool panel_is_free = false;  // no weight was expanded into the workspace for panels: see panel_bytes()

    Gemm() = default;
    Gemm(GemmLayout layout_, int64_t m_, int64_t n_, const GemmResult & result_)
        : layout(layout_), m(m_), n(n_), result(result_) {}
    void add(const GemmTerm & term);
};

// Products that have a rank for a side make few tiles: they are split along k where that fills the device, and the
// parts, which lie in the workspace, are added in order. widest: their other side.
size_t gemm_workspace_bytes(int64_t widest, int64_t max_rank);
void gemm(const Context & context, const Gemm & problem);
// gemm_f32.cu: what gemm() does when act is f32. Plain: no tensor cores, no splits.
void gemm_f32(const Context & context, const Gemm & problem);

// gemm_wgmma.cu: dense products of bf16 with the warp-group instructions of sm_90a.
bool has_wgmma();                        // compiled in
bool suits_wgmma(const Gemm & problem);  // large and aligned enough
void gemm_wgmma(const Context & context, const Gemm & problem);
// gemm_tma.cu: the same with operands brought by the tensor memory accelerator, and tiles of b shared by two blocks.
bool suits_tma(const Gemm & problem);
void gemm_tma(const Context & context, const Gemm & problem);

// adapter_gradient.cu: v = dy b and db += scale dy^T u, reading dy once. dy[rows, out], b[out, rank] and u[rows, rank]
// are operands; v says where sums of [rows, rank] go. Parts of both lie in the workspace as those of gemm() do.
constexpr int64_t max_rank_of_adapter_gradient = 64;
bool suits_adapter_gradient(const Context & context, int64_t rank);
void adapter_gradient(const Context & context, const Matrix & dy, const Matrix & b, const Matrix & u,
                      const GemmResult & v, float scale, float * db);

// True when a product can read the weight as it lies in memory: as blocks, or (of the type act) as a dense matrix.
bool is_fused_type(const Weight & w, Dtype act);
// b of W[out, in] itself. k: out or in, as the layout has it.
GemmTerm weight_term(const Weight & w, const Matrix & a, int64_t k);

}  // namespace lorica::cuda
