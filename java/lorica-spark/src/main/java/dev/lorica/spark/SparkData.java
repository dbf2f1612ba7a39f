package dev.lorica.spark;

import dev.lorica.data.Dataset;
import dev.lorica.data.FieldNames;
import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.FileAccessException;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.Objects;
import java.util.function.Function;

/** Data frames as data sets that a training reads. */
public final class SparkData {
    private SparkData() {}

    /**
     * {@return what comes of answers to prompts in the rows of a data frame} As {@link #with(org.apache.spark.sql.Dataset, FieldNames,
     * RecordKind, Function)}.
     *
     * @param <T>   what comes of them
     * @param rows  the data frame
     * @param names of columns that are called otherwise than most; {@link FieldNames#NONE}: all are found by themselves
     * @param use   what is done with the data
     */
    public static <T> T with(org.apache.spark.sql.Dataset<?> rows, FieldNames names, Function<Dataset, T> use) {
        return with(rows, names, RecordKind.ANSWERS, use);
    }

    /**
     * {@return what comes of the rows of a data frame} They are read as JSONL is read: columns are fields, arrays of structs are
     * conversations. They are in a temporary file of the driver for as long as {@code use} runs.
     *
     * @param <T>   what comes of them
     * @param rows  the data frame
     * @param names of columns that are called otherwise than most; {@link FieldNames#NONE}: all are found by themselves
     * @param kind  what the rows are to be: answers, pairs, prompts alone, …
     * @param use   what is done with the data
     */
    public static <T> T with(
            org.apache.spark.sql.Dataset<?> rows, FieldNames names, RecordKind kind, Function<Dataset, T> use) {
        Objects.requireNonNull(rows, "rows");
        Objects.requireNonNull(names, "names");
        Objects.requireNonNull(kind, "kind");
        Objects.requireNonNull(use, "use");
        Path file = null;
        try {
            file = Files.createTempFile("lorica-rows", ".jsonl");
            try (BufferedWriter out = Files.newBufferedWriter(file)) {
                Iterator<String> json = rows.toJSON().toLocalIterator();
                while (json.hasNext()) {
                    out.write(json.next());
                    out.newLine();
                }
            }
            return use.apply(Dataset.load(file, names, kind));
        } catch (IOException e) {
            throw new FileAccessException("the rows cannot be put into a temporary file: " + e, e);
        } finally {
            if (file != null) {
                try {
                    Files.deleteIfExists(file);
                } catch (IOException e) {
                    file.toFile().deleteOnExit();
                }
            }
        }
    }
}
