// The cuda device: hands each operation to the kernels in this folder. Reading order: device.cuh, tile.cuh, gemm.cu,
// products.cu, linear.cu, attention_forward.cu; kernels.h lists everything.
#include "backend/cuda/adapter_copies.h"
#include "backend/cuda/attention_plan.h"
#include "backend/cuda/cuda_library.h"
#include "backend/cuda/device_state.h"
#include "backend/cuda/graph_cache.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "common/error.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace lorica {

namespace {

using namespace cuda;

// Pinned memory for small copies: to the device, which then need not wait for it (used in turn; at its end it waits
// once), or back.
class Staging {
public:
    static constexpr size_t size = size_t{4} << 20, largest = size_t{512} << 10;

    Staging() { check(cudaHostAlloc(&memory_, size, cudaHostAllocDefault), "pinned memory"); }
    ~Staging() { cudaFreeHost(memory_); }
    Staging(const Staging &) = delete;
    Staging & operator=(const Staging &) = delete;

    void copy(void * device, const void * host, size_t n_bytes, cudaStream_t stream) {
        if (position_ + n_bytes > size) {
            check(cudaStreamSynchronize(stream), "copy to the GPU");
            position_ = 0;
        }
        void * own = static_cast<std::byte *>(memory_) + position_;
        std::memcpy(own, host, n_bytes);
        check(cudaMemcpyAsync(device, own, n_bytes, cudaMemcpyHostToDevice, stream), "copy to the GPU");
        position_ += (n_bytes + 63) / 64 * 64;
    }
    void copy_back(void * host, const void * device, size_t n_bytes, cudaStream_t stream) {
        check(cudaMemcpyAsync(memory_, device, n_bytes, cudaMemcpyDeviceToHost, stream), "copy from the GPU");
        check(cudaStreamSynchronize(stream), "a kernel failed (LORICA_CUDA_SYNC=1 tells which)");
        std::memcpy(host, memory_, n_bytes);
    }

private:
    void * memory_ = nullptr;
    size_t position_ = 0;
};

// Weights in the format act, by their blocks.
class ExpandedWeights final : public ArrangedWeights {
public:
    explicit ExpandedWeights(std::shared_ptr<DeviceState> state) : state_(std::move(state)) {}
    ~ExpandedWeights() override {
        if (!state_->try_enter()) return;
        cudaStreamSynchronize(state_->stream());
        for (const auto & [blocks, copy] : copies_) cudaFree(copy);
        cudaGetLastError();
    }
    ExpandedWeights(const ExpandedWeights &) = delete;
    ExpandedWeights & operator=(const ExpandedWeights &) = delete;

    // False: the memory is not there.
    bool add(const Context & context, const Weight & weight) {
        void *& copy = copies_[weight.data];
        if (copy) return true;
        if (cudaMalloc(&copy, static_cast<size_t>(n_bytes(weight, context.act))) != cudaSuccess) {
            cudaGetLastError();
            copy = nullptr;
            return false;
        }
        dequantize(context, weight, 0, weight.out, 0, weight.in, copy, round_up(weight.in, 8));
        return true;
    }
    static int64_t n_bytes(const Weight & weight, Dtype act) {
        return weight.out * round_up(weight.in, 8) * static_cast<int64_t>(dtype_size(act)) + 16;
    }
    // The weight itself where there is no copy.
    Weight of(const Weight & weight, Dtype act) const {
        const auto found = copies_.find(weight.data);
        if (found == copies_.end()) return weight;
        return {act == Dtype::f32 ? GGML_TYPE_F32 : GGML_TYPE_BF16, weight.out, weight.in,
                static_cast<size_t>(weight.in) * dtype_size(act), static_cast<const std::byte *>(found->second)};
    }

private:
    std::shared_ptr<DeviceState> state_;
    std::map<const std::byte *, void *> copies_;
};

class CudaBackend final : public Backend {
public:
    explicit CudaBackend(const CudaBackendRequest & request)
        : state_(DeviceState::get(request.device)),
          index_(request.device),
          act_(request.act),
          dequantize_row_(request.dequantize_row) {
        state_->enter();
        staging_ = std::make_unique<Staging>();
        workspace_ = std::make_unique<Workspace>();
        plans_ = std::make_unique<AttentionPlans>(state_->has_much_shared_memory());
        graphs_ = std::make_unique<GraphCache>();
        adapters_ = std::make_unique<AdapterCopies>();
        partial_sums_ = static_cast<double *>(cuda::allocate(n_partial_sums * sizeof(double), "sums"));
    }
    ~CudaBackend() override {
        state_->try_enter();  // or the driver is gone, and the memory with it
        cudaStreamSynchronize(state_->stream());
        for (std::byte * weight : weights_) {
            state_->forget(weight);
            cudaFree(weight);
        }
        cudaFree(partial_sums_);
    }

    std::string name() const override { return "cuda:" + std::to_string(index_); }
    std::string detail() const override { return state_->detail(act_); }
    Formats formats() const override { return {Dtype::f32, act_, Dtype::f32}; }

    void * allocate(size_t n_bytes) override {
        state_->enter();
        const size_t size = std::max<size_t>(n_bytes, 1);
        void * memory = cuda::allocate(size, "what is kept there");
        check(cudaMemsetAsync(memory, 0, size, state_->stream()), "cudaMemset");
        return memory;
    }
    // Never throws: it is called by destructors. After a kernel that failed every call returns that error, which
    // whoever waited for the kernel has been told.
    void release(void * memory) override {
        if (!state_->try_enter()) return;
        cudaStreamSynchronize(state_->stream());
        cudaFree(memory);
        cudaGetLastError();
    }
    void copy_to_device(void * device, const void * host, size_t n_bytes) override {
        if (n_bytes == 0) return;
        state_->enter();
        if (n_bytes <= Staging::largest) {
            const std::lock_guard lock(staging_mutex_);
            return staging_->copy(device, host, n_bytes, state_->stream());
        }
        check(cudaMemcpyAsync(device, host, n_bytes, cudaMemcpyHostToDevice, state_->stream()), "copy to the GPU");
        synchronize();
    }
    void copy_to_host(void * host, const void * device, size_t n_bytes) override {
        if (n_bytes == 0) return;
        state_->enter();
        if (n_bytes <= Staging::size) {
            // Logits of a token above all. Memory that is not pinned the driver copies in pieces of its own.
            const std::lock_guard lock(staging_mutex_);
            if (!returning_) returning_ = std::make_unique<Staging>();
            return returning_->copy_back(host, device, n_bytes, state_->stream());
        }
        check(cudaMemcpyAsync(host, device, n_bytes, cudaMemcpyDeviceToHost, state_->stream()), "copy from the GPU");
        synchronize();
    }
    void fill_zero(void * device, size_t n_bytes) override {
        if (n_bytes == 0) return;
        state_->enter();
        check(cudaMemsetAsync(device, 0, n_bytes, stream()), "cudaMemset");
    }
    void synchronize() override {
        state_->enter();
        check(cudaStreamSynchronize(state_->stream()), "a kernel failed (LORICA_CUDA_SYNC=1 tells which)");
    }
    int64_t available_memory() const override {
        state_->enter();
        size_t free = 0, total = 0;
        check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
        return static_cast<int64_t>(free);
    }

    size_t workspace_bytes(const WorkspaceShape & shape) const override {
        return operations_bytes(shape) + AdapterCopies::n_bytes(shape, act_) +
               AttentionPlans::workspace_bytes(shape, state_->has_much_shared_memory());
    }
    void reserve(const WorkspaceShape & shape) override {
        state_->enter();
        check(cudaStreamSynchronize(state_->stream()), "reserve");
        graphs_->clear();
        workspace_->reserve(operations_bytes(shape));
        adapters_->reserve(shape, act_);
        plans_->reserve(shape);
    }

    // Kernels read whole words around a block: 16 bytes follow the last one.
    const std::byte * load_weight(const std::byte * mapped, size_t n_bytes) override {
        state_->enter();
        auto * weight = static_cast<std::byte *>(cuda::allocate(n_bytes + 16, "a weight"));
        weights_.push_back(weight);
        check(cudaMemsetAsync(weight + n_bytes, 0, 16, state_->stream()), "cudaMemset");
        check(cudaMemcpyAsync(weight, mapped, n_bytes, cudaMemcpyHostToDevice, state_->stream()), "copy of a weight");
        synchronize();
        return weight;
    }

    void prepare(const Weight & weight) override {
        state_->enter();
        readable(weight);
    }
    int64_t weight_memory(const Weight & weight) const override {
        const int64_t expanded =
            is_device_type(weight.type) ? 0 : weight.in * static_cast<int64_t>(dtype_size(formats().act));
        return weight.out * (static_cast<int64_t>(weight.row_bytes) + expanded);
    }

    // Of weights whose blocks products on many rows expand into panels; those on few read the blocks as they are.
    int64_t expanded_bytes(const Weight & weight, int64_t max_rows) const override {
        const char * chosen = std::getenv("LORICA_CUDA_EXPAND");
        const bool wanted = !chosen || chosen[0] != '0';
        const bool is_dense = weight.type == GGML_TYPE_BF16 || weight.type == GGML_TYPE_F32;
        if (!wanted || max_rows <= fused_max_rows || is_dense || !is_device_type(weight.type) || weight.in % 8)
            return 0;
        return ExpandedWeights::n_bytes(weight, act_);
    }
    std::shared_ptr<const ArrangedWeights> expand(std::span<const Weight * const> weights) override {
        const Context c = context();
        auto expanded = std::make_shared<ExpandedWeights>(state_);
        for (const Weight * weight : weights) {
            if (!expanded->add(c, *weight)) return nullptr;
        }
        return expanded;
    }
    void use(std::shared_ptr<const ArrangedWeights> weights) override {
        expanded_ = std::dynamic_pointer_cast<const ExpandedWeights>(weights);
    }
    void parameters_changed() override { adapters_->refresh(context()); }

    void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) override {
        cuda::embed(context(), readable(table), ids, options, x);
    }
    void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale,
                        void * d_table) override {
        cuda::embed_backward(context(), dx, ids, rows, n, scale, static_cast<float *>(d_table));
    }
    void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) override {
        cuda::norm(context(), x, norm, residual, y);
    }
    void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) override {
        cuda::norm_backward(context(), dy, x, norm, accumulate, dx, dx_act);
    }
    void norm_gradient(Matrix dy, Matrix x, const Norm & norm, void * dw, void * db) override {
        cuda::norm_gradient(context(), dy, x, norm, static_cast<float *>(dw), static_cast<float *>(db));
    }
    void linear(Matrix x, std::span<const LinearForward> layers) override {
        const Readable own(*this, layers, x.rows);
        cuda::linear(context(), x, own.layers);
    }
    void norm_linear(Matrix x, const Norm & norm, std::span<const LinearForward> layers, Matrix normed) override {
        if (x.rows > matvec_max_rows || !norm.is_plain_rms()) return Backend::norm_linear(x, norm, layers, normed);
        const Readable own(*this, layers);
        cuda::linear_few_rows(context(), x, &norm, own.layers);
    }
    void norm_linear_gated(Matrix x, const Norm & norm, const LinearForward & gate, const LinearForward & up, Act act,
                           Matrix normed, Matrix h) override {
        const LinearForward layers[] = {gate, up};
        const Readable<LinearForward> own(*this, layers);
        const bool alike = own.weights[0].type == own.weights[1].type && own.weights[0].out == own.weights[1].out;
        if (x.rows > matvec_max_rows || !alike || !norm.is_plain_rms())
            return Backend::norm_linear_gated(x, norm, gate, up, act, normed, h);
        cuda::linear_gated_few_rows(context(), x, norm, own.layers, act, h);
    }
    void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) override {
        const Readable own(*this, layers, x.rows);
        cuda::linear_backward(context(), x, own.layers, accumulate, dx);
    }
    void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) override {
        cuda::rope(context(), x, positions, rope, direction);
    }
    void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows,
                         const Rope & rope, Matrix k_cache, Matrix v_cache) override {
        cuda::rope_into_cache(context(), q, k, v, positions, rows, rope, k_cache, v_cache);
    }
    void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape,
                   Matrix o, Matrix lse) override {
        const Context c = context();
        const AttentionPlan & plan = plans_->of(segments, c.stream);
        if (!lse && plan.queries().n > 0) return attention_decode(c, q, k, v, plan.queries(), plan.n_parts(), shape, o);
        attention_forward(c, q, k, v, plan, shape, o, lse);
    }
    void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                            std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                            Matrix dv) override {
        const Context c = context();
        const AttentionPlan & plan = plans_->of(segments, c.stream);
        const Workspace::Mark mark(*workspace_);
        auto * delta = workspace_->take<float>(q.rows * shape.n_head);
        cuda::attention_backward(c, q, k, v, o, lse, d_o, plan, shape, delta, dq, dk, dv);
    }
    void gated(Matrix gate, Matrix up, Act act, Matrix h) override { cuda::gated(context(), gate, up, act, h); }
    void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) override {
        cuda::gated_backward(context(), gate, up, act, dh, dgate, dup);
    }
    void activation(Matrix x, Act act, Matrix h) override { cuda::gated(context(), x, {}, act, h); }
    void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx) override {
        cuda::gated_backward(context(), x, {}, act, dh, dx, {});
    }
    void scale(Matrix x, double factor, Matrix y) override { cuda::scale(context(), x, factor, y); }
    void scale_rows(Matrix x, const float * factors, Matrix y) override { cuda::scale_rows(context(), x, factors, y); }
    void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y) override {
        cuda::segment_mean(context(), x, segments, y);
    }
    void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx) override {
        cuda::segment_mean_backward(context(), dy, segments, dx);
    }
    void gather_rows(Matrix x, const int32_t * rows, Matrix y) override { cuda::gather_rows(context(), x, rows, y); }
    void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) override {
        cuda::scatter_add_rows(context(), dy, rows, dx);
    }
    void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, void * nll, Matrix dx) override {
        const Readable<Head> own(*this, {&head, 1}, x.rows);
        cuda::linear_cross_entropy(context(), x, own.layers[0], labels, static_cast<float *>(nll), dx);
    }
    void logits(Matrix x, const Head & head, float * out) override {
        const Readable<Head> own(*this, {&head, 1}, x.rows);
        cuda::logits(context(), x, own.layers[0], out);
    }
    double sum_of_squares(const void * x, int64_t n) override {
        if (n == 0) return 0;
        cuda::sum_of_squares(context(), static_cast<const float *>(x), n, partial_sums_);
        double sum = 0;
        copy_to_host(&sum, partial_sums_, sizeof sum);
        return sum;
    }
    void adamw(void * param, const void * grad, void * m, void * v, int64_t n, const AdamwParams & params) override {
        cuda::adamw(context(), static_cast<float *>(param), static_cast<const float *>(grad), static_cast<float *>(m),
                    static_cast<float *>(v), n, params);
    }

    double measure_peak() override { return act_ == Dtype::bf16 ? state_->peak() : 0; }
    double measure_bandwidth() override {
        const Context c = context();
        // Far more than the caches hold.
        const size_t n_bytes =
            static_cast<size_t>(std::clamp<int64_t>(available_memory() / 4, 1 << 20, int64_t{1} << 30));
        void * memory = allocate(n_bytes);
        void * sums = allocate(read_bandwidth_blocks(c) * sizeof(uint32_t));
        const double rate = read_bandwidth(c, memory, n_bytes, static_cast<uint32_t *>(sums));
        release(memory);
        release(sums);
        return rate;
    }

    bool has_adamw_8bit() const override { return true; }
    void adamw_8bit(void * param, const void * grad, const Moments8bit & moments, int64_t n,
                    const AdamwParams & params) override {
        cuda::adamw_8bit(context(), static_cast<float *>(param), static_cast<const float *>(grad), moments, n, params);
    }

    bool has_many_labels() const override { return true; }

    bool has_dora() const override { return true; }
    void row_squares(const Weight & weight, void * squares) override {
        cuda::row_squares(context(), readable(weight), static_cast<float *>(squares));
    }
    void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows) override {
        cuda::dora_factors(context(), lora, in, out, rows);
    }
    void scale_columns(Matrix x, const void * factors, Vector bias, Matrix residual, Matrix y) override {
        cuda::scale_columns(context(), x, static_cast<const float *>(factors), bias.f32(), residual, y);
    }
    void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows, void * d_magnitudes,
                       Matrix dx) override {
        cuda::dora_backward(context(), dy, y, bias.f32(), residual, rows, static_cast<float *>(d_magnitudes), dx);
    }

    void add_noise(Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed) override {
        cuda::add_noise(context(), x, segments, alpha, seed);
    }

    bool runs_ahead() const override { return true; }
    void repeat(std::span<const Segment> segments, uint64_t key, const std::function<void()> & work) override {
        if (!state_->graphs()) return work();
        // Copies to the device must not become part of a record.
        const std::vector<int32_t> shape = plans_->prepare(segments, context().stream);
        if (graphs_->run(state_->stream(), shape, key, work)) return;
        state_->give_up_graphs();
        work();
    }

private:
    // Every operation begins here.
    Context context() {
        state_->enter();
        return {stream(),           *workspace_, state_->n_multiprocessors(), act_, state_->wgmma(), state_->tma(),
                state_->overlaps(), *adapters_,  graphs_->recording()};
    }
    // Of everything that repeat() may record.
    cudaStream_t stream() const { return graphs_->recording() ? graphs_->recording_stream() : state_->stream(); }
    // Layers with weights that kernels read; copies where so many rows of x would have blocks expanded.
    template <typename Layer> struct Readable {
        Readable(CudaBackend & backend, std::span<const Layer> of, int64_t n_rows = 0)
            : weights(of.size()), layers(of.begin(), of.end()) {
            for (size_t i = 0; i < of.size(); ++i) {
                weights[i] = backend.readable(*of[i].weight);
                if (backend.expanded_ && n_rows > fused_max_rows)
                    weights[i] = backend.expanded_->of(weights[i], backend.act_);
                layers[i].weight = &weights[i];
            }
        }
        std::vector<Weight> weights;
        std::vector<Layer> layers;
    };
    Weight readable(const Weight & weight) { return state_->readable(weight, act_, dequantize_row_); }

    size_t operations_bytes(const WorkspaceShape & shape) const {
        const AttentionShape heads{shape.n_head, shape.n_head_kv, shape.head_dim, 1};
        const size_t decode =
            shape.n_head ? decode_workspace_bytes(std::min(shape.max_tokens, decode_max_total), heads) : 0;
        return std::max({linear_workspace_bytes(shape, act_, state_->n_multiprocessors()),
                         cross_entropy_workspace_bytes(shape, act_), dora_workspace_bytes(shape),
                         norm_workspace_bytes(shape, state_->n_multiprocessors()),
                         attention_workspace_bytes(shape, act_), decode});
    }

    std::shared_ptr<DeviceState> state_;
    int32_t index_;
    Dtype act_;
    decltype(CudaBackendRequest::dequantize_row) dequantize_row_;
    std::mutex staging_mutex_;  // memory functions may be called from any thread
    std::unique_ptr<Staging> staging_, returning_;
    std::unique_ptr<Workspace> workspace_;
    std::unique_ptr<AttentionPlans> plans_;
    std::unique_ptr<GraphCache> graphs_;
    std::unique_ptr<AdapterCopies> adapters_;
    std::shared_ptr<const ExpandedWeights> expanded_;
    double * partial_sums_ = nullptr;
    std::vector<std::byte *> weights_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) Backend * lorica_cuda_make_backend(
    const CudaBackendRequest & request) {
    if (request.version != cuda_library_version) return nullptr;
    if (request.act != Dtype::bf16 && request.act != Dtype::f32) {
        fail(LORICA_ERROR_UNSUPPORTED, "the cuda device computes in bf16 or f32");
    }
    return new CudaBackend(request);
}

}  // namespace lorica
