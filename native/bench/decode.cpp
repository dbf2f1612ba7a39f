// Prompt processing and decoding. Decoding reads every weight for each token, so the memory's bandwidth is its limit.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "commands.h"
#include "common/error.h"
#include "common/random.h"
#include "engine.h"
#include "machine.h"

namespace lorica::bench {

namespace {

// Bytes of weights that one token reads: all tensors, but of a separate embedding only one row.
int64_t bytes_per_token(const std::string & path) {
    lorica_gguf * opened = nullptr;
    check(lorica_gguf_open(path.c_str(), &opened));
    const GgufHandle gguf(opened);
    int64_t all = 0, embedding = 0;
    bool tied = true;
    for (int64_t i = 0; i < lorica_gguf_n_tensors(opened); ++i) {
        lorica_gguf_tensor tensor{sizeof(lorica_gguf_tensor)};
        check(lorica_gguf_tensor_info(opened, i, &tensor));
        all += static_cast<int64_t>(tensor.n_bytes);
        if (std::strcmp(tensor.name, "token_embd.weight") == 0) embedding = static_cast<int64_t>(tensor.n_bytes);
        if (std::strcmp(tensor.name, "output.weight") == 0) tied = false;
    }
    return all - (tied ? 0 : embedding);
}

}  // namespace

Json run_decode(const Options & options) {
    ModelChoice choice(options);
    const int n_adapters = options.number("adapters", 0), rank = options.number("rank", 16);
    const std::string targets = options.text("targets", "all-linear");
    const int n_prompt = options.number("prompt", 512), n_generate = options.number("generate", 128);
    const int n_sequences = options.number("sequences", 0);
    const int repetitions = std::max(1, options.number("repetitions", 5));
    options.check_all_read();
    choice.prepare();
    if (n_prompt < 1 || n_generate < 1) fail(LORICA_ERROR_INVALID_ARGUMENT, "--prompt and --generate take 1 at least");

    const std::unique_ptr<Backend> gpu = open_gpu(choice);
    const ModelHandle model = choice.load();
    const lorica_model_info info = info_of(model.get());
    lorica_kv_cache * created = nullptr;
    check(lorica_kv_cache_create(model.get(), nullptr, n_prompt + n_generate, &created));
    const ContextHandle context(created);
    std::vector<float> logits(static_cast<size_t>(info.n_vocab));
    std::vector<int32_t> tokens;
    for (int i = 0; i < n_prompt + n_generate; ++i) {
        tokens.push_back(
            static_cast<int32_t>(random_u32(1, static_cast<uint64_t>(i)) % static_cast<uint32_t>(info.n_vocab)));
    }
    const auto eval = [&](int first, int n) {
        check(lorica_kv_cache_eval(context.get(), &tokens[first], n, false, logits.data()));
    };

    std::vector<AdapterHandle> adapters;
    std::vector<const lorica_adapter *> handles;
    for (int i = 0; i < n_adapters; ++i) {
        adapters.push_back(random_adapter(model.get(), targets, rank));
        handles.push_back(adapters.back().get());
    }
    // Per token with the first n adapters against without, in one repetition, so that both meet the same machine.
    std::vector<std::vector<double>> adapted(adapters.size()), extra(adapters.size()), switches(adapters.size());

    // Several texts at once, each with the same prompt.
    std::unique_ptr<lorica_kv_cache, void (*)(lorica_kv_cache *)> many(nullptr, lorica_kv_cache_free);
    std::vector<double> batched, speedup;
    std::vector<int32_t> slots, ones(static_cast<size_t>(std::max(0, n_sequences)), 1);
    std::vector<float> all_logits(static_cast<size_t>(std::max(0, n_sequences)) * logits.size());
    if (n_sequences > 0) {
        lorica_kv_cache * cache = nullptr;
        check(lorica_kv_cache_create_many(model.get(), nullptr, n_prompt + n_generate, n_sequences, &cache));
        many.reset(cache);
        check(lorica_kv_cache_eval(cache, tokens.data(), n_prompt, false, logits.data()));
        for (int i = 0; i < n_sequences; ++i) slots.push_back(i);
    }

    const int64_t weight_bytes = bytes_per_token(choice.path);
    // Of a GPU, its own memory; of it no caches hold the weights of a model worth decoding.
    ReadBuffer memory(gpu ? 1 << 20 : std::max<int64_t>(int64_t{1} << 30, 3 * cache_bytes()), choice.n_threads);
    ReadBuffer like_weights(gpu ? 1 << 20 : weight_bytes,
                            choice.n_threads);  // may partly stay in the caches, as the weights themselves may
    const double gpu_bandwidth = gpu ? gpu->measure_bandwidth() : 0;
    eval(0, n_prompt);
    // K and V of all positions so far, in the middle of what is decoded; the engine keeps them in the act format.
    const int64_t kv_element = choice.precision == LORICA_PRECISION_F32 ? 4 : 2;
    const int64_t kv_bytes =
        int64_t{2} * info.n_layer * info.n_head_kv * info.head_dim * kv_element * (n_prompt + n_generate / 2);
    std::vector<double> prompt, decode, bandwidth, cached, ratios, kv_ratios, cached_ratios;
    for (int i = 0; i < repetitions; ++i) {
        check(lorica_kv_cache_truncate(context.get(), 0));
        prompt.push_back(n_prompt / seconds_of([&] { eval(0, n_prompt); }));
        decode.push_back(n_generate / seconds_of([&] {
                             for (int t = 0; t < n_generate; ++t) eval(n_prompt + t, 1);
                         }));
        const double without = 1 / decode.back();
        if (many) {
            for (int s = 0; s < n_sequences; ++s) check(lorica_kv_cache_slot_copy(many.get(), 0, s, n_prompt));
            batched.push_back(
                n_sequences * n_generate / seconds_of([&] {
                    for (int t = 0; t < n_generate; ++t) {
                        std::vector<int32_t> next;
                        for (int s = 0; s < n_sequences; ++s)
                            next.push_back(
                                tokens[static_cast<size_t>((n_prompt + t + 31 * s) % (n_prompt + n_generate))]);
                        check(lorica_kv_cache_eval_many(many.get(), slots.data(), ones.data(), n_sequences, next.data(),
                                                        all_logits.data()));
                    }
                }));
            speedup.push_back(batched.back() / decode.back());
        }
        for (int n = 1; n <= n_adapters; ++n) {
            const auto set = static_cast<size_t>(n - 1);
            switches[set].push_back(
                seconds_of([&] { check(lorica_kv_cache_set_adapters(context.get(), handles.data(), nullptr, n)); }));
            eval(0, n_prompt);
            const double with = seconds_of([&] {
                                    for (int t = 0; t < n_generate; ++t) eval(n_prompt + t, 1);
                                }) /
                                n_generate;
            adapted[set].push_back(1 / with);
            extra[set].push_back(with - without);
        }
        check(lorica_kv_cache_set_adapters(context.get(), nullptr, nullptr, 0));
        if (gpu) {
            bandwidth.push_back(gpu_bandwidth);
            cached.push_back(gpu_bandwidth);
        } else {
            bandwidth.push_back(memory.read_once());
            like_weights.read_once();
            cached.push_back(like_weights.read_once());
        }
        ratios.push_back(decode.back() * static_cast<double>(weight_bytes) / bandwidth.back());
        kv_ratios.push_back(decode.back() * static_cast<double>(weight_bytes + kv_bytes) / bandwidth.back());
        cached_ratios.push_back(decode.back() * static_cast<double>(weight_bytes) / cached.back());
    }

    std::fprintf(stderr, "%s, %d threads (%s)\n", choice.name.c_str(), choice.n_threads, info.device_detail);
    std::fprintf(stderr, "prompt of %d tokens %.1f tok/s, decoding %.2f tok/s\n", n_prompt, median(prompt),
                 median(decode));
    std::fprintf(stderr,
                 "weights %.1f MB per token: %.2f GB/s of %.2f GB/s from memory: %.3f, with %.1f MB of keys and values "
                 "%.3f; of %.2f GB/s from a buffer as large: %.3f\n",
                 static_cast<double>(weight_bytes) * 1e-6, median(decode) * static_cast<double>(weight_bytes) * 1e-9,
                 median(bandwidth) * 1e-9, median(ratios), static_cast<double>(kv_bytes) * 1e-6, median(kv_ratios),
                 median(cached) * 1e-9, median(cached_ratios));
    if (many) {
        std::fprintf(stderr, "%d texts at once %.2f tok/s: %.2f times one by one\n", n_sequences, median(batched),
                     median(speedup));
    }
    Json with_adapters;
    for (size_t set = 0; set < adapted.size(); ++set) {
        std::fprintf(
            stderr,
            "with %zu adapter%s (%s, rank %d): %.2f tok/s, %.0f us more per token (%.1f %%), switching to %s %.2f ms\n",
            set + 1, set == 0 ? "" : "s", targets.c_str(), rank, median(adapted[set]), 1e6 * median(extra[set]),
            100 * median(extra[set]) * median(decode), set == 0 ? "it" : "them", 1e3 * median(switches[set]));
        with_adapters.push(Json()
                               .set("adapters", static_cast<int64_t>(set + 1))
                               .set("decode_tokens_per_second", summary(adapted[set]))
                               .set("extra_seconds_per_token", summary(extra[set]))
                               .set("switch_seconds", summary(switches[set])));
    }
    return Json()
        .set("model", describe(choice, model.get()))
        .set("prompt_tokens", n_prompt)
        .set("generated_tokens", n_generate)
        .set("prompt_tokens_per_second", summary(prompt))
        .set("decode_tokens_per_second", summary(decode))
        .set("weight_bytes_per_token", weight_bytes)
        .set("kv_bytes_per_token", kv_bytes)
        .set("memory_bytes_per_second", summary(bandwidth))
        .set("memory_buffer_bytes", memory.n_bytes())
        .set("same_size_bytes_per_second", summary(cached))
        .set("ratio_to_memory", summary(ratios))
        .set("ratio_to_memory_with_kv", summary(kv_ratios))
        .set("ratio_to_same_size", summary(cached_ratios))
        .set("with_adapters", with_adapters)
        .set("texts_at_once", n_sequences)
        .set("texts_at_once_tokens_per_second", many ? summary(batched) : Json())
        .set("texts_at_once_speedup", many ? summary(speedup) : Json());
}

}  // namespace lorica::bench
