// GPT-2 and distilgpt2 (Radford et al. 2019, section 2.3): learned positions, LayerNorm before each half, q, k and v in
// one linear layer, biases everywhere.
#include "model/arch/architectures.h"

namespace lorica {

Architecture gpt2(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_epsilon", 1e-5);
    file.check_keys();
    const auto linear = [](const char * gguf, const char * hf, int64_t out) {
        return Linear(gguf, hf, out).bias().conv1d();
    };

    Describe d(s);
    d.prologue([&](Block & b) {
        const Value x = b.embed({"token_embd", "transformer.wte"}, s.n_vocab, s.n_embd);
        return b.positions(x, {"position_embd", "transformer.wpe"}, s.n_ctx_train);
    });
    d.layers("blk.{}", "transformer.h.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Layer("attn_norm", "ln_1", eps).bias());
        const Value qkv = b.linear(n1, linear("attn_qkv", "attn.c_attn", 3 * s.n_embd));
        const auto [q, k, v] = b.split(qkv, s.n_embd, s.n_embd, s.n_embd);
        const Value o = b.attention(q, k, v, s.attention());
        const Value mid = b.linear(o, linear("attn_output", "attn.c_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Layer("ffn_norm", "ln_2", eps).bias());
        const Value up = b.linear(n2, linear("ffn_up", "mlp.c_fc", s.n_ff));
        const Value h = b.activation(Act::gelu_tanh, up);
        return b.linear(h, linear("ffn_down", "mlp.c_proj", s.n_embd), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Layer("output_norm", "transformer.ln_f", eps).bias());
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace lorica
