package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.exceptions.FileFormatException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.IntStream;

/**
 * What llama.cpp's GGUF files have of each family: the keys that hold the settings of a {@code config.json}. Tensors are those of the
 * engine's description of the architecture, which is asked for as soon as its numbers are known. One method per family.
 */
final class Families {
    /** Says all of a model into the layout, and of every setting whether it is kept. */
    @FunctionalInterface
    interface Family {
        void describe(HuggingFaceConfig config, Layout layout);
    }

    private static final String EMBEDDING_OF_WORDS = "embeddings.word_embeddings.weight";
    private static final String[] LLAMA_ROOTS = {"model.", "model.language_model.", "language_model.model.", ""};
    private static final String CAUSAL = "ForCausalLM";
    private static final Map<String, Family> BY_ARCHITECTURE = new LinkedHashMap<>();

    static {
        BY_ARCHITECTURE.put("LlamaForCausalLM", Families::llama);
        BY_ARCHITECTURE.put("MistralForCausalLM", Families::llama);
        BY_ARCHITECTURE.put("Ministral3ForCausalLM", Families::mistral3);
        BY_ARCHITECTURE.put("Mistral3ForConditionalGeneration", Families::mistral3);
        BY_ARCHITECTURE.put("Qwen2ForCausalLM", Families::qwen2);
        BY_ARCHITECTURE.put("Qwen3ForCausalLM", Families::qwen3);
        BY_ARCHITECTURE.put("GraniteForCausalLM", Families::granite);
        BY_ARCHITECTURE.put("SmolLM3ForCausalLM", Families::smollm3);
        BY_ARCHITECTURE.put("Phi3ForCausalLM", Families::phi3);
        BY_ARCHITECTURE.put("GPT2LMHeadModel", Families::gpt2);
        BY_ARCHITECTURE.put("FalconForCausalLM", Families::falcon);
        BY_ARCHITECTURE.put("GPTNeoXForCausalLM", Families::gptNeoX);
        BY_ARCHITECTURE.put("GemmaForCausalLM", Families::gemma);
        BY_ARCHITECTURE.put("Gemma2ForCausalLM", Families::gemma2);
        BY_ARCHITECTURE.put("Gemma3ForCausalLM", Families::gemma3);
        BY_ARCHITECTURE.put("Gemma3ForConditionalGeneration", Families::gemma3);
        BY_ARCHITECTURE.put("Olmo2ForCausalLM", Families::olmo2);
        BY_ARCHITECTURE.put("Olmo3ForCausalLM", Families::olmo3);
        BY_ARCHITECTURE.put("BertModel", Families::bert);
        BY_ARCHITECTURE.put("BertForMaskedLM", Families::bert);
        BY_ARCHITECTURE.put("BertForSequenceClassification", Families::bert);
        BY_ARCHITECTURE.put("RobertaModel", Families::roberta);
        BY_ARCHITECTURE.put("RobertaForMaskedLM", Families::roberta);
        BY_ARCHITECTURE.put("RobertaForSequenceClassification", Families::roberta);
        BY_ARCHITECTURE.put("DistilBertModel", Families::distilBert);
        BY_ARCHITECTURE.put("DistilBertForMaskedLM", Families::distilBert);
        BY_ARCHITECTURE.put("DistilBertForSequenceClassification", Families::distilBert);
        // Granite has none.
        List<String> decoders = BY_ARCHITECTURE.keySet().stream()
                .filter(name -> name.endsWith(CAUSAL) && !name.startsWith("Granite"))
                .toList();
        decoders.forEach(name ->
                BY_ARCHITECTURE.put(name.replace(CAUSAL, "ForSequenceClassification"), BY_ARCHITECTURE.get(name)));
        BY_ARCHITECTURE.put("GPT2ForSequenceClassification", Families::gpt2);
        BY_ARCHITECTURE.put("Gemma3TextForSequenceClassification", Families::gemma3);
    }

    private Families() {}

    /** @return {@code null} for an architecture that is not known */
    static Family of(String architecture) {
        return BY_ARCHITECTURE.get(architecture);
    }

    static Set<String> names() {
        return new TreeSet<>(BY_ARCHITECTURE.keySet());
    }

    // ---- Llama and what is made like it

    private static void llama(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 0);
        Decoder decoder = new Decoder(config, layout.architecture("llama"), shape);
        if (config.flag("attention_bias", false)) {
            decoder.tensors.present("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias");
        }
        if (config.flag("mlp_bias", false)) {
            decoder.tensors.present("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias");
        }
        decoder.write(1e-6, 10000, false);
        // llama.cpp knows no window of Llama's; Lorica reads it. Mistral's class has one where a configuration says
        // nothing.
        boolean isMistral = config.json().path("architectures").path(0).asText().startsWith("Mistral");
        if (isMistral && !config.json().has("sliding_window")) {
            layout.set("attention.sliding_window", 4096);
        }
        window(config, layout);
        config.harmless("max_window_layers");
    }

    private static void mistral3(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 0);
        Decoder decoder = new Decoder(config, layout.architecture("mistral3"), shape);
        decoder.tensors.as("llama");
        Rope rope = decoder.write(1e-5, 1e6, false);
        JsonNode told = config.node("rope_parameters");
        if (told.isMissingNode() && !config.has("rope_scaling")) {
            config.refuse("rope_parameters is missing");
        }
        if (told.hasNonNull("llama_4_scaling_beta")) {
            layout.set("attention.temperature_scale", rope.number("llama_4_scaling_beta"));
        }
        window(config, layout);
        config.only("model_type", "ministral3", "mistral", "mistral3");
    }

    private static void qwen2(HuggingFaceConfig config, Layout layout) {
        Decoder decoder = new Decoder(config, layout.architecture("qwen2"), Shape.of(config, 0));
        decoder.write(1e-6, 10000, false);
        noWindow(config);
        config.only("use_mrope", false);
    }

    private static void qwen3(HuggingFaceConfig config, Layout layout) {
        Decoder decoder = new Decoder(config, layout.architecture("qwen3"), Shape.of(config, 128));
        decoder.write(1e-6, 10000, false);
        config.only("attention_bias", false);
        noWindow(config);
    }

    private static void granite(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 0);
        if (shape.q() != shape.embedding()) {
            config.refuse("head_dim is " + shape.headDim() + " for " + shape.heads() + " heads of " + shape.embedding()
                    + " features");
        }
        Decoder decoder = new Decoder(config, layout.architecture("granite"), shape);
        config.only("attention_bias", false);
        config.only("mlp_bias", false);
        decoder.write(1e-6, 10000, false);
        layout.set("attention.scale", config.number("attention_multiplier", 1))
                .set("embedding_scale", config.number("embedding_multiplier", 1))
                .set("residual_scale", config.number("residual_multiplier", 1))
                .set("logit_scale", config.number("logits_scaling", 1));
    }

    private static void smollm3(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 0);
        new Decoder(config, layout.architecture("smollm3"), shape).write(1e-6, 2e6, true);
        config.only("attention_bias", false);
        config.only("mlp_bias", false);
        config.only("no_rope_layer_interval", 4);
        noWindow(config);
        // No key says which layers have no RoPE; llama.cpp leaves it out of every fourth.
        JsonNode rotated = config.node("no_rope_layers");
        boolean everyFourth = IntStream.range(0, shape.layers())
                .allMatch(i -> rotated.path(i).asInt(0) == ((i + 1) % 4 == 0 ? 0 : 1));
        if (rotated.isArray() && !everyFourth) {
            config.refuse("no_rope_layers is " + JsonFiles.shown(rotated) + ", not every fourth layer");
        }
    }

    // ---- Phi-3: q, k and v are one tensor, gate and up another

    private static void phi3(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 0);
        layout.architecture("phi3").root("embed_tokens.weight", LLAMA_ROOTS);
        shape.writeTo(layout, config.positive("max_position_embeddings"));
        new DescribedTensors(layout).head(config, false).write();
        layout.set("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", 1e-5));

        Rope rope = Rope.of(config, 10000);
        int dims = (int) (shape.headDim() * rope.partialFactor(1));
        int context = config.positive("max_position_embeddings");
        int original = config.positive("original_max_position_embeddings", 4096);
        if (Set.of("longrope", "su", "yarn").contains(rope.type())) { // Phi-3 calls it by all three names
            rope.writeLongRope(layout, dims, context, original);
        } else {
            rope.writeTo(layout, dims, context);
            if (layout.metadata().keySet().stream().anyMatch(key -> key.contains(".scaling."))) {
                config.refuse("RoPE scaling of type \"" + rope.type() + "\" in a Phi-3");
            }
            layout.set("rope.scaling.original_context_length", original);
        }
        layout.set("attention.sliding_window", config.positive("sliding_window", 0));
        config.only("hidden_act", "silu");
        config.only("attention_bias", false);
        config.only("lm_head_bias", false);
        config.only("mlp_bias", false);
        config.only("full_attn_mod", 1);
        config.harmless("interpolate_factor");
    }

    // ---- GPT-2, Falcon, GPT-NeoX: LayerNorm, a fused q, k and v, no gate

    private static void gpt2(HuggingFaceConfig config, Layout layout) {
        layout.architecture("gpt2").root("wte.weight", "transformer.", "");
        int layers = config.positive("n_layer");
        int embedding = config.positive("n_embd");
        int heads = config.positive("n_head");
        int context = config.positive("n_positions");
        int vocabulary = config.positive("vocab_size");
        int feedForward = config.positive("n_inner", Math.multiplyExact(4, embedding));
        layout.set("block_count", layers)
                .set("context_length", context)
                .set("embedding_length", embedding)
                .set("feed_forward_length", feedForward)
                .set("attention.head_count", heads)
                .set("attention.layer_norm_epsilon", config.number("layer_norm_epsilon", 1e-5))
                .set("vocab_size", vocabulary);
        new DescribedTensors(layout).head(config, true).write();
        layout.ignore(name -> name.endsWith(".attn.bias") || name.endsWith(".attn.masked_bias"));
        config.only("activation_function", "gelu_new", "gelu_pytorch_tanh");
        config.only("n_ctx", context);
        config.only("scale_attn_weights", true);
        config.only("scale_attn_by_inverse_layer_idx", false);
        config.only("add_cross_attention", false);
        // In which precision attention is computed; and heads of other tasks.
        config.harmless(
                "reorder_and_upcast_attn",
                "summary_type",
                "summary_use_proj",
                "summary_activation",
                "summary_proj_to_labels",
                "summary_first_dropout");
    }

    private static void falcon(HuggingFaceConfig config, Layout layout) {
        layout.architecture("falcon").root("word_embeddings.weight", "transformer.", "");
        int layers = config.positive("num_hidden_layers");
        int embedding = config.positive("hidden_size");
        int heads = config.positive("num_attention_heads");
        int vocabulary = config.positive("vocab_size");
        boolean grouped = config.flag("new_decoder_architecture", false);
        boolean single = config.flag("multi_query", true);
        int kvHeads = grouped ? config.positive("num_kv_heads", heads) : single ? 1 : heads;
        config.harmless("num_kv_heads");
        int headDim = embedding / heads;
        int feedForward = config.positive("ffn_hidden_size", Math.multiplyExact(4, embedding));
        if (heads % kvHeads != 0 || headDim < 2) {
            throw new FileFormatException(config.file() + ": " + heads + " heads and " + kvHeads + " of keys share "
                    + embedding + " features");
        }
        boolean twoNorms = grouped && config.positive("num_ln_in_parallel_attn", 2) == 2;
        if (!grouped) {
            config.only("num_ln_in_parallel_attn", 1);
        }
        int context = config.positive("max_position_embeddings", 2048);
        layout.set("context_length", context)
                .set("tensor_data_layout", "jploski")
                .set("embedding_length", embedding)
                .set("feed_forward_length", feedForward)
                .set("block_count", layers)
                .set("attention.head_count", heads)
                .set("attention.head_count_kv", kvHeads)
                .set("attention.layer_norm_epsilon", config.number("layer_norm_epsilon", 1e-5))
                .set("vocab_size", vocabulary);
        new DescribedTensors(layout)
                .present(twoNorms ? "attn_norm_2.weight" : "attn_norm.weight")
                .head(config, true)
                .write();
        Rope.of(config, 10000).writeTo(layout, headDim, context);
        config.only("alibi", false);
        config.only("bias", false);
        config.only("activation", "gelu");
        config.only("apply_residual_connection_post_layernorm", false);
        if (!grouped) {
            config.only("parallel_attn", true);
        }
        config.harmless("parallel_attn");
    }

    private static void gptNeoX(HuggingFaceConfig config, Layout layout) {
        layout.architecture("gptneox").root("embed_in.weight", "gpt_neox.", "");
        int layers = config.positive("num_hidden_layers");
        int embedding = config.positive("hidden_size");
        int heads = config.positive("num_attention_heads");
        int feedForward = config.positive("intermediate_size");
        int vocabulary = config.positive("vocab_size");
        int headDim = embedding / heads;
        layout.ignore(name -> name.endsWith(".attention.bias")
                || name.endsWith(".attention.masked_bias")
                || name.endsWith(".rotary_emb.inv_freq"));
        int context = config.positive("max_position_embeddings");
        layout.set("context_length", context)
                .set("embedding_length", embedding)
                .set("block_count", layers)
                .set("feed_forward_length", feedForward)
                .set("attention.head_count", heads)
                .set("use_parallel_residual", config.flag("use_parallel_residual", true))
                .set("attention.layer_norm_epsilon", config.number("layer_norm_eps", 1e-5))
                .set("vocab_size", vocabulary);
        new DescribedTensors(layout).head(config, false).write();
        Rope rope = Rope.of(config, "full_attention", "rotary_emb_base", 10000);
        rope.writeTo(layout, (int) (headDim * rope.partialFactor(config.number("rotary_pct", 0.25))), context);
        config.only("hidden_act", "gelu");
        config.only("attention_bias", true);
        config.only("is_decoder", true, false);
        config.only("rope_theta", rope.base());
    }

    // ---- Gemma: norms multiply by 1 + w, the gate is a GELU

    private static void gemma(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 256);
        Decoder decoder = new Decoder(config, layout.architecture("gemma"), shape);
        decoder.gemma(false);
        decoder.write(1e-6, 10000, true);
    }

    private static void gemma2(HuggingFaceConfig config, Layout layout) {
        Shape shape = Shape.of(config, 256);
        Decoder decoder = new Decoder(config, layout.architecture("gemma2"), shape);
        decoder.gemma(true);
        decoder.write(1e-6, 10000, true);
        // A file without the keys is read as if it had these, so that there is no way to write that there are none.
        Map.of("attn_logit_softcapping", 50.0, "final_logit_softcapping", 30.0).forEach((key, usual) -> {
            if (config.json().path(key).isNull()) {
                config.refuse(key + " is null");
            }
            layout.set(key, config.number(key, usual));
        });
        layout.set("attention.sliding_window", config.positive("sliding_window", 4096));
        scale(config, layout, shape);
        boolean[] sliding = slidingLayers(config, shape.layers(), 2);
        for (int i = 0; i < sliding.length; i++) {
            if (sliding[i] != (i % 2 == 0)) {
                config.refuse(
                        "layer_types is " + JsonFiles.shown(config.node("layer_types")) + ", not every other layer");
                break;
            }
        }
        config.harmless("sliding_window_size");
    }

    private static void gemma3(HuggingFaceConfig config, Layout layout) {
        Shape shape = new Shape(
                config.positive("num_hidden_layers", 26),
                config.positive("hidden_size", 2304),
                config.positive("num_attention_heads", 8),
                config.positive("num_key_value_heads", 4),
                config.positive("head_dim", 256),
                config.positive("intermediate_size", 9216),
                config.positive("vocab_size", 262208));
        Decoder decoder = new Decoder(config, layout.architecture("gemma3"), shape);
        decoder.gemma(true);
        decoder.cutsVocabulary = true;
        decoder.context = 131072;
        decoder.write(1e-6, 1e6, true);
        int period = config.positive("sliding_window_pattern", config.positive("_sliding_window_pattern", 6));
        boolean[] sliding = slidingLayers(config, shape.layers(), period);
        layout.set("attention.sliding_window", config.positive("sliding_window", 4096));
        boolean[] usual = new boolean[sliding.length];
        for (int i = 0; i < usual.length; i++) {
            usual[i] = (i + 1) % 6 != 0;
        }
        if (!Arrays.equals(usual, sliding)) {
            layout.set("attention.sliding_window_pattern", sliding);
        }
        Rope local = Rope.of(config, "sliding_attention", "rope_local_base_freq", 10000);
        if (config.node("rope_parameters").has("sliding_attention")) {
            local.refuseScaling("layers with a window");
            layout.set("rope.freq_base_swa", local.base());
        } else {
            layout.set("rope.freq_base_swa", config.number("rope_local_base_freq", 10000));
        }
        scale(config, layout, shape);
        if (config.has("final_logit_softcapping")) {
            layout.set("final_logit_softcapping", config.number("final_logit_softcapping", 0));
        }
        if (config.has("attn_logit_softcapping")) {
            config.refuse("attn_logit_softcapping is " + config.number("attn_logit_softcapping", 0));
        }
    }

    /** llama.cpp takes the head's size; where the configuration says otherwise, the scale is written. */
    private static void scale(HuggingFaceConfig config, Layout layout, Shape shape) {
        double scalar = config.number("query_pre_attn_scalar", 256);
        if (scalar <= 0) {
            throw new FileFormatException(config.file() + ": query_pre_attn_scalar is " + scalar);
        }
        if (scalar != shape.headDim()) {
            layout.set("attention.scale", 1 / Math.sqrt(scalar));
        }
    }

    // ---- OLMo 2 and 3: norms behind attention and feed-forward, and over all of q and k

    private static void olmo2(HuggingFaceConfig config, Layout layout) {
        Decoder decoder = olmo(config, layout);
        decoder.write(1e-5, 10000, false);
    }

    private static void olmo3(HuggingFaceConfig config, Layout layout) {
        Decoder decoder = olmo(config, layout);
        decoder.write(1e-5, 500000, false);
        layout.set("attention.sliding_window", config.positive("sliding_window", 4096))
                .set("attention.sliding_window_pattern", slidingLayers(config, decoder.shape.layers(), 4));
        Rope local = Rope.of(config, "sliding_attention", "rope_theta", 500000);
        if (config.node("rope_parameters").has("sliding_attention")) {
            local.refuseScaling("layers with a window");
            double base = Rope.of(config, 500000).base();
            if (local.base() != base) {
                config.refuse(
                        "the RoPE's base is " + local.base() + " in layers with a window and " + base + " in others");
            }
        }
    }

    private static Decoder olmo(HuggingFaceConfig config, Layout layout) {
        Decoder decoder = new Decoder(config, layout.architecture("olmo2"), Shape.of(config, 0));
        config.only("attention_bias", false);
        return decoder;
    }

    // ---- encoders. What predicts masked words is no part of what they are tuned for, and is left out.

    private static void bert(HuggingFaceConfig config, Layout layout) {
        layout.architecture("bert").root(EMBEDDING_OF_WORDS, "bert.", "");
        DescribedTensors tensors = encoder(config, layout, 0).tokenizer("bert");
        tensors.classes(config);
        tensors.write();
        layout.ignore(name -> name.startsWith("cls.predictions.") || name.startsWith("cls.seq_relationship."));
    }

    private static void roberta(HuggingFaceConfig config, Layout layout) {
        layout.architecture("bert").root(EMBEDDING_OF_WORDS, "roberta.", "");
        int padding = config.json().path("pad_token_id").asInt(1);
        DescribedTensors tensors = encoder(config, layout, padding + 1).tokenizer("gpt2");
        tensors.classes(config);
        tensors.write();
        layout.ignore(name -> name.startsWith("lm_head."));
        // Of RobertaModel; RoBERTa was not trained with it, and its classifier takes the first token as it is.
        layout.ignore(name -> name.endsWith("pooler.dense.weight") || name.endsWith("pooler.dense.bias"));
    }

    /** @param firstPosition of a token: the rows before it belong to padding */
    private static DescribedTensors encoder(HuggingFaceConfig config, Layout layout, int firstPosition) {
        encoderKeys(
                layout,
                config.positive("num_hidden_layers"),
                config.positive("max_position_embeddings") - firstPosition,
                config.positive("hidden_size"),
                config.positive("intermediate_size"),
                config.positive("num_attention_heads"),
                config.positive("vocab_size"),
                config.number("layer_norm_eps", 1e-12));
        layout.setPlain("tokenizer.ggml.token_type_count", config.positive("type_vocab_size", 2));
        layout.ignore(name -> name.endsWith("embeddings.position_ids"));
        pooling(config, layout);
        config.only("hidden_act", "gelu");
        config.only("position_embedding_type", "absolute");
        config.only("is_decoder", false);
        config.only("add_cross_attention", false);
        config.harmless("tie_word_embeddings", "pad_token_id");
        return new DescribedTensors(layout).presentInModel("token_types.weight").firstPosition(firstPosition);
    }

    private static void distilBert(HuggingFaceConfig config, Layout layout) {
        layout.architecture("bert").root(EMBEDDING_OF_WORDS, "distilbert.", "");
        encoderKeys(
                layout,
                config.positive("n_layers"),
                config.positive("max_position_embeddings"),
                config.positive("dim"),
                config.positive("hidden_dim"),
                config.positive("n_heads"),
                config.positive("vocab_size"),
                1e-12);
        layout.setPlain("tokenizer.ggml.token_type_count", 1);
        DescribedTensors tensors = new DescribedTensors(layout).tokenizer("bert");
        if (layout.has("pre_classifier.weight")) {
            // BERT and RoBERTa have a tanh behind this layer, DistilBERT a ReLU, and llama.cpp no key for it.
            layout.set("classifier.activation", "relu");
        }
        tensors.classes(config);
        tensors.write();
        layout.ignore(name -> name.endsWith("embeddings.position_ids") || name.startsWith("vocab_"));
        pooling(config, layout);
        config.only("activation", "gelu");
        config.harmless("tie_weights_", "tie_word_embeddings", "sinusoidal_pos_embds");
    }

    private static void encoderKeys(
            Layout layout,
            int layers,
            int positions,
            int embedding,
            int feedForward,
            int heads,
            int vocabulary,
            double epsilon) {
        layout.set("block_count", layers)
                .set("context_length", positions)
                .set("embedding_length", embedding)
                .set("feed_forward_length", feedForward)
                .set("attention.head_count", heads)
                .set("attention.layer_norm_epsilon", epsilon)
                .set("attention.causal", false)
                .set("vocab_size", vocabulary);
    }

    /** How sentence-transformers makes one vector of a text. */
    private static void pooling(HuggingFaceConfig config, Layout layout) {
        JsonNode pooling =
                JsonFiles.readIfThere(config.file().resolveSibling("1_Pooling").resolve("config.json"));
        List<String> modes = List.of("pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_lasttoken");
        for (int i = 0; i < modes.size(); i++) {
            if (pooling.path(modes.get(i)).asBoolean(false)) {
                layout.set("pooling_type", i + 1);
            }
        }
    }

    // ---- parts

    /** Of all layers, where there is one. */
    private static void window(HuggingFaceConfig config, Layout layout) {
        if (config.has("sliding_window")) {
            layout.set("attention.sliding_window", config.positive("sliding_window"));
        }
    }

    /** A window is configured and switched off. */
    private static void noWindow(HuggingFaceConfig config) {
        config.only("use_sliding_window", false);
        config.harmless("sliding_window", "max_window_layers");
        for (JsonNode type : config.node("layer_types")) {
            if (!type.asText().equals("full_attention")) {
                config.refuse("layer_types has " + JsonFiles.shown(type));
                return;
            }
        }
    }

    private static boolean[] slidingLayers(HuggingFaceConfig config, int layers, int period) {
        boolean[] sliding = new boolean[layers];
        JsonNode types = config.node("layer_types");
        if (types.isArray() && types.size() != layers) {
            throw new FileFormatException(
                    config.file() + ": layer_types has " + types.size() + " entries for " + layers + " layers");
        }
        for (int i = 0; i < layers; i++) {
            String type = types.path(i).asText((i + 1) % period != 0 ? "sliding_attention" : "full_attention");
            if (!Set.of("sliding_attention", "full_attention").contains(type)) {
                config.refuse("layer_types has " + JsonFiles.shown(type));
            }
            sliding[i] = type.equals("sliding_attention");
        }
        return sliding;
    }

    /** The numbers that Llama's configurations and most after it have. */
    record Shape(int layers, int embedding, int heads, int kvHeads, int headDim, int feedForward, int vocabulary) {

        /** @param headDim where none is given; 0: features by heads */
        static Shape of(HuggingFaceConfig config, int headDim) {
            int layers = config.positive("num_hidden_layers");
            int embedding = config.positive("hidden_size");
            int heads = config.positive("num_attention_heads");
            int size = config.positive("head_dim", headDim > 0 ? headDim : embedding / heads);
            return new Shape(
                    layers,
                    embedding,
                    heads,
                    config.positive("num_key_value_heads", heads),
                    size,
                    config.positive("intermediate_size"),
                    config.positive("vocab_size"));
        }

        int q() {
            return Math.multiplyExact(heads, headDim);
        }

        int kv() {
            return Math.multiplyExact(kvHeads, headDim);
        }

        void writeTo(Layout layout, int context) {
            layout.set("block_count", layers)
                    .set("context_length", context)
                    .set("embedding_length", embedding)
                    .set("feed_forward_length", feedForward)
                    .set("attention.head_count", heads)
                    .set("attention.head_count_kv", kvHeads)
                    .set("vocab_size", vocabulary);
            if (q() != embedding) {
                layout.set("attention.key_length", headDim).set("attention.value_length", headDim);
            }
        }
    }

    /** What Llama's configurations and those after it have in common. */
    private static final class Decoder {
        private final HuggingFaceConfig config;
        private final Layout layout;
        private final Shape shape;
        private final DescribedTensors tensors;
        private boolean isGemma;
        private boolean cutsVocabulary;
        private int context;

        Decoder(HuggingFaceConfig config, Layout layout, Shape shape) {
            this.config = config;
            this.layout = layout;
            this.shape = shape;
            if (shape.headDim() < 2 || shape.headDim() % 2 != 0 || shape.heads() % shape.kvHeads() != 0) {
                throw new FileFormatException(config.file() + ": " + shape.heads() + " heads and " + shape.kvHeads()
                        + " of keys, of " + shape.headDim() + " features each");
            }
            tensors = new DescribedTensors(layout);
        }

        void gemma(boolean isLater) {
            isGemma = true;
            tensors.addedToNorms(1);
            config.only("attention_bias", false);
            config.only("use_bidirectional_attention", false);
            // The first Gemma's configuration says gelu; it was trained with the approximation, and is run with it.
            String activation = config.text("hidden_activation", config.text("hidden_act", "gelu_pytorch_tanh"));
            if (!activation.equals("gelu_pytorch_tanh") && (isLater || !activation.equals("gelu"))) {
                config.refuse("the activation is \"" + JsonFiles.shown(activation) + "\"");
            }
            config.harmless("hidden_act");
        }

        Rope write(double epsilon, double ropeBase, boolean tiedByDefault) {
            layout.root("embed_tokens.weight", LLAMA_ROOTS);
            layout.ignore(name ->
                    name.matches("(model\\.)?(vision_tower|multi_modal_projector)\\..*|.*\\.rotary_emb\\.inv_freq"));
            int length = context > 0
                    ? config.positive("max_position_embeddings", context)
                    : config.positive("max_position_embeddings");
            shape.writeTo(layout, length);
            if (cutsVocabulary) {
                layout.set("vocab_size", vocabularyOfTokenizer());
                tensors.cutsEmbedding();
            }
            layout.set("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", epsilon));
            tensors.head(config, tiedByDefault).write();
            Rope rope = Rope.of(config, ropeBase);
            rope.writeTo(layout, shape.headDim(), length);
            if (!isGemma) {
                config.only("hidden_act", "silu");
            }
            config.only("partial_rotary_factor", 1);
            return rope;
        }

        private int vocabularyOfTokenizer() {
            return layout.vocabulary() > 0 ? Math.min(layout.vocabulary(), shape.vocabulary()) : shape.vocabulary();
        }
    }
}
