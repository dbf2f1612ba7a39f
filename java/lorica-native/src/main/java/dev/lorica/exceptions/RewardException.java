package dev.lorica.exceptions;

/** What judges answers gave no rewards that can be used; the message names it and says why. */
public final class RewardException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public RewardException(String message) {
        super(message);
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public RewardException(String message, Throwable cause) {
        super(message, cause);
    }
}
