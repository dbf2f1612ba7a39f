#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

lorica_status lorica_context_create(const lorica_model * model, const lorica_adapter * adapter, int32_t n_ctx,
                                    lorica_context ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        *out = new lorica_context{{model->model, adapter ? adapter->adapter : nullptr, n_ctx}};
    });
}

void lorica_context_free(lorica_context * context) { delete context; }

int32_t lorica_context_n_past(const lorica_context * context) { return context ? context->context.n_past() : 0; }

lorica_status lorica_context_eval(lorica_context * context, const int32_t * tokens, int32_t n_tokens, bool all_logits,
                                  float * logits) {
    return guarded([&] {
        require(context, "context");
        require(tokens, "tokens");
        if (n_tokens < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_tokens is ", n_tokens);
        context->context.eval({tokens, static_cast<size_t>(n_tokens)}, all_logits, logits);
    });
}

lorica_status lorica_context_set_adapters(lorica_context * context, const lorica_adapter * const * adapters,
                                          const float * factors, int32_t n_adapters) {
    return guarded([&] {
        require(context, "context");
        context->context.set_adapters(lorica::api::adapter_parts(adapters, factors, n_adapters));
    });
}

lorica_status lorica_context_truncate(lorica_context * context, int32_t n_past) {
    return guarded([&] {
        require(context, "context");
        context->context.truncate(n_past);
    });
}
