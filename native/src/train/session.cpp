#include "train/session.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

std::string mebibytes(int64_t n) {
    char text[32];
    std::snprintf(text, sizeof text, "%.0f MiB", std::ceil(static_cast<double>(n) / (1 << 20)));
    return text;
}

int64_t max_sequence_length(const SessionConfig & config) {
    return config.max_sequence_length > 0 ? config.max_sequence_length : config.max_tokens;
}

template <typename Real> bool all_finite(Backend & backend, const void * device, int64_t n) {
    std::vector<Real> values(static_cast<size_t>(n));
    backend.copy_to_host(values.data(), device, values.size() * sizeof(Real));
    return std::all_of(values.begin(), values.end(), [](Real x) { return std::isfinite(x); });
}

bool all_finite(Backend & backend, const void * device, Dtype type, int64_t n) {
    return type == Dtype::f64 ? all_finite<double>(backend, device, n) : all_finite<float>(backend, device, n);
}

}  // namespace

// ---- the memory plan ----

Session::Buffers Session::lay_out(Arena & arena, const Model & model, const Adapter & adapter,
                                  const SessionConfig & config, int32_t recomputed_layers) {
    const LlamaConfig & c = model.config();
    const Formats formats = model.device().formats();
    const int64_t n = config.max_tokens;
    const int32_t first = Transformer(model, &adapter, model.device(), nullptr).first_adapted_layer();

    Buffers b;
    auto ids = [&] { return static_cast<int32_t *>(arena.bytes(static_cast<size_t>(n) * sizeof(int32_t))); };
    b.tokens = ids();
    b.positions = ids();
    b.rows = ids();
    b.labels = ids();
    const bool dropout = adapter.config().dropout > 0;
    b.dropout_seeds = dropout
                          ? static_cast<uint64_t *>(arena.bytes(Transformer::n_dropout_seeds(model) * sizeof(uint64_t)))
                          : nullptr;
    for (int32_t l = first; l <= c.n_layer; ++l) b.x.push_back(arena.matrix(formats.hidden, n, c.n_embd));
    // Blocks below the lowest adapter are never passed backwards: they share the first one's memory. What is recomputed
    // lies where the lowest block that is not has its own, whose backward pass is over by then.
    const int32_t n_blocks = std::max(1, c.n_layer - first);
    const BlockActivations lowest = lay_out_block(arena, model, &adapter, formats, n, false);
    for (int32_t i = 0; i < recomputed_layers; ++i)
        b.blocks.push_back(lay_out_recomputed_block(arena, model, formats, n, lowest));
    b.blocks.push_back(lowest);
    while (static_cast<int32_t>(b.blocks.size()) < n_blocks)
        b.blocks.push_back(lay_out_block(arena, model, &adapter, formats, n, false));
    b.scratch = lay_out_scratch(arena, model, &adapter, formats, n, true);
    b.dx = arena.matrix(formats.hidden, n, c.n_embd);
    b.rows_x = arena.matrix(formats.hidden, n, c.n_embd);
    b.rows_dx = arena.matrix(formats.hidden, n, c.n_embd);
    b.rows_normed = arena.operand(formats.act, n, c.n_embd);
    b.rows_d_normed = arena.matrix(formats.hidden, n, c.n_embd);
    b.nll = arena.matrix(formats.hidden, n, 1);
    return b;
}

WorkspaceShape Session::workspace_shape(const Model & model, const Adapter & adapter, const SessionConfig & config) {
    const LlamaConfig & c = model.config();
    WorkspaceShape shape;
    // With DoRA, A's rows go through the layers as tokens do.
    shape.max_tokens = adapter.config().use_dora ? std::max(config.max_tokens, adapter.max_rank()) : config.max_tokens;
    shape.max_sequence_length = max_sequence_length(config);
    shape.max_features = std::max({c.n_embd, c.n_ff, c.q_dim()});
    shape.n_vocab = c.n_vocab;
    shape.max_rank = adapter.max_rank();
    shape.n_head = c.n_head;
    shape.n_head_kv = c.n_head_kv;
    shape.head_dim = c.head_dim;
    shape.training = true;
    shape.dropout = adapter.config().dropout > 0;
    return shape;
}

MemoryPlan Session::plan_with(const Model & model, const Adapter & adapter, const SessionConfig & config,
                              int32_t recomputed_layers) {
    const Backend & device = model.device();
    const int64_t params = adapter.n_params() * static_cast<int64_t>(dtype_size(device.formats().param));
    Arena arena;
    lay_out(arena, model, adapter, config, recomputed_layers);
    MemoryPlan plan;
    plan.weights = model.device_bytes() > 0 ? model.device_bytes() : model.weight_bytes();
    plan.adapter = params + adapter.dora_bytes();
    plan.gradients = params;
    plan.optimizer = optimizer_bytes(adapter, config.optimizer);
    plan.activations = static_cast<int64_t>(arena.n_bytes());
    plan.workspace = static_cast<int64_t>(device.workspace_bytes(workspace_shape(model, adapter, config)));
    // On a GPU the weights and the adapter have their memory already.
    const int64_t taken = model.device_bytes() > 0 ? plan.weights + plan.adapter : 0;
    plan.available = config.memory_limit > 0 ? config.memory_limit : device.available_memory() + taken;
    plan.recomputed_layers = recomputed_layers;
    return plan;
}

double Session::operations_per_token() const {
    auto weights = static_cast<double>(model_.output().in) * static_cast<double>(model_.output().out);
    for (const LayerWeights & layer : model_.layers()) {
        for (const Weight & w : layer.linear) weights += static_cast<double>(w.in) * static_cast<double>(w.out);
    }
    return 4 * weights;
}

// ---- the optimizer's state

namespace {

// Blocks do not reach across tensors, whose values may differ in size by magnitudes.
int64_t n_blocks_before(const Adapter & adapter, int32_t tensor) {
    int64_t n = 0;
    for (int32_t i = 0; i < tensor; ++i) n += Moments8bit::n_blocks(adapter.tensor(i).rows * adapter.tensor(i).cols);
    return n;
}

}  // namespace

int64_t Session::optimizer_bytes(const Adapter & adapter, Optimizer optimizer) {
    if (optimizer == Optimizer::adamw)
        return 2 * adapter.n_params() * static_cast<int64_t>(dtype_size(adapter.model()->device().formats().param));
    return 2 *
           (adapter.n_params() + n_blocks_before(adapter, adapter.n_tensors()) * static_cast<int64_t>(sizeof(float)));
}

std::vector<std::pair<void *, size_t>> Session::state_arrays() const {
    const auto n = static_cast<size_t>(adapter_->n_params());
    const size_t bytes = n * dtype_size(backend_->formats().param);
    if (config_.optimizer == Optimizer::adamw)
        return {{adapter_->params(), bytes}, {moment1_, bytes}, {moment2_, bytes}};
    const size_t scales = static_cast<size_t>(n_blocks_before(*adapter_, adapter_->n_tensors())) * sizeof(float);
    return {{adapter_->params(), bytes}, {moment1_, n}, {moment2_, n}, {scales1_, scales}, {scales2_, scales}};
}

Moments8bit Session::moments_8bit(int32_t tensor) const {
    const int64_t first = adapter_->tensor(tensor).offset, block = n_blocks_before(*adapter_, tensor);
    return {static_cast<uint8_t *>(moment1_) + first, static_cast<uint8_t *>(moment2_) + first,
            static_cast<float *>(scales1_) + block, static_cast<float *>(scales2_) + block};
}

MemoryPlan Session::plan(const Model & model, const Adapter & adapter, const SessionConfig & config) {
    if (config.max_tokens < 1 || config.max_tokens > (1 << 24)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "max_tokens is ", config.max_tokens, "; it must lie between 1 and ",
             1 << 24);
    }
    if (config.max_sequences < 0 || config.max_sequence_length < 0 || config.max_sequence_length > config.max_tokens) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "max_sequences and max_sequence_length must not be negative, nor a sequence longer than ", "max_tokens (",
             config.max_tokens, ")");
    }
    if (!(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1 && config.eps > 0)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "AdamW needs 0 <= beta < 1 and eps > 0; got beta1 ", config.beta1,
             ", beta2 ", config.beta2, ", eps ", config.eps);
    }
    if (!std::isfinite(config.neftune_alpha) || config.neftune_alpha < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "neftune_alpha is ", config.neftune_alpha,
             "; it must be 0 (no noise) or positive");
    }
    if (config.optimizer == Optimizer::adamw_8bit && !model.device().has_adamw_8bit()) {
        fail(LORICA_ERROR_UNSUPPORTED, "device \"", model.device().name(),
             "\" has no AdamW with 8-bit state yet; take the one with 32 bits");
    }
    // The top block is passed backwards right after its forward pass.
    const int32_t n_blocks =
        model.config().n_layer - Transformer(model, &adapter, model.device(), nullptr).first_adapted_layer();
    const int32_t most = std::max(0, n_blocks - 1);
    if (config.checkpointing != Checkpointing::automatic) {
        return plan_with(model, adapter, config, config.checkpointing == Checkpointing::on ? most : 0);
    }
    // What is free now is not all taken: other programs grow, and the file of the model is read from memory only while
    // it stays there.
    const auto is_modest = [&](const MemoryPlan & plan) {
        return plan.total() <= (config.memory_limit > 0 ? plan.available : plan.available / 10 * 9);
    };
    int32_t fewest = 0;
    for (int32_t enough = most; fewest < enough;) {
        const int32_t middle = fewest + (enough - fewest) / 2;
        if (is_modest(plan_with(model, adapter, config, middle))) {
            enough = middle;
        } else {
            fewest = middle + 1;
        }
    }
    return plan_with(model, adapter, config, fewest);
}

namespace {

[[noreturn]] void refuse(const Model & model, const Adapter & adapter, const SessionConfig & config,
                         const MemoryPlan & plan) {
    std::string advice;
    SessionConfig smaller = config;
    smaller.checkpointing = Checkpointing::on;
    if (plan.recomputed_layers == 0 && Session::plan(model, adapter, smaller).fits()) {
        advice = "activation checkpointing would fit";
    } else {
        int32_t fits = 0;
        for (int32_t low = 1, high = config.max_tokens - 1; low <= high;) {
            const int32_t middle = low + (high - low) / 2;
            smaller.max_tokens = middle;
            smaller.max_sequence_length = std::min(config.max_sequence_length, middle);
            if (Session::plan(model, adapter, smaller).fits()) {
                fits = middle;
                low = middle + 1;
            } else {
                high = middle - 1;
            }
        }
        advice = fits > 0
                     ? "with activation checkpointing, " + std::to_string(fits) + " tokens per micro-batch would fit"
                     : "no micro-batch fits beside this model; take a smaller model or a lower rank";
    }
    fail(LORICA_ERROR_OUT_OF_MEMORY, "training needs ", mebibytes(plan.total()), " and ", mebibytes(plan.available),
         " are available; ", advice);
}

}  // namespace

// ---- construction ----

Session::Session(std::shared_ptr<Adapter> adapter, const SessionConfig & config)
    : adapter_(std::move(adapter)), model_(*adapter_->model()), config_(config) {
    const MemoryPlan plan = Session::plan(model_, *adapter_, config_);
    if (!plan.fits()) refuse(model_, *adapter_, config_, plan);
    recomputed_layers_ = plan.recomputed_layers;
    backend_ = model_.new_backend();
    if (adapter_->in_training.exchange(true)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "the adapter is already being trained by another session; free that one first");
    }
    try {
        const auto params = static_cast<size_t>(adapter_->n_params()) * dtype_size(backend_->formats().param);
        gradients_ = backend_->allocate(params);
        const bool is_8bit = config_.optimizer == Optimizer::adamw_8bit;
        const size_t moments = is_8bit ? static_cast<size_t>(adapter_->n_params()) : params;
        moment1_ = backend_->allocate(moments);
        moment2_ = backend_->allocate(moments);
        if (is_8bit) {
            const size_t scales =
                static_cast<size_t>(n_blocks_before(*adapter_, adapter_->n_tensors())) * sizeof(float);
            scales1_ = backend_->allocate(scales);
            scales2_ = backend_->allocate(scales);
        }
        arena_ = backend_->allocate(static_cast<size_t>(plan.activations));
        backend_->reserve(workspace_shape(model_, *adapter_, config_));
    } catch (...) {
        release();
        throw;
    }
    groups_.resize(static_cast<size_t>(adapter_->n_tensors()));
    Arena arena(arena_);
    buffers_ = lay_out(arena, model_, *adapter_, config_, recomputed_layers_);
    transformer_ = std::make_unique<Transformer>(model_, adapter_.get(), *backend_, gradients_);
}

Session::~Session() { release(); }

void Session::release() {
    for (void * memory : {gradients_, moment1_, moment2_, scales1_, scales2_, arena_}) {
        if (memory) backend_->release(memory);
    }
    adapter_->in_training = false;
}

// ---- batches ----

void Session::check(const PackedBatch & batch) const {
    const auto n = static_cast<int64_t>(batch.tokens.size());
    if (n < 1 || n > config_.max_tokens) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the micro-batch has ", n, " tokens; this session takes 1 to ",
             config_.max_tokens);
    }
    const auto n_sequences = static_cast<int64_t>(batch.sequence_lengths.size());
    const int64_t max_sequences = config_.max_sequences > 0 ? config_.max_sequences : config_.max_tokens;
    if (n_sequences > max_sequences) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the micro-batch has ", n_sequences, " sequences; this session takes ",
             max_sequences);
    }
    int64_t sum = 0;
    for (const int32_t length : batch.sequence_lengths) {
        if (length < 1 || length > max_sequence_length(config_)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "a sequence of the micro-batch has length ", length,
                 "; this session takes 1 to ", max_sequence_length(config_));
        }
        sum += length;
    }
    if (sum != n)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the sequence lengths add up to ", sum, ", the micro-batch has ", n,
             " tokens");
    const int32_t n_vocab = model_.config().n_vocab;
    for (int64_t t = 0; t < n; ++t) {
        const auto i = static_cast<size_t>(t);
        if (batch.tokens[i] < 0 || batch.tokens[i] >= n_vocab) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token ", t, " has id ", batch.tokens[i], "; the vocabulary has ",
                 n_vocab);
        }
        if (batch.labels[i] != -100 && (batch.labels[i] < 0 || batch.labels[i] >= n_vocab)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "label ", t, " is ", batch.labels[i],
                 "; it must be -100 or an id below ", n_vocab);
        }
        if (!batch.positions.empty() && batch.positions[i] < 0) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "position ", t, " is ", batch.positions[i],
                 "; positions are not negative");
        }
    }
}

void Session::upload(const PackedBatch & batch) {
    check(batch);
    n_tokens_ = static_cast<int64_t>(batch.tokens.size());
    segments_.clear();
    std::vector<int32_t> positions(batch.positions.begin(), batch.positions.end());
    const bool count_positions = positions.empty();
    int32_t first = 0;
    for (const int32_t length : batch.sequence_lengths) {
        segments_.push_back({first, length, first, length});
        for (int32_t i = 0; count_positions && i < length; ++i) positions.push_back(i);
        first += length;
    }
    trained_rows_.clear();
    std::vector<int32_t> labels;
    for (int32_t t = 0; t < n_tokens_; ++t) {
        const int32_t label = batch.labels[static_cast<size_t>(t)];
        if (label == -100) continue;
        trained_rows_.push_back(t);
        labels.push_back(label);
    }
    auto copy = [&](int32_t * device, std::span<const int32_t> host) {
        backend_->copy_to_device(device, host.data(), host.size_bytes());
    };
    copy(buffers_.tokens, batch.tokens);
    copy(buffers_.positions, positions);
    copy(buffers_.rows, trained_rows_);
    copy(buffers_.labels, labels);
}

// ---- forward and backward ----

BlockActivations Session::block(int32_t layer) const {
    const auto kept = static_cast<size_t>(std::max(0, layer - transformer_->first_adapted_layer()));
    BlockActivations block = buffers_.blocks[kept];
    block.x = buffers_.x[kept];
    return block;
}

void Session::embed(bool training) {
    adapter_->update_dora(*backend_);
    const Matrix embedded = buffers_.x.front().slice_rows(0, n_tokens_);
    backend_->embed(model_.embedding(), buffers_.tokens, {}, embedded);
    if (training && config_.neftune_alpha > 0) {
        constexpr uint64_t noise_stream = 0x6e656674756e65;  // no layer has this number
        backend_->add_noise(embedded, segments_, config_.neftune_alpha, derive_seed(micro_batch_seed(), noise_stream));
    }
}

// Leaves the output of the last block in x.back() when training, else in x.front().
void Session::forward(bool training) {
    const int32_t n_layer = model_.config().n_layer, first = transformer_->first_adapted_layer();
    const Sequences sequences{buffers_.positions, segments_};
    for (int32_t l = 0; l < n_layer; ++l) {
        BlockActivations b = training ? block(l) : buffers_.blocks.front();
        if (!training) b.x = buffers_.x.front();
        const Matrix x_out = training && l >= first ? buffers_.x[static_cast<size_t>(l - first + 1)] : b.x;
        transformer_->block_forward(l, b, buffers_.scratch, sequences, {}, x_out);
    }
}

void Session::head(bool with_gradient) {
    const auto n = static_cast<int64_t>(trained_rows_.size());
    const LlamaConfig & c = model_.config();
    const Matrix x = (with_gradient ? buffers_.x.back() : buffers_.x.front()).slice_rows(0, n_tokens_);
    const Matrix rows_x = buffers_.rows_x.slice_rows(0, n), normed = buffers_.rows_normed.slice_rows(0, n);
    const Matrix d_normed = with_gradient ? buffers_.rows_d_normed.slice_rows(0, n) : Matrix{};
    backend_->gather_rows(x, buffers_.rows, rows_x);
    backend_->norm(rows_x, {model_.output_norm(), c.rms_eps, {}}, {}, normed);
    backend_->linear_cross_entropy(normed, {&model_.output()}, buffers_.labels, buffers_.nll.data, d_normed);
}

double Session::loss(std::span<float> token_nll) {
    const auto n = static_cast<int64_t>(trained_rows_.size());
    std::vector<double> nll(static_cast<size_t>(n));
    if (buffers_.nll.type == Dtype::f64) {
        backend_->copy_to_host(nll.data(), buffers_.nll.data, nll.size() * sizeof(double));
    } else {
        std::vector<float> narrow(nll.size());
        backend_->copy_to_host(narrow.data(), buffers_.nll.data, narrow.size() * sizeof(float));
        std::copy(narrow.begin(), narrow.end(), nll.begin());
    }
    double sum = 0;
    for (size_t i = 0; i < nll.size(); ++i) {
        sum += nll[i];
        if (!token_nll.empty()) token_nll[static_cast<size_t>(trained_rows_[i])] = static_cast<float>(nll[i]);
    }
    return sum;
}

void Session::backward() {
    const auto n = static_cast<int64_t>(trained_rows_.size());
    const Matrix rows_dx = buffers_.rows_dx.slice_rows(0, n), dx = buffers_.dx.slice_rows(0, n_tokens_);
    backend_->fill_zero(rows_dx.data, rows_dx.n_bytes());
    backend_->norm_backward(buffers_.rows_d_normed.slice_rows(0, n), buffers_.rows_x.slice_rows(0, n),
                            {model_.output_norm(), model_.config().rms_eps, {}}, true, rows_dx, {});
    backend_->fill_zero(dx.data, dx.n_bytes());
    backend_->scatter_add_rows(rows_dx, buffers_.rows, dx);

    const Sequences sequences{buffers_.positions, segments_};
    const int32_t first = transformer_->first_adapted_layer(), last = model_.config().n_layer - 1;
    for (int32_t l = last; l >= first; --l) {
        const BlockActivations b = block(l);
        if (l < first + recomputed_layers_) transformer_->block_forward(l, b, buffers_.scratch, sequences, {}, {});
        const Matrix x_out = buffers_.x[static_cast<size_t>(l - first + 1)];
        transformer_->block_backward(l, b, buffers_.scratch, sequences, x_out, buffers_.dx, l == last, l > first);
    }
}

LossSum Session::forward_backward(const PackedBatch & batch) {
    upload(batch);
    if (trained_rows_.empty()) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "no token of the micro-batch is trained on: every label is -100");
    }
    transformer_->set_dropout_seed(micro_batch_seed(), buffers_.dropout_seeds);
    embed(true);
    ++micro_batch_count_;
    double sum = 0;
    if (backend_->runs_ahead()) {
        backend_->repeat(segments_, shape_key(), [&] {
            forward(true);
            head(true);
            backward();
        });
        sum = loss({});
        if (!std::isfinite(sum)) fail_non_finite_loss();
    } else {
        forward(true);
        head(true);
        sum = loss({});
        if (!std::isfinite(sum)) fail_non_finite_loss();
        backward();
    }
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

uint64_t Session::shape_key() const {
    uint64_t key = trained_rows_.size();
    for (const LoraPair & pair : adapter_->pairs())
        key = derive_seed(key, std::bit_cast<uint64_t>(adapter_->scale(pair)));
    return key;
}

LossSum Session::evaluate(const PackedBatch & batch, std::span<float> token_nll) {
    upload(batch);
    std::fill(token_nll.begin(), token_nll.end(), 0.0f);
    if (trained_rows_.empty()) return {};
    transformer_->set_dropout_seed(std::nullopt);
    embed(false);
    forward(false);
    head(false);
    const double sum = loss(token_nll);
    if (!std::isfinite(sum)) {
        fail(LORICA_ERROR_NON_FINITE, "the loss of an evaluation is not finite after ", step_count_,
             " optimizer steps");
    }
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

void Session::fail_non_finite_loss() const {
    const int32_t first = transformer_->first_adapted_layer();
    for (size_t i = 0; i < buffers_.x.size(); ++i) {
        const Matrix & x = buffers_.x[i];
        if (all_finite(*backend_, x.data, x.type, n_tokens_ * x.cols)) continue;
        const int32_t layer = first + static_cast<int32_t>(i);
        fail(LORICA_ERROR_NON_FINITE, "the loss is not finite after ", step_count_,
             " optimizer steps; the first values that are not came out of ",
             layer == 0 ? std::string("the embedding") : "layer " + std::to_string(layer - 1));
    }
    fail(LORICA_ERROR_NON_FINITE, "the loss is not finite after ", step_count_,
         " optimizer steps; it became so in the output head");
}

// ---- the optimizer ----

void Session::fail_non_finite_gradient() const {
    const Dtype type = backend_->formats().param;
    for (int32_t i = 0; i < adapter_->n_tensors(); ++i) {
        const Adapter::TensorRef tensor = adapter_->tensor(i);
        const auto * data =
            static_cast<const std::byte *>(gradients_) + static_cast<size_t>(tensor.offset) * dtype_size(type);
        if (!all_finite(*backend_, data, type, tensor.rows * tensor.cols)) {
            fail(LORICA_ERROR_NON_FINITE, "the gradient is not finite in step ", step_count_ + 1,
                 "; the first such tensor is ", tensor.name, "; nothing was updated");
        }
    }
    fail(LORICA_ERROR_NON_FINITE, "the gradient norm overflowed in step ", step_count_ + 1, "; nothing was updated");
}

double Session::optimizer_step(const OptimizerStep & step) {
    if (!std::isfinite(step.learning_rate) || step.learning_rate < 0 || !std::isfinite(step.weight_decay) ||
        step.weight_decay < 0 || !std::isfinite(step.grad_scale) || step.grad_scale < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "learning rate, weight decay and gradient scale must be finite and not negative; got ", step.learning_rate,
             ", ", step.weight_decay, ", ", step.grad_scale);
    }
    const double norm = std::sqrt(backend_->sum_of_squares(gradients_, adapter_->n_params())) * step.grad_scale;
    if (!std::isfinite(norm)) fail_non_finite_gradient();
    // torch.nn.utils.clip_grad_norm_: max / (norm + 1e-6), at most 1.
    const double clip = step.max_grad_norm > 0 ? std::min(1.0, step.max_grad_norm / (norm + 1e-6)) : 1.0;
    AdamwParams params{};
    params.beta1 = config_.beta1;
    params.beta2 = config_.beta2;
    params.eps = config_.eps;
    params.grad_scale = step.grad_scale * clip;
    params.step = ++step_count_;
    update(step, params);
    adapter_->params_changed();
    zero_gradients();
    stepped_micro_batch_count_ = micro_batch_count_;
    return norm;
}

void Session::update(const OptimizerStep & step, AdamwParams params) {
    const auto in_group = [&](const TensorGroup & group) {
        params.learning_rate = step.learning_rate * group.learning_rate;
        params.weight_decay = step.weight_decay * group.weight_decay;
    };
    const bool one_group = std::all_of(groups_.begin(), groups_.end(),
                                       [&](const TensorGroup & group) { return group == groups_.front(); });
    if (one_group && config_.optimizer == Optimizer::adamw) {
        in_group(groups_.front());
        backend_->adamw(adapter_->params(), gradients_, moment1_, moment2_, adapter_->n_params(), params);
        return;
    }
    const auto element = static_cast<int64_t>(dtype_size(backend_->formats().param));
    for (int32_t i = 0; i < adapter_->n_tensors(); ++i) {
        const Adapter::TensorRef tensor = adapter_->tensor(i);
        const int64_t n = tensor.rows * tensor.cols;
        const auto at = [&](void * array) { return static_cast<std::byte *>(array) + tensor.offset * element; };
        in_group(groups_[static_cast<size_t>(i)]);
        if (config_.optimizer == Optimizer::adamw_8bit) {
            backend_->adamw_8bit(at(adapter_->params()), at(gradients_), moments_8bit(i), n, params);
        } else {
            backend_->adamw(at(adapter_->params()), at(gradients_), at(moment1_), at(moment2_), n, params);
        }
    }
}

void Session::set_group(int32_t tensor, TensorGroup group) {
    const bool good = std::isfinite(group.learning_rate) && group.learning_rate >= 0 &&
                      std::isfinite(group.weight_decay) && group.weight_decay >= 0;
    if (!good) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the factors of a parameter group must be finite and not negative; got ",
             group.learning_rate, ", ", group.weight_decay);
    }
    groups_[static_cast<size_t>(tensor)] = group;
}

void Session::zero_gradients() {
    backend_->fill_zero(gradients_, static_cast<size_t>(adapter_->n_params()) * dtype_size(backend_->formats().param));
}

}  // namespace lorica
