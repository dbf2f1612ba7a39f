package dev.lorica.train;

import dev.lorica.data.RecordKind;
import java.util.Map;

/**
 * Odds ratio preference optimization, as TRL's ORPOTrainer has it: −log p of the better side with its prompt, per token of the
 * micro-batch, less β log σ of the difference of log-odds, where p is that of an answer per token.
 *
 * @param beta the weight of the odds ratio
 */
record Orpo(double beta) implements Objective {
    Orpo {
        ObjectiveSetting.BETA.check(beta);
    }

    @Override
    public String name() {
        return "orpo";
    }

    @Override
    public RecordKind records() {
        return RecordKind.PAIRS;
    }

    @Override
    public boolean scoresPrompts() {
        return true;
    }

    @Override
    public Map<String, Object> settings() {
        return Map.of("beta", beta);
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        ChosenLoss chosenLoss = ChosenLoss.of(batch);
        chosenLoss.add(batch, 1, result);
        for (int i = 0; i < batch.size(); i++) {
            ScoredSequence chosen = batch.chosen(i);
            ScoredSequence rejected = batch.rejected(i);
            double c = chosen.meanLogProb();
            double r = rejected.meanLogProb();
            double logOdds = c - r - (log1mexp(c) - log1mexp(r));
            double ratio = Logistic.logSigmoid(logOdds);
            double slope = -beta * Logistic.sigmoid(-logOdds);
            result.loss(-beta * ratio);
            // d(c - log(1 - e^c))/dc = 1 / (1 - e^c)
            result.gradient(chosen, slope / -Math.expm1(c) / chosen.length());
            result.gradient(rejected, -slope / -Math.expm1(r) / rejected.length());
            result.pairMetrics(beta * c, beta * r, c, r);
            result.metric("nll_loss", chosenLoss.mean());
            result.metric("log_odds_ratio", ratio);
            result.metric("log_odds_chosen", logOdds);
        }
    }

    /** log(1 − e^x) for x < 0 (Mächler 2012). */
    private static double log1mexp(double x) {
        return x > -Math.log(2) ? Math.log(-Math.expm1(x)) : Math.log1p(-Math.exp(x));
    }
}
