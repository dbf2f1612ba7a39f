// Everything on the CPU that is neither a matrix product nor attention. Semantics, shapes and "+=" or "=" are those of
// the Backend operation of the same name. Matrices are f32 or bf16 in any combination, with any stride; results do not
// depend on n_threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorica::cpu {

// Columns whose sums over rows one thread makes.
constexpr int64_t gradient_columns = 128;

// elementwise_norm.cpp
void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y, int n_threads);
void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act, int n_threads);
// statistics: memory for two numbers of each group of each row.
void norm_gradient(Matrix dy, Matrix x, const Norm & norm, float * dw, float * db, float * statistics, int n_threads);

// elementwise_rope.cpp. Angles and their sine and cosine are computed in double precision, once for all layers that
// rotate tokens of the same positions in the same way; layers of a few kinds may take turns.
class RotationTable {
public:
    static size_t bytes(int64_t n_rows, int64_t head_dim, int32_t n_ropes) {
        return static_cast<size_t>(n_rows * head_dim * n_ropes) * 2 * sizeof(float);
    }
    void reserve(int64_t n_rows, int64_t head_dim, int32_t n_ropes);
    // Sines and cosines times growth(). Of neighbours [position][2][2 n_pairs]: the multipliers of each number, then of
    // the other number of its pair; of halves [position][2][n_pairs].
    const float * rows(std::span<const int32_t> positions, const Rope & rope, RopeDirection direction, int n_threads);

private:
    struct Entry {
        std::vector<int32_t> positions;
        std::vector<double> inverse_frequency;
        double magnitude = 0, temperature = 0;
        int32_t temperature_length = 0;
        bool undoes = false, halves = false;
        std::vector<float> rows;
    };
    std::vector<Entry> entries_ = std::vector<Entry>(1);
    size_t next_ = 0;  // to be replaced
};
void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction, RotationTable & table,
          int n_threads);

// elementwise_activation.cpp. h may be gate or up; dgate and dup may be gate and up. With an h, gated_backward leaves
// that there as well, and h may be dh.
void gated(Matrix gate, Matrix up, Act act, Matrix h, int n_threads);
void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup, Matrix h, int n_threads);
void activation(Matrix x, Act act, Matrix h, int n_threads);
void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx, int n_threads);

// elementwise_rows.cpp
void embed(const Weight & embedding, const int32_t * tokens, const EmbedOptions & options, Matrix x, int n_threads);
void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale, float * d_table,
                    int n_threads);
// y = factor x, or factors[t] x[t].
void scale_rows(Matrix x, const float * factors, double factor, Matrix y, int n_threads);
void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y, int n_threads);
void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx, int n_threads);
// sums[o] += sum_t x[t, o]
void add_column_sums(Matrix x, float * sums, int n_threads);
void gather_rows(Matrix x, const int32_t * rows, Matrix y, int n_threads);
void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx, int n_threads);
// y = x in y's format, rounded to nearest even.
void convert(Matrix x, Matrix y, int n_threads);

// elementwise_optimizer.cpp
double sum_of_squares(const float * x, int64_t n, int n_threads);
void adamw(float * param, const float * grad, float * m, float * v, int64_t n, const AdamwParams & params,
           int n_threads);

}  // namespace lorica::cpu
