#include "adapter/adapter.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "adapter/principal.h"
#include "adapter/targets.h"
#include "common/error.h"
#include "common/random.h"

namespace lorica {

Adapter::Adapter(std::shared_ptr<const Model> model, AdapterConfig config)
    : model_(std::move(model)), config_(std::move(config)) {
    for (int32_t l = 0; l <= model_->shape().n_layer; ++l)
        by_layer_.emplace_back(model_->architecture().n_linears(l), -1);
}

Adapter::~Adapter() {
    for (void * memory : {params_, squares_, factors_, slopes_, products_, effect_, ones_, counting_, zeros_}) {
        if (memory) model_->device().release(memory);
    }
}

// ---- pairs and tensors

void Adapter::add_pair(int32_t layer, int16_t linear, int64_t rank, double alpha) {
    const Architecture & architecture = model_->architecture();
    const LinearSpec spec = architecture.linear(layer, linear);
    if (config_.use_dora && layer == architecture.shape.n_layer) {
        fail(LORICA_ERROR_UNSUPPORTED, "DoRA on the output head (", spec.names.hf,
             ") cannot be computed, since its logits are never kept; leave it out of the target modules, or take "
             "LoRA without DoRA");
    }
    const auto group = static_cast<int32_t>(pairs_.size());
    by_layer_[static_cast<size_t>(layer)][static_cast<size_t>(linear)] = group;
    const std::string name = architecture.linear_name(layer, linear) + ".weight";
    pairs_.push_back({layer, linear, rank, spec.in, spec.out, alpha, -1, -1, -1, name});
    pairs_.back().a = add_tensor(Kind::a, ".lora_a", rank, spec.in, group);
    pairs_.back().b = add_tensor(Kind::b, ".lora_b", spec.out, rank, group);
}

int32_t Adapter::add_tensor(Kind kind, const char * suffix, int64_t rows, int64_t cols, int32_t group) {
    const LoraPair & pair = pairs_[static_cast<size_t>(group)];
    const double alpha = pair.alpha == 0 ? static_cast<double>(pair.rank) : pair.alpha;
    tensors_.push_back({pair.base_name + suffix, kind, rows, cols, group, n_params_, alpha, pair.layer, pair.linear});
    n_params_ += rows * cols;
    return n_tensors() - 1;
}

int32_t Adapter::find_tensor(int32_t layer, Kind kind, int16_t number) const {
    if (sites_.empty()) return -1;
    const auto found = sites_.find({layer, kind, number});
    return found == sites_.end() ? -1 : found->second;
}

void Adapter::name_targets() {
    std::set<std::string> listed;  // GPT-2 has two layers of one short name
    for (const Names & names : linear_names(model_->architecture())) {
        const bool has = std::any_of(tensors_.begin(), tensors_.end(), [&](const Tensor & tensor) {
            const bool is_of_method = config_.method == Method::lora
                                          ? tensor.kind == Kind::a
                                          : tensor.kind == Kind::scale_in || tensor.kind == Kind::scale_out ||
                                                tensor.kind == Kind::bias || tensor.kind == Kind::weight;
            const bool is_behind = tensor.layer == model_->shape().n_layer && tensor.kind != Kind::a;
            if (!is_of_method || tensor.layer < 0 || is_behind) return false;
            const LinearSpec spec = model_->architecture().linear(tensor.layer, tensor.number);
            return spec.names.gguf == names.gguf && spec.short_name() == names.hf;
        });
        if (has && listed.insert(names.hf).second) target_modules_ += (target_modules_.empty() ? "" : ",") + names.hf;
    }
}

void Adapter::add_magnitudes() {
    if (!config_.use_dora) return;
    first_magnitude_ = n_params_;
    for (size_t p = 0; p < pairs_.size(); ++p) {
        pairs_[p].m = add_tensor(Kind::magnitude, ".lora_magnitude_vector", pairs_[p].out, 1, static_cast<int32_t>(p));
        n_magnitudes_ += pairs_[p].out;
    }
}

void Adapter::allocate() {
    name_targets();
    Backend & device = model_->device();
    if (config_.use_dora && !device.has_dora()) {
        fail(LORICA_ERROR_UNSUPPORTED, "device \"", device.name(), "\" cannot compute DoRA yet; device \"cpu\" can");
    }
    if (config_.classifier) add_classifier();
    params_ = device.allocate(static_cast<size_t>(n_params_) * dtype_size(device.formats().param));
    if (config_.use_dora) allocate_dora();
    if (config_.method == Method::ia3) allocate_ones();
    if (config_.method == Method::prefix_tuning) allocate_prefix();
}

const LoraPair * Adapter::find(int32_t layer, int16_t linear) const {
    const std::vector<int32_t> & of_layer = by_layer_[static_cast<size_t>(layer)];
    if (static_cast<size_t>(linear) >= of_layer.size()) return nullptr;  // of a bottleneck
    const int32_t i = of_layer[static_cast<size_t>(linear)];
    return i < 0 ? nullptr : &pairs_[static_cast<size_t>(i)];
}

const Weight & Adapter::weight(const LoraPair & pair) const {
    if (pair.layer == model_->shape().n_layer) return model_->epilogue().heads[static_cast<size_t>(pair.linear)];
    return model_->layers()[static_cast<size_t>(pair.layer)].linears[static_cast<size_t>(pair.linear)];
}

int32_t Adapter::max_rank() const {
    int64_t rank = 0;
    for (const LoraPair & pair : pairs_) rank = std::max(rank, pair.rank);
    return static_cast<int32_t>(rank);
}

int32_t Adapter::head_rank() const {
    const LoraPair * pair = by_layer_.back().empty() ? nullptr : find(model_->shape().n_layer, 0);
    return pair ? static_cast<int32_t>(pair->rank) : 0;
}

double Adapter::own_scale(const LoraPair & pair) const {
    if (pair.alpha == 0) return 1;  // a loaded file without alpha; llama.cpp does the same
    const auto rank = static_cast<double>(pair.rank);
    return pair.alpha / (config_.use_rslora ? std::sqrt(rank) : rank);
}

// ---- a new adapter

std::shared_ptr<Adapter> Adapter::create(std::shared_ptr<const Model> model, const AdapterConfig & config) {
    if (config.method != Method::lora) {
        if (!config.invocation_tokens.empty()) {
            fail(LORICA_ERROR_UNSUPPORTED, "only a LoRA begins at an invocation, and this is ", name(config.method));
        }
        return create_other(std::move(model), config);
    }
    const std::vector<Target> targets =
        parse_targets(model->architecture(), config.target_modules, config.rank, config.alpha);
    if (!(config.dropout >= 0 && config.dropout < 1)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "dropout is ", config.dropout, "; it must be at least 0 and below 1");
    }
    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    adapter->check_invocation();
    if (config.init == LoraInit::pissa) adapter->double_ranks();
    for (const Target & target : targets) {
        const double factor = adapter->config_.alpha / config.alpha;
        const int64_t rank = target.rank * (adapter->config_.frozen_half ? 2 : 1);
        adapter->add_pair(target.layer, target.linear, rank, target.alpha * factor);
    }
    adapter->add_magnitudes();
    adapter->add_beside_lora();
    adapter->allocate();
    adapter->base_fingerprint_ = model->fingerprint();
    adapter->initialize();
    adapter->initialize_classifier();
    return adapter;
}

// PEFT: kaiming_uniform_(A, a=sqrt(5)) is U(-1/sqrt(in), 1/sqrt(in)); "gaussian" is N(0, (1/r)^2). B stays zero. m =
// |W_o|: the adapter changes nothing at first.
void Adapter::initialize() {
    if (config_.frozen_half) initialize_pissa();
    for (const LoraPair & pair : pairs_) {
        const LinearSpec spec = model_->architecture().linear(pair.layer, pair.linear);
        const uint64_t seed = derive_seed(config_.seed, static_cast<uint64_t>(pair.layer), spec.stream);
        std::vector<float> a(config_.frozen_half ? 0 : static_cast<size_t>(pair.rank * pair.in));
        const double bound = 1 / std::sqrt(static_cast<double>(pair.in));
        for (size_t i = 0; i < a.size(); ++i) {
            const double value = config_.init == LoraInit::gaussian
                                     ? random_normal(seed, i) / static_cast<double>(pair.rank)
                                     : (2.0 * random_uniform(seed, i) - 1.0) * bound;
            a[i] = static_cast<float>(value);
        }
        if (!config_.frozen_half) write(params_, pair.a, a.data());
        if (pair.m < 0) continue;
        std::vector<float> magnitudes = read_values(dora_rows(pair).squares, pair.out);
        for (float & value : magnitudes) value = std::sqrt(value);
        write(params_, pair.m, magnitudes.data());
    }
    for (int32_t i = first_site(); i < n_tensors(); ++i) write(params_, i, start(i).data());
}

void Adapter::double_ranks() {
    if (config_.dropout != 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "init pissa cannot have dropout: what A and B began as would not be taken away as they add it");
    }
    if (config_.pissa_iterations < 0)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the iterations of init pissa are ", config_.pissa_iterations);
    config_.frozen_half = true;
    config_.rank *= 2;
    config_.alpha *= config_.use_rslora ? std::sqrt(2.0) : 2;
}

// With W = U S V^T: A = sqrt(S_r / scale) V_r^T and B = U_r sqrt(S_r / scale), as PEFT has it.
void Adapter::initialize_pissa() {
    WorkspaceShape shape;
    shape.training = true;
    for (const LoraPair & pair : pairs_) {
        const int64_t rank = pair.rank / 2;
        if (rank > std::min(pair.in, pair.out)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "init pissa: rank ", rank, " is more than ", pair.base_name, " [",
                 pair.out, ", ", pair.in, "] has");
        }
        shape.max_tokens = std::max(shape.max_tokens, principal_width(weight(pair), rank));
        shape.max_features = std::max({shape.max_features, pair.in, pair.out});
    }
    const std::unique_ptr<Backend> backend = model_->new_backend();
    backend->reserve(shape);
    for (const LoraPair & pair : pairs_) {
        const LinearSpec spec = model_->architecture().linear(pair.layer, pair.linear);
        const uint64_t seed = derive_seed(config_.seed, static_cast<uint64_t>(pair.layer), spec.stream);
        const int64_t rank = pair.rank / 2;
        const PrincipalParts parts = principal_parts(*backend, weight(pair), rank, config_.pissa_iterations, seed);
        std::vector<float> a(static_cast<size_t>(pair.rank * pair.in)), b(static_cast<size_t>(pair.out * pair.rank));
        for (int64_t r = 0; r < rank; ++r) {
            const double size = std::sqrt(parts.values[static_cast<size_t>(r)] / own_scale(pair));
            for (int64_t i = 0; i < pair.in; ++i) {
                const auto value = static_cast<float>(size * parts.right[static_cast<size_t>(r * pair.in + i)]);
                a[static_cast<size_t>(r * pair.in + i)] = a[static_cast<size_t>((rank + r) * pair.in + i)] = value;
            }
            for (int64_t o = 0; o < pair.out; ++o) {
                const auto value = static_cast<float>(size * parts.left[static_cast<size_t>(r * pair.out + o)]);
                b[static_cast<size_t>(o * pair.rank + r)] = value;
                b[static_cast<size_t>(o * pair.rank + rank + r)] = -value;
            }
        }
        write(params_, pair.a, a.data());
        write(params_, pair.b, b.data());
    }
    model_->file().check_not_cut();
}

std::shared_ptr<Adapter> Adapter::copy() const {
    std::shared_ptr<Adapter> other(new Adapter(model_, config_));
    other->base_fingerprint_ = base_fingerprint_;
    for (const LoraPair & pair : pairs_) other->add_pair(pair.layer, pair.linear, pair.rank, pair.alpha);
    other->add_magnitudes();
    for (int32_t i = first_site(); i < n_tensors(); ++i) {
        const Tensor & t = tensor(i);
        if (is_classifier(t.kind)) continue;
        other->add_site(t.kind, t.name, t.rows, t.cols, t.layer, t.number);
    }
    other->allocate();
    other->sites_ = sites_;  // with a head that is the embedding
    for (int32_t i = 0; i < n_tensors(); ++i) other->write(other->params_, i, read(i).data());
    return other;
}

void Adapter::check_invocation() const {
    if (config_.invocation_tokens.empty()) return;
    if (!model_->architecture().has_head()) {
        fail(LORICA_ERROR_UNSUPPORTED, "an activated LoRA (aLoRA) begins in the middle of a text: architecture '",
             model_->shape().architecture, "' reads whole texts in both directions");
    }
    if (config_.classifier) {
        fail(LORICA_ERROR_UNSUPPORTED, "an activated LoRA (aLoRA) is for texts that are written, not classified");
    }
    if (config_.use_dora) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "DoRA and an activated LoRA (aLoRA) exclude each other: magnitudes are of all tokens");
    }
    const int32_t n_vocab = model_->shape().n_vocab;
    for (const int32_t id : config_.invocation_tokens) {
        if (id < 0 || id >= n_vocab) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "the invocation of the adapter has token ", id, "; the vocabulary has ",
                 n_vocab);
        }
    }
}

// ---- values

void * Adapter::parameters(int32_t i) const {
    const size_t element = dtype_size(model_->device().formats().param);
    return static_cast<std::byte *>(params_) + static_cast<size_t>(tensor(i).offset) * element;
}

std::vector<float> Adapter::read(const void * array, int32_t i) const {
    if (array == params_ && tensor(i).kind == Kind::prompt) update(model_->device());
    const size_t element = dtype_size(model_->device().formats().param);
    return read_values(static_cast<const std::byte *>(array) + static_cast<size_t>(tensor(i).offset) * element,
                       tensor(i).rows * tensor(i).cols);
}

std::vector<float> Adapter::read_rows(int32_t i, int64_t first, int64_t n) const {
    const size_t element = dtype_size(model_->device().formats().param);
    const int64_t cols = tensor(i).cols;
    return read_values(static_cast<const std::byte *>(parameters(i)) + static_cast<size_t>(first * cols) * element,
                       n * cols);
}

std::vector<float> Adapter::read_values(const void * source, int64_t count) const {
    const auto n = static_cast<size_t>(count);
    Backend & device = model_->device();
    std::vector<float> values(n);
    if (device.formats().param == Dtype::f32) {
        device.copy_to_host(values.data(), source, n * sizeof(float));
    } else {
        std::vector<double> wide(n);
        device.copy_to_host(wide.data(), source, n * sizeof(double));
        std::copy(wide.begin(), wide.end(), values.begin());
    }
    return values;
}

std::vector<double> Adapter::read_wide(const void * array, int32_t i) const {
    Backend & device = model_->device();
    if (device.formats().param == Dtype::f32) {
        const std::vector<float> values = read(array, i);
        return {values.begin(), values.end()};
    }
    std::vector<double> values(static_cast<size_t>(tensor(i).rows * tensor(i).cols));
    device.copy_to_host(values.data(), static_cast<const double *>(array) + tensor(i).offset,
                        values.size() * sizeof(double));
    return values;
}

void Adapter::add(void * array, int32_t i, std::span<const double> values) const {
    std::vector<double> sum = read_wide(array, i);
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += values[j];
    put(array, i, sum);
}

void Adapter::put(void * array, int32_t i, const std::vector<double> & values) const {
    Backend & device = model_->device();
    if (device.formats().param == Dtype::f32) {
        const std::vector<float> narrow(values.begin(), values.end());
        put(array, i, narrow.data());
    } else {
        device.copy_to_device(static_cast<double *>(array) + tensor(i).offset, values.data(),
                              values.size() * sizeof(double));
    }
}

void Adapter::write(void * array, int32_t i, const float * values) {
    if (array == params_) params_changed();
    put(array, i, values);
}

void Adapter::put(void * array, int32_t i, const float * values) const {
    const auto n = static_cast<size_t>(tensor(i).rows * tensor(i).cols);
    Backend & device = model_->device();
    const size_t element = dtype_size(device.formats().param);
    std::byte * target = static_cast<std::byte *>(array) + static_cast<size_t>(tensor(i).offset) * element;
    if (element == sizeof(float)) {
        device.copy_to_device(target, values, n * sizeof(float));
    } else {
        const std::vector<double> wide(values, values + n);
        device.copy_to_device(target, wide.data(), n * sizeof(double));
    }
}

void Adapter::set_scale_factor(double factor) {
    if (factor != 1 && n_virtual_tokens() > 0)
        fail(LORICA_ERROR_UNSUPPORTED, "a prompt or prefix has no strength: it is there or not, so its scale is 1");
    scale_factor_ = factor;
    params_changed();
}

void Adapter::params_changed() {
    const std::lock_guard lock(stale_mutex_);
    is_stale_ = true;
    ++version_;
}

void Adapter::update(Backend & backend) const {
    if (!has_sites() && !config_.use_dora) return;
    const std::lock_guard lock(stale_mutex_);
    if (!is_stale_) return;
    if (config_.use_dora) update_dora(backend);
    if (has_encoder()) update_prompt();
    if (has_sites()) update_effect();
    is_stale_ = false;
}

}  // namespace lorica
