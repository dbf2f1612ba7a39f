package dev.lorica.data;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedInputStream;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/**
 * Reads JSON objects one after another, from a JSON array or from JSONL; which of the two it is, the first character
 * says. Objects of a JSONL file may also span several lines. Only one record is in memory at a time.
 */
final class JsonRecords implements Closeable {

    /** An object of the file. {@code where} says which, for messages: {@code train.jsonl, line 12 (record 7)}. */
    record Raw(ObjectNode fields, long line, String where) {}

    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final int SNIFFED_BYTES = 4096;

    private final String file;
    private final InputStream in;
    private final JsonParser parser;
    private final boolean array;
    private long records;

    JsonRecords(Path path) {
        file = path.toString();
        InputStream opened = null;
        try {
            if (Files.isDirectory(path)) {
                throw new DataException(file + " is a folder; a JSON or JSONL file is meant");
            }
            opened = new BufferedInputStream(Files.newInputStream(path), 1 << 16);
            refuseWhatIsNotJson(opened);
            parser = new JsonFactory().createParser(opened);
            array = parser.nextToken() == JsonToken.START_ARRAY;
            if (array) {
                parser.nextToken();
            }
            in = opened;
        } catch (NoSuchFileException e) {
            throw new DataException(file + " does not exist", e);
        } catch (JsonProcessingException e) {
            closeQuietly(opened);
            throw damaged(e, 1);
        } catch (IOException e) {
            closeQuietly(opened);
            throw new DataException(file + " cannot be read: " + e.getMessage(), e);
        } catch (DataException e) {
            closeQuietly(opened);
            throw e;
        }
    }

    boolean isArray() {
        return array;
    }

    /** The next record, {@code null} after the last. */
    Raw next() {
        long begin = parser.currentTokenLocation().getLineNr();
        try {
            JsonToken token = parser.currentToken();
            if (array && token == JsonToken.END_ARRAY) {
                if (parser.nextToken() != null) {
                    throw new DataException(
                            file + ", line " + parser.currentTokenLocation().getLineNr()
                                    + ": there is more after the end of the array; one array, or one object per line,"
                                    + " is meant");
                }
                return null;
            }
            if (token == null) {
                if (array) {
                    throw new DataException(
                            file + " ends inside the array, after record " + records + ": it was cut off");
                }
                return null;
            }
            records++;
            String where = file + ", line " + begin + " (record " + records + ")";
            JsonNode node = MAPPER.readTree(parser);
            if (!(node instanceof ObjectNode object)) {
                throw new DataException(where + " is " + kind(node) + "; an object with fields such as "
                        + "{\"instruction\": …, \"response\": …} is meant");
            }
            parser.nextToken();
            return new Raw(object, begin, where);
        } catch (JsonProcessingException e) {
            throw damaged(e, begin);
        } catch (CharacterCodingException e) {
            throw new DataException(file + ", record " + records + ": not valid UTF-8", e);
        } catch (IOException e) {
            throw new DataException(file + " cannot be read: " + e.getMessage(), e);
        }
    }

    @Override
    public void close() {
        closeQuietly(in);
    }

    /** What a node is, for messages. */
    static String kind(JsonNode node) {
        return switch (node.getNodeType()) {
            case ARRAY -> "an array";
            case OBJECT -> "an object";
            case STRING -> "a string";
            case NUMBER -> "a number";
            case BOOLEAN -> "true or false";
            default -> "null";
        };
    }

    private void refuseWhatIsNotJson(InputStream buffered) throws IOException {
        buffered.mark(SNIFFED_BYTES);
        byte[] head = buffered.readNBytes(SNIFFED_BYTES);
        buffered.reset();
        String found = null;
        if (startsWith(head, 'P', 'A', 'R', '1')) {
            found = "a Parquet file";
        } else if (startsWith(head, 0x1f, 0x8b)) {
            found = "compressed with gzip: unpack it first";
        } else if (startsWith(head, 'P', 'K', 3, 4)) {
            found = "a ZIP archive: unpack it first";
        } else if (startsWith(head, 'G', 'G', 'U', 'F')) {
            found = "a GGUF model";
        }
        if (found == null) {
            int i = startsWith(head, 0xEF, 0xBB, 0xBF) ? 3 : 0;
            boolean wide = startsWith(head, 0xFE, 0xFF) || startsWith(head, 0xFF, 0xFE);
            while (i < head.length && (head[i] == ' ' || head[i] == '\t' || head[i] == '\r' || head[i] == '\n')) {
                i++;
            }
            if (i == head.length && head.length < SNIFFED_BYTES) {
                throw new DataException(file + " is empty");
            }
            // UTF-16 and UTF-32 are left to Jackson, which tells them apart by their first four bytes.
            boolean zeros = head.length > 1 && (head[0] == 0 || head[1] == 0);
            if (i == head.length || head[i] == '[' || head[i] == '{' || wide || zeros) {
                return;
            }
            found = "not JSON: it begins with \"" + preview(head, i) + "\"";
        }
        throw new DataException(file + " is " + found + "; a JSON array or JSONL (one object per line) is meant");
    }

    private static String preview(byte[] head, int from) {
        StringBuilder text = new StringBuilder();
        for (int i = from; i < head.length && text.length() < 30 && head[i] != '\n' && head[i] != '\r'; i++) {
            text.append(head[i] >= 0x20 && head[i] < 0x7f ? (char) head[i] : '.');
        }
        return text.toString();
    }

    private static boolean startsWith(byte[] head, int... bytes) {
        for (int i = 0; i < bytes.length; i++) {
            if (i >= head.length || (head[i] & 0xff) != bytes[i]) {
                return false;
            }
        }
        return true;
    }

    private DataException damaged(JsonProcessingException e, long begin) {
        JsonLocation location = e.getLocation();
        String where = location == null ? "" : ", line " + location.getLineNr() + ", column " + location.getColumnNr();
        String record = ", in the record that begins on line " + begin;
        String message = e.getOriginalMessage();
        int lineBreak = message.indexOf('\n');
        return new DataException(
                file + where + (location != null && location.getLineNr() == begin ? "" : record) + ": not valid JSON: "
                        + (lineBreak < 0 ? message : message.substring(0, lineBreak)),
                e);
    }

    private static void closeQuietly(InputStream in) {
        if (in != null) {
            try {
                in.close();
            } catch (IOException e) {
                // Nothing was written, so nothing is lost.
            }
        }
    }
}
