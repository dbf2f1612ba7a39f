package dev.lorica.train;

import dev.lorica.train.Objective.RewardScale;
import java.util.Arrays;
import java.util.stream.DoubleStream;
import java.util.stream.IntStream;

/**
 * How much better answers are than those beside them, as TRL's GRPOTrainer has it. A reward that is NaN says nothing; an answer of
 * which no function says anything teaches nothing.
 *
 * @param values   of each answer
 * @param rewards  of each answer, all functions together
 * @param sameAll  share of the answers whose group's rewards are all the same
 */
record Advantages(double[] values, double[] rewards, double sameAll) {
    /** Below the smallest difference that counts, as torch.isclose has it. */
    private static final double NO_DIFFERENCE = 1e-8;

    /**
     * @param byFunction [functions][answers]
     * @param weights    of the functions
     * @param group      answers to the same prompt, one after another
     */
    static Advantages of(double[][] byFunction, double[] weights, int group, RewardScale scale) {
        int n = byFunction[0].length;
        double[] rewards = new double[n];
        for (int i = 0; i < n; i++) {
            boolean any = false;
            for (int f = 0; f < weights.length; f++) {
                if (!Double.isNaN(byFunction[f][i])) {
                    rewards[i] += weights[f] * byFunction[f][i];
                    any = true;
                }
            }
            rewards[i] = any ? rewards[i] : Double.NaN;
        }
        double[] values = new double[n];
        int same = 0;
        double ofAll = deviation(rewards);
        for (int begin = 0; begin < n; begin += group) {
            double[] own = Arrays.copyOfRange(rewards, begin, begin + group);
            double mean = mean(own);
            double deviation = scale == RewardScale.BATCH ? ofAll : deviation(own);
            for (int i = 0; i < group; i++) {
                double value = own[i] - mean;
                double scaled = scale == RewardScale.NONE ? value : value / (deviation + 1e-4);
                values[begin + i] = Double.isNaN(scaled) ? 0 : scaled;
                same += Math.abs(deviation) <= NO_DIFFERENCE ? 1 : 0;
            }
        }
        return new Advantages(values, rewards, (double) same / n);
    }

    /** Of those that are numbers; NaN: none is. */
    static double mean(double[] values) {
        return known(values).average().orElse(Double.NaN);
    }

    /** With Bessel's correction; NaN: there are fewer than two. */
    static double deviation(double[] values) {
        long n = known(values).count();
        double mean = mean(values);
        double squares = known(values).map(x -> (x - mean) * (x - mean)).sum();
        return n > 1 ? Math.sqrt(squares / (n - 1)) : Double.NaN;
    }

    private static DoubleStream known(double[] values) {
        return IntStream.range(0, values.length).mapToDouble(i -> values[i]).filter(x -> !Double.isNaN(x));
    }
}
