// The backend that everything else is compared with: plain loops, one thread. Read it to learn the mathematics; each
// file holds the forward operation above its backward:
//   linear.h          quantized linear layers with LoRA
//   norm.h, rope.h, activation.h
//   attention.h       packed attention with grouped queries, masks and soft caps
//   cross_entropy.h   output head, softmax, loss
//   rows.h            embedding, gather and scatter, factors and means of rows
//   dora.h            factors of columns
//   optimizer.h       gradient norm, AdamW
//
// Every operation is a template over Real, the one format of all matrices (hidden, act and param alike). Sums are
// always in double: with Real = double it is the reference, with Real = float the best answer that f32 storage allows.
#pragma once

#include "backend/backend.h"

namespace lorica {

// act: f32 or f64.
std::unique_ptr<Backend> make_reference_backend(Dtype act);

}  // namespace lorica
