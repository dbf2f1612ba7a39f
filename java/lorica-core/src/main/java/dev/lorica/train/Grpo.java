package dev.lorica.train;

import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Group relative policy optimization, as TRL's GRPOTrainer has it. Its batches are answers that {@link Rollouts} has drawn, each with
 * its advantage as its number.
 */
record Grpo(GrpoConfig config, List<RewardFunction> rewards) implements Objective {
    Grpo {
        if (rewards.isEmpty()) {
            throw new InvalidArgumentException("rewards are none; grpo needs something that judges answers");
        }
        if (rewards.stream().map(RewardFunction::name).distinct().count() < rewards.size()) {
            throw new InvalidArgumentException("two rewards have the same name; their metrics could not be told apart");
        }
    }

    @Override
    public String name() {
        return "grpo";
    }

    @Override
    public RecordKind records() {
        return RecordKind.PROMPTS;
    }

    @Override
    public boolean usesReference() {
        return config.beta() > 0;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("num_generations", config.numGenerations());
        settings.put("max_completion_length", config.maxCompletionLength());
        settings.put("loss_type", Settings.word(config.lossType()));
        settings.put("scale_rewards", Settings.word(config.scaleRewards()));
        if (config.beta() > 0) {
            settings.put("beta", config.beta());
        }
        if (config.numIterations() > 1) {
            settings.put("num_iterations", config.numIterations());
            settings.put("epsilon", config.epsilon());
            settings.put("epsilon_high", config.epsilonHigh());
        }
        if (config.maskTruncatedCompletions()) {
            settings.put("mask_truncated_completions", true);
        }
        for (RewardFunction reward : rewards) {
            settings.put("reward " + reward.name(), reward.weight());
        }
        return settings;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        Terms terms = new Terms(batch, result);
        int trained = 0;
        for (ScoredSequence sequence : batch.sequences()) {
            terms.add(sequence);
            trained += sequence.length();
        }
        switch (config.lossType()) {
            case BNPO -> result.loss(terms.loss, 1);
            case DAPO -> result.loss(terms.loss, trained);
            case GRPO, DR_GRPO -> result.loss(terms.loss, batch.sequences().size());
        }
        terms.log(trained);
    }

    /** Losses of tokens, added up. */
    private final class Terms {
        private final ObjectiveResult result;
        private final int tokens;
        private double loss;
        private double kl;
        private double low;
        private double high;
        private double lowMin = 1;
        private double highMax;

        Terms(ScoredBatch batch, ObjectiveResult result) {
            this.result = result;
            tokens = Math.max(
                    1,
                    batch.sequences().stream().mapToInt(ScoredSequence::length).sum());
        }

        private double weight(ScoredSequence sequence) {
            return switch (config.lossType()) {
                case GRPO -> 1.0 / Math.max(1, sequence.length());
                case BNPO -> 1.0 / tokens;
                case DR_GRPO -> 1.0 / config.maxCompletionLength();
                case DAPO -> 1;
            };
        }

        void add(ScoredSequence sequence) {
            double advantage = sequence.value();
            double weight = weight(sequence);
            int lowHere = 0;
            int highHere = 0;
            for (int i = 0; i < sequence.length(); i++) {
                double ratio = Math.exp(sequence.logProb(i) - sequence.oldLogProb(i));
                boolean tooLow = advantage < 0 && ratio < 1 - config.epsilon();
                boolean tooHigh = advantage > 0 && ratio > 1 + config.epsilonHigh();
                double bound = tooLow ? 1 - config.epsilon() : tooHigh ? 1 + config.epsilonHigh() : ratio;
                double slope = tooLow || tooHigh ? 0 : -ratio * advantage;
                double one = -bound * advantage;
                if (config.beta() > 0) {
                    double gap = sequence.referenceLogProb(i) - sequence.logProb(i);
                    double divergence = Math.expm1(gap) - gap;
                    kl += divergence;
                    one += config.beta() * divergence;
                    slope -= config.beta() * Math.expm1(gap);
                }
                loss += weight * one;
                result.gradient(sequence, i, weight * slope);
                lowHere += tooLow ? 1 : 0;
                highHere += tooHigh ? 1 : 0;
            }
            low += lowHere;
            high += highHere;
            if (sequence.length() > 0) {
                lowMin = Math.min(lowMin, (double) lowHere / sequence.length());
                highMax = Math.max(highMax, (double) highHere / sequence.length());
            }
        }

        void log(int trained) {
            if (trained == 0) {
                return;
            }
            if (config.beta() > 0) {
                result.metric("kl", kl / trained);
            }
            result.metric("clip_ratio/low_mean", low / trained);
            result.metric("clip_ratio/low_min", lowMin);
            result.metric("clip_ratio/high_mean", high / trained);
            result.metric("clip_ratio/high_max", highMax);
            result.metric("clip_ratio/region_mean", (low + high) / trained);
        }
    }
}
