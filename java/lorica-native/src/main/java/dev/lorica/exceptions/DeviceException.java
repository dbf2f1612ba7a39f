package dev.lorica.exceptions;

/** The device asked for is missing, or a kernel on it failed. */
public final class DeviceException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public DeviceException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public DeviceException(String message, Throwable cause) {
        super(message, cause);
    }
}
