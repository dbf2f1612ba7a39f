// The output head and the loss over it, some rows at a time: logits in f32, softmax and its gradient in place, product
// back.
#include "backend/cuda/device.cuh"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "backend/cuda/view.cuh"

#include "common/random.h"

#include <algorithm>
#include <cmath>

namespace lorica::cuda {

namespace {

constexpr int threads = 256, elements_per_thread = 4, chunk = threads * elements_per_thread;
constexpr int64_t logits_limit = int64_t{128} << 20;  // elements of f32 logits at once

int64_t rows_at_once(int64_t n_rows, int64_t n_vocab) {
    return std::min(n_rows, std::max<int64_t>(logits_limit / n_vocab / 128 * 128, 128));
}

struct Logits {
    float factor, to_tanh;  // factor z, or factor tanh(to_tanh z) where there is a cap
    float scale;

    static Logits of(const LogitSpec & spec) {
        const bool capped = spec.cap > 0;
        return {static_cast<float>(capped ? spec.cap : spec.scale),
                capped ? static_cast<float>(spec.scale / spec.cap) : 0.0f, static_cast<float>(spec.scale)};
    }
    bool is_plain() const { return factor == 1 && to_tanh == 0; }
    __device__ __forceinline__ float of(float z) const { return factor * (to_tanh == 0 ? z : tanhf(to_tanh * z)); }
    // The derivative, from what of() gave.
    __device__ __forceinline__ float slope(float logit) const {
        const float t = logit / factor;
        return to_tanh == 0 ? factor : scale * (1.0f - t * t);
    }
};

// The labels of each row, which ascend, with a loss and a weight each. No weights: 1.
struct Labels {
    const int32_t * labels;
    const float * weights;
    float * nll;
    int n;  // of a row

    Labels of_rows_from(int64_t row) const {
        const int64_t i = row * n;
        return {labels + i, weights ? weights + i : nullptr, nll + i, n};
    }
};

// One block per row: nll = log sum exp z - z[label]; with a gradient, the row becomes, as T, the sum of its labels'
// weights times softmax(z), less each weight at its label. Of bf16 element i lies where elements i / 2 of z were; a
// chunk is read by all before any of it is written, and all before it has been read. What stands at a label comes from
// its loss, and last.
template <typename T>
__global__ void __launch_bounds__(threads) softmax_cross_entropy_kernel(float * logits, int64_t stride, int64_t n,
                                                                        const __grid_constant__ Logits spec,
                                                                        const __grid_constant__ Labels of,
                                                                        bool gradient) {
    auto * partial = reinterpret_cast<float *>(shared_memory());
    float * z = logits + blockIdx.x * stride;
    const int32_t * labels = of.labels + int64_t{blockIdx.x} * of.n;
    const float * weights = of.weights ? of.weights + int64_t{blockIdx.x} * of.n : nullptr;
    float * nll = of.nll + int64_t{blockIdx.x} * of.n;
    // The maximum and the sum below it in one pass: what was summed is shrunk where a larger one comes. Rows begin at
    // multiples of four.
    float max = -INFINITY, sum = 0;
    for (int64_t i = int64_t{threadIdx.x} * 4; i < n; i += threads * 4) {
        float v[4];
        if (i + 4 <= n) {
            const float4 four = *reinterpret_cast<const float4 *>(z + i);
            v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
#pragma unroll
            for (int e = 0; e < 4; ++e) v[e] = spec.of(v[e]);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) v[e] = i + e < n ? spec.of(z[i + e]) : -INFINITY;
        }
        const float before = max;
        max = fmaxf(fmaxf(max, fmaxf(v[0], v[1])), fmaxf(v[2], v[3]));
        sum *= expf(before - max);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum += expf(v[e] - max);
    }
    const float own = max;
    max = block_max<threads>(max, partial);
    sum = block_sum<threads>(own > -INFINITY ? sum * expf(own - max) : 0.0f, partial + threads / warp_size);
    const float log_sum = logf(sum);
    float weight = 0;
    for (int k = static_cast<int>(threadIdx.x); k < of.n; k += threads) {
        nll[k] = log_sum + (max - spec.of(z[labels[k]]));
        weight += weights ? weights[k] : 1.0f;
    }
    if (!gradient) return;
    weight = block_sum<threads>(weight, partial + 2 * (threads / warp_size));
    const float scale = weight / sum;
    auto * dz = reinterpret_cast<T *>(z);
    for (int64_t begin = 0; begin < n; begin += chunk) {
        float value[elements_per_thread];
#pragma unroll
        for (int e = 0; e < elements_per_thread; ++e) {
            const int64_t i = begin + e * threads + threadIdx.x;
            if (i >= n) break;
            const float logit = spec.of(z[i]);
            value[e] = expf(logit - max) * scale * spec.slope(logit);
        }
        __syncthreads();
#pragma unroll
        for (int e = 0; e < elements_per_thread; ++e) {
            const int64_t i = begin + e * threads + threadIdx.x;
            if (i < n) dz[i] = from_float<T>(value[e]);
        }
    }
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x); k < of.n; k += threads) {
        const float own = weights ? weights[k] : 1.0f;
        dz[labels[k]] = from_float<T>((weight * expf(-nll[k]) - own) * spec.slope(log_sum + max - nll[k]));
    }
}

__global__ void __launch_bounds__(threads) logits_kernel(float * z, int64_t n, const __grid_constant__ Logits spec) {
    for (int64_t i = blockIdx.x * int64_t{threads} + threadIdx.x; i < n; i += int64_t{gridDim.x} * threads) {
        z[i] = spec.of(z[i]);
    }
}

Matrix take_matrix(const Context & context, int64_t rows, int64_t cols) {
    const int64_t stride = round_up(cols, 8);
    void * memory = context.act == Dtype::f32 ? static_cast<void *>(context.workspace.take<float>(rows * stride))
                                              : context.workspace.take<uint16_t>(rows * stride);
    return {memory, context.act, rows, cols, stride};
}

Gemm product_of(GemmLayout layout, int64_t m, int64_t n, const Matrix & a, const Matrix & b, int64_t k,
                const GemmResult & result) {
    Gemm gemm(layout, m, n, result);
    gemm.of_adapter = true;
    gemm.add({a.data, a.stride, b.data, b.stride, k});
    return gemm;
}

GemmResult add_to(void * gradient, int64_t stride) {
    GemmResult result;
    result.c = gradient;
    result.stride = stride;
    result.accumulate = true;
    return result;
}

// The LoRA on a head, for all rows: its matrices as operands, u, and v = gate scale dz B, which chunks fill in.
class HeadLora {
public:
    HeadLora(const Context & context, Matrix x, const Head & head, bool backward)
        : context_(context), x_(x), lora_(head.lora) {
        if (!lora_) return;
        const int64_t in = head.weight->in, out = head.weight->out;
        a_ = take_matrix(context, lora_.rank, in);
        b_ = take_matrix(context, out, lora_.rank);
        const Conversion conversions[] = {
            {static_cast<const float *>(lora_.a), lora_.rank, in, 1, a_.data, a_.stride},
            {static_cast<const float *>(lora_.b), out, lora_.rank, 1, b_.data, b_.stride},
        };
        convert(context, conversions);
        u_ = take_matrix(context, x.rows, lora_.rank);
        if (backward) v_ = take_matrix(context, x.rows, lora_.rank);
        const Workspace::Mark copy(context.workspace);
        gemm(context, product_of(GemmLayout::forward, x.rows, lora_.rank, operand(context, x, lora_.dropout), a_, in,
                                 gated(u_, 0, static_cast<float>(lora_.scale))));
    }

    // scale u B^T of some rows.
    GemmTerm term(int64_t first) const {
        const Matrix u = u_.slice_rows(first, 0);
        return {u.data, u.stride, b_.data, b_.stride, lora_.rank};
    }
    void take_chunk(int64_t first, const Matrix & dz) const {
        const Matrix v = v_.slice_rows(first, dz.rows), u = u_.slice_rows(first, dz.rows);
        const GemmResult to_v = gated(v, first, static_cast<float>(lora_.scale));
        if (lora_.db && suits_adapter_gradient(context_, lora_.rank)) {
            return adapter_gradient(context_, dz, b_, u, to_v, 1, static_cast<float *>(lora_.db));
        }
        gemm(context_, product_of(GemmLayout::backward, dz.rows, lora_.rank, dz, b_, dz.cols, to_v));
        if (!lora_.db) return;
        GemmResult result = add_to(lora_.db, lora_.rank);
        result.transposed = true;
        gemm(context_, product_of(GemmLayout::gradient, lora_.rank, dz.cols, u, dz, dz.rows, result));
    }
    // Once all chunks have been: dA += v^T dropout(x), dx += dropout'(v A).
    void finish(const Matrix & dx) const {
        const int64_t in = x_.cols;
        if (lora_.da) {
            const Workspace::Mark copy(context_.workspace);
            gemm(context_, product_of(GemmLayout::gradient, lora_.rank, in, v_, operand(context_, x_, lora_.dropout),
                                      x_.rows, add_to(lora_.da, in)));
        }
        if (!dx) return;
        GemmResult result = GemmResult::to(dx);
        result.accumulate = true;
        if (lora_.dropout.p > 0) {
            result.dropout_threshold = dropout_threshold(lora_.dropout.p);
            result.dropout_keep = static_cast<float>(1 / (1 - static_cast<double>(lora_.dropout.p)));
            result.dropout_seed = seed_of(lora_.dropout);
        }
        gemm(context_, product_of(GemmLayout::backward, x_.rows, in, v_, a_, lora_.rank, result));
    }

private:
    GemmResult gated(const Matrix & y, int64_t first, float scale) const {
        GemmResult result = GemmResult::to(y);
        result.scale = scale;
        if (!lora_.gate) return result;
        result.gate = lora_.gate.slice_rows(first, y.rows).as<float>();
        result.gate_stride = lora_.gate.stride;
        result.gate_columns = lora_.rank / lora_.gate.cols;
        return result;
    }

    const Context & context_;
    const Matrix x_;
    const Lora & lora_;
    Matrix a_, b_, u_, v_;  // u with the scale in it
};

}  // namespace

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, Dtype act) {
    const int64_t rank = round_up(shape.head_rank, 8);
    const int64_t of_lora = rank == 0 ? 0
                                      : rank * (shape.n_vocab + round_up(shape.max_features, 8)) +
                                            shape.max_tokens * (2 * rank + round_up(shape.max_features, 8));
    const size_t lora_bytes =
        static_cast<size_t>(of_lora) * dtype_size(act) +
        (rank == 0 ? 0
                   : gemm_workspace_bytes(std::max(shape.n_vocab, shape.max_tokens), rank) + 8 * Workspace::alignment);
    if (shape.n_vocab == 0) return 0;
    if (!shape.training) return rank == 0 ? 0 : lora_bytes + panel_bytes(shape, act);
    const int64_t features = round_up(shape.max_features, 8);
    const int64_t rows = rows_at_once(shape.max_tokens, shape.n_vocab);
    return lora_bytes + static_cast<size_t>(rows * (round_up(shape.n_vocab, 4) + features) * 4) +
           static_cast<size_t>(rows * features) * dtype_size(act) + panel_bytes(shape, act) + 8 * Workspace::alignment;
}

void linear_cross_entropy(const Context & context, Matrix x, const Head & head, const int32_t * labels, float * nll,
                          Matrix dx) {
    if (x.rows == 0) return;
    const Workspace::Mark mark(context.workspace);
    const Weight & w = *head.weight;
    const bool gradient = dx || head.dw || head.lora.da;
    const HeadLora lora(context, x, head, gradient);
    const int64_t n_rows = rows_at_once(x.rows, w.out), stride = round_up(w.out, 4);
    auto * logits = context.workspace.take<float>(n_rows * stride);
    for (int64_t first = 0; first < x.rows; first += n_rows) {
        const Workspace::Mark one_chunk(context.workspace);
        const int64_t rows = std::min(n_rows, x.rows - first);
        const Matrix z{logits, Dtype::f32, rows, w.out, stride};
        const Matrix input = operand(context, x.slice_rows(first, rows));
        const GemmTerm of_lora = head.lora ? lora.term(first) : GemmTerm{};
        multiply_forward(context, input, w, head.lora ? &of_lora : nullptr, GemmResult::to(z));
        const Extent extent{dim3(static_cast<unsigned>(rows)), threads, 3 * threads / warp_size * sizeof(float)};
        const Labels of{labels, head.row_weights, nll, head.n_labels};
        with_type(context.act, [&]<typename T>(T *) {
            launch("softmax_cross_entropy", context.stream, softmax_cross_entropy_kernel<T>, extent, logits, stride,
                   w.out, Logits::of(head.logits), of.of_rows_from(first), gradient);
        });
        if (!gradient) continue;
        const int64_t per_logit = context.act == Dtype::f32 ? 1 : 2;
        const Matrix dz{logits, context.act, rows, w.out, per_logit * stride};
        if (head.lora) lora.take_chunk(first, dz);
        if (head.dw) {
            Gemm product(GemmLayout::gradient, w.out, w.in, add_to(head.dw, w.in));
            product.add({dz.data, dz.stride, input.data, input.stride, rows});
            gemm(context, product);
        }
        if (!dx) continue;
        const Matrix target = dx.slice_rows(first, rows);
        if (target.type == Dtype::f32) {
            multiply_backward_by_rows(context, dz, w, GemmResult::to(target));
            continue;
        }
        const Matrix sums{context.workspace.take<float>(rows * w.in), Dtype::f32, rows, w.in, w.in};
        multiply_backward_by_rows(context, dz, w, GemmResult::to(sums));
        convert(context, sums.as<float>(), rows, w.in, 1, target);
    }
    if (head.lora && gradient) lora.finish(dx);
}

void logits(const Context & context, Matrix x, const Head & head, float * out) {
    const Weight & w = *head.weight;
    const Matrix y{out, Dtype::f32, x.rows, w.out, w.out};
    if (x.rows == 0) return;
    if (head.lora) {
        const Workspace::Mark mark(context.workspace);
        const LinearForward layer{&w, head.lora, take_matrix(context, x.rows, head.lora.rank), {}, y};
        linear(context, x, {&layer, 1});
    } else if (x.rows <= matvec_max_rows) {
        matvec(context, x, w, y);
    } else {
        const Workspace::Mark mark(context.workspace);
        multiply_forward(context, operand(context, x), w, nullptr, GemmResult::to(y));
    }
    const Logits spec = Logits::of(head.logits);
    const int64_t n = x.rows * w.out;
    if (!spec.is_plain()) launch("logits", context.stream, logits_kernel, grid_over(n, threads), out, n, spec);
}

}  // namespace lorica::cuda
