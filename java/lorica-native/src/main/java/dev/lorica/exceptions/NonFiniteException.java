package dev.lorica.exceptions;

/** A loss or a gradient is not a number, or infinite; the message names the step. */
public final class NonFiniteException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public NonFiniteException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public NonFiniteException(String message, Throwable cause) {
        super(message, cause);
    }
}
