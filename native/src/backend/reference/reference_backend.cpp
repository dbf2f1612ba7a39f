#include "backend/reference/reference_backend.h"

#include "backend/reference/activation.h"
#include "backend/reference/attention.h"
#include "backend/reference/cross_entropy.h"
#include "backend/reference/dora.h"
#include "backend/reference/linear.h"
#include "backend/reference/norm.h"
#include "backend/reference/optimizer.h"
#include "backend/reference/rope.h"
#include "backend/reference/rows.h"
#include "common/error.h"
#include "common/machine.h"

#include <cstring>
#include <new>
#include <type_traits>

namespace lorica {

namespace {

constexpr std::align_val_t alignment{64};

template <typename Real> class ReferenceBackend final : public Backend {
public:
    std::string name() const override { return "reference"; }
    std::string detail() const override {
        return std::is_same_v<Real, double> ? "plain loops, f64" : "plain loops, f32";
    }
    Formats formats() const override {
        constexpr Dtype real = std::is_same_v<Real, double> ? Dtype::f64 : Dtype::f32;
        return {real, real, real};
    }

    void * allocate(size_t n_bytes) override {
        void * memory = ::operator new(n_bytes, alignment, std::nothrow);
        if (!memory) {
            fail(LORICA_ERROR_OUT_OF_MEMORY, "cannot allocate ", n_bytes, " bytes of memory");
        }
        std::memset(memory, 0, n_bytes);
        return memory;
    }
    void release(void * memory) override { ::operator delete(memory, alignment); }
    void copy_to_device(void * device, const void * host, size_t n_bytes) override {
        std::memcpy(device, host, n_bytes);
    }
    void copy_to_host(void * host, const void * device, size_t n_bytes) override { std::memcpy(host, device, n_bytes); }
    void fill_zero(void * device, size_t n_bytes) override { std::memset(device, 0, n_bytes); }
    void synchronize() override {}
    int64_t available_memory() const override { return lorica::available_memory(); }

    // Nothing is planned here: the operations hold their sums in vectors of their own.
    size_t workspace_bytes(const WorkspaceShape &) const override { return 0; }
    void reserve(const WorkspaceShape &) override {}

    const std::byte * load_weight(const std::byte * mapped, size_t) override { return mapped; }

    void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) override {
        reference::embed<Real>(table, ids, options, x);
    }
    void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale,
                        void * d_table) override {
        reference::embed_backward(dx, ids, rows, n, scale, static_cast<Real *>(d_table));
    }
    void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) override {
        reference::norm<Real>(x, norm, residual, y);
    }
    void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) override {
        reference::norm_backward<Real>(dy, x, norm, accumulate, dx, dx_act);
    }
    void norm_gradient(Matrix dy, Matrix x, const Norm & norm, void * dw, void * db) override {
        reference::norm_gradient(dy, x, norm, static_cast<Real *>(dw), static_cast<Real *>(db));
    }
    void linear(Matrix x, std::span<const LinearForward> layers) override { reference::linear<Real>(x, layers); }
    void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) override {
        reference::linear_backward<Real>(x, layers, accumulate, dx);
    }
    void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) override {
        reference::rope<Real>(x, positions, rope, direction);
    }
    void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows,
                         const Rope & rope, Matrix k_cache, Matrix v_cache) override {
        reference::rope_into_cache<Real>(q, k, v, positions, rows, rope, k_cache, v_cache);
    }
    void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape,
                   Matrix o, Matrix lse) override {
        reference::attention<Real>(q, k, v, segments, shape, o, lse);
    }
    void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                            std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                            Matrix dv) override {
        reference::attention_backward<Real>(q, k, v, o, lse, d_o, segments, shape, dq, dk, dv);
    }
    void gated(Matrix gate, Matrix up, Act act, Matrix h) override { reference::gated<Real>(gate, up, act, h); }
    void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) override {
        reference::gated_backward<Real>(gate, up, act, dh, dgate, dup);
    }
    void activation(Matrix x, Act act, Matrix h) override { reference::activation<Real>(x, act, h); }
    void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx) override {
        reference::activation_backward<Real>(x, act, dh, dx);
    }
    void scale(Matrix x, double factor, Matrix y) override { reference::scale_rows<Real>(x, nullptr, factor, y); }
    void scale_rows(Matrix x, const float * factors, Matrix y) override {
        reference::scale_rows<Real>(x, factors, 1, y);
    }
    void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y) override {
        reference::segment_mean<Real>(x, segments, y);
    }
    void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx) override {
        reference::segment_mean_backward<Real>(dy, segments, dx);
    }
    void gather_rows(Matrix x, const int32_t * rows, Matrix y) override { reference::gather_rows<Real>(x, rows, y); }
    void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) override {
        reference::scatter_add_rows<Real>(dy, rows, dx);
    }
    void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, void * nll, Matrix dx) override {
        reference::linear_cross_entropy<Real>(x, head, labels, static_cast<Real *>(nll), dx);
    }
    void logits(Matrix x, const Head & head, float * out) override { reference::logits<Real>(x, head, out); }
    double sum_of_squares(const void * x, int64_t n) override {
        return reference::sum_of_squares(static_cast<const Real *>(x), n);
    }
    void adamw(void * param, const void * grad, void * m, void * v, int64_t n, const AdamwParams & params) override {
        reference::adamw(static_cast<Real *>(param), static_cast<const Real *>(grad), static_cast<Real *>(m),
                         static_cast<Real *>(v), n, params);
    }
    bool has_adamw_8bit() const override { return true; }
    void adamw_8bit(void * param, const void * grad, const Moments8bit & moments, int64_t n,
                    const AdamwParams & params) override {
        reference::adamw_8bit(static_cast<Real *>(param), static_cast<const Real *>(grad), moments, n, params);
    }

    bool has_many_labels() const override { return true; }

    bool has_dora() const override { return true; }
    void row_squares(const Weight & weight, void * squares) override {
        reference::row_squares(weight, static_cast<Real *>(squares));
    }
    void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) override {
        reference::dora_factors<Real>(lora, in, out, rows);
    }
    void scale_columns(Matrix x, const void * factors, Vector bias, Matrix residual, Matrix y) override {
        reference::scale_columns(x, static_cast<const Real *>(factors), bias, residual, y);
    }
    void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, void * d_magnitudes,
                       Matrix dx) override {
        reference::dora_backward(dy, y, bias, residual, rows, static_cast<Real *>(d_magnitudes), dx);
    }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend(Dtype act) {
    switch (act) {
        case Dtype::f32: return std::make_unique<ReferenceBackend<float>>();
        case Dtype::f64: return std::make_unique<ReferenceBackend<double>>();
        case Dtype::bf16: break;
    }
    fail(LORICA_ERROR_UNSUPPORTED,
         "device \"reference\" computes in f32 or f64, not in bf16: choose f32, or device \"cpu\"");
}

}  // namespace lorica
