package dev.lorica.data;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.hardwood.InputFile;
import dev.hardwood.reader.ParquetFileReader;
import dev.hardwood.reader.RowReader;
import dev.hardwood.row.PqList;
import dev.hardwood.row.PqMap;
import dev.hardwood.row.PqStruct;
import dev.hardwood.row.StructAccessor;
import java.io.IOException;
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
            try (ParquetFileReader opened = ParquetFileReader.open(InputFile.of(file));
                    RowReader all = opened.rowReader()) {
                while (all.hasNext()) {
                    all.next();
                    rows.put(new Row(object(all), null));
                }
                last = new Row(null, null);
            } catch (IOException | RuntimeException | OutOfMemoryError e) {
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

    private static ObjectNode object(StructAccessor row) {
        ObjectNode object = JSON.objectNode();
        for (int i = 0; i < row.getFieldCount(); i++) {
            object.set(row.getFieldName(i), row.isNull(i) ? JSON.nullNode() : value(row.getValue(i)));
        }
        return object;
    }

    private static JsonNode value(Object value) {
        if (value == null) {
            return JSON.nullNode();
        }
        if (value instanceof PqStruct struct) {
            return object(struct);
        }
        if (value instanceof PqList list) {
            ArrayNode array = JSON.arrayNode();
            for (int i = 0; i < list.size(); i++) {
                array.add(list.isNull(i) ? JSON.nullNode() : value(list.get(i)));
            }
            return array;
        }
        if (value instanceof PqMap map) {
            ObjectNode object = JSON.objectNode();
            map.getEntries().forEach(entry -> object.set(String.valueOf(entry.getKey()), value(entry.getValue())));
            return object;
        }
        if (value instanceof byte[] bytes) {
            return JSON.textNode(new String(bytes, StandardCharsets.UTF_8));
        }
        if (value instanceof Long || value instanceof Integer) {
            return JSON.numberNode(((Number) value).longValue());
        }
        if (value instanceof Number number) {
            return JSON.numberNode(number.doubleValue());
        }
        return value instanceof Boolean b ? JSON.booleanNode(b) : JSON.textNode(value.toString());
    }

    private DataException damaged(Throwable e) {
        String reason = e == null
                ? "there is no getting on with it"
                : e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
        return new DataException(
                file + (records == 0 ? "" : ", behind record " + records) + ": not a sound Parquet file: "
                        + reason.lines().findFirst().orElse(""),
                e);
    }

    @Override
    public void close() {
        reader.interrupt();
    }
}
