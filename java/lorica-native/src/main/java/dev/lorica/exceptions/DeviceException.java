package dev.lorica.exceptions;

/** The device asked for is missing, or a kernel on it failed. */
public final class DeviceException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public DeviceException(String message) {
        super(message);
    }

    public DeviceException(String message, Throwable cause) {
        super(message, cause);
    }
}
