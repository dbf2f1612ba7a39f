package dev.lorica.exceptions;

/** A file or folder cannot be opened, read, written or renamed. */
public final class FileAccessException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public FileAccessException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public FileAccessException(String message, Throwable cause) {
        super(message, cause);
    }
}
