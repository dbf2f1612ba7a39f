package dev.lorica.train;

import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.Objective.ImportanceSampling;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Group relative policy optimization, as TRL's GRPOTrainer has it. Its batches are answers that {@link Rollouts} has drawn, each with
 * its advantage as its number.
 *
 * @param config  how answers are drawn and compared
 * @param rewards what judges them; none where they are not judged
 */
record Grpo(GrpoConfig config, List<RewardFunction> rewards) implements Objective {
    /** TRL's defaults. */
    private static final double SAPO_TEMPERATURE_POS = 1.0;

    private static final double SAPO_TEMPERATURE_NEG = 1.05;

    Grpo {
        if (rewards.stream().map(RewardFunction::name).distinct().count() < rewards.size()) {
            throw new InvalidArgumentException("two rewards have the same name; their metrics could not be told apart");
        }
    }

    /** For those that draw answers and compute gradients. What judges may be a program or a model here, and stays here. */
    Grpo withoutRewards() {
        return new Grpo(config, List.of());
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
            settings.put("use_bias_correction_kl", config.useBiasCorrectionKl());
        }
        if (config.importanceSamplingLevel() != ImportanceSampling.TOKEN) {
            settings.put("importance_sampling_level", Settings.word(config.importanceSamplingLevel()));
        }
        if (config.numIterations() > 1) {
            settings.put("num_iterations", config.numIterations());
            settings.put("epsilon", config.epsilon());
            settings.put("epsilon_high", config.epsilonHigh());
            if (config.delta() > 0) {
                settings.put("delta", config.delta());
            }
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
            case DAPO, CISPO -> result.loss(terms.loss, trained);
            case GRPO, DR_GRPO, SAPO, LUSPO ->
                result.loss(terms.loss, batch.sequences().size());
        }
        terms.log(trained);
    }

    /**
     * What a token adds to the loss, where its probability is {@code ratio} times that with which it was drawn.
     *
     * @param loss    of it
     * @param ofRatio derivative by log of the ratio
     * @param direct  derivative by log p beside that
     * @param low     whether it is not pushed further down
     * @param high    whether it is not pushed further up
     */
    private record Term(double loss, double ofRatio, double direct, boolean low, boolean high) {}

    private Term term(double ratio, double advantage, double logProb) {
        return switch (config.lossType()) {
            case CISPO -> {
                double bound = Math.min(ratio, config.epsilonHigh());
                boolean high = advantage > 0 && ratio > config.epsilonHigh();
                yield new Term(-bound * advantage * logProb, 0, -bound * advantage, false, high);
            }
            case SAPO -> {
                double temperature = advantage > 0 ? SAPO_TEMPERATURE_POS : SAPO_TEMPERATURE_NEG;
                double gate = Logistic.sigmoid(temperature * (ratio - 1));
                yield new Term(
                        -gate * 4 / temperature * advantage,
                        -4 * gate * (1 - gate) * ratio * advantage,
                        0,
                        false,
                        false);
            }
            case GRPO, BNPO, DR_GRPO, DAPO, LUSPO -> {
                boolean isCut = config.delta() > 0 && ratio > config.delta();
                double cut = isCut ? config.delta() : ratio;
                double bound = Math.max(1 - config.epsilon(), Math.min(1 + config.epsilonHigh(), ratio));
                boolean within = bound == ratio;
                boolean first = cut * advantage <= bound * advantage;
                double slope = (first ? !isCut : within) ? -ratio * advantage : 0;
                yield new Term(
                        -Math.min(cut * advantage, bound * advantage),
                        slope,
                        0,
                        advantage < 0 && cut < 1 - config.epsilon(),
                        advantage > 0 && cut > 1 + config.epsilonHigh());
            }
        };
    }

    /** Losses of tokens, added up. */
    private final class Terms {
        private final ObjectiveResult result;
        private final int tokens;
        private final boolean bySequence = config.importanceSamplingLevel() == ImportanceSampling.SEQUENCE;
        private double loss;
        private double kl;
        private double low;
        private double high;
        private double clippable;
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
                case GRPO, SAPO -> 1.0 / Math.max(1, sequence.length());
                case BNPO -> 1.0 / tokens;
                case DR_GRPO -> 1.0 / config.maxCompletionLength();
                case DAPO, CISPO, LUSPO -> 1;
            };
        }

        void add(ScoredSequence sequence) {
            int n = sequence.length();
            double weight = weight(sequence);
            double mean = 0;
            for (int i = 0; i < n; i++) {
                mean += (sequence.logProb(i) - sequence.oldLogProb(i)) / n;
            }
            double ofMean = 0;
            int lowHere = 0;
            int highHere = 0;
            for (int i = 0; i < n; i++) {
                double ratio = Math.exp(bySequence ? mean : sequence.logProb(i) - sequence.oldLogProb(i));
                Term term = term(ratio, sequence.value(), sequence.logProb(i));
                double one = term.loss;
                double ofRatio = term.ofRatio;
                double direct = term.direct;
                if (config.beta() > 0) {
                    double gap = sequence.referenceLogProb(i) - sequence.logProb(i);
                    double factor = config.useBiasCorrectionKl() ? ratio : 1;
                    double divergence = factor * (Math.expm1(gap) - gap);
                    kl += divergence;
                    one += config.beta() * divergence;
                    direct -= config.beta() * factor * Math.expm1(gap);
                    ofRatio += config.useBiasCorrectionKl() ? config.beta() * divergence : 0;
                }
                loss += weight * one;
                ofMean += ofRatio;
                result.gradient(sequence, i, weight * (bySequence ? direct : direct + ofRatio));
                lowHere += term.low ? 1 : 0;
                highHere += term.high ? 1 : 0;
            }
            if (bySequence && n > 0) {
                result.gradient(sequence, weight * ofMean / n);
            }
            count(n, lowHere, highHere);
        }

        /** Of answers by their sequences each counts once, and those of which nothing is learned too. */
        private void count(int n, int lowHere, int highHere) {
            double unit = bySequence ? Math.max(1, n) : 1;
            low += lowHere / unit;
            high += highHere / unit;
            clippable += bySequence ? 1 : n;
            if (n > 0) {
                lowMin = Math.min(lowMin, (double) lowHere / n);
                highMax = Math.max(highMax, (double) highHere / n);
            } else if (bySequence) {
                lowMin = 0;
            }
        }

        void log(int trained) {
            if (trained == 0) {
                return;
            }
            if (config.beta() > 0) {
                result.metric("kl", kl / trained);
            }
            switch (config.lossType()) {
                case SAPO -> {}
                case CISPO -> result.metric("cispo_clip_ratio", high / clippable);
                default -> {
                    result.metric("clip_ratio/low_mean", low / clippable);
                    result.metric("clip_ratio/low_min", lowMin);
                    result.metric("clip_ratio/high_mean", high / clippable);
                    result.metric("clip_ratio/high_max", highMax);
                    result.metric("clip_ratio/region_mean", (low + high) / clippable);
                }
            }
        }
    }
}
