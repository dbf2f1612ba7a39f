package dev.lorica.data;

import dev.lorica.exceptions.LoricaException;

/** Data that cannot be used. The message is one line: the file, the line and record, the field, and what was meant. */
public final class DataException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public DataException(String message) {
        super(message);
    }

    public DataException(String message, Throwable cause) {
        super(message, cause);
    }
}
