package dev.lorica.exceptions;

/** Two sound things that do not fit each other: an adapter and a base, a state and a session. */
public final class MismatchException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public MismatchException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public MismatchException(String message, Throwable cause) {
        super(message, cause);
    }
}
