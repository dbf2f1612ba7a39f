package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.BooleanNode;
import com.fasterxml.jackson.databind.node.DoubleNode;
import com.fasterxml.jackson.databind.node.IntNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.TestModels;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * No setting is dropped without a word: every key that transformers' class of a family knows is changed, and either the file that
 * the conversion gives is another one, or the conversion refuses, or the key changes nothing that a model computes. A key that is not
 * there means what it means to transformers. scripts/make_convert_goldens.py wrote what transformers takes.
 */
class ConfigKeysTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** What a model is called, how it is trained, run and generated with, and heads of other tasks. */
    private static final Set<String> CHANGE_NOTHING = Set.of(
            "_name_or_path", // the file's name alone
            "transformers_version",
            "dtype",
            "model_type", // the class is told by "architectures"
            "initializer_range",
            "use_cache",
            "chunk_size_feed_forward",
            "is_encoder_decoder",
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "problem_type",
            "id2label",
            "label2id",
            "pretraining_tp", // another order of the same sums
            "reorder_and_upcast_attn", // the precision of attention
            "attention_dropout",
            "hidden_dropout",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "classifier_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
            "dropout",
            "qa_dropout",
            "seq_classif_dropout",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj");

    /** Keys that others, which are there as well, make idle in a family; those of tokens are told by the tokenizer's files. */
    private static Set<String> idle(String name) {
        Set<String> keys = new TreeSet<>(Set.of("bos_token_id", "eos_token_id", "pad_token_id"));
        switch (name) {
            case "qwen2", "qwen2_yarn", "qwen3", "smollm3" -> // use_sliding_window is false
                keys.addAll(Set.of("sliding_window", "max_window_layers"));
            case "falcon_7b" -> keys.add("num_kv_heads"); // multi_query
            case "falcon_40b" -> keys.addAll(Set.of("multi_query", "parallel_attn")); // new_decoder_architecture
            case "gptneox", "gptneox_serial" -> keys.add("is_decoder"); // transformers never reads it
            case "gemma3" -> // layer_types tells; rows of the embedding without a token are cut
                keys.addAll(Set.of("_sliding_window_pattern", "vocab_size"));
            case "phi3", "phi4_mini" -> // that of the configuration goes before
                keys.add("rope_parameters.original_max_position_embeddings");
            case "bert", "distilbert", "roberta" -> // the words of masked places are not predicted
                keys.addAll(Set.of("tie_word_embeddings", "sinusoidal_pos_embds"));
            default -> {}
        }
        return keys;
    }

    @TempDir
    Path folder;

    static List<String> models() {
        return Stream.concat(TestModels.families().stream(), Stream.of("bert", "distilbert", "roberta"))
                .toList();
    }

    @ParameterizedTest
    @MethodSource("models")
    void everyKeyIsObeyedOrRefusedOrChangesNothing(String name) throws IOException {
        ObjectNode config = prepare(name);
        byte[] plain = converted(config).file();
        assertThat(plain).isNotNull();
        Map<String, JsonNode> keys = new LinkedHashMap<>();
        defaults(name).fields().forEachRemaining(entry -> keys.put(entry.getKey(), entry.getValue()));
        config.fields().forEachRemaining(entry -> keys.put(entry.getKey(), entry.getValue()));

        Set<String> dropped = new TreeSet<>();
        keys.forEach((key, value) -> {
            if (CHANGE_NOTHING.contains(key)) {
                return;
            }
            for (Change change : changes(key, value)) {
                if (Arrays.equals(
                        plain,
                        converted(config.deepCopy().set(key, change.value())).file())) {
                    dropped.add(change.path());
                }
            }
        });
        dropped.removeAll(idle(name));
        assertThat(dropped).isEmpty();

        Result unknown = converted(config.deepCopy().put("residual_gain", 2));
        assertThat(unknown.message()).contains("residual_gain, which is not known, is 2");
    }

    @ParameterizedTest
    @MethodSource("models")
    void aKeyThatIsNotThereMeansWhatTransformersTakes(String name) throws IOException {
        ObjectNode config = prepare(name);
        List<String> other = new ArrayList<>();
        defaults(name).fields().forEachRemaining(entry -> {
            String key = entry.getKey();
            if (!config.has(key) || CHANGE_NOTHING.contains(key) || idle(name).contains(key)) {
                return;
            }
            Result without = converted((ObjectNode) config.deepCopy().without(key));
            Result with = converted(config.deepCopy().set(key, entry.getValue()));
            if (without.file() != null && !Arrays.equals(without.file(), with.file())) {
                other.add(key + ": " + without.message() + " / " + with.message());
            }
        });
        assertThat(other).isEmpty();
    }

    /** @param file {@code null} where it was refused */
    private record Result(byte[] file, String message) {}

    private Result converted(ObjectNode config) {
        Path output = folder.resolve("model.gguf");
        try {
            JSON.writeValue(folder.resolve("source/config.json").toFile(), config);
            HuggingFaceConverter.convert(folder.resolve("source"), output, "F16");
            return new Result(Files.readAllBytes(output), "");
        } catch (LoricaException e) {
            return new Result(null, e.getMessage());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A copy of the folder, and its configuration. */
    private ObjectNode prepare(String name) throws IOException {
        Path golden = resources().resolve(name);
        Path copy = Files.createDirectory(folder.resolve("source"));
        try (Stream<Path> files = Files.list(golden)) {
            for (Path file : files.filter(Files::isRegularFile).toList()) {
                Files.copy(file, copy.resolve(file.getFileName()));
            }
        }
        return (ObjectNode) JSON.readTree(golden.resolve("config.json").toFile());
    }

    private static ObjectNode defaults(String name) throws IOException {
        return (ObjectNode)
                JSON.readTree(resources().resolve("defaults.json").toFile()).get(name);
    }

    private static Path resources() {
        return TestModels.repository("java/lorica-core/src/test/resources/convert");
    }

    /** @param path of the key that is changed: {@code rope_parameters.factor} */
    private record Change(String path, JsonNode value) {}

    /** Other values for a value; where it is none, one of each kind. */
    private static List<Change> changes(String path, JsonNode value) {
        List<Change> changes = new ArrayList<>();
        if (value.isBoolean()) {
            changes.add(new Change(path, BooleanNode.valueOf(!value.asBoolean())));
        } else if (value.isIntegralNumber()) {
            changes.add(new Change(path, IntNode.valueOf(value.asInt() + 1)));
        } else if (value.isNumber()) {
            changes.add(new Change(path, DoubleNode.valueOf(1.5 * value.asDouble() + 0.25)));
        } else if (value.isTextual()) {
            changes.add(new Change(path, TextNode.valueOf("relu")));
        } else if (value.isArray() && !value.isEmpty()) {
            for (Change change : changes(path, value.get(0))) {
                ArrayNode other = value.deepCopy();
                other.set(0, change.value());
                changes.add(new Change(path, other));
            }
        } else if (value.isObject()) {
            value.fields().forEachRemaining(entry -> {
                for (Change change : changes(path + "." + entry.getKey(), entry.getValue())) {
                    ObjectNode other = value.deepCopy();
                    other.set(entry.getKey(), change.value());
                    changes.add(new Change(change.path(), other));
                }
            });
            ObjectNode more = value.deepCopy();
            changes.add(new Change(path + ".a_setting", more.put("a_setting", 2)));
        } else {
            for (JsonNode one : List.of(IntNode.valueOf(2), BooleanNode.TRUE, TextNode.valueOf("relu"))) {
                changes.add(new Change(path, one));
            }
        }
        return changes;
    }
}
