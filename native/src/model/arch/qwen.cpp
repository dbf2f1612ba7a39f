// Qwen 2, 2.5 and 3: Llama's block with rotations of halves. Qwen2 has biases on q, k and v (Yang et al. 2024, "Qwen2",
// section 2.2.1); Qwen3 a norm of each head of q and k instead (Yang et al. 2025, "Qwen3", section 2).
#include "model/arch/architectures.h"

namespace lorica {

namespace {

Architecture qwen(const Reader & file, bool biases, bool head_norms) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.refuse_experts();
    file.check_keys();
    const RopeSpec rope = file.rope(s, true);

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const auto [q0, k0, v] = b.linear(n1, Linear("attn_q", "self_attn.q_proj", s.q_dim()).bias(biases),
                                          Linear("attn_k", "self_attn.k_proj", s.kv_dim()).bias(biases),
                                          Linear("attn_v", "self_attn.v_proj", s.kv_dim()).bias(biases));
        Value q = q0, k = k0;
        if (head_norms) {
            q = b.norm(q0, Rms("attn_q_norm", "self_attn.q_norm", eps).per_head(s.n_head));
            k = b.norm(k0, Rms("attn_k_norm", "self_attn.k_norm", eps).per_head(s.n_head_kv));
        }
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, s.attention());
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

}  // namespace

Architecture qwen2(const Reader & file) { return qwen(file, true, false); }
Architecture qwen3(const Reader & file) { return qwen(file, false, true); }

}  // namespace lorica
