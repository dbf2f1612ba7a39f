// Adapters from and to GGUF files.
#include <algorithm>
#include <cmath>
#include <set>

#include "adapter/adapter.h"
#include "adapter/lora_file.h"
#include "adapter/targets.h"
#include "adapter/tensor_file.h"
#include "common/error.h"
#include "common/quote.h"

namespace lorica {

void Adapter::check_base(const Model & model, const std::string & path, const std::string & architecture,
                         const std::vector<std::string> & added_tokens, const std::string & fingerprint) {
    if (architecture != model.shape().architecture) {
        fail(LORICA_ERROR_MISMATCH, path, " was made for architecture '", architecture, "', the model is '",
             model.shape().architecture, "'");
    }
    if (!fingerprint.empty() && fingerprint != model.fingerprint()) {
        fail(LORICA_ERROR_MISMATCH, path, " was trained on another base model (fingerprint ", fingerprint,
             ", this model's is ", model.fingerprint(), "); load it with the model that it was trained on");
    }
    if (!added_tokens.empty() && added_tokens != model.added_tokens()) {
        fail(LORICA_ERROR_MISMATCH, path, " has added ", added_tokens.size(), " tokens to the vocabulary, from ",
             quoted(added_tokens.front()), " on, ",
             model.added_tokens().empty() ? "which the model was loaded without; load it with them (added_tokens)"
                                          : "and the model was loaded with others; one model has those of one adapter");
    }
}

std::shared_ptr<Adapter> Adapter::load(std::shared_ptr<const Model> model, const std::string & path) {
    return is_tensor_file(path) ? load_tensors(std::move(model), path) : load_lora(std::move(model), path);
}

std::shared_ptr<Adapter> Adapter::load_lora(std::shared_ptr<const Model> model, const std::string & path) {
    const LoraFile file = read_lora_file(path);
    const Architecture & architecture = model->architecture();
    check_base(*model, path, file.architecture, file.added_tokens, file.base_fingerprint);
    // The alpha that llama.cpp reads makes the scale alpha / rank; with rsLoRA, what was asked for is beside it.
    const bool knows_rslora = file.use_rslora && file.rank > 0 && file.true_alpha > 0;
    AdapterConfig config;
    config.alpha = knows_rslora ? file.true_alpha : file.alpha;
    config.use_rslora = knows_rslora;
    config.use_dora = file.use_dora;
    config.frozen_half = file.frozen_half;
    config.dropout = file.dropout;
    config.target_modules.clear();
    config.classifier = file.classifier;
    config.invocation_tokens = file.invocation_tokens;
    std::shared_ptr<Adapter> adapter(new Adapter(model, config));
    adapter->check_invocation();
    adapter->base_fingerprint_ = file.base_fingerprint;
    if (file.pairs.empty()) fail(LORICA_ERROR_FORMAT, path, " holds no LoRA tensors");

    for (const LoraFilePair & pair : file.pairs) {
        const auto place = find_linear(architecture, pair.base_name);
        if (!place) {
            std::string known;
            for (const Names & names : linear_names(architecture)) known += (known.empty() ? "" : ", ") + names.gguf;
            const size_t last = known.rfind(", ");
            if (last != std::string::npos) known.replace(last, 2, " and ");
            fail(LORICA_ERROR_MISMATCH, path, ": ", pair.base_name, " is no adaptable tensor of this model, which has ",
                 architecture.shape.n_layer, " layers with ", known);
        }
        const LinearSpec spec = architecture.linear(place->layer, place->linear);
        if (pair.n_in != spec.in || pair.n_out != spec.out) {
            fail(LORICA_ERROR_MISMATCH, path, ": ", pair.base_name, " is [", pair.n_out, ", ", pair.n_in,
                 "] in the adapter and [", spec.out, ", ", spec.in, "] in the model");
        }
        // B of a pair with a rank of its own is stored for a scale of file.alpha / rank.
        const auto rank = static_cast<double>(pair.rank);
        const double alpha = !knows_rslora            ? file.alpha
                             : pair.rank == file.rank ? config.alpha
                                                      : file.alpha / std::sqrt(rank);
        adapter->add_pair(place->layer, place->linear, pair.rank, alpha);
    }
    adapter->config_.rank = knows_rslora ? file.rank : static_cast<int32_t>(adapter->pairs_.front().rank);
    adapter->add_magnitudes();
    std::set<std::string> others;
    for (const TensorFile::Tensor & tensor : file.others) others.insert(tensor.name);
    adapter->add_whole(others);
    adapter->allocate();
    adapter->config_.target_modules = adapter->target_modules_;
    for (size_t p = 0; p < file.pairs.size(); ++p) {
        const LoraPair & pair = adapter->pairs_[p];
        adapter->write(adapter->params_, pair.a, file.pairs[p].a.data());
        adapter->write(adapter->params_, pair.b, file.pairs[p].b.data());
        if (file.use_dora) adapter->write(adapter->params_, pair.m, file.pairs[p].magnitudes.data());
    }
    std::vector<TensorFile::Tensor> stored = file.others;
    stored.insert(stored.end(), file.classifier_tensors.begin(), file.classifier_tensors.end());
    adapter->write_sites(stored, path);
    return adapter;
}

void Adapter::save(const std::string & path) const {
    if (config_.method != Method::lora) return save_tensors(path);
    LoraFile file;
    file.architecture = model_->shape().architecture;
    // llama.cpp computes alpha / rank; with rsLoRA the same effect needs alpha * sqrt(rank).
    file.alpha = static_cast<float>(config_.use_rslora ? config_.alpha * std::sqrt(static_cast<double>(config_.rank))
                                                       : config_.alpha);
    file.true_alpha = config_.use_rslora ? config_.alpha : 0;
    file.base_fingerprint = model_->fingerprint();
    file.added_tokens = model_->added_tokens();
    file.rank = config_.rank;
    file.dropout = config_.dropout;
    file.use_rslora = config_.use_rslora;
    file.use_dora = config_.use_dora;
    file.frozen_half = config_.frozen_half;
    file.invocation_tokens = config_.invocation_tokens;
    for (const LoraPair & pair : pairs_) {
        std::vector<float> b = read(pair.b);
        // What a reader makes of the pair without this factor; 1 unless the pair has an alpha, or with rsLoRA a rank,
        // of its own.
        const double stored = file.alpha == 0 ? 1 : double{file.alpha} / static_cast<double>(pair.rank);
        const bool as_the_others = pair.alpha == config_.alpha && (!config_.use_rslora || pair.rank == config_.rank);
        if (!as_the_others) {
            const double factor = own_scale(pair) / stored;
            for (float & value : b) value = static_cast<float>(value * factor);
        }
        std::vector<float> magnitudes;
        if (file.use_dora) magnitudes = read(pair.m);
        file.pairs.push_back(
            {pair.base_name, pair.rank, pair.in, pair.out, read(pair.a), std::move(b), std::move(magnitudes)});
    }
    file.classifier = config_.classifier;
    for (int32_t i = first_site(); i < n_tensors(); ++i) {
        std::vector<TensorFile::Tensor> & to = is_classifier(tensor(i).kind) ? file.classifier_tensors : file.others;
        to.push_back({tensor(i).name, tensor(i).rows, tensor(i).cols, read(i)});
    }
    write_lora_file(path, file);
}

}  // namespace lorica
