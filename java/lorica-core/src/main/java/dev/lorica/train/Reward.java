package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.data.Labels;
import dev.lorica.data.RecordKind;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A reward model, as TRL's RewardTrainer has it: −log σ(r⁺ − r⁻) of the rewards of the better and the worse answer (Bradley and
 * Terry 1952; Ouyang et al. 2022), and {@code c (r⁺ + r⁻)²}, which draws the rewards of a pair towards opposite numbers (Eisenstein
 * et al. 2023).
 *
 * @param centerRewardsCoefficient c
 */
record Reward(double centerRewardsCoefficient) implements OutputObjective {
    Reward {
        ObjectiveSetting.CENTER_REWARDS_COEFFICIENT.check(centerRewardsCoefficient);
    }

    @Override
    public String name() {
        return "reward";
    }

    @Override
    public RecordKind records() {
        return RecordKind.PAIRS;
    }

    @Override
    public Labels labels() {
        return Labels.reward();
    }

    @Override
    public Map<String, Object> settings() {
        return centerRewardsCoefficient > 0 ? Map.of("center_rewards_coefficient", centerRewardsCoefficient) : Map.of();
    }

    @Override
    public Scores of(float[] outputs, Batch batch) {
        float[] gradients = new float[outputs.length];
        int pairs = outputs.length / 2;
        double loss = 0;
        double sum = 0;
        double margins = 0;
        int right = 0;
        double least = Double.POSITIVE_INFINITY;
        double most = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < outputs.length; i += 2) {
            double chosen = outputs[i];
            double rejected = outputs[i + 1];
            double margin = chosen - rejected;
            double both = chosen + rejected;
            loss += -Logistic.logSigmoid(margin) + centerRewardsCoefficient * both * both;
            double apart = -Logistic.sigmoid(-margin);
            double towardsZero = 2 * centerRewardsCoefficient * both;
            gradients[i] = (float) (apart + towardsZero);
            gradients[i + 1] = (float) (-apart + towardsZero);
            sum += both;
            margins += margin;
            right += margin > 0 ? 1 : 0;
            least = Math.min(least, Math.min(chosen, rejected));
            most = Math.max(most, Math.max(chosen, rejected));
        }
        Map<String, double[]> metrics = new LinkedHashMap<>();
        metrics.put("accuracy", new double[] {right, pairs});
        metrics.put("margin", new double[] {margins, pairs});
        metrics.put("mean_reward", new double[] {sum, outputs.length});
        metrics.put("min_reward", new double[] {least, 1});
        metrics.put("max_reward", new double[] {most, 1});
        return new Scores(loss, pairs, gradients, new Metrics(metrics));
    }
}
