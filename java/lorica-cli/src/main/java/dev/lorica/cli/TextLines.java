package dev.lorica.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CharsetDecoder;
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

    /** What editors of Windows put before a text. */
    private static final String BYTE_ORDER_MARK = "\uFEFF";

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
        String name = file == null ? "standard input" : file.toString();
        if (file != null) {
            Misnamed.check(file, Misnamed.What.DATA);
        }
        // Unlike a Charset, a decoder of its own says what is no UTF-8.
        CharsetDecoder strict = StandardCharsets.UTF_8.newDecoder();
        try (BufferedReader in = new BufferedReader(
                new InputStreamReader(file != null ? Files.newInputStream(file) : terminal.in(), strict))) {
            Lines waiting = new Lines(new ArrayList<>(), pairField == null ? null : new ArrayList<>());
            int number = 0;
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                add(++number == 1 && line.startsWith(BYTE_ORDER_MARK) ? line.substring(1) : line, number, waiting);
                if (waiting.texts.size() == AT_ONCE || !waiting.texts.isEmpty() && !in.ready()) {
                    use.accept(waiting);
                    waiting = new Lines(new ArrayList<>(), pairField == null ? null : new ArrayList<>());
                }
            }
            if (!waiting.texts.isEmpty()) {
                use.accept(waiting);
            }
        } catch (CharacterCodingException e) {
            throw new FileFormatException(name + " is not valid UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(name + " cannot be read: " + AtomicFile.reason(e), e);
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
