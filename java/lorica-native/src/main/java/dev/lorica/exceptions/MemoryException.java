package dev.lorica.exceptions;

/** The memory plan does not fit, or an allocation failed; the message names a setting that would fit. */
public final class MemoryException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public MemoryException(String message) {
        super(message);
    }

    public MemoryException(String message, Throwable cause) {
        super(message, cause);
    }
}
