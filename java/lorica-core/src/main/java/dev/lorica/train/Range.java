package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.function.DoublePredicate;

/** Which numbers a setting can have, and how that is said. */
record Range(DoublePredicate holds, String meant) {
    static final Range ANY = new Range(x -> true, "");
    static final Range ABOVE_0 = new Range(x -> x > 0, "more than 0");
    static final Range ZERO_OR_MORE = new Range(x -> x >= 0, "0 or more");
    static final Range ONE_OR_MORE = new Range(x -> x >= 1, "at least 1");
    static final Range TWO_OR_MORE = new Range(x -> x >= 2, "at least 2");
    static final Range BELOW_1 = new Range(x -> x >= 0 && x < 1, "at least 0 and below 1");
    static final Range COUNT_OR_MINUS_1 =
            new Range(x -> x == -1 || x > 0, "at least 1, or -1 for as many as the epochs say");

    /**
     * @param name for the message: {@code batch size}
     * @throws InvalidArgumentException for a number outside
     */
    void check(String name, Object value) {
        if (this != ANY
                && value instanceof Number number
                && !(Double.isFinite(number.doubleValue()) && holds.test(number.doubleValue()))) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }
}
