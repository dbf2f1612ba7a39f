package dev.lorica.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.exceptions.FileAccessException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** Texts as they come, one to a line: plain, or JSON objects with a field for the text and one for a second. */
final class TextLines {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int AT_ONCE = 64;

    /** Texts that are worked on together. */
    record Lines(List<String> texts, List<String> seconds) {}

    private final String textField;
    private final String pairField;

    /** @param pairField {@code null}: there is no second text */
    TextLines(String textField, String pairField) {
        this.textField = textField == null ? "text" : textField;
        this.pairField = pairField;
    }

    /** All of a file, or of what comes in; what has come is used as soon as nothing more waits to be read. */
    void each(Terminal terminal, Path file, Consumer<Lines> use) {
        try (BufferedReader in = file != null
                ? Files.newBufferedReader(file)
                : new BufferedReader(new InputStreamReader(terminal.in(), StandardCharsets.UTF_8))) {
            Lines waiting = new Lines(new ArrayList<>(), pairField == null ? null : new ArrayList<>());
            int number = 0;
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                add(line, ++number, waiting);
                if (waiting.texts.size() == AT_ONCE || !waiting.texts.isEmpty() && !in.ready()) {
                    use.accept(waiting);
                    waiting = new Lines(new ArrayList<>(), pairField == null ? null : new ArrayList<>());
                }
            }
            if (!waiting.texts.isEmpty()) {
                use.accept(waiting);
            }
        } catch (IOException e) {
            if (file != null) {
                throw new FileAccessException(file + " cannot be read: " + e.getMessage(), e);
            }
            throw new UncheckedIOException("standard input cannot be read: " + e.getMessage(), e);
        }
    }

    private void add(String line, int number, Lines to) {
        if (line.isBlank()) {
            return;
        }
        if (!line.stripLeading().startsWith("{")) {
            if (pairField != null) {
                throw new IllegalArgumentException(
                        "line " + number + " is a plain text; of two texts each line is a JSON object");
            }
            to.texts.add(line);
            return;
        }
        try {
            JsonNode object = JSON.readTree(line);
            to.texts.add(text(object, textField, "--text-field", number));
            if (pairField != null) {
                to.seconds.add(text(object, pairField, "--text-pair-field", number));
            }
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException("line " + number + " is no JSON object: "
                    + e.getOriginalMessage().lines().findFirst().orElse(""));
        }
    }

    private static String text(JsonNode object, String field, String option, int number) {
        if (!object.path(field).isValueNode() || object.path(field).isNull()) {
            throw new IllegalArgumentException(
                    "line " + number + " has no text in the field \"" + field + "\"; name it with " + option);
        }
        return object.path(field).asText();
    }
}
