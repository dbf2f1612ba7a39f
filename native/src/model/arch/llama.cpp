// Llama 2 and 3, Mistral, SmolLM2 and others that are stored as "llama" (Touvron et al. 2023, "LLaMA", section 2.2;
// grouped-query attention: Ainslie et al. 2023). Some have biases, which the tensors of the first layer tell; Mistral
// 7B v0.1 has a window (Jiang et al. 2023, section 2).
#include "model/arch/architectures.h"

namespace lorica {

namespace {

Architecture llama_with(const Reader & file, double temperature) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-5);
    file.refuse_experts();
    const RopeSpec rope = file.rope(s, false);
    RopeSpec rope_of_q = rope;
    if (temperature != 0) {
        rope_of_q.temperature = temperature;
        rope_of_q.temperature_length = file.original_context();
    }
    AttentionSpec attention = s.attention();
    attention.mask = file.window("attention.sliding_window");
    const auto linear = [&](const std::string & gguf, std::string hf, int64_t out) {
        return Linear(gguf, std::move(hf), out).bias(file.has_tensor("blk.0." + gguf + ".bias"));
    };

    Describe d(s);
    d.prologue([&](Block & b) { return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const auto [q, k, v] =
            b.linear(n1, linear("attn_q", "self_attn.q_proj", s.q_dim()).rope_rows(s.n_head, s.head_dim),
                     linear("attn_k", "self_attn.k_proj", s.kv_dim()).rope_rows(s.n_head_kv, s.head_dim),
                     linear("attn_v", "self_attn.v_proj", s.kv_dim()));
        Value qr, kr;
        if (temperature == 0) {
            const auto [both_q, both_k] = b.rope(rope, q, k);
            qr = both_q, kr = both_k;
        } else {
            qr = b.rope(rope_of_q, q);
            kr = b.rope(rope, k);
        }
        const Value o = b.attention(qr, kr, v, attention);
        const Value mid = b.linear(o, linear("attn_output", "self_attn.o_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Rms("ffn_norm", "post_attention_layernorm", eps));
        const auto [gate, up] =
            b.linear(n2, linear("ffn_gate", "mlp.gate_proj", s.n_ff), linear("ffn_up", "mlp.up_proj", s.n_ff));
        const Value h = b.gated(Act::silu, gate, up);
        return b.linear(h, linear("ffn_down", "mlp.down_proj", s.n_embd), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) {
        const Value normed = b.norm(x, Rms("output_norm", "model.norm", eps));
        return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd");
    });
    return d.done();
}

}  // namespace

Architecture llama(const Reader & file) {
    file.check_keys({"attention.sliding_window"});
    return llama_with(file, 0);
}

Architecture mistral3(const Reader & file) {
    file.check_keys({"attention.sliding_window", "attention.temperature_scale"});
    return llama_with(file, file.number("attention.temperature_scale", 0));
}

}  // namespace lorica
