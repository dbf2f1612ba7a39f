package dev.lorica.exceptions;

/** A sound file or request that this build cannot serve. */
public final class UnsupportedException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public UnsupportedException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public UnsupportedException(String message, Throwable cause) {
        super(message, cause);
    }
}
