package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataException;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.Message;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** How much the loss of records and turns counts; {@link ObjectiveGoldensTest} compares with PyTorch. */
class WeightsTest {
    private static Model model;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private Dataset read(String name, String... lines) {
        try {
            return Dataset.load(Files.write(folder.resolve(name), List.of(lines)));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static TokenizedDataset tokenized(Dataset data) {
        return TokenizedDataset.of(data, model.tokenizer(), DataConfig.ofMaxLength(128));
    }

    /** The adapter that a few steps lead to. */
    private static float[] trained(TokenizedDataset data, int batchSize, int accumulation) {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            TrainingConfig config = TrainingConfig.builder()
                    .batchSize(batchSize)
                    .gradientAccumulationSteps(accumulation)
                    .shuffle(false)
                    .maxSteps(3)
                    .adamEpsilon(1e-3)
                    .learningRate(1e-2)
                    .build();
            new Trainer(model, adapter, config).train(data);
            return adapter.values(1);
        }
    }

    @Test
    void aColumnWeighsRecordsAndNothingIsLearnedOfTheWeightless() {
        Dataset data = read(
                "weights.jsonl",
                "{\"prompt\": \"Who?\", \"completion\": \"Mr. Collins.\"}",
                "{\"prompt\": \"Where?\", \"completion\": \"At Longbourn.\", \"weight\": 0.5}",
                "{\"prompt\": \"Why?\", \"completion\": \"Nobody knows.\", \"weight\": 0}",
                "{\"prompt\": \"When?\", \"completion\": \"At once.\", \"weight\": \"2\"}");
        TokenizedDataset examples = tokenized(data);
        assertThat(examples.size()).isEqualTo(3);
        assertThat(examples.report().empty()).isEqualTo(1);
        assertThat(examples.report().unusedFields()).isEmpty();
        assertThat(examples.weights()).containsExactly(0.5f, 2);
        assertThat(examples.examples().get(0).weights()).isNull();
        assertThat(examples.examples().get(2).weights()).containsOnly(2);
        TokenizedDataset plain = tokenized(Dataset.of(List.of(DataRecord.of("Who?", "Mr. Collins."))));
        assertThat(plain.weights()).isNull();
        // Weights of all, or of none, that are the same are no weights.
        DataRecord first = DataRecord.of("Who?", "Mr. Collins.");
        DataRecord second = DataRecord.of("Where?", "At Longbourn.");
        float[] once = trained(tokenized(Dataset.of(List.of(first, second))), 2, 1);
        assertThat(trained(tokenized(Dataset.of(List.of(first.withWeight(3), second.withWeight(3)))), 2, 1))
                .containsExactly(once, within(1e-5f));
        // Twice as much is as good as twice.
        float[] twice = trained(tokenized(Dataset.of(List.of(first, second, second))), 3, 1);
        float[] heavy = trained(tokenized(Dataset.of(List.of(first, second.withWeight(2)))), 2, 1);
        assertThat(heavy).containsExactly(twice, within(1e-5f)).isNotEqualTo(once);
        // In whatever micro-batches.
        assertThat(trained(tokenized(Dataset.of(List.of(first, second.withWeight(2)))), 1, 2))
                .containsExactly(heavy, within(1e-5f));
    }

    @Test
    void messagesHaveWeightsOfTheirOwn() {
        Dataset data = read(
                "chats.jsonl",
                "{\"messages\": [{\"role\": \"user\", \"content\": \"A?\"},"
                        + " {\"role\": \"assistant\", \"content\": \"Yes, one.\", \"weight\": 0.25},"
                        + " {\"role\": \"user\", \"content\": \"B?\"},"
                        + " {\"role\": \"assistant\", \"content\": \"No, two.\"}], \"weight\": 2}");
        DataConfig config = DataConfig.ofMaxLength(256)
                .withTemplate(ChatTemplate.named("chatml").orElseThrow());
        Example example =
                TokenizedDataset.of(data, model.tokenizer(), config).examples().get(0);
        StringBuilder light = new StringBuilder();
        StringBuilder heavy = new StringBuilder();
        for (int i = 0; i < example.length(); i++) {
            if (example.trained()[i]) {
                assertThat(example.weights()[i]).isIn(0.5f, 2f);
                (example.weights()[i] == 2 ? heavy : light)
                        .append(model.tokenizer().tokenText(example.ids()[i]));
            }
        }
        assertThat(light.toString()).contains("one").doesNotContain("two");
        assertThat(heavy.toString()).contains("two").doesNotContain("one");
        assertThat(data.head(1).get(0).conversation().messages().get(1))
                .isEqualTo(Message.assistant("Yes, one.").withWeight(0.25f));
    }

    @Test
    void whatIsNoWeightIsNamedWithItsLine() {
        assertThatThrownBy(() -> read(
                        "words.jsonl",
                        "{\"prompt\": \"Who?\", \"completion\": \"He.\", \"weight\": 1}",
                        "{\"prompt\": \"Who?\", \"completion\": \"He.\", \"weight\": \"much\"}"))
                .isInstanceOf(DataException.class)
                .hasMessageContaining("line 2 (record 2) has weight much; a number is meant");
        assertThatThrownBy(() -> read("less.jsonl", "{\"prompt\": \"Who?\", \"completion\": \"He.\", \"weight\": -1}"))
                .hasMessageContaining("has weight -1; a number is meant");
        // A field that is about something else is none, and is said to be unused.
        Dataset boats = read("boats.jsonl", "{\"prompt\": \"Who?\", \"completion\": \"He.\", \"weight\": \"70 kg\"}");
        assertThat(tokenized(boats).weights()).isNull();
        assertThat(tokenized(boats).report().unusedFields()).containsExactly("weight");
    }

    @Test
    void anObjectiveThatKnowsNoWeightsRefusesThem() {
        TokenizedDataset data = tokenized(
                Dataset.of(List.of(DataRecord.of("Who?", "He.").withValue(1).withWeight(0.5f))));
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            TrainingConfig config = TrainingConfig.builder().maxSteps(1).build();
            assertThatThrownBy(() -> new Trainer(model, adapter, config, Objective.kto(0.1)).train(data))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage(
                            "the data have weights of tokens, from 0.5 to 0.5, which the objective kto does not know;"
                                    + " take sft or distill, or data without weights");
        }
    }
}
