package dev.lorica.data;

import dev.lorica.internal.Arguments;

/**
 * A stretch of an example's text that is tokenized by itself.
 *
 * @param text         the text
 * @param trained      whether the model learns to say it
 * @param parseSpecial whether control tokens written out in it ({@code <|im_end|>}) become those tokens; false for text
 *                     whose author is not to be able to forge them
 * @param endsTurn     whether it is what the assistant says in a turn, with the token that ends the turn and perhaps white
 *                     space behind it, which nobody ever generates and which is not learned
 * @param weight       how much the loss of its tokens counts; 1 as a rule
 */
public record Segment(String text, boolean trained, boolean parseSpecial, boolean endsTurn, float weight) {
    /** Checks that there is a text. */
    public Segment {
        Arguments.given(text, "text");
    }

    /**
     * A stretch that is not what the assistant says in a turn.
     *
     * @param text         as {@link #text()}
     * @param trained      as {@link #trained()}
     * @param parseSpecial as {@link #parseSpecial()}
     */
    public Segment(String text, boolean trained, boolean parseSpecial) {
        this(text, trained, parseSpecial, false);
    }

    /**
     * A stretch of which each token that is learned counts alike.
     *
     * @param text         as {@link #text()}
     * @param trained      as {@link #trained()}
     * @param parseSpecial as {@link #parseSpecial()}
     * @param endsTurn     as {@link #endsTurn()}
     */
    public Segment(String text, boolean trained, boolean parseSpecial, boolean endsTurn) {
        this(text, trained, parseSpecial, endsTurn, 1);
    }
}
