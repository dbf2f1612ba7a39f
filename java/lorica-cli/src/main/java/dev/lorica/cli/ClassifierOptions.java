package dev.lorica.cli;

import static dev.lorica.train.ObjectiveSetting.CLASS_WEIGHTS;
import static dev.lorica.train.ObjectiveSetting.METRIC_FOR_BEST_MODEL;

import dev.lorica.data.Labels;
import dev.lorica.train.Objective;
import dev.lorica.train.ObjectiveSetting;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;

/** How a classifier is trained. */
@Command // picocli takes no class without one of its annotations
@Section("Classifier, with --label-field")
final class ClassifierOptions extends SettingOptions {
    private static final String OBJECTIVE = "classification";

    @Override
    List<ObjectiveSetting> settings() {
        return Arrays.stream(ObjectiveSetting.values())
                .filter(setting -> setting.isOf(OBJECTIVE))
                .toList();
    }

    void check(boolean classifies) {
        for (ObjectiveSetting setting : settings()) {
            String given = value(setting);
            boolean isSaid = given != null && !metric(given).equals(setting.initial(OBJECTIVE));
            if (isSaid && !classifies) {
                throw new IllegalArgumentException("--" + setting.option()
                        + (setting == METRIC_FOR_BEST_MODEL ? " " + given : "")
                        + " belongs to a classifier; name its --label-field");
            }
        }
    }

    /** transformers calls it {@code eval_loss} too. */
    private static String metric(String name) {
        return name.replaceFirst("^eval_", "");
    }

    /** @param counts of the examples of each class */
    Objective objective(Labels labels, Map<String, Long> counts) {
        String best = value(METRIC_FOR_BEST_MODEL);
        return Objective.classification(
                labels,
                weights(counts),
                best != null ? metric(best) : (String) METRIC_FOR_BEST_MODEL.initial(OBJECTIVE));
    }

    private List<Double> weights(Map<String, Long> counts) {
        String classWeights = value(CLASS_WEIGHTS);
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
