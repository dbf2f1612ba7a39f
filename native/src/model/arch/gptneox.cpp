// GPT-NeoX and Pythia (Black et al. 2022, section 2): rotations of a part of each head, biases everywhere, attention
// and feed-forward network side by side, each from its own LayerNorm, or one after the other.
#include "model/arch/architectures.h"

namespace lorica {

Architecture gptneox(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_epsilon", 1e-5);
    file.check_keys({"use_parallel_residual"});
    const RopeSpec rope = file.rope(s, true);
    const bool parallel = file.boolean("use_parallel_residual", true);

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "gpt_neox.embed_in"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "gpt_neox.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Layer("attn_norm", "input_layernorm", eps).bias());
        const Value qkv = b.linear(n1, Linear("attn_qkv", "attention.query_key_value", 3 * s.q_dim())
                                           .bias()
                                           .grouped_qkv_rows(s.n_head, s.n_head, s.head_dim));
        const auto [q, k, v] = b.split(qkv, s.q_dim(), s.q_dim(), s.q_dim());
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, s.attention());
        const Value a = b.linear(o, Linear("attn_output", "attention.dense", s.n_embd).bias(), plus(x));
        const Value n2 = b.norm(parallel ? x : a, Layer("ffn_norm", "post_attention_layernorm", eps).bias());
        const Value up = b.linear(n2, Linear("ffn_up", "mlp.dense_h_to_4h", s.n_ff).bias());
        const Value h = b.activation(Act::gelu_erf, up);
        return b.linear(h, Linear("ffn_down", "mlp.dense_4h_to_h", s.n_embd).bias(), plus(a));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Layer("output_norm", "gpt_neox.final_layer_norm", eps).bias());
        return b.head(normed, {"output", "embed_out"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace lorica
