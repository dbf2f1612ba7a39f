// Quantized linear layers with LoRA, and the output head: everything that is a product with a weight.
#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/interleaved.h"

namespace lorica::cpu {

// What every operation of one CpuBackend shares.
struct Context {
    GemmPrecision precision;
    int n_threads;
    Scratch & scratch;
    const InterleavedWeights * interleaved =
        nullptr;  // what decoding reads instead of the blocks, where there are copies

    Dtype act() const { return precision == GemmPrecision::bf16 ? Dtype::bf16 : Dtype::f32; }
    Matrix take_act(int64_t rows, int64_t cols) const;  // from scratch
};

size_t linear_workspace_bytes(const WorkspaceShape & shape, GemmPrecision precision);
void linear(const Context & context, Matrix x, std::span<const LinearForward> layers);
void linear_backward(const Context & context, Matrix x, std::span<const LinearBackward> layers, bool accumulate,
                     Matrix dx);
// As of Backend; false: it is not for these layers or this processor, and nothing was done.
bool gated_linear_backward(const Context & context, Matrix gate, Matrix up, Act act, const LinearBackward & down,
                           Matrix dh, Matrix dgate, Matrix dup);
bool norm_linear_backward(const Context & context, Matrix x, const Norm & norm, std::span<const LinearBackward> layers,
                          Matrix d_normed, Matrix dx, Matrix dx_act);

// One chunk of what a LoRA on a head does to gradients, of rows from number `first` of x on.
struct HeadLoraBackward {
    const Lora & lora;
    Matrix x, u;  // of the chunk
    int64_t first;
    Matrix e;  // [rows, vocabulary]: times factors[row] the gradient of the products
    const float * factors;
};
// v = gate scale e B, not yet times the factors.
Matrix head_lora_v(const Context & context, const HeadLoraBackward & chunk);
// dA += (factors v)^T dropout(x), dB += scale e^T (factors u).
void head_lora_gradients(const Context & context, const HeadLoraBackward & chunk, Matrix v);
// dx = e W + dropout'(v A), not yet times the factors.
void head_input_gradient(const Context & context, const HeadLoraBackward & chunk, const Weight & head, Matrix v,
                         Matrix dx);

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, GemmPrecision precision);
void linear_cross_entropy(const Context & context, Matrix x, const Head & head, const int32_t * labels, float * nll,
                          Matrix dx);
void logits(const Context & context, Matrix x, const Head & head, float * out);

}  // namespace lorica::cpu
