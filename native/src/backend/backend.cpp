// What a device does that brings nothing of its own. Part of the core and of each backend library.
#include "backend/backend.h"

#include "common/error.h"
#include "common/random.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lorica {

namespace {

[[noreturn]] void refuse(const Backend & backend, const char * what) {
    fail(LORICA_ERROR_UNSUPPORTED, "device \"", backend.name(), "\" has no ", what, " yet; device \"cpu\" has");
}

template <typename Real>
void add_noise_to_row(Backend & backend, const Matrix & x, int64_t t, double magnitude, uint64_t seed,
                      std::vector<Real> & row) {
    backend.copy_to_host(row.data(), x.row(t), row.size() * sizeof(Real));
    const auto first = static_cast<uint64_t>(t * x.cols);
    for (size_t j = 0; j < row.size(); ++j) {
        row[j] += static_cast<Real>(magnitude * (2.0 * random_uniform(seed, first + j) - 1));
    }
    backend.copy_to_device(x.row(t), row.data(), row.size() * sizeof(Real));
}

}  // namespace

void Backend::embed_backward(Matrix, const int32_t *, const int32_t *, int64_t, double, void *) {
    refuse(*this, "trained embeddings");
}
void Backend::norm_gradient(Matrix, Matrix, const Norm &, void *, void *) { refuse(*this, "trained norms"); }
void Backend::activation(Matrix, Act, Matrix) { refuse(*this, "activation without a gate"); }
void Backend::activation_backward(Matrix, Act, Matrix, Matrix) { refuse(*this, "activation without a gate"); }
void Backend::scale(Matrix, double, Matrix) { refuse(*this, "scaled activations"); }
void Backend::scale_rows(Matrix, const float *, Matrix) { refuse(*this, "scaled rows"); }
void Backend::segment_mean(Matrix, std::span<const Segment>, Matrix) { refuse(*this, "mean of a text"); }
void Backend::segment_mean_backward(Matrix, std::span<const Segment>, Matrix) { refuse(*this, "mean of a text"); }

void Backend::norm_linear(Matrix x, const Norm & how, std::span<const LinearForward> layers, Matrix normed) {
    norm(x, how, {}, normed);
    linear(normed, layers);
}

void Backend::norm_linear_gated(Matrix x, const Norm & how, const LinearForward & gate, const LinearForward & up,
                                Act act, Matrix normed, Matrix h) {
    const LinearForward layers[] = {gate, up};
    norm_linear(x, how, layers, normed);
    gated(gate.y, up.y, act, h);
}

void Backend::gated_linear_backward(Matrix gate, Matrix up, Act act, const LinearBackward & down, Matrix h, Matrix dh,
                                    Matrix dgate, Matrix dup) {
    if (down.needs_x()) gated(gate, up, act, h);
    linear_backward(h, {&down, 1}, false, dh);
    if (dh) gated_backward(gate, up, act, dh, dgate, dup);
}

void Backend::norm_linear_backward(Matrix x, const Norm & how, std::span<const LinearBackward> layers, Matrix normed,
                                   Matrix d_normed, Matrix dx, Matrix dx_act) {
    if (std::any_of(layers.begin(), layers.end(), [](const auto & layer) { return layer.needs_x(); })) {
        Norm without_output = how;
        without_output.statistics = {};
        norm(x, without_output, {}, normed);
    }
    linear_backward(normed, layers, false, dx ? d_normed : Matrix{});
    if (dx) norm_backward(d_normed, x, how, true, dx, dx_act);
}

void Backend::adamw_8bit(void *, const void *, const Moments8bit &, int64_t, const AdamwParams &) {
    refuse(*this, "AdamW with 8-bit state");
}
void Backend::row_squares(const Weight &, void *) { refuse(*this, "DoRA"); }
void Backend::dora_factors(const Lora &, int64_t, int64_t, const DoraRows &) { refuse(*this, "DoRA"); }
void Backend::scale_columns(Matrix, const void *, Vector, Matrix, Matrix) { refuse(*this, "DoRA"); }
void Backend::dora_backward(Matrix, Matrix, Vector, Matrix, const DoraRows &, void *, Matrix) { refuse(*this, "DoRA"); }

// On the host and row by row, wherever x is: next to one layer it is no work, and every device sees the same numbers.
void Backend::add_noise(Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed) {
    std::vector<float> single(x.type == Dtype::f64 ? 0 : static_cast<size_t>(x.cols));
    std::vector<double> wide(x.type == Dtype::f64 ? static_cast<size_t>(x.cols) : 0);
    for (const Segment & segment : segments) {
        const double magnitude = alpha / std::sqrt(static_cast<double>(segment.q_len) * static_cast<double>(x.cols));
        for (int64_t t = segment.q_begin; t < segment.q_begin + segment.q_len; ++t) {
            if (x.type == Dtype::f64) {
                add_noise_to_row(*this, x, t, magnitude, seed, wide);
            } else {
                add_noise_to_row(*this, x, t, magnitude, seed, single);
            }
        }
    }
}

}  // namespace lorica
