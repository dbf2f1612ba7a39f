package dev.lorica.spark;

import dev.lorica.data.Dataset;
import dev.lorica.data.FieldNames;
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
     * Reads the rows of a data frame as JSONL is read: columns are fields, arrays of structs are conversations. They are in a
     * temporary file of the driver for as long as {@code use} runs.
     *
     * @param names of columns that are called otherwise than most; {@link FieldNames#NONE}: all are found by themselves
     */
    public static <T> T with(org.apache.spark.sql.Dataset<?> rows, FieldNames names, Function<Dataset, T> use) {
        Objects.requireNonNull(rows, "rows");
        Objects.requireNonNull(names, "names");
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
            return use.apply(Dataset.load(file, names));
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
