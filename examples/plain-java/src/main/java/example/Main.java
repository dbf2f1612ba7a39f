package example;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Dataset;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;

/** Trains an adapter on a file of questions and answers, saves it, loads it again and asks it a question. */
public class Main {
    public static void main(String[] args) {
        if (args.length != 4) {
            System.err.println("usage: MODEL.gguf QUESTIONS.json ADAPTER-FOLDER QUESTION");
            System.exit(2);
        }
        try (Model model = Model.load(Path.of(args[0]))) {
            train(model, Path.of(args[1]), Path.of(args[2]));
            try (Adapter adapter = Adapter.load(model, Path.of(args[2]));
                    Generator generator = new Generator(model, adapter)) {
                System.out.println(generator.ask(args[3], GenerationConfig.greedy()).result().text());
            }
        }
    }

    private static void train(Model model, Path questions, Path folder) {
        TrainingConfig config = TrainingConfig.builder().epochs(20).learningRate(5e-3).build();
        try (Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(16).alpha(32).build())) {
            new Trainer(model, adapter, config).train(Dataset.load(questions));
            adapter.save(folder);
        }
    }
}
