package dev.lorica.exceptions;

/** What judges answers gave no rewards that can be used; the message names it and says why. */
public final class RewardException extends LoricaException {
    private static final long serialVersionUID = 1L;

    public RewardException(String message) {
        super(message);
    }

    public RewardException(String message, Throwable cause) {
        super(message, cause);
    }
}
