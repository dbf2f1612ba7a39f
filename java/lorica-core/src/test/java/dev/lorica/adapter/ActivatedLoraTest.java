package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.convert.ModelFiles;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.Generator;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingResult;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** LoRAs that begin at their invocation (aLoRA): made of a text, saved, trained, and asked in conversations. */
class ActivatedLoraTest {
    private static final String INVOCATION = "### Response:";
    private static Model model;
    private static ExampleEncoder encoder;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        encoder = new ExampleEncoder(model.tokenizer(), PromptTemplate.INSTRUCTION, false);
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private static LoraConfig.Builder config() {
        return LoraConfig.builder().rank(4).aloraInvocation(INVOCATION);
    }

    private static Adapter busy(LoraConfig config) {
        Adapter adapter = Adapter.create(model, config);
        for (int i = 1; i < adapter.tensors().size(); i += 2) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] = (float) Math.sin(i + 0.7 * j) * 0.05f;
            }
            adapter.setValues(i, values);
        }
        return adapter;
    }

    private static int[] tokens() {
        return model.tokenizer().encode(INVOCATION, false, true);
    }

    @Test
    void theTokensOfTheTextAreInItsFiles() throws IOException {
        List<Integer> expected = Arrays.stream(tokens()).boxed().toList();
        try (Adapter adapter = busy(config().build())) {
            assertThat(adapter.info().invocationTokens()).isEqualTo(expected);
            assertThat(adapter.invocation()).contains(INVOCATION, "(tokens " + expected.get(0));
            adapter.save(folder.resolve("gguf"));
            adapter.exportPeft(folder.resolve("peft"), "base");
            assertThat(Files.readString(folder.resolve("peft").resolve(Adapter.PEFT_CONFIG_NAME)))
                    .contains("\"alora_invocation_tokens\"");
            for (String format : List.of("gguf", "peft")) {
                try (Adapter again = Adapter.load(model, folder.resolve(format))) {
                    assertThat(again.info().invocationTokens()).isEqualTo(expected);
                    assertThat(text(again, prompt("Who is Jane?"))).isEqualTo(text(adapter, prompt("Who is Jane?")));
                }
            }
            assertThat(text(adapter, prompt("Who is Jane?"))).isNotEqualTo(text(null, prompt("Who is Jane?")));
            int[] without = model.tokenizer().encode("It is a truth universally acknowledged, that", true, true);
            assertThat(text(adapter, without)).isEqualTo(text(null, without));
            assertThatThrownBy(() -> ModelFiles.merge(adapter, folder.resolve("merged.gguf"), null))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("before its invocation");
        }
        assertThatThrownBy(() -> config().useDora(true).build()).isInstanceOf(InvalidArgumentException.class);
        assertThatThrownBy(() -> config().aloraInvocationTokens(List.of(1)).build())
                .isInstanceOf(InvalidArgumentException.class);
    }

    @Test
    void aConversationGoesOnInTheCacheAsItIsFromTheStart() {
        try (Adapter adapter = busy(config().build());
                Generator kept = new Generator(model, adapter)) {
            int[] turns = prompt("Who is Mr. Collins?");
            for (String question : List.of("Who marries Jane?", "Where is Longbourn?", "Why?")) {
                GenerationResult answer = generate(kept, turns);
                assertThat(answer.text()).isEqualTo(text(adapter, turns));
                int[] more = model.tokenizer()
                        .encode("\n\n### Instruction:\n" + question + "\n\n" + INVOCATION + "\n", false, true);
                turns = Stream.of(turns, answer.tokens(), more)
                        .flatMapToInt(Arrays::stream)
                        .toArray();
            }
            assertThat(generate(kept, turns).reusedTokens()).isPositive();
        }
    }

    @Test
    void manyTextsAreThoseThatComeOneByOne() {
        List<Request> requests = IntStream.range(0, 7)
                .mapToObj(i ->
                        new Request(prompt(i % 3 == 0 ? "Why?" : "Who is number " + i + "?"), greedy(6 + 4 * (i % 3))))
                .toList();
        try (Adapter adapter = busy(config().build());
                BatchGenerator many = new BatchGenerator(model, List.of(new ScaledAdapter(adapter, 1)), 3, 256)) {
            Map<Integer, GenerationResult> results = new TreeMap<>();
            many.generate(requests.iterator(), (number, result) -> results.put(number, result), () -> false);
            for (int i = 0; i < requests.size(); i++) {
                try (Generator single = new Generator(model, adapter)) {
                    assertThat(results.get(i).text())
                            .isEqualTo(single.generate(
                                            requests.get(i).prompt(),
                                            requests.get(i).config())
                                    .result()
                                    .text());
                }
            }
        }
    }

    @Test
    void recordsWithoutTheInvocationAreCountedAndOneMustHaveIt() throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.jsonl"),
                "{\"text\": \"Nothing to answer.\"}\n{\"text\": \"Ask. " + INVOCATION + " It is.\"}\n");
        TokenizedDataset examples =
                TokenizedDataset.of(Dataset.load(data), model.tokenizer(), DataConfig.ofMaxLength(64));
        List<Integer> middle = Arrays.stream(model.tokenizer().encode("Ask. " + INVOCATION, false, true))
                .skip(model.tokenizer().encode("Ask.", false, true).length)
                .boxed()
                .toList();
        try (Adapter adapter = Adapter.create(
                        model,
                        config().aloraInvocation("")
                                .aloraInvocationTokens(middle)
                                .build());
                Adapter foreign = Adapter.create(
                        model, config().aloraInvocation("never seen").build())) {
            Trainer trainer = new Trainer(
                    model,
                    adapter,
                    TrainingConfig.builder().maxSteps(2).learningRate(1e-2).build());
            assertThat(trainer.withoutInvocation(examples)).isEqualTo(1);
            TrainingResult result = trainer.train(examples);
            assertThat(result.steps()).isEqualTo(2);
            assertThat(adapter.hasEffect()).isTrue();
            assertThatThrownBy(() -> new Trainer(
                                    model,
                                    foreign,
                                    TrainingConfig.builder().maxSteps(2).build())
                            .train(examples))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("no training example has the invocation of the adapter, \"never seen\"");
        }
    }

    private static int[] prompt(String question) {
        return encoder.prompt(question, "");
    }

    private static GenerationConfig greedy(int tokens) {
        return GenerationConfig.builder().maxNewTokens(tokens).temperature(0).build();
    }

    private static GenerationResult generate(Generator generator, int[] prompt) {
        return generator.generate(prompt, greedy(12)).result();
    }

    private static String text(Adapter adapter, int[] prompt) {
        try (Generator generator = new Generator(model, adapter)) {
            return generate(generator, prompt).text();
        }
    }
}
