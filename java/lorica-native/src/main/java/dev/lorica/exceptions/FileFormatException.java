package dev.lorica.exceptions;

/** A file is damaged, or is not what it claims to be. */
public final class FileFormatException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public FileFormatException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public FileFormatException(String message, Throwable cause) {
        super(message, cause);
    }
}
