package dev.lorica.exceptions;

/** Two sound things that do not fit each other: an adapter and a base, a state and a session. */
public final class MismatchException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public MismatchException(String message) {
        super(message);
    }

    public MismatchException(String message, Throwable cause) {
        super(message, cause);
    }
}
