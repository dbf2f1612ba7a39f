package dev.lorica.cli;

import dev.lorica.Checkpointing;
import dev.lorica.SchedulerType;
import dev.lorica.TrainingConfig;
import java.util.Locale;
import picocli.CommandLine.Option;

/** How to train. Names, and what they mean, are those of Hugging Face's TrainingArguments, old and new. */
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

    @Option(names = "--learning-rate", paramLabel = "RATE", description = "Its peak. Default: 2e-4")
    double learningRate = DEFAULTS.learningRate();

    @Option(
            names = "--lr-scheduler-type",
            paramLabel = "NAME",
            description = "linear, cosine or constant. Default: ${DEFAULT-VALUE}")
    String schedulerType = DEFAULTS.schedulerType().toString();

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

    @Option(names = "--weight-decay", paramLabel = "X", description = "AdamW's, on A and B. Default: 0")
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
            names = "--seed",
            paramLabel = "N",
            description = "Of the adapter's start, the order of the data, and dropout. Default: ${DEFAULT-VALUE}")
    long seed = DEFAULTS.seed();

    TrainingConfig config(int maxLength) {
        if (warmupSteps >= 1 && warmupSteps != Math.rint(warmupSteps)) {
            throw new IllegalArgumentException(
                    "--warmup-steps " + warmupSteps + ": a whole number of steps, or a share of all steps below 1");
        }
        boolean share = warmupSteps > 0 && warmupSteps < 1;
        return TrainingConfig.builder()
                .epochs(epochs)
                .maxSteps(maxSteps)
                .batchSize(batchSize)
                .gradientAccumulationSteps(gradientAccumulationSteps)
                .learningRate(learningRate)
                .schedulerType(SchedulerType.of(schedulerType))
                .warmupSteps(share ? 0 : (int) warmupSteps)
                .warmupRatio(share ? warmupSteps : warmupRatio)
                .weightDecay(weightDecay)
                .maxGradNorm(maxGradNorm)
                .adamBeta1(adamBeta1)
                .adamBeta2(adamBeta2)
                .adamEpsilon(adamEpsilon)
                .maxLength(maxLength)
                .loggingSteps(loggingSteps)
                .seed(seed)
                .checkpointing(checkpointing())
                .build();
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
