package dev.lorica.train;

import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Direct preference optimization, as TRL's DPOTrainer has it: c and r are how much likelier the model has made the better and the
 * worse answer than the reference does, Δ is c − r.
 *
 * @param beta           how much the model is held to the reference
 * @param lossType       the form of the loss
 * @param labelSmoothing share of pairs that are the wrong way round
 */
record Dpo(double beta, DpoLoss lossType, double labelSmoothing) implements Objective {
    Dpo {
        ObjectiveSetting.BETA.check(beta);
        ObjectiveSetting.LABEL_SMOOTHING.check(labelSmoothing);
        boolean smooths = lossType == DpoLoss.ROBUST || lossType == DpoLoss.EXO_PAIR;
        if (labelSmoothing > 0 && !smooths) {
            throw new InvalidArgumentException(
                    "label smoothing is for the loss types robust and exo_pair, not for " + Settings.word(lossType));
        }
        if (lossType == DpoLoss.EXO_PAIR && labelSmoothing == 0) {
            throw new InvalidArgumentException("the loss type exo_pair needs a label smoothing above 0, such as 0.001");
        }
    }

    @Override
    public String name() {
        return "dpo";
    }

    @Override
    public RecordKind records() {
        return RecordKind.PAIRS;
    }

    @Override
    public boolean usesReference() {
        return true;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("beta", beta);
        settings.put("loss_type", Settings.word(lossType));
        if (labelSmoothing > 0) {
            settings.put("label_smoothing", labelSmoothing);
        }
        return settings;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        for (int i = 0; i < batch.size(); i++) {
            ScoredSequence chosen = batch.chosen(i);
            ScoredSequence rejected = batch.rejected(i);
            double c = chosen.logRatio();
            double r = rejected.logRatio();
            Term term = term(c, r, chosen.length(), rejected.length());
            result.loss(term.loss);
            result.gradient(chosen, term.byChosen);
            result.gradient(rejected, term.byRejected);
            result.pairMetrics(beta * c, beta * r, chosen.logProb(), rejected.logProb());
        }
    }

    /** The loss of a pair and its derivatives by c and r. */
    private record Term(double loss, double byChosen, double byRejected) {
        /** Of a function of c − r. */
        static Term ofDifference(double loss, double derivative) {
            return new Term(loss, derivative, -derivative);
        }
    }

    private Term term(double c, double r, int chosenLength, int rejectedLength) {
        double x = beta * (c - r);
        return switch (lossType) {
            case SIGMOID -> Term.ofDifference(-Logistic.logSigmoid(x), -beta * Logistic.sigmoid(-x));
            case HINGE -> Term.ofDifference(Math.max(0, 1 - x), x < 1 ? -beta : 0);
            case IPO -> {
                double gap = c / chosenLength - r / rejectedLength - 1 / (2 * beta);
                yield new Term(gap * gap, 2 * gap / chosenLength, -2 * gap / rejectedLength);
            }
            case ROBUST -> {
                double e = labelSmoothing;
                double scale = 1 / (1 - 2 * e);
                yield Term.ofDifference(
                        scale * (-(1 - e) * Logistic.logSigmoid(x) + e * Logistic.logSigmoid(-x)),
                        scale * beta * (-(1 - e) * Logistic.sigmoid(-x) - e * Logistic.sigmoid(x)));
            }
            case EXO_PAIR -> {
                double q = Logistic.sigmoid(x);
                double won = Logistic.logSigmoid(x) - Math.log1p(-labelSmoothing);
                double lost = Logistic.logSigmoid(-x) - Math.log(labelSmoothing);
                // q' = q (1 - q), and what the logarithms add is q (1 - q) - (1 - q) q.
                yield Term.ofDifference(q * won + (1 - q) * lost, beta * Logistic.slope(x) * (won - lost));
            }
            case APO_ZERO ->
                new Term(
                        1 - Logistic.sigmoid(beta * c) + Logistic.sigmoid(beta * r),
                        -beta * Logistic.slope(beta * c),
                        beta * Logistic.slope(beta * r));
            case APO_DOWN -> {
                double gap = beta * Logistic.slope(x);
                yield new Term(
                        Logistic.sigmoid(beta * c) + 1 - Logistic.sigmoid(x),
                        beta * Logistic.slope(beta * c) - gap,
                        gap);
            }
            case SIGMOID_NORM -> {
                double y = beta * (c / chosenLength - r / rejectedLength);
                double slope = -beta * Logistic.sigmoid(-y);
                yield new Term(-Logistic.logSigmoid(y), slope / chosenLength, -slope / rejectedLength);
            }
        };
    }
}
