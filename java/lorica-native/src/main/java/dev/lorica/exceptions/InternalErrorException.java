package dev.lorica.exceptions;

/** A defect of this library. Please report it with its message. */
public final class InternalErrorException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public InternalErrorException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public InternalErrorException(String message, Throwable cause) {
        super(message, cause);
    }
}
