package dev.lorica.data;

/** What becomes of a conversation that the chat template cannot show. In every case it is counted and reported. */
public enum Unshown {
    /** It is left out; that nothing is left is an error. */
    SKIP,
    /** It is refused with a {@link DataException}. */
    ERROR
}
