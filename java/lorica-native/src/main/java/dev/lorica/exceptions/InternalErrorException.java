package dev.lorica.exceptions;

/** A defect of this library. Please report it with its message. */
public final class InternalErrorException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public InternalErrorException(String message) {
        super(message);
    }

    public InternalErrorException(String message, Throwable cause) {
        super(message, cause);
    }
}
