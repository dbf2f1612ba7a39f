package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.List;
import java.util.Map;

/**
 * A template that is text with {@code {instruction}}, {@code {input}} and {@code {system}} in it. It ends where the response
 * begins. Braces in the instruction itself mean nothing. A system prompt that the pattern has no place for stands in front,
 * with a blank line behind it.
 *
 * @param name            what people call it
 * @param prompt          pattern for a prompt without input
 * @param promptWithInput pattern for a prompt with input
 * @param parseSpecial    whether control tokens written out in the data are taken for control tokens, as in data that
 *                        was prepared for one model with its own format
 */
public record TextTemplate(String name, String prompt, String promptWithInput, boolean parseSpecial)
        implements PromptTemplate {
    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public TextTemplate {
        Arguments.given(prompt, "prompt");
        Arguments.given(promptWithInput, "promptWithInput");
        Arguments.given(name, "name");
        if (!prompt.contains("{instruction}") || !promptWithInput.contains("{instruction}")) {
            throw new InvalidArgumentException("template \"" + name + "\" has no {instruction} in it");
        }
    }

    /**
     * {@return the text that generation begins with}
     *
     * @param instruction what is asked
     */
    public String render(String instruction) {
        return render(instruction, "");
    }

    /**
     * {@return the text that generation begins with}
     *
     * @param instruction what is asked
     * @param input       what it is to be applied to; may be empty
     */
    public String render(String instruction, String input) {
        Arguments.given(instruction, "instruction");
        Arguments.given(input, "input");
        return render("", instruction, input);
    }

    String render(String system, String instruction, String input) {
        String pattern = input.isEmpty() ? prompt : promptWithInput;
        Map<String, String> values = Map.of("{instruction}", instruction, "{input}", input, "{system}", system);
        StringBuilder text = new StringBuilder(pattern.length() + instruction.length() + input.length());
        if (!system.isEmpty() && !pattern.contains("{system}")) {
            text.append(system).append("\n\n");
        }
        int from = 0;
        while (from < pattern.length()) {
            int at = from;
            String name = values.keySet().stream()
                    .filter(key -> pattern.startsWith(key, at))
                    .findFirst()
                    .orElse(null);
            text.append(name == null ? pattern.substring(from, from + 1) : values.get(name));
            from += name == null ? 1 : name.length();
        }
        return text.toString();
    }

    /**
     * The example's text in order, each stretch with whether it is trained on. EOS is not part of it: every example
     * gets it.
     */
    List<Segment> segments(DataRecord record) {
        Segment response = new Segment(record.response(), true, parseSpecial);
        if (record.isText()) {
            return List.of(response);
        }
        if (record.isConversation()) {
            throw notForConversations(record);
        }
        return List.of(question(record), response);
    }

    /** What generation begins with; also of a conversation, as long as it is a single question. */
    Segment question(DataRecord record) {
        if (!record.isConversation()) {
            return new Segment(render(record.system(), record.prompt(), record.input()), false, parseSpecial);
        }
        List<Message> messages =
                record.conversation().withSystem(record.system()).messages();
        boolean system = messages.get(0).role().equals("system");
        if (messages.size() != (system ? 2 : 1)
                || !messages.get(messages.size() - 1).role().equals("user")) {
            throw notForConversations(record);
        }
        String instruction = messages.get(messages.size() - 1).content();
        return new Segment(render(system ? messages.get(0).content() : "", instruction, ""), false, parseSpecial);
    }

    private DataException notForConversations(DataRecord record) {
        return new DataException(
                (record.line() > 0 ? "line " + record.line() : "this") + " is a conversation, and template \"" + name
                        + "\" is for a prompt and a response; choose a chat template");
    }
}
