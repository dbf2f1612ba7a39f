package dev.lorica.train;

import com.fasterxml.jackson.annotation.JsonAutoDetect;
import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.AdapterInfo;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.data.Example;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.Sha256;
import dev.lorica.internal.json.Json;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Objects;

/**
 * Where a run is after an optimizer step, and what it counted, except for what the session knows. The loop works on it, and a
 * checkpoint holds it as the file {@value #FILE_NAME}.
 */
@JsonAutoDetect(
        fieldVisibility = JsonAutoDetect.Visibility.NON_PRIVATE,
        getterVisibility = JsonAutoDetect.Visibility.NONE,
        isGetterVisibility = JsonAutoDetect.Visibility.NONE)
final class TrainerState {
    static final String FILE_NAME = "trainer_state.json";
    static final int VERSION = 1;

    /** Of this format. */
    int version = VERSION;
    /** Optimizer steps done. */
    int step;
    /** Passes over the data that are complete. */
    int pass;
    /** The micro-batch of the pass after these with which to go on. */
    int microBatch;
    /** Steps that were taken with the answers below, where a model learns from its own. */
    int iteration;
    /** Those, while there are more steps to be taken with them; {@code null}: the next step draws new ones. */
    Rollouts.Answers answers;
    /** Passes over the data, with a fraction. */
    double epoch;
    /** Of the whole run. */
    Sums total = Sums.NONE;

    Sums sinceLog = Sums.NONE;
    /** Time taken up to the checkpoint. */
    double seconds;
    /** The last one; {@code null}: none yet. */
    Evaluation evaluation;
    /** Whether the evaluation that is due after this step is still to be done. */
    boolean evaluationPending;
    /** The step with the lowest evaluation loss; 0: none yet. */
    int bestStep;
    /** That loss. */
    double bestLoss;
    /** Evaluations since the last that counts as a gain for early stopping. */
    int evaluationsWithoutGain;
    /** How the run trains. */
    TrainingConfig config;
    /** What it trains on. */
    AdapterMetadata.BaseModel baseModel;
    /** What it trains. */
    AdapterInfo adapter;
    /** What it makes small, with its settings. */
    String objective = Objective.sft().inWords();
    /** Whom it learns from, and how that one was asked; {@code null}: nobody. */
    String teacher;
    /** Checksum of the examples. */
    String data;
    /** Checksum of what it evaluates on; {@code null}: nothing. */
    String evalData;

    /** Whether an evaluation found a lower loss than all before. */
    boolean isBest(double loss) {
        return bestStep == 0 || loss < bestLoss;
    }

    void write(Path file) {
        try {
            AtomicFile.write(file, Json.MAPPER.writeValueAsBytes(this));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    static TrainerState read(Path file) {
        try {
            ObjectNode json = Json.MAPPER.readValue(Files.readAllBytes(file), ObjectNode.class);
            // A setting that an older version did not know was as its default is.
            json.putPOJO("config", Json.withDefaults(json.get("config"), TrainingConfig.defaults()));
            TrainerState state = Json.MAPPER.treeToValue(json, TrainerState.class);
            if (state.version != VERSION) {
                throw new FileFormatException(
                        file + " has version " + state.version + "; this program knows " + VERSION);
            }
            if (state.config == null
                    || state.baseModel == null
                    || state.adapter == null
                    || state.total == null
                    || state.sinceLog == null
                    || state.step < 1
                    || state.pass < 0
                    || state.microBatch < 0
                    || state.iteration > 0 && state.answers == null) {
                throw new FileFormatException(file + " is incomplete");
            }
            return state;
        } catch (JacksonException e) {
            throw new FileFormatException(file + " is damaged: " + e.getOriginalMessage(), e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** Tells data sets apart by what is learned from them: ids, and which of them are trained on and how much, in their order. */
    static String checksum(TokenizedDataset data) {
        MessageDigest digest = Sha256.digest();
        if (data.values() != null) {
            ByteBuffer values = ByteBuffer.allocate(4 * data.values().length);
            values.asFloatBuffer().put(data.values());
            digest.update(values.array());
        }
        for (Example example : data.examples()) {
            ByteBuffer bytes = ByteBuffer.allocate(4 + 5 * example.length()).putInt(example.length());
            for (int i = 0; i < example.length(); i++) {
                bytes.putInt(example.ids()[i]).put((byte) (example.trained()[i] ? 1 : 0));
            }
            digest.update(bytes.array());
            if (example.weights() != null) {
                ByteBuffer weights = ByteBuffer.allocate(4 * example.length());
                weights.asFloatBuffer().put(example.weights());
                digest.update(weights.array());
            }
        }
        return HexFormat.of().formatHex(digest.digest(), 0, 8);
    }

    /** What makes it impossible to go on as if nothing had happened. */
    List<String> obstacles(TrainerState run) {
        TrainingConfig now = run.config;
        AdapterInfo nowAdapter = run.adapter;
        List<String> obstacles = new ArrayList<>();
        if (!data.equals(run.data)) {
            obstacles.add("the training data are others, or were made into other tokens");
        }
        compare(obstacles, "objective", objective, run.objective);
        compare(obstacles, "teacher", teacher, run.teacher);
        compare(obstacles, "batch size", config.batchSize(), now.batchSize());
        compare(
                obstacles,
                "gradient accumulation steps",
                config.gradientAccumulationSteps(),
                now.gradientAccumulationSteps());
        compare(obstacles, "seed", config.seed(), now.seed());
        compare(obstacles, "shuffle", config.shuffle(), now.shuffle());
        compare(obstacles, "group by length", config.groupByLength(), now.groupByLength());
        compare(obstacles, "optimizer", config.optimizer(), now.optimizer());
        compare(obstacles, "method", adapter.method(), nowAdapter.method());
        compare(obstacles, "rank", adapter.rank(), nowAdapter.rank());
        compare(obstacles, "alpha", adapter.alpha(), nowAdapter.alpha());
        compare(obstacles, "dropout", adapter.dropout(), nowAdapter.dropout());
        compare(obstacles, "use rslora", adapter.useRslora(), nowAdapter.useRslora());
        compare(obstacles, "use dora", adapter.useDora(), nowAdapter.useDora());
        compare(obstacles, "invocation (aLoRA)", adapter.invocationTokens(), nowAdapter.invocationTokens());
        compare(obstacles, "bottleneck", adapter.bottleneck(), nowAdapter.bottleneck());
        compare(obstacles, "frozen half (PiSSA)", adapter.frozenHalf(), nowAdapter.frozenHalf());
        compare(obstacles, "target modules", adapter.targetModules(), nowAdapter.targetModules());
        return obstacles;
    }

    /** Settings with which the run does not end as it would have. */
    List<String> changes(TrainerState run) {
        TrainingConfig now = run.config;
        List<String> changes = new ArrayList<>();
        compare(changes, "epochs", config.epochs(), now.epochs());
        compare(changes, "max steps", config.maxSteps(), now.maxSteps());
        compare(changes, "learning rate", config.learningRate(), now.learningRate());
        compare(changes, "scheduler", config.schedulerType(), now.schedulerType());
        compare(changes, "min learning rate", config.minLearningRate(), now.minLearningRate());
        compare(changes, "scheduler power", config.schedulerPower(), now.schedulerPower());
        compare(changes, "warmup steps", config.warmupSteps(), now.warmupSteps());
        compare(changes, "warmup ratio", config.warmupRatio(), now.warmupRatio());
        compare(changes, "loraplus lr ratio", config.loraplusLrRatio(), now.loraplusLrRatio());
        compare(changes, "neftune noise alpha", config.neftuneNoiseAlpha(), now.neftuneNoiseAlpha());
        compare(changes, "weight decay", config.weightDecay(), now.weightDecay());
        compare(changes, "max grad norm", config.maxGradNorm(), now.maxGradNorm());
        compare(changes, "adam beta1", config.adamBeta1(), now.adamBeta1());
        compare(changes, "adam beta2", config.adamBeta2(), now.adamBeta2());
        compare(changes, "adam epsilon", config.adamEpsilon(), now.adamEpsilon());
        if (!Objects.equals(evalData, run.evalData)) {
            changes.add("the evaluation data are others");
        }
        return changes;
    }

    private static void compare(List<String> differences, String name, Object before, Object now) {
        if (!Objects.equals(before, now)) {
            differences.add(name + " was " + before + " and is " + now);
        }
    }
}
