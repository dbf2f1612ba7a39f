package dev.lorica.data;

import dev.lorica.exceptions.LoricaException;

/** Data that cannot be used. The message is one line: the file, the line and record, the field, and what was meant. */
public final class DataException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * With a message alone.
     *
     * @param message what is wrong, where, and what to do about it
     */
    public DataException(String message) {
        super(message);
    }

    /**
     * With what led to it.
     *
     * @param message what is wrong, where, and what to do about it
     * @param cause   what was thrown before
     */
    public DataException(String message, Throwable cause) {
        super(message, cause);
    }
}
