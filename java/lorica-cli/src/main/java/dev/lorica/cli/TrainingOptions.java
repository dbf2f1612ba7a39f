package dev.lorica.cli;

import dev.lorica.train.Checkpointing;
import dev.lorica.train.IntervalStrategy;
import dev.lorica.train.Optimizer;
import dev.lorica.train.SchedulerType;
import dev.lorica.train.TrainingConfig;
import java.util.Locale;
import picocli.CommandLine.Option;

/** How to train. Names, and what they mean, are those of Hugging Face's TrainingArguments, old and new. */
@Section("Training")
final class TrainingOptions {
    private static final TrainingConfig DEFAULTS = TrainingConfig.defaults();

    @Option(names = "--epochs", paramLabel = "N", description = "Passes over the data; may be a fraction. Default: 3")
    double epochs = DEFAULTS.epochs();

    @Option(names = "--max-steps", paramLabel = "N", description = "Optimizer steps, instead of --epochs.")
    int maxSteps = DEFAULTS.maxSteps();

    @Option(
            names = "--batch-size",
            paramLabel = "N",
            description = "Examples of a micro-batch; they are packed, not padded. Default: ${DEFAULT-VALUE}")
    int batchSize = DEFAULTS.batchSize();

    @Option(
            names = "--gradient-accumulation-steps",
            paramLabel = "N",
            description = "Micro-batches of one optimizer step. Default: ${DEFAULT-VALUE}")
    int gradientAccumulationSteps = DEFAULTS.gradientAccumulationSteps();

    @Option(
            names = "--learning-rate",
            paramLabel = "RATE",
            description = "Its peak. Default: 2e-4; for objectives other than sft 1e-5")
    Double learningRate;

    /** Where none is given. */
    double defaultLearningRate = DEFAULTS.learningRate();

    @Option(
            names = "--lr-scheduler-type",
            paramLabel = "NAME",
            description =
                    "linear, cosine, cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay or constant. "
                            + "Default: ${DEFAULT-VALUE}")
    String schedulerType = DEFAULTS.schedulerType().toString();

    @Option(
            names = "--min-learning-rate",
            paramLabel = "RATE",
            description = "Where cosine, polynomial and warmup_stable_decay end. Default: 0")
    double minLearningRate = DEFAULTS.minLearningRate();

    @Option(names = "--lr-scheduler-power", paramLabel = "X", description = "Power of the polynomial. Default: 1")
    double schedulerPower = DEFAULTS.schedulerPower();

    @Option(
            names = "--lr-scheduler-num-cycles",
            paramLabel = "X",
            description = "How often cosine_with_restarts falls. Default: 1")
    double schedulerCycles = DEFAULTS.schedulerCycles();

    @Option(
            names = "--lr-decay-steps",
            paramLabel = "N",
            description = "The last steps, in which warmup_stable_decay falls.")
    int decaySteps = DEFAULTS.decaySteps();

    @Option(
            names = "--lr-timescale",
            paramLabel = "N",
            description = "Steps of inverse_sqrt; 0: those of the warm-up, or 10000. Default: 0")
    int timescale = DEFAULTS.timescale();

    @Option(
            names = "--warmup-steps",
            paramLabel = "N",
            description = "Steps in which the rate rises from 0; below 1, a share of all steps. Default: 0")
    double warmupSteps = DEFAULTS.warmupSteps();

    @Option(
            names = "--warmup-ratio",
            paramLabel = "SHARE",
            description = "The same as a share of all steps. Default: 0")
    double warmupRatio = DEFAULTS.warmupRatio();

    @Option(
            names = "--optim",
            paramLabel = "NAME",
            description = "adamw, or adamw_8bit with a quarter of its memory. Default: ${DEFAULT-VALUE}")
    String optimizer = DEFAULTS.optimizer().toString();

    @Option(
            names = "--loraplus-lr-ratio",
            paramLabel = "X",
            description = "LoRA+: B learns with X times the learning rate of A. Default: 1")
    double loraplusLrRatio = DEFAULTS.loraplusLrRatio();

    @Option(names = "--weight-decay", paramLabel = "X", description = "AdamW's, on all that is trained. Default: 0")
    double weightDecay = DEFAULTS.weightDecay();

    @Option(
            names = "--max-grad-norm",
            paramLabel = "X",
            description = "Clip gradients to this norm; 0: never. Default: 1")
    double maxGradNorm = DEFAULTS.maxGradNorm();

    @Option(names = "--adam-beta1", paramLabel = "X", description = "Default: 0.9")
    double adamBeta1 = DEFAULTS.adamBeta1();

    @Option(names = "--adam-beta2", paramLabel = "X", description = "Default: 0.999")
    double adamBeta2 = DEFAULTS.adamBeta2();

    @Option(names = "--adam-epsilon", paramLabel = "X", description = "Default: 1e-8")
    double adamEpsilon = DEFAULTS.adamEpsilon();

    @Option(
            names = "--neftune-noise-alpha",
            paramLabel = "X",
            description =
                    "NEFTune: noise of this strength on the embeddings while training; 5 is usual. Default: 0, none")
    double neftuneNoiseAlpha = DEFAULTS.neftuneNoiseAlpha();

    @Option(
            names = "--group-by-length",
            description = "Put examples of about the same length into one micro-batch. Nothing is padded either way.")
    boolean groupByLength;

    @Option(
            names = "--gradient-checkpointing",
            paramLabel = "WAY",
            arity = "0..1",
            fallbackValue = "on",
            description = "auto, on or off: compute activations again to save memory. Default: ${DEFAULT-VALUE}")
    String checkpointing = "auto";

    @Option(
            names = "--logging-steps",
            paramLabel = "N",
            description = "Steps from one line of the log to the next. Default: ${DEFAULT-VALUE}")
    int loggingSteps = DEFAULTS.loggingSteps();

    @Option(
            names = "--eval-strategy",
            paramLabel = "WHEN",
            description =
                    "When to evaluate on --eval-data: no, steps or epoch. Default: epoch, or steps with --eval-steps.")
    String evalStrategy;

    @Option(
            names = "--eval-steps",
            paramLabel = "N",
            description = "Steps from one evaluation to the next. Default: as --logging-steps.")
    Integer evalSteps;

    @Option(
            names = "--evals-per-epoch",
            paramLabel = "N",
            description = "The same as so many evaluations in each epoch.")
    Integer evalsPerEpoch;

    @Option(
            names = "--eval-batch-size",
            paramLabel = "N",
            description = "Examples evaluated at once; does not change the result. Default: as --batch-size.")
    int evalBatchSize = DEFAULTS.evalBatchSize();

    @Option(
            names = "--early-stopping-patience",
            paramLabel = "N",
            description = "End when so many evaluations one after another were no better; 0: never. Default: 0")
    int earlyStoppingPatience = DEFAULTS.earlyStoppingPatience();

    @Option(
            names = "--early-stopping-threshold",
            paramLabel = "X",
            description = "By how much the loss must fall to count as better. Default: 0")
    double earlyStoppingThreshold = DEFAULTS.earlyStoppingThreshold();

    @Option(
            names = "--load-best-model-at-end",
            description = "Keep the checkpoint with the lowest evaluation loss and save that adapter.")
    boolean loadBestModelAtEnd;

    @Option(
            names = "--seed",
            paramLabel = "N",
            description = "Of the adapter's start, the order of the data, dropout and noise. Default: ${DEFAULT-VALUE}")
    long seed = DEFAULTS.seed();

    TrainingConfig config(int maxLength, CheckpointOptions checkpoints) {
        if (warmupSteps >= 1 && warmupSteps != Math.rint(warmupSteps)) {
            throw new IllegalArgumentException(
                    "--warmup-steps " + warmupSteps + ": a whole number of steps, or a share of all steps below 1");
        }
        requireOneOf(evalsPerEpoch, "--evals-per-epoch", evalSteps, "--eval-steps");
        requireOneOf(evalsPerEpoch, "--evals-per-epoch", evalStrategy, "--eval-strategy");
        requireOneOf(checkpoints.savesPerEpoch, "--saves-per-epoch", checkpoints.saveSteps, "--save-steps");
        requireOneOf(checkpoints.savesPerEpoch, "--saves-per-epoch", checkpoints.saveStrategy, "--save-strategy");
        requirePositive(evalsPerEpoch, "--evals-per-epoch");
        requirePositive(checkpoints.savesPerEpoch, "--saves-per-epoch");
        boolean share = warmupSteps > 0 && warmupSteps < 1;
        TrainingConfig.Builder config = TrainingConfig.builder()
                .epochs(epochs)
                .maxSteps(maxSteps)
                .batchSize(batchSize)
                .gradientAccumulationSteps(gradientAccumulationSteps)
                .learningRate(learningRate != null ? learningRate : defaultLearningRate)
                .schedulerType(SchedulerType.of(schedulerType))
                .minLearningRate(minLearningRate)
                .schedulerPower(schedulerPower)
                .schedulerCycles(schedulerCycles)
                .decaySteps(decaySteps)
                .timescale(timescale)
                .warmupSteps(share ? 0 : (int) warmupSteps)
                .warmupRatio(share ? warmupSteps : warmupRatio)
                .optimizer(Optimizer.of(optimizer))
                .loraplusLrRatio(loraplusLrRatio)
                .weightDecay(weightDecay)
                .maxGradNorm(maxGradNorm)
                .adamBeta1(adamBeta1)
                .adamBeta2(adamBeta2)
                .adamEpsilon(adamEpsilon)
                .neftuneNoiseAlpha(neftuneNoiseAlpha)
                .groupByLength(groupByLength)
                .maxLength(maxLength)
                .loggingSteps(loggingSteps)
                .evalBatchSize(evalBatchSize)
                .evalSteps(evalSteps != null ? evalSteps : loggingSteps)
                .evalStrategy(interval("--eval-strategy", evalStrategy, evalSteps, IntervalStrategy.EPOCH))
                .earlyStoppingPatience(earlyStoppingPatience)
                .earlyStoppingThreshold(earlyStoppingThreshold)
                .loadBestModelAtEnd(loadBestModelAtEnd)
                .seed(seed)
                .checkpointing(checkpointing());
        return checkpoints.apply(config).build();
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
    static IntervalStrategy interval(String option, String name, Integer steps, IntervalStrategy otherwise) {
        if (name == null) {
            return steps != null ? IntervalStrategy.STEPS : otherwise;
        }
        return Choices.of(option, name.equalsIgnoreCase("false") ? "no" : name, IntervalStrategy.class);
    }

    /** Hugging Face writes {@code --gradient_checkpointing True}. */
    private Checkpointing checkpointing() {
        return switch (checkpointing.toLowerCase(Locale.ROOT)) {
            case "true" -> Checkpointing.ON;
            case "false" -> Checkpointing.OFF;
            default -> Choices.of("--gradient-checkpointing", checkpointing, Checkpointing.class);
        };
    }
}
