package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/** Models and data of runs, each loaded once, however many runs there are. */
final class Workplace implements AutoCloseable {
    private final Map<Object, Model> models = new HashMap<>();
    private final Map<Object, TrainingData> data = new HashMap<>();
    /** Another's, who closes it; {@code null}: there is none. */
    private final Model lent;

    private final ModelConfig lentConfig;

    Workplace() {
        this(null, null);
    }

    /**
     * @param lent       a model that is there already, and stays when this is closed
     * @param lentConfig with which it was loaded
     */
    Workplace(Model lent, ModelConfig lentConfig) {
        this.lent = lent;
        this.lentConfig = lentConfig;
    }

    Model model(Path file, ModelConfig config) {
        boolean isThere = lent != null
                && config.equals(lentConfig)
                && file.toAbsolutePath()
                        .normalize()
                        .equals(lent.file().toAbsolutePath().normalize());
        return isThere ? lent : models.computeIfAbsent(List.of(file, config), key -> Model.load(file, config));
    }

    /** @param settings all that the data depend on */
    TrainingData data(Object settings, Supplier<TrainingData> load) {
        TrainingData known = data.get(settings);
        if (known == null) {
            known = load.get();
            data.put(settings, known);
        }
        return known;
    }

    @Override
    public void close() {
        data.clear();
        models.values().forEach(Model::close);
        models.clear();
    }
}
