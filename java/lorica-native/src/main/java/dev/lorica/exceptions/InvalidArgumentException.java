package dev.lorica.exceptions;

/** A value is out of range, or things were asked for in the wrong order. */
public final class InvalidArgumentException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public InvalidArgumentException(String message) {
        super(message);
    }

    public InvalidArgumentException(String message, Throwable cause) {
        super(message, cause);
    }
}
