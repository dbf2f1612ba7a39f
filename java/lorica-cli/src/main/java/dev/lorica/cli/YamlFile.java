package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLParser;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;

/** Reads YAML that people write: one document, of a size that people write, in which everything is said where it stands. */
final class YamlFile {
    /** Far more than any list of options takes. */
    private static final int MOST_BYTES = 64 << 10;

    private static final YAMLMapper YAML = YAMLMapper.builder()
            .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
            .build();

    private YamlFile() {}

    /**
     * The only document of a file; missing where it holds none.
     *
     * @param option which names the file, for messages
     */
    static JsonNode read(String option, Path file) {
        String name = option + " " + file;
        try {
            String text = text(name, file);
            refuseReferences(name, text);
            return YAML.readTree(text);
        } catch (NoSuchFileException e) {
            throw new FileAccessException(name + " does not exist", e);
        } catch (JacksonException e) {
            throw new FileFormatException(
                    name + line(e.getLocation() == null ? 0 : e.getLocation().getLineNr()) + ": "
                            + inWords(e.getOriginalMessage()),
                    e);
        } catch (CharacterCodingException e) {
            throw new FileFormatException(name + " is not valid UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(name + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** What was being read, and what is wrong with it: the lines between show the place. */
    private static String inWords(String message) {
        List<String> said = message.lines()
                .filter(line -> !line.isBlank() && !line.startsWith(" "))
                .limit(2)
                .toList();
        return said.isEmpty() ? "not YAML" : String.join(": ", said);
    }

    private static String text(String name, Path file) throws IOException {
        try (InputStream in = Files.newInputStream(file)) {
            byte[] bytes = in.readNBytes(MOST_BYTES + 1);
            if (bytes.length > MOST_BYTES) {
                throw new FileFormatException(
                        name + " has more than " + (MOST_BYTES >> 10) + " KiB; a list of options is meant");
            }
            return StandardCharsets.UTF_8
                    .newDecoder()
                    .decode(ByteBuffer.wrap(bytes))
                    .toString();
        }
    }

    /** The reader takes an alias for its own name, and stops behind the first document. */
    private static void refuseReferences(String name, String text) throws IOException {
        try (YAMLParser parser = YAML.getFactory().createParser(text)) {
            int depth = 0;
            boolean behind = false;
            for (JsonToken token = parser.nextToken(); token != null; token = parser.nextToken()) {
                int line = parser.currentTokenLocation().getLineNr();
                if (behind) {
                    throw new FileFormatException(name + line(line) + ": a second document begins; only one is meant");
                }
                if (parser.isCurrentAlias()) {
                    throw new FileFormatException(name + line(line) + ": aliases (*" + parser.getText()
                            + ") are not read; write out what is meant");
                }
                depth += token.isStructStart() ? 1 : token.isStructEnd() ? -1 : 0;
                behind = depth == 0;
            }
        }
    }

    private static String line(int line) {
        return line > 0 ? ", line " + line : "";
    }
}
