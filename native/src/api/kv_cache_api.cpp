#include "api/api.h"
#include "api/handles.h"

using lorica::api::guarded;
using lorica::api::require;

lorica_status lorica_kv_cache_create(const lorica_model * model, const lorica_adapter * adapter, int32_t n_ctx,
                                     lorica_kv_cache ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        *out = new lorica_kv_cache{{model->model, adapter ? adapter->adapter : nullptr, n_ctx}, model->model};
    });
}

void lorica_kv_cache_free(lorica_kv_cache * cache) { delete cache; }

int32_t lorica_kv_cache_n_past(const lorica_kv_cache * cache) { return cache ? cache->context.n_past() : 0; }

lorica_status lorica_kv_cache_eval(lorica_kv_cache * cache, const int32_t * tokens, int32_t n_tokens, bool all_logits,
                                   float * logits) {
    return guarded([&] {
        require(cache, "cache");
        require(tokens, "tokens");
        if (n_tokens < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_tokens is ", n_tokens);
        lorica::api::compute(*cache->model, cache->cancelled,
                             [&] { cache->context.eval({tokens, static_cast<size_t>(n_tokens)}, all_logits, logits); });
    });
}

void lorica_kv_cache_cancel(lorica_kv_cache * cache, bool cancelled) {
    if (cache) cache->cancelled = cancelled;
}

lorica_status lorica_kv_cache_set_adapters(lorica_kv_cache * cache, const lorica_adapter * const * adapters,
                                           const double * factors, int32_t n_adapters) {
    return guarded([&] {
        require(cache, "cache");
        cache->context.set_adapters(lorica::api::adapter_parts(adapters, factors, n_adapters));
    });
}

lorica_status lorica_kv_cache_truncate(lorica_kv_cache * cache, int32_t n_past) {
    return guarded([&] {
        require(cache, "cache");
        cache->context.truncate(n_past);
    });
}
