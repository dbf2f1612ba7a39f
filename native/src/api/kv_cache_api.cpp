#include <vector>

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

lorica_status lorica_kv_cache_create_many(const lorica_model * model, const lorica_adapter * adapter, int32_t n_ctx,
                                          int32_t n_slots, lorica_kv_cache ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        *out = new lorica_kv_cache{{model->model, adapter ? adapter->adapter : nullptr, n_ctx, n_slots}, model->model};
    });
}

lorica_status lorica_kv_cache_eval_many(lorica_kv_cache * cache, const int32_t * slots, const int32_t * n_tokens,
                                        int32_t n, const int32_t * tokens, float * logits) {
    return guarded([&] {
        require(cache, "cache");
        require(slots, "slots");
        require(n_tokens, "n_tokens");
        require(tokens, "tokens");
        if (n < 1) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n is ", n, "; there must be a text to append to");
        std::vector<lorica::Context::Append> appends;
        for (int32_t i = 0; i < n; ++i) {
            if (n_tokens[i] < 1) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_tokens[", i, "] is ", n_tokens[i]);
            appends.push_back({slots[i], {tokens, static_cast<size_t>(n_tokens[i])}});
            tokens += n_tokens[i];
        }
        lorica::api::compute(*cache->model, cache->cancelled, [&] { cache->context.eval(appends, logits); });
    });
}

int32_t lorica_kv_cache_slot_n_past(const lorica_kv_cache * cache, int32_t slot) {
    const bool exists = cache && slot >= 0 && slot < cache->context.n_slots();
    return exists ? cache->context.n_past(slot) : -1;
}

lorica_status lorica_kv_cache_slot_set_adapters(lorica_kv_cache * cache, int32_t slot,
                                                const lorica_adapter * const * adapters, const double * factors,
                                                int32_t n_adapters) {
    return guarded([&] {
        require(cache, "cache");
        cache->context.set_adapters(lorica::api::adapter_parts(adapters, factors, n_adapters), slot);
    });
}

lorica_status lorica_kv_cache_slot_truncate(lorica_kv_cache * cache, int32_t slot, int32_t n_past) {
    return guarded([&] {
        require(cache, "cache");
        cache->context.truncate(n_past, slot);
    });
}

lorica_status lorica_kv_cache_slot_copy(lorica_kv_cache * cache, int32_t from, int32_t to, int32_t n_past) {
    return guarded([&] {
        require(cache, "cache");
        cache->context.copy(from, to, n_past);
    });
}
