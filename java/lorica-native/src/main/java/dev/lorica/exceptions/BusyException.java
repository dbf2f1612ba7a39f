package dev.lorica.exceptions;

/** As much is waiting as may wait; later there is room. */
public final class BusyException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public BusyException(String message) {
        super(message);
    }
}
