// BERT, MiniLM, DistilBERT and RoBERTa (Devlin et al. 2018; Sanh et al. 2019; Liu et al. 2019): every token sees the
// whole text, positions are learned, norms come behind each half. GGUF has all of them as "bert". Of the three, which
// differ in the names of Hugging Face's tensors and in how a classifier begins, DistilBERT is the one without types of
// tokens, and RoBERTa the one with byte-level BPE; the rows of its positions that belong to padding are not in the
// file.
#include "common/error.h"
#include "model/arch/architectures.h"

namespace lorica {

namespace {

// Hugging Face's names of the parts of a block.
struct LayerNames {
    const char *q, *k, *v, *o, *attention_norm, *up, *down, *output_norm;
};
constexpr LayerNames of_bert = {
    "attention.self.query",       "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense",         "output.LayerNorm"};
constexpr LayerNames of_distilbert = {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
                                      "sa_layer_norm",   "ffn.lin1",        "ffn.lin2",        "output_layer_norm"};

ClassifierSpec classifier_of(const Reader & file, bool is_roberta, bool has_types) {
    ClassifierSpec c;
    c.token = ClassifierSpec::first;
    c.bias = true;
    if (is_roberta) {
        c.dense = {"cls", "classifier.dense"};
        c.out.hf = "classifier.out_proj";
    } else if (has_types) {
        c.dense = {"cls", "bert.pooler.dense"};
        c.trains_dense = !file.has_tensor("cls.weight");
        c.out.hf = "classifier";
    } else {
        c.dense = {"cls", "pre_classifier"};
        c.out.hf = "classifier";
        c.act = Act::relu;
    }
    return c;
}

}  // namespace

Architecture bert(const Reader & file) {
    const Shape s = file.shape();
    const double eps = file.positive("attention.layer_norm_epsilon", 1e-12);
    file.check_keys({"attention.causal", "classifier.activation"});
    if (file.boolean("attention.causal", false)) {
        fail(LORICA_ERROR_UNSUPPORTED, file.file().path(),
             ": bert.attention.causal is true; an encoder looks both ways");
    }
    const std::string tokenizer = file.file().find_string("tokenizer.ggml.model").value_or("bert");
    const bool has_types = !file.lists_tensors() || file.has_tensor("token_types.weight");
    const bool is_roberta = has_types && (tokenizer == "gpt2" || tokenizer == "t5");
    const bool is_distilbert = !has_types;
    const std::string root = is_roberta ? "roberta." : is_distilbert ? "distilbert." : "bert.";
    const LayerNames & names = is_distilbert ? of_distilbert : of_bert;
    const int32_t n_types = file.n_token_types();
    const auto linear = [](const char * gguf, const char * hf, int64_t out) { return Linear(gguf, hf, out).bias(); };
    AttentionSpec both_ways = s.attention();
    both_ways.mask.ahead = MaskSpec::all;

    Describe d(s);
    d.prologue([&](Block & b) {
        const std::string e = root + "embeddings.";
        const Value x = b.embed({"token_embd", e + "word_embeddings"}, s.n_vocab, s.n_embd);
        const Value xp = b.positions(x, {"position_embd", e + "position_embeddings"}, s.n_ctx_train);
        const Value xt = has_types ? b.types(xp, {"token_types", e + "token_type_embeddings"}, n_types) : xp;
        return b.norm(xt, Layer("token_embd_norm", e + "LayerNorm", eps).bias());
    });
    const std::string layers = is_distilbert ? "transformer.layer.{}" : "encoder.layer.{}";
    d.layers("blk.{}", root + layers, [&](Block & b, Value x, int32_t) {
        const auto [q, k, v] = b.linear(x, linear("attn_q", names.q, s.n_embd), linear("attn_k", names.k, s.n_embd),
                                        linear("attn_v", names.v, s.n_embd));
        const Value o = b.attention(q, k, v, both_ways);
        const Value sum = b.linear(o, linear("attn_output", names.o, s.n_embd), plus(x));
        const Value mid = b.norm(sum, Layer("attn_output_norm", names.attention_norm, eps).bias());
        const Value up = b.linear(mid, linear("ffn_up", names.up, s.n_ff));
        const Value h = b.activation(Act::gelu_erf, up);
        const Value sum2 = b.linear(h, linear("ffn_down", names.down, s.n_embd), plus(mid));
        return b.norm(sum2, Layer("layer_output_norm", names.output_norm, eps).bias());
    });
    d.epilogue([](Block &, Value x) { return x; });
    d.classifier(classifier_of(file, is_roberta, has_types));
    return d.done();
}

}  // namespace lorica
