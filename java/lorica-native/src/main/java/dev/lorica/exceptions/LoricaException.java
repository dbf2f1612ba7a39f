package dev.lorica.exceptions;

/**
 * Something that Lorica was asked for could not be done. The message is one line that says what was wrong, where, and what to
 * do about it; it is fit to be shown to a user as it is.
 */
public class LoricaException extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private static final int LONGEST_MESSAGE = 4000;

    /**
     * Says what is wrong.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     */
    public LoricaException(String message) {
        super(oneLine(message));
    }

    /**
     * Says what is wrong, and what was thrown before.
     *
     * @param message what is wrong, where, and what to do about it, in one line
     * @param cause   what was thrown before
     */
    public LoricaException(String message, Throwable cause) {
        super(oneLine(message), cause);
    }

    /** Messages quote files, and what is in a file may be anything. */
    private static String oneLine(String message) {
        String line = String.valueOf(message).replaceAll("[\\p{Cntrl}\u2028\u2029]", " ");
        return line.length() <= LONGEST_MESSAGE ? line : line.substring(0, LONGEST_MESSAGE) + "…";
    }
}
