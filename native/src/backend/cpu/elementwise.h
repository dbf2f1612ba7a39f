// Everything on the CPU that is neither a matrix product nor attention. Semantics, shapes and "+=" or "=" are those of
// the Backend operation of the same name. Matrices are f32 or bf16 in any combination, with any stride; results do not
// depend on n_threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorica::cpu {

// elementwise_norm.cpp
void rmsnorm(Matrix x, const Norm & norm, Matrix y, int n_threads);
void rmsnorm_backward(Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act, int n_threads);

// elementwise_rope.cpp. Angles and their sine and cosine are computed in double precision, once for all layers that
// rotate tokens of the same positions.
class RotationTable {
public:
    static size_t bytes(int64_t n_rows, int64_t head_dim) {
        return static_cast<size_t>(n_rows * head_dim) * 2 * sizeof(float);
    }
    void reserve(int64_t n_rows, int64_t head_dim);
    // [position][2][2 n_pairs]: the multipliers of each number, then of the other number of its pair.
    const float * rows(std::span<const int32_t> positions, std::span<const double> inverse_frequency, int n_threads);

private:
    std::vector<int32_t> positions_;
    std::vector<double> inverse_frequency_;
    std::vector<float> rows_;
};
void rope(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
          bool inverse, RotationTable & table, int n_threads);

// elementwise_swiglu.cpp. h may be gate or up; dgate and dup may be gate and up. With an h, swiglu_backward leaves that
// there as well, and h may be dh.
void swiglu(Matrix gate, Matrix up, Matrix h, int n_threads);
void swiglu_backward(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int n_threads);

// elementwise_rows.cpp
void embed(const Weight & embedding, const int32_t * tokens, Matrix x, int n_threads);
void gather_rows(Matrix x, const int32_t * rows, Matrix y, int n_threads);
void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx, int n_threads);
// y = x in y's format, rounded to nearest even.
void convert(Matrix x, Matrix y, int n_threads);

// elementwise_optimizer.cpp
double sum_of_squares(const float * x, int64_t n, int n_threads);
void adamw(float * param, const float * grad, float * m, float * v, int64_t n, const AdamwParams & params,
           int n_threads);

}  // namespace lorica::cpu
