package dev.lorica.data;

import java.util.List;
import java.util.Objects;

/**
 * The text that stands around a prompt, the same in training and in generation.
 *
 * <p>A pattern is text with {@code {instruction}} and {@code {input}} in it. It ends where the response begins. Braces
 * in the instruction itself mean nothing.
 *
 * @param name            what people call it
 * @param prompt          pattern for a prompt without input
 * @param promptWithInput pattern for a prompt with input
 * @param parseSpecial    whether control tokens written out in the data are taken for control tokens, as in data that
 *                        was prepared for one model with its own format
 */
public record PromptTemplate(String name, String prompt, String promptWithInput, boolean parseSpecial) {

    /**
     * {@code ### Instruction:}, the prompt, {@code ### Response:}, the response; with {@code ### Input:} where there is
     * one.
     */
    public static final PromptTemplate INSTRUCTION = new PromptTemplate(
            "instruction",
            "### Instruction:\n{instruction}\n\n### Response:\n",
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
            false);

    /** Nothing around it: prompt and response follow each other as they are. */
    public static final PromptTemplate PLAIN =
            new PromptTemplate("plain", "{instruction}", "{instruction}\n\n{input}", true);

    private static final String RESPONSE_MARK = "### Response:";

    public PromptTemplate {
        Objects.requireNonNull(name, "name");
        if (!prompt.contains("{instruction}") || !promptWithInput.contains("{instruction}")) {
            throw new IllegalArgumentException("template \"" + name + "\" has no {instruction} in it");
        }
    }

    /** The template of this name. */
    public static PromptTemplate named(String name) {
        return switch (name) {
            case "instruction" -> INSTRUCTION;
            case "plain" -> PLAIN;
            default -> throw new IllegalArgumentException(
                    "no template is called \"" + name + "\"; there are instruction and plain");
        };
    }

    /**
     * The template that a data set asks for: {@link #PLAIN} for plain texts and for prompts that all carry
     * {@code ### Response:} already, so that nothing is wrapped twice; otherwise {@link #INSTRUCTION}.
     */
    public static PromptTemplate forDataset(Dataset data) {
        if (data.fields().isText()) {
            return PLAIN;
        }
        for (DataRecord record : data) {
            if (!record.prompt().contains(RESPONSE_MARK)) {
                return INSTRUCTION;
            }
        }
        return PLAIN;
    }

    /** The text that generation begins with. */
    public String render(String instruction) {
        return render(instruction, "");
    }

    /** The text that generation begins with; {@code input} may be empty. */
    public String render(String instruction, String input) {
        String pattern = input.isEmpty() ? prompt : promptWithInput;
        StringBuilder text = new StringBuilder(pattern.length() + instruction.length() + input.length());
        int from = 0;
        while (from < pattern.length()) {
            if (pattern.startsWith("{instruction}", from)) {
                text.append(instruction);
                from += "{instruction}".length();
            } else if (pattern.startsWith("{input}", from)) {
                text.append(input);
                from += "{input}".length();
            } else {
                text.append(pattern.charAt(from++));
            }
        }
        return text.toString();
    }

    /**
     * The example's text in order, each stretch with whether it is trained on. EOS is not part of it: every example
     * gets it.
     */
    public List<Segment> segments(DataRecord record) {
        Segment response = new Segment(record.response(), true, parseSpecial);
        if (record.isText()) {
            return List.of(response);
        }
        return List.of(new Segment(render(record.prompt(), record.input()), false, parseSpecial), response);
    }
}
