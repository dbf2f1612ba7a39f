package dev.lorica.train;

import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Numbers to be logged, as sums of which the means are wanted.
 *
 * @param sums by name: the sum of the values, and how many there are
 */
public record Metrics(Map<String, double[]> sums) implements Serializable {
    /** Checks that there is a map. */
    public Metrics {
        Arguments.given(sums, "sums");
    }

    static final Metrics NONE = new Metrics(Map.of());

    Metrics plus(String name, double sum, double count) {
        Map<String, double[]> all = new LinkedHashMap<>(sums);
        double[] before = sums.getOrDefault(name, new double[2]);
        all.put(name, new double[] {before[0] + sum, before[1] + count});
        return new Metrics(all);
    }

    Metrics plus(Metrics other) {
        Metrics all = this;
        for (Map.Entry<String, double[]> entry : other.sums.entrySet()) {
            all = all.plus(entry.getKey(), entry.getValue()[0], entry.getValue()[1]);
        }
        return all;
    }

    Map<String, Double> means() {
        Map<String, Double> means = new LinkedHashMap<>();
        sums.forEach((name, sum) -> means.put(name, sum[0] / sum[1]));
        if (means.containsKey("rewards/chosen") && means.containsKey("rewards/rejected")) {
            means.putIfAbsent("rewards/margins", means.get("rewards/chosen") - means.get("rewards/rejected"));
        }
        return means;
    }
}
