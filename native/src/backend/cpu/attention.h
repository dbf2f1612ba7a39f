// Attention on the CPU in blocks of queries and keys (Dao 2023, FlashAttention-2): no matrix of length x length exists,
// scratch memory is a constant per thread. Each output element is summed by one thread in one order, so results do not
// depend on n_threads.
#pragma once

#include <cstddef>
#include <span>

#include "backend/backend.h"

namespace lorica::cpu {

// The matrix units that may be used, best first; each needs the processor to have it. f32 matrices always use `fma`.
enum class AttentionUnits { amx, dot_bf16, fma };

// Bytes that the functions below need at `workspace`, 64-byte aligned, for shapes within `shape`.
size_t attention_workspace_bytes(const WorkspaceShape & shape, int n_threads, Dtype act);

// As Backend::attention. q, k, v, o share one type, f32 or bf16; lse is f32 or empty.
void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape, Matrix o,
               Matrix lse, void * workspace, int n_threads, AttentionUnits units = AttentionUnits::amx);

// As Backend::attention_backward. All but lse share one type.
void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                        Matrix dv, void * workspace, int n_threads, AttentionUnits units = AttentionUnits::amx);

}  // namespace lorica::cpu
