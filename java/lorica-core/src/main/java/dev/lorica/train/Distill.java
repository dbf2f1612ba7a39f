package dev.lorica.train;

import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Knowledge distillation by the generalized Jensen-Shannon divergence (Agarwal et al. 2024, On-Policy Distillation of Language Models,
 * equation 1), as TRL's GKDTrainer has it, on answers that are given. With q of the teacher and p of the model, m = βq + (1−β)p and
 * sums over the vocabulary it is Σ q log(q/p) for β 0, Σ p log(p/q) for β 1, and β Σ q log(q/m) + (1−β) Σ p log(p/m) between.
 *
 * <p>Where the teacher says only what is likeliest, all other tokens count as one, which has the rest of the probability, as in TRL's
 * ServerDistillationTrainer. That is less than the divergence of the whole, never more, and its gradient is exact.
 *
 * @param beta from 0 to 1, of the equation
 */
record Distill(double beta) implements Objective {
    private static final long serialVersionUID = 1L;

    /** The most that log of a sum of probabilities may be, so that something is left; TRL's. */
    private static final double MOST_LOG_SUM = -1e-7;

    Distill {
        if (!(beta >= 0 && beta <= 1)) {
            throw new InvalidArgumentException("beta is " + beta + "; with distill it must lie between 0 (the forward"
                    + " divergence) and 1 (the reverse one)");
        }
    }

    @Override
    public String name() {
        return "distill";
    }

    @Override
    public RecordKind records() {
        return RecordKind.ANSWERS;
    }

    @Override
    public boolean usesTeacher() {
        return true;
    }

    @Override
    public boolean usesWeights() {
        return true;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("beta", beta);
        return settings;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        for (ScoredSequence sequence : batch.sequences()) {
            Position position = new Position(sequence);
            for (int i = 0; i < sequence.length(); i++) {
                position.score(i, result);
            }
        }
    }

    /** One position after another. */
    private final class Position {
        private final ScoredSequence sequence;
        private final int n;
        private final double[] model;
        private final double[] teacher;

        Position(ScoredSequence sequence) {
            this.sequence = sequence;
            n = sequence.candidates();
            model = new double[n];
            teacher = new double[n];
        }

        void score(int i, ObjectiveResult result) {
            double ofModel = 0;
            double ofTeacher = 0;
            int best = 0;
            int bestOfTeacher = 0;
            for (int k = 0; k < n; k++) {
                model[k] = sequence.candidateLogProb(i, k);
                teacher[k] = sequence.teacherLogProb(i, k);
                ofModel += Math.exp(model[k]);
                ofTeacher += Math.exp(teacher[k]);
                best = model[k] > model[best] ? k : best;
                bestOfTeacher = teacher[k] > teacher[bestOfTeacher] ? k : bestOfTeacher;
            }
            double weight = sequence.weight(i);
            double loss = 0;
            for (int k = 0; k < n; k++) {
                loss += loss(model[k], teacher[k]);
            }
            double rest = 0;
            if (!sequence.candidatesAreAll()) {
                double logSum = Math.log(ofModel);
                double logRest = rest(logSum);
                double logRestOfTeacher = rest(Math.log(ofTeacher));
                loss += loss(logRest, logRestOfTeacher);
                // d log(1 − Σp) / d log p = −p / (1 − Σp)
                rest = logSum <= MOST_LOG_SUM ? -slope(logRest, logRestOfTeacher) / -Math.expm1(logSum) : 0;
            }
            for (int k = 0; k < n; k++) {
                double slope = slope(model[k], teacher[k]) + rest * Math.exp(model[k]);
                result.gradient(sequence, i, k, weight * slope);
            }
            result.loss(weight * loss, weight);
            result.metric("mass/model", Math.min(1, ofModel));
            result.metric("mass/teacher", Math.min(1, ofTeacher));
            result.metric("agreement", best == bestOfTeacher ? 1 : 0);
        }

        /** log of what is left. */
        private double rest(double logSum) {
            return Math.log(-Math.expm1(Math.min(logSum, MOST_LOG_SUM)));
        }

        /** log((1 − β)p + βq) */
        private double mixture(double p, double q) {
            double a = p + Math.log1p(-beta);
            double b = q + Math.log(beta);
            double most = Math.max(a, b);
            return most + Math.log(Math.exp(a - most) + Math.exp(b - most));
        }

        /** What a token adds, from its log-probabilities. */
        private double loss(double p, double q) {
            if (beta == 0) {
                return Math.exp(q) * (q - p);
            }
            if (beta == 1) {
                return Math.exp(p) * (p - q);
            }
            double m = mixture(p, q);
            return beta * Math.exp(q) * (q - m) + (1 - beta) * Math.exp(p) * (p - m);
        }

        /** The derivative of that by log p. */
        private double slope(double p, double q) {
            if (beta == 0) {
                return -Math.exp(q);
            }
            if (beta == 1) {
                return Math.exp(p) * (p - q + 1);
            }
            return (1 - beta) * Math.exp(p) * (p - mixture(p, q));
        }
    }
}
