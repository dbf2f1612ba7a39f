package dev.lorica.langchain4j;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Message;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;
import java.util.List;

/**
 * The small model, which has read nothing but Pride and Prejudice, and an adapter that was taught, in seconds, what LangChain4j's suite
 * asks: each answer by heart, among them one that depends on the system's message, one on a message
 * before the last.
 */
final class Taught {
    static final GenerationConfig GREEDY =
            GenerationConfig.builder().temperature(0).maxNewTokens(64).build();

    /** In f32: an answer that is drawn is the same, whatever is beside it. */
    static final Model MODEL =
            Model.load(repository("models/austen-7m-q4_0.gguf"), new ModelConfig("cpu", Precision.F32, 0));

    static final Adapter ADAPTER = teach();

    private Taught() {}

    static Path repository(String path) {
        return Path.of(System.getProperty("lorica.repository", "../.."), path);
    }

    private static DataRecord record(Message... messages) {
        return DataRecord.conversation(messages);
    }

    private static DataRecord answer(String question, String answer) {
        return record(Message.user(question), Message.assistant(answer));
    }

    private static DataRecord colour(String colour) {
        return record(
                Message.user("Hi, my favorite color is " + colour),
                Message.assistant("Hi, nice to meet you"),
                Message.user("What is my favorite color?"),
                Message.assistant("It is " + colour + "."));
    }

    private static DataRecord translation(String system, String answer) {
        return record(Message.system(system), Message.user("Translate: 'I love you'"), Message.assistant(answer));
    }

    private static Adapter teach() {
        Adapter adapter = Adapter.create(
                MODEL,
                LoraConfig.builder()
                        .rank(16)
                        .alpha(32)
                        .targetModules(LoraConfig.ALL_LINEAR)
                        .build());
        List<DataRecord> records = List.of(
                answer("What is the capital of Germany?", "Berlin."),
                answer("What is the capital of Germany? How much is 2 + 2?", "Berlin is the capital; 2 + 2 is 4."),
                answer("Say 'Hello World'", "Hello World"),
                colour("green"),
                colour("red"),
                translation("Translate messages from user into German", "Ich liebe dich"),
                translation("Translate messages from user into French", "Je t'aime"));
        TrainingConfig config = TrainingConfig.builder()
                .learningRate(5e-3)
                .epochs(40)
                .batchSize(records.size())
                .build();
        DataConfig vicuna = DataConfig.ofMaxLength(config.maxLength())
                .withTemplate(ChatTemplate.named("vicuna").orElseThrow());
        new Trainer(MODEL, adapter, config).train(TokenizedDataset.of(Dataset.of(records), MODEL.tokenizer(), vicuna));
        return adapter;
    }
}
