// Falcon 7B and 40B (Almazrouei et al. 2023, section 4): attention and feed-forward network side by side, both from one
// LayerNorm (7B) or each from its own (40B), a key and a value head for many query heads, no biases but those of norms.
#include "model/arch/architectures.h"

namespace lorica {

Architecture falcon(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_epsilon", 1e-5);
    file.check_keys();
    const RopeSpec rope = file.rope(s, true);
    const bool two_norms =
        file.lists_tensors() ? file.has_tensor("blk.0.attn_norm_2.weight") : s.n_head_kv > 1;  // Falcon 40B
    const Linear qkv_layer = Linear("attn_qkv", "self_attention.query_key_value", s.q_dim() + 2 * s.kv_dim())
                                 .grouped_qkv_rows(s.n_head, s.n_head_kv, s.head_dim);
    const Linear up_layer("ffn_up", "mlp.dense_h_to_4h", s.n_ff);

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "transformer.word_embeddings"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "transformer.h.{}", [&](Block & b, Value x, int32_t) {
        Value qkv, up;
        if (two_norms) {
            const Value n1 = b.norm(x, Layer("attn_norm_2", "ln_attn", eps).bias());
            qkv = b.linear(n1, qkv_layer);
            const Value n2 = b.norm(x, Layer("attn_norm", "ln_mlp", eps).bias());
            up = b.linear(n2, up_layer);
        } else {
            const Value n = b.norm(x, Layer("attn_norm", "input_layernorm", eps).bias());
            const auto [both_qkv, both_up] = b.linear(n, qkv_layer, up_layer);
            qkv = both_qkv, up = both_up;
        }
        const auto [q, k, v] = b.split(qkv, s.q_dim(), s.kv_dim(), s.kv_dim());
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, s.attention());
        const Value a = b.linear(o, Linear("attn_output", "self_attention.dense", s.n_embd), plus(x));
        const Value h = b.activation(Act::gelu_erf, up);
        return b.linear(h, Linear("ffn_down", "mlp.dense_4h_to_h", s.n_embd), plus(a));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Layer("output_norm", "transformer.ln_f", eps).bias());
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace lorica
