package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Labels;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Steps with every objective next to TRL (weights of answers: next to PyTorch), whose losses, metrics and adapters {@code scripts/make_objective_goldens.py} wrote down. One
 * form of each objective goes all twenty steps, to the adapter in which they end; of the others the first few are compared, whose
 * losses and metrics come from the adapter that the steps before have left.
 */
class ObjectiveGoldensTest {
    private static final double TOLERANCE = 1e-4;
    private static final Set<String> WHOLE = Set.of(
            "dpo_sigmoid",
            "orpo",
            "simpo",
            "cpo_sigmoid",
            "kto",
            "reward",
            "sft_weighted",
            "distill_jsd",
            "distill_top_jsd");
    private static final int STEPS_OF_OTHERS = 4;

    @TempDir
    Path folder;

    private static JsonNode golden;
    private static Model model;
    private static List<DataRecord> questions;

    @BeforeAll
    static void load() throws IOException {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        golden = goldens();
        JsonNode settings = golden.get("settings");
        int needed = settings.get("steps").asInt() * settings.get("batch_size").asInt() + 1;
        questions = Dataset.load(TestModels.austen().resolveSibling("data/pride_and_prejudice_train.json"))
                .head(needed);
    }

    private static JsonNode goldens() throws IOException {
        try (InputStream file = ObjectiveGoldensTest.class.getResourceAsStream("/objectives.json")) {
            return new ObjectMapper().readTree(file);
        }
    }

    @AfterAll
    static void close() {
        model.close();
    }

    static Stream<String> cases() throws IOException {
        Iterable<String> names = goldens()::fieldNames;
        return StreamSupport.stream(names.spliterator(), false).filter(name -> !name.equals("settings"));
    }

    private static Objective objective(String name, JsonNode settings) {
        double beta = settings.path("beta").asDouble();
        double smoothing = settings.path("label_smoothing").asDouble();
        return switch (name.split("_")[0]) {
            case "dpo" ->
                Objective.dpo(
                        beta,
                        ObjectiveSetting.LOSS_TYPE.parsed(
                                "dpo", settings.get("loss_type").asText()),
                        smoothing);
            case "orpo" -> Objective.orpo(beta);
            case "simpo" -> Objective.simpo(beta, settings.get("simpo_gamma").asDouble());
            case "cpo" ->
                Objective.cpo(
                        beta,
                        ObjectiveSetting.LOSS_TYPE.parsed(
                                "cpo", settings.get("loss_type").asText()),
                        0,
                        settings.get("cpo_alpha").asDouble(),
                        smoothing);
            case "kto" ->
                Objective.kto(
                        beta,
                        settings.get("desirable_weight").asDouble(),
                        settings.get("undesirable_weight").asDouble());
            case "reward" ->
                Objective.reward(settings.get("center_rewards_coefficient").asDouble());
            case "sft" -> Objective.sft();
            case "distill" -> Objective.distill(beta);
            default -> throw new IllegalArgumentException(name);
        };
    }

    /** What both sides begin the head of a reward model with. */
    private static void setHead(Adapter adapter) {
        int head = adapter.tensors().size() - 1;
        assertThat(adapter.tensors().get(head).name()).isEqualTo("cls.output.weight");
        setNumbers(adapter, head, 11, 1);
    }

    /** What both sides begin with as B, so that a student is no copy of its teacher. */
    private static void setB(Adapter adapter) {
        for (int i = 0; i < adapter.tensors().size(); i++) {
            if (!adapter.tensors().get(i).isA()) {
                setNumbers(adapter, i, 13, 1);
            }
        }
    }

    private static void setNumbers(Adapter adapter, int tensor, int seed, double range) {
        int[] random = Philox.numbers(seed, adapter.values(tensor).length);
        float[] values = new float[random.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (range * ((random[i] >>> 8) * 0x1p-24 - 0.5));
        }
        adapter.setValues(tensor, values);
    }

    private static TokenizedDataset data(Objective objective, JsonNode settings) {
        JsonNode weights = settings.path("weights");
        List<DataRecord> records = new ArrayList<>();
        for (int i = 0; i + 1 < questions.size(); i++) {
            String prompt = questions.get(i).prompt();
            String good = questions.get(i).response();
            String bad = questions.get(i + 1).response();
            boolean label = i % 3 != 1;
            records.add(
                    switch (objective.records()) {
                        case PAIRS -> DataRecord.pair(prompt, good, bad);
                        case LABELLED ->
                            DataRecord.of(prompt, label ? good : bad).withValue(label ? 1 : 0);
                        default ->
                            DataRecord.of(prompt, good)
                                    .withWeight(
                                            weights.isEmpty()
                                                    ? 1
                                                    : (float) weights.get(i % weights.size())
                                                            .asDouble());
                    });
        }
        return TokenizedDataset.of(Dataset.of(records), model.tokenizer(), DataConfig.ofMaxLength(512));
    }

    @ParameterizedTest
    @MethodSource("cases")
    void followsTrl(String name) {
        JsonNode settings = golden.get("settings");
        JsonNode expected = golden.get(name);
        Objective objective = objective(name, expected.get("settings"));
        int n = WHOLE.contains(name) ? settings.get("steps").asInt() : STEPS_OF_OTHERS;
        List<TrainingProgress> steps = new ArrayList<>();
        try (Adapter adapter = Adapter.create(
                model,
                LoraConfig.builder()
                        .rank(settings.get("rank").asInt())
                        .alpha(settings.get("alpha").asDouble())
                        .seed(settings.get("seed").asLong())
                        .targetModules(settings.get("target_modules").asText())
                        .build(),
                name.equals("reward") ? Labels.reward() : null)) {
            if (name.equals("reward")) {
                setHead(adapter);
            }
            if (objective.usesTeacher()) {
                setB(adapter);
            }
            TrainingConfig config = TrainingConfig.builder()
                    .shuffle(false)
                    .batchSize(settings.get("batch_size").asInt())
                    .learningRate(settings.get("learning_rate").asDouble())
                    .schedulerType(SchedulerType.CONSTANT)
                    .weightDecay(settings.get("weight_decay").asDouble())
                    .adamEpsilon(settings.get("adam_epsilon").asDouble())
                    .maxGradNorm(1)
                    .maxSteps(n)
                    .maxLength(512)
                    .build();
            Trainer trainer = new Trainer(model, adapter, config, objective);
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    steps.add(progress);
                }
            });
            train(trainer, data(objective, expected.get("settings")), objective, expected.get("settings"));
            assertThat(steps).hasSize(n);
            compare(steps, expected.get("steps"));
            if (WHOLE.contains(name)) {
                compare(adapter, expected.get("adapter"));
            }
        }
    }

    private void train(Trainer trainer, TokenizedDataset data, Objective objective, JsonNode settings) {
        if (!objective.usesTeacher()) {
            trainer.train(data);
            return;
        }
        Teacher teacher = new Teacher(
                model,
                null,
                settings.get("loss_top_k").asInt(),
                settings.get("temperature").asDouble());
        try (TeacherLogProbs said = teacher.logProbs(data, folder)) {
            trainer.train(data.withTeacher(said));
        }
    }

    private static void compare(List<TrainingProgress> steps, JsonNode expected) {
        for (int i = 0; i < steps.size(); i++) {
            Map<String, Double> values = new HashMap<>(steps.get(i).metrics());
            values.put("loss", steps.get(i).loss());
            JsonNode step = expected.get(i);
            Iterable<String> names = step::fieldNames;
            assertThat(values.keySet()).as("metrics of step %d", i + 1).containsExactlyInAnyOrderElementsOf(names);
            for (String name : names) {
                double value = step.get(name).asDouble();
                // A divergence is small.
                double size = step.has("mass/teacher") && name.equals("loss") ? value : Math.max(1, Math.abs(value));
                assertThat(values.get(name))
                        .as("%s of step %d", name, i + 1)
                        .isCloseTo(value, within(TOLERANCE * size));
            }
        }
    }

    private static void compare(Adapter adapter, JsonNode expected) {
        assertThat(adapter.tensors()).hasSize(expected.size());
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            JsonNode theirs = expected.get(tensors.get(i).name());
            float[] values = adapter.values(i);
            int[] random = Philox.numbers(7, values.length);
            double squares = 0;
            double sum = 0;
            for (int j = 0; j < values.length; j++) {
                squares += (double) values[j] * values[j];
                sum += (random[j] & 1) == 0 ? values[j] : -values[j];
            }
            double norm = theirs.get(0).asDouble();
            assertThat(Math.sqrt(squares)).as(tensors.get(i).name()).isCloseTo(norm, within(TOLERANCE * norm));
            assertThat(sum)
                    .as("elements of %s", tensors.get(i).name())
                    .isCloseTo(theirs.get(1).asDouble(), within(TOLERANCE * norm));
        }
    }
}
