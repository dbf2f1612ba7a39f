package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterConfig;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.PrefixTuningConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluator;
import dev.lorica.eval.TokenScorer;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult.FinishReason;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Texts that come and go, next to the same texts one by one. */
@Timeout(900)
class GenerationServiceTest {
    private static final long PATIENCE_MILLIS = 240_000;
    /** Of what depends on whether an endless text, which takes less than a second, goes on meanwhile. */
    private static final int TRIES = 20;

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

    private static GenerationService service(int texts, int waiting) {
        return new GenerationService(model, new GenerationService.Config(texts, 512, waiting));
    }

    /** Does not end before its tokens do, or its cancelling. */
    private static Request endless() {
        Map<Integer, Double> goesOn = Map.of(model.tokenizer().info().eos(), -100.0);
        return new Request(
                encoder.prompt("Who?", ""),
                GenerationConfig.builder().maxNewTokens(480).logitBias(goesOn).build());
    }

    private static Request question(String question, int tokens, double temperature) {
        return new Request(
                encoder.prompt(question, ""),
                GenerationConfig.builder()
                        .maxNewTokens(tokens)
                        .temperature(temperature)
                        .seed(tokens)
                        .build());
    }

    private static Adapter busyAdapter(double size) {
        return busy(LoraConfig.builder().rank(2).build(), size);
    }

    private static Adapter busy(AdapterConfig config, double size) {
        Adapter adapter = Adapter.create(model, config);
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] += (float) (Math.sin(i + 0.7 * j) * size);
            }
            adapter.setValues(i, values);
        }
        return adapter;
    }

    @Test
    void textsOfSeveralAdaptersAreThoseThatComeOneByOne() throws Exception {
        try (Adapter one = busyAdapter(0.02);
                Adapter other = busyAdapter(-0.03);
                GenerationService service = service(4, 100)) {
            List<List<ScaledAdapter>> applied = List.of(
                    List.of(),
                    List.of(new ScaledAdapter(one, 1)),
                    List.of(new ScaledAdapter(one, 0.5), new ScaledAdapter(other, 1)));
            // more than a piece of a prompt, behind which shorter ones wait
            String longQuestion = "Who is Mr. Collins, and who is his patroness? ".repeat(16);
            List<Request> requests = List.of(
                    question(longQuestion, 9, 0),
                    question("Who is Mr. Collins?", 20, 0),
                    question("Who marries Jane?", 14, 0.8),
                    question("Who is Mr. Collins?", 5, 0.8));
            List<StreamedText> texts = new ArrayList<>();
            for (Request request : requests) {
                for (List<ScaledAdapter> adapters : applied) {
                    texts.add(service.submit(request, adapters));
                }
            }
            int next = 0;
            for (Request request : requests) {
                for (List<ScaledAdapter> adapters : applied) {
                    StringBuilder streamed = new StringBuilder();
                    StreamedText text = texts.get(next++);
                    for (StreamedText.Piece piece = text.next(PATIENCE_MILLIS);
                            piece != null;
                            piece = text.next(PATIENCE_MILLIS)) {
                        streamed.append(piece.text());
                    }
                    try (Generator single = new Generator(model, adapters)) {
                        GenerationResult expected = single.generate(request.prompt(), request.config())
                                .result();
                        assertThat(streamed.toString()).as("text %d", next).isEqualTo(expected.text());
                        assertThat(text.result().text()).isEqualTo(expected.text());
                        assertThat(text.result().finishReason()).isEqualTo(expected.finishReason());
                        assertThat(text.result().tokens()).isEqualTo(expected.tokens());
                    }
                }
            }
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MILLIS);
            while (service.load().running() > 0 && System.nanoTime() < end) {
                Thread.sleep(5); // the last text is there before its place is free
            }
            assertThat(service.load().running()).isZero();
            assertThat(service.load().reusedTokens()).isPositive();
        }
    }

    @Test
    void adaptersOfEveryKindAreServedBesideOneAnother() throws Exception {
        try (Adapter lora = busy(LoraConfig.builder().rank(2).build(), 0.02);
                Adapter wide = busy(LoraConfig.builder().rank(5).build(), -0.03);
                Adapter dora = busy(LoraConfig.builder().rank(3).useDora(true).build(), 0.03);
                Adapter prefix = busy(PrefixTuningConfig.of(4), 0.5);
                GenerationService service = service(5, 100)) {
            List<StreamedText> texts = new ArrayList<>();
            List<List<ScaledAdapter>> applied = new ArrayList<>(List.of(List.of()));
            List.of(lora, wide, dora, prefix).forEach(one -> applied.add(List.of(new ScaledAdapter(one, 1))));
            Request request = new Request(
                    encoder.prompt("Who is Mr. Collins?", ""),
                    GenerationConfig.builder()
                            .maxNewTokens(16)
                            .temperature(0)
                            .logProbs(0)
                            .build());
            for (List<ScaledAdapter> adapters : applied) {
                texts.add(service.submit(request, adapters));
            }
            Set<String> different = new HashSet<>();
            for (int i = 0; i < applied.size(); i++) {
                GenerationResult together = texts.get(i).result();
                try (Generator single = new Generator(model, applied.get(i))) {
                    GenerationResult alone =
                            single.generate(request.prompt(), request.config()).result();
                    assertThat(together.tokens()).as("adapter %d", i).isEqualTo(alone.tokens());
                    for (int token = 0; token < alone.logProbs().size(); token++) {
                        assertThat(together.logProbs().get(token).logProb())
                                .isEqualTo(alone.logProbs().get(token).logProb(), within(1e-4));
                    }
                    different.add(alone.logProbs().toString());
                }
            }
            assertThat(different).hasSameSizeAs(applied);
            for (List<ScaledAdapter> adapters : applied) {
                service.forget(adapters);
            }
        }
    }

    @Test
    void cancelledTextsGiveTheirPlacesToThoseThatWait() throws Exception {
        int tries = 0;
        while (!cancelledTextsGiveTheirPlaces()) {
            assertThat(++tries).as("texts that ended by themselves").isLessThan(TRIES);
        }
    }

    /** False where the text that has the only place came to its end. */
    private static boolean cancelledTextsGiveTheirPlaces() throws Exception {
        try (GenerationService service = service(1, 2)) {
            StreamedText running = service.submit(endless(), List.of());
            assertThat(running.next(PATIENCE_MILLIS)).isNotNull();
            StreamedText waits = service.submit(endless(), List.of());
            StreamedText last = service.submit(question("Who?", 3, 0), List.of());

            Throwable busy = catchThrowable(() -> service.submit(question("Who?", 3, 0), List.of()));
            waits.cancel();
            GenerationResult unbegun = waits.result();
            boolean isOver = last.isOver();
            running.cancel();
            if (running.result().finishReason() != FinishReason.CANCELLED) {
                return false;
            }
            assertThat(busy)
                    .isInstanceOf(BusyException.class)
                    .hasMessageContaining("2 texts are waiting already, and 2 may wait");
            assertThat(unbegun.finishReason()).isEqualTo(FinishReason.CANCELLED);
            assertThat(unbegun.generatedTokens()).isZero();
            assertThat(isOver).isFalse();
            assertThat(running.result().generatedTokens()).isBetween(1, 479);
            assertThat(last.result().generatedTokens()).isPositive();
            assertThat(running.next(0))
                    .as("what it had, or that it is over")
                    .satisfiesAnyOf(piece -> assertThat(piece).isNull(), piece -> assertThat(piece.text())
                            .isNotEmpty());
            return true;
        }
    }

    @Test
    void severalTextsOfOneRequestWaitAllOrNone() throws Exception {
        try (GenerationService service = service(1, 2)) {
            assertThatThrownBy(() -> service.submit(List.of(endless(), endless(), endless(), endless()), List.of()))
                    .isInstanceOf(BusyException.class);
            assertThat(service.load().waiting()).isZero();
            Request brief = question("Who?", 2, 0);
            for (StreamedText text : service.submit(List.of(brief, brief, brief), List.of())) {
                assertThat(text.result().generatedTokens()).isPositive();
            }
        }
    }

    @Test
    void closingEndsAllTextsAndItsThread() throws Exception {
        int tries = 0;
        while (!closingEndsAllTexts()) {
            assertThat(++tries).as("texts that ended by themselves").isLessThan(TRIES);
        }
    }

    /** False where the text that has the only place came to its end. */
    private static boolean closingEndsAllTexts() throws Exception {
        GenerationService service = service(1, 2);
        StreamedText running = service.submit(endless(), List.of());
        StreamedText waits = service.submit(endless(), List.of());
        assertThat(running.next(PATIENCE_MILLIS)).isNotNull();

        service.close();

        Throwable closed = catchThrowable(running::result);
        if (closed == null) {
            return false;
        }
        assertThat(closed).isInstanceOf(LoricaException.class);
        assertThat(waits.result().finishReason()).isEqualTo(FinishReason.CANCELLED);
        assertThat(Thread.getAllStackTraces().keySet())
                .noneMatch(thread -> thread.getName().equals("lorica-generation"));
        assertThatThrownBy(() -> service.submit(endless(), List.of())).isInstanceOf(IllegalStateException.class);
        return true;
    }

    @Test
    void aTextThatCannotGoOnLeavesTheOthersAlone() throws Exception {
        try (GenerationService service = service(2, 2)) {
            StreamedText good = service.submit(question("Who is Mr. Collins?", 20, 0), List.of());
            GenerationConfig wrong =
                    GenerationConfig.builder().logitBias(Map.of(1 << 30, 1.0)).build();
            StreamedText bad = service.submit(new Request(encoder.prompt("Who?", ""), wrong), List.of());

            assertThatThrownBy(bad::result).isInstanceOf(InvalidArgumentException.class);
            assertThatThrownBy(() -> bad.next(10)).isInstanceOf(InvalidArgumentException.class);
            assertThat(good.result().generatedTokens()).isPositive();
            assertThatThrownBy(() -> service.submit(new Request(new int[513], wrong), List.of()))
                    .hasMessageContaining("the prompt has 513 tokens, more than the 512 positions of a text");
        }
    }

    @Test
    void anAdapterThatIsForgottenMayBeClosedAndOthersGoOn() throws Exception {
        try (GenerationService service = service(2, 8)) {
            for (int i = 0; i < 3; i++) {
                try (Adapter adapter = busyAdapter(0.02)) {
                    List<ScaledAdapter> applied = List.of(new ScaledAdapter(adapter, 1));
                    assertThat(service.submit(question("Who?", 3, 0), applied)
                                    .result()
                                    .generatedTokens())
                            .isPositive();
                    service.forget(applied);
                }
            }
            assertThat(service.submit(question("Who?", 3, 0), List.of())
                            .result()
                            .generatedTokens())
                    .isPositive();
        }
    }

    @Test
    void logProbsOfWhatIsGeneratedAreThoseOfTheSameTextScored() throws Exception {
        try (Adapter adapter = busyAdapter(0.02);
                GenerationService service = service(2, 8)) {
            List<ScaledAdapter> applied = List.of(new ScaledAdapter(adapter, 1));
            Request request = new Request(
                    encoder.prompt("Who is Mr. Collins?", ""),
                    GenerationConfig.builder()
                            .maxNewTokens(12)
                            .temperature(1.3)
                            .repetitionPenalty(1.2)
                            .logProbs(3)
                            .build());
            GenerationResult result = service.submit(request, applied).result();
            int[] all = Arrays.copyOf(request.prompt(), request.prompt().length + result.tokens().length);
            System.arraycopy(result.tokens(), 0, all, request.prompt().length, result.tokens().length);

            List<TokenLogProbs> scored = new TokenScorer(model, applied).score(all, 3);

            List<TokenLogProbs> generated = scored.subList(request.prompt().length - 1, scored.size());
            assertThat(result.logProbs()).hasSameSizeAs(generated).hasSize(result.generatedTokens());
            for (int i = 0; i < generated.size(); i++) {
                TokenLogProbs own = result.logProbs().get(i);
                assertThat(own.token()).isEqualTo(generated.get(i).token());
                assertThat(own.logProb()).isEqualTo(generated.get(i).logProb(), within(1e-4));
                assertThat(own.likeliest()).hasSize(3);
                assertThat(own.likeliest().get(0).token())
                        .isEqualTo(generated.get(i).likeliest().get(0).token());
            }
        }
    }

    @Test
    void scoresAreTheLossesOfAnEvaluation() {
        DataConfig config = DataConfig.ofMaxLength(512).withTemplate(PromptTemplate.INSTRUCTION);
        Dataset data = Dataset.of(List.of(DataRecord.of("Who is Mr. Collins?", "A clergyman, and heir of Longbourn.")));
        TokenizedDataset examples = TokenizedDataset.of(data, model.tokenizer(), config);
        try (Adapter adapter = busyAdapter(0.02)) {
            Example example = examples.examples().get(0);
            List<TokenLogProbs> scores =
                    new TokenScorer(model, List.of(new ScaledAdapter(adapter, 1))).score(example.ids(), 0);
            double sum = 0;
            int trained = 0;
            for (int i = 1; i < example.length(); i++) {
                sum -= example.trained()[i] ? scores.get(i - 1).logProb() : 0;
                trained += example.trained()[i] ? 1 : 0;
            }
            assertThat(new Evaluator(model, adapter).evaluate(examples, 1).loss())
                    .isEqualTo(sum / trained, within(1e-4));
        }
    }
}
