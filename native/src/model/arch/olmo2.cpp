// OLMo 2 and 3 (OLMo et al. 2025, "2 OLMo 2 Furious", section 2.1): norms of what a half gives, before it is added,
// none of what it takes, and norms over all heads of q and of k. In OLMo 3 three of four layers see a window alone,
// without the scaling that rotations of the others have.
#include "model/arch/architectures.h"

namespace lorica {

Architecture olmo2(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.refuse_experts();
    file.check_keys({"attention.sliding_window", "attention.sliding_window_pattern"});
    const RopeSpec rope = file.rope(s, true);
    const RopeSpec window_rope = file.unscaled_rope(s, true, file.positive("rope.freq_base", 10000.0));
    AttentionSpec windowed = s.attention();
    windowed.mask = file.window("attention.sliding_window");
    const bool has_windows = file.has("attention.sliding_window");
    const std::vector<bool> sees_window = file.pattern(s, "attention.sliding_window_pattern", has_windows ? 4 : 1);

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t layer) {
        const bool windows = has_windows && sees_window[static_cast<size_t>(layer)];
        const auto [q0, k0, v] = b.linear(x, Linear("attn_q", "self_attn.q_proj", s.q_dim()),
                                          Linear("attn_k", "self_attn.k_proj", s.kv_dim()),
                                          Linear("attn_v", "self_attn.v_proj", s.kv_dim()));
        const Value q = b.norm(q0, Rms("attn_q_norm", "self_attn.q_norm", eps));
        const Value k = b.norm(k0, Rms("attn_k_norm", "self_attn.k_norm", eps));
        const auto [qr, kr] = b.rope(windows ? window_rope : rope, q, k);
        const Value o = b.attention(qr, kr, v, windows ? windowed : s.attention());
        const Value ya = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd));
        const Value mid = b.norm(ya, Rms("post_attention_norm", "post_attention_layernorm", eps), plus(x));
        const auto [gate, up] =
            b.linear(mid, Linear("ffn_gate", "mlp.gate_proj", s.n_ff), Linear("ffn_up", "mlp.up_proj", s.n_ff));
        const Value h = b.gated(Act::silu, gate, up);
        const Value yf = b.linear(h, Linear("ffn_down", "mlp.down_proj", s.n_embd));
        return b.norm(yf, Rms("post_ffw_norm", "post_feedforward_layernorm", eps), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Rms("output_norm", "model.norm", eps));
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace lorica
