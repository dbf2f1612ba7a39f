package dev.lorica.exceptions;

/** A file on a model hub cannot be had: it is not there, not allowed, not reachable, or not what it is said to be. */
public final class HubException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public HubException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public HubException(String message, Throwable cause) {
        super(message, cause);
    }
}
