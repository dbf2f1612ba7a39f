package embedding;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.train.Checkpoint;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;
import java.util.List;

/** Uses the library from a package that is not the library's own: {@code dev.lorica.ModulePathTest} runs it. */
public final class Program {
    private Program() {}

    /** @param arguments a model, and a folder to write to */
    public static void main(String[] arguments) {
        Path folder = Path.of(arguments[1]);
        try (Model model = Model.load(Path.of(arguments[0]));
                Adapter adapter = Adapter.create(
                        model,
                        LoraConfig.builder().rank(1).targetModules("q_proj").build())) {
            System.out.println(Model.class.getModule());
            new Trainer(
                            model,
                            adapter,
                            TrainingConfig.builder().maxSteps(1).saveSteps(1).build())
                    .checkpoints(folder)
                    .train(Dataset.of(List.of(DataRecord.of("Where is Pemberley?", "In Derbyshire."))));
            Path checkpoint = Checkpoint.latest(folder, (path, reason) -> {})
                    .orElseThrow()
                    .path();
            try (Adapter loaded = Adapter.load(model, checkpoint)) {
                System.out.println(
                        "trained with " + TrainingConfig.of(loaded.metadata()).optimizer());
            }
        }
        System.out.println("JavaCPP's limit is " + System.getProperty("org.bytedeco.javacpp.maxPhysicalBytes"));
    }
}
