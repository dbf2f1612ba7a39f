package dev.lorica.convert;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import java.io.CharConversionException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The small files of a model's folder. */
final class JsonFiles {
    private static final JsonMapper JSON = JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    /** Vocabularies of 250,000 tokens take 20 MB. */
    private static final long MAX_BYTES = 256L << 20;

    private JsonFiles() {}

    static JsonNode read(Path file) {
        try {
            JsonNode json = JSON.readTree(bytes(file));
            if (!json.isObject()) {
                throw new FileFormatException(file + " is damaged: it is not a JSON object");
            }
            return json;
        } catch (JacksonException e) {
            throw new FileFormatException(
                    file + " is damaged: "
                            + e.getOriginalMessage().lines().findFirst().orElse("not JSON"),
                    e);
        } catch (CharConversionException e) {
            throw new FileFormatException(file + " is damaged: it is not UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + e.getMessage(), e);
        }
    }

    /** A stranger's text for a message: on one line, and not too long. */
    static String shown(Object value) {
        String text = value.toString().replaceAll("\\p{Cntrl}", " ");
        return text.length() > 100 ? text.substring(0, 100) + "…" : text;
    }

    static JsonNode readIfThere(Path file) {
        return Files.exists(file) ? read(file) : MissingNode.getInstance();
    }

    static byte[] bytes(Path file) {
        try {
            if (!Files.exists(file)) {
                throw new FileAccessException(file + " does not exist");
            }
            if (Files.size(file) > MAX_BYTES) {
                throw new FileFormatException(
                        file + " has " + Files.size(file) + " bytes, which is too large for such a file");
            }
            return Files.readAllBytes(file);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + e.getMessage(), e);
        }
    }
}
