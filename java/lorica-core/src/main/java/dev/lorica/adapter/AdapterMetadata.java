package dev.lorica.adapter;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Lorica;
import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.json.Json;
import java.io.CharConversionException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the side file of an adapter, {@value #FILE_NAME}, says about it. Everything but the first two may be {@code null}.
 *
 * @param loricaVersion version of the library that wrote it
 * @param baseModel     what it was trained on
 * @param method        what is trained
 * @param lora          what it was made with, of a LoRA
 * @param ia3           the same of an IA3
 * @param full          the same of full fine-tuning
 * @param promptTuning  the same of prompt tuning
 * @param encodedPrompt the same of P-tuning
 * @param prefixTuning  the same of prefix tuning
 * @param bottleneck    the same of bottlenecks
 * @param template      what stood around the prompts that it was trained on; generation puts the same there
 * @param special       the special tokens of the training examples
 * @param training      how it was trained, setting by setting; {@code TrainingConfig.of} reads it
 * @param result        what became of that; {@code TrainingResult.of} reads it
 */
public record AdapterMetadata(
        String loricaVersion,
        BaseModel baseModel,
        Method method,
        LoraConfig lora,
        Ia3Config ia3,
        FullConfig full,
        PromptTuningConfig promptTuning,
        @JsonProperty("p_tuning") PTuningConfig encodedPrompt,
        PrefixTuningConfig prefixTuning,
        BottleneckConfig bottleneck,
        PromptTemplate template,
        SpecialTokens special,
        Map<String, Object> training,
        Map<String, Object> result) {

    /**
     * Checks that there is a version and a base.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException if one of them is {@code null}
     */
    public AdapterMetadata {
        Arguments.given(loricaVersion, "loricaVersion");
        Arguments.given(baseModel, "baseModel");
    }

    private static final Logger LOG = LoggerFactory.getLogger(AdapterMetadata.class);

    /** Name of the side file in an adapter's folder. */
    public static final String FILE_NAME = "lorica_adapter.json";

    /**
     * A base, by what tells it from others and by what people call it.
     *
     * @param name         what the model calls itself
     * @param file         the name of its file, without folders
     * @param architecture {@code llama}, {@code qwen3}, as GGUF files have it
     * @param fileType     {@code Q4_K_M}; what most of its matrices are stored in
     * @param fingerprint  16 hexadecimal digits that follow from the shapes and a sample of the weights
     */
    public record BaseModel(String name, String file, String architecture, String fileType, String fingerprint) {
        /**
         * {@return what is to be remembered of a base}
         *
         * @param model the base
         */
        public static BaseModel of(Model model) {
            ModelInfo info = model.info();
            return new BaseModel(
                    info.name(),
                    String.valueOf(model.file().getFileName()),
                    info.architecture(),
                    info.fileType(),
                    info.fingerprint());
        }

        /** {@return for messages: {@code "austen-7m" (austen-7m-q4_0.gguf, fingerprint 0123456789abcdef)}} */
        public String inWords() {
            return (name == null || name.isEmpty() ? "" : "\"" + name + "\" ") + "(" + file + ", fingerprint "
                    + fingerprint + ")";
        }
    }

    /**
     * Ids of the tokens around an example, −1 where there was none.
     *
     * @param bos the token before an example
     * @param eos the token behind it
     */
    public record SpecialTokens(int bos, int eos) {}

    static AdapterMetadata of(Model model, AdapterConfig config) {
        return new AdapterMetadata(
                Lorica.version(),
                BaseModel.of(model),
                config == null ? null : config.method(),
                config instanceof LoraConfig lora ? lora : null,
                config instanceof Ia3Config ia3 ? ia3 : null,
                config instanceof FullConfig full ? full : null,
                config instanceof PromptTuningConfig prompt ? prompt : null,
                config instanceof PTuningConfig prompt ? prompt : null,
                config instanceof PrefixTuningConfig prefix ? prefix : null,
                config instanceof BottleneckConfig bottleneck ? bottleneck : null,
                null,
                null,
                null,
                null);
    }

    /**
     * {@return the same, with how it was trained}
     *
     * @param template what stood around the prompts
     * @param special  the tokens around an example
     * @param training settings by name
     * @param result   what came out, by name
     */
    public AdapterMetadata trained(
            PromptTemplate template, SpecialTokens special, Map<String, Object> training, Map<String, Object> result) {
        return new AdapterMetadata(
                Lorica.version(),
                baseModel,
                method,
                lora,
                ia3,
                full,
                promptTuning,
                encodedPrompt,
                prefixTuning,
                bottleneck,
                template,
                special,
                training,
                result);
    }

    /** Reads the side file in {@code folder}; {@code null} when there is none. */
    static AdapterMetadata read(Path folder) {
        Path file = folder.resolve(FILE_NAME);
        try {
            JsonNode json = Json.MAPPER.readTree(Files.readAllBytes(file));
            if (!json.hasNonNull("base_model")) {
                throw new FileFormatException(file + " does not say which base model the adapter belongs to");
            }
            // What only tells how it was trained must not make an adapter of another version unreadable. The template
            // must be
            // understood: generation needs the one that the adapter was trained with.
            return new AdapterMetadata(
                    json.path("lorica_version").asText(""),
                    Json.MAPPER.treeToValue(json.get("base_model"), BaseModel.class),
                    readable(file, "method", () -> Json.MAPPER.treeToValue(json.get("method"), Method.class)),
                    readable(file, "lora", () -> Json.withDefaults(json.get("lora"), LoraConfig.defaults())),
                    readable(file, "ia3", () -> Json.withDefaults(json.get("ia3"), Ia3Config.defaults())),
                    readable(file, "full", () -> Json.withDefaults(json.get("full"), FullConfig.defaults())),
                    readable(
                            file,
                            "prompt_tuning",
                            () -> Json.withDefaults(json.get("prompt_tuning"), PromptTuningConfig.of(1))),
                    readable(file, "p_tuning", () -> Json.withDefaults(json.get("p_tuning"), PTuningConfig.of(1))),
                    readable(
                            file,
                            "prefix_tuning",
                            () -> Json.withDefaults(json.get("prefix_tuning"), PrefixTuningConfig.of(1))),
                    readable(
                            file,
                            "bottleneck",
                            () -> Json.withDefaults(json.get("bottleneck"), BottleneckConfig.defaults())),
                    Json.MAPPER.treeToValue(json.get("template"), PromptTemplate.class),
                    readable(file, "special", () -> Json.MAPPER.treeToValue(json.get("special"), SpecialTokens.class)),
                    readable(file, "training", () -> Json.MAPPER.treeToValue(json.get("training"), Settings.class)),
                    readable(file, "result", () -> Json.MAPPER.treeToValue(json.get("result"), Settings.class)));
        } catch (NoSuchFileException e) {
            return null;
        } catch (JacksonException e) {
            throw new FileFormatException(file + " is damaged: " + firstLine(e), e);
        } catch (CharConversionException e) {
            throw new FileFormatException(file + " is damaged: it is not UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static final class Settings extends LinkedHashMap<String, Object> {
        private static final long serialVersionUID = 1;
    }

    private interface JsonReader<T> {
        T read() throws JacksonException;
    }

    private static <T> T readable(Path file, String name, JsonReader<T> reader) {
        try {
            return reader.read();
        } catch (JacksonException e) {
            LOG.warn("{}: \"{}\" is not understood and left aside: {}", file, name, firstLine(e));
            return null;
        }
    }

    /** @param files names and SHA-256 of the weights that it belongs to */
    void write(Path folder, Map<String, String> files) {
        ObjectNode json = Json.MAPPER.valueToTree(this);
        json.set("files", Json.MAPPER.valueToTree(files));
        try {
            AtomicFile.write(folder.resolve(FILE_NAME), Json.MAPPER.writeValueAsBytes(json));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Names and checksums of the files that it was written with; none where it does not say. */
    static Map<String, String> files(Path folder) {
        Map<String, String> files = new LinkedHashMap<>();
        try {
            Json.MAPPER
                    .readTree(Files.readAllBytes(folder.resolve(FILE_NAME)))
                    .path("files")
                    .fields()
                    .forEachRemaining(
                            entry -> files.put(entry.getKey(), entry.getValue().asText()));
        } catch (IOException e) {
            return Map.of(); // there is none, or reading it will say what is wrong
        }
        files.keySet().removeIf(name -> !name.matches("[A-Za-z0-9_]+\\.[a-z]+"));
        return files;
    }

    private static String firstLine(JacksonException e) {
        return e.getOriginalMessage().lines().findFirst().orElse("not valid JSON");
    }
}
