// The cpu device: hands each operation to the kernels in this folder.
#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "backend/cpu/adamw_8bit.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/dora.h"
#include "backend/cpu/elementwise.h"
#include "backend/cpu/interleaved.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/matvec.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/peak.h"
#include "common/error.h"
#include "common/machine.h"
#include "common/thread_pool.h"

namespace lorica {

namespace {

class CpuBackend final : public Backend {
public:
    CpuBackend(Dtype act, int n_threads)
        : context_{act == Dtype::bf16 ? cpu::GemmPrecision::bf16 : cpu::GemmPrecision::f32,
                   n_threads > 0 ? n_threads : ThreadPool::instance().n_threads(), scratch_} {}

    std::string name() const override { return "cpu"; }
    std::string detail() const override {
        const bool bf16 = context_.precision == cpu::GemmPrecision::bf16;
        return std::string(cpu::isa_name(bf16)) + (bf16 ? ", bf16, " : ", f32, ") + std::to_string(context_.n_threads) +
               (context_.n_threads == 1 ? " thread" : " threads");
    }
    Formats formats() const override { return {Dtype::f32, context_.act(), Dtype::f32}; }

    void * allocate(size_t n_bytes) override {
        void * memory = cpu::allocate_memory(n_bytes);
        if (!memory) fail(LORICA_ERROR_OUT_OF_MEMORY, "cannot allocate ", n_bytes >> 20, " MiB");
        std::memset(memory, 0, n_bytes);
        return memory;
    }
    void release(void * memory) override { std::free(memory); }
    void copy_to_device(void * device, const void * host, size_t n_bytes) override {
        std::memcpy(device, host, n_bytes);
    }
    void copy_to_host(void * host, const void * device, size_t n_bytes) override { std::memcpy(host, device, n_bytes); }
    void fill_zero(void * device, size_t n_bytes) override { std::memset(device, 0, n_bytes); }
    void synchronize() override {}
    int64_t available_memory() const override { return lorica::available_memory(); }

    size_t workspace_bytes(const WorkspaceShape & shape) const override {
        return scratch_bytes(shape) + cpu::RotationTable::bytes(shape.max_tokens, shape.head_dim, shape.n_ropes);
    }
    void reserve(const WorkspaceShape & shape) override {
        scratch_.reserve(scratch_bytes(shape));
        rotations_.reserve(shape.max_tokens, shape.head_dim, shape.n_ropes);
    }

    const std::byte * load_weight(const std::byte * mapped, size_t) override { return mapped; }

    // In f32 x has no integers to meet those of the copies.
    int64_t few_rows() const override { return context_.act() == Dtype::bf16 ? cpu::matvec_max_rows : 0; }
    std::shared_ptr<const ArrangedWeights> arrange(std::span<const Weight * const> weights,
                                                   int64_t max_bytes) override {
        return cpu::InterleavedWeights::make(weights, max_bytes, context_.n_threads);
    }
    void use(std::shared_ptr<const ArrangedWeights> weights) override {
        interleaved_ = std::static_pointer_cast<const cpu::InterleavedWeights>(std::move(weights));
        context_.interleaved = interleaved_.get();
    }

    void together(int64_t, const std::function<void()> & work) override {
        const ThreadPool::Caller caller;
        work();
    }

    void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) override {
        cpu::embed(table, ids, options, x, context_.n_threads);
    }
    void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale,
                        void * d_table) override {
        cpu::embed_backward(dx, ids, rows, n, scale, static_cast<float *>(d_table), context_.n_threads);
    }
    void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) override {
        cpu::norm(x, norm, residual, y, context_.n_threads);
    }
    void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) override {
        cpu::norm_backward(dy, x, norm, accumulate, dx, dx_act, context_.n_threads);
    }
    void norm_gradient(Matrix dy, Matrix x, const Norm & norm, void * dw, void * db) override {
        const cpu::Scratch::Mark mark(scratch_);
        cpu::norm_gradient(dy, x, norm, static_cast<float *>(dw), static_cast<float *>(db),
                           scratch_.take_as<float>(2 * x.rows * norm.groups), context_.n_threads);
    }
    void linear(Matrix x, std::span<const LinearForward> layers) override { cpu::linear(context_, x, layers); }
    void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) override {
        cpu::linear_backward(context_, x, layers, accumulate, dx);
    }
    void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) override {
        cpu::rope(x, positions, rope, direction, rotations_, context_.n_threads);
    }
    void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows,
                         const Rope & how, Matrix k_cache, Matrix v_cache) override {
        rope(q, positions, how, RopeDirection::forward);
        Rope of_k = how;
        of_k.temperature = 0;
        rope(k, positions, of_k, RopeDirection::forward);
        const size_t row_bytes = static_cast<size_t>(k.cols) * dtype_size(k.type);
        for (int64_t t = 0; t < k.rows; ++t) {
            const int64_t row = rows ? rows[t] : positions[t];
            std::memcpy(k_cache.row(row), k.row(t), row_bytes);
            std::memcpy(v_cache.row(row), v.row(t), row_bytes);
        }
    }
    void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape,
                   Matrix o, Matrix lse) override {
        const cpu::Scratch::Mark mark(scratch_);
        cpu::attention(q, k, v, segments, shape, o, lse, attention_workspace(q, k, segments, shape, false),
                       context_.n_threads, units());
    }
    void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                            std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                            Matrix dv) override {
        const cpu::Scratch::Mark mark(scratch_);
        cpu::attention_backward(q, k, v, o, lse, d_o, segments, shape, dq, dk, dv,
                                attention_workspace(q, k, segments, shape, true), context_.n_threads, units());
    }
    void gated(Matrix gate, Matrix up, Act act, Matrix h) override { cpu::gated(gate, up, act, h, context_.n_threads); }
    void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) override {
        cpu::gated_backward(gate, up, act, dh, dgate, dup, {}, context_.n_threads);
    }
    void activation(Matrix x, Act act, Matrix h) override { cpu::activation(x, act, h, context_.n_threads); }
    void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx) override {
        cpu::activation_backward(x, act, dh, dx, context_.n_threads);
    }
    void scale(Matrix x, double factor, Matrix y) override {
        cpu::scale_rows(x, nullptr, factor, y, context_.n_threads);
    }
    void scale_rows(Matrix x, const float * factors, Matrix y) override {
        cpu::scale_rows(x, factors, 1, y, context_.n_threads);
    }
    void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y) override {
        cpu::segment_mean(x, segments, y, context_.n_threads);
    }
    void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx) override {
        cpu::segment_mean_backward(dy, segments, dx, context_.n_threads);
    }
    void gated_linear_backward(Matrix gate, Matrix up, Act act, const LinearBackward & down, Matrix h, Matrix dh,
                               Matrix dgate, Matrix dup) override {
        if (cpu::gated_linear_backward(context_, gate, up, act, down, dh, dgate, dup)) return;
        Backend::gated_linear_backward(gate, up, act, down, h, dh, dgate, dup);
    }
    void norm_linear_backward(Matrix x, const Norm & norm, std::span<const LinearBackward> layers, Matrix normed,
                              Matrix d_normed, Matrix dx, Matrix dx_act) override {
        if (cpu::norm_linear_backward(context_, x, norm, layers, d_normed, dx, dx_act)) return;
        Backend::norm_linear_backward(x, norm, layers, normed, d_normed, dx, dx_act);
    }
    void gather_rows(Matrix x, const int32_t * rows, Matrix y) override {
        cpu::gather_rows(x, rows, y, context_.n_threads);
    }
    void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) override {
        cpu::scatter_add_rows(dy, rows, dx, context_.n_threads);
    }
    void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, void * nll, Matrix dx) override {
        cpu::linear_cross_entropy(context_, x, head, labels, static_cast<float *>(nll), dx);
    }
    void logits(Matrix x, const Head & head, float * out) override { cpu::logits(context_, x, head, out); }
    double sum_of_squares(const void * x, int64_t n) override {
        return cpu::sum_of_squares(static_cast<const float *>(x), n, context_.n_threads);
    }
    double measure_peak() override { return cpu::measure_peak(context_.precision, context_.n_threads); }
    void adamw(void * param, const void * grad, void * m, void * v, int64_t n, const AdamwParams & params) override {
        cpu::adamw(static_cast<float *>(param), static_cast<const float *>(grad), static_cast<float *>(m),
                   static_cast<float *>(v), n, params, context_.n_threads);
    }
    bool has_adamw_8bit() const override { return true; }
    void adamw_8bit(void * param, const void * grad, const Moments8bit & moments, int64_t n,
                    const AdamwParams & params) override {
        cpu::adamw_8bit(static_cast<float *>(param), static_cast<const float *>(grad), moments, n, params,
                        context_.n_threads);
    }
    bool has_many_labels() const override { return true; }
    bool has_dora() const override { return true; }
    void row_squares(const Weight & weight, void * squares) override {
        cpu::row_squares(weight, static_cast<float *>(squares), context_.n_threads);
    }
    void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) override {
        cpu::dora_factors(lora, in, out, rows, context_.n_threads);
    }
    void scale_columns(Matrix x, const void * factors, Vector bias, Matrix residual, Matrix y) override {
        cpu::scale_columns(x, static_cast<const float *>(factors), bias, residual, y, context_.n_threads);
    }
    void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, void * d_magnitudes,
                       Matrix dx) override {
        cpu::dora_backward(dy, y, bias, residual, rows, static_cast<float *>(d_magnitudes), dx, context_.n_threads);
    }

private:
    size_t scratch_bytes(const WorkspaceShape & shape) const {
        const size_t products = cpu::gemm_workspace_bytes(shape.max_tokens, context_.n_threads, context_.precision) +
                                std::max(cpu::linear_workspace_bytes(shape, context_.precision),
                                         cpu::cross_entropy_workspace_bytes(shape, context_.precision));
        return std::max(products, cpu::attention_workspace_bytes(shape, context_.n_threads, context_.act()));
    }

    static cpu::AttentionUnits units() {
        return cpu::has_amx_bf16() ? cpu::AttentionUnits::amx : cpu::AttentionUnits::dot_bf16;
    }

    void * attention_workspace(const Matrix & q, const Matrix & k, std::span<const Segment> segments,
                               const AttentionShape & shape, bool training) {
        WorkspaceShape need;
        need.max_tokens = q.rows;
        for (const Segment & s : segments)
            need.max_sequence_length = std::max<int64_t>(need.max_sequence_length, s.kv_len);
        need.max_tokens = std::max(need.max_tokens, training ? k.rows : q.rows);
        need.n_head = shape.n_head;
        need.n_head_kv = shape.n_head_kv;
        need.head_dim = shape.head_dim;
        need.training = training;
        return scratch_.take(cpu::attention_workspace_bytes(need, context_.n_threads, context_.act()));
    }

    cpu::Scratch scratch_;
    cpu::RotationTable rotations_;
    std::shared_ptr<const cpu::InterleavedWeights> interleaved_;
    cpu::Context context_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(Dtype act, int32_t n_threads) {
    if (act == Dtype::f64) {
        fail(LORICA_ERROR_UNSUPPORTED, "precision f64 is only there on the device \"reference\"; cpu has bf16 and f32");
    }
    constexpr int32_t most_threads = 1024;
    if (n_threads > most_threads) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_threads is ", n_threads, "; it must be at most ", most_threads,
             " (0: all cores)");
    }
    cpu::apply_isa_limit();
    return std::make_unique<CpuBackend>(act, n_threads);
}

}  // namespace lorica
