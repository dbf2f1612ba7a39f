#include "adapter/adapter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "adapter/lora_file.h"
#include "common/error.h"
#include "common/random.h"

namespace lorica {

namespace {

std::string base_name(int32_t layer, Module module) {
    return "blk." + std::to_string(layer) + "." + std::string(module_names[index(module)].gguf) + ".weight";
}

std::vector<std::string> split_commas(const std::string & text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        const size_t first = part.find_first_not_of(" \t"), last = part.find_last_not_of(" \t");
        if (first != std::string::npos) parts.push_back(part.substr(first, last - first + 1));
    }
    return parts;
}

// "blk.3.attn_q", with or without ".weight".
bool parse_tensor_name(std::string name, int32_t & layer, Module & module) {
    if (name.ends_with(".weight")) name.resize(name.size() - 7);
    if (!name.starts_with("blk.")) return false;
    const size_t dot = name.find('.', 4);
    if (dot == std::string::npos || dot == 4 || dot > 8) return false;
    layer = 0;
    for (size_t i = 4; i < dot; ++i) {
        if (name[i] < '0' || name[i] > '9') return false;
        layer = layer * 10 + (name[i] - '0');
    }
    const auto found = find_module(std::string_view(name).substr(dot + 1));
    if (!found) return false;
    module = *found;
    return true;
}

struct Target {
    std::string name;
    int32_t rank = 0;
    double alpha = 0;
};

// NAME, NAME:RANK or NAME:RANK:ALPHA.
Target parse_target(const std::string & text, int32_t rank, double alpha) {
    Target target{text.substr(0, text.find(':')), rank, alpha};
    if (target.name.size() == text.size()) return target;
    const char * p = text.data() + target.name.size() + 1;
    const char * const end = text.data() + text.size();
    auto result = std::from_chars(p, end, target.rank);
    if (result.ec == std::errc{} && result.ptr != end && *result.ptr == ':')
        result = std::from_chars(result.ptr + 1, end, target.alpha);
    if (result.ec != std::errc{} || result.ptr != end) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "target module '", text,
             "' is not of the form NAME, NAME:RANK or NAME:RANK:ALPHA");
    }
    return target;
}

void check_size(int32_t rank, double alpha, int32_t largest_rank) {
    if (rank < 1 || rank > largest_rank) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "rank is ", rank, "; it must lie between 1 and ", largest_rank,
             " for this model");
    }
    if (!std::isfinite(alpha) || alpha <= 0)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "alpha is ", alpha, "; it must be positive");
}

int64_t max_out(const std::vector<LoraPair> & pairs) {
    int64_t out = 0;
    for (const LoraPair & pair : pairs) out = std::max(out, pair.out);
    return out;
}

[[noreturn]] void unknown_module(const std::string & name, int32_t n_layer) {
    fail(LORICA_ERROR_INVALID_ARGUMENT, "target module '", name,
         "' does not exist; there are q_proj, k_proj, v_proj, o_proj, gate_proj, ",
         "up_proj, down_proj, tensor names from blk.0.attn_q to blk.", n_layer - 1, ".ffn_down, and all-linear");
}

}  // namespace

Adapter::Adapter(std::shared_ptr<const Model> model, AdapterConfig config)
    : model_(std::move(model)), config_(std::move(config)) {
    std::array<int32_t, n_modules> none;
    none.fill(-1);
    by_layer_.assign(model_->layers().size(), none);
}

Adapter::~Adapter() {
    for (void * memory : {params_, squares_, factors_, slopes_, products_}) {
        if (memory) model_->device().release(memory);
    }
}

void Adapter::add_pair(int32_t layer, Module module, int64_t rank, double alpha) {
    const Weight & weight = model_->layers()[static_cast<size_t>(layer)][module];
    by_layer_[static_cast<size_t>(layer)][index(module)] = static_cast<int32_t>(pairs_.size());
    const int64_t a = n_params_, b = a + rank * weight.in;
    pairs_.push_back({layer, module, rank, weight.in, weight.out, alpha, a, b, -1, base_name(layer, module)});
    n_params_ = b + rank * weight.out;
}

void Adapter::allocate() {
    std::set<Module> modules;
    for (const LoraPair & pair : pairs_) modules.insert(pair.module);
    for (const Module module : modules) {
        target_modules_ += (target_modules_.empty() ? "" : ",") + std::string(module_names[index(module)].hugging_face);
    }
    Backend & device = model_->device();
    const size_t element = dtype_size(device.formats().param);
    if (config_.use_dora && !device.has_dora()) {
        fail(LORICA_ERROR_UNSUPPORTED, "device \"", device.name(), "\" cannot compute DoRA yet; device \"cpu\" can");
    }
    const int64_t n_pair_params = n_params_;
    for (LoraPair & pair : pairs_) {
        if (!config_.use_dora) break;
        pair.m_offset = n_params_;
        n_params_ += pair.out;
    }
    params_ = device.allocate(static_cast<size_t>(n_params_) * element);
    if (!config_.use_dora) return;

    const auto n_rows = static_cast<size_t>(n_params_ - n_pair_params);
    squares_ = device.allocate(n_rows * element);
    factors_ = device.allocate(n_rows * element);
    slopes_ = device.allocate(n_rows * element);
    products_ =
        device.allocate(static_cast<size_t>(max_rank() * max_out(pairs_)) * dtype_size(device.formats().hidden));
    for (const LoraPair & pair : pairs_) {
        auto * squares =
            static_cast<std::byte *>(squares_) + static_cast<size_t>(pair.m_offset - n_pair_params) * element;
        device.row_squares(model_->layers()[static_cast<size_t>(pair.layer)][pair.module], squares);
    }
}

// ---- DoRA

void Adapter::set_scale_factor(double factor) {
    scale_factor_ = factor;
    params_changed();
}

void Adapter::params_changed() {
    const std::lock_guard lock(dora_mutex_);
    dora_is_stale_ = true;
}

DoraRows Adapter::dora_rows(const LoraPair & pair) const {
    const size_t element = dtype_size(model_->device().formats().param);
    const auto at = [&](void * array, int64_t offset) {
        return static_cast<std::byte *>(array) + static_cast<size_t>(offset) * element;
    };
    const int64_t row = pair.m_offset - pairs_.front().m_offset;
    const Matrix products{products_, model_->device().formats().hidden, pair.rank, pair.out, pair.out};
    return {products,      at(squares_, row), at(params_, pair.m_offset),
            scale_factor_, at(factors_, row), at(slopes_, row)};
}

void Adapter::update_dora(Backend & backend) const {
    if (!config_.use_dora) return;
    const std::lock_guard lock(dora_mutex_);
    if (!dora_is_stale_) return;
    const size_t element = dtype_size(backend.formats().param);
    const auto at = [&](int64_t offset) {
        return static_cast<std::byte *>(params_) + static_cast<size_t>(offset) * element;
    };
    for (const LoraPair & pair : pairs_) {
        const DoraRows rows = dora_rows(pair);
        const Weight & weight = model_->layers()[static_cast<size_t>(pair.layer)][pair.module];
        // A has the format of hidden values: its rows go through the layer as tokens do.
        const Matrix a{at(pair.a_offset), backend.formats().param, pair.rank, pair.in, pair.in};
        const LinearForward product{&weight, {}, {}, {}, rows.products};
        backend.linear(a, {&product, 1});
        Lora lora;
        lora.a = a.data;
        lora.b = at(pair.b_offset);
        lora.rank = pair.rank;
        lora.scale = scale(pair);
        backend.dora_factors(lora, pair.in, pair.out, rows);
    }
    dora_is_stale_ = false;
}

int64_t Adapter::dora_bytes() const {
    if (!config_.use_dora) return 0;
    const Formats formats = model_->device().formats();
    const int64_t n_rows = n_params_ - pairs_.front().m_offset;
    return 3 * n_rows * static_cast<int64_t>(dtype_size(formats.param)) +
           max_rank() * max_out(pairs_) * static_cast<int64_t>(dtype_size(formats.hidden));
}

std::shared_ptr<Adapter> Adapter::create(std::shared_ptr<const Model> model, const AdapterConfig & config) {
    const LlamaConfig & llama = model->config();
    const int32_t largest = std::min(llama.n_embd, llama.n_ff);
    check_size(config.rank, config.alpha, largest);
    if (!(config.dropout >= 0 && config.dropout < 1)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "dropout is ", config.dropout, "; it must be at least 0 and below 1");
    }

    std::map<std::pair<int32_t, Module>, Target> targets;
    const std::vector<std::string> names = split_commas(config.target_modules);
    if (names.empty())
        fail(LORICA_ERROR_INVALID_ARGUMENT, "target_modules is empty; \"all-linear\" means every linear layer");
    for (const std::string & text : names) {
        const Target target = parse_target(text, config.rank, config.alpha);
        check_size(target.rank, target.alpha, largest);
        const std::string & name = target.name;
        auto in_all_layers = [&](Module module) {
            for (int32_t l = 0; l < llama.n_layer; ++l) targets[{l, module}] = target;
        };
        int32_t layer;
        Module one;
        if (name == "all-linear") {
            for (const ModuleNames & module : module_names) in_all_layers(module.module);
        } else if (const auto module = find_module(name)) {
            in_all_layers(*module);
        } else if (parse_tensor_name(name, layer, one) && layer < llama.n_layer) {
            targets[{layer, one}] = target;
        } else {
            unknown_module(name, llama.n_layer);
        }
    }

    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    for (const auto & [place, target] : targets)
        adapter->add_pair(place.first, place.second, target.rank, target.alpha);
    adapter->allocate();
    adapter->base_fingerprint_ = model->fingerprint();

    // PEFT: kaiming_uniform_(A, a=sqrt(5)) is U(-1/sqrt(in), 1/sqrt(in)); "gaussian" is N(0, (1/r)^2). B stays zero.
    for (size_t p = 0; p < adapter->pairs_.size(); ++p) {
        const LoraPair & pair = adapter->pairs_[p];
        const uint64_t seed = derive_seed(config.seed, static_cast<uint64_t>(pair.layer), index(pair.module));
        std::vector<float> a(static_cast<size_t>(pair.rank * pair.in));
        const double bound = 1 / std::sqrt(static_cast<double>(pair.in));
        for (size_t i = 0; i < a.size(); ++i) {
            const double value = config.init == LoraInit::gaussian
                                     ? random_normal(seed, i) / static_cast<double>(pair.rank)
                                     : (2.0 * random_uniform(seed, i) - 1.0) * bound;
            a[i] = static_cast<float>(value);
        }
        adapter->write(adapter->params_, static_cast<int32_t>(2 * p), a.data());
    }
    // m = |W_o|: the adapter changes nothing at first.
    for (size_t p = 0; config.use_dora && p < adapter->pairs_.size(); ++p) {
        const auto i = static_cast<int32_t>(2 * adapter->pairs_.size() + p);
        const LoraPair & pair = adapter->pairs_[p];
        std::vector<float> magnitudes = adapter->read_values(adapter->dora_rows(pair).squares, pair.out);
        for (float & value : magnitudes) value = std::sqrt(value);
        adapter->write(adapter->params_, i, magnitudes.data());
    }
    return adapter;
}

std::shared_ptr<Adapter> Adapter::load(std::shared_ptr<const Model> model, const std::string & path) {
    const LoraFile file = read_lora_file(path);
    const LlamaConfig & llama = model->config();
    if (file.architecture != llama.architecture) {
        fail(LORICA_ERROR_MISMATCH, path, " was made for architecture '", file.architecture, "', the model is '",
             llama.architecture, "'");
    }
    if (!file.base_fingerprint.empty() && file.base_fingerprint != model->fingerprint()) {
        fail(LORICA_ERROR_MISMATCH, path, " was trained on another base model (fingerprint ", file.base_fingerprint,
             ", this model's is ", model->fingerprint(), "); load it with the model that it was trained on");
    }
    AdapterConfig config;
    config.alpha = file.alpha;
    config.use_dora = file.use_dora;
    config.dropout = file.dropout;
    config.target_modules.clear();
    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    adapter->base_fingerprint_ = file.base_fingerprint;
    if (file.pairs.empty()) fail(LORICA_ERROR_FORMAT, path, " holds no LoRA tensors");

    std::vector<const LoraFilePair *> sources;
    for (const LoraFilePair & pair : file.pairs) {
        int32_t layer;
        Module module;
        if (!parse_tensor_name(pair.base_name, layer, module) || layer >= llama.n_layer) {
            fail(LORICA_ERROR_MISMATCH, path, ": ", pair.base_name, " is no adaptable tensor of this model, which has ",
                 llama.n_layer, " layers with attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up and ffn_down");
        }
        const Weight & weight = model->layers()[static_cast<size_t>(layer)][module];
        if (pair.n_in != weight.in || pair.n_out != weight.out) {
            fail(LORICA_ERROR_MISMATCH, path, ": ", pair.base_name, " is [", pair.n_out, ", ", pair.n_in,
                 "] in the adapter and [", weight.out, ", ", weight.in, "] in the model");
        }
        sources.push_back(&pair);
        adapter->add_pair(layer, module, pair.rank, file.alpha);
    }
    adapter->config_.rank = static_cast<int32_t>(adapter->pairs_.front().rank);
    adapter->allocate();
    adapter->config_.target_modules = adapter->target_modules_;
    for (size_t p = 0; p < sources.size(); ++p) {
        adapter->write(adapter->params_, static_cast<int32_t>(2 * p), sources[p]->a.data());
        adapter->write(adapter->params_, static_cast<int32_t>(2 * p + 1), sources[p]->b.data());
        if (file.use_dora)
            adapter->write(adapter->params_, static_cast<int32_t>(2 * sources.size() + p),
                           sources[p]->magnitudes.data());
    }
    return adapter;
}

std::shared_ptr<Adapter> Adapter::copy() const {
    std::shared_ptr<Adapter> other(new Adapter(model_, config_));
    other->base_fingerprint_ = base_fingerprint_;
    for (const LoraPair & pair : pairs_) other->add_pair(pair.layer, pair.module, pair.rank, pair.alpha);
    other->allocate();
    for (int32_t i = 0; i < n_tensors(); ++i) other->write(other->params_, i, read(params_, i).data());
    return other;
}

std::shared_ptr<Adapter> Adapter::stack(std::shared_ptr<const Model> model, std::span<const Part> parts) {
    if (parts.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no adapters to stack");
    for (const Part & part : parts) {
        if (part.adapter->model() != model)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
        if (!std::isfinite(part.factor)) fail(LORICA_ERROR_INVALID_ARGUMENT, "the factor of an adapter must be finite");
    }
    const bool any_dora =
        std::any_of(parts.begin(), parts.end(), [](const Part & part) { return part.adapter->config().use_dora; });
    if (any_dora && parts.size() > 1) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "a DoRA adapter cannot be added to others; apply it alone, or merge it into the model first");
    }
    if (any_dora) {
        std::shared_ptr<Adapter> scaled = parts[0].adapter->copy();
        scaled->set_scale_factor(parts[0].adapter->scale_factor() * parts[0].factor);
        return scaled;
    }
    AdapterConfig config;
    config.alpha = 0;  // no scale but what is in B
    std::shared_ptr<Adapter> sum(new Adapter(model, config));
    sum->base_fingerprint_ = model->fingerprint();
    for (int32_t layer = 0; layer < model->config().n_layer; ++layer) {
        for (size_t m = 0; m < n_modules; ++m) {
            const auto module = static_cast<Module>(m);
            int64_t rank = 0;
            for (const Part & part : parts) {
                if (const LoraPair * pair = part.adapter->find(layer, module)) rank += pair->rank;
            }
            if (rank > 0) sum->add_pair(layer, module, rank, 0);
        }
    }
    sum->config_.rank = static_cast<int32_t>(sum->pairs_.front().rank);
    sum->allocate();
    sum->config_.target_modules = sum->target_modules_;

    std::vector<float> a, b;
    for (size_t p = 0; p < sum->pairs_.size(); ++p) {
        const LoraPair & to = sum->pairs_[p];
        a.clear();
        b.resize(static_cast<size_t>(to.out * to.rank));
        int64_t column = 0;
        for (const Part & part : parts) {
            const LoraPair * from = part.adapter->find(to.layer, to.module);
            if (!from) continue;
            const auto index = static_cast<int32_t>(from - part.adapter->pairs_.data());
            const std::vector<float> part_a = part.adapter->read(part.adapter->params_, 2 * index);
            const std::vector<float> part_b = part.adapter->read(part.adapter->params_, 2 * index + 1);
            a.insert(a.end(), part_a.begin(), part_a.end());
            const double scale = part.adapter->scale(*from) * part.factor;
            for (int64_t row = 0; row < to.out; ++row) {
                for (int64_t j = 0; j < from->rank; ++j) {
                    b[static_cast<size_t>(row * to.rank + column + j)] =
                        static_cast<float>(scale * part_b[static_cast<size_t>(row * from->rank + j)]);
                }
            }
            column += from->rank;
        }
        sum->write(sum->params_, static_cast<int32_t>(2 * p), a.data());
        sum->write(sum->params_, static_cast<int32_t>(2 * p + 1), b.data());
    }
    return sum;
}

void Adapter::save(const std::string & path) const {
    LoraFile file;
    file.architecture = model_->config().architecture;
    // llama.cpp computes alpha / rank; with rsLoRA the same effect needs alpha * sqrt(rank).
    file.alpha = static_cast<float>(config_.use_rslora ? config_.alpha * std::sqrt(static_cast<double>(config_.rank))
                                                       : config_.alpha);
    file.base_fingerprint = model_->fingerprint();
    file.rank = config_.rank;
    file.dropout = config_.dropout;
    file.use_rslora = config_.use_rslora;
    file.use_dora = config_.use_dora;
    for (size_t p = 0; p < pairs_.size(); ++p) {
        const LoraPair & pair = pairs_[p];
        std::vector<float> b = read(params_, static_cast<int32_t>(2 * p + 1));
        // What a reader makes of the pair without this factor; 1 unless the pair has an alpha, or with rsLoRA a rank,
        // of its own.
        const double stored = file.alpha == 0 ? 1 : double{file.alpha} / static_cast<double>(pair.rank);
        const bool as_the_others = pair.alpha == config_.alpha && (!config_.use_rslora || pair.rank == config_.rank);
        if (!as_the_others) {
            const double factor = own_scale(pair) / stored;
            for (float & value : b) value = static_cast<float>(value * factor);
        }
        std::vector<float> magnitudes;
        if (file.use_dora) magnitudes = read(params_, static_cast<int32_t>(2 * pairs_.size() + p));
        file.pairs.push_back({pair.base_name, pair.rank, pair.in, pair.out, read(params_, static_cast<int32_t>(2 * p)),
                              std::move(b), std::move(magnitudes)});
    }
    write_lora_file(path, file);
}

const LoraPair * Adapter::find(int32_t layer, Module module) const {
    const int32_t i = by_layer_[static_cast<size_t>(layer)][index(module)];
    return i < 0 ? nullptr : &pairs_[static_cast<size_t>(i)];
}

int32_t Adapter::max_rank() const {
    int64_t rank = 0;
    for (const LoraPair & pair : pairs_) rank = std::max(rank, pair.rank);
    return static_cast<int32_t>(rank);
}

double Adapter::own_scale(const LoraPair & pair) const {
    if (pair.alpha == 0) return 1;  // a loaded file without alpha; llama.cpp does the same
    const auto rank = static_cast<double>(pair.rank);
    return pair.alpha / (config_.use_rslora ? std::sqrt(rank) : rank);
}

Adapter::TensorRef Adapter::tensor(int32_t i) const {
    const auto n_pairs = static_cast<int32_t>(pairs_.size());
    const LoraPair & pair = pairs_[static_cast<size_t>(i < 2 * n_pairs ? i / 2 : i - 2 * n_pairs)];
    const double alpha = pair.alpha == 0 ? static_cast<double>(pair.rank) : pair.alpha;
    if (i >= 2 * n_pairs)
        return {pair.m_offset, pair.out, 1, pair.base_name + ".lora_magnitude_vector", alpha, Kind::magnitude};
    if (i % 2 == 0) return {pair.a_offset, pair.rank, pair.in, pair.base_name + ".lora_a", alpha, Kind::a};
    return {pair.b_offset, pair.out, pair.rank, pair.base_name + ".lora_b", alpha, Kind::b};
}

std::vector<float> Adapter::read(const void * array, int32_t i) const {
    const TensorRef ref = tensor(i);
    const size_t element = dtype_size(model_->device().formats().param);
    return read_values(static_cast<const std::byte *>(array) + static_cast<size_t>(ref.offset) * element,
                       ref.rows * ref.cols);
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

void Adapter::write(void * array, int32_t i, const float * values) {
    if (array == params_) params_changed();
    const TensorRef ref = tensor(i);
    const auto n = static_cast<size_t>(ref.rows * ref.cols);
    Backend & device = model_->device();
    const size_t element = dtype_size(device.formats().param);
    std::byte * target = static_cast<std::byte *>(array) + static_cast<size_t>(ref.offset) * element;
    if (element == sizeof(float)) {
        device.copy_to_device(target, values, n * sizeof(float));
    } else {
        const std::vector<double> wide(values, values + n);
        device.copy_to_device(target, wide.data(), n * sizeof(double));
    }
}

}  // namespace lorica
