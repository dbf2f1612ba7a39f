package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a model is asked before training and after it. */
record Questions(List<String> questions) {
    private static final int ANSWER_TOKENS = 64;

    /** The answers, which are shown as they come. */
    List<String> ask(Terminal terminal, String when, Model base, Adapter adapter, PromptTemplate template) {
        List<String> answers = new ArrayList<>();
        if (questions.isEmpty()) {
            return answers;
        }
        GenerationConfig config = GenerationConfig.builder()
                .temperature(0)
                .maxNewTokens(ANSWER_TOKENS)
                .build();
        ExampleEncoder encoder = new ExampleEncoder(base.tokenizer(), template, false);
        try (Generator generator = new Generator(base, adapter)) {
            for (String question : questions) {
                terminal.out().println(terminal.bold(when + ": " + question));
                Generation generation = generator.generate(encoder.prompt(question, ""), config);
                for (String piece : generation) {
                    terminal.out().print(piece);
                    terminal.out().flush();
                }
                terminal.out().println();
                terminal.out().println();
                answers.add(generation.result().text());
            }
        }
        return answers;
    }

    /** Each with its answers, {@code null} where it was not asked. */
    List<Map<String, Object>> json(List<String> before, List<String> after) {
        List<Map<String, Object>> pairs = new ArrayList<>();
        for (int i = 0; i < questions.size(); i++) {
            Map<String, Object> pair = new LinkedHashMap<>();
            pair.put("question", questions.get(i));
            pair.put("before", i < before.size() ? before.get(i) : null);
            pair.put("after", i < after.size() ? after.get(i) : null);
            pairs.add(pair);
        }
        return pairs;
    }
}
