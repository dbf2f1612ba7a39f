// Scaled dot-product attention (Vaswani et al. 2017, eq. 1) over packed segments, several query heads sharing
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

// softcap tanh(s / softcap) (Gemma 2; Bello et al. 2016, "Neural combinatorial optimization", appendix A.3).
inline double capped(const AttentionShape & shape, double score) {
    return shape.softcap > 0 ? shape.softcap * std::tanh(score / shape.softcap) : score;
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
                const auto [first, end] = shape.mask.visible(segment, static_cast<int32_t>(i));
                const Real * k_first = k.row_as<Real>(segment.kv_begin + first) + kv_column;
                const Real * v_first = v.row_as<Real>(segment.kv_begin + first) + kv_column;
                const int64_t n_visible = end - first;
                p.resize(n_visible);
                for (int64_t j = 0; j < n_visible; ++j) {
                    p[j] = capped(shape, shape.scale * dot(q_i, k_first + j * k.stride, dim));
                }
                const double max = *std::max_element(p.begin(), p.end());
                double sum = 0;
                o_i.assign(dim, 0);
                for (int64_t j = 0; j < n_visible; ++j) {
                    p[j] = std::exp(p[j] - max);
                    sum += p[j];
                    const Real * v_j = v_first + j * v.stride;
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
// A soft cap multiplies ds_ij by its slope, 1 - (s_ij / softcap)^2.
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
                    const auto [first, end] = shape.mask.visible(segment, static_cast<int32_t>(i));
                    for (int64_t j = first; j < end; ++j) {
                        const Real * k_j = k.row_as<Real>(segment.kv_begin + j) + kv_column;
                        const Real * v_j = v.row_as<Real>(segment.kv_begin + j) + kv_column;
                        const double s = capped(shape, shape.scale * dot(q_i, k_j, dim));
                        const double p = std::exp(s - lse_i);
                        const double ratio = shape.softcap > 0 ? s / shape.softcap : 0;
                        const double ds = shape.scale * p * (dot(do_i, v_j, dim) - mean_dp) * (1 - ratio * ratio);
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
