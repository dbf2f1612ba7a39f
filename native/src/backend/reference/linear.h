// y = [residual +] x W^T + scale (dropout(x) A^T) B^T [+ bias], and its derivative (Hu et al. 2021, "LoRA",
// section 4.1, equation 3). Shapes: x[T, in], W[out, in], A[rank, in], B[out, rank], u = dropout(x) A^T [T, rank], y[T,
// out]. A gate multiplies u, and what comes back to it.
#pragma once

#include "backend/backend.h"
#include "backend/reference/weight_rows.h"
#include "common/random.h"

#include <vector>

namespace lorica::reference {

// The factor that inverted dropout (Srivastava et al. 2014, section 10) gives to element (t, i) of x[T, in]:
// 0 or 1 / (1 - p).
inline double dropout_factor(const Dropout & dropout, int64_t t, int64_t i, int64_t in) {
    if (dropout.p == 0) {
        return 1;
    }
    const bool kept = random_u32(dropout.seed, static_cast<uint64_t>(t * in + i)) >= dropout_threshold(dropout.p);
    return kept ? 1 / (1 - static_cast<double>(dropout.p)) : 0;
}

inline double gate_factor(const Lora & lora, int64_t t, int64_t r) {
    return lora.gate ? lora.gate.row_as<float>(t)[r / (lora.rank / lora.gate.cols)] : 1;
}

template <typename Real> void linear(Matrix x, std::span<const LinearForward> layers) {
    for (const LinearForward & layer : layers) {
        const int64_t in = layer.weight->in, out = layer.weight->out, rank = layer.lora.rank;
        const auto * a = static_cast<const Real *>(layer.lora.a);
        const auto * b = static_cast<const Real *>(layer.lora.b);

        if (layer.lora) {
            for (int64_t t = 0; t < x.rows; ++t) {
                const Real * x_t = x.row_as<Real>(t);
                std::vector<double> u_t(rank);
                for (int64_t i = 0; i < in; ++i) {
                    const double dropped = x_t[i] * dropout_factor(layer.lora.dropout, t, i, in);
                    for (int64_t r = 0; r < rank; ++r) {
                        u_t[r] += dropped * a[r * in + i];
                    }
                }
                for (int64_t r = 0; r < rank; ++r) {
                    layer.u.row_as<Real>(t)[r] = static_cast<Real>(gate_factor(layer.lora, t, r) * u_t[r]);
                }
            }
        }

        if (!layer.y) {
            continue;
        }
        WeightRows rows(*layer.weight);
        for (int64_t o = 0; o < out; ++o) {
            const double * w_o = rows[o];
            for (int64_t t = 0; t < x.rows; ++t) {
                const Real * x_t = x.row_as<Real>(t);
                double sum = 0;
                for (int64_t i = 0; i < in; ++i) {
                    sum += x_t[i] * w_o[i];
                }
                if (layer.lora) {
                    const Real * u_t = layer.u.row_as<Real>(t);
                    double update = 0;
                    for (int64_t r = 0; r < rank; ++r) {
                        update += static_cast<double>(u_t[r]) * b[o * rank + r];
                    }
                    sum += layer.lora.scale * update;
                }
                if (layer.bias) {
                    sum += layer.bias[o];
                }
                if (layer.residual) {
                    sum += layer.residual.row_as<Real>(t)[o];
                }
                layer.y.row_as<Real>(t)[o] = static_cast<Real>(sum);
            }
        }
    }
}

// dx = dy W + dropout'(du A) with du = scale dy B;  dA += du^T dropout(x);  dB += scale dy^T u;  dW += dy^T x;
// dbias += sum_t dy.
template <typename Real>
void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) {
    const int64_t n_tokens = layers.empty() ? dx.rows : layers.front().dy.rows;
    std::vector<double> sum_dx(dx ? n_tokens * dx.cols : 0);

    for (const LinearBackward & layer : layers) {
        const int64_t in = layer.weight->in, out = layer.weight->out, rank = layer.lora.rank;
        const Matrix & dy = layer.dy;
        if (dx) {
            WeightRows rows(*layer.weight);
            for (int64_t o = 0; o < out; ++o) {
                const double * w_o = rows[o];
                for (int64_t t = 0; t < n_tokens; ++t) {
                    const double dy_to = dy.row_as<Real>(t)[o];
                    for (int64_t i = 0; i < in; ++i) {
                        sum_dx[t * in + i] += dy_to * w_o[i];
                    }
                }
            }
        }
        auto * dw = static_cast<Real *>(layer.dw);
        auto * dbias = static_cast<Real *>(layer.dbias);
        for (int64_t o = 0; (dw || dbias) && o < out; ++o) {
            std::vector<double> sum_dw(dw ? in : 0);
            double sum_dbias = 0;
            for (int64_t t = 0; t < n_tokens; ++t) {
                const double dy_to = dy.row_as<Real>(t)[o];
                sum_dbias += dy_to;
                for (int64_t i = 0; dw && i < in; ++i) {
                    sum_dw[i] += dy_to * x.row_as<Real>(t)[i];
                }
            }
            for (int64_t i = 0; dw && i < in; ++i) {
                dw[o * in + i] = static_cast<Real>(dw[o * in + i] + sum_dw[i]);
            }
            if (dbias) dbias[o] = static_cast<Real>(dbias[o] + sum_dbias);
        }
        if (!layer.lora) {
            continue;
        }

        const auto * a = static_cast<const Real *>(layer.lora.a);
        const auto * b = static_cast<const Real *>(layer.lora.b);
        std::vector<double> sum_da(rank * in), sum_db(out * rank), du_t(rank);
        for (int64_t t = 0; t < n_tokens; ++t) {
            const Real * dy_t = dy.row_as<Real>(t);
            const Real * u_t = layer.u.row_as<Real>(t);
            du_t.assign(rank, 0);
            for (int64_t o = 0; o < out; ++o) {
                const double scaled = layer.lora.scale * dy_t[o];
                for (int64_t r = 0; r < rank; ++r) {
                    du_t[r] += scaled * b[o * rank + r];
                    sum_db[o * rank + r] += scaled * u_t[r];
                }
            }
            for (int64_t r = 0; r < rank; ++r) {
                du_t[r] *= gate_factor(layer.lora, t, r);
            }
            const Real * x_t = x.row_as<Real>(t);
            for (int64_t i = 0; i < in; ++i) {
                const double factor = dropout_factor(layer.lora.dropout, t, i, in);
                const double dropped = x_t[i] * factor;
                double d_dropped = 0;
                for (int64_t r = 0; r < rank; ++r) {
                    sum_da[r * in + i] += du_t[r] * dropped;
                    d_dropped += du_t[r] * a[r * in + i];
                }
                if (dx) {
                    sum_dx[t * in + i] += factor * d_dropped;
                }
            }
        }
        auto * da = static_cast<Real *>(layer.lora.da);
        auto * db = static_cast<Real *>(layer.lora.db);
        for (int64_t k = 0; da && k < rank * in; ++k) {
            da[k] = static_cast<Real>(da[k] + sum_da[k]);
        }
        for (int64_t k = 0; db && k < out * rank; ++k) {
            db[k] = static_cast<Real>(db[k] + sum_db[k]);
        }
    }

    for (int64_t t = 0; dx && t < n_tokens; ++t) {
        for (int64_t i = 0; i < dx.cols; ++i) {
            Real & element = dx.row_as<Real>(t)[i];
            const double sum = sum_dx[t * dx.cols + i];
            element = static_cast<Real>(accumulate ? element + sum : sum);
        }
    }
}

}  // namespace lorica::reference
