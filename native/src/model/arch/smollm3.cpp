// SmolLM3: Llama, where every fourth layer rotates nothing (NoPE: Yang et al. 2025, "Rope to Nope and Back Again").
// Files have no key for that.
#include "model/arch/architectures.h"

namespace lorica {

Architecture smollm3(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.refuse_experts();
    file.check_keys();
    const RopeSpec rope = file.rope(s, false);

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t layer) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const auto [q0, k0, v] =
            b.linear(n1, Linear("attn_q", "self_attn.q_proj", s.q_dim()).rope_rows(s.n_head, s.head_dim),
                     Linear("attn_k", "self_attn.k_proj", s.kv_dim()).rope_rows(s.n_head_kv, s.head_dim),
                     Linear("attn_v", "self_attn.v_proj", s.kv_dim()));
        Value q = q0, k = k0;
        if ((layer + 1) % 4 != 0) {
            const auto [qr, kr] = b.rope(rope, q0, k0);
            q = qr, k = kr;
        }
        const Value o = b.attention(q, k, v, s.attention());
        const Value mid = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Rms("ffn_norm", "post_attention_layernorm", eps));
        const auto [gate, up] =
            b.linear(n2, Linear("ffn_gate", "mlp.gate_proj", s.n_ff), Linear("ffn_up", "mlp.up_proj", s.n_ff));
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
