package dev.lorica.train;

import dev.lorica.data.RecordKind;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Contrastive preference optimization, as TRL's CPOTrainer has it, with SimPO as one of its forms.
 *
 * @param beta           what the difference of both log p is multiplied by
 * @param lossType       the form of the loss
 * @param gamma          the margin of SimPO
 * @param alpha          weight of the loss of the better answer
 * @param labelSmoothing share of pairs that are the wrong way round
 */
record Cpo(double beta, CpoLoss lossType, double gamma, double alpha, double labelSmoothing) implements Objective {
    Cpo {
        ObjectiveSetting.BETA.check(beta);
        ObjectiveSetting.SIMPO_GAMMA.check(gamma);
        ObjectiveSetting.CPO_ALPHA.check(alpha);
        ObjectiveSetting.LABEL_SMOOTHING.check(labelSmoothing);
    }

    @Override
    public String name() {
        return lossType == CpoLoss.SIMPO ? "simpo" : "cpo";
    }

    @Override
    public RecordKind records() {
        return RecordKind.PAIRS;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("beta", beta);
        if (lossType == CpoLoss.SIMPO) {
            settings.put("simpo_gamma", gamma);
        } else {
            settings.put("loss_type", Settings.word(lossType));
        }
        settings.put("cpo_alpha", alpha);
        if (labelSmoothing > 0) {
            settings.put("label_smoothing", labelSmoothing);
        }
        return settings;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        ChosenLoss chosenLoss = ChosenLoss.of(batch);
        if (alpha > 0) {
            chosenLoss.add(batch, alpha, result);
        }
        // TRL takes the mean over the tokens for both of these.
        boolean perToken = lossType == CpoLoss.SIMPO || lossType == CpoLoss.IPO;
        for (int i = 0; i < batch.size(); i++) {
            ScoredSequence chosen = batch.chosen(i);
            ScoredSequence rejected = batch.rejected(i);
            double c = perToken ? chosen.meanLogProb() : chosen.logProb();
            double r = perToken ? rejected.meanLogProb() : rejected.logProb();
            double slope = pair(c - r, result);
            result.gradient(chosen, slope / (perToken ? chosen.length() : 1));
            result.gradient(rejected, -slope / (perToken ? rejected.length() : 1));
            result.pairMetrics(beta * c, beta * r, c, r);
            if (alpha > 0) {
                result.metric("nll_loss", chosenLoss.mean());
            }
        }
    }

    /** Adds the loss of a pair, and returns its derivative by the difference of the two. */
    private double pair(double difference, ObjectiveResult result) {
        double x = lossType == CpoLoss.SIMPO ? beta * difference - gamma : beta * difference;
        double e = labelSmoothing;
        return switch (lossType) {
            case SIGMOID, SIMPO -> {
                result.loss(-(1 - e) * Logistic.logSigmoid(x) - e * Logistic.logSigmoid(-x));
                yield beta * (-(1 - e) * Logistic.sigmoid(-x) + e * Logistic.sigmoid(x));
            }
            case HINGE -> {
                result.loss(Math.max(0, 1 - x));
                yield x < 1 ? -beta : 0;
            }
            case IPO -> {
                double gap = difference - 1 / (2 * beta);
                result.loss(gap * gap);
                yield 2 * gap;
            }
        };
    }
}
