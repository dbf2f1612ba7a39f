package dev.lorica.exceptions;

/** A loss or a gradient is not a number, or infinite; the message names the step. */
public final class NonFiniteException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public NonFiniteException(String message) {
        super(message);
    }

    public NonFiniteException(String message, Throwable cause) {
        super(message, cause);
    }
}
