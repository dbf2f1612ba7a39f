package dev.lorica.data;

/** What becomes of examples with more tokens than the maximum length. In every case they are counted and reported. */
public enum Overflow {
    /** They are left out: no example is trained on without its end. */
    DROP,
    /** Their first tokens are kept; what is cut off, EOS among it, is not learned. */
    TRUNCATE,
    /** They are refused with a {@link DataException}. */
    ERROR
}
