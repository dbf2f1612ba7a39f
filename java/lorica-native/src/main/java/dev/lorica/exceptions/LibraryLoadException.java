package dev.lorica.exceptions;

/** The native library cannot be loaded on this machine; the message says which file was tried and why. */
public final class LibraryLoadException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public LibraryLoadException(String message) {
        super(message);
    }

    public LibraryLoadException(String message, Throwable cause) {
        super(message, cause);
    }
}
