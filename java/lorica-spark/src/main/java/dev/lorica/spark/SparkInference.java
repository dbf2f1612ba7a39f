package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataException;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.data.Overflow;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Embedder;
import dev.lorica.eval.TextClassifier;
import dev.lorica.eval.TokenScorer;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.generate.TokenLogProbs;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Objects;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.api.java.function.MapPartitionsFunction;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.sql.Encoders;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * What a model, with an adapter or without, makes of the rows of a data frame, on the executors.
 *
 * <pre>{@code
 * SparkInference austen = new SparkInference(SparkModel.of(model), adapter);
 * Dataset<Row> answers = austen.generate(questions, "question", "answer", GenerationConfig.greedy());
 * }</pre>
 *
 * Each executor opens the model once. A partition that is lost is computed again by Spark, to the same answers: what a row becomes
 * depends on the rows of its partition alone. A row whose text is null has null in the new columns. Nothing is computed before rows
 * are asked for.
 */
public final class SparkInference {
    /** Rows that are looked at together. */
    private static final int ROWS_AT_ONCE = 64;

    /** The most tokens of an example that any data set takes. */
    private static final int MOST_TOKENS = 1 << 20;

    private final SparkModel model;
    private final AdapterFiles adapter;
    private final PromptTemplate template;

    /**
     * The base alone.
     *
     * @param model as executors find it
     */
    public SparkInference(SparkModel model) {
        this(Objects.requireNonNull(model, "model"), (AdapterFiles) null, null);
    }

    /**
     * The base with an adapter.
     *
     * @param model   as executors find it
     * @param adapter as it is now; what becomes of it later is not seen
     */
    public SparkInference(SparkModel model, Adapter adapter) {
        this(Objects.requireNonNull(model, "model"), AdapterFiles.of(Objects.requireNonNull(adapter, "adapter")), null);
    }

    SparkInference(SparkModel model, AdapterFiles adapter, PromptTemplate template) {
        this.model = model;
        this.adapter = adapter;
        this.template = template;
    }

    /**
     * With this around what is asked; without, what {@link Generator#template()} says.
     *
     * @param other the template
     * @return a new one, and this stays as it is
     */
    public SparkInference withTemplate(PromptTemplate other) {
        return new SparkInference(model, adapter, Objects.requireNonNull(other, "other"));
    }

    /**
     * Answers.
     *
     * @param rows    what there is to answer
     * @param prompts column with what is asked: a text, or a conversation as an array of structs with {@code role} and {@code content}
     * @param answers name of the new column, a text
     * @param config  drawn with a seed for each row, made of {@code seed} and what is asked
     * @return the rows with the new column
     */
    public org.apache.spark.sql.Dataset<Row> generate(
            org.apache.spark.sql.Dataset<Row> rows, String prompts, String answers, GenerationConfig config) {
        Objects.requireNonNull(config, "config");
        int column = column(rows, prompts, true);
        return with(rows, List.of(field(answers, DataTypes.StringType)), lorica -> new Answers(lorica, column, config));
    }

    /**
     * How likely the model has answers that are given: the sum of log p over the tokens of each, the one that ends it too.
     *
     * @param rows     prompts with answers
     * @param prompts  column with what is asked
     * @param answers  column with the answers
     * @param logProbs name of the new column, a double; null where a row is longer than the model's context, or its answer is empty
     * @return the rows with the new column
     */
    public org.apache.spark.sql.Dataset<Row> logProbs(
            org.apache.spark.sql.Dataset<Row> rows, String prompts, String answers, String logProbs) {
        int prompt = column(rows, prompts, false);
        int answer = column(rows, answers, false);
        return with(
                rows, List.of(field(logProbs, DataTypes.DoubleType)), lorica -> new LogProbs(lorica, prompt, answer));
    }

    /**
     * Says what texts are, by the adapter's classifier or the model's.
     *
     * @param rows        what there is to classify
     * @param texts       column with the texts
     * @param label       name of a new column: the most probable label, null of a regression
     * @param probability name of a new column: its probability; of a regression the number
     * @return the rows with the new columns
     */
    public org.apache.spark.sql.Dataset<Row> classify(
            org.apache.spark.sql.Dataset<Row> rows, String texts, String label, String probability) {
        int column = column(rows, texts, false);
        return with(
                rows,
                List.of(field(label, DataTypes.StringType), field(probability, DataTypes.DoubleType)),
                lorica -> new Labels(lorica, column));
    }

    /**
     * Makes a vector of each text.
     *
     * @param rows       what there is to embed
     * @param texts      column with the texts
     * @param vectors    name of the new column, an array of floats
     * @param pooling    which tokens a text's vector is made of
     * @param normalized whether vectors have length 1
     * @return the rows with the new column
     */
    public org.apache.spark.sql.Dataset<Row> embed(
            org.apache.spark.sql.Dataset<Row> rows,
            String texts,
            String vectors,
            Embedder.Pooling pooling,
            boolean normalized) {
        Objects.requireNonNull(pooling, "pooling");
        int column = column(rows, texts, false);
        return with(
                rows,
                List.of(field(vectors, DataTypes.createArrayType(DataTypes.FloatType, false))),
                lorica -> new Vectors(lorica, column, pooling, normalized));
    }

    private static StructField field(String name, DataType type) {
        return DataTypes.createStructField(Objects.requireNonNull(name, "name"), type, true);
    }

    private static int column(org.apache.spark.sql.Dataset<Row> rows, String name, boolean mayBeConversation) {
        StructType schema = Objects.requireNonNull(rows, "rows").schema();
        List<String> names = List.of(schema.fieldNames());
        int at = names.indexOf(Objects.requireNonNull(name, "name"));
        if (at < 0) {
            throw new InvalidArgumentException(
                    "there is no column \"" + name + "\"; there are " + String.join(", ", names));
        }
        DataType type = schema.fields()[at].dataType();
        boolean conversation = type instanceof ArrayType array
                && array.elementType() instanceof StructType message
                && List.of(message.fieldNames()).containsAll(List.of("role", "content"));
        if (!(type instanceof StringType) && !(mayBeConversation && conversation)) {
            throw new InvalidArgumentException("column \"" + name + "\" is " + type.simpleString() + "; a text is meant"
                    + (mayBeConversation ? ", or an array of structs with role and content" : ""));
        }
        return at;
    }

    /** What a partition works with. */
    record Opened(SparkModel named, Model model, Adapter adapter, PromptTemplate template) {
        List<ScaledAdapter> adapters() {
            return adapter == null ? List.of() : List.of(new ScaledAdapter(adapter, 1));
        }

        PromptTemplate around() {
            if (template != null) {
                return template;
            }
            try (Generator generator = new Generator(model, adapter)) {
                return generator.template();
            }
        }
    }

    /** How new values come of rows. */
    private interface Work extends AutoCloseable {
        /** Of each row what is in the new columns. */
        List<Object[]> of(List<Row> rows);

        @Override
        void close();
    }

    private interface Opener extends Serializable {
        Work open(Opened lorica);
    }

    private org.apache.spark.sql.Dataset<Row> with(
            org.apache.spark.sql.Dataset<Row> rows, List<StructField> added, Opener opener) {
        StructType schema = rows.schema();
        for (StructField field : added) {
            if (List.of(schema.fieldNames()).contains(field.name())) {
                throw new InvalidArgumentException(
                        "there is a column \"" + field.name() + "\" already; give the new one another name");
            }
            schema = schema.add(field);
        }
        JavaSparkContext spark =
                JavaSparkContext.fromSparkContext(rows.sparkSession().sparkContext());
        Broadcast<AdapterFiles> files = adapter == null ? null : spark.broadcast(adapter);
        return rows.mapPartitions(new Partition(model, files, template, opener, added.size()), Encoders.row(schema));
    }

    private static final class Partition implements MapPartitionsFunction<Row, Row> {
        private static final long serialVersionUID = 1L;
        private final SparkModel named;
        private final Broadcast<AdapterFiles> files;
        private final PromptTemplate template;
        private final Opener opener;
        private final int added;

        Partition(SparkModel named, Broadcast<AdapterFiles> files, PromptTemplate template, Opener opener, int added) {
            this.named = named;
            this.files = files;
            this.template = template;
            this.opener = opener;
            this.added = added;
        }

        @Override
        public Iterator<Row> call(Iterator<Row> rows) {
            return new Iterator<>() {
                private Work work;
                private Iterator<Row> ready = List.<Row>of().iterator();

                @Override
                public boolean hasNext() {
                    if (!ready.hasNext() && rows.hasNext()) {
                        ready = next(rows).iterator();
                    }
                    if (!ready.hasNext() && work != null) {
                        work.close();
                        work = null;
                    }
                    return ready.hasNext();
                }

                @Override
                public Row next() {
                    hasNext();
                    return ready.next();
                }

                private List<Row> next(Iterator<Row> from) {
                    List<Row> some = new ArrayList<>();
                    while (some.size() < ROWS_AT_ONCE && from.hasNext()) {
                        some.add(from.next());
                    }
                    try {
                        if (work == null) {
                            Model model = Engine.model(named);
                            Adapter adapter =
                                    files == null ? null : files.value().shared(named, model);
                            work = opener.open(new Opened(named, model, adapter, template));
                            TaskContext.get().addTaskCompletionListener(context -> {
                                if (work != null) {
                                    work.close();
                                }
                            });
                        }
                        return extended(some, work.of(some), added);
                    } catch (LoricaException e) {
                        throw SparkModel.at(SparkModel.here(), e);
                    }
                }
            };
        }
    }

    private static List<Row> extended(List<Row> rows, List<Object[]> values, int added) {
        List<Row> all = new ArrayList<>();
        for (int i = 0; i < rows.size(); i++) {
            Row row = rows.get(i);
            Object[] cells = new Object[row.size() + added];
            for (int c = 0; c < row.size(); c++) {
                cells[c] = row.get(c);
            }
            System.arraycopy(values.get(i), 0, cells, row.size(), added);
            all.add(RowFactory.create(cells));
        }
        return all;
    }

    /** The places of rows that have a value in a column. */
    private static List<Integer> given(List<Row> rows, int... columns) {
        List<Integer> places = new ArrayList<>();
        for (int i = 0; i < rows.size(); i++) {
            Row row = rows.get(i);
            if (Arrays.stream(columns).noneMatch(row::isNullAt)) {
                places.add(i);
            }
        }
        return places;
    }

    private static List<Object[]> empty(int rows, int columns) {
        List<Object[]> values = new ArrayList<>();
        for (int i = 0; i < rows; i++) {
            values.add(new Object[columns]);
        }
        return values;
    }

    /** What is asked in a row. */
    private static DataRecord asked(Row row, int column) {
        if (row.get(column) instanceof String text) {
            return DataRecord.of(text, "");
        }
        List<Message> messages = new ArrayList<>();
        for (Row message : row.<Row>getList(column)) {
            messages.add(Message.of(
                    message.getString(message.fieldIndex("role")), message.getString(message.fieldIndex("content"))));
        }
        return DataRecord.conversation(new Conversation(messages, null));
    }

    private static final class Answers implements Work {
        private static final int TEXTS_AT_ONCE = 16;
        private final Opened lorica;
        private final int column;
        private final GenerationConfig config;
        private final ExampleEncoder encoder;
        private BatchGenerator generator;
        private int positions;

        Answers(Opened lorica, int column, GenerationConfig config) {
            this.lorica = lorica;
            this.column = column;
            this.config = config;
            this.encoder = new ExampleEncoder(lorica.model().tokenizer(), lorica.around(), false);
        }

        @Override
        public List<Object[]> of(List<Row> rows) {
            List<Object[]> values = empty(rows.size(), 1);
            List<Integer> places = given(rows, column);
            List<Request> requests = new ArrayList<>();
            int needed = 1;
            for (int place : places) {
                int[] ids = encoder.prompt(asked(rows.get(place), column));
                requests.add(new Request(ids, seeded(ids)));
                needed = Math.max(needed, ids.length + Math.min(config.maxNewTokens(), 1 << 20));
            }
            if (requests.isEmpty()) {
                return values;
            }
            int context = lorica.model().info().contextLength();
            if (generator == null || positions < Math.min(needed, context)) {
                close();
                positions = Math.min(needed, context);
                generator = new BatchGenerator(lorica.model(), lorica.adapters(), TEXTS_AT_ONCE, positions);
            }
            generator.generate(
                    requests.iterator(),
                    (number, result) -> values.get(places.get(number))[0] = result.text(),
                    () -> false);
            return values;
        }

        /** Equal questions get equal answers, wherever they stand. */
        private GenerationConfig seeded(int[] ids) {
            return new GenerationConfig(
                    config.maxNewTokens(),
                    config.temperature(),
                    config.topK(),
                    config.topP(),
                    config.minP(),
                    config.repetitionPenalty(),
                    config.repetitionWindow(),
                    config.presencePenalty(),
                    config.frequencyPenalty(),
                    config.logitBias(),
                    config.stop(),
                    config.seed() + Arrays.hashCode(ids),
                    config.logProbs());
        }

        @Override
        public void close() {
            if (generator != null) {
                generator.close();
                generator = null;
            }
        }
    }

    private static final class LogProbs implements Work {
        private final Opened lorica;
        private final int prompt;
        private final int answer;
        private final DataConfig config;
        private final TokenScorer scorer;

        LogProbs(Opened lorica, int prompt, int answer) {
            this.lorica = lorica;
            this.prompt = prompt;
            this.answer = answer;
            this.config = new DataConfig(
                    lorica.around(),
                    Math.min(lorica.model().info().contextLength(), MOST_TOKENS),
                    Overflow.DROP,
                    false);
            this.scorer = new TokenScorer(lorica.model(), lorica.adapters());
        }

        @Override
        public List<Object[]> of(List<Row> rows) {
            List<Object[]> values = empty(rows.size(), 1);
            for (int place : given(rows, prompt, answer)) {
                Row row = rows.get(place);
                Dataset one = Dataset.of(List.of(DataRecord.of(row.getString(prompt), row.getString(answer))));
                try {
                    values.get(place)[0] = sum(
                            TokenizedDataset.of(one, lorica.model().tokenizer(), config)
                                    .examples()
                                    .get(0));
                } catch (DataException e) {
                    // Too long, or nothing is said: there is no probability of that.
                    values.get(place)[0] = null;
                }
            }
            return values;
        }

        private double sum(Example example) {
            List<TokenLogProbs> scores = scorer.score(example.ids(), 0);
            double sum = 0;
            for (int i = 0; i < scores.size(); i++) {
                sum += example.trained()[i + 1] ? scores.get(i).logProb() : 0;
            }
            return sum;
        }

        @Override
        public void close() {}
    }

    private static final class Labels implements Work {
        private final TextClassifier classifier;
        private final int column;

        Labels(Opened lorica, int column) {
            this.classifier = new TextClassifier(lorica.model(), lorica.adapter());
            this.column = column;
        }

        @Override
        public List<Object[]> of(List<Row> rows) {
            List<Object[]> values = empty(rows.size(), 2);
            List<Integer> places = given(rows, column);
            List<TextClassifier.Classification> said = classifier.classify(places.stream()
                    .map(place -> rows.get(place).getString(column))
                    .toList());
            for (int i = 0; i < said.size(); i++) {
                values.set(
                        places.get(i),
                        new Object[] {said.get(i).label(), said.get(i).probability()});
            }
            return values;
        }

        @Override
        public void close() {
            classifier.close();
        }
    }

    private static final class Vectors implements Work {
        private final Embedder embedder;
        private final int column;
        private final Embedder.Pooling pooling;
        private final boolean normalized;

        Vectors(Opened lorica, int column, Embedder.Pooling pooling, boolean normalized) {
            this.embedder = new Embedder(lorica.model(), lorica.adapter());
            this.column = column;
            this.pooling = pooling;
            this.normalized = normalized;
        }

        @Override
        public List<Object[]> of(List<Row> rows) {
            List<Object[]> values = empty(rows.size(), 1);
            List<Integer> places = given(rows, column);
            List<float[]> vectors = embedder.embed(
                    places.stream()
                            .map(place -> rows.get(place).getString(column))
                            .toList(),
                    pooling,
                    normalized);
            for (int i = 0; i < vectors.size(); i++) {
                values.get(places.get(i))[0] = vectors.get(i);
            }
            return values;
        }

        @Override
        public void close() {
            embedder.close();
        }
    }
}
