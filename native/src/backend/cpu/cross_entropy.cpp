#include <algorithm>

#include "backend/cpu/linear.h"
#include "backend/cpu/softmax.h"

namespace lorica::cpu {

namespace {

constexpr size_t logits_limit = size_t{64} << 20;  // bytes of one chunk of logits

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Rows whose logits are held at once. The head is dequantized once per chunk, so few large chunks are best.
int64_t chunk_rows(int64_t n_rows, int64_t n_vocab) {
    const auto fitting = static_cast<int64_t>(logits_limit / (static_cast<size_t>(round_up(n_vocab, 16)) * 4));
    return std::min(n_rows, std::max<int64_t>(fitting / block_m * block_m, 2 * block_m));
}

}  // namespace

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, GemmPrecision precision) {
    if (shape.n_vocab == 0) return 0;
    const int64_t rows = chunk_rows(shape.max_tokens, shape.n_vocab);
    size_t bytes = static_cast<size_t>(rows * round_up(shape.n_vocab, 16)) * 4;
    if (precision == GemmPrecision::bf16) {
        bytes += shape.n_vocab % 32 == 0 ? gemm_packed_a_bytes(block_m, shape.n_vocab) : gemm_packed_a_bytes(rows, shape.n_vocab);
        bytes += gemm_packed_a_bytes(block_m, shape.max_features);
    }
    return bytes;
}

void linear_cross_entropy(const Context & context, Matrix x, const Weight & head, const int32_t * labels, float * nll, Matrix dx) {
    const Scratch::Mark mark(context.scratch);
    const int64_t n_vocab = head.out, stride = round_up(n_vocab, 16), chunk = chunk_rows(x.rows, n_vocab);
    const bool bf16 = context.precision == GemmPrecision::bf16;
    auto * memory = context.scratch.take_as<float>(chunk * stride);
    for (int64_t first = 0; first < x.rows; first += chunk) {
        const int64_t rows = std::min(chunk, x.rows - first);
        const Matrix logits{memory, Dtype::f32, rows, n_vocab, stride};
        const GemmJob forward{{{x.slice_rows(first, rows), GemmB::weight(head, true)}}, rows, n_vocab, {logits, {}, false}};
        gemm({&forward, 1}, context.precision, context.scratch, context.n_threads);
#pragma omp parallel for num_threads(context.n_threads) schedule(dynamic, 4)
        for (int64_t i = 0; i < rows; ++i) {
            nll[first + i] = softmax_cross_entropy_row(logits.row_as<float>(i), n_vocab, labels[first + i], bool(dx), bf16);
        }
        if (!dx) continue;
        const Matrix p{memory, context.act(), rows, n_vocab, bf16 ? 2 * stride : stride};
        const GemmJob backward{{{p, GemmB::weight(head, false)}}, rows, head.in, {dx.slice_rows(first, rows), {}, false}};
        gemm({&backward, 1}, context.precision, context.scratch, context.n_threads);
    }
}

}  // namespace lorica::cpu
