#include "support/families.h"

namespace lorica::test {

namespace {

constexpr uint32_t window = 6;

using Keys = void (*)(GgufWriter &);

Family family(std::string name, std::string architecture, Keys keys = nullptr) {
    Family one{std::move(name), {}};
    one.shape.architecture = std::move(architecture);
    one.shape.n_embd = 32;
    one.shape.n_head = 4;
    one.shape.n_head_kv = 2;
    one.shape.n_ff = 64;
    one.shape.n_vocab = 64;
    one.shape.n_ctx = 128;
    if (keys) one.shape.add_metadata = keys;
    return one;
}

Family with_layers(Family one, int32_t n_layer) {
    one.shape.n_layer = n_layer;
    return one;
}

Family with_kv_heads(Family one, int32_t n_head_kv) {
    one.shape.n_head_kv = n_head_kv;
    return one;
}

// Heads wider than n_embd / n_head, and one matrix for embedding and output.
Family like_gemma(Family one) {
    one.shape.head_dim = 16;
    one.shape.tied_output = true;
    return one;
}

}  // namespace

std::vector<Family> families() {
    std::vector<Family> all{
        family("llama", "llama"),
        family("mistral_window", "llama", [](GgufWriter & w) { w.set_u32("llama.attention.sliding_window", window); }),
        family("mistral3", "mistral3",
               [](GgufWriter & w) {
                   w.set_string("mistral3.rope.scaling.type", "yarn");
                   w.set_f32("mistral3.rope.scaling.factor", 16);
                   w.set_u32("mistral3.rope.scaling.original_context_length", 8);
                   w.set_f32("mistral3.rope.scaling.yarn_log_multiplier", 1);
                   w.set_f32("mistral3.attention.temperature_scale", 0.1f);
               }),
        family("qwen2", "qwen2"),
        like_gemma(family("qwen3", "qwen3")),
        family("granite", "granite",
               [](GgufWriter & w) {
                   w.set_f32("granite.attention.scale", 0.2f);
                   w.set_f32("granite.embedding_scale", 3);
                   w.set_f32("granite.residual_scale", 0.22f);
                   w.set_f32("granite.logit_scale", 2);
               }),
        with_layers(family("smollm3", "smollm3"), 4),
        family("phi3", "phi3", [](GgufWriter & w) { w.set_u32("phi3.attention.sliding_window", window); }),
        with_kv_heads(family("gpt2", "gpt2"), 4),
        with_kv_heads(family("falcon_7b", "falcon"), 1),
        family("falcon_40b", "falcon"),
        with_kv_heads(family("gptneox", "gptneox"), 4),
        with_kv_heads(family("gptneox_serial", "gptneox",
                             [](GgufWriter & w) { w.set_bool("gptneox.use_parallel_residual", false); }),
                      4),
        like_gemma(family("gemma", "gemma")),
        like_gemma(family("gemma2", "gemma2",
                          [](GgufWriter & w) {
                              w.set_u32("gemma2.attention.sliding_window", window);
                              w.set_f32("gemma2.attn_logit_softcapping", 2);
                              w.set_f32("gemma2.final_logit_softcapping", 1.5f);
                          })),
        like_gemma(with_layers(
            family("gemma3", "gemma3", [](GgufWriter & w) { w.set_u32("gemma3.attention.sliding_window", window); }),
            6)),
        family("olmo2", "olmo2"),
        with_layers(
            family("olmo3", "olmo2", [](GgufWriter & w) { w.set_u32("olmo2.attention.sliding_window", window); }), 4),
    };
    return all;
}

std::vector<Family> encoders() {
    return {with_kv_heads(family("bert", "bert"), 4),
            with_kv_heads(family("distilbert", "bert",
                                 [](GgufWriter & w) {
                                     const std::vector<std::string> no_types = {"token_embd.weight"};
                                     w.set_strings("lorica.tensors", no_types);
                                 }),
                          4)};
}

}  // namespace lorica::test
