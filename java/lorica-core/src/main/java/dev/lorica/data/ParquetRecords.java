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
import java.util.logging.Level;
import java.util.logging.Logger;

/** Reads the rows of a Parquet file. Such a file has no lines; a row's number stands for them. */
final class ParquetRecords implements RecordReader {
    /** The reader tells how it decompresses; nobody asked. Held here, or else its level is forgotten. */
    private static final Logger READERS_OWN = Logger.getLogger("dev.hardwood");

    static {
        READERS_OWN.setLevel(Level.WARNING);
    }

    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;

    private final Path file;
    private final ParquetFileReader reader;
    private final RowReader rows;
    private long records;

    ParquetRecords(Path file) {
        this.file = file;
        try {
            reader = ParquetFileReader.open(InputFile.of(file));
            rows = reader.rowReader();
        } catch (IOException | RuntimeException e) {
            throw damaged(e);
        } catch (UnsupportedClassVersionError e) {
            throw new DataException(file + " is a Parquet file; reading those needs Java 21 or newer, this is Java "
                    + Runtime.version().feature(), e);
        }
    }

    @Override
    public String format() {
        return "parquet";
    }

    @Override
    public Raw next() {
        try {
            if (!rows.hasNext()) {
                return null;
            }
            rows.next();
            records++;
            return new Raw(object(rows), records, file + ", record " + records);
        } catch (RuntimeException e) {
            throw damaged(e);
        }
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

    private DataException damaged(Exception e) {
        String reason = e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
        return new DataException(file + (records == 0 ? "" : ", behind record " + records) + ": not a sound Parquet file: "
                + reason.lines().findFirst().orElse(""), e);
    }

    @Override
    public void close() {
        DataFile.closeQuietly(rows);
        DataFile.closeQuietly(reader);
    }
}
