package dev.lorica.exceptions;

/** As much is waiting as may wait; later there is room. */
public final class BusyException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public BusyException(String message) {
        super(message);
    }
}
