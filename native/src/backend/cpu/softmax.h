#pragma once

#include <cstdint>

namespace lorica::cpu {

// For logits[n]: returns -log softmax(logits)[label] and, when `gradient`, replaces logits by softmax(logits) - onehot(label):
// as f32 in place, or as bf16 in the first half of the same memory when `as_bf16`.
float softmax_cross_entropy_row(float * logits, int64_t n, int32_t label, bool gradient, bool as_bf16);

}  // namespace lorica::cpu
