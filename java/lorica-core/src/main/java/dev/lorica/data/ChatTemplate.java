package dev.lorica.data;

import dev.lorica.TokenizerInfo;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.internal.Arguments;
import dev.lorica.jinja.JinjaTemplate;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.List;
import java.util.Optional;
import java.util.TreeMap;

/**
 * A template for conversations: Jinja, as models carry it.
 *
 * @param name   what people call it
 * @param source the Jinja source
 * @param system the system prompt of conversations that have none, {@code ""}: they get none
 */
public record ChatTemplate(String name, String source, String system) implements PromptTemplate {

    /**
     * What templates take for today. It is always the same, for a run is to give the same result tomorrow, and what it learned
     * is to be asked as it was learned. It is the date that Llama's templates fall back to.
     */
    public static final LocalDate DATE = LocalDate.of(2024, 7, 26);

    /** Formats that have a name. In the folder chat beside this class, each under the first of its names. */
    private static final List<List<String>> NAMES = List.of(
            List.of("chatml"),
            List.of("llama2", "llama-2"),
            List.of("llama3", "llama-3"),
            List.of("llama3.1", "llama-3.1", "llama31", "llama3.2", "llama-3.2", "llama32"),
            List.of("mistral", "mistral-v1"),
            List.of("mistral-v3"),
            List.of("mistral-nemo", "mistral-v3-tekken"),
            List.of("mistral-v7"),
            List.of("zephyr", "tinyllama"),
            List.of("gemma"),
            List.of("phi3", "phi-3"),
            List.of("qwen2.5", "qwen25"),
            List.of("qwen3"),
            List.of("smollm2", "smollm"),
            List.of("smollm3"),
            List.of("granite", "granite-3", "granite3"),
            List.of("granite-4", "granite4"),
            List.of("olmo2", "olmo-2", "tulu"),
            List.of("vicuna"));

    /**
     * Checks that the source can be read as a template.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException naming the place that cannot
     */
    public ChatTemplate {
        Arguments.given(name, "name");
        Arguments.given(source, "source");
        system = system == null ? "" : system;
        JinjaTemplate.compile(source);
    }

    /**
     * {@return the template that a model carries, if it does}
     *
     * @param model what the model's file says of its vocabulary
     */
    public static Optional<ChatTemplate> of(TokenizerInfo model) {
        Arguments.given(model, "model");
        return Optional.ofNullable(model.chatTemplate())
                .filter(source -> !source.isBlank())
                .map(source -> new ChatTemplate("the model's", source, ""));
    }

    /**
     * {@return a format that many models share, by its name: {@code chatml}, {@code llama3}, {@code zephyr}; empty where none has it}
     *
     * @param name the name
     */
    public static Optional<ChatTemplate> named(String name) {
        Arguments.given(name, "name");
        return NAMES.stream().filter(names -> names.contains(name)).findFirst().map(names -> {
            try (InputStream in = ChatTemplate.class.getResourceAsStream("chat/" + names.get(0) + ".jinja")) {
                return new ChatTemplate(names.get(0), new String(in.readAllBytes(), StandardCharsets.UTF_8), "");
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
    }

    /**
     * {@return the Jinja source in a file, as a template}
     *
     * @param file the file
     * @throws dev.lorica.exceptions.LoricaException if it cannot be read, or is no template
     */
    public static ChatTemplate load(Path file) {
        Arguments.given(file, "file");
        try {
            String source = Files.readString(file);
            return new ChatTemplate(
                    file.getFileName().toString(), source.startsWith("\uFEFF") ? source.substring(1) : source, "");
        } catch (NoSuchFileException e) {
            throw new FileAccessException(file + " does not exist; names of templates are " + namesInWords(), e);
        } catch (CharacterCodingException e) {
            throw new FileFormatException(file + " is not valid UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /**
     * {@return the same with a system prompt for conversations that have none}
     *
     * @param system the system prompt
     */
    public ChatTemplate withSystem(String system) {
        return new ChatTemplate(name, source, system);
    }

    /** {@return the first name of each format that has one} */
    public static String namesInWords() {
        TreeMap<String, String> names = new TreeMap<>();
        NAMES.forEach(all -> names.put(all.get(0), ""));
        return String.join(", ", names.keySet());
    }
}
