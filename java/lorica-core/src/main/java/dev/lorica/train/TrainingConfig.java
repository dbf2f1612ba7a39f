package dev.lorica.train;

import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.json.Json;
import java.io.Serializable;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.RecordComponent;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

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
 * @param recomputation             {@code gradient_checkpointing}
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
        Recomputation recomputation,
        long memoryLimit)
        implements Serializable {

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public TrainingConfig {
        Setting.SCHEDULER_TYPE.check(schedulerType);
        Setting.OPTIMIZER.check(optimizer);
        Setting.EVAL_STRATEGY.check(evalStrategy);
        Setting.SAVE_STRATEGY.check(saveStrategy);
        Setting.RECOMPUTATION.check(recomputation);
        Setting.EPOCHS.check(epochs);
        Setting.MAX_STEPS.check(maxSteps);
        Setting.BATCH_SIZE.check(batchSize);
        Setting.EVAL_BATCH_SIZE.check(evalBatchSize);
        Setting.GRADIENT_ACCUMULATION_STEPS.check(gradientAccumulationSteps);
        Setting.LEARNING_RATE.check(learningRate);
        Setting.MIN_LEARNING_RATE.check(minLearningRate);
        Setting.SCHEDULER_POWER.check(schedulerPower);
        Setting.SCHEDULER_CYCLES.check(schedulerCycles);
        Setting.DECAY_STEPS.check(decaySteps);
        Setting.TIMESCALE.check(timescale);
        Setting.WARMUP_STEPS.check(warmupSteps);
        Setting.WARMUP_RATIO.check(warmupRatio);
        Setting.LORAPLUS_LR_RATIO.check(loraplusLrRatio);
        Setting.WEIGHT_DECAY.check(weightDecay);
        Setting.MAX_GRAD_NORM.check(maxGradNorm);
        Setting.ADAM_BETA1.check(adamBeta1);
        Setting.ADAM_BETA2.check(adamBeta2);
        Setting.ADAM_EPSILON.check(adamEpsilon);
        Setting.NEFTUNE_NOISE_ALPHA.check(neftuneNoiseAlpha);
        Setting.MAX_LENGTH.check(maxLength);
        Setting.LOGGING_STEPS.check(loggingSteps);
        Setting.EVAL_STEPS.check(evalSteps);
        Setting.EARLY_STOPPING_PATIENCE.check(earlyStoppingPatience);
        Setting.EARLY_STOPPING_THRESHOLD.check(earlyStoppingThreshold);
        Setting.SAVE_STEPS.check(saveSteps);
        Setting.SAVE_TOTAL_LIMIT.check(saveTotalLimit);
        Setting.LOAD_BEST_MODEL_AT_END.check(loadBestModelAtEnd);
        Setting.SEED.check(seed);
        Setting.SHUFFLE.check(shuffle);
        Setting.GROUP_BY_LENGTH.check(groupByLength);
        Setting.MEMORY_LIMIT.check(memoryLimit);
        check(maxSteps > 0 || epochs > 0 && Double.isFinite(epochs), "epochs", epochs, "more than 0");
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
        boolean decays = schedulerType == SchedulerType.WARMUP_STABLE_DECAY;
        check(
                decays ? decaySteps >= 1 : decaySteps == 0,
                "decay steps",
                decaySteps,
                decays ? "at least 1 for the scheduler warmup_stable_decay" : "0 with the scheduler " + schedulerType);
        check(!groupByLength || shuffle, "group by length", groupByLength, "false where the data are not shuffled");
        boolean evaluates = evalStrategy != IntervalStrategy.NO;
        check(
                evaluates || earlyStoppingPatience == 0,
                "eval strategy",
                evalStrategy,
                "steps or epoch for early stopping");
        check(evaluates || !loadBestModelAtEnd, "eval strategy", evalStrategy, "steps or epoch to find the best model");
    }

    private static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    /** {@return the settings that {@code lorica train} has by itself} */
    public static TrainingConfig defaults() {
        return builder().build();
    }

    /**
     * {@return the settings with which an adapter was trained; {@code null} when that is not known, or not understood by this version}
     *
     * @param metadata of the adapter
     */
    public static TrainingConfig of(AdapterMetadata metadata) {
        Arguments.given(metadata, "metadata");
        return Json.ofMap(metadata.training(), TrainingConfig.class, defaults());
    }

    /** {@return a builder that begins with {@link #defaults}} */
    public static Builder builder() {
        return new Builder();
    }

    /** {@return a builder that starts from these values} */
    public Builder toBuilder() {
        Builder builder = new Builder();
        for (RecordComponent component : TrainingConfig.class.getRecordComponents()) {
            try {
                builder.values.put(component.getName(), component.getAccessor().invoke(this));
            } catch (ReflectiveOperationException e) {
                throw new IllegalStateException(e);
            }
        }
        return builder;
    }

    /** Every setter's meaning is that of the record's component of the same name; what is not set is as {@link Setting} says. */
    public static final class Builder {
        private final Map<String, Object> values = new HashMap<>();

        private Builder() {
            for (Setting setting : Setting.values()) {
                values.put(setting.component(), setting.initial());
            }
        }

        /**
         * Sets one of the settings by its entry in the list of all.
         *
         * @param setting which
         * @param value   of the setting's {@link Setting#type()}
         * @return this builder
         * @throws InvalidArgumentException for a value of another type
         */
        public Builder set(Setting setting, Object value) {
            Arguments.given(setting, "setting");
            if (value == null || value.getClass() != setting.initial().getClass()) {
                throw new InvalidArgumentException(
                        setting.component() + " is " + value + "; a value such as " + setting.initial() + " is meant");
            }
            values.put(setting.component(), value);
            return this;
        }

        /**
         * Sets {@link TrainingConfig#epochs()}.
         *
         * @param value as {@link TrainingConfig#epochs()} says
         * @return this builder
         */
        public Builder epochs(double value) {
            return with("epochs", value);
        }

        /**
         * Sets {@link TrainingConfig#maxSteps()}.
         *
         * @param value as {@link TrainingConfig#maxSteps()} says
         * @return this builder
         */
        public Builder maxSteps(int value) {
            return with("maxSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#batchSize()}.
         *
         * @param value as {@link TrainingConfig#batchSize()} says
         * @return this builder
         */
        public Builder batchSize(int value) {
            return with("batchSize", value);
        }

        /**
         * Sets {@link TrainingConfig#evalBatchSize()}.
         *
         * @param value as {@link TrainingConfig#evalBatchSize()} says
         * @return this builder
         */
        public Builder evalBatchSize(int value) {
            return with("evalBatchSize", value);
        }

        /**
         * Sets {@link TrainingConfig#gradientAccumulationSteps()}.
         *
         * @param value as {@link TrainingConfig#gradientAccumulationSteps()} says
         * @return this builder
         */
        public Builder gradientAccumulationSteps(int value) {
            return with("gradientAccumulationSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#learningRate()}.
         *
         * @param value as {@link TrainingConfig#learningRate()} says
         * @return this builder
         */
        public Builder learningRate(double value) {
            return with("learningRate", value);
        }

        /**
         * Sets {@link TrainingConfig#schedulerType()}.
         *
         * @param value as {@link TrainingConfig#schedulerType()} says
         * @return this builder
         */
        public Builder schedulerType(SchedulerType value) {
            return with("schedulerType", value);
        }

        /**
         * Sets {@link TrainingConfig#minLearningRate()}.
         *
         * @param value as {@link TrainingConfig#minLearningRate()} says
         * @return this builder
         */
        public Builder minLearningRate(double value) {
            return with("minLearningRate", value);
        }

        /**
         * Sets {@link TrainingConfig#schedulerPower()}.
         *
         * @param value as {@link TrainingConfig#schedulerPower()} says
         * @return this builder
         */
        public Builder schedulerPower(double value) {
            return with("schedulerPower", value);
        }

        /**
         * Sets {@link TrainingConfig#schedulerCycles()}.
         *
         * @param value as {@link TrainingConfig#schedulerCycles()} says
         * @return this builder
         */
        public Builder schedulerCycles(double value) {
            return with("schedulerCycles", value);
        }

        /**
         * Sets {@link TrainingConfig#decaySteps()}.
         *
         * @param value as {@link TrainingConfig#decaySteps()} says
         * @return this builder
         */
        public Builder decaySteps(int value) {
            return with("decaySteps", value);
        }

        /**
         * Sets {@link TrainingConfig#timescale()}.
         *
         * @param value as {@link TrainingConfig#timescale()} says
         * @return this builder
         */
        public Builder timescale(int value) {
            return with("timescale", value);
        }

        /**
         * Sets {@link TrainingConfig#warmupSteps()}.
         *
         * @param value as {@link TrainingConfig#warmupSteps()} says
         * @return this builder
         */
        public Builder warmupSteps(int value) {
            return with("warmupSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#warmupRatio()}.
         *
         * @param value as {@link TrainingConfig#warmupRatio()} says
         * @return this builder
         */
        public Builder warmupRatio(double value) {
            return with("warmupRatio", value);
        }

        /**
         * Sets {@link TrainingConfig#optimizer()}.
         *
         * @param value as {@link TrainingConfig#optimizer()} says
         * @return this builder
         */
        public Builder optimizer(Optimizer value) {
            return with("optimizer", value);
        }

        /**
         * Sets {@link TrainingConfig#loraplusLrRatio()}.
         *
         * @param value as {@link TrainingConfig#loraplusLrRatio()} says
         * @return this builder
         */
        public Builder loraplusLrRatio(double value) {
            return with("loraplusLrRatio", value);
        }

        /**
         * Sets {@link TrainingConfig#weightDecay()}.
         *
         * @param value as {@link TrainingConfig#weightDecay()} says
         * @return this builder
         */
        public Builder weightDecay(double value) {
            return with("weightDecay", value);
        }

        /**
         * Sets {@link TrainingConfig#maxGradNorm()}.
         *
         * @param value as {@link TrainingConfig#maxGradNorm()} says
         * @return this builder
         */
        public Builder maxGradNorm(double value) {
            return with("maxGradNorm", value);
        }

        /**
         * Sets {@link TrainingConfig#adamBeta1()}.
         *
         * @param value as {@link TrainingConfig#adamBeta1()} says
         * @return this builder
         */
        public Builder adamBeta1(double value) {
            return with("adamBeta1", value);
        }

        /**
         * Sets {@link TrainingConfig#adamBeta2()}.
         *
         * @param value as {@link TrainingConfig#adamBeta2()} says
         * @return this builder
         */
        public Builder adamBeta2(double value) {
            return with("adamBeta2", value);
        }

        /**
         * Sets {@link TrainingConfig#adamEpsilon()}.
         *
         * @param value as {@link TrainingConfig#adamEpsilon()} says
         * @return this builder
         */
        public Builder adamEpsilon(double value) {
            return with("adamEpsilon", value);
        }

        /**
         * Sets {@link TrainingConfig#neftuneNoiseAlpha()}.
         *
         * @param value as {@link TrainingConfig#neftuneNoiseAlpha()} says
         * @return this builder
         */
        public Builder neftuneNoiseAlpha(double value) {
            return with("neftuneNoiseAlpha", value);
        }

        /**
         * Sets {@link TrainingConfig#maxLength()}.
         *
         * @param value as {@link TrainingConfig#maxLength()} says
         * @return this builder
         */
        public Builder maxLength(int value) {
            return with("maxLength", value);
        }

        /**
         * Sets {@link TrainingConfig#loggingSteps()}.
         *
         * @param value as {@link TrainingConfig#loggingSteps()} says
         * @return this builder
         */
        public Builder loggingSteps(int value) {
            return with("loggingSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#evalStrategy()}.
         *
         * @param value as {@link TrainingConfig#evalStrategy()} says
         * @return this builder
         */
        public Builder evalStrategy(IntervalStrategy value) {
            return with("evalStrategy", value);
        }

        /**
         * Also sets {@link IntervalStrategy#STEPS}.
         *
         * @param value as {@link TrainingConfig#evalSteps()} says
         * @return this builder
         */
        public Builder evalSteps(int value) {
            return with("evalStrategy", IntervalStrategy.STEPS).with("evalSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#earlyStoppingPatience()}.
         *
         * @param value as {@link TrainingConfig#earlyStoppingPatience()} says
         * @return this builder
         */
        public Builder earlyStoppingPatience(int value) {
            return with("earlyStoppingPatience", value);
        }

        /**
         * Sets {@link TrainingConfig#earlyStoppingThreshold()}.
         *
         * @param value as {@link TrainingConfig#earlyStoppingThreshold()} says
         * @return this builder
         */
        public Builder earlyStoppingThreshold(double value) {
            return with("earlyStoppingThreshold", value);
        }

        /**
         * Sets {@link TrainingConfig#saveStrategy()}.
         *
         * @param value as {@link TrainingConfig#saveStrategy()} says
         * @return this builder
         */
        public Builder saveStrategy(IntervalStrategy value) {
            return with("saveStrategy", value);
        }

        /**
         * Also sets {@link IntervalStrategy#STEPS}.
         *
         * @param value as {@link TrainingConfig#saveSteps()} says
         * @return this builder
         */
        public Builder saveSteps(int value) {
            return with("saveStrategy", IntervalStrategy.STEPS).with("saveSteps", value);
        }

        /**
         * Sets {@link TrainingConfig#saveTotalLimit()}.
         *
         * @param value as {@link TrainingConfig#saveTotalLimit()} says
         * @return this builder
         */
        public Builder saveTotalLimit(int value) {
            return with("saveTotalLimit", value);
        }

        /**
         * Sets {@link TrainingConfig#loadBestModelAtEnd()}.
         *
         * @param value as {@link TrainingConfig#loadBestModelAtEnd()} says
         * @return this builder
         */
        public Builder loadBestModelAtEnd(boolean value) {
            return with("loadBestModelAtEnd", value);
        }

        /**
         * Sets {@link TrainingConfig#seed()}.
         *
         * @param value as {@link TrainingConfig#seed()} says
         * @return this builder
         */
        public Builder seed(long value) {
            return with("seed", value);
        }

        /**
         * Sets {@link TrainingConfig#shuffle()}.
         *
         * @param value as {@link TrainingConfig#shuffle()} says
         * @return this builder
         */
        public Builder shuffle(boolean value) {
            return with("shuffle", value);
        }

        /**
         * Sets {@link TrainingConfig#groupByLength()}.
         *
         * @param value as {@link TrainingConfig#groupByLength()} says
         * @return this builder
         */
        public Builder groupByLength(boolean value) {
            return with("groupByLength", value);
        }

        /**
         * Sets {@link TrainingConfig#recomputation()}.
         *
         * @param value as {@link TrainingConfig#recomputation()} says
         * @return this builder
         */
        public Builder recomputation(Recomputation value) {
            return with("recomputation", value);
        }

        /**
         * Sets {@link TrainingConfig#memoryLimit()}.
         *
         * @param value as {@link TrainingConfig#memoryLimit()} says
         * @return this builder
         */
        public Builder memoryLimit(long value) {
            return with("memoryLimit", value);
        }

        private Builder with(String component, Object value) {
            values.put(component, value);
            return this;
        }

        /**
         * {@return the settings}
         *
         * @throws InvalidArgumentException naming the one that is wrong
         */
        public TrainingConfig build() {
            RecordComponent[] components = TrainingConfig.class.getRecordComponents();
            Class<?>[] types =
                    Arrays.stream(components).map(RecordComponent::getType).toArray(Class<?>[]::new);
            Object[] all = Arrays.stream(components)
                    .map(component -> values.get(component.getName()))
                    .toArray();
            try {
                return TrainingConfig.class.getDeclaredConstructor(types).newInstance(all);
            } catch (InvocationTargetException e) {
                throw (RuntimeException) e.getCause(); // what a check found wrong
            } catch (ReflectiveOperationException e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
