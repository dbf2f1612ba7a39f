package dev.lorica.exceptions;

/** A computation was stopped before it was done, because somebody asked for that. */
public final class CancelledException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public CancelledException(String message) {
        super(message);
    }

    public CancelledException(String message, Throwable cause) {
        super(message, cause);
    }
}
