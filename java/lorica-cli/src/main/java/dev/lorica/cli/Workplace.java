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

    Model model(Path file, ModelConfig config) {
        return models.computeIfAbsent(List.of(file, config), key -> Model.load(file, config));
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
