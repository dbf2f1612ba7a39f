// Granite 3 and 4, dense: Llama with four scalars. The embedding is multiplied by embedding_scale, each branch by
// residual_scale before it is added, q k^T by attention.scale; logits are divided by logit_scale.
//
// The stream is kept divided by residual_scale: branches are then added as they are, and a norm, which is blind to
// scale but for eps, has eps / residual_scale^2.
#include "model/arch/architectures.h"

namespace lorica {

Architecture granite(const Reader & file) {
    const Shape s = file.shape();
    file.refuse_experts();
    file.check_keys({"attention.scale", "embedding_scale", "logit_scale", "residual_scale"});
    const double branch = file.positive("residual_scale", 1.0);
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6) / (branch * branch);
    const RopeSpec rope = file.rope(s, false);
    AttentionSpec attention = s.attention();
    attention.scale = file.positive("attention.scale", attention.scale);

    Describe d(s);
    d.prologue([&](Block & b) {
        return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd,
                       file.positive("embedding_scale", 1.0) / branch);
    });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const auto [q, k, v] =
            b.linear(n1, Linear("attn_q", "self_attn.q_proj", s.q_dim()).rope_rows(s.n_head, s.head_dim),
                     Linear("attn_k", "self_attn.k_proj", s.kv_dim()).rope_rows(s.n_head_kv, s.head_dim),
                     Linear("attn_v", "self_attn.v_proj", s.kv_dim()));
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, attention);
        const Value mid = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Rms("ffn_norm", "post_attention_layernorm", eps));
        const auto [gate, up] =
            b.linear(n2, Linear("ffn_gate", "mlp.gate_proj", s.n_ff), Linear("ffn_up", "mlp.up_proj", s.n_ff));
        const Value h = b.gated(Act::silu, gate, up);
        return b.linear(h, Linear("ffn_down", "mlp.down_proj", s.n_embd), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Rms("output_norm", "model.norm", eps));
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd",
                      {1 / file.positive("logit_scale", 1.0), 0});
    });
    return d.done();
}

}  // namespace lorica
