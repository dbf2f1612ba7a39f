package dev.lorica.train;

import dev.lorica.data.RecordKind;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Kahneman-Tversky optimization, as TRL's KTOTrainer has it.
 *
 * @param beta              how much the model is held to the reference
 * @param desirableWeight   of good answers
 * @param undesirableWeight of the others
 */
record Kto(double beta, double desirableWeight, double undesirableWeight) implements Objective {
    Kto {
        ObjectiveSetting.BETA.check(beta);
        ObjectiveSetting.DESIRABLE_WEIGHT.check(desirableWeight);
        ObjectiveSetting.UNDESIRABLE_WEIGHT.check(undesirableWeight);
    }

    @Override
    public String name() {
        return "kto";
    }

    @Override
    public RecordKind records() {
        return RecordKind.LABELLED;
    }

    @Override
    public boolean usesReference() {
        return true;
    }

    @Override
    public boolean usesKl() {
        return true;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("beta", beta);
        settings.put("desirable_weight", desirableWeight);
        settings.put("undesirable_weight", undesirableWeight);
        return settings;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        for (ScoredSequence sequence : batch.sequences()) {
            boolean good = sequence.value() > 0.5;
            double ratio = sequence.logRatio();
            double sign = good ? 1 : -1;
            double weight = good ? desirableWeight : undesirableWeight;
            double x = sign * beta * (ratio - batch.kl());
            result.loss(weight * (1 - Logistic.sigmoid(x)));
            result.gradient(sequence, -weight * sign * beta * Logistic.slope(x));
            String side = good ? "chosen" : "rejected";
            result.metric("rewards/" + side, beta * ratio);
            result.metric("logps/" + side, sequence.logProb());
            result.metric("kl", batch.kl());
        }
    }
}
