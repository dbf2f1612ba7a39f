// The output head and the loss over it, some rows at a time: logits in f32, softmax and its gradient in place, product
// back.
#include "backend/cuda/device.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "backend/cuda/view.cuh"

#include <algorithm>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, elements_per_thread = 4, chunk = threads * elements_per_thread;
constexpr int64_t logits_limit = int64_t{128} << 20;  // elements of f32 logits at once

int64_t rows_at_once(int64_t n_rows, int64_t n_vocab) {
    return std::min(n_rows, std::max<int64_t>(logits_limit / n_vocab / 128 * 128, 128));
}

// One block per row: nll = log sum exp z - z[label]; with a gradient, the row becomes softmax(z) - [label] as T. Of
// bf16 element i lies where elements i / 2 of z were; a chunk is read by all before any of it is written, and all
// before it has been read.
template <typename T>
__global__ void __launch_bounds__(threads) softmax_cross_entropy_kernel(float * logits, int64_t stride, int64_t n,
                                                                        const int32_t * labels, float * nll,
                                                                        bool gradient) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    float * z = logits + blockIdx.x * stride;
    const int32_t label = labels[blockIdx.x];
    float max = z[0];
    for (int64_t i = threadIdx.x; i < n; i += threads) max = fmaxf(max, z[i]);
    max = block_max<threads>(max, partial);
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += threads) sum += expf(z[i] - max);
    sum = block_sum<threads>(sum, partial + threads / warp_size);
    if (threadIdx.x == 0) nll[blockIdx.x] = logf(sum) + (max - z[label]);
    if (!gradient) return;
    const float scale = 1.0f / sum;
    auto * dz = reinterpret_cast<T *>(z);
    for (int64_t begin = 0; begin < n; begin += chunk) {
        float value[elements_per_thread];
#pragma unroll
        for (int e = 0; e < elements_per_thread; ++e) {
            const int64_t i = begin + e * threads + threadIdx.x;
            value[e] = i < n ? expf(z[i] - max) * scale - (i == label ? 1.0f : 0.0f) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < elements_per_thread; ++e) {
            const int64_t i = begin + e * threads + threadIdx.x;
            if (i < n) dz[i] = from_float<T>(value[e]);
        }
    }
}

}  // namespace

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, Dtype act) {
    if (shape.n_vocab == 0 || !shape.training) return 0;
    const int64_t features = round_up(shape.max_features, 8);
    const int64_t rows = rows_at_once(shape.max_tokens, shape.n_vocab);
    return static_cast<size_t>(rows * (round_up(shape.n_vocab, 4) + features) * 4) +
           static_cast<size_t>(rows * features) * dtype_size(act) + panel_bytes(shape, act) + 8 * Workspace::alignment;
}

void linear_cross_entropy(const Context & context, Matrix x, const Weight & head, const int32_t * labels, float * nll,
                          Matrix dx) {
    if (x.rows == 0) return;
    const Workspace::Mark mark(context.workspace);
    const int64_t n_rows = rows_at_once(x.rows, head.out), stride = round_up(head.out, 4);
    auto * logits = context.workspace.take<float>(n_rows * stride);
    for (int64_t first = 0; first < x.rows; first += n_rows) {
        const Workspace::Mark one_chunk(context.workspace);
        const int64_t rows = std::min(n_rows, x.rows - first);
        const Matrix z{logits, Dtype::f32, rows, head.out, stride};
        multiply_forward(context, operand(context, x.slice_rows(first, rows)), head, nullptr, GemmResult::to(z));
        const Extent extent{dim3(static_cast<unsigned>(rows)), threads, 2 * threads / warp_size * sizeof(float)};
        with_type(context.act, [&]<typename T>(T *) {
            launch("softmax_cross_entropy", context.stream, softmax_cross_entropy_kernel<T>, extent, logits, stride,
                   head.out, labels + first, nll + first, bool(dx));
        });
        if (!dx) continue;
        const int64_t per_logit = context.act == Dtype::f32 ? 1 : 2;
        const Matrix dz{logits, context.act, rows, head.out, per_logit * stride};
        const Matrix target = dx.slice_rows(first, rows);
        if (target.type == Dtype::f32) {
            multiply_backward_by_rows(context, dz, head, GemmResult::to(target));
            continue;
        }
        const Matrix sums{context.workspace.take<float>(rows * head.in), Dtype::f32, rows, head.in, head.in};
        multiply_backward_by_rows(context, dz, head, GemmResult::to(sums));
        convert(context, sums.as<float>(), rows, head.in, 1, target);
    }
}

void logits(const Context & context, Matrix x, const Weight & head, float * out) {
    const Matrix y{out, Dtype::f32, x.rows, head.out, head.out};
    if (x.rows == 0) return;
    if (x.rows <= matvec_max_rows) return matvec(context, x, head, y);
    const Workspace::Mark mark(context.workspace);
    multiply_forward(context, operand(context, x), head, nullptr, GemmResult::to(y));
}

}  // namespace lorica::cuda
