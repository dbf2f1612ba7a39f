package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Batch;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataException;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Learning from what a teacher says; {@link ObjectiveGoldensTest} compares with TRL. */
class DistillTest {
    private static Model model;
    private static TokenizedDataset data;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        data = data("Who is Mr. Collins?", "Where is Longbourn?", "Why does Jane go to London?");
    }

    private static TokenizedDataset data(String... questions) {
        return TokenizedDataset.of(
                Dataset.of(Arrays.stream(questions)
                        .map(question -> DataRecord.of(question, "That is not known to me."))
                        .toList()),
                model.tokenizer(),
                DataConfig.ofMaxLength(64));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private static float[] logSoftmax(Random random, int n, int kept) {
        double[] logits = random.doubles(n, -3, 3).toArray();
        double sum = Arrays.stream(logits).map(Math::exp).sum();
        float[] kepts = new float[kept];
        for (int k = 0; k < kept; k++) {
            kepts[k] = (float) (logits[k] - Math.log(sum));
        }
        return kepts;
    }

    /** log p by the model of seven tokens, of which some are candidates, at the four positions of two sequences. */
    private static Batch batch(int count) {
        int n = Batch.IGNORE;
        Random random = new Random(3);
        int[] ids = new int[4 * count];
        float[] teacher = new float[4 * count];
        for (int row = 0; row < 4; row++) {
            System.arraycopy(logSoftmax(random, 7, count), 0, teacher, row * count, count);
            for (int k = 0; k < count; k++) {
                ids[row * count + k] = k;
            }
        }
        float[] weights = {0, 0.5f, 2, 0, 1, 1.5f, 0};
        return Batch.of(new int[7], new int[] {n, 1, 2, n, 3, 4, n}, 4, 3)
                .with(new Batch.Notes(1, null, null, null)
                        .withWeights(weights)
                        .withCandidates(new Batch.Candidates(count, ids, teacher, 1, count == 7)));
    }

    private static ObjectiveResult score(Objective objective, Batch batch, float[] logProbs) {
        ObjectiveResult result = new ObjectiveResult(batch.notes().candidates());
        objective.score(new ScoredBatch(batch, logProbs, null, 0), result);
        return result;
    }

    @ParameterizedTest
    @CsvSource({"0, 7", "0.3, 7", "0.5, 7", "1, 7", "0, 3", "0.3, 3", "1, 3", "0.5, 1"})
    void weightsAreTheDerivativesOfTheLoss(double beta, int count) {
        Batch batch = batch(count);
        Random random = new Random(5);
        float[] logProbs = new float[4 * count];
        for (int row = 0; row < 4; row++) {
            System.arraycopy(logSoftmax(random, 7, count), 0, logProbs, row * count, count);
        }
        Objective objective = Objective.distill(beta);
        ObjectiveResult result = score(objective, batch, logProbs);
        for (int i = 0; i < logProbs.length; i++) {
            float step = 1 / 512f;
            float[] up = logProbs.clone();
            float[] down = logProbs.clone();
            up[i] += step;
            down[i] -= step;
            double measured = (score(objective, batch, up).lossSum()
                            - score(objective, batch, down).lossSum())
                    / ((double) up[i] - down[i]);
            assertThat(-result.weights()[i]).as("candidate %d", i).isCloseTo((float) measured, within(1e-4f));
        }
        assertThat(result.units()).isCloseTo(5, within(1e-9));
        assertThat(result.lossSum()).isPositive();
        // A model that says what its teacher says has nothing to learn.
        assertThat(score(objective, batch, batch.notes().candidates().logProbs())
                        .lossSum())
                .isCloseTo(0, within(1e-6));
    }

    @Test
    void fewTokensAreLessThanAllAndNeverMore() {
        Random random = new Random(5);
        float[] whole = new float[28];
        for (int row = 0; row < 4; row++) {
            System.arraycopy(logSoftmax(random, 7, 7), 0, whole, row * 7, 7);
        }
        for (double beta : new double[] {0, 0.5, 1}) {
            double before = 0;
            for (int count = 1; count <= 7; count++) {
                float[] part = new float[4 * count];
                for (int row = 0; row < 4; row++) {
                    System.arraycopy(whole, row * 7, part, row * count, count);
                }
                double loss = score(Objective.distill(beta), batch(count), part).lossSum();
                assertThat(loss).isGreaterThanOrEqualTo(before - 1e-6);
                before = loss;
            }
        }
    }

    private static TeacherLogProbs ask(Path folder, int topK, double temperature) {
        return new Teacher(model, null, topK, temperature).logProbs(data, folder);
    }

    private List<Path> files() throws IOException {
        try (Stream<Path> all = Files.list(folder)) {
            return all.sorted().toList();
        }
    }

    @Test
    void aTeacherIsAskedOnceAboutTheSameThing() throws IOException {
        ask(folder, 8, 1).close();
        List<Path> first = files();
        assertThat(first).hasSize(1);
        byte[] bytes = Files.readAllBytes(first.get(0));
        assertThat(bytes.length)
                .isBetween(
                        8 * 8 * (int) data.report().trainedTokens(),
                        8 * 8 * (int) data.report().trainedTokens() + 500);
        new Teacher(model, null, 8, 1)
                .logProbs(
                        data,
                        folder,
                        share -> {
                            throw new AssertionError("asked again");
                        },
                        () -> false)
                .close();

        // Whatever is another question has another file.
        ask(folder, 9, 1).close();
        ask(folder, 8, 2).close();
        new Teacher(model, null, 8, 1).logProbs(data("Who?"), folder).close();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            new Teacher(model, adapter, 8, 1).logProbs(data, folder).close();
        }
        assertThat(files()).hasSize(5);

        // What is damaged is refused, and asked for again.
        byte[] damaged = bytes.clone();
        damaged[damaged.length - 30] ^= 1;
        Files.write(first.get(0), damaged);
        assertThatThrownBy(() -> TeacherLogProbs.open(first.get(0)))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("is damaged or cut; remove it, and it is asked again");
        Files.write(first.get(0), Arrays.copyOf(bytes, bytes.length - 1));
        assertThatThrownBy(() -> TeacherLogProbs.open(first.get(0))).isInstanceOf(FileFormatException.class);
        ask(folder, 8, 1).close();
        assertThat(Files.readAllBytes(first.get(0))).isEqualTo(bytes);

        // One that is stopped leaves nothing.
        assertThat(new Teacher(model, null, 7, 1).logProbs(data, folder, share -> {}, () -> true))
                .isNull();
        assertThat(files()).hasSize(5);
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder()
                .batchSize(2)
                .maxSteps(8)
                .learningRate(1e-2)
                .schedulerType(SchedulerType.CONSTANT)
                .maxLength(64)
                .loggingSteps(1);
    }

    /** The model without an adapter, as a student that begins elsewhere. */
    private static Adapter student() {
        Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(2).build());
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            Arrays.fill(values, 0.02f);
            adapter.setValues(i, values);
        }
        return adapter;
    }

    @Test
    void aStudentComesNearerToItsTeacher() {
        int steps = 48;
        // In steps so small that rounding, another one on each processor, leads nowhere else.
        TrainingConfig config = config().maxSteps(steps).learningRate(1e-3).build();
        for (int topK : new int[] {0, 8}) {
            List<TrainingProgress> logged = new ArrayList<>();
            try (Adapter adapter = student();
                    TeacherLogProbs said = ask(folder, topK, 1)) {
                TokenizedDataset taught = data.withTeacher(said);
                Trainer trainer = new Trainer(model, adapter, config, Objective.distill(0.5));
                double before = trainer.evaluate(taught).loss();
                trainer.addListener(new TrainerListener() {
                    @Override
                    public void onLog(TrainingProgress progress) {
                        logged.add(progress);
                    }
                });
                trainer.train(taught, taught);
                assertThat(trainer.evaluate(taught).loss()).isLessThan(before / 2);
                assertThat(trainer.evaluate(taught).metrics()).containsKeys("mass/model", "mass/teacher", "agreement");
                assertThat(adapter.metadata().training().toString())
                        .contains("name=distill, beta=0.5, teacher=", topK == 0 ? "whole vocabulary" : "top 8");
            }
            assertThat(logged).hasSize(steps);
            assertThat(logged.get(0).metrics().get("mass/teacher")).isBetween(topK == 0 ? 0.999 : 0.1, 1.0);
        }
    }

    @Test
    void anObjectiveOfOnesOwnSeesWhatTheTeacherSays() {
        Objective forward = new Objective() {
            private static final long serialVersionUID = 1L;

            @Override
            public String name() {
                return "mine";
            }

            @Override
            public RecordKind records() {
                return RecordKind.ANSWERS;
            }

            @Override
            public boolean usesTeacher() {
                return true;
            }

            @Override
            public void score(ScoredBatch batch, ObjectiveResult result) {
                for (ScoredSequence s : batch.sequences()) {
                    for (int i = 0; i < s.length(); i++) {
                        for (int k = 0; k < s.candidates(); k++) {
                            double q = Math.exp(s.teacherLogProb(i, k));
                            result.loss(q * (s.teacherLogProb(i, k) - s.candidateLogProb(i, k)), 0);
                            result.gradient(s, i, k, -q);
                        }
                        result.loss(0, 1);
                    }
                }
            }
        };
        List<float[]> adapters = new ArrayList<>();
        for (Objective objective : List.of(forward, Objective.distill(0))) {
            try (Adapter adapter = student();
                    TeacherLogProbs said = ask(folder, 0, 1)) {
                new Trainer(model, adapter, config().build(), objective).train(data.withTeacher(said));
                adapters.add(adapter.values(1));
            }
        }
        assertThat(adapters.get(0)).containsExactly(adapters.get(1), within(1e-5f));
    }

    /** The model with another text for the token that ends a text. */
    private Path withOtherToken() throws IOException {
        int last = model.tokenizer().info().eos();
        byte[] text = model.tokenizer().tokenText(last).getBytes(StandardCharsets.UTF_8);
        byte[] file = Files.readAllBytes(TestModels.austen());
        for (int at = 8; at + text.length <= file.length; at++) {
            if (Arrays.equals(file, at, at + text.length, text, 0, text.length)
                    && ByteBuffer.wrap(file, at - 8, 8)
                                    .order(ByteOrder.LITTLE_ENDIAN)
                                    .getLong()
                            == text.length) {
                file[at + text.length - 1] = '~';
                return Files.write(folder.resolve("other.gguf"), file);
            }
        }
        throw new AssertionError("token " + last + " is not in the file");
    }

    @Test
    void aTeacherOfAnotherVocabularyIsRefused() throws IOException {
        int last = model.tokenizer().info().eos();
        try (Model other = Model.load(withOtherToken(), new ModelConfig("cpu", Precision.F32, 2))) {
            assertThatThrownBy(() -> new Teacher(other, null, 8, 1).requireVocabularyOf(model))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("has another vocabulary than " + model.file() + ": token " + last + " is \"")
                    .hasMessageEndingWith("; a teacher has the vocabulary of the model that learns from it");
        }
        Path qwen = TestModels.repository("native/tests/data/model_goldens/qwen2/model.gguf");
        try (Model small = Model.load(qwen, new ModelConfig("cpu", Precision.F32, 2))) {
            assertThatThrownBy(() -> new Teacher(small, null, 8, 1).requireVocabularyOf(model))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining(small.info().vocabSize() + " tokens, not "
                            + model.info().vocabSize());
        }
        new Teacher(model, null, 8, 1).requireVocabularyOf(model);
    }

    @Test
    void whatDoesNotGoTogetherIsRefused() {
        try (Adapter adapter = student();
                TeacherLogProbs said = ask(folder, 8, 1)) {
            Trainer trainer = new Trainer(model, adapter, config().build(), Objective.distill(0.5));
            assertThatThrownBy(() -> trainer.train(data))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("learns from what a teacher says of the data, which say nothing of one");
            TokenizedDataset other = data("Who?");
            assertThatThrownBy(() -> other.withTeacher(said))
                    .isInstanceOf(DataException.class)
                    .hasMessage("the teacher speaks of 3 examples; the data have 1");
        }
        assertThatThrownBy(() -> Objective.distill(1.5)).hasMessageContaining("beta is 1.5; with distill it must lie");
        assertThatThrownBy(() -> new Teacher(model, null, 1 << 20, 1))
                .hasMessageContaining("the teacher's vocabulary has");
        assertThatThrownBy(() -> new Teacher(model, null, 8, 0)).hasMessageContaining("temperature is 0.0");
    }
}
