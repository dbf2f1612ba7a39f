package dev.lorica.exceptions;

/**
 * Something that Lorica was asked for could not be done. The message is one line that says what was wrong, where, and what to
 * do about it; it is fit to be shown to a user as it is.
 */
public class LoricaException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public LoricaException(String message) {
        super(message);
    }

    public LoricaException(String message, Throwable cause) {
        super(message, cause);
    }
}
