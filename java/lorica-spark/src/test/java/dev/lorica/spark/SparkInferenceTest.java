package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.cli.LoricaCli;
import dev.lorica.cli.SweepRun;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Labels;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.eval.Embedder;
import dev.lorica.eval.TextClassifier;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Data frames through a model, and Spark ML's habits, on two executors. */
class SparkInferenceTest {
    private static final StructType QUESTION = new StructType()
            .add("id", DataTypes.IntegerType)
            .add("question", DataTypes.StringType)
            .add("answer", DataTypes.StringType);

    private static final int EXECUTORS = 2;

    private static JavaSparkContext spark;
    private static SparkSession session;
    private static Adapter adapter;
    private static Dataset<Row> rows;

    @BeforeAll
    static void start() {
        spark = Clusters.of(EXECUTORS);
        session = SparkSession.builder().sparkContext(spark.sc()).getOrCreate();
        adapter = Runs.lora();
        new Trainer(Runs.MODEL, adapter, Runs.config(20, 1).build()).train(Runs.EXAMPLES);
        List<Row> all = new ArrayList<>();
        for (int i = 0; i < 9; i++) {
            all.add(RowFactory.create(i, i == 5 ? null : "Who is number " + i % 4 + "?", "Mr. Bennet, " + i + "."));
        }
        rows = session.createDataFrame(all, QUESTION).repartition(3);
    }

    /** A test before may have killed one, whose place is taken later. */
    @BeforeEach
    void awaitAll() {
        Clusters.await(spark, EXECUTORS);
    }

    @AfterAll
    static void stop() {
        if (adapter != null) {
            adapter.close();
        }
        if (spark != null) {
            spark.stop();
        }
    }

    /** Of one executor, {@link SparkTrainTest}; of four, {@link SparkTrainingTest}. */
    @Test
    void twoExecutorsMakeTheBytesOfTheTree() {
        TrainingConfig config = Runs.config(3, 6).build();

        assertThat(Runs.train(new SparkWorkers(spark, Runs.model()), config).adapter())
                .isEqualTo(Runs.tree(config, GradientFormat.F32).adapter());
    }

    @Test
    void answersThatAreLearnedFromAreDrawnOnTwoExecutors() {
        SparkWorkers workers = new SparkWorkers(spark, Runs.model());

        Runs.Result onTwo = Runs.grpo(workers, 2);

        Runs.Result here = Runs.grpoTree(2);
        assertThat(onTwo.adapter()).isEqualTo(here.adapter());
        assertThat(onTwo.losses()).isEqualTo(here.losses()).isNotEmpty();
        // The executors have the parameters from drawing with them.
        assertThat(workers.times().get(0).sent()).isZero();
        assertThat(workers.times().get(1).sent()).isPositive();
    }

    private static final GenerationConfig SHORT =
            GenerationConfig.builder().temperature(0).maxNewTokens(12).build();

    @Test
    void answersAreThoseOfOneMachineInTheAdaptersTemplate() {
        GenerationConfig config = SHORT;

        List<Row> answered = new SparkInference(Runs.model(), adapter)
                .generate(rows, "question", "said", config)
                .collectAsList();

        assertThat(answered).hasSize(9);
        try (Generator generator = new Generator(Runs.MODEL, adapter)) {
            for (Row row : answered) {
                String question = row.getString(1);
                assertThat(row.getString(3))
                        .isEqualTo(
                                question == null
                                        ? null
                                        : generator
                                                .ask(question, config)
                                                .result()
                                                .text());
            }
        }
    }

    /** Spark tries its partitions again on another. */
    @Test
    void anExecutorThatIsLostIsNotSeenInTheAnswers() throws Exception {
        SparkInference inference = new SparkInference(Runs.model(), adapter);
        List<Row> before = inference.generate(rows, "question", "said", SHORT).collectAsList();
        Thread killer = new Thread(() -> {
            try {
                Thread.sleep(200);
            } catch (InterruptedException e) {
                return;
            }
            Clusters.kill(Clusters.executors().get(0));
        });
        killer.start();

        List<Row> again = inference.generate(rows, "question", "said", SHORT).collectAsList();

        killer.join();
        // A shuffle that is read again may give rows in another order.
        assertThat(again).containsExactlyInAnyOrderElementsOf(before);
        assertThat(Clusters.executors()).isNotEmpty();
    }

    @Test
    void conversationsAreAnsweredInTheTemplateThatIsGiven() {
        StructType message = new StructType().add("role", DataTypes.StringType).add("content", DataTypes.StringType);
        Dataset<Row> chats = session.createDataFrame(
                List.of(RowFactory.create(List.of(RowFactory.create("user", "Who is Mr. Collins?")))),
                new StructType().add("messages", DataTypes.createArrayType(message)));
        PromptTemplate chatml = dev.lorica.data.ChatTemplate.named("chatml").orElseThrow();

        String said = new SparkInference(Runs.model())
                .withTemplate(chatml)
                .generate(chats, "messages", "said", SHORT)
                .first()
                .getString(1);

        try (Generator generator = new Generator(Runs.MODEL)) {
            assertThat(said)
                    .isEqualTo(generator
                            .chat(List.of(Message.user("Who is Mr. Collins?")), chatml, SHORT)
                            .result()
                            .text());
        }
    }

    @Test
    void logProbabilitiesAreTheLossesOfTraining() {
        List<Row> scored = new SparkInference(Runs.model(), adapter)
                .logProbs(rows, "question", "answer", "log_prob")
                .collectAsList();

        for (Row row : scored) {
            if (row.isNullAt(1)) {
                assertThat(row.isNullAt(3)).isTrue();
                continue;
            }
            var one = dev.lorica.data.TokenizedDataset.of(
                    dev.lorica.data.Dataset.of(List.of(DataRecord.of(row.getString(1), row.getString(2)))),
                    Runs.MODEL.tokenizer(),
                    dev.lorica.data.DataConfig.ofMaxLength(64));
            var loss = new dev.lorica.eval.Evaluator(Runs.MODEL, adapter).evaluate(one, 1);
            assertThat(row.getDouble(3)).isCloseTo(-loss.loss() * loss.trainedTokens(), within(1e-3));
        }
    }

    @Test
    void textsAreClassifiedAndEmbedded() {
        try (Adapter classifier = Adapter.create(
                        Runs.MODEL,
                        LoraConfig.builder().rank(2).build(),
                        new Labels(Labels.Problem.SINGLE_LABEL_CLASSIFICATION, List.of("good", "bad")));
                TextClassifier here = new TextClassifier(Runs.MODEL, classifier);
                Embedder embedder = new Embedder(Runs.MODEL)) {
            Dataset<Row> said =
                    new SparkInference(Runs.model(), classifier).classify(rows, "answer", "label", "probability");
            Dataset<Row> both =
                    new SparkInference(Runs.model()).embed(said, "answer", "vector", Embedder.Pooling.MEAN, true);

            for (Row row : both.collectAsList()) {
                TextClassifier.Classification expected =
                        here.classify(List.of(row.getString(2))).get(0);
                assertThat(row.getString(3)).isEqualTo(expected.label());
                assertThat(row.getDouble(4)).isCloseTo(expected.probability(), within(1e-5));
                float[] vector = embedder.embed(List.of(row.getString(2)), Embedder.Pooling.MEAN, true)
                        .get(0);
                List<Float> found = row.getList(5);
                assertThat(found).hasSize(vector.length);
                for (int i = 0; i < vector.length; i++) {
                    assertThat(found.get(i)).isCloseTo(vector[i], within(1e-4f));
                }
            }
        }
    }

    @Test
    void anEstimatorTunesAndItsModelIsSavedAndLoaded(@TempDir Path folder) {
        LoricaFineTuner tuner = new LoricaFineTuner()
                .setModel(Clusters.model().toString())
                .setDevice("cpu")
                .setPrecision("f32")
                .setThreads(1)
                .setPromptField("question")
                .setResponseField("answer")
                .setLoraR(4)
                .setMaxSteps(2)
                .setBatchSize(2)
                .setGradientAccumulationSteps(2)
                .setTargetModules("q_proj,v_proj");
        // A file system that only Hadoop knows.
        spark.sc()
                .hadoopConfiguration()
                .set("fs.viewfs.mounttable.cluster.link./lorica", folder.toUri().toString());
        String saved = "viewfs://cluster/lorica/tuner";
        String savedModel = "viewfs://cluster/lorica/model";
        try {
            tuner.write().save(saved);
            rows.where("question is not null").orderBy("id").write().parquet("viewfs://cluster/lorica/data");
            Dataset<Row> data =
                    session.read().parquet("viewfs://cluster/lorica/data").orderBy("id");

            LoricaModel tuned = LoricaFineTuner.load(saved).fit(data);

            tuned.setPredictionCol("said").setMaxNewTokens(8).write().save(savedModel);
            LoricaModel loaded = LoricaModel.load(savedModel);
            List<Row> before = tuned.transform(data).collectAsList();
            assertThat(loaded.transform(data).collectAsList()).isEqualTo(before);
            assertThat(tuned.transformSchema(data.schema()).fieldNames()).endsWith("said");
            assertThat(before.get(0).getString(3)).isNotEmpty();
            // It is the adapter that a trainer makes of these records.
            tuned.saveAdapter(folder.resolve("adapter"));
            try (Adapter found = Adapter.load(Runs.MODEL, folder.resolve("adapter"))) {
                assertThat(found.info().rank()).isEqualTo(4);
                assertThat(found.hasEffect()).isTrue();
            }
        } catch (java.io.IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    @Test
    void anEvaluationIsThatOfOneMachineToTheBit() {
        var there = new SparkEvaluator(spark, Runs.model(), adapter).evaluate(Runs.EXAMPLES, 2);
        var here = new dev.lorica.eval.Evaluator(Runs.MODEL, adapter).evaluate(Runs.EXAMPLES, 2);

        assertThat(there.loss()).isEqualTo(here.loss());
        assertThat(there.trainedTokens()).isEqualTo(here.trainedTokens());
        SparkModel nowhere = new SparkModel("/nowhere.gguf", "0", "cpu", Runs.F32.precision(), 1, true);
        assertThatThrownBy(() -> new SparkEvaluator(spark, nowhere, null).evaluate(Runs.EXAMPLES, 2))
                .isInstanceOf(dev.lorica.exceptions.FileAccessException.class)
                .hasMessageMatching("on \\S+ \\(executor \\d+\\): .*");
    }

    @Test
    void aSweepIsSpreadAndGoesOn(@TempDir Path folder) throws java.io.IOException {
        Path data = folder.resolve("data.json");
        java.nio.file.Files.writeString(
                data,
                "[{\"question\": \"Who is he?\", \"answer\": \"Mr. Bennet.\"},"
                        + "{\"question\": \"Who is she?\", \"answer\": \"Mrs. Bennet.\"}]");
        String[] options = {
            "--model",
            Clusters.model().toString(),
            "--data",
            data.toString(),
            "--output",
            folder.resolve("sweep").toString(),
            "--max-steps",
            "1",
            "--batch-size",
            "1",
            "--threads",
            "1",
            "--grid",
            "lora-r=2,4",
            "--grid",
            "learning-rate=1e-3,1e-4"
        };
        List<String> done = new ArrayList<>();
        SweepRun.Cluster cluster = (runs, each) -> SparkSweep.run(spark, runs, (run, outcome) -> {
            done.add(run.name());
            each.accept(run, outcome);
        });

        int code = LoricaCli.sweep(cluster, options);

        assertThat(done).hasSize(4);
        assertThat(code).isZero();
        List<String> adapters = new ArrayList<>();
        try (var tree = java.nio.file.Files.walk(folder.resolve("sweep"))) {
            tree.filter(file -> file.endsWith("adapter.gguf")).forEach(file -> adapters.add(file.toString()));
        }
        assertThat(adapters).hasSize(4);
        done.clear();
        assertThat(LoricaCli.sweep(cluster, options)).isZero();
        assertThat(done).isEmpty();
    }

    @Test
    void wrongColumnsAreNamed() {
        SparkInference inference = new SparkInference(Runs.model());
        assertThatThrownBy(() -> inference.generate(rows, "prompt", "said", SHORT))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("there is no column \"prompt\"; there are id, question, answer");
        assertThatThrownBy(() -> inference.generate(rows, "id", "said", SHORT))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("column \"id\" is int; a text is meant");
        assertThatThrownBy(() -> inference.generate(rows, "question", "answer", SHORT))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("there is a column \"answer\" already");
    }

    @Test
    void whatGoesWrongNamesTheMachine() {
        SparkModel nowhere = new SparkModel("/nowhere.gguf", "0", "cpu", Runs.F32.precision(), 1, true);
        assertThatThrownBy(() -> new SparkInference(nowhere)
                        .generate(rows, "question", "said", SHORT)
                        .collectAsList())
                .hasMessageContaining("executor")
                .hasStackTraceContaining("/nowhere.gguf is not there");
    }
}
