package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.DataRecord;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What a model is asked before training and after it.
 *
 * @param records the questions
 * @param said    whether the answers are shown as they come; those to questions that nobody asked are for the report alone
 */
record Questions(List<DataRecord> records, boolean said) {
    private static final int ANSWER_TOKENS = 64;
    /** Of an answer that nobody asked for, which is to cost little. */
    private static final int SAMPLE_TOKENS = 32;

    /** What was asked; where nothing was, {@code samples}. */
    static Questions of(List<String> asked, List<DataRecord> samples) {
        return asked.isEmpty()
                ? new Questions(samples, false)
                : new Questions(
                        asked.stream()
                                .map(question -> DataRecord.of(question, ""))
                                .toList(),
                        true);
    }

    /** The question of a record, of a conversation the last one. */
    static String inWords(DataRecord record) {
        return !record.isConversation()
                ? record.prompt()
                : record.conversation().messages().stream()
                        .filter(message -> message.role().equals("user"))
                        .reduce((first, second) -> second)
                        .map(Message::content)
                        .orElse("");
    }

    /** @param terminal {@code null}: nothing is shown */
    List<String> ask(Terminal terminal, String when, Model base, Adapter adapter, PromptTemplate template) {
        List<String> answers = new ArrayList<>();
        if (records.isEmpty()) {
            return answers;
        }
        GenerationConfig config = GenerationConfig.builder()
                .temperature(0)
                .maxNewTokens(said ? ANSWER_TOKENS : SAMPLE_TOKENS)
                .build();
        ExampleEncoder encoder = new ExampleEncoder(base.tokenizer(), template, false);
        try (Generator generator = new Generator(base, adapter)) {
            for (DataRecord question : records) {
                int[] ids = encoder.prompt(question);
                if (!said && ids.length >= base.info().contextLength()) {
                    answers.add(null);
                    continue;
                }
                Generation generation = generator.generate(ids, config);
                if (said && terminal != null) {
                    terminal.out().println(terminal.bold(when + ": " + inWords(question)));
                    for (String piece : generation) {
                        terminal.text().print(piece);
                        terminal.text().flush();
                    }
                    terminal.out().println();
                    terminal.out().println();
                }
                answers.add(generation.result().text());
            }
        }
        return answers;
    }

    /** The same without a word. */
    List<String> answers(Model base, Adapter adapter, PromptTemplate template) {
        return ask(null, "", base, adapter, template);
    }

    /** Each with its answers, {@code null} where it was not asked. */
    List<Map<String, Object>> json(List<String> before, List<String> after) {
        List<Map<String, Object>> pairs = new ArrayList<>();
        for (int i = 0; i < records.size(); i++) {
            Map<String, Object> pair = new LinkedHashMap<>();
            pair.put("question", inWords(records.get(i)));
            pair.put("before", i < before.size() ? before.get(i) : null);
            pair.put("after", i < after.size() ? after.get(i) : null);
            pairs.add(pair);
        }
        return pairs;
    }
}
