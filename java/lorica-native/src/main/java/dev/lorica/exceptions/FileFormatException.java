package dev.lorica.exceptions;

/** A file is damaged, or is not what it claims to be. */
public final class FileFormatException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public FileFormatException(String message) {
        super(message);
    }

    public FileFormatException(String message, Throwable cause) {
        super(message, cause);
    }
}
