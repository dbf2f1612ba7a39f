package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The fields of a record that are used.
 *
 * @param prompt   field with the prompt, or {@code null} where records are plain texts or conversations
 * @param input    field with what the prompt is to be applied to, or {@code null} where the set has none; single
 *                 records may lack it
 * @param response field with the response, with the text where there is no prompt, or {@code null} in conversations
 * @param system   field with the system prompt; single records may lack it
 * @param messages field with the messages of a conversation, or {@code null} where records are none
 * @param history  field with what was said before the prompt, as pairs of a prompt and a response (Alpaca's {@code history}), or
 *                 {@code null} where no record has any. With it records are conversations
 * @param rejected field with the worse answer of a pair, whose better one is in {@code response}; {@code null}: no pairs. The
 *                 prompt of pairs may be {@code null}: it is what both begin with
 * @param label    field that says whether the response is a good one; {@code null}: none does
 * @param weight   field that says how much the loss of a record counts, which single records may lack; {@code null}: none does
 */
public record DataFields(
        String prompt,
        String input,
        String response,
        String system,
        String messages,
        String history,
        String rejected,
        String label,
        String weight) {
    /** The field that is looked at for what was said before. */
    static final String KNOWN_HISTORY = "history";

    /** Beside messages, what the assistant may call. */
    private static final String TOOLS = "tools";

    private record Pair(String prompt, String response) {}

    private static final List<String> KNOWN_MESSAGES = List.of("messages", "conversations", "conversation");

    /** What is found by itself, in the order in which it is looked for. */
    private static final List<Pair> KNOWN = List.of(
            new Pair("instruction", "response"),
            new Pair("instruction", "output"),
            new Pair("question", "answer"),
            new Pair("prompt", "completion"),
            new Pair("prompt", "answer"),
            new Pair("prompt", "response"),
            new Pair(null, "text"));

    /** The field that is looked at for how much a record counts. */
    static final String KNOWN_WEIGHT = "weight";

    static final String CHOSEN = "chosen";
    static final String REJECTED = "rejected";
    private static final String LABEL = "label";

    private static final List<String> KNOWN_PROMPTS = List.of("instruction", "question", "prompt");
    private static final List<String> KNOWN_RESPONSES = List.of("response", "output", "answer", "completion");

    /**
     * Checks that fields go together.
     *
     * @throws InvalidArgumentException if there are both a response and messages, or nothing to learn
     */
    public DataFields {
        if (messages != null && response != null || messages == null && response == null && prompt == null) {
            throw new InvalidArgumentException("either a response or messages, or a prompt alone");
        }
    }

    /**
     * Of records that are neither pairs nor labelled.
     *
     * @param prompt   as {@link #prompt()}
     * @param input    as {@link #input()}
     * @param response as {@link #response()}
     * @param system   as {@link #system()}
     * @param messages as {@link #messages()}
     * @param history  as {@link #history()}
     */
    public DataFields(String prompt, String input, String response, String system, String messages, String history) {
        this(prompt, input, response, system, messages, history, null, null, KNOWN_WEIGHT);
    }

    /**
     * Of questions, with a system prompt in the field {@code system} where there is one.
     *
     * @param prompt   as {@link #prompt()}
     * @param input    as {@link #input()}
     * @param response as {@link #response()}
     */
    public DataFields(String prompt, String input, String response) {
        this(prompt, input, response, "system", null, null);
    }

    /**
     * {@return a prompt field and a response field, without an input field}
     *
     * @param prompt   field with the prompt
     * @param response field with the response
     */
    public static DataFields of(String prompt, String response) {
        Arguments.given(response, "response");
        return new DataFields(Arguments.given(prompt, "prompt"), null, response);
    }

    /**
     * {@return one field with plain texts}
     *
     * @param field its name
     */
    public static DataFields text(String field) {
        Arguments.given(field, "field");
        return new DataFields(null, null, field);
    }

    /**
     * {@return one field with the messages of a conversation}
     *
     * @param field its name
     */
    public static DataFields conversation(String field) {
        Arguments.given(field, "field");
        return new DataFields(null, null, null, "system", field, null);
    }

    /**
     * {@return the first known field or pair of fields that is among {@code present}; empty when there is none}
     *
     * @param present names of fields
     */
    public static Optional<DataFields> detect(Collection<String> present) {
        Arguments.all(present, "present");
        Optional<DataFields> conversation =
                KNOWN_MESSAGES.stream().filter(present::contains).findFirst().map(DataFields::conversation);
        return conversation.isPresent()
                ? conversation
                : KNOWN.stream()
                        .filter(pair -> (pair.prompt == null || present.contains(pair.prompt))
                                && present.contains(pair.response))
                        .findFirst()
                        .map(pair -> new DataFields(pair.prompt, inputBeside(pair.prompt, present), pair.response));
    }

    /** Those of pairs among {@code present}; empty when there are none. */
    static Optional<DataFields> detectPairs(Collection<String> present, FieldNames names) {
        String chosen = names.response() != null ? names.response() : CHOSEN;
        if (!present.contains(chosen) || !present.contains(REJECTED)) {
            return Optional.empty();
        }
        String prompt =
                names.prompt() != null ? names.prompt() : detectPrompt(present).orElse(null);
        return Optional.of(new DataFields(
                prompt, inputBeside(prompt, present), chosen, "system", null, null, REJECTED, null, null));
    }

    /** What is asked, among {@code present}; empty when nothing is. */
    static Optional<DataFields> detectPrompts(Collection<String> present, FieldNames names) {
        String messages = names.messages() != null
                ? names.messages()
                : KNOWN_MESSAGES.stream().filter(present::contains).findFirst().orElse(null);
        if (messages != null && names.prompt() == null) {
            return Optional.of(conversation(messages));
        }
        String prompt =
                names.prompt() != null ? names.prompt() : detectPrompt(present).orElse(null);
        return prompt == null
                ? Optional.empty()
                : Optional.of(new DataFields(prompt, inputBeside(prompt, present), null));
    }

    /** With what says whether a response is a good one. */
    DataFields withLabel() {
        return new DataFields(prompt, input, response, system, messages, history, rejected, LABEL, null);
    }

    private static final List<String> KNOWN_TEXTS = List.of("text", "sentence", "content", "review", "prompt");

    /** Those of a classifier's records among {@code present}: what is read is the prompt, what is said of it the response. */
    static Optional<DataFields> detectClasses(Collection<String> present, FieldNames names) {
        String label = names.label() != null ? names.label() : LABEL;
        String text = names.text() != null
                ? names.text()
                : KNOWN_TEXTS.stream()
                        .filter(name -> present.contains(name) && !name.equals(label))
                        .findFirst()
                        .orElse(null);
        return text == null || !present.contains(label)
                ? Optional.empty()
                : Optional.of(new DataFields(text, names.textPair(), label, null, null, null, null, label, null));
    }

    /** {@return whether records are texts with what a classifier is to say of them} */
    public boolean isClasses() {
        return label != null && label.equals(response);
    }

    /** {@return whether records are pairs of a better and a worse answer} */
    public boolean isPairs() {
        return rejected != null;
    }

    /** The known prompt field among {@code present}, for a user who named only the response. */
    static Optional<String> detectPrompt(Collection<String> present) {
        return KNOWN_PROMPTS.stream().filter(present::contains).findFirst();
    }

    /** The known response field among {@code present}, for a user who named only the prompt. */
    static Optional<String> detectResponse(Collection<String> present) {
        return KNOWN_RESPONSES.stream().filter(present::contains).findFirst();
    }

    /**
     * Alpaca's {@code input} or Dolly's {@code context}. Both sets leave it empty or out where there is nothing to say,
     * so the first record cannot tell whether later ones have it.
     */
    static String inputBeside(String prompt, Collection<String> present) {
        if (!"instruction".equals(prompt)) {
            return null;
        }
        return present.contains("context") && !present.contains("input") ? "context" : "input";
    }

    static String knownInWords() {
        return "messages, conversations, instruction/response, instruction/output, question/answer, prompt/completion,"
                + " prompt/answer or text";
    }

    /** With these names instead, where they are given. */
    DataFields with(FieldNames names) {
        return new DataFields(
                prompt,
                names.input() != null ? names.input() : input,
                response,
                names.system() != null ? names.system() : system,
                messages,
                history,
                rejected,
                label,
                weight);
    }

    /** With what says how much records count. */
    DataFields withWeight(String weight) {
        return new DataFields(prompt, input, response, system, messages, history, rejected, label, weight);
    }

    /** Those of {@code present} that are not looked at. */
    List<String> unused(List<String> present) {
        Set<String> used = new HashSet<>(
                Arrays.asList(prompt, input, response, system, messages, history, rejected, label, weight, TOOLS));
        return present.stream()
                .filter(name -> !used.contains(name) && !name.equals(KNOWN_HISTORY))
                .toList();
    }

    DataFields withHistory() {
        return new DataFields(prompt, input, response, system, messages, KNOWN_HISTORY, rejected, label, weight);
    }

    /** {@return whether records are plain texts without a prompt} */
    public boolean isText() {
        return prompt == null && messages == null && rejected == null;
    }

    /** {@return whether records are conversations} */
    public boolean isConversation() {
        return messages != null;
    }

    /** For people: {@code instruction/response}, {@code history/instruction/output}. */
    @Override
    public String toString() {
        String pair = messages != null
                ? messages
                : prompt == null ? response : response == null ? prompt : prompt + "/" + response;
        return (history == null ? "" : history + "/")
                + pair
                + (rejected == null ? "" : "/" + rejected)
                + (label == null ? "" : "/" + label);
    }
}
