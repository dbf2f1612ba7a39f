package dev.lorica.cli;

import dev.lorica.data.Labels;
import dev.lorica.train.Setting;
import dev.lorica.train.SettingDefinition;
import dev.lorica.train.TrainingConfig;
import java.util.List;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;

/** What of a training decides its memory, as {@code train} has it, and for how much of it is planned. */
final class PlanOptions extends SettingOptions {
    private static final int MOST_LABELS = 1 << 20;

    @Option(
            names = "--available",
            paramLabel = "SIZE",
            description = "Plan for this much memory, such as 8GiB, instead of what is free here.")
    String available;

    @Option(
            names = "--num-labels",
            paramLabel = "N",
            description = "Plan for a classifier of N labels beside it, as train --label-field makes; 1: one number.")
    Integer labels;

    /** Of such a classifier; {@code null}: there is to be none. */
    Labels labels() {
        if (labels != null && (labels < 1 || labels > MOST_LABELS)) {
            throw new IllegalArgumentException("--num-labels cannot be " + labels + "; it is 1 to " + MOST_LABELS);
        }
        return labels == null ? null : Labels.of(labels, "", List.of());
    }

    @Override
    List<Setting> settings() {
        return List.of(Setting.MAX_LENGTH, Setting.BATCH_SIZE, Setting.OPTIMIZER);
    }

    @Override
    void adapt(SettingDefinition setting, OptionSpec.Builder option) {
        if (setting == Setting.MAX_LENGTH) {
            option.initialValue(null); // follows from the model
        }
    }

    /** @param modelContext {@code Integer.MAX_VALUE}: not known yet */
    TrainingConfig config(int modelContext) {
        TrainingConfig.Builder config = TrainingConfig.builder().maxLength(DataOptions.defaultMaxLength(modelContext));
        fill(config);
        return config.build();
    }
}
