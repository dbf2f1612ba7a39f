package dev.lorica.data;

import dev.lorica.Detokenizer;
import dev.lorica.Tokenizer;
import java.util.ArrayList;
import java.util.List;

/**
 * A data set as a model sees it: examples no longer than the maximum length, each with something in it to learn.
 *
 * <pre>{@code
 * TokenizedDataset train = TokenizedDataset.of(Dataset.load(file), model.tokenizer(), DataConfig.ofMaxLength(512));
 * DataReport report = train.report();
 * }</pre>
 *
 * Immutable.
 */
public final class TokenizedDataset {
    private final List<Example> examples;
    private final DataReport report;

    private TokenizedDataset(List<Example> examples, DataReport report) {
        this.examples = List.copyOf(examples);
        this.report = report;
    }

    /**
     * @throws DataException if nothing is left to train on, or an example is too long where that is an error
     */
    public static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config) {
        PromptTemplate template = config.template() != null ? config.template() : PromptTemplate.forDataset(data);
        List<DataRecord> usable = new ArrayList<>(data.size());
        int withInput = 0;
        for (DataRecord record : data) {
            withInput += record.input().isEmpty() ? 0 : 1;
            if (!record.response().isBlank()) {
                usable.add(record);
            }
        }
        List<Example> encoded = new ExampleEncoder(tokenizer, template, config.trainOnPrompt()).encode(usable);

        List<Example> kept = new ArrayList<>(encoded.size());
        int nothingToLearn = 0;
        int overLong = 0;
        int truncated = 0;
        int dropped = 0;
        int longest = 0;
        long longestLine = 0;
        long tokens = 0;
        long trainedTokens = 0;
        for (int i = 0; i < encoded.size(); i++) {
            Example example = encoded.get(i);
            DataRecord record = usable.get(i);
            if (example.length() > longest) {
                longest = example.length();
                longestLine = record.line();
            }
            if (example.trainedTokens() == 0) {
                nothingToLearn++;
                continue;
            }
            if (example.length() > config.maxLength()) {
                overLong++;
                if (config.overflow() == Overflow.ERROR) {
                    throw new DataException(place(data, record, i) + " has " + example.length()
                            + " tokens, more than the maximum of " + config.maxLength()
                            + "; raise --max-length, or choose --overflow drop or truncate");
                }
                example = example.prefix(config.maxLength());
                if (config.overflow() == Overflow.DROP || example.trainedTokens() == 0) {
                    dropped++;
                    continue;
                }
                truncated++;
            }
            kept.add(example);
            tokens += example.length();
            trainedTokens += example.trainedTokens();
        }
        int empty = data.size() - usable.size() + nothingToLearn;
        if (kept.isEmpty()) {
            throw nothingLeft(data, config, empty, dropped, longest);
        }
        DataReport report = new DataReport(
                data.name(),
                data.format(),
                data.fields(),
                template,
                data.size(),
                withInput,
                kept.size(),
                empty,
                config.maxLength(),
                overLong,
                truncated,
                dropped,
                longest,
                longestLine,
                tokens,
                trainedTokens,
                tokenizer.info().eos() >= 0,
                stretches(kept.get(0), tokenizer));
        return new TokenizedDataset(kept, report);
    }

    public List<Example> examples() {
        return examples;
    }

    public int size() {
        return examples.size();
    }

    public DataReport report() {
        return report;
    }

    /** The example as text again, split where training begins or ends. */
    public static List<DataReport.Stretch> stretches(Example example, Tokenizer tokenizer) {
        List<DataReport.Stretch> stretches = new ArrayList<>();
        StringBuilder text = new StringBuilder();
        try (Detokenizer stream = tokenizer.detokenizer(true)) {
            for (int i = 0; i < example.length(); i++) {
                boolean trained = example.trained()[i];
                if (i > 0 && trained != example.trained()[i - 1] && text.length() > 0) {
                    stretches.add(new DataReport.Stretch(text.toString(), !trained));
                    text.setLength(0);
                }
                text.append(stream.push(example.ids()[i]));
            }
            text.append(stream.finish());
        }
        stretches.add(new DataReport.Stretch(text.toString(), example.trained()[example.length() - 1]));
        return stretches;
    }

    private static String place(Dataset data, DataRecord record, int index) {
        return record.line() > 0 ? data.name() + ", line " + record.line() + ": the example" : "example " + (index + 1);
    }

    private static DataException nothingLeft(Dataset data, DataConfig config, int empty, int dropped, int longest) {
        String name = data.name().isEmpty() ? "the data set" : data.name();
        if (dropped == 0) {
            return new DataException(name + ": nothing to train on: all " + data.size() + " responses are empty");
        }
        return new DataException(name + ": nothing to train on: of " + data.size() + " examples, " + dropped
                + " have more than " + config.maxLength() + " tokens (the longest " + longest + ")"
                + (empty > 0 ? " and " + empty + " are empty" : "") + "; raise --max-length");
    }
}
