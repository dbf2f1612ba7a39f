// Gemma 1, 2 and 3, text (Gemma Team 2024 and 2025): the embedding grows by sqrt(n_embd), GELU gates, one head for
// embedding and output. Files hold the weights of norms with 1 added.
#include <cmath>

#include "model/arch/architectures.h"

namespace lorica {

namespace {

// What one layer of Gemma 2 and 3 has and the next may have otherwise.
struct Kind {
    RopeSpec rope;
    AttentionSpec attention;
};

Value embedding(Block & b, const Shape & s) {
    return b.embed({"token_embd", "model.embed_tokens"}, s.n_vocab, s.n_embd, std::sqrt(static_cast<double>(s.n_embd)));
}

Value head(Block & b, Value x, const Shape & s, double eps, double cap) {
    const Value normed = b.norm(x, Rms("output_norm", "model.norm", eps));
    return b.head(normed, {"output", "lm_head"}, s.n_vocab, "token_embd", {1, cap});
}

// Norms before and behind each half.
Value block(Block & b, Value x, const Shape & s, double eps, const Kind & kind, bool head_norms) {
    const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
    const auto [q0, k0, v] =
        b.linear(n1, Linear("attn_q", "self_attn.q_proj", s.q_dim()), Linear("attn_k", "self_attn.k_proj", s.kv_dim()),
                 Linear("attn_v", "self_attn.v_proj", s.kv_dim()));
    Value q = q0, k = k0;
    if (head_norms) {
        q = b.norm(q0, Rms("attn_q_norm", "self_attn.q_norm", eps).per_head(s.n_head));
        k = b.norm(k0, Rms("attn_k_norm", "self_attn.k_norm", eps).per_head(s.n_head_kv));
    }
    const auto [qr, kr] = b.rope(kind.rope, q, k);
    const Value o = b.attention(qr, kr, v, kind.attention);
    const Value ya = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd));
    const Value mid = b.norm(ya, Rms("post_attention_norm", "post_attention_layernorm", eps), plus(x));
    const Value n2 = b.norm(mid, Rms("ffn_norm", "pre_feedforward_layernorm", eps));
    const auto [gate, up] =
        b.linear(n2, Linear("ffn_gate", "mlp.gate_proj", s.n_ff), Linear("ffn_up", "mlp.up_proj", s.n_ff));
    const Value h = b.gated(Act::gelu_tanh, gate, up);
    const Value yf = b.linear(h, Linear("ffn_down", "mlp.down_proj", s.n_embd));
    return b.norm(yf, Rms("post_ffw_norm", "post_feedforward_layernorm", eps), plus(mid));
}

// 27B models, told by their layers, divide by the width per head instead of the size of a head.
double attention_scale(const Reader & file, const Shape & s, int32_t layers_of_27b) {
    const double size = s.n_layer == layers_of_27b ? static_cast<double>(s.n_embd) / s.n_head : s.head_dim;
    return file.positive("attention.scale", 1 / std::sqrt(size));
}

}  // namespace

Architecture gemma(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.check_keys();
    const RopeSpec rope = file.rope(s, true);

    Describe d(s);
    d.prologue([&](Block & b) { return embedding(b, s); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t) {
        const Value n1 = b.norm(x, Rms("attn_norm", "input_layernorm", eps));
        const auto [q, k, v] = b.linear(n1, Linear("attn_q", "self_attn.q_proj", s.q_dim()),
                                        Linear("attn_k", "self_attn.k_proj", s.kv_dim()),
                                        Linear("attn_v", "self_attn.v_proj", s.kv_dim()));
        const auto [qr, kr] = b.rope(rope, q, k);
        const Value o = b.attention(qr, kr, v, s.attention());
        const Value mid = b.linear(o, Linear("attn_output", "self_attn.o_proj", s.n_embd), plus(x));
        const Value n2 = b.norm(mid, Rms("ffn_norm", "post_attention_layernorm", eps));
        const auto [gate, up] =
            b.linear(n2, Linear("ffn_gate", "mlp.gate_proj", s.n_ff), Linear("ffn_up", "mlp.up_proj", s.n_ff));
        const Value h = b.gated(Act::gelu_tanh, gate, up);
        return b.linear(h, Linear("ffn_down", "mlp.down_proj", s.n_embd), plus(mid));
    });
    d.epilogue([&](Block & b, Value x) { return head(b, x, s, eps, 0); });
    return d.done();
}

// Every other layer sees a window alone, scores and logits are capped.
Architecture gemma2(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.check_keys({"attention.scale", "attention.sliding_window", "attention.sliding_window_pattern",
                     "attn_logit_softcapping", "final_logit_softcapping"});
    Kind full{file.rope(s, true), s.attention()};
    full.attention.scale = attention_scale(file, s, 46);
    full.attention.softcap = file.positive("attn_logit_softcapping", 50.0);
    Kind windowed = full;
    windowed.attention.mask = file.window("attention.sliding_window", 4096);
    const std::vector<bool> sees_window = file.pattern(s, "attention.sliding_window_pattern", 2);

    Describe d(s);
    d.prologue([&](Block & b) { return embedding(b, s); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t layer) {
        return block(b, x, s, eps, sees_window[static_cast<size_t>(layer)] ? windowed : full, false);
    });
    d.epilogue([&](Block & b, Value x) { return head(b, x, s, eps, file.positive("final_logit_softcapping", 30.0)); });
    return d.done();
}

// Five layers see a window, with a base of their own for rotations, and the sixth everything.
Architecture gemma3(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_rms_epsilon", 1e-6);
    file.check_keys({"attention.scale", "attention.sliding_window", "attention.sliding_window_pattern",
                     "final_logit_softcapping", "rope.freq_base_swa"});
    Kind full{file.rope(s, true), s.attention()};
    full.attention.scale = attention_scale(file, s, 62);
    Kind windowed = full;
    windowed.rope = file.unscaled_rope(s, true, file.positive("rope.freq_base_swa", 10000.0));
    windowed.attention.mask = file.window("attention.sliding_window");
    const std::vector<bool> sees_window = file.pattern(s, "attention.sliding_window_pattern", 6);

    Describe d(s);
    d.prologue([&](Block & b) { return embedding(b, s); });
    d.layers("blk.{}", "model.layers.{}", [&](Block & b, Value x, int32_t layer) {
        return block(b, x, s, eps, sees_window[static_cast<size_t>(layer)] ? windowed : full, true);
    });
    d.epilogue(
        [&](Block & b, Value x) { return head(b, x, s, eps, file.optional_positive("final_logit_softcapping")); });
    return d.done();
}

}  // namespace lorica
