// The optimizer: a step of AdamW over all parameters, and its state.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "train/all_finite.h"
#include "train/session.h"

namespace lorica {

namespace {

bool is_half(const Adapter & adapter, const Adapter::Tensor & tensor) {
    const bool is_of_pair = tensor.kind == Adapter::Kind::a || tensor.kind == Adapter::Kind::b;
    return adapter.config().frozen_half && is_of_pair;
}

// Elements of a tensor that are trained, and have moments: all, or the first half of the rows of A and of the columns
// of B (see AdapterConfig::frozen_half).
int64_t n_moved(const Adapter & adapter, int32_t i) {
    const Adapter::Tensor & tensor = adapter.tensor(i);
    return tensor.rows * tensor.cols / (is_half(adapter, tensor) ? 2 : 1);
}

int64_t n_moved_before(const Adapter & adapter, int32_t tensor) {
    int64_t n = 0;
    for (int32_t i = 0; i < tensor; ++i) n += n_moved(adapter, i);
    return n;
}

// Blocks do not reach across tensors, whose values may differ in size by magnitudes.
int64_t n_blocks_before(const Adapter & adapter, int32_t tensor) {
    int64_t n = 0;
    for (int32_t i = 0; i < tensor; ++i) n += Moments8bit::n_blocks(n_moved(adapter, i));
    return n;
}

// Trained columns of the largest B.
int64_t most_columns(const Adapter & adapter) {
    int64_t n = 0;
    for (const LoraPair & pair : adapter.pairs()) n = std::max(n, pair.rank / 2 * pair.out);
    return n;
}

int64_t longest_half(const Adapter & adapter) {
    int64_t rows = 0;
    for (const LoraPair & pair : adapter.pairs()) rows = std::max({rows, pair.rank / 2, pair.out});
    return rows;
}

}  // namespace

void Session::allocate_trained() {
    const auto params = static_cast<size_t>(adapter_->n_params()) * dtype_size(backend_->formats().param);
    gradients_ = backend_->allocate(params);
    if (!config_.gradients_only) allocate_optimizer();
}

void Session::allocate_optimizer() {
    const bool is_8bit = config_.optimizer == Optimizer::adamw_8bit;
    const auto moved = static_cast<size_t>(n_moved_before(*adapter_, adapter_->n_tensors()));
    const size_t moments = moved * (is_8bit ? 1 : dtype_size(backend_->formats().param));
    moment1_ = backend_->allocate(moments);
    moment2_ = backend_->allocate(moments);
    if (is_8bit) {
        const size_t scales = static_cast<size_t>(n_blocks_before(*adapter_, adapter_->n_tensors())) * sizeof(float);
        scales1_ = backend_->allocate(scales);
        scales2_ = backend_->allocate(scales);
    }
    groups_.resize(static_cast<size_t>(adapter_->n_tensors()));
    if (!adapter_->config().frozen_half) return;
    const auto rows = static_cast<size_t>(longest_half(*adapter_));
    columns_ =
        backend_->allocate(2 * static_cast<size_t>(most_columns(*adapter_)) * dtype_size(backend_->formats().param));
    counting_ = static_cast<int32_t *>(backend_->allocate(rows * sizeof(int32_t)));
    zeros_ = static_cast<float *>(backend_->allocate(rows * sizeof(float)));
    std::vector<int32_t> counting(rows);
    std::iota(counting.begin(), counting.end(), 0);
    backend_->copy_to_device(counting_, counting.data(), rows * sizeof(int32_t));
}

int64_t Session::frozen_bytes(const Adapter & adapter) {
    if (!adapter.config().frozen_half) return 0;
    return 2 * most_columns(adapter) * static_cast<int64_t>(dtype_size(adapter.model()->device().formats().param)) +
           longest_half(adapter) * static_cast<int64_t>(sizeof(int32_t) + sizeof(float));
}

// Rows of A0 and columns of B0.
void Session::clear_frozen_gradients() {
    if (!adapter_->config().frozen_half) return;
    const Dtype type = backend_->formats().param;
    const auto clear = [&](const Matrix & of) { backend_->scale_rows(of, zeros_, of); };
    for (const LoraPair & pair : adapter_->pairs()) {
        const auto at = [&](int32_t tensor) {
            return static_cast<std::byte *>(gradients_) +
                   static_cast<size_t>(adapter_->tensor(tensor).offset) * dtype_size(type);
        };
        const int64_t rank = pair.rank / 2;
        clear(Matrix{at(pair.a), type, pair.rank, pair.in, pair.in}.slice_rows(rank, rank));
        clear({at(pair.b) + static_cast<size_t>(rank) * dtype_size(type), type, pair.out, rank, pair.rank});
    }
}

int64_t Session::optimizer_bytes(const Adapter & adapter, Optimizer optimizer) {
    const int64_t n = n_moved_before(adapter, adapter.n_tensors());
    if (optimizer == Optimizer::adamw)
        return 2 * n * static_cast<int64_t>(dtype_size(adapter.model()->device().formats().param));
    return 2 * (n + n_blocks_before(adapter, adapter.n_tensors()) * static_cast<int64_t>(sizeof(float)));
}

std::vector<std::pair<void *, size_t>> Session::state_arrays() const {
    const size_t element = dtype_size(backend_->formats().param);
    const size_t bytes = static_cast<size_t>(adapter_->n_params()) * element;
    const auto n = static_cast<size_t>(n_moved_before(*adapter_, adapter_->n_tensors()));
    if (config_.optimizer == Optimizer::adamw)
        return {{adapter_->params(), bytes}, {moment1_, n * element}, {moment2_, n * element}};
    const size_t scales = static_cast<size_t>(n_blocks_before(*adapter_, adapter_->n_tensors())) * sizeof(float);
    return {{adapter_->params(), bytes}, {moment1_, n}, {moment2_, n}, {scales1_, scales}, {scales2_, scales}};
}

Moments8bit Session::moments_8bit(int32_t tensor) const {
    const int64_t first = n_moved_before(*adapter_, tensor), block = n_blocks_before(*adapter_, tensor);
    return {static_cast<uint8_t *>(moment1_) + first, static_cast<uint8_t *>(moment2_) + first,
            static_cast<float *>(scales1_) + block, static_cast<float *>(scales2_) + block};
}

void Session::fail_non_finite_gradient() const {
    const Dtype type = backend_->formats().param;
    for (int32_t i = 0; i < adapter_->n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter_->tensor(i);
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
    check_optimizer();
    if (!std::isfinite(step.learning_rate) || step.learning_rate < 0 || !std::isfinite(step.weight_decay) ||
        step.weight_decay < 0 || !std::isfinite(step.grad_scale) || step.grad_scale < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "learning rate, weight decay and gradient scale must be finite and not negative; got ", step.learning_rate,
             ", ", step.weight_decay, ", ", step.grad_scale);
    }
    clear_frozen_gradients();
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
    has_forward_ = false;
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
    const bool is_halved = adapter_->config().frozen_half;
    if (one_group && !is_halved && config_.optimizer == Optimizer::adamw) {
        in_group(groups_.front());
        backend_->adamw(adapter_->params(), gradients_, moment1_, moment2_, adapter_->n_params(), params);
        return;
    }
    const Dtype type = backend_->formats().param;
    const auto element = static_cast<int64_t>(dtype_size(type));
    for (int32_t i = 0; i < adapter_->n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter_->tensor(i);
        const int64_t n = n_moved(*adapter_, i), first = n_moved_before(*adapter_, i);
        const auto at = [&](void * array, int64_t offset) {
            return static_cast<std::byte *>(array) + offset * element;
        };
        std::byte *values = at(adapter_->params(), tensor.offset), *gradient = at(gradients_, tensor.offset);
        // Of B the trained columns by themselves.
        const bool is_columns = tensor.kind == Adapter::Kind::b && is_half(*adapter_, tensor);
        const int64_t rank = tensor.cols / 2;
        const Matrix all{values, type, tensor.rows, rank, tensor.cols};
        const Matrix part{columns_, type, tensor.rows, rank, rank};
        if (is_columns) {
            const Matrix of_gradient{gradient, type, tensor.rows, rank, tensor.cols};
            backend_->gather_rows(all, counting_, part);
            values = at(columns_, 0);
            gradient = at(columns_, n);
            backend_->gather_rows(of_gradient, counting_, {gradient, type, tensor.rows, rank, rank});
        }
        in_group(groups_[static_cast<size_t>(i)]);
        if (config_.optimizer == Optimizer::adamw_8bit) {
            backend_->adamw_8bit(values, gradient, moments_8bit(i), n, params);
        } else {
            backend_->adamw(values, gradient, at(moment1_, first), at(moment2_, first), n, params);
        }
        if (is_columns) backend_->gather_rows(part, counting_, all);
    }
}

void Session::set_group(int32_t tensor, TensorGroup group) {
    check_optimizer();
    const bool good = std::isfinite(group.learning_rate) && group.learning_rate >= 0 &&
                      std::isfinite(group.weight_decay) && group.weight_decay >= 0;
    if (!good) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the factors of a parameter group must be finite and not negative; got ",
             group.learning_rate, ", ", group.weight_decay);
    }
    groups_[static_cast<size_t>(tensor)] = group;
}

void Session::zero_gradients() {
    check_training();
    backend_->fill_zero(gradients_, static_cast<size_t>(adapter_->n_params()) * dtype_size(backend_->formats().param));
}

}  // namespace lorica
