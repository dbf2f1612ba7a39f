package dev.lorica.cli;

import dev.lorica.exceptions.LoricaException;
import dev.lorica.log.JsonlLog;
import dev.lorica.log.TensorBoardLog;
import dev.lorica.train.Checkpoint;
import dev.lorica.train.Setting;
import dev.lorica.train.SettingDefinition;
import dev.lorica.train.TrainerListener;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;

/** What a run writes down while it goes on, and how it goes on after its process has ended. */
@Section("Checkpoints and logs")
final class CheckpointOptions extends SettingOptions {
    /** What transformers reports to, and we do not. */
    private static final Set<String> SERVICES = Set.of(
            "wandb",
            "mlflow",
            "comet_ml",
            "swanlab",
            "trackio",
            "neptune",
            "clearml",
            "azure_ml",
            "codecarbon",
            "dagshub",
            "dvclive",
            "flyte");

    @Option(
            names = "--saves-per-epoch",
            paramLabel = "N",
            description = "Checkpoints in each epoch, instead of --save-steps.")
    Integer savesPerEpoch;

    @Option(
            names = "--resume",
            paramLabel = "auto|DIR",
            arity = "0..1",
            fallbackValue = "auto",
            description =
                    "Go on from this checkpoint, or from the last whole one in --output; the run ends as if it had "
                            + "never been stopped. auto begins anew where there is none.")
    String resume;

    @Option(
            names = "--report-to",
            paramLabel = "NAME",
            split = ",",
            description = "tensorboard or none; DIR/train_log.jsonl is always written. Default: tensorboard")
    List<String> reportTo = new ArrayList<>(List.of("tensorboard"));

    @Option(
            names = "--logging-dir",
            paramLabel = "DIR",
            description = "Folder for TensorBoard's files. Default: runs in --output.")
    Path loggingDir;

    @Override
    List<Setting> settings() {
        return List.of(Setting.SAVE_STRATEGY, Setting.SAVE_STEPS, Setting.SAVE_TOTAL_LIMIT);
    }

    @Override
    void adapt(SettingDefinition setting, OptionSpec.Builder option) {
        if (setting != Setting.SAVE_TOTAL_LIMIT) {
            option.initialValue(null); // each follows from the other
        }
    }

    /** {@code null} where nothing was said. */
    String saveStrategy() {
        return value(Setting.SAVE_STRATEGY);
    }

    /** {@code null} where nothing was said. */
    Integer saveSteps() {
        return value(Setting.SAVE_STEPS);
    }

    boolean resumes() {
        return resume != null && !List.of("false", "no", "none").contains(resume.toLowerCase(Locale.ROOT));
    }

    /**
     * What to go on from; {@code null}: the run begins anew.
     *
     * @param overwrite whether checkpoints of a run before may be deleted for that
     * @param note      for what the user should know
     */
    Checkpoint checkpoint(Path output, boolean overwrite, Consumer<String> note) {
        if (!resumes()) {
            if (overwrite) {
                Checkpoint.deleteAll(output);
            } else if (!Checkpoint.list(output).isEmpty()) {
                throw new LoricaException(
                        output + " holds checkpoints of another run: go on from them with --resume auto, "
                                + "delete them with --overwrite, or choose another folder");
            }
            return null;
        }
        if (!List.of("auto", "true").contains(resume.toLowerCase(Locale.ROOT))) {
            return Checkpoint.open(Path.of(resume));
        }
        Optional<Checkpoint> latest =
                Checkpoint.latest(output, (path, reason) -> note.accept("note: passed over: " + reason.getMessage()));
        if (latest.isEmpty()) {
            note.accept("note: there is no checkpoint in " + output + " to go on from; the run begins anew");
        }
        return latest.orElse(null);
    }

    /** @throws IllegalArgumentException for a place to report to that nobody has heard of */
    void check() {
        for (String name : reportTo) {
            String place = place(name);
            if (!List.of("tensorboard", "all", "none").contains(place) && !SERVICES.contains(place)) {
                throw new IllegalArgumentException(
                        "--report-to cannot be \"" + name + "\"; it is one of tensorboard, none");
            }
        }
    }

    private static String place(String name) {
        return name.strip().toLowerCase(Locale.ROOT);
    }

    List<TrainerListener> logs(Path output, Consumer<String> problem) {
        List<TrainerListener> logs = new ArrayList<>();
        logs.add(new JsonlLog(output.resolve(JsonlLog.FILE_NAME), problem));
        for (String name : reportTo) {
            switch (place(name)) {
                case "tensorboard", "all" ->
                    logs.add(new TensorBoardLog(
                            loggingDir != null ? loggingDir : output.resolve(TensorBoardLog.FOLDER_NAME), problem));
                case "none" -> {}
                default ->
                    problem.accept("asked for, and will not happen: --report-to " + place(name)
                            + "; the log and the page of the run are in " + output);
            }
        }
        return logs;
    }
}
