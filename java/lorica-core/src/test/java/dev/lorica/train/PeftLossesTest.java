package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.withinPercentage;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/**
 * Training on the Pride and Prejudice set in f32, step for step against PyTorch + PEFT, whose losses
 * {@code scripts/compare_with_peft.py} wrote down.
 */
class PeftLossesTest {
    private static final double TOLERANCE_PERCENT = 0.5;

    /** How many steps are compared; all that there are take longer: {@code -DargLine=-Dlorica.peft.steps=200}. */
    private static final int STEPS = Integer.getInteger("lorica.peft.steps", 60);

    /** Of what differs from plain LoRA in the step alone, which its first steps show. */
    private static final int STEPS_OF_OTHERS = Integer.getInteger("lorica.peft.steps", 15);

    private static Model model;
    private static TokenizedDataset data;
    private static JsonNode golden;

    @BeforeAll
    static void load() throws IOException {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        data = TokenizedDataset.of(
                Dataset.load(TestModels.austen().resolveSibling("data/pride_and_prejudice_train.json")),
                model.tokenizer(),
                DataConfig.ofMaxLength(512));
        try (InputStream file = PeftLossesTest.class.getResourceAsStream("/peft-losses.json")) {
            golden = new ObjectMapper().readTree(file);
        }
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void loraFollowsPeft() {
        followsPeft("lora", lora(), training(), STEPS);
    }

    @Test
    void rsloraFollowsPeft() {
        followsPeft("rslora", lora().useRslora(true), training(), STEPS_OF_OTHERS);
    }

    @Test
    void doraFollowsPeft() {
        followsPeft("dora", lora().useDora(true), training(), STEPS_OF_OTHERS);
    }

    @Test
    void loraPlusFollowsPeft() {
        double ratio = golden.get("settings").get("loraplus_lr_ratio").asDouble();
        followsPeft("loraplus", lora(), training().loraplusLrRatio(ratio), STEPS_OF_OTHERS);
    }

    private static LoraConfig.Builder lora() {
        JsonNode settings = golden.get("settings");
        return LoraConfig.builder()
                .rank(settings.get("rank").asInt())
                .alpha(settings.get("alpha").asDouble())
                .seed(settings.get("seed").asLong());
    }

    private static TrainingConfig.Builder training() {
        JsonNode settings = golden.get("settings");
        return TrainingConfig.builder()
                .shuffle(false)
                .batchSize(settings.get("batch_size").asInt())
                .learningRate(settings.get("learning_rate").asDouble())
                .weightDecay(settings.get("weight_decay").asDouble())
                .maxGradNorm(settings.get("max_grad_norm").asDouble())
                .maxSteps(golden.get("trained_tokens").size());
    }

    private static void followsPeft(String name, LoraConfig.Builder lora, TrainingConfig.Builder training, int n) {
        List<TrainingProgress> steps = new ArrayList<>();
        try (Adapter adapter = Adapter.create(model, lora.build())) {
            Trainer trainer = new Trainer(model, adapter, training.build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    steps.add(progress);
                    if (steps.size() == n) {
                        trainer.requestStop();
                    }
                }
            });
            trainer.train(data);
        }
        assertThat(steps).hasSize(n);
        long before = 0;
        for (int i = 0; i < steps.size(); i++) {
            TrainingProgress step = steps.get(i);
            assertThat(step.trainedTokens() - before)
                    .as("tokens trained on in step %d", i + 1)
                    .isEqualTo(golden.get("trained_tokens").get(i).asLong());
            before = step.trainedTokens();
            assertThat(step.loss())
                    .as("loss of step %d", i + 1)
                    .isCloseTo(golden.get(name).get(i).asDouble(), withinPercentage(TOLERANCE_PERCENT));
        }
    }
}
