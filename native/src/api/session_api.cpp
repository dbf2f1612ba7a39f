#include <algorithm>

#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

namespace {

lorica_session_params session_defaults() {
    lorica_session_params params{};
    params.struct_size = sizeof params;
    params.max_tokens = 512;
    params.recomputation = LORICA_RECOMPUTATION_AUTO;
    params.optimizer = LORICA_OPTIMIZER_ADAMW;
    params.beta1 = 0.9;
    params.beta2 = 0.999;
    params.eps = 1e-8;
    params.seed = 42;
    return params;
}

lorica_batch default_batch() {
    lorica_batch batch{};
    batch.struct_size = sizeof batch;
    batch.number = -1;
    return batch;
}

lorica_optimizer_step_params default_step() {
    lorica_optimizer_step_params params{};
    params.struct_size = sizeof params;
    params.grad_scale = 1;
    return params;
}

lorica::SessionConfig session_config(const lorica_session_params * params) {
    lorica_session_params p = session_defaults();
    if (params) lorica::api::read_struct(params, "params", p);
    lorica::SessionConfig config;
    config.max_tokens = p.max_tokens;
    config.max_sequences = p.max_sequences;
    config.max_sequence_length = p.max_sequence_length;
    switch (p.recomputation) {
        case LORICA_RECOMPUTATION_AUTO: config.recomputation = lorica::Recomputation::automatic; break;
        case LORICA_RECOMPUTATION_OFF: config.recomputation = lorica::Recomputation::off; break;
        case LORICA_RECOMPUTATION_ON: config.recomputation = lorica::Recomputation::on; break;
        default:
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "recomputation ", static_cast<int>(p.recomputation),
                         " does not exist");
    }
    switch (p.optimizer) {
        case LORICA_OPTIMIZER_ADAMW: config.optimizer = lorica::Optimizer::adamw; break;
        case LORICA_OPTIMIZER_ADAMW_8BIT: config.optimizer = lorica::Optimizer::adamw_8bit; break;
        default:
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "optimizer ", static_cast<int>(p.optimizer), " does not exist");
    }
    config.beta1 = p.beta1;
    config.beta2 = p.beta2;
    config.eps = p.eps;
    config.neftune_alpha = p.neftune_alpha;
    config.seed = p.seed;
    config.memory_limit = p.memory_limit;
    config.features = p.features;
    config.likeliest = p.likeliest;
    config.n_candidates = p.n_candidates;
    config.gradients_only = p.gradients_only;
    return config;
}

lorica_batch checked_batch(const lorica_batch * given, bool needs_labels = true) {
    lorica_batch batch = default_batch();
    lorica::api::read_struct(given, "batch", batch);
    require(batch.tokens, "batch.tokens");
    if (needs_labels) require(batch.labels, "batch.labels");
    require(batch.sequence_lengths, "batch.sequence_lengths");
    if (batch.n_tokens < 0 || batch.n_sequences < 0) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "batch has ", batch.n_tokens, " tokens in ", batch.n_sequences,
                     " sequences");
    }
    return batch;
}

lorica::PackedBatch packed(const lorica_batch & batch) {
    const auto n = static_cast<size_t>(batch.n_tokens);
    lorica::PackedBatch result;
    result.tokens = {batch.tokens, n};
    if (batch.labels) result.labels = {batch.labels, n};
    if (batch.token_types) result.types = {batch.token_types, n};
    if (batch.positions) result.positions = {batch.positions, n};
    result.sequence_lengths = {batch.sequence_lengths, static_cast<size_t>(batch.n_sequences)};
    return result;
}

size_t checked_count(int64_t n) {
    if (n < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n is ", n);
    return static_cast<size_t>(n);
}

lorica::Pooling pooling_of(lorica_pooling pooling) {
    switch (pooling) {
        case LORICA_POOLING_MEAN: return lorica::Pooling::mean;
        case LORICA_POOLING_FIRST: return lorica::Pooling::first;
        case LORICA_POOLING_LAST: return lorica::Pooling::last;
    }
    lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "there is no pooling ", static_cast<int>(pooling));
}

void write_result(const lorica::LossSum & loss, lorica_batch_result * out) {
    lorica::api::write_struct(lorica_batch_result{sizeof(lorica_batch_result), loss.loss_sum, loss.n_trained}, "out",
                              out);
}

void evaluate(lorica_session * handle, const lorica_batch * batch, float * token_nll, lorica_batch_result * out,
              bool with_adapter) {
    require(handle, "session");
    require(out, "out");
    lorica::api::checked_struct_size(out->struct_size, "out");
    const lorica::PackedBatch input = packed(checked_batch(batch));
    const size_t n = token_nll ? input.tokens.size() : 0;
    lorica::LossSum loss;
    lorica::api::compute(*handle->model, handle->cancelled,
                         [&] { loss = handle->session.evaluate(input, {token_nll, n}, with_adapter); });
    write_result(loss, out);
}

// Several tokens at each position, n in all.
template <typename F>
void with_candidates(lorica_session * handle, const lorica_batch * batch, const int32_t * ids, int64_t n,
                     const float * values, lorica_batch_result * out, const F & f) {
    require(handle, "session");
    require(ids, "ids");
    require(values, "values");
    require(out, "out");
    lorica::api::checked_struct_size(out->struct_size, "out");
    const lorica_batch input = checked_batch(batch);
    checked_count(n);
    lorica::LossSum loss;
    lorica::api::compute(*handle->model, handle->cancelled, [&] { loss = f(input); });
    write_result(loss, out);
}

const lorica::Adapter::Tensor & checked_tensor(const lorica_session * handle, int32_t i) {
    require(handle, "session");
    const lorica::Adapter & adapter = handle->session.adapter();
    if (i < 0 || i >= adapter.n_tensors()) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "adapter tensor ", i, " does not exist; there are ",
                     adapter.n_tensors());
    }
    return adapter.tensor(i);
}

void check_size(const lorica_session * handle, int32_t i, int64_t n) {
    const auto & tensor = checked_tensor(handle, i);
    if (n != tensor.rows * tensor.cols) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, tensor.name, " has ", tensor.rows * tensor.cols, " elements, not ",
                     n);
    }
}

// Calls f(i, part) for the part of each adapter tensor i in the array of all gradients.
template <typename Data, typename F>
void for_each_gradient(const lorica_session * handle, Data * data, int64_t n, const F & f) {
    require(handle, "session");
    require(data, "data");
    const lorica::Adapter & adapter = handle->session.adapter();
    if (n != adapter.n_params()) {
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "the gradients have ", adapter.n_params(), " elements, not ", n);
    }
    for (int32_t i = 0; i < adapter.n_tensors(); ++i) {
        f(i, data);
        data += adapter.tensor(i).rows * adapter.tensor(i).cols;
    }
}

}  // namespace

lorica_status lorica_session_default_params(lorica_session_params * params) {
    return guarded([&] { lorica::api::write_struct(session_defaults(), "params", params); });
}

lorica_status lorica_batch_default(lorica_batch * batch) {
    return guarded([&] { lorica::api::write_struct(default_batch(), "batch", batch); });
}

lorica_status lorica_optimizer_step_default_params(lorica_optimizer_step_params * params) {
    return guarded([&] { lorica::api::write_struct(default_step(), "params", params); });
}

lorica_status lorica_session_get_plan(const lorica_model * model, const lorica_adapter * adapter,
                                      const lorica_session_params * params, lorica_memory_plan * out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        const lorica::MemoryPlan plan =
            lorica::Session::plan(*model->model, adapter ? adapter->adapter.get() : nullptr, session_config(params));
        lorica::api::write_struct(
            lorica_memory_plan{sizeof(lorica_memory_plan), plan.weights + plan.expanded, plan.adapter, plan.gradients,
                               plan.optimizer, plan.activations, plan.workspace, plan.total(), plan.available,
                               plan.recomputed_layers, plan.fits()},
            "out", out);
    });
}

lorica_status lorica_session_create(const lorica_model * model, lorica_adapter * adapter,
                                    const lorica_session_params * params, lorica_session ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        if (adapter && adapter->adapter->model() != model->model) {
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
        }
        *out = new lorica_session{{model->model, adapter ? adapter->adapter : nullptr, session_config(params)},
                                  model->model};
    });
}

void lorica_session_free(lorica_session * handle) { delete handle; }

lorica_status lorica_session_forward_backward(lorica_session * handle, const lorica_batch * batch,
                                              lorica_batch_result * out) {
    return guarded([&] {
        require(handle, "session");
        require(out, "out");
        lorica::api::checked_struct_size(out->struct_size, "out");
        const lorica_batch input = checked_batch(batch);
        lorica::LossSum loss;
        lorica::api::compute(*handle->model, handle->cancelled, [&] {
            if (input.number >= 0) handle->session.set_micro_batch_number(input.number);
            loss = handle->session.forward_backward(packed(input));
        });
        write_result(loss, out);
    });
}

lorica_status lorica_session_forward(lorica_session * handle, const lorica_batch * batch, float * token_nll,
                                     lorica_batch_result * out) {
    return guarded([&] {
        require(handle, "session");
        require(token_nll, "token_nll");
        require(out, "out");
        lorica::api::checked_struct_size(out->struct_size, "out");
        const lorica_batch input = checked_batch(batch);
        lorica::LossSum loss;
        lorica::api::compute(*handle->model, handle->cancelled, [&] {
            if (input.number >= 0) handle->session.set_micro_batch_number(input.number);
            loss = handle->session.forward(packed(input), {token_nll, static_cast<size_t>(input.n_tokens)});
        });
        write_result(loss, out);
    });
}

lorica_status lorica_session_backward(lorica_session * handle, const float * weights, int32_t n_weights) {
    return guarded([&] {
        require(handle, "session");
        require(weights, "weights");
        if (n_weights < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_weights is ", n_weights);
        lorica::api::compute(*handle->model, handle->cancelled,
                             [&] { handle->session.backward({weights, static_cast<size_t>(n_weights)}); });
    });
}

lorica_status lorica_session_forward_candidates(lorica_session * handle, const lorica_batch * batch,
                                                const int32_t * candidates, int64_t n, double temperature,
                                                float * token_nll, lorica_batch_result * out) {
    return guarded([&] {
        with_candidates(handle, batch, candidates, n, token_nll, out, [&](const lorica_batch & input) {
            if (input.number >= 0) handle->session.set_micro_batch_number(input.number);
            return handle->session.forward_candidates(packed(input), {{candidates, checked_count(n)}, temperature},
                                                      {token_nll, checked_count(n)});
        });
    });
}

lorica_status lorica_session_backward_candidates(lorica_session * handle, const float * weights, int64_t n) {
    return guarded([&] {
        require(handle, "session");
        require(weights, "weights");
        lorica::api::compute(*handle->model, handle->cancelled,
                             [&] { handle->session.backward_candidates({weights, checked_count(n)}); });
    });
}

lorica_status lorica_session_evaluate_candidates(lorica_session * handle, const lorica_batch * batch,
                                                 const int32_t * candidates, int64_t n, double temperature,
                                                 float * token_nll, lorica_batch_result * out) {
    return guarded([&] {
        with_candidates(handle, batch, candidates, n, token_nll, out, [&](const lorica_batch & input) {
            return handle->session.evaluate_candidates(packed(input), {{candidates, checked_count(n)}, temperature},
                                                       {token_nll, checked_count(n)});
        });
    });
}

lorica_status lorica_session_evaluate_likeliest(lorica_session * handle, const lorica_batch * batch, double temperature,
                                                int32_t * ids, float * log_probs, int64_t n,
                                                lorica_batch_result * out) {
    return guarded([&] {
        with_candidates(handle, batch, ids, n, log_probs, out, [&](const lorica_batch & input) {
            return handle->session.evaluate_likeliest(packed(input), temperature, {ids, checked_count(n)},
                                                      {log_probs, checked_count(n)});
        });
    });
}

lorica_status lorica_session_forward_outputs(lorica_session * handle, const lorica_batch * batch, float * outputs,
                                             int64_t n) {
    return guarded([&] {
        require(handle, "session");
        require(outputs, "outputs");
        const lorica_batch input = checked_batch(batch, false);
        lorica::api::compute(*handle->model, handle->cancelled, [&] {
            if (input.number >= 0) handle->session.set_micro_batch_number(input.number);
            handle->session.forward_outputs(packed(input), {outputs, checked_count(n)});
        });
    });
}

lorica_status lorica_session_backward_outputs(lorica_session * handle, const float * gradients, int64_t n) {
    return guarded([&] {
        require(handle, "session");
        require(gradients, "gradients");
        lorica::api::compute(*handle->model, handle->cancelled,
                             [&] { handle->session.backward_outputs({gradients, checked_count(n)}); });
    });
}

lorica_status lorica_session_evaluate_outputs(lorica_session * handle, const lorica_batch * batch, float * outputs,
                                              int64_t n) {
    return guarded([&] {
        require(handle, "session");
        require(outputs, "outputs");
        const lorica_batch input = checked_batch(batch, false);
        lorica::api::compute(*handle->model, handle->cancelled,
                             [&] { handle->session.evaluate_outputs(packed(input), {outputs, checked_count(n)}); });
    });
}

lorica_status lorica_session_embed(lorica_session * handle, const lorica_batch * batch, lorica_pooling pooling,
                                   float * embeddings, int64_t n) {
    return guarded([&] {
        require(handle, "session");
        require(embeddings, "embeddings");
        const lorica_batch input = checked_batch(batch, false);
        const lorica::Pooling how = pooling_of(pooling);
        lorica::api::compute(*handle->model, handle->cancelled,
                             [&] { handle->session.embed(packed(input), how, {embeddings, checked_count(n)}); });
    });
}

void lorica_session_cancel(lorica_session * handle, bool cancelled) {
    if (handle) handle->cancelled = cancelled;
}

lorica_status lorica_session_evaluate(lorica_session * handle, const lorica_batch * batch, float * token_nll,
                                      lorica_batch_result * out) {
    return guarded([&] { evaluate(handle, batch, token_nll, out, true); });
}

lorica_status lorica_session_evaluate_base(lorica_session * handle, const lorica_batch * batch, float * token_nll,
                                           lorica_batch_result * out) {
    return guarded([&] { evaluate(handle, batch, token_nll, out, false); });
}

lorica_status lorica_session_optimizer_step(lorica_session * handle, const lorica_optimizer_step_params * params,
                                            double * grad_norm) {
    return guarded([&] {
        require(handle, "session");
        lorica_optimizer_step_params p = default_step();
        lorica::api::read_struct(params, "params", p);
        const double norm =
            handle->session.optimizer_step({p.learning_rate, p.weight_decay, p.grad_scale, p.max_grad_norm});
        if (grad_norm) *grad_norm = norm;
    });
}

lorica_status lorica_session_set_group(lorica_session * handle, int32_t i, double learning_rate_factor,
                                       double weight_decay_factor) {
    return guarded([&] {
        checked_tensor(handle, i);
        handle->session.set_group(i, {learning_rate_factor, weight_decay_factor});
    });
}

lorica_status lorica_session_zero_gradients(lorica_session * handle) {
    return guarded([&] {
        require(handle, "session");
        handle->session.zero_gradients();
    });
}

lorica_status lorica_session_measure_speed(lorica_session * handle, lorica_session_speed * out) {
    return guarded([&] {
        require(handle, "session");
        require(out, "out");
        lorica::api::write_struct(
            lorica_session_speed{sizeof(lorica_session_speed), handle->session.operations_per_token(),
                                 handle->session.measure_peak()},
            "out", out);
    });
}

int64_t lorica_session_step_count(const lorica_session * handle) { return handle ? handle->session.step_count() : 0; }

lorica_status lorica_session_get_gradient(const lorica_session * handle, int32_t i, float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(handle, i, n);
        const std::vector<float> values = handle->session.gradient(i);
        std::copy(values.begin(), values.end(), data);
    });
}

lorica_status lorica_session_set_gradient(lorica_session * handle, int32_t i, const float * data, int64_t n) {
    return guarded([&] {
        require(data, "data");
        check_size(handle, i, n);
        handle->session.set_gradient(i, data);
    });
}

lorica_status lorica_session_get_gradients(const lorica_session * handle, float * data, int64_t n) {
    return guarded([&] {
        for_each_gradient(handle, data, n, [&](int32_t i, float * part) {
            const std::vector<float> values = handle->session.gradient(i);
            std::copy(values.begin(), values.end(), part);
        });
    });
}

lorica_status lorica_session_set_gradients(lorica_session * handle, const float * data, int64_t n) {
    return guarded([&] {
        for_each_gradient(handle, data, n,
                          [&](int32_t i, const float * part) { handle->session.set_gradient(i, part); });
    });
}

lorica_status lorica_session_add_gradients(lorica_session * handle, const float * data, int64_t n) {
    return guarded([&] {
        for_each_gradient(handle, data, n, [&](int32_t i, const float * part) {
            std::vector<float> values = handle->session.gradient(i);
            for (float & value : values) value += *part++;
            handle->session.set_gradient(i, values.data());
        });
    });
}

lorica_status lorica_session_save_state(const lorica_session * handle, const char * path) {
    return guarded([&] {
        require(handle, "session");
        require(path, "path");
        handle->model->file().check_unchanged();
        handle->session.save_state(path);
    });
}

lorica_status lorica_session_load_state(lorica_session * handle, const char * path) {
    return guarded([&] {
        require(handle, "session");
        require(path, "path");
        handle->session.load_state(path);
    });
}
