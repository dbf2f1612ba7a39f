package dev.lorica.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.MissingNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.hardwood.InputFile;
import dev.hardwood.metadata.ColumnChunk;
import dev.hardwood.metadata.FileMetaData;
import dev.hardwood.metadata.RowGroup;
import dev.hardwood.reader.ParquetFileReader;
import dev.hardwood.reader.RowReader;
import dev.hardwood.row.PqList;
import dev.hardwood.row.PqMap;
import dev.hardwood.row.PqStruct;
import dev.hardwood.row.StructAccessor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * Reads the rows of a Parquet file. Such a file has no lines; a row's number stands for them.
 *
 * <p>The rows come from a thread of their own: the library waits forever for a part of a file that it cannot read, and so must
 * not be waited for in turn.
 */
final class ParquetRecords implements RecordReader {
    private static final int ROWS_AHEAD = 64;
    private static final long PATIENCE_SECONDS = 60;

    /** The reader tells how it decompresses; nobody asked. Held here, or else its level is forgotten. */
    private static final Logger READERS_OWN = Logger.getLogger("dev.hardwood");

    static {
        READERS_OWN.setLevel(Level.WARNING);
    }

    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final char REPLACEMENT = '\uFFFD';

    /** A row, or what was wrong, or neither behind the last row. */
    private record Row(ObjectNode fields, Throwable failure) {}

    private final Path file;
    private final BlockingQueue<Row> rows = new ArrayBlockingQueue<>(ROWS_AHEAD);
    private final Thread reader;
    private long records;

    ParquetRecords(Path file) {
        this.file = file;
        reader = new Thread(this::read, "lorica-parquet");
        reader.setDaemon(true);
        reader.start();
    }

    @Override
    public String format() {
        return "parquet";
    }

    private void read() {
        try {
            Row last;
            try (ParquetFileReader opened = ParquetFileReader.open(InputFile.of(file))) {
                requireReadable(opened.getFileMetaData());
                JsonNode features = features(opened.getFileMetaData());
                try (RowReader all = opened.rowReader()) {
                    while (all.hasNext()) {
                        all.next();
                        rows.put(new Row(object(all, features), null));
                    }
                }
                last = new Row(null, null);
            } catch (IOException | RuntimeException | OutOfMemoryError | LinkageError e) {
                last = new Row(null, e);
            }
            rows.put(last);
        } catch (InterruptedException e) {
            // Nobody wants the rest.
        }
    }

    @Override
    public Raw next() {
        Row row;
        try {
            row = rows.poll(PATIENCE_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new DataException(file + ": reading it was interrupted", e);
        }
        if (row == null || row.failure != null) {
            throw damaged(row == null ? null : row.failure);
        }
        if (row.fields == null) {
            return null;
        }
        records++;
        return new Raw(row.fields, records, file + ", record " + records);
    }

    /** LZO is under a licence that keeps libraries away from it; Brotli and LZ4 are rare, and programs bring their libraries. */
    private static void requireReadable(FileMetaData file) {
        for (RowGroup group : file.rowGroups()) {
            for (ColumnChunk column : group.columns()) {
                switch (column.metaData().codec()) {
                    case LZO ->
                        throw new DataException(
                                "it is compressed with LZO, which is not read; zstd, snappy, gzip, brotli and lz4 are");
                    case BROTLI ->
                        requireLibrary(
                                "Brotli",
                                "com.aayushatharva.brotli4j.Brotli4jLoader",
                                "com.aayushatharva.brotli4j:brotli4j and its native library for this machine");
                    case LZ4, LZ4_RAW -> requireLibrary("LZ4", "net.jpountz.lz4.LZ4Factory", "at.yawk.lz4:lz4-java");
                    default -> {
                        // what it needs comes with this library
                    }
                }
            }
        }
    }

    static void requireLibrary(String codec, String className, String artifact) {
        try {
            Class.forName(className, false, ParquetRecords.class.getClassLoader());
        } catch (ClassNotFoundException e) {
            throw new DataException(
                    "it is compressed with " + codec + ", for which " + artifact + " is needed: add it to the program");
        }
    }

    /** What Hugging Face's {@code datasets} wrote down of the columns; missing elsewhere. */
    private static JsonNode features(FileMetaData file) {
        String info =
                file.keyValueMetadata() == null ? null : file.keyValueMetadata().get("huggingface");
        try {
            return info == null
                    ? MissingNode.getInstance()
                    : MAPPER.readTree(info).path("info").path("features");
        } catch (JsonProcessingException e) {
            return MissingNode.getInstance();
        }
    }

    private static ObjectNode object(StructAccessor row, JsonNode features) {
        ObjectNode object = JSON.objectNode();
        for (int i = 0; i < row.getFieldCount(); i++) {
            String name = row.getFieldName(i);
            Object value = row.isNull(i) ? null : row.getValue(i);
            if (value instanceof String text && text.indexOf(REPLACEMENT) >= 0) {
                requireCharacters(name, row.getBinary(i));
            }
            object.set(name, value(value, features.path(name)));
        }
        return object;
    }

    /** The reader puts a replacement where bytes are no characters; it may also have been written so. */
    private static void requireCharacters(String name, byte[] bytes) {
        try {
            StandardCharsets.UTF_8
                    .newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .decode(ByteBuffer.wrap(bytes));
        } catch (CharacterCodingException e) {
            throw new DataException("field \"" + name + "\" of the next record is not valid UTF-8", e);
        }
    }

    /** @param feature what it is in Hugging Face's words: a class label is a number in the file, and a name to people */
    private static JsonNode value(Object value, JsonNode feature) {
        if (value == null) {
            return JSON.nullNode();
        }
        if (value instanceof PqStruct struct) {
            return object(struct, feature);
        }
        if (value instanceof PqList list) {
            JsonNode element = feature.isArray() ? feature.path(0) : feature.path("feature");
            ArrayNode array = JSON.arrayNode();
            for (int i = 0; i < list.size(); i++) {
                array.add(list.isNull(i) ? JSON.nullNode() : value(list.get(i), element));
            }
            return array;
        }
        if (value instanceof PqMap map) {
            ObjectNode object = JSON.objectNode();
            map.getEntries()
                    .forEach(entry -> object.set(
                            String.valueOf(entry.getKey()), value(entry.getValue(), MissingNode.getInstance())));
            return object;
        }
        if (value instanceof byte[] bytes) {
            return JSON.textNode(new String(bytes, StandardCharsets.UTF_8));
        }
        if (value instanceof Long || value instanceof Integer) {
            long number = ((Number) value).longValue();
            JsonNode label = number >= 0 && number < Integer.MAX_VALUE
                    ? feature.path("names").path((int) number)
                    : MissingNode.getInstance();
            return feature.path("_type").asText().equals("ClassLabel") && label.isTextual()
                    ? label
                    : JSON.numberNode(number);
        }
        if (value instanceof Number number) {
            return JSON.numberNode(number.doubleValue());
        }
        return value instanceof Boolean b ? JSON.booleanNode(b) : JSON.textNode(value.toString());
    }

    private DataException damaged(Throwable e) {
        String where = file + (records == 0 ? "" : ", behind record " + records) + ": ";
        if (e instanceof DataException) {
            return new DataException(where + e.getMessage(), e);
        }
        String reason = e == null
                ? "there is no getting on with it"
                : e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
        return new DataException(
                where + "not a sound Parquet file: "
                        + reason.lines().findFirst().orElse(""),
                e);
    }

    @Override
    public void close() {
        reader.interrupt();
    }
}
