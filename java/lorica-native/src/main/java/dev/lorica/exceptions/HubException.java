package dev.lorica.exceptions;

/** A file on a model hub cannot be had: it is not there, not allowed, not reachable, or not what it is said to be. */
public final class HubException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public HubException(String message) {
        super(message);
    }

    public HubException(String message, Throwable cause) {
        super(message, cause);
    }
}
