package dev.lorica.data;

import java.util.Objects;

/**
 * One example as text, before any template.
 *
 * @param prompt   what is asked, or {@code null} in a set of plain texts, which have nothing but {@code response}
 * @param input    what the prompt is to be applied to (Alpaca's {@code input}), {@code ""} when there is none
 * @param response what the model is to say
 * @param line     line of the file on which the record begins, 0 when it comes from no file
 */
public record DataRecord(String prompt, String input, String response, long line) {
    public DataRecord {
        Objects.requireNonNull(input, "input");
        Objects.requireNonNull(response, "response");
    }

    /** A question and its answer, from no file. */
    public static DataRecord of(String prompt, String response) {
        return new DataRecord(Objects.requireNonNull(prompt, "prompt"), "", response, 0);
    }

    /** A plain text, all of which is learned, from no file. */
    public static DataRecord text(String text) {
        return new DataRecord(null, "", text, 0);
    }

    /** Whether this is a plain text without a prompt. */
    public boolean isText() {
        return prompt == null;
    }
}
