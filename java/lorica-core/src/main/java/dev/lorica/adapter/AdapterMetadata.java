package dev.lorica.adapter;

import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Lorica;
import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TextTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingResult;
import java.io.CharConversionException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the side file of an adapter, {@value #FILE_NAME}, says about it. Everything but the first two may be {@code null}.
 *
 * @param loricaVersion version of the library that wrote it
 * @param baseModel     what it was trained on
 * @param lora          what it was made with
 * @param template      what stood around the prompts that it was trained on; generation puts the same there
 * @param special       the special tokens of the training examples
 * @param training      how it was trained
 * @param result        what became of that
 */
public record AdapterMetadata(
        String loricaVersion,
        BaseModel baseModel,
        LoraConfig lora,
        PromptTemplate template,
        SpecialTokens special,
        TrainingConfig training,
        TrainingResult result) {

    private static final Logger LOG = LoggerFactory.getLogger(AdapterMetadata.class);

    /** Name of the side file in an adapter's folder. */
    public static final String FILE_NAME = "lorica_adapter.json";

    /** A base, by what tells it from others and by what people call it. */
    public record BaseModel(String name, String file, String architecture, String fileType, String fingerprint) {
        public static BaseModel of(Model model) {
            ModelInfo info = model.info();
            return new BaseModel(
                    info.name(),
                    String.valueOf(model.file().getFileName()),
                    info.architecture(),
                    info.fileType(),
                    info.fingerprint());
        }

        /** For messages: {@code "austen-7m" (austen-7m-q4_0.gguf, fingerprint 0123456789abcdef)}. */
        public String inWords() {
            return (name == null || name.isEmpty() ? "" : "\"" + name + "\" ") + "(" + file + ", fingerprint "
                    + fingerprint + ")";
        }
    }

    /** Ids of the tokens around an example, −1 where there was none. */
    public record SpecialTokens(int bos, int eos) {}

    public static final JsonMapper JSON = JsonMapper.builder()
            .propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
            .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
            .enable(MapperFeature.ACCEPT_CASE_INSENSITIVE_ENUMS)
            .enable(SerializationFeature.WRITE_ENUMS_USING_TO_STRING)
            .enable(DeserializationFeature.READ_ENUMS_USING_TO_STRING)
            .enable(SerializationFeature.INDENT_OUTPUT)
            .addMixIn(PromptTemplate.class, OneOfItsKinds.class)
            .build();

    /** Which kind of template it is, its fields say. */
    @JsonTypeInfo(use = JsonTypeInfo.Id.DEDUCTION)
    @JsonSubTypes({@JsonSubTypes.Type(TextTemplate.class), @JsonSubTypes.Type(ChatTemplate.class)})
    private interface OneOfItsKinds {}

    static AdapterMetadata of(Model model, LoraConfig lora) {
        return new AdapterMetadata(Lorica.version(), BaseModel.of(model), lora, null, null, null, null);
    }

    public AdapterMetadata trained(
            PromptTemplate template, SpecialTokens special, TrainingConfig training, TrainingResult result) {
        return new AdapterMetadata(Lorica.version(), baseModel, lora, template, special, training, result);
    }

    /** Reads the side file in {@code folder}; {@code null} when there is none. */
    static AdapterMetadata read(Path folder) {
        Path file = folder.resolve(FILE_NAME);
        try {
            JsonNode json = JSON.readTree(Files.readAllBytes(file));
            if (!json.hasNonNull("base_model")) {
                throw new FileFormatException(file + " does not say which base model the adapter belongs to");
            }
            // What only tells how it was trained must not make an adapter of another version unreadable. The template
            // must be
            // understood: generation needs the one that the adapter was trained with.
            return new AdapterMetadata(
                    json.path("lorica_version").asText(null),
                    JSON.treeToValue(json.get("base_model"), BaseModel.class),
                    readable(file, "lora", () -> withDefaults(json.get("lora"), LoraConfig.defaults())),
                    JSON.treeToValue(json.get("template"), PromptTemplate.class),
                    readable(file, "special", () -> JSON.treeToValue(json.get("special"), SpecialTokens.class)),
                    readable(file, "training", () -> withDefaults(json.get("training"), TrainingConfig.defaults())),
                    readable(file, "result", () -> JSON.treeToValue(json.get("result"), TrainingResult.class)));
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

    /** Reads settings of which an older version may not have known all: what is missing is as in {@code defaults}. */
    @SuppressWarnings("unchecked")
    public static <T> T withDefaults(JsonNode json, T defaults) throws JacksonException {
        if (json == null || json.isNull()) {
            return null;
        }
        ObjectNode all = JSON.valueToTree(defaults);
        json.fields().forEachRemaining(field -> all.set(field.getKey(), field.getValue()));
        return (T) JSON.treeToValue(all, defaults.getClass());
    }

    void write(Path folder) {
        try {
            AtomicFile.write(folder.resolve(FILE_NAME), JSON.writeValueAsBytes(this));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String firstLine(JacksonException e) {
        return e.getOriginalMessage().lines().findFirst().orElse("not valid JSON");
    }
}
