package dev.lorica.exceptions;

/** The native library cannot be loaded on this machine; the message says which file was tried and why. */
public final class LibraryLoadException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public LibraryLoadException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public LibraryLoadException(String message, Throwable cause) {
        super(message, cause);
    }
}
