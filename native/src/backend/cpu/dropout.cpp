#include "backend/cpu/dropout.h"

#include "common/bf16.h"
#include "common/random.h"

namespace lorica::cpu {

namespace {

float to_float(uint16_t bits) {
    Bf16 value;
    value.bits = bits;
    return static_cast<float>(value);
}

// Calls use(column, factor) for each element of a row, factor being 0 or 1 / (1 - p).
template <typename Use>
void for_each_factor(const Dropout & dropout, int64_t row, int64_t cols, const Use & use) {
    const uint32_t threshold = dropout_threshold(dropout.p);
    const float kept = 1 / (1 - dropout.p);
    auto i = static_cast<uint64_t>(row * cols);
    PhiloxBlock block = philox(dropout.seed, i >> 2);
    for (int64_t c = 0; c < cols; ++c, ++i) {
        if ((i & 3) == 0) block = philox(dropout.seed, i >> 2);
        use(c, block.value[i & 3] >= threshold ? kept : 0.0f);
    }
}

}  // namespace

uint16_t scale_bf16(uint16_t bits, float scale) { return Bf16(to_float(bits) * scale).bits; }

void dropout(Matrix x, const Dropout & dropout, Matrix y, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t t = 0; t < x.rows; ++t) {
        for_each_factor(dropout, t, x.cols, [&](int64_t c, float factor) {
            if (x.type == Dtype::bf16) {
                y.row_as<uint16_t>(t)[c] = factor == 0 ? uint16_t{0} : scale_bf16(x.row_as<uint16_t>(t)[c], factor);
            } else {
                y.row_as<float>(t)[c] = factor == 0 ? 0 : x.row_as<float>(t)[c] * factor;
            }
        });
    }
}

void dropout_backward_add(Matrix g, const Dropout & dropout, Matrix dx, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t t = 0; t < g.rows; ++t) {
        const float * gradient = g.row_as<float>(t);
        for_each_factor(dropout, t, g.cols, [&](int64_t c, float factor) {
            if (dx.type == Dtype::bf16) {
                uint16_t & out = dx.row_as<uint16_t>(t)[c];
                out = Bf16(to_float(out) + factor * gradient[c]).bits;
            } else {
                dx.row_as<float>(t)[c] += factor * gradient[c];
            }
        });
    }
}

}  // namespace lorica::cpu
