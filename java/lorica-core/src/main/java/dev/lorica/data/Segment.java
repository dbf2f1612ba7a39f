package dev.lorica.data;

import java.util.Objects;

/**
 * A stretch of an example's text that is tokenized by itself.
 *
 * @param text         the text
 * @param trained      whether the model learns to say it
 * @param parseSpecial whether control tokens written out in it ({@code <|im_end|>}) become those tokens; false for text
 *                     whose author is not to be able to forge them
 */
public record Segment(String text, boolean trained, boolean parseSpecial) {
    public Segment {
        Objects.requireNonNull(text, "text");
    }
}
