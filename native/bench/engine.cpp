#include "engine.h"

#include "common/error.h"
#include "common/random.h"
#include "machine.h"

#include <algorithm>

namespace lorica::bench {

namespace {

template <typename T>
T one_of(const Options & options, const std::string & name, const std::vector<std::pair<std::string, T>> & choices) {
    const std::string value = options.text(name, choices.front().first);
    std::string known;
    for (const auto & [text, choice] : choices) {
        if (text == value) return choice;
        known += (known.empty() ? "" : ", ") + text;
    }
    fail(LORICA_ERROR_INVALID_ARGUMENT, "--", name, " ", value, ": it is one of ", known);
}

}  // namespace

void check(lorica_status status) {
    if (status != LORICA_OK) throw Error(status, lorica_last_error());
}

ModelChoice::ModelChoice(const Options & options) {
    shape_ = options.text("shape", "s135");
    architecture_ = options.text("architecture", "llama");
    type_ = options.text("type", "q4_0");
    cache_ = options.text("cache", default_cache_folder());
    path = options.text("model", "");
    device = options.text("device", "cpu");
    precision = one_of<lorica_precision>(
        options, "precision",
        {{"auto", LORICA_PRECISION_AUTO}, {"bf16", LORICA_PRECISION_BF16}, {"f32", LORICA_PRECISION_F32}});
    n_threads = options.number("threads", 0);
    if (n_threads == 0) n_threads = n_usable_cores();
    name = path.empty() ? shape_ : path.substr(path.rfind('/') + 1);
}

void ModelChoice::prepare() {
    if (path.empty()) path = cached_model(cache_, named_shape(shape_, architecture_), parse_type(type_));
}

ModelHandle ModelChoice::load() const {
    auto params = defaults(lorica_model_default_params);
    params.device = device.c_str();
    params.precision = precision;
    params.n_threads = n_threads;
    lorica_model * model = nullptr;
    check(lorica_model_load(path.c_str(), &params, &model));
    return ModelHandle(model);
}

std::unique_ptr<Backend> open_gpu(const ModelChoice & choice) {
    if (!choice.device.starts_with("cuda")) return nullptr;
    return make_backend(choice.device, choice.precision == LORICA_PRECISION_F32 ? Dtype::f32 : Dtype::bf16,
                        choice.n_threads);
}

lorica_model_info info_of(const lorica_model * model) {
    lorica_model_info info{sizeof(lorica_model_info)};
    check(lorica_model_get_info(model, &info));
    return info;
}

Json describe(const ModelChoice & choice, const lorica_model * model) {
    const lorica_model_info info = info_of(model);
    const Shape shape = shape_of(choice.name, choice.path);
    return Json()
        .set("name", choice.name)
        .set("type", info.file_type)
        .set("n_layer", info.n_layer)
        .set("n_embd", info.n_embd)
        .set("n_ff", info.n_ff)
        .set("n_head", info.n_head)
        .set("n_head_kv", info.n_head_kv)
        .set("n_vocab", info.n_vocab)
        .set("n_params", info.n_params)
        .set("weight_bytes", info.weight_bytes)
        .set("n_counted", shape.n())
        .set("device", info.device_detail)
        .set("threads", choice.n_threads);
}

TrainChoice::TrainChoice(const Options & options, const std::string & default_targets, int default_tokens,
                         int default_length)
    : targets(options.list("targets", default_targets)),
      rank(options.number("rank", 16)),
      tokens(options.number("tokens", default_tokens)),
      sequence_length(options.number("sequence-length", std::min(default_length, tokens))),
      recomputation(one_of<lorica_recomputation>(
          options, "recomputation",
          {{"auto", LORICA_RECOMPUTATION_AUTO}, {"on", LORICA_RECOMPUTATION_ON}, {"off", LORICA_RECOMPUTATION_OFF}})) {
    if (tokens < 1 || sequence_length < 2)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "--tokens of 1 and --sequence-length of 2 at least");
}

Training::Training(const lorica_model * model, const TrainChoice & choice) {
    std::string targets;
    for (const std::string & target : choice.targets) targets += (targets.empty() ? "" : ",") + target;
    auto adapter_params = defaults(lorica_adapter_default_params);
    adapter_params.rank = choice.rank;
    adapter_params.target_modules = targets.c_str();
    lorica_adapter * new_adapter = nullptr;
    check(lorica_adapter_create(model, &adapter_params, &new_adapter));
    adapter.reset(new_adapter);

    auto params = defaults(lorica_session_default_params);
    params.max_tokens = choice.tokens;
    params.max_sequence_length = std::min(choice.sequence_length, choice.tokens);
    params.recomputation = choice.recomputation;
    check(lorica_session_get_plan(model, adapter.get(), &params, &plan));
    lorica_session * new_session = nullptr;
    check(lorica_session_create(model, adapter.get(), &params, &new_session));
    session.reset(new_session);
}

lorica_batch_result Training::step(const lorica_batch & batch) {
    lorica_batch_result result{sizeof(lorica_batch_result)};
    check(lorica_session_forward_backward(session.get(), &batch, &result));
    auto params = defaults(lorica_optimizer_step_default_params);
    params.learning_rate = 1e-4;
    params.grad_scale = 1 / static_cast<double>(result.n_trained);
    params.max_grad_norm = 1;
    double norm = 0;
    check(lorica_session_optimizer_step(session.get(), &params, &norm));
    return result;
}

AdapterHandle random_adapter(const lorica_model * model, const std::string & targets, int rank) {
    auto params = defaults(lorica_adapter_default_params);
    params.rank = rank;
    params.target_modules = targets.c_str();
    lorica_adapter * created = nullptr;
    check(lorica_adapter_create(model, &params, &created));
    AdapterHandle adapter(created);
    for (int32_t i = 1; i < lorica_adapter_n_tensors(created); i += 2) {
        lorica_adapter_tensor tensor{sizeof(lorica_adapter_tensor)};
        check(lorica_adapter_tensor_info(created, i, &tensor));
        std::vector<float> b(static_cast<size_t>(tensor.rows * tensor.cols));
        for (size_t j = 0; j < b.size(); ++j) b[j] = static_cast<float>(1e-3 * random_normal(1, j));
        check(lorica_adapter_set_tensor(created, i, b.data(), static_cast<int64_t>(b.size())));
    }
    return adapter;
}

Json describe(const lorica_memory_plan & plan) {
    return Json()
        .set("weights", plan.weights)
        .set("adapter", plan.adapter)
        .set("gradients", plan.gradients)
        .set("optimizer", plan.optimizer)
        .set("activations", plan.activations)
        .set("workspace", plan.workspace)
        .set("total", plan.total)
        .set("recomputed_layers", plan.recomputed_layers);
}

Batch Batch::random(int n_tokens, int sequence_length, int n_vocab) {
    Batch batch;
    uint64_t drawn = 0;
    for (int left = n_tokens; left > 0; left -= sequence_length) {
        std::vector<int32_t> tokens(static_cast<size_t>(std::min(left, sequence_length)));
        for (int32_t & token : tokens)
            token = static_cast<int32_t>(random_u32(1, drawn++) % static_cast<uint32_t>(n_vocab));
        batch.add_sequence(tokens);
    }
    return batch;
}

void Batch::add_sequence(const std::vector<int32_t> & tokens, size_t n_untrained) {
    constexpr int32_t not_trained = -100;
    for (size_t i = 0; i < tokens.size(); ++i) {
        tokens_.push_back(tokens[i]);
        labels_.push_back(i + 1 < tokens.size() && i + 1 >= n_untrained ? tokens[i + 1] : not_trained);
    }
    lengths_.push_back(static_cast<int32_t>(tokens.size()));
}

lorica_batch Batch::view() const {
    auto batch = defaults(lorica_batch_default);
    batch.tokens = tokens_.data();
    batch.labels = labels_.data();
    batch.sequence_lengths = lengths_.data();
    batch.n_tokens = static_cast<int32_t>(tokens_.size());
    batch.n_sequences = static_cast<int32_t>(lengths_.size());
    return batch;
}

}  // namespace lorica::bench
