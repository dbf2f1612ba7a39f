package dev.lorica.cli;

import dev.lorica.data.Labels;
import dev.lorica.train.Objective;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Option;

/** How a classifier is trained. */
@Section("Classifier, with --label-field")
final class ClassifierOptions {
    @Option(
            names = "--class-weights",
            paramLabel = "WEIGHTS",
            description =
                    "balanced makes classes count alike of which there are more and less examples; or a weight for"
                            + " each class, with commas. Default: every example counts alike.")
    String classWeights;

    @Option(
            names = "--metric-for-best-model",
            paramLabel = "METRIC",
            description =
                    "What --load-best-model-at-end and early stopping look at: loss, accuracy or f1 (the mean over"
                            + " all classes). Default: ${DEFAULT-VALUE}")
    String metricForBestModel = "loss";

    void check(boolean classifies) {
        if (!classifies && classWeights != null) {
            throw new IllegalArgumentException("--class-weights belongs to a classifier; name its --label-field");
        }
        if (!classifies && !List.of("loss", "eval_loss").contains(metricForBestModel)) {
            throw new IllegalArgumentException("--metric-for-best-model " + metricForBestModel
                    + " belongs to a classifier; name its --label-field");
        }
    }

    /** @param counts of the examples of each class */
    Objective objective(Labels labels, Map<String, Long> counts) {
        return Objective.classification(labels, weights(counts), metricForBestModel.replaceFirst("^eval_", ""));
    }

    private List<Double> weights(Map<String, Long> counts) {
        if (classWeights == null) {
            return List.of();
        }
        if (classWeights.equals("balanced")) {
            return Objective.balancedWeights(counts);
        }
        List<Double> weights = new ArrayList<>();
        for (String word : classWeights.split(",")) {
            try {
                weights.add(Double.parseDouble(word.strip()));
            } catch (NumberFormatException e) {
                throw new IllegalArgumentException("--class-weights is \"" + classWeights
                        + "\"; balanced is meant, or numbers with commas between them");
            }
        }
        return weights;
    }
}
