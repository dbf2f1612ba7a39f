package dev.lorica.log;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.eval.Evaluation;
import dev.lorica.internal.Arguments;
import dev.lorica.train.Resumption;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingPlan;
import dev.lorica.train.TrainingProgress;
import dev.lorica.train.TrainingResult;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;

/**
 * The log of a run as JSON, one record a line: {@code loss}, {@code learning_rate}, {@code grad_norm} … every
 * {@code loggingSteps} steps, {@code eval_loss} and {@code eval_perplexity} at each evaluation, all with {@code step} and
 * {@code epoch}. A new run begins a new file; a resumed one cuts off what came after its checkpoint and goes on.
 */
public final class JsonlLog implements TrainerListener, AutoCloseable {
    /** What the file is called in an adapter's folder. */
    public static final String FILE_NAME = "train_log.jsonl";

    private static final ObjectMapper JSON = new ObjectMapper();

    private final Path file;
    private final Consumer<String> problem;
    /** Not a channel, which an interrupt of the thread would close. */
    private RandomAccessFile open;

    private boolean fresh;
    private double epoch;

    /**
     * Writes a line of JSON for each event, and goes on with a file that a resumed run finds.
     *
     * @param file    the file, made at the first event
     * @param problem is told, in one line, why the log ends here; training goes on without it
     */
    public JsonlLog(Path file, Consumer<String> problem) {
        Arguments.given(file, "file");
        Arguments.given(problem, "problem");
        this.file = file;
        this.problem = problem;
    }

    /** Nothing is written before the first record, because the run may be one that goes on. */
    @Override
    public void onStart(TrainingPlan plan) {
        close();
        fresh = true;
    }

    @Override
    public void onResume(Resumption resumption) {
        epoch = resumption.epoch();
        if (!Files.exists(file)) {
            return;
        }
        try {
            begin();
            long end = end(resumption);
            open.setLength(end);
            open.seek(end);
        } catch (IOException e) {
            fail(e);
        }
    }

    private void begin() throws IOException {
        fresh = false;
        open = new RandomAccessFile(file.toFile(), "rw");
    }

    /** The length of the file up to the records that the checkpoint knows of. */
    private long end(Resumption resumption) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        int end = 0;
        for (int i = 0; i < bytes.length; i++) {
            if (bytes[i] != '\n') {
                continue;
            }
            try {
                JsonNode record = JSON.readTree(bytes, end, i - end);
                int step = record.path("step").asInt(Integer.MAX_VALUE);
                boolean comesAgain =
                        step == resumption.step() && resumption.evaluationPending() && record.has("eval_loss");
                if (step > resumption.step() || comesAgain) {
                    break;
                }
            } catch (JacksonException e) {
                break;
            }
            end = i + 1;
        }
        return end;
    }

    @Override
    public void onStep(TrainingProgress progress) {
        epoch = progress.epoch();
    }

    @Override
    public void onLog(TrainingProgress progress) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("step", progress.step());
        record.put("epoch", progress.epoch());
        record.put("loss", progress.loss());
        record.put("learning_rate", progress.learningRate());
        record.put("grad_norm", progress.gradNorm());
        record.put("tokens", progress.tokens());
        record.put("trained_tokens", progress.trainedTokens());
        record.put("tokens_per_second", progress.tokensPerSecond());
        record.put("utilization", progress.utilization());
        record.put("seconds", progress.seconds());
        record.putAll(progress.metrics());
        append(record);
    }

    @Override
    public void onEvaluate(int step, Evaluation evaluation) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("step", step);
        record.put("epoch", epoch);
        record.put("eval_loss", evaluation.loss());
        if (evaluation.hasPerplexity()) {
            record.put("eval_perplexity", evaluation.perplexity());
        }
        record.put("eval_tokens", evaluation.trainedTokens());
        record.put("eval_seconds", evaluation.seconds());
        evaluation.metrics().forEach((name, value) -> record.put("eval_" + name, value));
        append(record);
    }

    @Override
    public void onSave(int step, Path checkpoint) {
        try {
            if (open != null) {
                open.getFD().sync();
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
        RandomAccessFile last = open;
        open = null;
        try {
            if (last != null) {
                last.close();
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    private void append(Map<String, Object> record) {
        try {
            if (fresh) {
                begin();
                open.setLength(0);
            }
            if (open != null) {
                open.write((JSON.writeValueAsString(record) + "\n").getBytes(StandardCharsets.UTF_8));
            }
        } catch (IOException e) {
            fail(e);
        }
    }

    private void fail(IOException e) {
        fresh = false;
        problem.accept(file + " cannot be written: " + e.getMessage());
        if (open != null) {
            close();
        }
    }
}
