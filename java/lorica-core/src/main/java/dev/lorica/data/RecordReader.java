package dev.lorica.data;

import java.io.Closeable;

/** Reads the records of a file one after another; only one is in memory at a time. */
interface RecordReader extends Closeable {
    /** For people: {@code jsonl}. */
    String format();

    /** The next record, {@code null} after the last. */
    Raw next();

    @Override
    void close();
}
