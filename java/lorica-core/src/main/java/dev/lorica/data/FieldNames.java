package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;

/**
 * Names of fields, where a data file calls them otherwise than most. {@code null}: found by itself.
 *
 * @param prompt   field with the prompt
 * @param input    field with what the prompt is to be applied to
 * @param response field with the response
 * @param system   field with the system prompt
 * @param messages field with the messages of a conversation
 * @param text     field with a plain text
 * @param label    of a classifier's records: field with the label
 * @param textPair of a classifier's records: field with a second text
 * @param weight   field that says how much the loss of a record counts; {@code ""}: none does
 */
public record FieldNames(
        String prompt,
        String input,
        String response,
        String system,
        String messages,
        String text,
        String label,
        String textPair,
        String weight) {

    /** All are found by themselves. */
    public static final FieldNames NONE = new FieldNames(null, null, null, null, null, null);

    /**
     * Of records that are no classifier's.
     *
     * @param prompt   as {@link #prompt()}
     * @param input    as {@link #input()}
     * @param response as {@link #response()}
     * @param system   as {@link #system()}
     * @param messages as {@link #messages()}
     * @param text     as {@link #text()}
     */
    public FieldNames(String prompt, String input, String response, String system, String messages, String text) {
        this(prompt, input, response, system, messages, text, null, null, null);
    }

    /**
     * {@return names of the fields of a classifier's records}
     *
     * @param text     field with the text
     * @param textPair field with a second text; {@code null}: found by itself
     * @param label    field with the label
     */
    public static FieldNames classes(String text, String textPair, String label) {
        return new FieldNames(null, null, null, null, null, text, label, textPair, null);
    }

    /**
     * Checks that the names go together.
     *
     * @throws InvalidArgumentException naming those that do not
     */
    public FieldNames {
        if (text != null && (prompt != null || response != null || messages != null)) {
            throw new InvalidArgumentException(
                    "the text field excludes the prompt field, the response field and the messages field");
        }
        if (messages != null && (prompt != null || response != null)) {
            throw new InvalidArgumentException("the messages field excludes the prompt field and the response field");
        }
    }

    /**
     * {@return the same with a field that says how much the loss of a record counts}
     *
     * @param field the field with the weight; {@code null}: found by itself
     */
    public FieldNames withWeight(String field) {
        return new FieldNames(prompt, input, response, system, messages, text, label, textPair, field);
    }

    /**
     * {@return names of the fields of questions}
     *
     * @param prompt   field with the prompt
     * @param response field with the response
     */
    public static FieldNames of(String prompt, String response) {
        return new FieldNames(prompt, null, response, null, null, null);
    }
}
