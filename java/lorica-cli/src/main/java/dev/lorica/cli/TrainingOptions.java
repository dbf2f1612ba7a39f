package dev.lorica.cli;

import dev.lorica.train.IntervalStrategy;
import dev.lorica.train.Recomputation;
import dev.lorica.train.Setting;
import dev.lorica.train.SettingDefinition;
import dev.lorica.train.TrainingConfig;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;

/** How to train. Names, and what they mean, are those of Hugging Face's TrainingArguments, old and new. */
@Section("Training")
final class TrainingOptions extends SettingOptions {
    @Option(
            names = "--evals-per-epoch",
            paramLabel = "N",
            description = "Evaluations in each epoch, instead of --eval-steps.")
    Integer evalsPerEpoch;

    /** Where none is given. */
    double defaultLearningRate = (Double) Setting.LEARNING_RATE.initial();

    @Override
    List<Setting> settings() {
        return List.copyOf(EnumSet.range(Setting.EPOCHS, Setting.SEED));
    }

    @Override
    void adapt(SettingDefinition setting, OptionSpec.Builder option) {
        switch ((Setting) setting) {
            case WARMUP_STEPS -> option.type(Double.class).initialValue(0.0); // may be a share
            case RECOMPUTATION -> option.arity("0..1").fallbackValue("on");
            case LEARNING_RATE -> option.initialValue(null); // follows from the objective
            case EVAL_STRATEGY, EVAL_STEPS -> option.initialValue(null); // each follows from the other
            default -> {}
        }
    }

    long seed() {
        return value(Setting.SEED);
    }

    int batchSize() {
        return value(Setting.BATCH_SIZE);
    }

    TrainingConfig config(int maxLength, CheckpointOptions checkpoints) {
        double warmup = this.<Double>value(Setting.WARMUP_STEPS);
        if (warmup >= 1 && warmup != Math.rint(warmup)) {
            throw new IllegalArgumentException(
                    "--warmup-steps " + warmup + ": a whole number of steps, or a share of all steps below 1");
        }
        Integer evalSteps = value(Setting.EVAL_STEPS);
        String evalStrategy = value(Setting.EVAL_STRATEGY);
        requireOneOf(evalsPerEpoch, "--evals-per-epoch", evalSteps, "--eval-steps");
        requireOneOf(evalsPerEpoch, "--evals-per-epoch", evalStrategy, "--eval-strategy");
        requireOneOf(checkpoints.savesPerEpoch, "--saves-per-epoch", checkpoints.saveSteps(), "--save-steps");
        requireOneOf(checkpoints.savesPerEpoch, "--saves-per-epoch", checkpoints.saveStrategy(), "--save-strategy");
        requirePositive(evalsPerEpoch, "--evals-per-epoch");
        requirePositive(checkpoints.savesPerEpoch, "--saves-per-epoch");
        TrainingConfig.Builder config = TrainingConfig.builder();
        fill(config);
        checkpoints.fill(config);
        Double learningRate = value(Setting.LEARNING_RATE);
        config.maxLength(maxLength)
                .learningRate(learningRate != null ? learningRate : defaultLearningRate)
                .recomputation(recomputation())
                .evalSteps(evalSteps != null ? evalSteps : this.<Integer>value(Setting.LOGGING_STEPS))
                .evalStrategy(interval(Setting.EVAL_STRATEGY, evalStrategy, evalSteps))
                .saveStrategy(interval(Setting.SAVE_STRATEGY, checkpoints.saveStrategy(), checkpoints.saveSteps()));
        return (warmup > 0 && warmup < 1 ? config.warmupRatio(warmup) : config.warmupSteps((int) warmup)).build();
    }

    /** The same with what is counted in epochs counted in steps. */
    TrainingConfig perEpoch(TrainingConfig config, int stepsPerEpoch, CheckpointOptions checkpoints) {
        TrainingConfig.Builder steps = config.toBuilder();
        if (evalsPerEpoch != null) {
            steps.evalStrategy(IntervalStrategy.STEPS).evalSteps(every(stepsPerEpoch, evalsPerEpoch));
        }
        if (checkpoints.savesPerEpoch != null) {
            steps.saveStrategy(IntervalStrategy.STEPS).saveSteps(every(stepsPerEpoch, checkpoints.savesPerEpoch));
        }
        return steps.build();
    }

    private static int every(int stepsPerEpoch, int times) {
        return Math.max(1, stepsPerEpoch / times);
    }

    private static void requireOneOf(Object one, String its, Object other, String theirs) {
        if (one != null && other != null) {
            throw new IllegalArgumentException(its + " and " + theirs + " exclude each other");
        }
    }

    private static void requirePositive(Integer value, String option) {
        if (value != null && value < 1) {
            throw new IllegalArgumentException(option + " cannot be " + value + "; it is 1 or more");
        }
    }

    /** The strategy that was named; else steps if their number was given. */
    private static IntervalStrategy interval(Setting setting, String name, Integer steps) {
        if (name == null) {
            return steps != null ? IntervalStrategy.STEPS : (IntervalStrategy) setting.initial();
        }
        return Choices.of(
                "--" + setting.option(), name.equalsIgnoreCase("false") ? "no" : name, IntervalStrategy.class);
    }

    /** Hugging Face writes {@code --gradient_checkpointing True}. */
    private Recomputation recomputation() {
        String word = value(Setting.RECOMPUTATION);
        return switch (word.toLowerCase(Locale.ROOT)) {
            case "true" -> Recomputation.ON;
            case "false" -> Recomputation.OFF;
            default -> Choices.of("--" + Setting.RECOMPUTATION.option(), word, Recomputation.class);
        };
    }
}
