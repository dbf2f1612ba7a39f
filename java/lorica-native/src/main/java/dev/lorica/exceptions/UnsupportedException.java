package dev.lorica.exceptions;

/** A sound file or request that this build cannot serve. */
public final class UnsupportedException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public UnsupportedException(String message) {
        super(message);
    }

    public UnsupportedException(String message, Throwable cause) {
        super(message, cause);
    }
}
