package dev.lorica.data;

import dev.lorica.Detokenizer;
import dev.lorica.Tokenizer;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.RandomAccess;
import java.util.function.BooleanSupplier;

/**
 * A data set as a model sees it: examples no longer than the maximum length, each with something in it to learn.
 *
 * <pre>{@code
 * TokenizedDataset train = TokenizedDataset.of(Dataset.load(file), model.tokenizer(), DataConfig.ofMaxLength(512));
 * DataReport report = train.report();
 * }</pre>
 *
 * It may be larger than memory: what does not fit well is in a temporary file. Immutable.
 */
public final class TokenizedDataset {
    private final Examples examples;
    private final DataReport report;

    private TokenizedDataset(Examples examples, DataReport report) {
        this.examples = examples;
        this.report = report;
    }

    /**
     * @throws DataException if nothing is left to train on, or an example is too long where that is an error
     */
    public static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config) {
        return of(data, tokenizer, config, () -> false);
    }

    /**
     * The same, which can be ended.
     *
     * @param stop asked before each record
     * @return {@code null} when {@code stop} became true before the end
     */
    public static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config, BooleanSupplier stop) {
        try {
            return of(data, tokenizer, config, new ExampleStore(), stop);
        } catch (Stopped e) {
            return null;
        }
    }

    /** Leaves the reading of records, wherever that is. */
    private static final class Stopped extends RuntimeException {
        private static final long serialVersionUID = 1;

        Stopped() {
            super(null, null, false, false);
        }
    }

    static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config, ExampleStore store) {
        return of(data, tokenizer, config, store, () -> false);
    }

    private static TokenizedDataset of(
            Dataset data, Tokenizer tokenizer, DataConfig config, ExampleStore store, BooleanSupplier stop) {
        PromptTemplate template =
                config.template() != null ? config.template() : PromptTemplate.forDataset(data, tokenizer.info());
        Collector collector = new Collector(data, tokenizer, config, template, store, stop);
        try (Dataset.Records records = data.open()) {
            if (data.isContinuous()) {
                collector.windows(records);
            } else {
                collector.encode(records);
            }
        }
        return new TokenizedDataset(store, collector.report());
    }

    /** Examples without a report. */
    static TokenizedDataset of(List<Example> examples) {
        ExampleStore store = new ExampleStore();
        examples.forEach(store::add);
        return new TokenizedDataset(store, null);
    }

    /** The examples; each is made anew when it is asked for. */
    public List<Example> examples() {
        return new View();
    }

    private final class View extends AbstractList<Example> implements RandomAccess {
        @Override
        public Example get(int index) {
            return examples.get(index);
        }

        @Override
        public int size() {
            return examples.size();
        }
    }

    public int size() {
        return examples.size();
    }

    /** Tokens of an example, known without reading it. */
    public int length(int index) {
        return examples.length(index);
    }

    public DataReport report() {
        return report;
    }

    /** Two parts of a data set, without an example in common. */
    public record Split(TokenizedDataset train, TokenizedDataset eval) {}

    /**
     * Puts a share of the examples aside for evaluation, drawn by {@code seed}. Both parts keep the order of the data.
     *
     * @param share between 0 and 1; rounded up to whole examples
     */
    public Split split(double share, long seed) {
        int n = examples.size();
        int held = (int) Math.ceil(share * n);
        if (!(share > 0 && share < 1) || held >= n) {
            throw new DataException(
                    "a share of " + share + " of " + n + (n == 1 ? " example" : " examples") + " leaves nothing to "
                            + (held >= n ? "train on" : "evaluate on") + "; it must be between 0 and 1");
        }
        int[] order = Packer.permutation(n, seed);
        int[] eval = Arrays.copyOf(order, held);
        int[] train = Arrays.copyOfRange(order, held, n);
        Arrays.sort(eval);
        Arrays.sort(train);
        String name = report.name();
        return new Split(part(train, name), part(eval, share + " of " + (name.isEmpty() ? "the data" : name)));
    }

    /** As often as {@code weight} says: 2.5 gives every example twice, and half of them, drawn by {@code seed}, once more. */
    public TokenizedDataset weighted(double weight, long seed) {
        if (!(weight > 0 && weight <= 1000)) {
            throw new DataException("a weight of " + weight + "; it must be more than 0 and at most 1000");
        }
        if (weight == 1) {
            return this;
        }
        int n = examples.size();
        int whole = (int) weight;
        int some = (int) Math.round((weight - whole) * n);
        int[] extra = Arrays.copyOf(Packer.permutation(n, seed), whole == 0 ? Math.max(1, some) : some);
        Arrays.sort(extra);
        int[] chosen = new int[Math.addExact(Math.multiplyExact(whole, n), extra.length)];
        for (int i = 0; i < whole * n; i++) {
            chosen[i] = i % n;
        }
        System.arraycopy(extra, 0, chosen, whole * n, extra.length);
        return part(chosen, report.name() + ":" + weight);
    }

    /**
     * All of several data sets, one behind the other.
     *
     * @throws DataException if they were made with different templates; only plain texts go with any
     */
    public static TokenizedDataset concat(List<TokenizedDataset> parts) {
        if (parts.size() == 1) {
            return parts.get(0);
        }
        DataReport main = parts.get(0).report;
        long tokens = 0;
        long trainedTokens = 0;
        List<Examples> examples = new ArrayList<>();
        for (TokenizedDataset part : parts) {
            DataReport report = part.report;
            if (isText(main)) {
                main = report;
            } else if (!isText(report) && !report.template().equals(main.template())) {
                throw new DataException(main.name() + " is for template \""
                        + main.template().name() + "\", " + report.name() + " for \""
                        + report.template().name() + "\"; choose one for both with --template or --chat-template");
            }
            tokens += report.tokens();
            trainedTokens += report.trainedTokens();
            examples.add(part.examples);
        }
        Examples all = Examples.concat(examples);
        String names =
                String.join(", ", parts.stream().map(part -> part.report.name()).toList());
        return new TokenizedDataset(all, main.ofPart(names, all.size(), tokens, trainedTokens));
    }

    private static boolean isText(DataReport report) {
        return report.fields().isText();
    }

    private TokenizedDataset part(int[] chosen, String name) {
        Examples part = examples.select(chosen);
        long tokens = 0;
        long trainedTokens = 0;
        for (int i = 0; i < chosen.length; i++) {
            Example example = part.get(i);
            tokens += example.length();
            trainedTokens += example.trainedTokens();
        }
        return new TokenizedDataset(part, report.ofPart(name, chosen.length, tokens, trainedTokens));
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

    /** Takes examples as they come, and counts. */
    private static final class Collector {
        /** So many conversations that cannot be shown, and none that can: neither will the rest. */
        private static final int MOST_UNSHOWN = 1000;

        private final Dataset data;
        private final Tokenizer tokenizer;
        private final DataConfig config;
        private final PromptTemplate template;
        private final ExampleStore store;
        private final BooleanSupplier stop;
        private final ExampleEncoder encoder;
        private final Lengths lengths = new Lengths();
        private final Fingerprints seen = new Fingerprints();
        private long records;
        private long withInput;
        private long empty;
        private long overLong;
        private long truncated;
        private long dropped;
        private long unshown;
        private String firstUnshown;
        private int longest;
        private long longestLine;
        private long tokens;
        private long trainedTokens;

        Collector(
                Dataset data,
                Tokenizer tokenizer,
                DataConfig config,
                PromptTemplate template,
                ExampleStore store,
                BooleanSupplier stop) {
            this.data = data;
            this.tokenizer = tokenizer;
            this.config = config;
            this.template = template;
            this.store = store;
            this.stop = stop;
            this.encoder = new ExampleEncoder(tokenizer, template, config.trainOnPrompt());
        }

        void encode(Dataset.Records all) {
            encoder.encode(all, (record, examples, refusal) -> {
                goOn();
                records++;
                if (refusal != null) {
                    refuse(refusal.at(record, data.name()));
                    return;
                }
                withInput += record.input().isEmpty() ? 0 : 1;
                boolean learned = false;
                for (Example example : examples) {
                    if (example.length() > longest) {
                        longest = example.length();
                        longestLine = record.line();
                    }
                    if (example.trainedTokens() > 0) {
                        learned = true;
                        add(example, record);
                    }
                }
                empty += learned ? 0 : 1;
            });
        }

        private void refuse(String refusal) {
            if (config.unshown() == Unshown.ERROR) {
                throw new DataException(refusal);
            }
            firstUnshown = firstUnshown == null ? refusal : firstUnshown;
            if (++unshown == MOST_UNSHOWN && store.size() == 0) {
                throw nothingLeft();
            }
        }

        private void goOn() {
            if (stop.getAsBoolean()) {
                throw new Stopped();
            }
        }

        private void add(Example whole, DataRecord record) {
            Example example = whole;
            lengths.add(whole.length());
            if (whole.length() > config.maxLength()) {
                overLong++;
                if (config.overflow() == Overflow.ERROR) {
                    throw new DataException(place(record) + " has " + whole.length()
                            + " tokens, more than the maximum of " + config.maxLength()
                            + "; raise --max-length, or choose --overflow drop or truncate");
                }
                example = whole.prefix(config.maxLength());
                if (config.overflow() == Overflow.DROP || example.trainedTokens() == 0) {
                    dropped++;
                    return;
                }
                truncated++;
            }
            keep(example);
        }

        private void keep(Example example) {
            store.add(example);
            seen.add(example);
            tokens += example.length();
            trainedTokens += example.trainedTokens();
        }

        private String place(DataRecord record) {
            return record.line() > 0 ? data.name() + ", line " + record.line() + ": the example" : "example " + records;
        }

        /** The tokens of all records as one text, in windows of the maximum length, the last with what is left and EOS. */
        void windows(Dataset.Records all) {
            int[] window = new int[config.maxLength()];
            int begin = tokenizer.info().addBos() && tokenizer.info().bos() >= 0 ? 1 : 0;
            if (begin == 1) {
                window[0] = tokenizer.info().bos();
            }
            int at = begin;
            int last = 0;
            while (all.hasNext()) {
                goOn();
                String piece = all.next().response();
                int[] ids = records++ == 0 ? tokenizer.encode(piece, false, false) : encoder.encodeInside(piece, false);
                for (int id : ids) {
                    last = id;
                    window[at++] = id;
                    if (at == window.length) {
                        window(window, at, begin);
                        at = begin;
                    }
                }
            }
            int known = begin;
            if (at == begin && window.length > begin + 1) {
                // EOS alone cannot be learned: it follows something.
                window[at++] = last;
                known = at;
            }
            if (tokenizer.info().eos() >= 0) {
                window[at++] = tokenizer.info().eos();
            }
            if (at > known && at > 1) {
                window(window, at, known);
            }
        }

        private void window(int[] ids, int length, int known) {
            boolean[] trained = new boolean[length];
            Arrays.fill(trained, known, length, true);
            Example example = new Example(Arrays.copyOf(ids, length), trained);
            if (length > longest) {
                longest = length;
                longestLine = 1;
            }
            lengths.add(length);
            keep(example);
        }

        DataReport report() {
            if (store.size() == 0) {
                throw nothingLeft();
            }
            return new DataReport(
                    data.name(),
                    data.format(),
                    data.fields(),
                    template,
                    records,
                    withInput,
                    store.size(),
                    empty,
                    config.maxLength(),
                    overLong,
                    truncated,
                    dropped,
                    longest,
                    longestLine,
                    tokens,
                    trainedTokens,
                    seen.duplicates(),
                    encoder.unstableConversations(),
                    encoder.turnsWithoutEnd(),
                    unshown,
                    firstUnshown,
                    encoder.emptyTurns(),
                    encoder.notShown(),
                    data.unusedFields(),
                    tokenizer.info().eos() >= 0,
                    lengths,
                    stretches(store.get(0), tokenizer));
        }

        private DataException nothingLeft() {
            String name = data.name().isEmpty() ? "the data set" : data.name();
            if (unshown > 0 && dropped == 0) {
                return new DataException(name + ": nothing to train on: the chat template can show none of the first "
                        + records + (records == 1 ? " conversation; " : " conversations; the first: ")
                        + firstUnshown);
            }
            if (dropped == 0) {
                return new DataException(name + ": nothing to train on: all " + records + " responses are empty");
            }
            return new DataException(name + ": nothing to train on: of " + records + " examples, " + dropped
                    + " have more than " + config.maxLength() + " tokens (the longest " + longest + ")"
                    + (empty > 0 ? " and " + empty + " are empty" : "") + "; raise --max-length");
        }
    }
}
