package dev.lorica.eval;

import dev.lorica.data.Labels;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a classifier says, held against what is right: accuracy, F1, and what is taken for what. */
public final class ClassMetrics {
    private final Labels labels;
    private final long[][] confusion;
    /** Of each label: right, said without being so, not said and so. */
    private final long[][] counts;

    private long texts;
    private long right;
    private double squares;
    private double losses;

    /**
     * Counts that begin at zero.
     *
     * @param labels what is said, one of several, several of many, or a number
     */
    public ClassMetrics(Labels labels) {
        this.labels = Arguments.given(labels, "labels");
        int n = labels.outputs();
        boolean single = labels.problem() == Labels.Problem.SINGLE_LABEL_CLASSIFICATION;
        confusion = single ? new long[n][n] : null;
        counts = new long[n][3];
    }

    /**
     * One text.
     *
     * @param outputs of the classifier
     * @param value   what is right, as one number (see {@link Labels})
     */
    public void add(float[] outputs, double value) {
        Arguments.given(outputs, "outputs");
        Arguments.check(
                outputs.length == labels.outputs(),
                "number of outputs",
                outputs.length,
                String.valueOf(labels.outputs()));
        if (confusion != null) {
            Arguments.index((int) value, outputs.length, "value");
        }
        texts++;
        losses += loss(outputs, value);
        switch (labels.problem()) {
            case REGRESSION -> squares += ((double) outputs[0] - value) * (outputs[0] - value);
            case SINGLE_LABEL_CLASSIFICATION -> {
                int said = best(outputs);
                int is = (int) value;
                confusion[is][said]++;
                right += said == is ? 1 : 0;
                counts[said][said == is ? 0 : 1]++;
                counts[is][2] += said == is ? 0 : 1;
            }
            case MULTI_LABEL_CLASSIFICATION -> {
                boolean all = true;
                for (int i = 0; i < outputs.length; i++) {
                    boolean said = outputs[i] > 0;
                    boolean is = Labels.has(value, i);
                    all &= said == is;
                    if (said || is) {
                        counts[i][said && is ? 0 : said ? 1 : 2]++;
                    }
                }
                right += all ? 1 : 0;
            }
        }
    }

    private double loss(float[] outputs, double value) {
        double sum = 0;
        switch (labels.problem()) {
            case REGRESSION -> sum = ((double) outputs[0] - value) * (outputs[0] - value);
            case SINGLE_LABEL_CLASSIFICATION -> {
                double most = outputs[best(outputs)];
                for (float output : outputs) {
                    sum += Math.exp(output - most);
                }
                sum = Math.log(sum) + most - outputs[(int) value];
            }
            case MULTI_LABEL_CLASSIFICATION -> {
                for (int i = 0; i < outputs.length; i++) {
                    double x = outputs[i];
                    double y = Labels.has(value, i) ? 1 : 0;
                    sum += (Math.max(x, 0) - x * y + Math.log1p(Math.exp(-Math.abs(x)))) / outputs.length;
                }
            }
        }
        return sum;
    }

    /** {@return the mean loss of a text: cross-entropy, binary cross-entropy, or squares} */
    public double loss() {
        return texts == 0 ? 0 : losses / texts;
    }

    static int best(float[] outputs) {
        int best = 0;
        for (int i = 1; i < outputs.length; i++) {
            best = outputs[i] > outputs[best] ? i : best;
        }
        return best;
    }

    /** {@return the share of the texts of which all is right, 0 to 1} */
    public double accuracy() {
        return texts == 0 ? 0 : (double) right / texts;
    }

    /** {@return the mean over all labels of their F1, 0 of one that is neither said nor right, as scikit-learn has it} */
    public double macroF1() {
        double sum = 0;
        for (long[] c : counts) {
            long all = 2 * c[0] + c[1] + c[2];
            sum += all == 0 ? 0 : 2.0 * c[0] / all;
        }
        return sum / counts.length;
    }

    /** {@return counts of texts, [what is right][what is said], of single labels; {@code null} of others} */
    public List<List<Long>> confusion() {
        if (confusion == null) {
            return null;
        }
        List<List<Long>> rows = new ArrayList<>();
        for (long[] row : confusion) {
            List<Long> values = new ArrayList<>();
            for (long value : row) {
                values.add(value);
            }
            rows.add(values);
        }
        return rows;
    }

    /** {@return the numbers by transformers' names: {@code accuracy} and {@code f1}, or {@code mse}} */
    public Map<String, Double> values() {
        Map<String, Double> values = new LinkedHashMap<>();
        if (labels.problem() == Labels.Problem.REGRESSION) {
            values.put("mse", texts == 0 ? 0 : squares / texts);
        } else {
            values.put("accuracy", accuracy());
            values.put("f1", macroF1());
        }
        return values;
    }
}
