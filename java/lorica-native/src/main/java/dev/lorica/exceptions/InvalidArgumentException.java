package dev.lorica.exceptions;

/** A value is out of range, or things were asked for in the wrong order. */
public final class InvalidArgumentException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public InvalidArgumentException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public InvalidArgumentException(String message, Throwable cause) {
        super(message, cause);
    }
}
