package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.convert.ModelFiles;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Adapters and models of ours in llama.cpp itself: the same greedy continuations. */
class LlamaCppTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int NEW_TOKENS = 32;
    private static final int PROMPTS = 60;
    private static final int ENOUGH = 20;
    /** Both compute in f32, in another order. Where our two best logits are closer than this, it may take the other one. */
    private static final float ROUNDING = 0.01f;

    @TempDir
    Path folder;

    /** What comes after a prompt, and the smallest distance of the two best logits on the way. */
    private record Continuation(String text, float margin) {}

    /** PiSSA: what A and B began as is taken away by the second halves of pairs, which llama.cpp adds as it adds the first. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void llamaCppContinuesPromptsWithOurAdapterAsWeDo(boolean pissa) throws Exception {
        LlamaCpp.assumeItRuns();
        List<String> prompts = prompts();
        List<Continuation> ours = new ArrayList<>();
        List<Continuation> plain = new ArrayList<>();
        try (Model model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
                Adapter adapter = Adapter.create(
                        model,
                        LoraConfig.builder()
                                .rank(8)
                                .useRslora(true)
                                .alpha(12)
                                .targetModules("q_proj", "k_proj", "v_proj:4", "down_proj:4:20")
                                .init(pissa ? LoraConfig.Init.PISSA : LoraConfig.Init.DEFAULT)
                                .build())) {
            assertThat(adapter.info().rank()).isEqualTo(pissa ? 16 : 8);
            fill(adapter);
            adapter.save(folder);
            for (String prompt : prompts) {
                ours.add(continuation(model, adapter, prompt));
                plain.add(continuation(model, null, prompt));
            }
        }

        // The same weights without blocks: this release of llama.cpp repacks Q4_0 when it loads it, and crashes when it
        // then loads any adapter; with blocks it would round what goes into a product to 8 bits, too.
        Path base = folder.resolve("f32.gguf");
        ModelFiles.quantize(TestModels.austen(), base, "F32", 0);
        LlamaCpp.Request request = new LlamaCpp.Request(
                base.toString(), folder.resolve(Adapter.FILE_NAME).toString(), prompts, NEW_TOKENS);
        List<String> theirs = LlamaCpp.answer(folder, List.of(request)).get(0).texts();
        assertThat(theirs).hasSameSizeAs(prompts);

        int clear = 0;
        int changed = 0;
        for (int i = 0; i < prompts.size(); i++) {
            if (ours.get(i).margin() > ROUNDING) {
                clear++;
                changed += ours.get(i).text().equals(plain.get(i).text()) ? 0 : 1;
                assertThat(theirs.get(i))
                        .as(
                                "after \"%s\", margin %s",
                                prompts.get(i), ours.get(i).margin())
                        .isEqualTo(ours.get(i).text());
            }
        }
        assertThat(clear).as("prompts whose continuation is clear").isGreaterThanOrEqualTo(ENOUGH);
        assertThat(changed).as("of these, changed by the adapter").isGreaterThanOrEqualTo(ENOUGH * 3 / 4);
    }

    private static Continuation continuation(Model model, Adapter adapter, String prompt) {
        Tokenizer tokenizer = model.tokenizer();
        int[] tokens = tokenizer.encode(prompt, true, true);
        int[] more = new int[NEW_TOKENS];
        float[] logits = new float[model.info().vocabSize()];
        float margin = Float.MAX_VALUE;
        int count = 0;
        try (KvCache cache = new KvCache(model, adapter, tokens.length + NEW_TOKENS)) {
            cache.append(tokens, logits);
            while (count < NEW_TOKENS) {
                int best = -1;
                int second = -1;
                for (int i = 0; i < logits.length; i++) {
                    if (best < 0 || logits[i] > logits[best]) {
                        second = best;
                        best = i;
                    } else if (second < 0 || logits[i] > logits[second]) {
                        second = i;
                    }
                }
                margin = Math.min(margin, logits[best] - logits[second]);
                if (tokenizer.isEndOfGeneration(best)) {
                    break;
                }
                more[count++] = best;
                cache.append(new int[] {best}, logits);
            }
        }
        return new Continuation(tokenizer.decode(Arrays.copyOf(more, count), false), margin);
    }

    /** Values that change what is said, but leave it text. */
    private static void fill(Adapter adapter) {
        Random random = new Random(1);
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 1; i < tensors.size(); i += 2) {
            float[] b = adapter.values(i);
            for (int j = 0; j < b.length; j++) {
                b[j] += (float) (0.02 * random.nextGaussian());
            }
            adapter.setValues(i, b);
        }
    }

    private static List<String> prompts() throws IOException {
        List<String> prompts = new ArrayList<>();
        for (JsonNode record : JSON.readTree(TestModels.repository("models/data/pride_and_prejudice_train.json")
                .toFile())) {
            String question = record.has("instruction")
                    ? record.get("instruction").asText()
                    : record.get("question").asText();
            prompts.add(String.format(Locale.ROOT, "### Instruction:%n%s%n%n### Response:%n", question));
            if (prompts.size() == PROMPTS) {
                break;
            }
        }
        return prompts;
    }
}
