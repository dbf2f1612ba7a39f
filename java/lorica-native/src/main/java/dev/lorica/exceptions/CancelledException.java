package dev.lorica.exceptions;

/** A computation was stopped before it was done, because somebody asked for that. */
public final class CancelledException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public CancelledException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public CancelledException(String message, Throwable cause) {
        super(message, cause);
    }
}
