package dev.lorica.exceptions;

/** The memory plan does not fit, or an allocation failed; the message names a setting that would fit. */
public final class MemoryException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public MemoryException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public MemoryException(String message, Throwable cause) {
        super(message, cause);
    }
}
