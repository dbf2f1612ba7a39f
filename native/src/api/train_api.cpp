#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

lorica_train_params lorica_train_default_params(void) {
    return {512, 0, 0, LORICA_CHECKPOINTING_AUTO, LORICA_OPTIMIZER_ADAMW, 0.9f, 0.999f, 1e-8f, 0.0f, 42, 0};
}

namespace {

// 0.999f is 0.99900001287...: the number that was meant has few decimal digits.
double as_written(float value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", static_cast<double>(value));
    return std::strtod(text, nullptr);
}

lorica::SessionConfig session_config(const lorica_train_params * params) {
    const lorica_train_params p = params ? *params : lorica_train_default_params();
    lorica::SessionConfig config;
    config.max_tokens = p.max_tokens;
    config.max_sequences = p.max_sequences;
    config.max_sequence_length = p.max_sequence_length;
    switch (p.checkpointing) {
        case LORICA_CHECKPOINTING_AUTO: config.checkpointing = lorica::Checkpointing::automatic; break;
        case LORICA_CHECKPOINTING_OFF: config.checkpointing = lorica::Checkpointing::off; break;
        case LORICA_CHECKPOINTING_ON: config.checkpointing = lorica::Checkpointing::on; break;
        default:
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "checkpointing ", static_cast<int>(p.checkpointing),
                         " does not exist");
    }
    switch (p.optimizer) {
        case LORICA_OPTIMIZER_ADAMW: config.optimizer = lorica::Optimizer::adamw; break;
        case LORICA_OPTIMIZER_ADAMW_8BIT: config.optimizer = lorica::Optimizer::adamw_8bit; break;
        default:
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "optimizer ", static_cast<int>(p.optimizer), " does not exist");
    }
    config.beta1 = as_written(p.beta1);
    config.beta2 = as_written(p.beta2);
    config.eps = as_written(p.eps);
    config.neftune_alpha = as_written(p.neftune_alpha);
    config.seed = p.seed;
    config.memory_limit = p.memory_limit;
    return config;
}

lorica::PackedBatch packed(const lorica_batch * batch) {
    require(batch, "batch");
    require(batch->tokens, "batch.tokens");
    require(batch->labels, "batch.labels");
    require(batch->sequence_lengths, "batch.sequence_lengths");
    if (batch->n_tokens < 0 || batch->n_sequences < 0) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "batch has ", batch->n_tokens, " tokens in ", batch->n_sequences,
                     " sequences");
    }
    const auto n = static_cast<size_t>(batch->n_tokens);
    lorica::PackedBatch result;
    result.tokens = {batch->tokens, n};
    result.labels = {batch->labels, n};
    if (batch->positions) result.positions = {batch->positions, n};
    result.sequence_lengths = {batch->sequence_lengths, static_cast<size_t>(batch->n_sequences)};
    return result;
}

const lorica::Adapter::Tensor & checked_tensor(const lorica_train * train, int32_t i) {
    require(train, "train");
    const lorica::Adapter & adapter = train->session.adapter();
    if (i < 0 || i >= adapter.n_tensors()) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "adapter tensor ", i, " does not exist; there are ",
                     adapter.n_tensors());
    }
    return adapter.tensor(i);
}

void check_size(const lorica_train * train, int32_t i, int64_t n) {
    const auto & tensor = checked_tensor(train, i);
    if (n != tensor.rows * tensor.cols) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, tensor.name, " has ", tensor.rows * tensor.cols, " elements, not ",
                     n);
    }
}

}  // namespace

lorica_status lorica_train_get_plan(const lorica_model * model, const lorica_adapter * adapter,
                                    const lorica_train_params * params, lorica_train_plan * out) {
    return guarded([&] {
        require(model, "model");
        require(adapter, "adapter");
        require(out, "out");
        const lorica::MemoryPlan plan =
            lorica::Session::plan(*model->model, adapter->adapter.get(), session_config(params));
        *out = {plan.weights,   plan.adapter, plan.gradients, plan.optimizer,         plan.activations,
                plan.workspace, plan.total(), plan.available, plan.recomputed_layers, plan.fits()};
    });
}

lorica_status lorica_train_create(const lorica_model * model, lorica_adapter * adapter,
                                  const lorica_train_params * params, lorica_train ** out) {
    return guarded([&] {
        require(model, "model");
        require(adapter, "adapter");
        require(out, "out");
        if (adapter->adapter->model() != model->model) {
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
        }
        *out = new lorica_train{{adapter->adapter, session_config(params)}};
    });
}

void lorica_train_free(lorica_train * train) { delete train; }

lorica_status lorica_train_forward_backward(lorica_train * train, const lorica_batch * batch,
                                            lorica_batch_result * out) {
    return guarded([&] {
        require(train, "train");
        require(out, "out");
        const lorica::LossSum loss = train->session.forward_backward(packed(batch));
        *out = {loss.loss_sum, loss.n_trained};
    });
}

lorica_status lorica_train_evaluate(lorica_train * train, const lorica_batch * batch, float * token_nll,
                                    lorica_batch_result * out) {
    return guarded([&] {
        require(train, "train");
        require(out, "out");
        const lorica::PackedBatch input = packed(batch);
        const size_t n = token_nll ? input.tokens.size() : 0;
        const lorica::LossSum loss = train->session.evaluate(input, {token_nll, n});
        *out = {loss.loss_sum, loss.n_trained};
    });
}

lorica_status lorica_train_optimizer_step(lorica_train * train, const lorica_optimizer_step_params * params,
                                          float * grad_norm) {
    return guarded([&] {
        require(train, "train");
        require(params, "params");
        const double norm = train->session.optimizer_step(
            {params->learning_rate, params->weight_decay, params->grad_scale, params->max_grad_norm});
        if (grad_norm) *grad_norm = static_cast<float>(norm);
    });
}

lorica_status lorica_train_set_group(lorica_train * train, int32_t i, float learning_rate_factor,
                                     float weight_decay_factor) {
    return guarded([&] {
        checked_tensor(train, i);
        train->session.set_group(i, {as_written(learning_rate_factor), as_written(weight_decay_factor)});
    });
}

lorica_status lorica_train_zero_gradients(lorica_train * train) {
    return guarded([&] {
        require(train, "train");
        train->session.zero_gradients();
    });
}

lorica_status lorica_train_measure_speed(lorica_train * train, lorica_train_speed * out) {
    return guarded([&] {
        require(train, "train");
        require(out, "out");
        *out = {train->session.operations_per_token(), train->session.measure_peak()};
    });
}

int64_t lorica_train_step_count(const lorica_train * train) { return train ? train->session.step_count() : 0; }

lorica_status lorica_train_get_gradient(const lorica_train * train, int32_t i, float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(train, i, n);
        const std::vector<float> values = train->session.gradient(i);
        std::copy(values.begin(), values.end(), data);
    });
}

lorica_status lorica_train_set_gradient(lorica_train * train, int32_t i, const float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(train, i, n);
        train->session.set_gradient(i, data);
    });
}

lorica_status lorica_train_save_state(const lorica_train * train, const char * path) {
    return guarded([&] {
        require(train, "train");
        require(path, "path");
        train->session.save_state(path);
    });
}

lorica_status lorica_train_load_state(lorica_train * train, const char * path) {
    return guarded([&] {
        require(train, "train");
        require(path, "path");
        train->session.load_state(path);
    });
}
