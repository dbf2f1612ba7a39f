// Phi-3, 3.5 and 4 (Abdin et al. 2024, "Phi-3 Technical Report", section 2): Llama's block with q, k and v in one
// linear layer, and gate and up in one.
#include "model/arch/architectures.h"

namespace lorica {

Architecture phi3(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-5);
    file.refuse_experts();
    file.check_keys({"attention.sliding_window"});
    const RopeSpec rope = file.rope(s, true);
    AttentionSpec attention = s.attention();
    attention.mask = file.window("attention.sliding_window");

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const Value qkv = b.linear(n1, Linear("attn_qkv", "self_attn.qkv_proj", s.q_dim() + 2 * s.kv_dim()));
        const auto [q, k, v] = b.split(qkv, s.q_dim(), s.kv_dim(), s.kv_dim());
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, attention);
        const Value mid = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Rms("ffn_norm", "post_attention_layernorm", eps));
        const Value gate_up = b.linear(n2, Linear("ffn_up", "mlp.gate_up_proj", 2 * s.n_ff));
        const auto [gate, up] = b.split(gate_up, s.n_ff, s.n_ff);
        const Value h = b.gated(Act::silu, gate, up);
        return b.linear(h, Linear("ffn_down", "mlp.down_proj", s.n_embd), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Rms("output_norm", "model.norm", eps));
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace lorica
