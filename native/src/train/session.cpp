#include "train/session.h"

#include <algorithm>

#include "common/error.h"

namespace lorica {

Session::Session(std::shared_ptr<const Model> model, std::shared_ptr<Adapter> adapter, const SessionConfig & config)
    : adapter_(std::move(adapter)),
      model_(std::move(model)),
      config_(config),
      planned_(with_virtual_tokens(config, adapter_.get())),
      classifier_(*model_, adapter_.get()) {
    const MemoryPlan plan = Session::plan(*model_, adapter_.get(), config_);
    if (!plan.fits()) refuse(*model_, adapter_.get(), config_, plan);
    backend_ = model_->new_backend();
    if (adapter_ && adapter_->in_training.exchange(true)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "the adapter is already being trained by another session; free that one first");
    }
    try {
        if (adapter_) allocate_trained();
        arena_ = backend_->allocate(static_cast<size_t>(plan.activations));
        backend_->reserve(workspace(*model_, adapter_.get(), planned_));
        if (plan.expanded > 0)
            backend_->use(
                backend_->expand(weights_to_expand(*model_, adapter_.get(), planned_, plan.expanded).weights));
    } catch (...) {
        release();
        throw;
    }
    attached_ = std::make_unique<AttachedAdapter>(*model_, adapter_.get(), gradients_);
    plan_ = std::make_unique<SessionPlan>(*model_, adapter_.get(), planned_, plan.recomputed_layers);
    Arena arena(arena_);
    memory_ = plan_->lay_out(arena);
}

SessionConfig Session::with_virtual_tokens(SessionConfig config, const Adapter * adapter) {
    const int32_t n = adapter ? adapter->n_virtual_tokens() : 0;
    if (n == 0) return config;
    const int64_t n_sequences = config.max_sequences > 0 ? config.max_sequences : config.max_tokens;
    const int64_t longest = config.longest_sequence();
    config.max_tokens = static_cast<int32_t>(std::min<int64_t>(config.max_tokens + n_sequences * n, 1 << 24));
    config.max_sequence_length = static_cast<int32_t>(std::min<int64_t>(longest + n, config.max_tokens));
    return config;
}

Session::~Session() { release(); }

void Session::release() {
    for (void * memory : {gradients_, moment1_, moment2_, scales1_, scales2_, arena_, columns_,
                          static_cast<void *>(counting_), static_cast<void *>(zeros_)}) {
        if (memory) backend_->release(memory);
    }
    if (adapter_) adapter_->in_training = false;
}

double Session::operations_per_token() const {
    auto weights = static_cast<double>(model_->output().in) * static_cast<double>(model_->output().out);
    for (const ProgramWeights & layer : model_->layers()) {
        for (const Weight & w : layer.linears) weights += static_cast<double>(w.in) * static_cast<double>(w.out);
    }
    double trained = 0;  // 2 more for dW
    for (int32_t i = 0; adapter_ && i < adapter_->n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter_->tensor(i);
        const bool is_product = tensor.kind == Adapter::Kind::weight || tensor.kind == Adapter::Kind::head ||
                                (tensor.kind == Adapter::Kind::embedding && model_->tied_output());
        if (is_product) trained += static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
    }
    return 4 * weights + 2 * trained;
}

}  // namespace lorica
