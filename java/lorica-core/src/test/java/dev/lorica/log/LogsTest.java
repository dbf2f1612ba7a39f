package dev.lorica.log;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.eval.Evaluation;
import dev.lorica.train.Resumption;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingProgress;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LogsTest {
    @TempDir
    Path folder;

    private final List<String> problems = new ArrayList<>();

    @Test
    void checksumsAreThoseOfTensorBoard() {
        byte[] digits = "123456789".getBytes(StandardCharsets.US_ASCII);

        assertThat(EventFile.maskedChecksum(digits, 0, digits.length)).isEqualTo(0xc78ab0e5);
    }

    @Test
    void jsonlHasARecordForEachLogAndEvaluation() throws IOException {
        Path file = folder.resolve(JsonlLog.FILE_NAME);
        try (JsonlLog log = new JsonlLog(file, problems::add)) {
            log.onStart(null);
            steps(log, 1, 2);
        }

        assertThat(Files.readAllLines(file))
                .satisfiesExactly(
                        line -> assertThat(line)
                                .startsWith(
                                        "{\"step\":1,\"epoch\":0.25,\"loss\":0.5,\"learning_rate\":1.0E-4,\"grad_norm\":0.75"),
                        line -> assertThat(line).startsWith("{\"step\":2,\"epoch\":0.5,\"loss\":0.25,"),
                        line -> assertThat(line)
                                .startsWith("{\"step\":2,\"epoch\":0.5,\"eval_loss\":0.125,\"eval_perplexity\":1.13"));
        assertThat(problems).isEmpty();
    }

    @Test
    void aNewRunBeginsANewJsonlFile() throws IOException {
        Path file = Files.writeString(folder.resolve(JsonlLog.FILE_NAME), "{\"step\":1}\n".repeat(1000));
        try (JsonlLog log = new JsonlLog(file, problems::add)) {
            log.onStart(null);
            steps(log, 1, 2);
        }

        assertThat(Files.readAllLines(file)).hasSize(3);
    }

    @Test
    void aResumedRunGoesOnInTheSameFilesAsIfItHadNeverEnded() throws IOException {
        JsonlLog jsonl = new JsonlLog(folder.resolve("log.jsonl"), problems::add);
        TensorBoardLog events = new TensorBoardLog(folder.resolve("runs"), problems::add);
        for (TrainerListener log : List.of(jsonl, events)) {
            log.onStart(null);
            steps(log, 1, 7);
        }
        jsonl.close();
        events.close();
        List<String> records = Files.readAllLines(folder.resolve("log.jsonl"));
        List<String> scalars = scalars();
        // what a killed process leaves: records beyond the checkpoint, the last one half written
        Files.writeString(folder.resolve("log.jsonl"), "{\"step\":8,\"lo", StandardOpenOption.APPEND);
        Files.write(eventFile(), new byte[] {40, 0, 0, 0, 0}, StandardOpenOption.APPEND);

        for (boolean evaluationPending : new boolean[] {false, true}) {
            for (TrainerListener log : List.of(jsonl, events)) {
                log.onStart(null);
                log.onResume(new Resumption(4, 8, 1.0, folder, evaluationPending, List.of()));
                if (evaluationPending) {
                    log.onEvaluate(4, evaluation(4));
                }
                steps(log, 5, 7);
            }
            jsonl.close();
            events.close();

            assertThat(Files.readAllLines(folder.resolve("log.jsonl"))).isEqualTo(records);
            assertThat(scalars()).isEqualTo(scalars);
        }
        assertThat(problems).isEmpty();
    }

    @Test
    void eventsHaveTheNamesThatTensorBoardUsersKnow() {
        TensorBoardLog events = new TensorBoardLog(folder.resolve("runs"), problems::add);
        events.onStart(null);
        steps(events, 1, 2);
        events.close();

        assertThat(scalars())
                .containsExactly(
                        "version brain.Event:2",
                        "1 train/loss 0.5",
                        "1 train/grad_norm 0.75",
                        "1 train/learning_rate 1.0E-4",
                        "1 train/epoch 0.25",
                        "1 train/tokens_per_second 300.0",
                        "1 train/rewards/margins 0.125",
                        "2 train/loss 0.25",
                        "2 train/grad_norm 0.75",
                        "2 train/learning_rate 1.0E-4",
                        "2 train/epoch 0.5",
                        "2 train/tokens_per_second 300.0",
                        "2 train/rewards/margins 0.25",
                        "2 eval/loss 0.125",
                        "2 eval/perplexity 1.1331484");
        assertThat(eventFile().getFileName().toString())
                .matches("events\\.out\\.tfevents\\.\\d{10}\\.[^.]+.*\\.\\d+\\.0");
        assertThat(eventFile().getParent().getFileName().toString())
                .matches("[A-Z][a-z]{2}\\d\\d_\\d\\d-\\d\\d-\\d\\d_.+");
    }

    @Test
    void aNewRunHasAFolderOfItsOwn() throws IOException {
        TensorBoardLog events = new TensorBoardLog(folder.resolve("runs"), problems::add);
        for (int run = 0; run < 3; run++) {
            events.onStart(null);
            steps(events, 1, 1);
        }
        events.close();

        try (Stream<Path> runs = Files.list(folder.resolve("runs"))) {
            assertThat(runs).hasSize(3);
        }
    }

    @Test
    void aLogThatCannotBeWrittenIsGivenUpWithAWord() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "");
        JsonlLog jsonl = new JsonlLog(file.resolve("log.jsonl"), problems::add);
        TensorBoardLog events = new TensorBoardLog(file.resolve("runs"), problems::add);
        for (TrainerListener log : List.of(jsonl, events)) {
            log.onStart(null);
            steps(log, 1, 4);
            log.onSave(4, folder);
            log.onEnd(null);
        }

        assertThat(problems).hasSize(2).allMatch(problem -> problem.contains("cannot be written"));
    }

    private static void steps(TrainerListener log, int from, int to) {
        for (int step = from; step <= to; step++) {
            TrainingProgress progress = new TrainingProgress(
                    step,
                    8,
                    step / 4.0,
                    0.5 / step,
                    1e-4,
                    0.75,
                    100L * step,
                    40L * step,
                    300,
                    0,
                    step,
                    8 - step,
                    metrics(step));
            log.onStep(progress);
            log.onLog(progress);
            if (step % 2 == 0) {
                log.onEvaluate(step, evaluation(step));
            }
        }
    }

    private static Map<String, Double> metrics(int step) {
        return Map.of("rewards/margins", 0.125 * step);
    }

    private static Evaluation evaluation(int step) {
        return new Evaluation(0.25 / step, 10, 20, 2, 0.5);
    }

    private Path eventFile() {
        try (Stream<Path> files = Files.walk(folder.resolve("runs"))) {
            return files.filter(Files::isRegularFile).findFirst().orElseThrow();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Reads records as they are written here; scripts/check_tensorboard.py reads them with TensorBoard itself. */
    private List<String> scalars() {
        List<String> scalars = new ArrayList<>();
        try {
            ByteBuffer file = ByteBuffer.wrap(Files.readAllBytes(eventFile())).order(ByteOrder.LITTLE_ENDIAN);
            while (file.hasRemaining()) {
                byte[] event = new byte[(int) file.getLong()];
                file.getInt();
                file.get(event);
                file.getInt();
                ByteBuffer in = ByteBuffer.wrap(event).order(ByteOrder.LITTLE_ENDIAN);
                assertThat(in.get()).isEqualTo((byte) 0x09);
                assertThat(in.getDouble()).isGreaterThan(1.7e9);
                if (in.get() == 0x1a) {
                    scalars.add("version " + text(in));
                    continue;
                }
                int step = in.get();
                in.position(in.position() + 5);
                String name = text(in);
                assertThat(in.get()).isEqualTo((byte) 0x15);
                scalars.add(step + " " + name + " " + in.getFloat());
            }
            return scalars;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static String text(ByteBuffer in) {
        byte[] text = new byte[in.get()];
        in.get(text);
        return new String(text, StandardCharsets.UTF_8);
    }
}
