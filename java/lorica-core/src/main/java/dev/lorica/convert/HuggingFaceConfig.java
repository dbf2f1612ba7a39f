package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * A {@code config.json} of which nothing is overlooked: every key is read by the family, known to change nothing, or refused by name.
 * All that is refused is told at once, by {@link #refuseRest}.
 */
final class HuggingFaceConfig {
    /** Of any model: what trains it, what generates with it, what it is called, and how transformers runs it. */
    private static final Set<String> HARMLESS = Set.of(
            "architectures",
            "model_type",
            "transformers_version",
            "torch_dtype",
            "dtype",
            "auto_map",
            "_name_or_path",
            "name_or_path",
            "tokenizer_class",
            "finetuning_task",
            "task_specific_params",
            "problem_type",
            "id2label",
            "label2id",
            "num_labels",
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "unk_token_id",
            "sep_token_id",
            "cls_token_id",
            "mask_token_id",
            "decoder_start_token_id",
            "initializer_range",
            "initializer_factor",
            "use_cache",
            "cache_implementation",
            "pretraining_tp",
            "attention_dropout",
            "hidden_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "classifier_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
            "dropout",
            "seq_classif_dropout",
            "qa_dropout",
            "embedding_dropout",
            "residual_dropout",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "torchscript",
            "use_bfloat16",
            "gradient_checkpointing",
            "attn_implementation",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_flash_attn_2_enabled",
            "use_flash_attn",
            "chunk_size_feed_forward",
            "tie_encoder_decoder",
            "is_encoder_decoder",
            "prefix",
            "max_length",
            "min_length",
            "max_new_tokens",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "unsloth_fixed",
            "unsloth_version",
            "pruned_heads",
            "rescale_every");

    private final Path file;
    private final JsonNode json;
    private final Set<String> known = new HashSet<>(HARMLESS);
    private final List<String> refused = new ArrayList<>();

    /** A model that also sees or hears has its language model's settings in {@code text_config}. */
    HuggingFaceConfig(Path file, JsonNode json) {
        this.file = file;
        if (json.path("text_config").isObject()) {
            ObjectNode merged = json.deepCopy();
            merged.setAll((ObjectNode) json.get("text_config"));
            this.json = merged;
            known.addAll(Set.of(
                    "text_config",
                    "vision_config",
                    "audio_config",
                    "image_token_index",
                    "image_token_id",
                    "boi_token_index",
                    "eoi_token_index",
                    "boi_token_id",
                    "eoi_token_id",
                    "mm_tokens_per_image",
                    "vision_feature_layer",
                    "multimodal_projector_bias",
                    "projector_hidden_act",
                    "spatial_merge_size"));
        } else {
            this.json = json;
        }
    }

    Path file() {
        return file;
    }

    JsonNode json() {
        return json;
    }

    /** Whether a key is there and not {@code null}. */
    boolean has(String key) {
        known.add(key);
        return json.hasNonNull(key);
    }

    JsonNode node(String key) {
        known.add(key);
        return json.path(key);
    }

    int positive(String key) {
        JsonNode value = node(key);
        if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
            throw new FileFormatException(
                    file + ": " + key + " is " + (value.isMissingNode() ? "missing" : JsonFiles.shown(value))
                            + "; a whole number from 1 is needed");
        }
        return value.asInt();
    }

    int positive(String key, int otherwise) {
        return has(key) ? positive(key) : otherwise;
    }

    double number(String key, double otherwise) {
        return has(key) ? number(json.get(key), key) : otherwise;
    }

    double number(JsonNode value, String what) {
        if (!value.isNumber() || !Double.isFinite(value.asDouble())) {
            throw new FileFormatException(file + ": " + what + " is "
                    + (value.isMissingNode() ? "missing" : JsonFiles.shown(value)) + "; a number is needed");
        }
        return value.asDouble();
    }

    boolean flag(String key, boolean otherwise) {
        if (!has(key)) {
            return otherwise;
        }
        if (!json.get(key).isBoolean()) {
            throw new FileFormatException(
                    file + ": " + key + " is " + JsonFiles.shown(json.get(key)) + ", not true or false");
        }
        return json.get(key).asBoolean();
    }

    String text(String key, String otherwise) {
        return has(key) ? json.get(key).asText() : otherwise;
    }

    /** A key that, where it is there, must have one of these values, as JSON writes them. */
    void only(String key, Object... allowed) {
        if (has(key)) {
            JsonNode value = json.get(key);
            String told = value.isNumber() ? Double.toString(value.asDouble()) : value.asText();
            boolean fits = Arrays.stream(allowed)
                    .map(one -> one instanceof Number number ? Double.toString(number.doubleValue()) : one.toString())
                    .anyMatch(told::equals);
            if (!fits) {
                refuse(key + " is " + JsonFiles.shown(value));
            }
        }
    }

    /** Keys that change nothing in this family. */
    void harmless(String... keys) {
        known.addAll(List.of(keys));
    }

    void refuse(String what) {
        refused.add(what);
    }

    void refuseRest() {
        json.fields().forEachRemaining(entry -> {
            if (!known.contains(entry.getKey()) && !entry.getValue().isNull()) {
                refused.add(JsonFiles.shown(entry.getKey()) + ", which is not known, is "
                        + JsonFiles.shown(entry.getValue()));
            }
        });
        if (!refused.isEmpty()) {
            throw new UnsupportedException(
                    file + " asks for what is not supported, and left out would give another model: "
                            + String.join("; ", refused));
        }
    }
}
