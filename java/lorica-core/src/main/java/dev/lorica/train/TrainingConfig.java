package dev.lorica.train;

import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.json.Json;

/**
 * How to train. Names and meanings are those of Hugging Face's {@code TrainingArguments}, so that a recipe can be carried over;
 * where a default differs, it says so.
 *
 * <pre>{@code
 * TrainingConfig config = TrainingConfig.builder().epochs(2).batchSize(4).learningRate(1e-4).build();
 * }</pre>
 *
 * @param epochs                    {@code num_train_epochs}: passes over the data; may be a fraction
 * @param maxSteps                  {@code max_steps}: optimizer steps, overrides {@code epochs}; −1: as many as epochs say
 * @param batchSize                 {@code per_device_train_batch_size}: examples of one micro-batch, which is packed, not padded
 *                                  (4; theirs is 8)
 * @param evalBatchSize             {@code per_device_eval_batch_size}: the same while evaluating; 0: as {@code batchSize}. It
 *                                  changes memory and speed, never the loss.
 * @param gradientAccumulationSteps {@code gradient_accumulation_steps}: micro-batches of one optimizer step
 * @param learningRate              {@code learning_rate}: its peak (2e-4, usual for LoRA; theirs is 5e-5)
 * @param schedulerType             {@code lr_scheduler_type}
 * @param minLearningRate           {@code lr_scheduler_kwargs: min_lr, lr_end}: where {@link SchedulerType#COSINE} and
 *                                  {@link SchedulerType#POLYNOMIAL} end (0; theirs is 1e-7 for polynomial)
 * @param schedulerPower            {@code lr_scheduler_kwargs: power}: of {@link SchedulerType#POLYNOMIAL}
 * @param schedulerCycles           {@code lr_scheduler_kwargs: num_cycles}: of {@link SchedulerType#COSINE_WITH_RESTARTS}
 * @param decaySteps                {@code lr_scheduler_kwargs: num_decay_steps}: the last steps, in which
 *                                  {@link SchedulerType#WARMUP_STABLE_DECAY} falls; needed for it
 * @param timescale                 {@code lr_scheduler_kwargs: timescale}: steps of {@link SchedulerType#INVERSE_SQRT}; 0: those of the
 *                                  warm-up, or 10,000 without one
 * @param warmupSteps               {@code warmup_steps}: steps during which the rate rises from 0
 * @param warmupRatio               {@code warmup_ratio}: the same as a share of all steps, rounded up; counts when
 *                                  {@code warmupSteps} is 0
 * @param optimizer                 {@code optim}
 * @param loraplusLrRatio           {@code loraplus_lr_ratio}: B's learning rate (and that of DoRA's magnitudes) is that many times A's
 *                                  (LoRA+, Hayou et al. 2024; 1: the same)
 * @param weightDecay               {@code weight_decay}: decoupled, acts on everything that is trained
 * @param maxGradNorm               {@code max_grad_norm}: gradients are clipped to this norm; 0: never
 * @param adamBeta1                 {@code adam_beta1}
 * @param adamBeta2                 {@code adam_beta2}
 * @param adamEpsilon               {@code adam_epsilon}
 * @param neftuneNoiseAlpha         {@code neftune_noise_alpha}: while training, embeddings get uniform noise of magnitude alpha / √(L d)
 *                                  for L tokens of d dimensions (NEFTune, Jain et al. 2023); 0: none
 * @param maxLength                 {@code max_length}: the most tokens of one example (1024)
 * @param loggingSteps              {@code logging_steps}: steps from one log to the next (10; theirs is 500)
 * @param evalStrategy              {@code eval_strategy}: when to evaluate, where there is something to evaluate on. Unless it is
 *                                  {@link IntervalStrategy#NO}, that is done after the last step too.
 * @param evalSteps                 {@code eval_steps}: steps from one evaluation to the next, for {@link IntervalStrategy#STEPS}
 * @param earlyStoppingPatience     {@code early_stopping_patience}: training ends when that many evaluations one after another
 *                                  found no lower loss; 0: never
 * @param earlyStoppingThreshold    {@code early_stopping_threshold}: by how much a loss must be lower to count for that
 * @param saveStrategy              {@code save_strategy}: when to write a checkpoint, where there is a folder for them
 * @param saveSteps                 {@code save_steps}: steps from one checkpoint to the next, for {@link IntervalStrategy#STEPS}
 * @param saveTotalLimit            {@code save_total_limit}: how many checkpoints are kept, the best one among them; 0: all (3;
 *                                  theirs is all)
 * @param loadBestModelAtEnd        {@code load_best_model_at_end}: writes a checkpoint whenever an evaluation finds a lower loss
 *                                  than all before, and leaves the adapter as it was in the last of these
 * @param seed                      {@code seed}: of the order of the data and of dropout
 * @param shuffle                   whether each epoch has an order of its own
 * @param groupByLength             {@code group_by_length}: whether a micro-batch has examples of about the same length. Nothing is padded
 *                                  here, so this saves memory where lengths differ much, not time.
 * @param checkpointing             {@code gradient_checkpointing}
 * @param memoryLimit               bytes that the plan may use; 0: what the system has available
 */
public record TrainingConfig(
        double epochs,
        int maxSteps,
        int batchSize,
        int evalBatchSize,
        int gradientAccumulationSteps,
        double learningRate,
        SchedulerType schedulerType,
        double minLearningRate,
        double schedulerPower,
        double schedulerCycles,
        int decaySteps,
        int timescale,
        int warmupSteps,
        double warmupRatio,
        Optimizer optimizer,
        double loraplusLrRatio,
        double weightDecay,
        double maxGradNorm,
        double adamBeta1,
        double adamBeta2,
        double adamEpsilon,
        double neftuneNoiseAlpha,
        int maxLength,
        int loggingSteps,
        IntervalStrategy evalStrategy,
        int evalSteps,
        int earlyStoppingPatience,
        double earlyStoppingThreshold,
        IntervalStrategy saveStrategy,
        int saveSteps,
        int saveTotalLimit,
        boolean loadBestModelAtEnd,
        long seed,
        boolean shuffle,
        boolean groupByLength,
        Checkpointing checkpointing,
        long memoryLimit) {

    public TrainingConfig {
        Arguments.given(schedulerType, "schedulerType");
        Arguments.given(optimizer, "optimizer");
        Arguments.given(checkpointing, "checkpointing");
        Arguments.given(evalStrategy, "evalStrategy");
        Arguments.given(saveStrategy, "saveStrategy");
        check(maxSteps == -1 || maxSteps > 0, "max steps", maxSteps, "at least 1, or -1 for as many as the epochs say");
        check(maxSteps > 0 || epochs > 0 && Double.isFinite(epochs), "epochs", epochs, "more than 0");
        check(batchSize >= 1, "batch size", batchSize, "at least 1");
        check(evalBatchSize >= 0, "eval batch size", evalBatchSize, "0 (as the batch size) or more");
        check(gradientAccumulationSteps >= 1, "gradient accumulation steps", gradientAccumulationSteps, "at least 1");
        check(learningRate > 0 && Double.isFinite(learningRate), "learning rate", learningRate, "more than 0");
        boolean endsAbove0 = schedulerType == SchedulerType.COSINE
                || schedulerType == SchedulerType.POLYNOMIAL
                || schedulerType == SchedulerType.WARMUP_STABLE_DECAY;
        check(
                minLearningRate == 0 || endsAbove0,
                "min learning rate",
                minLearningRate,
                "0 with the scheduler " + schedulerType
                        + "; cosine, polynomial and warmup_stable_decay can end above 0");
        check(
                minLearningRate >= 0 && minLearningRate <= learningRate,
                "min learning rate",
                minLearningRate,
                "between 0 and the learning rate, " + learningRate);
        check(schedulerPower > 0 && Double.isFinite(schedulerPower), "scheduler power", schedulerPower, "more than 0");
        check(
                schedulerCycles > 0 && Double.isFinite(schedulerCycles),
                "scheduler cycles",
                schedulerCycles,
                "more than 0");
        boolean decays = schedulerType == SchedulerType.WARMUP_STABLE_DECAY;
        check(
                decays ? decaySteps >= 1 : decaySteps == 0,
                "decay steps",
                decaySteps,
                decays ? "at least 1 for the scheduler warmup_stable_decay" : "0 with the scheduler " + schedulerType);
        check(timescale >= 0, "timescale", timescale, "0 (as the warm-up) or more");
        check(warmupSteps >= 0, "warmup steps", warmupSteps, "0 or more");
        check(warmupRatio >= 0 && warmupRatio <= 1, "warmup ratio", warmupRatio, "between 0 and 1");
        check(
                loraplusLrRatio > 0 && Double.isFinite(loraplusLrRatio),
                "loraplus lr ratio",
                loraplusLrRatio,
                "more than 0");
        check(weightDecay >= 0 && Double.isFinite(weightDecay), "weight decay", weightDecay, "0 or more");
        check(maxGradNorm >= 0 && Double.isFinite(maxGradNorm), "max grad norm", maxGradNorm, "0 (never clip) or more");
        check(adamBeta1 >= 0 && adamBeta1 < 1, "adam beta1", adamBeta1, "at least 0 and below 1");
        check(adamBeta2 >= 0 && adamBeta2 < 1, "adam beta2", adamBeta2, "at least 0 and below 1");
        check(adamEpsilon > 0 && Double.isFinite(adamEpsilon), "adam epsilon", adamEpsilon, "more than 0");
        check(
                neftuneNoiseAlpha >= 0 && Double.isFinite(neftuneNoiseAlpha),
                "neftune noise alpha",
                neftuneNoiseAlpha,
                "0 (no noise) or more");
        check(!groupByLength || shuffle, "group by length", groupByLength, "false where the data are not shuffled");
        check(maxLength >= 2, "max length", maxLength, "at least 2");
        check(loggingSteps >= 1, "logging steps", loggingSteps, "at least 1");
        check(evalSteps >= 1, "eval steps", evalSteps, "at least 1");
        check(earlyStoppingPatience >= 0, "early stopping patience", earlyStoppingPatience, "0 (never) or more");
        check(
                earlyStoppingThreshold >= 0 && Double.isFinite(earlyStoppingThreshold),
                "early stopping threshold",
                earlyStoppingThreshold,
                "0 or more");
        check(saveSteps >= 1, "save steps", saveSteps, "at least 1");
        check(saveTotalLimit >= 0, "save total limit", saveTotalLimit, "0 (all) or more");
        boolean evaluates = evalStrategy != IntervalStrategy.NO;
        check(
                evaluates || earlyStoppingPatience == 0,
                "eval strategy",
                evalStrategy,
                "steps or epoch for early stopping");
        check(evaluates || !loadBestModelAtEnd, "eval strategy", evalStrategy, "steps or epoch to find the best model");
        check(memoryLimit >= 0, "memory limit", memoryLimit, "0 (what is available) or more");
    }

    private static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    public static TrainingConfig defaults() {
        return builder().build();
    }

    /** With which an adapter was trained; {@code null} when that is not known, or not understood by this version. */
    public static TrainingConfig of(AdapterMetadata metadata) {
        Arguments.given(metadata, "metadata");
        return Json.ofMap(metadata.training(), TrainingConfig.class, defaults());
    }

    public static Builder builder() {
        return new Builder();
    }

    /** A builder that starts from these values. */
    public Builder toBuilder() {
        Builder b = new Builder();
        b.epochs = epochs;
        b.maxSteps = maxSteps;
        b.batchSize = batchSize;
        b.evalBatchSize = evalBatchSize;
        b.gradientAccumulationSteps = gradientAccumulationSteps;
        b.learningRate = learningRate;
        b.schedulerType = schedulerType;
        b.minLearningRate = minLearningRate;
        b.schedulerPower = schedulerPower;
        b.schedulerCycles = schedulerCycles;
        b.decaySteps = decaySteps;
        b.timescale = timescale;
        b.warmupSteps = warmupSteps;
        b.warmupRatio = warmupRatio;
        b.optimizer = optimizer;
        b.loraplusLrRatio = loraplusLrRatio;
        b.weightDecay = weightDecay;
        b.maxGradNorm = maxGradNorm;
        b.adamBeta1 = adamBeta1;
        b.adamBeta2 = adamBeta2;
        b.adamEpsilon = adamEpsilon;
        b.neftuneNoiseAlpha = neftuneNoiseAlpha;
        b.maxLength = maxLength;
        b.loggingSteps = loggingSteps;
        b.evalStrategy = evalStrategy;
        b.evalSteps = evalSteps;
        b.earlyStoppingPatience = earlyStoppingPatience;
        b.earlyStoppingThreshold = earlyStoppingThreshold;
        b.saveStrategy = saveStrategy;
        b.saveSteps = saveSteps;
        b.saveTotalLimit = saveTotalLimit;
        b.loadBestModelAtEnd = loadBestModelAtEnd;
        b.seed = seed;
        b.shuffle = shuffle;
        b.groupByLength = groupByLength;
        b.checkpointing = checkpointing;
        b.memoryLimit = memoryLimit;
        return b;
    }

    /** Every setter's meaning is that of the record's component of the same name. */
    public static final class Builder {
        private double epochs = 3;
        private int maxSteps = -1;
        private int batchSize = 4;
        private int evalBatchSize = 0;
        private int gradientAccumulationSteps = 1;
        private double learningRate = 2e-4;
        private SchedulerType schedulerType = SchedulerType.LINEAR;
        private double minLearningRate = 0;
        private double schedulerPower = 1;
        private double schedulerCycles = 1;
        private int decaySteps = 0;
        private int timescale = 0;
        private int warmupSteps = 0;
        private double warmupRatio = 0;
        private Optimizer optimizer = Optimizer.ADAMW;
        private double loraplusLrRatio = 1;
        private double weightDecay = 0;
        private double maxGradNorm = 1;
        private double adamBeta1 = 0.9;
        private double adamBeta2 = 0.999;
        private double adamEpsilon = 1e-8;
        private double neftuneNoiseAlpha = 0;
        private int maxLength = 1024;
        private int loggingSteps = 10;
        private IntervalStrategy evalStrategy = IntervalStrategy.EPOCH;
        private int evalSteps = 500;
        private int earlyStoppingPatience = 0;
        private double earlyStoppingThreshold = 0;
        private IntervalStrategy saveStrategy = IntervalStrategy.STEPS;
        private int saveSteps = 500;
        private int saveTotalLimit = 3;
        private boolean loadBestModelAtEnd = false;
        private long seed = 42;
        private boolean shuffle = true;
        private boolean groupByLength = false;
        private Checkpointing checkpointing = Checkpointing.AUTO;
        private long memoryLimit = 0;

        private Builder() {}

        public Builder epochs(double value) {
            epochs = value;
            return this;
        }

        public Builder maxSteps(int value) {
            maxSteps = value;
            return this;
        }

        public Builder batchSize(int value) {
            batchSize = value;
            return this;
        }

        public Builder evalBatchSize(int value) {
            evalBatchSize = value;
            return this;
        }

        public Builder gradientAccumulationSteps(int value) {
            gradientAccumulationSteps = value;
            return this;
        }

        public Builder learningRate(double value) {
            learningRate = value;
            return this;
        }

        public Builder schedulerType(SchedulerType value) {
            schedulerType = value;
            return this;
        }

        public Builder minLearningRate(double value) {
            minLearningRate = value;
            return this;
        }

        public Builder schedulerPower(double value) {
            schedulerPower = value;
            return this;
        }

        public Builder schedulerCycles(double value) {
            schedulerCycles = value;
            return this;
        }

        public Builder decaySteps(int value) {
            decaySteps = value;
            return this;
        }

        public Builder timescale(int value) {
            timescale = value;
            return this;
        }

        public Builder warmupSteps(int value) {
            warmupSteps = value;
            return this;
        }

        public Builder warmupRatio(double value) {
            warmupRatio = value;
            return this;
        }

        public Builder optimizer(Optimizer value) {
            optimizer = value;
            return this;
        }

        public Builder loraplusLrRatio(double value) {
            loraplusLrRatio = value;
            return this;
        }

        public Builder weightDecay(double value) {
            weightDecay = value;
            return this;
        }

        public Builder maxGradNorm(double value) {
            maxGradNorm = value;
            return this;
        }

        public Builder adamBeta1(double value) {
            adamBeta1 = value;
            return this;
        }

        public Builder adamBeta2(double value) {
            adamBeta2 = value;
            return this;
        }

        public Builder adamEpsilon(double value) {
            adamEpsilon = value;
            return this;
        }

        public Builder neftuneNoiseAlpha(double value) {
            neftuneNoiseAlpha = value;
            return this;
        }

        public Builder maxLength(int value) {
            maxLength = value;
            return this;
        }

        public Builder loggingSteps(int value) {
            loggingSteps = value;
            return this;
        }

        public Builder evalStrategy(IntervalStrategy value) {
            evalStrategy = value;
            return this;
        }

        /** Also sets {@link IntervalStrategy#STEPS}. */
        public Builder evalSteps(int value) {
            evalSteps = value;
            evalStrategy = IntervalStrategy.STEPS;
            return this;
        }

        public Builder earlyStoppingPatience(int value) {
            earlyStoppingPatience = value;
            return this;
        }

        public Builder earlyStoppingThreshold(double value) {
            earlyStoppingThreshold = value;
            return this;
        }

        public Builder saveStrategy(IntervalStrategy value) {
            saveStrategy = value;
            return this;
        }

        /** Also sets {@link IntervalStrategy#STEPS}. */
        public Builder saveSteps(int value) {
            saveSteps = value;
            saveStrategy = IntervalStrategy.STEPS;
            return this;
        }

        public Builder saveTotalLimit(int value) {
            saveTotalLimit = value;
            return this;
        }

        public Builder loadBestModelAtEnd(boolean value) {
            loadBestModelAtEnd = value;
            return this;
        }

        public Builder seed(long value) {
            seed = value;
            return this;
        }

        public Builder shuffle(boolean value) {
            shuffle = value;
            return this;
        }

        public Builder groupByLength(boolean value) {
            groupByLength = value;
            return this;
        }

        public Builder checkpointing(Checkpointing value) {
            checkpointing = value;
            return this;
        }

        public Builder memoryLimit(long value) {
            memoryLimit = value;
            return this;
        }

        public TrainingConfig build() {
            return new TrainingConfig(
                    epochs,
                    maxSteps,
                    batchSize,
                    evalBatchSize,
                    gradientAccumulationSteps,
                    learningRate,
                    schedulerType,
                    minLearningRate,
                    schedulerPower,
                    schedulerCycles,
                    decaySteps,
                    timescale,
                    warmupSteps,
                    warmupRatio,
                    optimizer,
                    loraplusLrRatio,
                    weightDecay,
                    maxGradNorm,
                    adamBeta1,
                    adamBeta2,
                    adamEpsilon,
                    neftuneNoiseAlpha,
                    maxLength,
                    loggingSteps,
                    evalStrategy,
                    evalSteps,
                    earlyStoppingPatience,
                    earlyStoppingThreshold,
                    saveStrategy,
                    saveSteps,
                    saveTotalLimit,
                    loadBestModelAtEnd,
                    seed,
                    shuffle,
                    groupByLength,
                    checkpointing,
                    memoryLimit);
        }
    }
}
