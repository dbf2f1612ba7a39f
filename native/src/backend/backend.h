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

#include "backend/mask.h"

#include <ggml.h>

#include <cmath>
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

// One number for each column: a norm's weight, a bias. f32, or f64 where the parameters of an f64 reference are
// trained.
struct Vector {
    const void * data = nullptr;
    Dtype type = Dtype::f32;

    Vector() = default;
    Vector(const float * values) : data(values) {}
    Vector(const void * values, Dtype of) : data(values), type(of) {}
    explicit operator bool() const { return data != nullptr; }
    const float * f32() const { return static_cast<const float *>(data); }
    double operator[](int64_t i) const {
        return type == Dtype::f64 ? static_cast<const double *>(data)[i] : static_cast<const float *>(data)[i];
    }
};

// A weight W[out, in], rows contiguous: frozen, in its GGUF blocks, loaded by Backend::load_weight; or trained, F32
// (F64 on an f64 reference) in the array of parameters, and never arranged.
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
    // f32 [T, parts], or empty: row t's numbers in part p of u, rank / parts columns of it, are multiplied by gate[t,
    // p], and so are their gradients. 0 and 1 by row is an adapter that begins in the middle of a text (aLoRA); a part
    // for each of several stacked adapters is an adapter for each text.
    Matrix gate;

    explicit operator bool() const { return a != nullptr; }
};

// A norm of x[T, n], each row in `groups` equal parts that are normalized alone with one weight (a norm of the heads of
// q or k has a group for each; 1: whole rows). With m = 0 (rms: Zhang & Sennrich 2019, eq. 4) or m = mean(x) (layer: Ba
// et al. 2016, eq. 4), and r = 1 / sqrt(mean((x - m)^2) + eps): (x - m) r weight + bias.
struct Norm {
    enum Kind : uint8_t { rms, layer };

    Vector weight;  // [n / groups]
    double eps = 0;
    // hidden [T, n_statistics()], or empty: receives r of each group, behind them m of each group. On the way back:
    // what it received for the same x.
    Matrix statistics;
    Kind kind = rms;
    Vector bias = {};  // [n / groups], or none
    int32_t groups = 1;

    int64_t n_statistics() const { return groups * (kind == layer ? 2 : 1); }
    // x * weight / rms(x) of whole rows.
    bool is_plain_rms() const { return kind == rms && groups == 1 && !bias; }
};

// One of several linear layers that share their input.
struct LinearForward {
    const Weight * weight;
    Lora lora;         // a == nullptr: none
    Matrix u;          // [T, rank] act: receives dropout(x) A^T, needed again in backward; unused without lora
    Matrix residual;   // optional [T, out] hidden: y = residual + …; may be y itself
    Matrix y;          // [T, out] act or hidden; empty: only u is wanted
    Vector bias = {};  // optional [out]: y = … + bias
};

struct LinearBackward {
    const Weight * weight;
    Lora lora;
    Matrix u;                // as forward left it
    Matrix dy;               // [T, out] act or hidden
    void * dw = nullptr;     // of a trained weight, param [out, in]: += dy^T x
    void * dbias = nullptr;  // of a trained bias, param [out]: += sum_t dy

    bool needs_x() const { return lora || dw; }
};

// Whose numbers an activation function multiplies or replaces: silu(x) = x / (1 + exp(-x)); gelu_erf = x Phi(x)
// (Hendrycks & Gimpel 2016); gelu_tanh their approximation with tanh(sqrt(2 / pi) (x + 0.044715 x^3)).
enum class Act : uint8_t { silu, gelu_tanh, gelu_erf, relu, tanh };

// Rotary position embedding (Su et al. 2021, eq. 34): number i of n pairs of a head turns by positions[t] *
// inverse_frequency[i] and grows by `magnitude` (YaRN, Peng et al. 2023, section 3.4, and longrope). What is behind the
// 2 n rotated numbers of a head stays as it is. With a temperature (Ministral 3, after Llama 4) they grow further by
// 1 + temperature log(1 + floor(positions[t] / temperature_length)).
struct Rope {
    std::span<const double> inverse_frequency;  // of n pairs; may be empty
    int32_t head_dim = 0;
    bool halves = false;  // pairs are (i, i + n), as GPT-NeoX has them; else (2 i, 2 i + 1), as Llama's GGUF files do
    double magnitude = 1;
    double temperature = 0;
    int32_t temperature_length = 1;
};
// With y = m R x: dx = m R^T dy; undo: x = R^T y / m.
enum class RopeDirection : uint8_t { forward, backward, undo };

// m at a position.
inline double growth(const Rope & rope, int32_t position) {
    if (rope.temperature == 0) return rope.magnitude;
    return rope.magnitude * (1 + rope.temperature * std::log1p(position / rope.temperature_length));
}
inline double growth(const Rope & rope, RopeDirection direction, int32_t position) {
    const double m = growth(rope, position);
    return direction == RopeDirection::undo ? 1 / m : m;
}

struct EmbedOptions {
    double scale = 1;          // of the table's rows
    Matrix virtual_rows = {};  // param [n, cols], dense: for a negative id its row -1 - id, unscaled
    bool accumulate = false;   // x += …
};

// What becomes of the products of a head: cap tanh(scale z / cap), without a cap scale z.
struct LogitSpec {
    double scale = 1, cap = 0;
};

struct Head {
    const Weight * weight;
    LogitSpec logits = {};
    // Of linear_cross_entropy alone: gradients are those of sum_t row_weights[t] nll[t] (f32 device memory; null: all
    // are 1), and dw, of a trained head, param [out, in], is += its gradient.
    const float * row_weights = nullptr;
    void * dw = nullptr;
    // On the products, before they become logits. Of linear_cross_entropy with lora.da: gradients are added there.
    Lora lora = {};
    int32_t n_labels = 1;  // of each row, with as many losses and, where there are several, given weights
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

struct AttentionShape {
    int32_t n_head, n_head_kv, head_dim;
    double scale;  // of q k^T, as a rule 1 / sqrt(head_dim)
    MaskSpec mask = {};
    double softcap = 0;  // scores s become softcap tanh(s / softcap) (Gemma 2); 0: they stay

    bool is_plain() const { return mask == MaskSpec{} && softcap == 0; }
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
    bool training = false;         // linear_cross_entropy and the backward passes as well
    bool dropout = false;          // on any adapter
    int32_t max_shared = 3;        // linear layers of one call
    int32_t n_ropes = 1;           // different ones of one pass
    int64_t max_kv_rows = 0;       // of attention_backward, where they are more than max_tokens
    bool trained_weights = false;  // dw of linear layers or of the head
    int64_t head_rank = 0;         // of the LoRA on the head
    int64_t adapter_elements = 0;  // of A and B on linear layers, rows padded to eight: see parameters_changed
};

// Copies of weights in an order or a format of the device's own; see Backend::arrange and expand. Immutable.
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

    // What a copy of the weight takes that spares operations on up to max_rows rows the expansion of its blocks; 0: the
    // device has no use for one.
    virtual int64_t expanded_bytes(const Weight & weight, int64_t max_rows) const {
        (void)weight, (void)max_rows;
        return 0;
    }
    // Makes such copies, for use(); null: the memory is not there. They hold what blocks are expanded to anyway.
    virtual std::shared_ptr<const ArrangedWeights> expand(std::span<const Weight * const> weights) {
        (void)weights;
        return nullptr;
    }

    // The parameters of adapters have changed. A device may keep copies of A and B in the format act, within the
    // workspace of WorkspaceShape::adapter_elements, and makes them again here and nowhere else.
    virtual void parameters_changed() {}

    // Runs work, a sequence of operations on so many tokens. A device may keep its threads awake from one to the next.
    virtual void together(int64_t n_tokens, const std::function<void()> & work) {
        (void)n_tokens;
        work();
    }

    // x[t] = or += scale times row ids[t] of the table (tokens, positions, types of tokens). x hidden.
    virtual void embed(const Weight & table, const int32_t * ids, const EmbedOptions & options, Matrix x) = 0;
    // d_table[ids[i]] += scale dx[rows[i]] for i < n, where ids rise and may repeat: those of one id are added in their
    // order. d_table: param, dense rows of dx.cols.
    virtual void embed_backward(Matrix dx, const int32_t * ids, const int32_t * rows, int64_t n, double scale,
                                void * d_table);

    // y = [residual +] norm(x). x and y hidden or act; residual hidden, may be y; y may be x.
    virtual void norm(Matrix x, const Norm & norm, Matrix residual, Matrix y) = 0;
    // dx = or += d(norm)/dx^T dy; `=` may be in place: dx may be dy. All hidden or act. Where statistics are given they
    // may be read in place of being made again of x. Where dx_act is given, next to a hidden dx, it receives dx in act.
    virtual void norm_backward(Matrix dy, Matrix x, const Norm & norm, bool accumulate, Matrix dx, Matrix dx_act) = 0;
    // dw += sum over rows and groups of dy (x - m) r, db += those of dy; param [n / groups]; either may be null.
    virtual void norm_gradient(Matrix dy, Matrix x, const Norm & norm, void * dw, void * db);

    // For each of up to four layers i: u_i = dropout_i(x) A_i^T; y_i = [residual_i +] x W_i^T + scale_i u_i B_i^T +
    // bias_i. x act or hidden.
    virtual void linear(Matrix x, std::span<const LinearForward> layers) = 0;
    // dx = or += sum_i dy_i W_i + dropout_i'(scale_i dy_i B_i A_i) when dx is given (act or hidden);
    // da_i += scale_i (dy_i B_i)^T dropout_i(x); db_i += scale_i dy_i^T u_i; dw_i and dbias_i as they say.
    virtual void linear_backward(Matrix x, std::span<const LinearBackward> layers, bool accumulate, Matrix dx) = 0;

    // In place. x[T, n_head * head_dim] act.
    virtual void rope(Matrix x, const int32_t * positions, const Rope & rope, RopeDirection direction) = 0;

    // The newest tokens of a cache: q is rotated as rope() does it; row rows[t] of k_cache receives k[t] rotated
    // without the temperature, that of v_cache v[t]. rows null: positions. k is not defined afterwards. All act.
    virtual void rope_into_cache(Matrix q, Matrix k, Matrix v, const int32_t * positions, const int32_t * rows,
                                 const Rope & rope, Matrix k_cache, Matrix v_cache) = 0;

    // o = softmax(softcap(scale q k^T) + mask) v per segment and head; query head h uses kv head h / (n_head /
    // n_head_kv). Memory is linear in length (Dao 2023, FlashAttention-2), work in what the mask lets through.
    // lse[T, n_head] hidden receives log-sum-exp, null: not kept. q, o[T, n_head * head_dim], k, v[Tkv, n_head_kv *
    // head_dim] act.
    virtual void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments,
                           const AttentionShape & shape, Matrix o, Matrix lse) = 0;
    // dq, dk, dv = (act). Needs o and lse of the forward pass. Keys that no query sees have no gradient: 0.
    virtual void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                                    std::span<const Segment> segments, const AttentionShape & shape, Matrix dq,
                                    Matrix dk, Matrix dv) = 0;

    // h = act(gate) * up (Shazeer 2020, eq. 5 and 6). All act.
    virtual void gated(Matrix gate, Matrix up, Act act, Matrix h) = 0;
    // dgate and dup may be gate and up themselves.
    virtual void gated_backward(Matrix gate, Matrix up, Act act, Matrix dh, Matrix dgate, Matrix dup) = 0;
    // h = act(x). All act. h may be x; dx may be x or dh.
    virtual void activation(Matrix x, Act act, Matrix h);
    virtual void activation_backward(Matrix x, Act act, Matrix dh, Matrix dx);

    // y = factor x. x and y hidden or act; y may be x.
    virtual void scale(Matrix x, double factor, Matrix y);
    // y[t] = factors[t] x[t], factors f32[T]. x and y hidden or act; y may be x.
    virtual void scale_rows(Matrix x, const float * factors, Matrix y);
    // y[s] = mean of the rows of x that segment s has as queries; dx[t] += dy[s] / q_len for those rows. Hidden.
    virtual void segment_mean(Matrix x, std::span<const Segment> segments, Matrix y);
    virtual void segment_mean_backward(Matrix dy, std::span<const Segment> segments, Matrix dx);

    // ---- several of these in one, for devices that then read and write less; the defaults do one after the other, and
    // ---- so must an override with what it was not written for

    // linear() of norm(x). x hidden; normed: memory, [T, n] act.
    virtual void norm_linear(Matrix x, const Norm & norm, std::span<const LinearForward> layers, Matrix normed);
    // The same of two layers, and h = act(gate) up of their outputs.
    virtual void norm_linear_gated(Matrix x, const Norm & norm, const LinearForward & gate, const LinearForward & up,
                                   Act act, Matrix normed, Matrix h);
    // Backward of y = down(h), h = act(gate) up: the gradients of down's parameters, dgate and dup. dgate and dup may
    // be gate and up themselves, dup also h, neither down.dy. h and dh: memory, [T, n_ff] act. Without dh only the
    // parameters' gradients are wanted.
    virtual void gated_linear_backward(Matrix gate, Matrix up, Act act, const LinearBackward & down, Matrix h,
                                       Matrix dh, Matrix dgate, Matrix dup);
    // Backward of y_i = layer_i(norm(x)): the gradients of the layers' parameters; dx += and dx_act = as in
    // norm_backward, where dx is given. normed: memory, [T, n] act. d_normed: [T, n] act or hidden, receives the
    // gradient of norm(x) where dx is given.
    virtual void norm_linear_backward(Matrix x, const Norm & norm, std::span<const LinearBackward> layers,
                                      Matrix normed, Matrix d_normed, Matrix dx, Matrix dx_act);

    // y[i] = x[rows[i]]; dx[rows[i]] += dy[i] with distinct rows. Each hidden (or param) or act.
    virtual void gather_rows(Matrix x, const int32_t * rows, Matrix y) = 0;
    virtual void scatter_add_rows(Matrix dy, const int32_t * rows, Matrix dx) = 0;

    // nll[i] = -log softmax(logits of x_i)[labels[i]], in chunks that never hold rows * vocabulary. x act, nll
    // hidden[rows]. When dx is given (act or hidden): dx = d(sum nll)/dx, in the same pass over the head. A LoRA's term
    // is part of the same chunks. With n_labels above 1 (see has_many_labels) labels, nll and row_weights have so many
    // columns; the labels of a row ascend.
    virtual void linear_cross_entropy(Matrix x, const Head & head, const int32_t * labels, void * nll, Matrix dx) = 0;

    // out[rows, vocabulary] = logits of x, f32. x act.
    virtual void logits(Matrix x, const Head & head, float * out) = 0;

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

    // Whether linear_cross_entropy takes several labels for each row.
    virtual bool has_many_labels() const { return false; }

    virtual bool has_dora() const { return false; }
    // squares[o] = |W_o|^2 (param)
    virtual void row_squares(const Weight & weight, void * squares);
    // Fills rows.factors and rows.slopes. |W_o + s B_o A|^2 = |W_o|^2 + 2 s B_o products_o + s^2 B_o (A A^T) B_o^T.
    virtual void dora_factors(const Lora & lora, int64_t in, int64_t out, const DoraRows & rows);
    // y[t, o] = [residual[t, o] +] [bias[o] +] factors[o] x[t, o]; factors null: 1, a sum. y may be x or residual. x,
    // residual and y hidden or act.
    virtual void scale_columns(Matrix x, const void * factors, Vector bias, Matrix residual, Matrix y);
    // For y = residual + bias + factors x: d_magnitudes[o] += slopes[o] sum_t dy[t, o] (y - residual - bias)[t, o], and
    // dx = factors dy. dx may be dy.
    virtual void dora_backward(Matrix dy, Matrix y, Vector bias, Matrix residual, const DoraRows & rows,
                               void * d_magnitudes, Matrix dx);

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
