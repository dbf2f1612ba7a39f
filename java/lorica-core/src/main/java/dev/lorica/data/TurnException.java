package dev.lorica.data;

/** A turn of a conversation that a chat template cannot show, and why. */
final class TurnException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int turn;
    private final String role;

    /** @param turn counted from 1 */
    TurnException(int turn, String role, String reason, Throwable cause) {
        super(reason, cause);
        this.turn = turn;
        this.role = role;
    }

    /** {@code train.jsonl, line 12, turn 3 (tool): the chat template …}. */
    String at(DataRecord record, String file) {
        return record.where(file) + ", turn " + turn + " (" + role + "): " + getMessage();
    }
}
