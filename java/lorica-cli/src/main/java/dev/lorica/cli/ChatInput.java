package dev.lorica.cli;

/** Where the lines of a conversation come from: a person at a terminal, or a file or another program. */
interface ChatInput extends AutoCloseable {
    /** The next line; empty where it was given up with Ctrl-C; {@code null} behind the last one. */
    String read();

    /** Columns that what is shown may take. */
    int width();

    /** Whether a person types the lines. */
    boolean isEdited();

    @Override
    void close();
}
