package dev.lorica.data;

import dev.lorica.Detokenizer;
import dev.lorica.Tokenizer;
import dev.lorica.internal.Arguments;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
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
    private final Examples sequences;
    private final DataReport report;
    private final Notes notes;

    /**
     * What stands beside the sequences, which no report knows of.
     *
     * @param perExample   sequences of an example: 2 of a pair, the better one first
     * @param values       [sequences] a number that is learned from; {@code null}: there are none
     * @param reference    [sequences][tokens] log p of what is learned, by the model as it was before; {@code null}: not known
     * @param withPrompts  whether the prompts of the first of each example are scored too
     * @param asked        [sequences] what each was made from, where they are prompts alone; {@code null}: they are none
     * @param teacher      what a teacher says of them; {@code null}: there is none
     */
    private record Notes(
            int perExample,
            float[] values,
            float[][] reference,
            boolean withPrompts,
            List<DataRecord> asked,
            TeacherLogProbs teacher) {
        static final Notes NONE = new Notes(1, null, null, false, null, null);

        /** Of what was read. */
        static Notes of(int perExample, float[] values, List<DataRecord> asked) {
            return new Notes(perExample, values, null, false, asked, null);
        }
    }

    private TokenizedDataset(Examples sequences, DataReport report) {
        this(sequences, report, Notes.NONE);
    }

    private TokenizedDataset(Examples sequences, DataReport report, Notes notes) {
        this.sequences = sequences;
        this.report = report;
        this.notes = notes;
    }

    /**
     * Makes token ids of records, and counts what is left out.
     *
     * @param data      the records
     * @param tokenizer of the model; it is used until the last example was read
     * @param config    the template, the longest length, and what is trained on
     * @return the examples
     * @throws DataException if nothing is left to train on, or an example is too long where that is an error
     */
    public static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config) {
        return of(data, tokenizer, config, () -> false);
    }

    /**
     * The same, which can be ended.
     *
     * @param data      the records
     * @param tokenizer of the model
     * @param config    the template, the longest length, and what is trained on
     * @param stop      asked before each record
     * @return {@code null} when {@code stop} became true before the end
     */
    public static TokenizedDataset of(Dataset data, Tokenizer tokenizer, DataConfig config, BooleanSupplier stop) {
        Arguments.given(data, "data");
        Arguments.given(tokenizer, "tokenizer");
        Arguments.given(config, "config");
        Arguments.given(stop, "stop");
        if (data.fields().isClasses()) {
            throw new DataException(data.name() + " holds texts with labels, of which a classifier learns");
        }
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
        return new TokenizedDataset(
                store, collector.report(), Notes.of(data.fields().isPairs() ? 2 : 1, collector.values(), null));
    }

    /**
     * Prompts alone, which the model is to answer by itself while it learns. Of a record only what is asked is looked at: the
     * prompt, or a conversation up to the last that is not the assistant's. The maximum length is that of prompts; of longer
     * ones that are to be truncated, the end is kept. All of them are kept in memory.
     *
     * @param data      the records
     * @param tokenizer of the model
     * @param config    the template, and the longest prompt
     * @return the prompts
     */
    public static TokenizedDataset prompts(Dataset data, Tokenizer tokenizer, DataConfig config) {
        Arguments.given(data, "data");
        Arguments.given(tokenizer, "tokenizer");
        Arguments.given(config, "config");
        PromptTemplate template =
                config.template() != null ? config.template() : PromptTemplate.forDataset(data, tokenizer.info());
        ExampleStore store = new ExampleStore();
        Collector collector = new Collector(data, tokenizer, config, template, store, () -> false);
        List<DataRecord> asked = new ArrayList<>();
        try (Dataset.Records records = data.open()) {
            collector.prompts(records, asked);
        }
        return new TokenizedDataset(store, collector.report(), Notes.of(1, null, List.copyOf(asked)));
    }

    /** {@return whether these are prompts alone} */
    public boolean isPrompts() {
        return notes.asked != null;
    }

    /**
     * Texts with what a classifier is to say of them, as {@link TextEncoder} reads them; longer ones are cut. {@link #values} are
     * what {@link Labels} makes of their labels.
     *
     * @param data      the records
     * @param tokenizer of the model
     * @param labels    what is said of the texts
     * @param maxLength tokens of the longest text, special ones included
     * @return the texts
     * @throws DataException for a label that is not among these
     */
    public static TokenizedDataset classified(Dataset data, Tokenizer tokenizer, Labels labels, int maxLength) {
        Arguments.given(data, "data");
        Arguments.given(tokenizer, "tokenizer");
        Arguments.given(labels, "labels");
        TextEncoder encoder = new TextEncoder(tokenizer, maxLength);
        ExampleStore store = new ExampleStore();
        Lengths lengths = new Lengths();
        Fingerprints seen = new Fingerprints();
        float[] values = new float[16];
        long tokens = 0;
        long cut = 0;
        int longest = 0;
        try (Dataset.Records records = data.open()) {
            while (records.hasNext()) {
                DataRecord record = records.next();
                int[] ids = encoder.encode(record.prompt(), record.input());
                Example example = new Example(ids, new boolean[ids.length]);
                values = store.size() < values.length ? values : Arrays.copyOf(values, 2 * values.length);
                values[store.size()] = labels.value(record, data.name());
                store.add(example);
                seen.add(example);
                lengths.add(ids.length);
                tokens += ids.length;
                cut += ids.length == maxLength ? 1 : 0;
                longest = Math.max(longest, ids.length);
            }
        }
        if (store.size() == 0) {
            throw new DataException(data.name() + " holds no records");
        }
        DataReport report = new DataReport(
                data.name(),
                data.format(),
                data.fields(),
                PromptTemplate.PLAIN,
                store.size(),
                0,
                store.size(),
                0,
                maxLength,
                cut,
                cut,
                0,
                longest,
                0,
                tokens,
                store.size(),
                seen.duplicates(),
                0,
                0,
                0,
                null,
                0,
                Map.of(),
                data.unusedFields(),
                true,
                lengths,
                stretches(store.get(0), tokenizer),
                null,
                List.of());
        return new TokenizedDataset(store, report, Notes.of(1, Arrays.copyOf(values, store.size()), null));
    }

    /**
     * {@return how many of the examples have each label, by its name; of numbers nothing}
     *
     * @param labels what is said of the texts
     */
    public Map<String, Long> classCounts(Labels labels) {
        Arguments.given(labels, "labels");
        Map<String, Long> counts = new LinkedHashMap<>();
        for (int i = 0; i < labels.names().size(); i++) {
            long count = 0;
            for (float value : notes.values == null ? new float[0] : notes.values) {
                boolean has = labels.problem() == Labels.Problem.SINGLE_LABEL_CLASSIFICATION
                        ? value == i
                        : Labels.has(value, i);
                count += has ? 1 : 0;
            }
            counts.put(labels.names().get(i), count);
        }
        return counts;
    }

    /** Examples without a report. */
    static TokenizedDataset of(List<Example> examples) {
        ExampleStore store = new ExampleStore();
        examples.forEach(store::add);
        return new TokenizedDataset(store, null);
    }

    /** {@return the examples, of pairs both sides one after the other; each is made anew when it is asked for} */
    public List<Example> examples() {
        return new View();
    }

    /** {@return how many {@link #examples()} belong together: 2 where the data are pairs, the better side first} */
    public int sequencesPerExample() {
        return notes.perExample;
    }

    /** {@return the number of each of {@link #examples()} that is learned from; {@code null}: there are none} */
    public float[] values() {
        return notes.values == null ? null : notes.values.clone();
    }

    /** {@return the least and the greatest weight of a token that is learned; {@code null}: all count alike} */
    public float[] weights() {
        return sequences.weights();
    }

    /**
     * {@return the same with log p of what is learned in each of {@link #examples()}, one number for each token}
     *
     * @param logProbs of each example in turn
     */
    public TokenizedDataset withReference(float[][] logProbs) {
        Arguments.all("logProbs", logProbs);
        return new TokenizedDataset(
                sequences,
                report,
                new Notes(notes.perExample, notes.values, logProbs, notes.withPrompts, null, notes.teacher));
    }

    /** {@return with the prompts of the better sides scored too, for objectives that ask for that} */
    public TokenizedDataset withScoredPrompts() {
        return new TokenizedDataset(
                sequences,
                report,
                new Notes(notes.perExample, notes.values, notes.reference, true, null, notes.teacher));
    }

    /**
     * {@return the same with what a teacher says of them}
     *
     * @param teacher asked about these examples
     * @throws DataException if that is about other examples
     */
    public TokenizedDataset withTeacher(TeacherLogProbs teacher) {
        Arguments.given(teacher, "teacher");
        if (teacher.examples() != sequences.size()) {
            throw new DataException(
                    "the teacher speaks of " + teacher.examples() + " examples; the data have " + sequences.size());
        }
        return new TokenizedDataset(
                sequences,
                report,
                new Notes(notes.perExample, notes.values, notes.reference, notes.withPrompts, notes.asked, teacher));
    }

    /** {@return what a teacher says of the examples; {@code null}: there is none} */
    public TeacherLogProbs teacher() {
        return notes.teacher;
    }

    /** These examples, packed. */
    Batch batch(int[] numbers) {
        List<Example> packed = new ArrayList<>(numbers.length * notes.perExample);
        float[] values = notes.values == null ? null : new float[numbers.length * notes.perExample];
        List<float[]> known = new ArrayList<>();
        int total = 0;
        for (int number : numbers) {
            for (int side = 0; side < notes.perExample; side++) {
                int at = number * notes.perExample + side;
                if (values != null) {
                    values[packed.size()] = notes.values[at];
                }
                packed.add(sequences.get(at));
                total += sequences.length(at);
                if (notes.reference != null) {
                    known.add(notes.reference[at]);
                }
            }
        }
        Batch batch = Packer.pack(packed);
        float[] reference = notes.reference == null ? null : new float[total];
        int at = 0;
        for (float[] part : known) {
            System.arraycopy(part, 0, reference, at, part.length);
            at += part.length;
        }
        boolean[] prompt = notes.withPrompts ? scorePrompts(batch) : null;
        List<DataRecord> asked = notes.asked == null
                ? null
                : Arrays.stream(numbers).mapToObj(notes.asked::get).toList();
        return batch.with(new Batch.Notes(
                notes.perExample,
                values,
                reference,
                prompt,
                null,
                asked,
                batch.notes().weights(),
                notes.teacher == null ? null : notes.teacher.candidates(numbers, notes.perExample)));
    }

    /** Gives the first sequence of each example labels where it has none, and says where that is. */
    private boolean[] scorePrompts(Batch batch) {
        boolean[] prompt = new boolean[batch.tokenCount()];
        int at = 0;
        for (int s = 0; s < batch.sequenceCount(); s++) {
            int end = at + batch.sequenceLengths()[s];
            for (int t = at; s % notes.perExample == 0 && t < end - 1; t++) {
                prompt[t] = batch.labels()[t] == Batch.IGNORE;
                batch.labels()[t] = batch.tokens()[t + 1];
            }
            at = end;
        }
        return prompt;
    }

    private final class View extends AbstractList<Example> implements RandomAccess {
        @Override
        public Example get(int index) {
            return sequences.get(index);
        }

        @Override
        public int size() {
            return sequences.size();
        }
    }

    /** {@return examples, in which a pair counts as one} */
    public int size() {
        return sequences.size() / notes.perExample;
    }

    /**
     * {@return the tokens of an example, known without reading it}
     *
     * @param index of {@link #examples()}, from 0
     */
    public int length(int index) {
        Arguments.index(index, size(), "index");
        int length = 0;
        for (int side = 0; side < notes.perExample; side++) {
            length += sequences.length(index * notes.perExample + side);
        }
        return length;
    }

    /** Tokens of the longest sequence of an example. */
    int longestSequence(int index) {
        int longest = 0;
        for (int side = 0; side < notes.perExample; side++) {
            longest = Math.max(longest, sequences.length(index * notes.perExample + side));
        }
        return longest;
    }

    /** {@return what was counted while the examples were made} */
    public DataReport report() {
        return report;
    }

    /**
     * Two parts of a data set, without an example in common.
     *
     * @param train to train on
     * @param eval  to evaluate on
     */
    public record Split(TokenizedDataset train, TokenizedDataset eval) {}

    /**
     * Puts a share of the examples aside for evaluation, drawn by {@code seed}. Both parts keep the order of the data.
     *
     * @param share between 0 and 1; rounded up to whole examples
     * @param seed  of the draw
     * @return both parts
     */
    public Split split(double share, long seed) {
        int n = size();
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

    /**
     * {@return the examples as often as {@code weight} says: 2.5 gives every example twice, and half of them, drawn by {@code seed}, once
     * more}
     *
     * @param weight more than 0
     * @param seed   of the draw
     */
    public TokenizedDataset weighted(double weight, long seed) {
        if (!(weight > 0 && weight <= 1000)) {
            throw new DataException("a weight of " + weight + "; it must be more than 0 and at most 1000");
        }
        if (weight == 1) {
            return this;
        }
        int n = size();
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
     * {@return all of several data sets, one behind the other}
     *
     * @param parts one at least
     * @throws DataException if they were made with different templates; only plain texts go with any
     */
    public static TokenizedDataset concat(List<TokenizedDataset> parts) {
        Arguments.check(!Arguments.all(parts, "parts").isEmpty(), "parts", "empty", "at least one");
        if (parts.size() == 1) {
            return parts.get(0);
        }
        DataReport main = parts.get(0).report;
        long tokens = 0;
        long trainedTokens = 0;
        List<Examples> examples = new ArrayList<>();
        Notes notes = parts.get(0).notes;
        float[] values = new float[0];
        List<DataRecord> asked = new ArrayList<>();
        for (TokenizedDataset part : parts) {
            if (part.notes.perExample != notes.perExample
                    || (part.notes.values == null) != (notes.values == null)
                    || part.isPrompts() != parts.get(0).isPrompts()) {
                throw new DataException(part.report.name() + " holds other records than " + main.name()
                        + ": pairs, answers with labels, answers alone and prompts alone do not go together");
            }
            asked.addAll(part.isPrompts() ? part.notes.asked : List.of());
            if (part.notes.values != null) {
                int begin = values.length;
                values = Arrays.copyOf(values, begin + part.notes.values.length);
                System.arraycopy(part.notes.values, 0, values, begin, part.notes.values.length);
            }
            DataReport report = part.report;
            if (isText(main)) {
                main = report;
            } else if (!isText(report) && !report.template().equals(main.template())) {
                throw new DataException(main.name() + " is for template \""
                        + main.template().name() + "\", " + report.name() + " for \""
                        + report.template().name() + "\"; choose one template for both");
            }
            tokens += report.tokens();
            trainedTokens += report.trainedTokens();
            examples.add(part.sequences);
        }
        Examples all = Examples.concat(examples);
        String names =
                String.join(", ", parts.stream().map(part -> part.report.name()).toList());
        return new TokenizedDataset(
                all,
                main.ofPart(names, all.size() / notes.perExample, tokens, trainedTokens),
                Notes.of(notes.perExample, notes.values == null ? null : values, notes.asked == null ? null : asked));
    }

    private static boolean isText(DataReport report) {
        return report.fields().isText();
    }

    private TokenizedDataset part(int[] chosen, String name) {
        int[] places = new int[Math.multiplyExact(chosen.length, notes.perExample)];
        for (int i = 0; i < places.length; i++) {
            places[i] = chosen[i / notes.perExample] * notes.perExample + i % notes.perExample;
        }
        Examples part = sequences.select(places);
        float[] values = notes.values == null ? null : new float[places.length];
        long tokens = 0;
        long trainedTokens = 0;
        for (int i = 0; i < places.length; i++) {
            Example example = part.get(i);
            tokens += example.length();
            trainedTokens += example.trainedTokens();
            if (values != null) {
                values[i] = notes.values[places[i]];
            }
        }
        // Of a text with a label no token is learned, and the label is counted as one.
        boolean labelled = values != null && trainedTokens == 0;
        return new TokenizedDataset(
                part,
                report.ofPart(name, chosen.length, tokens, labelled ? chosen.length : trainedTokens),
                Notes.of(
                        notes.perExample,
                        values,
                        notes.asked == null
                                ? null
                                : Arrays.stream(places)
                                        .mapToObj(notes.asked::get)
                                        .toList()));
    }

    /**
     * {@return the example as text again, split where training begins or ends}
     *
     * @param example   the example
     * @param tokenizer of the model
     */
    public static List<DataReport.Stretch> stretches(Example example, Tokenizer tokenizer) {
        Arguments.given(example, "example");
        Arguments.given(tokenizer, "tokenizer");
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
        private PairReport pairs;
        private float[] values;

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
            this.pairs = data.fields().isPairs() ? PairReport.NONE : null;
            this.values = data.fields().label() != null ? new float[16] : null;
        }

        /** The number of each sequence; {@code null}: there are none. */
        float[] values() {
            return values == null ? null : Arrays.copyOf(values, store.size());
        }

        void encode(Dataset.Records all) {
            encoder.encode(all, (record, examples, rejected, refusal) -> {
                goOn();
                records++;
                if (refusal != null) {
                    refuse(refusal.at(record, data.name()));
                    return;
                }
                withInput += record.input().isEmpty() ? 0 : 1;
                if (rejected != null) {
                    pair(record, examples, rejected);
                    return;
                }
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

        /** What is asked, and what it was made from. */
        void prompts(Dataset.Records all, List<DataRecord> asked) {
            while (all.hasNext()) {
                DataRecord record = all.next();
                records++;
                withInput += record.input().isEmpty() ? 0 : 1;
                int[] ids = encoder.prompt(record);
                if (ids.length == 0) {
                    empty++;
                    continue;
                }
                lengths.add(ids.length);
                if (ids.length > longest) {
                    longest = ids.length;
                    longestLine = record.line();
                }
                if (ids.length > config.maxLength()) {
                    overLong++;
                    requireShort(record, ids.length);
                    if (config.overflow() == Overflow.DROP) {
                        dropped++;
                        continue;
                    }
                    truncated++;
                    ids = Arrays.copyOfRange(ids, ids.length - config.maxLength(), ids.length);
                }
                keep(new Example(ids, new boolean[ids.length]));
                asked.add(record);
            }
        }

        /** Both sides or none: a pair is one example. */
        private void pair(DataRecord record, List<Example> chosen, List<Example> rejected) {
            String where = record.where(data.name());
            if (chosen.size() > 1 || rejected.size() > 1) {
                refuse(where + ": the template makes several examples of a side, because it writes earlier turns "
                        + "otherwise later; a pair differs in its last turn alone");
                return;
            }
            if (chosen.isEmpty()
                    || rejected.isEmpty()
                    || chosen.get(0).trainedTokens() == 0
                    || rejected.get(0).trainedTokens() == 0) {
                pairs = pairs.withEmpty(where);
                empty++;
                return;
            }
            Example good = chosen.get(0);
            Example bad = rejected.get(0);
            if (Arrays.equals(good.ids(), bad.ids())) {
                pairs = pairs.withEqual(where);
                return;
            }
            int length = Math.max(good.length(), bad.length());
            lengths.add(length);
            if (length > longest) {
                longest = length;
                longestLine = record.line();
            }
            if (length > config.maxLength()) {
                overLong++;
                requireShort(record, length);
                good = good.prefix(Math.min(good.length(), config.maxLength()));
                bad = bad.prefix(Math.min(bad.length(), config.maxLength()));
                if (config.overflow() == Overflow.DROP
                        || good.trainedTokens() == 0
                        || bad.trainedTokens() == 0
                        || Arrays.equals(good.ids(), bad.ids())) {
                    dropped++;
                    return;
                }
                truncated++;
                pairs = pairs.withCut(where);
            }
            keep(good);
            keep(bad);
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
                requireShort(record, whole.length());
                example = whole.prefix(config.maxLength());
                if (config.overflow() == Overflow.DROP || example.trainedTokens() == 0) {
                    dropped++;
                    return;
                }
                truncated++;
            }
            if (values != null) {
                values = store.size() < values.length ? values : Arrays.copyOf(values, 2 * values.length);
                values[store.size()] = record.value();
            }
            keep(example);
        }

        private void requireShort(DataRecord record, int length) {
            if (config.overflow() == Overflow.ERROR) {
                throw new DataException(place(record) + " has " + length + " tokens, more than the maximum of "
                        + config.maxLength() + "; raise the max length, or choose the overflow drop or truncate");
            }
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
                    pairs == null ? store.size() : store.size() / 2,
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
                    stretches(store.get(0), tokenizer),
                    pairs,
                    pairs == null ? List.of() : stretches(store.get(1), tokenizer));
        }

        private DataException nothingLeft() {
            String name = data.name().isEmpty() ? "the data set" : data.name();
            if (unshown > 0 && dropped == 0) {
                return new DataException(name + ": nothing to train on: the chat template can show none of the first "
                        + records + (records == 1 ? " conversation; " : " conversations; the first: ")
                        + firstUnshown);
            }
            if (dropped == 0) {
                return new DataException(name + ": nothing to train on: "
                        + (pairs == null
                                ? "all " + records + " responses are empty"
                                : "of " + records + " pairs, " + pairs.equal() + " have equal sides and "
                                        + pairs.empty() + " an empty one"));
            }
            return new DataException(name + ": nothing to train on: of " + records + " examples, " + dropped
                    + " have more than " + config.maxLength() + " tokens (the longest " + longest + ")"
                    + (empty > 0 ? " and " + empty + " are empty" : "") + "; raise the max length");
        }
    }
}
