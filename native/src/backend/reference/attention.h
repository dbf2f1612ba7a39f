// Causal scaled dot-product attention (Vaswani et al. 2017, eq. 1) over packed segments, several query heads sharing
// one key and value head (Ainslie et al. 2023, "GQA"). Probabilities are kept for one query at a time; backward makes
// them again from log-sum-exp, as Dao 2023 ("FlashAttention-2", section 3.1) does by blocks.
#pragma once

#include "backend/backend.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lorica::reference {

template <typename Real> double dot(const Real * a, const Real * b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += static_cast<double>(a[i]) * b[i];
    }
    return sum;
}

template <typename Real>
void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape, Matrix o,
               Matrix lse) {
    const int64_t dim = shape.head_dim;
    const int64_t queries_per_kv = shape.n_head / shape.n_head_kv;
    std::vector<double> p, o_i(dim);
    for (const Segment & segment : segments) {
        for (int64_t head = 0; head < shape.n_head; ++head) {
            const int64_t q_column = head * dim, kv_column = head / queries_per_kv * dim;
            for (int64_t i = 0; i < segment.q_len; ++i) {
                const Real * q_i = q.row_as<Real>(segment.q_begin + i) + q_column;
                const int64_t n_visible = i + segment.kv_len - segment.q_len + 1;
                p.resize(n_visible);
                for (int64_t j = 0; j < n_visible; ++j) {
                    p[j] = shape.scale * dot(q_i, k.row_as<Real>(segment.kv_begin + j) + kv_column, dim);
                }
                const double max = *std::max_element(p.begin(), p.end());
                double sum = 0;
                o_i.assign(dim, 0);
                for (int64_t j = 0; j < n_visible; ++j) {
                    p[j] = std::exp(p[j] - max);
                    sum += p[j];
                    const Real * v_j = v.row_as<Real>(segment.kv_begin + j) + kv_column;
                    for (int64_t d = 0; d < dim; ++d) {
                        o_i[d] += p[j] * v_j[d];
                    }
                }
                for (int64_t d = 0; d < dim; ++d) {
                    o.row_as<Real>(segment.q_begin + i)[q_column + d] = static_cast<Real>(o_i[d] / sum);
                }
                if (lse) {
                    lse.row_as<Real>(segment.q_begin + i)[head] = static_cast<Real>(max + std::log(sum));
                }
            }
        }
    }
}

// With s = scale q k^T, p = exp(s - lse), o = p v:
//   dv_j += p_ij do_i;  dp_ij = do_i . v_j;  ds_ij = p_ij (dp_ij - sum_j p_ij dp_ij), where that sum is do_i . o_i;
//   dq_i = scale sum_j ds_ij k_j;  dk_j += scale ds_ij q_i.
template <typename Real>
void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                        Matrix dv) {
    const int64_t dim = shape.head_dim;
    const int64_t queries_per_kv = shape.n_head / shape.n_head_kv;
    std::vector<double> dq_i(dim), sum_dk, sum_dv;
    for (const Segment & segment : segments) {
        for (int64_t head_kv = 0; head_kv < shape.n_head_kv; ++head_kv) {
            const int64_t kv_column = head_kv * dim;
            sum_dk.assign(segment.kv_len * dim, 0);
            sum_dv.assign(segment.kv_len * dim, 0);
            for (int64_t head = head_kv * queries_per_kv; head < (head_kv + 1) * queries_per_kv; ++head) {
                const int64_t q_column = head * dim;
                for (int64_t i = 0; i < segment.q_len; ++i) {
                    const int64_t row = segment.q_begin + i;
                    const Real * q_i = q.row_as<Real>(row) + q_column;
                    const Real * do_i = d_o.row_as<Real>(row) + q_column;
                    const double lse_i = lse.row_as<Real>(row)[head];
                    const double mean_dp = dot(do_i, o.row_as<Real>(row) + q_column, dim);
                    dq_i.assign(dim, 0);
                    for (int64_t j = 0; j <= i + segment.kv_len - segment.q_len; ++j) {
                        const Real * k_j = k.row_as<Real>(segment.kv_begin + j) + kv_column;
                        const Real * v_j = v.row_as<Real>(segment.kv_begin + j) + kv_column;
                        const double p = std::exp(shape.scale * dot(q_i, k_j, dim) - lse_i);
                        const double ds = shape.scale * p * (dot(do_i, v_j, dim) - mean_dp);
                        for (int64_t d = 0; d < dim; ++d) {
                            sum_dv[j * dim + d] += p * do_i[d];
                            sum_dk[j * dim + d] += ds * q_i[d];
                            dq_i[d] += ds * k_j[d];
                        }
                    }
                    for (int64_t d = 0; d < dim; ++d) {
                        dq.row_as<Real>(row)[q_column + d] = static_cast<Real>(dq_i[d]);
                    }
                }
            }
            for (int64_t j = 0; j < segment.kv_len; ++j) {
                for (int64_t d = 0; d < dim; ++d) {
                    dk.row_as<Real>(segment.kv_begin + j)[kv_column + d] = static_cast<Real>(sum_dk[j * dim + d]);
                    dv.row_as<Real>(segment.kv_begin + j)[kv_column + d] = static_cast<Real>(sum_dv[j * dim + d]);
                }
            }
        }
    }
}

}  // namespace lorica::reference
