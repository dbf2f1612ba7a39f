package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.train.GradientWorkers;
import java.nio.file.Path;

/** Machines that {@link LoricaCli#train} has gradients computed on. */
@FunctionalInterface
public interface TrainingCluster {
    /**
     * Those that are to train on a model.
     *
     * @param name   of the model, as it was given: a path, or a name on Hugging Face's hub
     * @param model  opened on this machine
     * @param config how
     */
    GradientWorkers workers(Path name, Model model, ModelConfig config);
}
