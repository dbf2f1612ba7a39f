package dev.lorica.exceptions;

/** A file or folder cannot be opened, read, written or renamed. */
public final class FileAccessException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public FileAccessException(String message) {
        super(message);
    }

    public FileAccessException(String message, Throwable cause) {
        super(message, cause);
    }
}
