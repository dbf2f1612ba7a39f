package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class GeneratorTest {
    private static final String PROMPT = "It is a truth universally acknowledged, that";
    /** Of what depends on which of two threads comes first. */
    private static final int TRIES = 20;

    private static Model model;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void thePiecesAreTheText() {
        try (Generator generator = new Generator(model)) {
            Generation generation = generator.generate(PROMPT, greedy(24).build());
            List<String> pieces = new ArrayList<>();
            generation.forEach(pieces::add);
            GenerationResult result = generation.result();

            assertThat(pieces).hasSizeGreaterThan(5).doesNotContain("");
            assertThat(result.text()).isEqualTo(String.join("", pieces));
            assertThat(result.finishReason()).isEqualTo(FinishReason.MAX_NEW_TOKENS);
            assertThat(result.generatedTokens()).isEqualTo(24);
            assertThat(result.promptTokens()).isEqualTo(model.tokenizer().encode(PROMPT, true, true).length);
            assertThat(result.reusedTokens()).isZero();
            assertThat(result.tokensPerSecond()).isPositive();
        }
    }

    @Test
    @Timeout(600)
    void aCancelledGenerationEndsWithWhatThereIs() throws Exception {
        try (Generator generator = new Generator(model)) {
            Generation generation = generator.generate(PROMPT, greedy(500).build());
            StringBuilder seen = new StringBuilder();
            for (String piece : generation) {
                seen.append(piece);
                if (seen.length() > 20) {
                    generation.cancel();
                }
            }
            assertThat(generation.result().finishReason()).isEqualTo(FinishReason.CANCELLED);
            assertThat(generation.result().text()).isEqualTo(seen.toString());
            assertThat(generation.result().generatedTokens()).isLessThan(60);

            // The generator goes on, and with the same text as a new one.
            String after =
                    generator.generate(PROMPT, greedy(8).build()).result().text();
            try (Generator fresh = new Generator(model)) {
                assertThat(after)
                        .isEqualTo(fresh.generate(PROMPT, greedy(8).build())
                                .result()
                                .text());
            }
        }
    }

    @Test
    @Timeout(600)
    void aPromptIsCancelledFromAnotherThreadAndByClosing() throws Exception {
        int[] prompt = new int[model.info().contextLength() - 1];
        Arrays.fill(prompt, 100);
        ExecutorService executor = Executors.newSingleThreadExecutor();
        try (Generator generator = new Generator(model)) {
            Generation whole = generator.generate(prompt, greedy(1).build());
            double seconds = whole.result().promptSeconds();
            int tries = 0;
            while (!isCancelled(generator, other(prompt, 101 + tries), seconds, executor)) {
                assertThat(++tries).as("prompts that were complete before").isLessThan(TRIES);
            }
            tries = 0;
            while (!isClosed(other(prompt, 101 + tries), seconds, executor)) {
                assertThat(++tries)
                        .as("prompts that were complete before, or closed late")
                        .isLessThan(TRIES);
            }
        } finally {
            executor.shutdown();
        }
    }

    /** False where the prompt was complete before this thread came to cancel it. */
    private static boolean isCancelled(Generator generator, int[] prompt, double seconds, ExecutorService executor)
            throws Exception {
        Generation cancelled = generator.generate(prompt, greedy(1).build());
        Future<GenerationResult> result = executor.submit(cancelled::result);
        Thread.sleep((long) (seconds * 100));
        cancelled.cancel();
        if (result.get().finishReason() == FinishReason.MAX_NEW_TOKENS) {
            return false;
        }
        assertThat(result.get().finishReason()).isEqualTo(FinishReason.CANCELLED);
        assertThat(result.get().text()).isEmpty();
        return true;
    }

    /** False where the prompt was complete before this thread came to close its generator, or it was kept from that for long. */
    private static boolean isClosed(int[] prompt, double seconds, ExecutorService executor) throws Exception {
        Generator generator = new Generator(model);
        Generation closed = generator.generate(prompt, greedy(1).build());
        Future<GenerationResult> result = executor.submit(closed::result);
        Thread.sleep((long) (seconds * 100));
        long begin = System.nanoTime();
        generator.close();
        boolean isSoon = (System.nanoTime() - begin) / 1e9 < Math.max(0.5, seconds / 2);
        try {
            FinishReason reason = result.get().finishReason();
            assertThat(reason).isIn(FinishReason.CANCELLED, FinishReason.MAX_NEW_TOKENS);
            return isSoon && reason == FinishReason.CANCELLED;
        } catch (ExecutionException e) { // it had not begun
            assertThat(e.getCause()).hasMessage("the generator is closed");
            return isSoon;
        }
    }

    private static int[] other(int[] prompt, int token) {
        int[] other = prompt.clone();
        Arrays.fill(other, token);
        return other;
    }

    @Test
    void greedyTextIsWhatTheModelFindsLikeliest() {
        int[] prompt = model.tokenizer().encode(PROMPT, true, true);
        String generated;
        try (Generator generator = new Generator(model)) {
            generated = generator.generate(PROMPT, greedy(8).build()).result().text();
        }
        // Each token again from a cache of its own, which has never seen another text.
        int[] text = prompt;
        float[] logits = new float[model.info().vocabSize()];
        Sampler likeliest = new Sampler(greedy(1).build());
        for (int i = 0; i < 8; i++) {
            try (KvCache cache = new KvCache(model, null, 64)) {
                cache.append(text, logits);
            }
            text = Arrays.copyOf(text, text.length + 1);
            text[text.length - 1] = likeliest.sample(logits, text, text.length - 1);
        }
        assertThat(generated).isEqualTo(model.tokenizer().decode(Arrays.copyOfRange(text, prompt.length, text.length)));
    }

    @Test
    void theSameSeedGivesTheSameTextAndAnotherAnother() {
        assertThat(sampled(1)).isEqualTo(sampled(1)).isNotEqualTo(sampled(2));
    }

    @Test
    void aPromptThatBeginsLikeTheLastTextIsProcessedFromWhereItDiffers() {
        try (Generator generator = new Generator(model);
                Generator fresh = new Generator(model)) {
            generator.generate(PROMPT, greedy(8).build()).result();
            String longer = PROMPT + " a young lady";
            GenerationResult reused =
                    generator.generate(longer, greedy(8).build()).result();
            GenerationResult whole = fresh.generate(longer, greedy(8).build()).result();

            assertThat(reused.reusedTokens()).isGreaterThanOrEqualTo(8).isLessThan(reused.promptTokens());
            assertThat(whole.reusedTokens()).isZero();
            assertThat(reused.text()).isEqualTo(whole.text());
            // the same prompt again: only its last token, whose logits are wanted
            GenerationResult again =
                    generator.generate(longer, greedy(8).build()).result();
            assertThat(again.reusedTokens()).isEqualTo(again.promptTokens() - 1);
            assertThat(again.text()).isEqualTo(whole.text());
        }
    }

    @Test
    void endsBeforeAStopString() {
        try (Generator generator = new Generator(model)) {
            String text =
                    generator.generate(PROMPT, greedy(24).build()).result().text();
            // across the borders of several tokens
            String stop = text.substring(11, 22);
            Generation generation = generator.generate(
                    PROMPT, greedy(24).stop("never said", stop).build());
            StringBuilder pieces = new StringBuilder();
            generation.forEach(pieces::append);

            assertThat(generation.result().text()).isEqualTo(text.substring(0, text.indexOf(stop)));
            assertThat(pieces.toString()).isEqualTo(generation.result().text());
            assertThat(generation.result().finishReason()).isEqualTo(FinishReason.STOP_STRING);
            assertThat(generation.result().generatedTokens()).isLessThan(24);
        }
    }

    @Test
    void endsWhenTheContextIsFull() {
        int context = model.info().contextLength();
        int[] prompt = new int[context - 3];
        Arrays.fill(prompt, model.tokenizer().encode(" very", false, false)[0]);
        try (Generator generator = new Generator(model)) {
            GenerationResult result =
                    generator.generate(prompt, greedy(100).build()).result();

            assertThat(result.finishReason()).isEqualTo(FinishReason.CONTEXT_FULL);
            // one more than there are positions: the last one is never read again
            assertThat(result.generatedTokens()).isEqualTo(4);
        }
    }

    @Test
    void refusesPromptsThatCannotBeProcessed() {
        int context = model.info().contextLength();
        try (Generator generator = new Generator(model)) {
            assertThatThrownBy(() ->
                            generator.generate(new int[context + 1], greedy(1).build()))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("the prompt has " + (context + 1) + " tokens, more than the " + context
                            + " of the model's context");
            assertThatThrownBy(() -> generator.generate(new int[0], greedy(1).build()))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("the prompt is empty");
            assertThatThrownBy(() -> generator
                            .generate(
                                    new int[] {model.info().vocabSize()},
                                    greedy(1).build())
                            .result())
                    .isInstanceOf(InvalidArgumentException.class);
        }
    }

    @Test
    void aModelAnswersWhatItWasTrainedToAndStopsThere() {
        String question = "Who is Mr. Collins?";
        String answer = "A clergyman, and cousin to Mr. Bennet.";
        try (Adapter adapter = Adapter.create(
                        model, LoraConfig.builder().rank(8).alpha(16).build());
                Generator generator = new Generator(model, adapter)) {
            String before = generator.ask(question, greedy(40).build()).result().text();

            TrainingConfig config =
                    TrainingConfig.builder().epochs(40).learningRate(2e-3).build();
            new Trainer(model, adapter, config).train(Dataset.of(List.of(DataRecord.of(question, answer))));
            GenerationResult after = generator.ask(question, greedy(40).build()).result();

            assertThat(before).isNotEqualTo(answer);
            assertThat(after.text()).isEqualTo(answer);
            assertThat(after.finishReason()).isEqualTo(FinishReason.END_OF_TEXT);
            // what was in the cache belonged to another adapter
            assertThat(after.reusedTokens()).isZero();

            adapter.setScale(0);
            assertThat(generator.ask(question, greedy(40).build()).result().text())
                    .isEqualTo(before);
        }
    }

    @Test
    void eachTextIsGeneratedWithTheAdaptersThatItAsksFor() {
        try (Adapter one = loud(1);
                Adapter other = loud(2);
                Adapter both = Adapter.stack(model, List.of(new ScaledAdapter(one, 1), new ScaledAdapter(other, 0.5)));
                Generator generator = new Generator(model);
                Generator ofOne = new Generator(model, one);
                Generator ofSum = new Generator(model, both)) {
            GenerationConfig config = greedy(12).build();
            String base = generator.generate(PROMPT, config).result().text();
            String withOne = ofOne.generate(PROMPT, config).result().text();
            String withBoth = ofSum.generate(PROMPT, config).result().text();
            assertThat(List.of(base, withOne, withBoth)).doesNotHaveDuplicates();

            List<ScaledAdapter> sum = List.of(new ScaledAdapter(one, 1), new ScaledAdapter(other, 0.5));
            GenerationResult first = generator.generate(PROMPT, config, sum).result();
            assertThat(first.text()).isEqualTo(withBoth);
            // what was in the cache was the base's
            assertThat(first.reusedTokens()).isZero();
            assertThat(generator.generate(PROMPT, config, sum).result().reusedTokens())
                    .isPositive();
            GenerationResult next = generator
                    .generate(PROMPT, config, List.of(new ScaledAdapter(one, 1)))
                    .result();
            assertThat(next.text()).isEqualTo(withOne);
            assertThat(next.reusedTokens()).isZero();
            assertThat(generator.generate(PROMPT, config).result().text()).isEqualTo(base);

            // An adapter that changes is seen in sums too.
            other.setScale(0);
            assertThat(generator.generate(PROMPT, config, sum).result().text()).isEqualTo(withOne);
        }
    }

    @Test
    void adaptersOfAnotherModelAndScalesThatAreNoNumbersAreRefused() {
        try (Model twin = Model.load(TestModels.austen());
                Adapter foreign = Adapter.create(twin, LoraConfig.defaults());
                Generator generator = new Generator(model)) {
            List<ScaledAdapter> adapters = List.of(new ScaledAdapter(foreign, 1));
            assertThatThrownBy(() -> generator.generate(PROMPT, greedy(1).build(), adapters))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageStartingWith("the adapter belongs to another model");
            assertThatThrownBy(() -> Adapter.stack(model, adapters)).isInstanceOf(InvalidArgumentException.class);
            assertThatThrownBy(() -> Adapter.stack(model, List.of()))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("there are no adapters to stack");
            assertThatThrownBy(() -> new ScaledAdapter(foreign, Double.NaN))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("the scale of an adapter is NaN; it must be finite");
        }
    }

    @Test
    void aGenerationCanBeWalkedThroughOnce() {
        try (Generator generator = new Generator(model)) {
            Generation generation = generator.generate(PROMPT, greedy(2).build());
            generation.iterator();

            assertThatIllegalStateException().isThrownBy(generation::iterator);
        }
    }

    @Test
    void anAbandonedGenerationCannotGoOn() {
        try (Generator generator = new Generator(model)) {
            Iterator<String> first =
                    generator.generate(PROMPT, greedy(8).build()).iterator();
            first.next();
            generator.generate(PROMPT, greedy(2).build()).result();

            assertThatIllegalStateException()
                    .isThrownBy(() -> first.forEachRemaining(piece -> {}))
                    .withMessage("another generation was begun on this generator");
        }
    }

    @Test
    void aClosedGeneratorGeneratesNothing() {
        Generator generator = new Generator(model);
        Iterator<String> pieces = generator.generate(PROMPT, greedy(8).build()).iterator();
        pieces.next();
        generator.close();
        generator.close();

        assertThatIllegalStateException()
                .isThrownBy(() -> pieces.forEachRemaining(piece -> {}))
                .withMessage("the generator is closed");
        assertThatIllegalStateException()
                .isThrownBy(() -> generator.generate(PROMPT, greedy(1).build()));
    }

    @Test
    void aClosedAdapterIsNotUsed() {
        Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(2).build());
        try (Generator generator = new Generator(model, adapter)) {
            generator.generate(PROMPT, greedy(1).build()).result();
            adapter.close();

            assertThatIllegalStateException()
                    .isThrownBy(
                            () -> generator.generate(PROMPT, greedy(1).build()).result())
                    .withMessage("the adapter is closed");
        }
    }

    /** An adapter with an effect. */
    private static Adapter loud(int seed) {
        Adapter adapter = Adapter.create(
                model, LoraConfig.builder().rank(2 + seed).seed(seed).build());
        for (int i = 1; i < adapter.tensors().size(); i += 2) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] = (float) (0.03 * Math.sin(seed + 7.0 * i + j));
            }
            adapter.setValues(i, values);
        }
        return adapter;
    }

    private static String sampled(long seed) {
        try (Generator generator = new Generator(model)) {
            GenerationConfig config = GenerationConfig.builder()
                    .maxNewTokens(24)
                    .temperature(1)
                    .seed(seed)
                    .build();
            return generator.generate(PROMPT, config).result().text();
        }
    }

    private static GenerationConfig.Builder greedy(int maxNewTokens) {
        return GenerationConfig.builder().temperature(0).maxNewTokens(maxNewTokens);
    }
}
