package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.train.Objective.GrpoLoss;
import dev.lorica.train.Objective.ImportanceSampling;
import dev.lorica.train.Objective.RewardScale;
import java.io.Serializable;

/**
 * How a model learns from rewards for its own answers. Names, meanings and defaults are those of TRL's {@code GRPOConfig}. Answers are
 * drawn at temperature 1 from all tokens.
 *
 * @param numGenerations           {@code num_generations}: answers that are drawn to each prompt, which are compared with each other (8)
 * @param maxCompletionLength      {@code max_completion_length}: the most tokens of an answer (512)
 * @param beta                     {@code beta}: how much the model is held to the reference (0: not at all, and no reference is asked)
 * @param epsilon                  {@code epsilon}: from 1 − epsilon on a token that became less likely is not pushed further (0.2)
 * @param epsilonHigh              {@code epsilon_high}: the same for 1 + epsilonHigh, of one that became likelier (as {@code epsilon})
 * @param numIterations            {@code num_iterations}: steps that are taken with the same answers (1; with 1 nothing is ever clipped)
 * @param lossType                 {@code loss_type} ({@link GrpoLoss#DAPO})
 * @param scaleRewards             {@code scale_rewards} ({@link RewardScale#GROUP})
 * @param delta                    {@code delta}: the most that the ratio may be where answers are worse than others (0: no such bound)
 * @param importanceSamplingLevel  {@code importance_sampling_level} ({@link ImportanceSampling#TOKEN})
 * @param useBiasCorrectionKl      {@code use_bias_correction_kl}: whether what holds the model to the reference is weighted by the ratio
 *                                 too (true)
 * @param maskTruncatedCompletions {@code mask_truncated_completions}: whether nothing is learned from answers that did not end (false)
 */
public record GrpoConfig(
        int numGenerations,
        int maxCompletionLength,
        double beta,
        double epsilon,
        double epsilonHigh,
        int numIterations,
        GrpoLoss lossType,
        RewardScale scaleRewards,
        boolean maskTruncatedCompletions,
        double delta,
        ImportanceSampling importanceSamplingLevel,
        boolean useBiasCorrectionKl)
        implements Serializable {

    /**
     * Checks the components.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException naming the one that is wrong
     */
    public GrpoConfig {
        Arguments.given(lossType, "lossType");
        Arguments.given(scaleRewards, "scaleRewards");
        Arguments.given(importanceSamplingLevel, "importanceSamplingLevel");
        ObjectiveSetting.NUM_GENERATIONS.check(numGenerations);
        ObjectiveSetting.MAX_COMPLETION_LENGTH.check(maxCompletionLength);
        ObjectiveSetting.NUM_ITERATIONS.check(numIterations);
        Range.ZERO_OR_MORE.check("beta", beta);
        ObjectiveSetting.EPSILON.check(epsilon);
        ObjectiveSetting.EPSILON_HIGH.check(epsilonHigh);
        ObjectiveSetting.DELTA.check(delta);
        if (delta > 0 && delta <= 1 + epsilonHigh) {
            throw new InvalidArgumentException("delta is " + delta
                    + "; it must be more than 1 + epsilon high, which is " + (1 + epsilonHigh) + ", or 0");
        }
    }

    @SuppressWarnings("unchecked")
    private static <T> T initial(ObjectiveSetting setting) {
        return (T) setting.initial("grpo");
    }

    /** {@return TRL's defaults} */
    public static GrpoConfig defaults() {
        return builder().build();
    }

    /** {@return a builder that begins with {@link #defaults}} */
    public static Builder builder() {
        return new Builder();
    }

    /** Every setter's meaning is that of the record's component of the same name. */
    public static final class Builder {
        private int numGenerations = initial(ObjectiveSetting.NUM_GENERATIONS);
        private int maxCompletionLength = initial(ObjectiveSetting.MAX_COMPLETION_LENGTH);
        private double beta = initial(ObjectiveSetting.BETA);
        private double epsilon = initial(ObjectiveSetting.EPSILON);
        private Double epsilonHigh;
        private int numIterations = initial(ObjectiveSetting.NUM_ITERATIONS);
        private GrpoLoss lossType = initial(ObjectiveSetting.LOSS_TYPE);
        private RewardScale scaleRewards = initial(ObjectiveSetting.SCALE_REWARDS);
        private boolean maskTruncatedCompletions = initial(ObjectiveSetting.MASK_TRUNCATED_COMPLETIONS);
        private double delta = initial(ObjectiveSetting.DELTA);
        private ImportanceSampling importanceSamplingLevel = initial(ObjectiveSetting.IMPORTANCE_SAMPLING_LEVEL);
        private boolean useBiasCorrectionKl = true;

        private Builder() {}

        /**
         * Sets {@link GrpoConfig#numGenerations()}.
         *
         * @param value as {@link GrpoConfig#numGenerations()} says
         * @return this builder
         */
        public Builder numGenerations(int value) {
            numGenerations = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#maxCompletionLength()}.
         *
         * @param value as {@link GrpoConfig#maxCompletionLength()} says
         * @return this builder
         */
        public Builder maxCompletionLength(int value) {
            maxCompletionLength = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#beta()}.
         *
         * @param value as {@link GrpoConfig#beta()} says
         * @return this builder
         */
        public Builder beta(double value) {
            beta = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#epsilon()}.
         *
         * @param value as {@link GrpoConfig#epsilon()} says
         * @return this builder
         */
        public Builder epsilon(double value) {
            epsilon = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#epsilonHigh()}.
         *
         * @param value as {@link GrpoConfig#epsilonHigh()} says
         * @return this builder
         */
        public Builder epsilonHigh(double value) {
            epsilonHigh = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#numIterations()}.
         *
         * @param value as {@link GrpoConfig#numIterations()} says
         * @return this builder
         */
        public Builder numIterations(int value) {
            numIterations = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#lossType()}.
         *
         * @param value as {@link GrpoConfig#lossType()} says
         * @return this builder
         */
        public Builder lossType(GrpoLoss value) {
            lossType = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#scaleRewards()}.
         *
         * @param value as {@link GrpoConfig#scaleRewards()} says
         * @return this builder
         */
        public Builder scaleRewards(RewardScale value) {
            scaleRewards = value;
            return this;
        }

        /**
         * Sets {@link GrpoConfig#maskTruncatedCompletions()}.
         *
         * @param value as {@link GrpoConfig#maskTruncatedCompletions()} says
         * @return this builder
         */
        public Builder maskTruncatedCompletions(boolean value) {
            maskTruncatedCompletions = value;
            return this;
        }

        /**
         * Sets {@code delta}.
         *
         * @param value as {@link GrpoConfig#delta()} says
         * @return this builder
         */
        public Builder delta(double value) {
            delta = value;
            return this;
        }

        /**
         * Sets {@code importance_sampling_level}.
         *
         * @param value as {@link GrpoConfig#importanceSamplingLevel()} says
         * @return this builder
         */
        public Builder importanceSamplingLevel(ImportanceSampling value) {
            importanceSamplingLevel = value;
            return this;
        }

        /**
         * Sets {@code use_bias_correction_kl}.
         *
         * @param value as {@link GrpoConfig#useBiasCorrectionKl()} says
         * @return this builder
         */
        public Builder useBiasCorrectionKl(boolean value) {
            useBiasCorrectionKl = value;
            return this;
        }

        /**
         * {@return the settings}
         *
         * @throws dev.lorica.exceptions.InvalidArgumentException naming the one that is wrong
         */
        public GrpoConfig build() {
            return new GrpoConfig(
                    numGenerations,
                    maxCompletionLength,
                    beta,
                    epsilon,
                    epsilonHigh == null ? epsilon : epsilonHigh,
                    numIterations,
                    lossType,
                    scaleRewards,
                    maskTruncatedCompletions,
                    delta,
                    importanceSamplingLevel,
                    useBiasCorrectionKl);
        }
    }
}
