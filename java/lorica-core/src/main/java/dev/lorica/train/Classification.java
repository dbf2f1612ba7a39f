package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.data.Labels;
import dev.lorica.data.RecordKind;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What a classifier says of texts: cross-entropy of classes, binary cross-entropy of several labels, or squares, as transformers'
 * models for sequence classification have them.
 *
 * @param labels  what is said
 * @param weights of the classes, by which the loss of a text of each is multiplied; none: all alike
 * @param best    what tells the best evaluation: {@code loss}, {@code accuracy} or {@code f1}
 */
record Classification(Labels labels, List<Double> weights, String best) implements OutputObjective {
    static final String NAME = "classification";
    static final String LOSS = "loss";

    Classification {
        weights = List.copyOf(weights);
        if (!weights.isEmpty() && labels.problem() != Labels.Problem.SINGLE_LABEL_CLASSIFICATION) {
            throw new InvalidArgumentException("class weights are for one class of several");
        }
        if (!weights.isEmpty() && weights.size() != labels.outputs()) {
            throw new InvalidArgumentException(
                    "there are " + weights.size() + " class weights for " + labels.outputs() + " classes");
        }
        if (!List.of(LOSS, "accuracy", "f1").contains(best)
                || !best.equals(LOSS) && labels.problem() == Labels.Problem.REGRESSION) {
            throw new InvalidArgumentException("the metric for the best model is \"" + best + "\"; it is "
                    + (labels.problem() == Labels.Problem.REGRESSION ? "loss" : "loss, accuracy or f1"));
        }
    }

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public RecordKind records() {
        return RecordKind.CLASSES;
    }

    @Override
    public Map<String, Object> settings() {
        Map<String, Object> settings = new LinkedHashMap<>();
        settings.put("problem_type", labels.problem().toString());
        if (!weights.isEmpty()) {
            settings.put(ObjectiveSetting.CLASS_WEIGHTS.key(), weights);
        }
        if (!best.equals(LOSS)) {
            settings.put(ObjectiveSetting.METRIC_FOR_BEST_MODEL.key(), best);
        }
        return settings;
    }

    @Override
    public double toBeat(Evaluation evaluation) {
        Arguments.given(evaluation, "evaluation");
        return best.equals(LOSS) ? evaluation.loss() : -evaluation.metrics().get(best);
    }

    @Override
    public Scores of(float[] outputs, Batch batch) {
        float[] values = batch.notes().values();
        int n = labels.outputs();
        float[] gradients = new float[outputs.length];
        double sum = 0;
        double units = 0;
        for (int row = 0; row < values.length; row++) {
            float[] own = Arrays.copyOfRange(outputs, row * n, (row + 1) * n);
            double[] slopes = new double[n];
            double weight = 1;
            switch (labels.problem()) {
                case SINGLE_LABEL_CLASSIFICATION -> {
                    int is = (int) values[row];
                    weight = weights.isEmpty() ? 1 : weights.get(is);
                    sum += weight * crossEntropy(own, is, slopes);
                }
                case MULTI_LABEL_CLASSIFICATION -> {
                    for (int i = 0; i < n; i++) {
                        double y = Labels.has(values[row], i) ? 1 : 0;
                        double x = own[i];
                        sum += (Math.max(x, 0) - x * y + Math.log1p(Math.exp(-Math.abs(x)))) / n;
                        slopes[i] = (Logistic.sigmoid(x) - y) / n;
                    }
                }
                case REGRESSION -> {
                    double difference = (double) own[0] - values[row];
                    sum += difference * difference;
                    slopes[0] = 2 * difference;
                }
            }
            units += weight;
            for (int i = 0; i < n; i++) {
                gradients[row * n + i] = (float) (weight * slopes[i]);
            }
        }
        return new Scores(sum, units, gradients, Metrics.NONE);
    }

    private static double crossEntropy(float[] outputs, int is, double[] slopes) {
        double most = Double.NEGATIVE_INFINITY;
        for (float output : outputs) {
            most = Math.max(most, output);
        }
        double sum = 0;
        for (int i = 0; i < slopes.length; i++) {
            slopes[i] = Math.exp(outputs[i] - most);
            sum += slopes[i];
        }
        for (int i = 0; i < slopes.length; i++) {
            slopes[i] = slopes[i] / sum - (i == is ? 1 : 0);
        }
        return Math.log(sum) + most - outputs[is];
    }

    /** scikit-learn's "balanced": texts / (classes * texts of the class). */
    static List<Double> balanced(Map<String, Long> counts) {
        long all = counts.values().stream().mapToLong(Long::longValue).sum();
        List<Double> weights = new ArrayList<>();
        counts.values().forEach(count -> weights.add(count == 0 ? 0.0 : (double) all / (counts.size() * count)));
        return weights;
    }
}
