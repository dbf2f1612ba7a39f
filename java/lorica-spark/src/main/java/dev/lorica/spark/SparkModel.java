package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.hub.HubName;
import java.io.Serializable;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import org.apache.spark.SparkEnv;
import org.apache.spark.SparkFiles;

/**
 * A model as executors find it. Each opens a copy of its own, once: the file that {@code spark-submit --files} has brought, else the
 * one at the same path as on the driver, or the name on Hugging Face's hub. It has to be the same model, by its fingerprint.
 *
 * @param name        a path, or {@code hf:owner/repo…}
 * @param fingerprint as {@link dev.lorica.ModelInfo#fingerprint} has it
 * @param device      where executors compute, as {@link ModelConfig#device} names it
 * @param precision   what they compute in
 * @param threads     0: as many as a task has cores, {@code spark.task.cpus}
 * @param useMmap     whether weights are mapped from the file
 */
public record SparkModel(
        String name, String fingerprint, String device, Precision precision, int threads, boolean useMmap)
        implements Serializable {

    /**
     * The model that the driver has opened, under the name by which executors are to look for it.
     *
     * @param name   a path, or {@code hf:owner/repo…}
     * @param model  as the driver has it
     * @param config how executors open it
     * @return what they are told
     */
    public static SparkModel of(Path name, Model model, ModelConfig config) {
        Objects.requireNonNull(name, "name");
        Objects.requireNonNull(model, "model");
        Objects.requireNonNull(config, "config");
        boolean onHub = HubName.is(name.toString());
        return new SparkModel(
                onHub ? name.toString() : name.toAbsolutePath().normalize().toString(),
                model.info().fingerprint(),
                config.device(),
                config.precision(),
                config.threads(),
                config.useMmap());
    }

    /**
     * Of a model that is opened on the best device.
     *
     * @param model as the driver has it
     * @return what executors are told
     */
    public static SparkModel of(Model model) {
        Objects.requireNonNull(model, "model");
        return of(model.file(), model, ModelConfig.defaults());
    }

    /** Opens it, on an executor or on the driver. */
    Model open() {
        int cores = threads > 0 ? threads : SparkEnv.get().conf().getInt("spark.task.cpus", 1);
        Path file = find();
        Model model = Model.load(file, new ModelConfig(device, precision, cores, useMmap));
        if (!model.info().fingerprint().equals(fingerprint)) {
            String found = model.info().fingerprint();
            model.close();
            throw new MismatchException(
                    file + " is another model than the driver's: its fingerprint is " + found + ", not " + fingerprint
                            + "; bring the same file to each machine, or name it to spark-submit with --files");
        }
        return model;
    }

    private Path find() {
        if (HubName.is(name)) {
            return Path.of(name);
        }
        Path path = Path.of(name);
        Path brought = Path.of(SparkFiles.getRootDirectory(), path.getFileName().toString());
        if (Files.exists(brought)) {
            return brought;
        }
        if (!Files.exists(path)) {
            throw new FileAccessException("the model " + path
                    + " is not there; put it at that path on each machine, or name it to spark-submit with --files");
        }
        return path;
    }

    /** Where this code runs, for messages: {@code worker-7 (executor 3)}. */
    static String here() {
        SparkEnv env = SparkEnv.get();
        return env.blockManager().blockManagerId().host() + " (executor " + env.executorId() + ")";
    }

    /** The same kind of trouble with the machine's name in front of what it says. */
    static LoricaException at(String host, LoricaException e) {
        return Trouble.of(host, e).exception();
    }
}
