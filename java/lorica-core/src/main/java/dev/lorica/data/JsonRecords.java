package dev.lorica.data;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonLocation;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.Reader;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Path;

/**
 * Reads JSON objects one after another, from a JSON array or from JSONL; which of the two it is, the first character
 * says. Objects of a JSONL file may also span several lines.
 */
final class JsonRecords implements RecordReader {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private final Path path;
    private final String file;
    private final Reader in;
    private final JsonParser parser;
    private final boolean array;
    private long records;

    JsonRecords(Path path, Reader in) throws IOException {
        this.path = path;
        this.file = path.toString();
        this.in = in;
        try {
            parser = new JsonFactory().createParser(in);
            array = parser.nextToken() == JsonToken.START_ARRAY;
            if (array) {
                parser.nextToken();
            }
        } catch (JsonProcessingException e) {
            throw damaged(e, 1);
        } catch (CharacterCodingException e) {
            throw DataFile.malformed(path, e);
        }
    }

    @Override
    public String format() {
        return array ? "json" : "jsonl";
    }

    @Override
    public Raw next() {
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
            throw DataFile.malformed(path, e);
        } catch (IOException e) {
            throw new DataException(file + " cannot be read: " + e.getMessage(), e);
        }
    }

    @Override
    public void close() {
        DataFile.closeQuietly(in);
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
}
