package dev.lorica.log;

import dev.lorica.eval.Evaluation;
import dev.lorica.internal.Arguments;
import dev.lorica.train.Resumption;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingPlan;
import dev.lorica.train.TrainingProgress;
import dev.lorica.train.TrainingResult;
import java.io.IOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.function.BiPredicate;
import java.util.function.Consumer;
import java.util.stream.Stream;

/**
 * The curves of a run for TensorBoard, with the names that Hugging Face's Trainer gives them: {@code train/loss},
 * {@code train/grad_norm}, {@code train/learning_rate}, {@code train/epoch}, {@code eval/loss}, {@code eval/perplexity}, over
 * optimizer steps. Each run has a folder of its own below the one given. A resumed run goes on in the folder that was written
 * last: what it has beyond the checkpoint is cut off.
 */
public final class TensorBoardLog implements TrainerListener, AutoCloseable {
    /** What the folder is called in an adapter's folder. */
    public static final String FOLDER_NAME = "runs";

    private static final String PREFIX = "events.out.tfevents.";
    private static final DateTimeFormatter RUN = DateTimeFormatter.ofPattern("MMMdd_HH-mm-ss", Locale.ROOT);

    private final Path folder;
    private final Consumer<String> problem;
    private EventFile events;
    private boolean fresh;

    /**
     * Writes events as TensorBoard reads them, and goes on with those that a resumed run finds.
     *
     * @param folder  where the files of events are, made at the first event
     * @param problem is told, in one line, why the log ends here; training goes on without it
     */
    public TensorBoardLog(Path folder, Consumer<String> problem) {
        Arguments.given(folder, "folder");
        Arguments.given(problem, "problem");
        this.folder = folder;
        this.problem = problem;
    }

    /** Nothing is written before the first scalar, because the run may be one that goes on. */
    @Override
    public void onStart(TrainingPlan plan) {
        close();
        fresh = true;
    }

    @Override
    public void onResume(Resumption resumption) {
        try {
            Optional<Path> file = newest();
            if (file.isPresent()) {
                BiPredicate<Long, String> keep = (step, name) -> step < resumption.step()
                        || step == resumption.step() && !(resumption.evaluationPending() && name.startsWith("eval/"));
                events = EventFile.resume(file.get(), keep);
                fresh = false;
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    @Override
    public void onLog(TrainingProgress progress) {
        write(progress.step(), "train/loss", progress.loss());
        write(progress.step(), "train/grad_norm", progress.gradNorm());
        write(progress.step(), "train/learning_rate", progress.learningRate());
        write(progress.step(), "train/epoch", progress.epoch());
        write(progress.step(), "train/tokens_per_second", progress.tokensPerSecond());
        if (progress.utilization() > 0) {
            write(progress.step(), "train/utilization", progress.utilization());
        }
        progress.metrics().forEach((name, value) -> write(progress.step(), "train/" + name, value));
    }

    @Override
    public void onEvaluate(int step, Evaluation evaluation) {
        write(step, "eval/loss", evaluation.loss());
        if (evaluation.hasPerplexity()) {
            write(step, "eval/perplexity", evaluation.perplexity());
        }
        evaluation.metrics().forEach((name, value) -> write(step, "eval/" + name, value));
    }

    @Override
    public void onSave(int step, Path checkpoint) {
        try {
            if (events != null) {
                events.force();
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    @Override
    public void onEnd(TrainingResult result) {
        close();
    }

    @Override
    public void close() {
        EventFile open = events;
        events = null;
        try {
            if (open != null) {
                open.close();
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    private void write(int step, String name, double value) {
        try {
            double now = System.currentTimeMillis() / 1e3;
            if (fresh) {
                events = create(now);
                fresh = false;
            }
            if (events != null) {
                events.scalar(now, step, name, (float) value);
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    private EventFile create(double now) throws IOException {
        Files.createDirectories(folder);
        String name = RUN.format(LocalDateTime.now()) + "_" + host();
        Path run = folder.resolve(name);
        for (int i = 1; Files.exists(run); i++) {
            run = folder.resolve(name + "_" + i);
        }
        Files.createDirectory(run);
        return EventFile.create(
                run.resolve(PREFIX + (long) now + "." + host() + "."
                        + ProcessHandle.current().pid() + ".0"),
                now);
    }

    private Optional<Path> newest() throws IOException {
        if (!Files.isDirectory(folder)) {
            return Optional.empty();
        }
        List<Path> files;
        try (Stream<Path> all = Files.walk(folder, 2)) {
            files = all.filter(file -> file.getFileName().toString().startsWith(PREFIX))
                    .toList();
        }
        return files.stream().max(Comparator.comparingLong(file -> file.toFile().lastModified()));
    }

    private static String host() {
        try {
            return InetAddress.getLocalHost().getHostName().replaceAll("[^A-Za-z0-9.-]", "_");
        } catch (UnknownHostException e) {
            return "localhost";
        }
    }

    private void fail(IOException e) {
        problem.accept("TensorBoard's log in " + folder + " cannot be written: " + e.getMessage());
        fresh = false;
        if (events != null) {
            close();
        }
    }
}
