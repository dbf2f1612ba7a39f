package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult.FinishReason;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Many texts at once next to the same texts one by one. */
class BatchGeneratorTest {
    private static Model model;
    private static ExampleEncoder encoder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        encoder = new ExampleEncoder(model.tokenizer(), PromptTemplate.INSTRUCTION, false);
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private static GenerationConfig config(int maxNewTokens, double temperature, long seed) {
        return GenerationConfig.builder()
                .maxNewTokens(maxNewTokens)
                .temperature(temperature)
                .seed(seed)
                .build();
    }

    private static List<Request> requests(double temperature) {
        List<Request> requests = new ArrayList<>();
        String[] questions = {"Who is Mr. Collins?", "Who marries Jane?", "Where is Longbourn?", "Why?"};
        for (int i = 0; i < 9; i++) {
            requests.add(
                    new Request(encoder.prompt(questions[i % 4], ""), config(6 + 5 * (i % 3), temperature, 100 + i)));
        }
        return requests;
    }

    private static Map<Integer, GenerationResult> generate(BatchGenerator generator, List<Request> requests) {
        Map<Integer, GenerationResult> results = new TreeMap<>();
        generator.generate(requests.iterator(), (number, result) -> results.put(number, result), () -> false);
        return results;
    }

    private static Adapter busyAdapter() {
        Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(2).build());
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] += (float) Math.sin(i + 0.7 * j) * 0.02f;
            }
            adapter.setValues(i, values);
        }
        return adapter;
    }

    @Test
    void textsAreThoseThatComeOneByOne() {
        try (Adapter adapter = busyAdapter()) {
            for (List<ScaledAdapter> adapters :
                    List.of(List.<ScaledAdapter>of(), List.of(new ScaledAdapter(adapter, 1)))) {
                for (double temperature : new double[] {0, 0.8}) {
                    List<Request> requests = requests(temperature);
                    try (BatchGenerator many = new BatchGenerator(model, adapters, 4, 256);
                            Generator single = new Generator(model, adapters)) {
                        Map<Integer, GenerationResult> results = generate(many, requests);
                        assertThat(results).hasSize(requests.size());
                        for (int i = 0; i < requests.size(); i++) {
                            GenerationResult expected = single.generate(
                                            requests.get(i).prompt(),
                                            requests.get(i).config())
                                    .result();
                            assertThat(results.get(i).text()).as("text %d", i).isEqualTo(expected.text());
                            assertThat(results.get(i).finishReason()).isEqualTo(expected.finishReason());
                            assertThat(results.get(i).generatedTokens()).isEqualTo(expected.generatedTokens());
                        }
                    }
                }
            }
        }
    }

    @Test
    void aPromptThatManyShareIsProcessedOnce() {
        int[] prompt = encoder.prompt("Who is Mr. Collins?", "");
        List<Request> requests = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            requests.add(new Request(prompt, config(8, 1, i)));
        }
        try (BatchGenerator generator = new BatchGenerator(model, List.of(), 3, 256)) {
            Map<Integer, GenerationResult> results = generate(generator, requests);
            assertThat(results.get(0).reusedTokens()).isZero();
            for (int i = 1; i < 6; i++) {
                assertThat(results.get(i).reusedTokens()).isEqualTo(prompt.length - 1);
            }
            assertThat(results.values().stream()
                            .map(GenerationResult::text)
                            .distinct()
                            .count())
                    .as("each has its own seed")
                    .isGreaterThan(1);
        }
    }

    @Test
    void aTextEndsWhereItsPositionsDoAndOthersGoOn() {
        int[] prompt = encoder.prompt("Who is Mr. Collins?", "");
        GenerationConfig endless =
                GenerationConfig.builder().maxNewTokens(1000).temperature(0.9).build();
        try (BatchGenerator generator = new BatchGenerator(model, List.of(), 2, prompt.length + 5)) {
            Map<Integer, GenerationResult> results =
                    generate(generator, List.of(new Request(prompt, endless), new Request(prompt, config(3, 0, 1))));
            assertThat(results.get(0).finishReason()).isIn(FinishReason.CONTEXT_FULL, FinishReason.END_OF_TEXT);
            assertThat(results.get(0).generatedTokens()).isLessThanOrEqualTo(6);
            assertThat(results.get(1).finishReason()).isEqualTo(FinishReason.MAX_NEW_TOKENS);
            int[] tooLong = Arrays.copyOf(prompt, prompt.length + 6);
            assertThatThrownBy(() -> generate(generator, List.of(new Request(tooLong, endless))))
                    .hasMessageContaining("more than the " + (prompt.length + 5) + " positions");
            assertThat(generate(generator, List.of(new Request(prompt, config(3, 0, 1))))
                            .get(0)
                            .text())
                    .as("it is of use after an error")
                    .isEqualTo(results.get(1).text());
        }
    }

    @Test
    void aStopEndsAllTexts() {
        int[] asked = {0};
        Map<Integer, GenerationResult> results = new TreeMap<>();
        try (BatchGenerator generator = new BatchGenerator(model, List.of(), 2, 256)) {
            generator.generate(requests(0.8).iterator(), results::put, () -> ++asked[0] > 3);
        }
        assertThat(results).hasSize(2);
        assertThat(results.values())
                .allMatch(result -> result.finishReason() == FinishReason.CANCELLED && result.generatedTokens() == 3);
    }
}
