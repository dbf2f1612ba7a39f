// The operations a device must provide, forward and backward. A backend knows matrices, weights and sequences; it knows
// no model, no file and no optimizer schedule.
//
// Three numeric formats, fixed per backend instance (see Formats):
//   hidden  the residual stream, its gradient, and statistics (log-sum-exp, losses)
//   act     operands of matrix products and everything between two products
//   param   trainable parameters, their gradients and moments
// reference: all f32 or all f64. cpu and cuda: f32/bf16/f32, or f32 throughout in f32 mode.
//
// Every pointer in this interface is device memory (for cpu and reference: plain memory) unless it is a std::span,
// which is host memory that is read before the call returns. Calls are in order; results may be awaited with
// synchronize(), and copy_to_host() does that by itself. One instance is used by one thread at a time; instances share
// nothing mutable. A matrix may have 0 rows.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace lorica {

enum class Dtype : uint8_t { bf16, f32, f64 };

constexpr size_t dtype_size(Dtype type) { return type == Dtype::bf16 ? 2 : type == Dtype::f32 ? 4 : 8; }

struct Formats {
    Dtype hidden, act, param;
};

// A view of rows * cols elements; row r starts at element r * stride. Does not own.
struct Matrix {
    void * data = nullptr;
    Dtype type = Dtype::f32;
    int64_t rows = 0;
    int64_t cols = 0;
    int64_t stride = 0;  // in elements, >= cols

    explicit operator bool() const { return data != nullptr; }
    size_t n_bytes() const { return static_cast<size_t>(rows * stride) * dtype_size(type); }
    void * row(int64_t r) const {
        return static_cast<std::byte *>(data) + static_cast<size_t>(r * stride) * dtype_size(type);
    }
    Matrix slice_rows(int64_t first, int64_t count) const { return {row(first), type, count, cols, stride}; }
    template <typename T> T * as() const { return static_cast<T *>(data); }
    template <typename T> T * row_as(int64_t r) const { return static_cast<T *>(row(r)); }
};

// A frozen weight W[out, in] in its GGUF blocks, rows contiguous; loaded by Backend::load_weight.
struct Weight {
    ggml_type type = GGML_TYPE_F32;
    int64_t out = 0;  // rows, ggml's ne[1]
    int64_t in = 0;   // columns, ggml's ne[0]
    size_t row_bytes = 0;
    const std::byte * data = nullptr;

    explicit operator bool() const { return data != nullptr; }
};

// Inverted dropout with counter-based random numbers, so that forward, backward and every device see the same mask:
// element i of x (row-major over [T, in]) is kept iff random_u32(seed, i) >= p * 2^32, and then scaled by 1 / (1 - p).
// random_u32 is Philox4x32-10 (common/random.h). p == 0: no dropout.
struct Dropout {
    float p = 0;
    uint64_t seed = 0;
    // Device memory that holds the same seed, or null. Work that is repeated (see repeat) reads it there.
    const uint64_t * device_seed = nullptr;
};

// One LoRA pair on a linear layer (Hu et al. 2021, section 4.1): y += scale * (dropout(x) A^T) B^T.
struct Lora {
    const void * a = nullptr;  // A[rank, in], param format
    const void * b = nullptr;  // B[out, rank]
    void * da = nullptr;       // gradients, +=; null when only running forward
    void * db = nullptr;
    int64_t rank = 0;
    double scale = 0;
    Dropout dropout;

    explicit operator bool() const { return a != nullptr; }
};

// RMSNorm of x[T, n] by row.
struct Norm {
    const float * weight;  // f32[n]
    double eps;
    Matrix inverse_rms;  // [T, 1] hidden: what forward divided by, where it is kept
};

// One of several linear layers that share their input.
struct LinearForward {
    const Weight * weight;
    Lora lora;        // a == nullptr: none
    Matrix u;         // [T, rank] act: receives dropout(x) A^T, needed again in backward; unused without lora
    Matrix residual;  // optional [T, out] hidden: y = residual + …; may be y itself
    Matrix y;         // [T, out] act or hidden; empty: only u is wanted
};

struct LinearBackward {
    const Weight * weight;
    Lora lora;
    Matrix u;   // as forward left it
    Matrix dy;  // [T, out] act or hidden
};

// What DoRA (Liu et al. 2024, equation 5) multiplies the rows of a layer's output by, and what that depends on. Vectors
// are in param format and have one element per row of W.
struct DoraRows {
    Matrix products;          // [rank, out] hidden: A W^T
    const void * squares;     // |W_o|^2
    const void * magnitudes;  // m
    double strength;          // 1: as trained, 0: as if there were no adapter; m counts as |W_o| + strength (m - |W_o|)
    void * factors;           // = m_o / |W_o + scale B_o A|, 1 where that norm is 0
    void * slopes;            // = what y_o times it is dy_o / dm_o: strength / m, 0 where m is 0
};

// Queries [q_begin, q_begin + q_len) attend to keys [kv_begin, kv_begin + kv_len), causally with the ends aligned:
// query i sees key j iff j <= i + kv_len - q_len. In training q and kv ranges are equal; with a KV cache kv is longer.
struct Segment {
    int32_t q_begin, q_len, kv_begin, kv_len;

    bool operator==(const Segment &) const = default;
};

struct AttentionShape {
    int32_t n_head, n_head_kv, head_dim;
    double scale;  // of q k^T, 1 / sqrt(head_dim)
};

struct AdamwParams {
    double learning_rate, beta1, beta2, eps, weight_decay;
    double grad_scale;  // gradients are multiplied by it first (1 / tokens, times the clipping coefficient)
    int64_t step;       // 1 for the first step, for bias correction
};

// AdamW's moments in 8 bits (Dettmers et al. 2022, "8-bit optimizers via block-wise quantization"): element i is
// codebook[code[i]] * scale[i / 256], where the codebooks are those of common/dynamic_codebook.h. All zero: all moments
// are zero.
struct Moments8bit {
    uint8_t * m = nullptr;       // [n], signed codebook
    uint8_t * v = nullptr;       // [n], unsigned codebook
    float * m_scales = nullptr;  // [n_blocks(n)]: the largest magnitude of each block
    float * v_scales = nullptr;

    static constexpr int64_t block_size = 256;
    static constexpr int64_t n_blocks(int64_t n) { return (n + block_size - 1) / block_size; }
};

// What a session will ask for at most; a backend sizes its scratch memory from it. 0: no operation that has such an
// extent.
struct WorkspaceShape {
    int64_t max_tokens = 0;           // rows of one operation
    int64_t max_sequence_length = 0;  // of one segment, kv
    int64_t max_features = 0;         // the widest in or out of a linear layer (not the head)
    int64_t n_vocab = 0;              // rows of the head; 0: without one
    int64_t max_rank = 0;
    int32_t n_head = 0, n_head_kv = 0, head_dim = 0;
    bool training = false;  // linear_cross_entropy and the backward passes as well
    bool dropout = false;   // on any adapter
};

// Copies of weights in an order of the device's own; see Backend::arrange. Immutable.
class ArrangedWeights {
public:
    virtual ~ArrangedWeights() = default;
};

class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string name() const = 0;    // "cpu"
    virtual std::string detail() const = 0;  // "AMX bf16, 2 threads"
    virtual Formats formats() const = 0;

    // Memory. allocate() returns 64-byte aligned, zeroed memory; throws OUT_OF_MEMORY.
    virtual void * allocate(size_t n_bytes) = 0;
    virtual void release(void * memory) = 0;
    virtual void copy_to_device(void * device, const void * host, size_t n_bytes) = 0;
    virtual void copy_to_host(void * host, const void * device, size_t n_bytes) = 0;
    virtual void fill_zero(void * device, size_t n_bytes) = 0;
    virtual void synchronize() = 0;
    virtual int64_t available_memory() const = 0;  // free now: what was allocated or loaded before counts no more

    // The bytes that reserve() of the same shape allocates; operations allocate nothing else.
    virtual size_t workspace_bytes(const WorkspaceShape & shape) const = 0;
    virtual void reserve(const WorkspaceShape & shape) = 0;

    // Makes the mapped blocks usable by this device (cpu: the mapping itself). The result lives as long as this
    // instance, and every instance of the same device may use it.
    virtual const std::byte * load_weight(const std::byte * mapped, size_t n_bytes) = 0;
    // Makes from a loaded weight what the operations will need of it, so that they take no memory later.
    virtual void prepare(const Weight & weight) { (void)weight; }
    // The memory that load_weight() and prepare() take for such a weight; its data is not looked at.
    virtual int64_t weight_memory(const Weight & weight) const {
        (void)weight;
        return 0;
    }

    // Up to so many rows of x, linear layers read arranged weights instead of those they are called with, where use()
    // has named any. 0: the device has no use for them.
    virtual int64_t few_rows() const { return 0; }
    // Copies weights for that; null: it would take more than max_bytes. Every instance of the same device may use the
    // result.
    virtual std::shared_ptr<const ArrangedWeights> arrange(std::span<const Weight * const> weights, int64_t max_bytes) {
        (void)weights, (void)max_bytes;
        return nullptr;
    }
    virtual void use(std::shared_ptr<const ArrangedWeights> weights) { (void)weights; }

    // Runs work, a sequence of operations on so many tokens. A device may keep its threads awake from one to the next.
    virtual void together(int64_t n_tokens, const std::function<void()> & work) {
        (void)n_tokens;
        work();
    }

    // x[t] = row tokens[t] of the embedding. x hidden.
    virtual void embed(const Weight & embedding, const int32_t * tokens, Matrix x) = 0;

    // y = x * weight / sqrt(mean(x^2) + eps) by row (Zhang & Sennrich 2019, eq. 4). x hidden, y act. Where
    // norm.inverse_rms is given it receives 1 / sqrt(mean(x^2) + eps).
    virtual void rmsnorm(Matrix x, const Norm & norm, Matrix y) = 0;
    // dx += d(rmsnorm)/dx^T dy. dy act or hidden, x and dx hidden. Where dx_act is given it receives dx, in act.
    virtual void rmsnorm_backward(Matrix dy, Matrix x, const Norm & norm, Matrix dx, Matrix dx_act) = 0;

    // For each layer i: u_i = dropout_i(x) A_i^T; y_i = [residual_i +] x W_i^T + scale_i u_i B_i^T. x act or hidden.
    virtual void linear(Matrix x, std::span<const LinearForward> layers) = 0;
    // dx = sum_i dy_i W_i + dropout_i'(scale_i dy_i B_i A_i) when dx is given (act or hidden);
    // da_i += scale_i (dy_i B_i)^T dropout_i(x); db_i += scale_i dy_i^T u_i.
    virtual void linear_backward(Matrix x, std::span<const LinearBackward> layers, Matrix dx) = 0;

    // Rotates each head's pairs (2i, 2i + 1) of x by positions[t] * inverse_frequency[i] (Su et al. 2021, eq. 34), in
    // the order in which Llama GGUF files store q and k. In place. x[T, n_head * head_dim] act; the first 2 *
    // inverse_frequency.size() elements of each head are rotated. inverse: rotates back, which is its backward.
    virtual void rope(Matrix x, const int32_t * positions, int32_t head_dim, std::span<const double> inverse_frequency,
                      bool inverse) = 0;

    // The newest tokens of a cache: q is rotated as rope() does it; row positions[t] of k_cache receives k[t] rotated,
    // that of v_cache v[t]. k is not defined afterwards. All act.
    virtual void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, int32_t head_dim,
                                 std::span<const double> inverse_frequency, Matrix k_cache, Matrix v_cache) = 0;

    // o = softmax(scale q k^T + causal mask) v per segment and head; query head h uses kv head h / (n_head /
    // n_head_kv). Memory is linear in length (Dao 2023, FlashAttention-2). lse[T, n_head] hidden receives log-sum-exp,
    // null: not kept. q, o[T, n_head * head_dim], k, v[Tkv, n_head_kv * head_dim] act.
    virtual void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments,
                           const AttentionShape & shape, Matrix o, Matrix lse) = 0;
    // dq, dk, dv = (act). Needs o and lse of the forward pass.
    virtual void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                                    std::span<const Segment> segments, const AttentionShape & shape, Matrix dq,
                                    Matrix dk, Matrix dv) = 0;

    // h = silu(gate) * up (Shazeer 2020, eq. 6). All act.
    virtual void swiglu(Matrix gate, Matrix up, Matrix h) = 0;
    // dgate and dup may be gate and up themselves.
    virtual void swiglu_backward(Matrix gate, Matrix up, Matrix dh, Matrix dgate, Matrix dup) = 0;

    // ---- several of these in one, for devices that then read and write less; the defaults do one after the other

    // linear() of rmsnorm(x). x hidden; normed: memory, [T, n] act.
    virtual void norm_linear(Matrix x, const Norm & norm, std::span<const LinearForward> layers, Matrix normed);
    // The same of two layers, and h = silu(gate) up of their outputs.
    virtual void norm_linear_swiglu(Matrix x, const Norm & norm, const LinearForward & gate, const LinearForward & up,
                                    Matrix normed, Matrix h);
    // Backward of y = down(h), h = silu(gate) up: the gradients of down's LoRA, dgate and dup. dgate and dup may be
    // gate and up themselves, dup also h, neither down.dy. h and dh: memory, [T, n_ff] act. Without dh only the LoRA's
    // gradients are wanted.
    virtual void swiglu_linear_backward(Matrix gate, Matrix up, const LinearBackward & down, Matrix h, Matrix dh,
                                        Matrix dgate, Matrix dup);
    // Backward of y_i = layer_i(rmsnorm(x)): the gradients of the LoRAs; dx += and dx_act = as in rmsnorm_backward,
    // where dx is given. normed: memory, [T, n] act. d_normed: [T, n] act or hidden.
    virtual void norm_linear_backward(Matrix x, const Norm & norm, std::span<const LinearBackward> layers,
                                      Matrix normed, Matrix d_normed, Matrix dx, Matrix dx_act);

    // y[i] = x[rows[i]]; dx[rows[i]] += dy[i] with distinct rows. Both hidden.
    virtual void gather_rows(Matrix x, const int32_t * rows, Matrix y) = 0;
    virtual void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) = 0;

    // nll[i] = -log softmax(x_i W^T)[labels[i]], in chunks that never hold rows * vocabulary. x act, nll hidden[rows].
    // When dx is given (act or hidden): dx = d(sum nll)/dx, in the same pass over the head.
    virtual void linear_cross_entropy(Matrix x, const Weight & head, const int32_t * labels, void * nll, Matrix dx) = 0;

    // logits[rows, out] = x W^T, as f32. x act.
    virtual void logits(Matrix x, const Weight & head, float * out) = 0;

    // Sum of squares over n elements in param format, in a fixed order; NaN and infinity come through.
    virtual double sum_of_squares(const void * x, int64_t n) = 0;
    // Operations per second that products on this device cannot exceed, measured now or (cuda) by its clock; 0: not
    // known.
    virtual double measure_peak() { return 0; }
    // Bytes per second at which the device's own memory can be read, measured now; 0: not known.
    virtual double measure_bandwidth() { return 0; }
    // One AdamW step over n elements in param format: p -= lr * wd * p; then Adam (Loshchilov & Hutter 2019, algorithm
    // 2).
    virtual void adamw(void * param, const void * grad, void * m, void * v, int64_t n, const AdamwParams & params) = 0;

    // ---- what a backend may lack: the defaults refuse, and a session asks before it begins

    virtual bool has_adamw_8bit() const { return false; }
    // The same step with moments that are expanded, updated and quantized again; the step itself sees them unrounded.
    virtual void adamw_8bit(void * param, const void * grad, const Moments8bit & moments, int64_t n,
                            const AdamwParams & params);

    virtual bool has_dora() const { return false; }
    // squares[o] = |W_o|^2 (param)
    virtual void row_squares(const Weight & weight, void * squares);
    // Fills rows.factors and rows.slopes. |W_o + s B_o A|^2 = |W_o|^2 + 2 s B_o products_o + s^2 B_o (A A^T) B_o^T.
    virtual void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows);
    // y[t, o] = [residual[t, o] +] factors[o] x[t, o]. y may be x.
    virtual void scale_columns(Matrix x, const void * factors, Matrix residual, Matrix y);
    // For y = residual + factors x: d_magnitudes[o] += slopes[o] sum_t dy[t, o] (y - residual)[t, o], and dx = factors
    // dy. dx may be dy.
    virtual void dora_backward(Matrix dy, Matrix y, Matrix residual, const DoraRows & rows, void * d_magnitudes,
                               Matrix dx);

    // x[t, j] += magnitude(t) u with u uniform in [-1, 1), where magnitude is alpha / sqrt(L cols) for the tokens of a
    // segment of length L (NEFTune, Jain et al. 2023, algorithm 1) and u is number t * cols + j of the stream `seed`. x
    // hidden.
    virtual void add_noise(Matrix x, std::span<const Segment> segments, double alpha, uint64_t seed);

    // ---- how work is handed over

    // True when operations return before they are done, so that waiting for a number in the middle of a step costs
    // time.
    virtual bool runs_ahead() const { return false; }
    // Calls work(), which attends to `segments` and calls operations of this instance, none that returns a number, and
    // nothing else. Calls with the same key and segments must do the same to the same memory, but for seeds, which are
    // in device_seed: a device may record such work and play it again without calling it. Everything else that changes
    // must lie in device memory. Segments are the same when they differ only in how many keys a cache has before
    // theirs.
    virtual void repeat(std::span<const Segment> segments, uint64_t key, const std::function<void()> & work) {
        (void)segments, (void)key;
        work();
    }
};

// device: "cpu" or "reference"; "cuda[:N]" when the backend library is there. n_threads 0: all cores.
// Errors: UNSUPPORTED, DEVICE, INVALID_ARGUMENT.
std::unique_ptr<Backend> make_backend(const std::string & device, Dtype act, int32_t n_threads);

struct DeviceChoice {
    std::string device;  // as make_backend takes it
    std::string reason;  // "no GPU: no NVIDIA driver (libcuda.so.1 not found)"; empty where nothing was to be chosen
};
// "auto": the first GPU that works and computes in this format, else the CPU. Any other device is itself.
DeviceChoice choose_device(const std::string & device, Dtype act);

}  // namespace lorica
