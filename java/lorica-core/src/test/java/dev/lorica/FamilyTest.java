package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.convert.HuggingFaceConverter;
import dev.lorica.convert.ModelFiles;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluator;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.generate.Logits;
import dev.lorica.train.Checkpoint;
import dev.lorica.train.IntervalStrategy;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingResult;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * All that is done with a model, on a small one of each family as transformers wrote it: converted, planned, trained, stopped and
 * resumed, measured, asked, saved, exported to PEFT, merged and quantized. scripts/make_convert_goldens.py made the models; that what they compute
 * is right, {@code model_golden_test} shows on the same weights.
 */
class FamilyTest {
    private static final ModelConfig F32 = new ModelConfig("cpu", Precision.F32, 1);
    private static final int[] TOKENS = {1, 40, 52, 33, 80, 17, 64, 9, 71, 28};
    private static final int STEPS = 12;

    @TempDir
    Path folder;

    @ParameterizedTest
    @MethodSource("dev.lorica.TestModels#families")
    void allThatIsDoneWithAModelIsDoneWithThisFamily(String name) throws IOException {
        Path source = TestModels.repository("java/lorica-core/src/test/resources/convert/" + name);
        Path file = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(source, file, "F32");
        try (Model model = Model.load(file, F32);
                Adapter adapter = adapter(model)) {
            continuesPromptsAsTransformersAndLlamaCppDo(model, source);
            trains(model, adapter);
            float[][] logits = Logits.of(model, adapter, TOKENS);
            assertThat(distance(Logits.of(model, null, TOKENS), logits)).isGreaterThan(1e-3);

            Path saved = folder.resolve("adapter");
            adapter.save(saved);
            for (String format : List.of(Adapter.FILE_NAME, "")) {
                try (Adapter again = Adapter.load(model, saved.resolve(format))) {
                    assertThat(Logits.of(model, again, TOKENS)).isDeepEqualTo(logits);
                }
            }
            Path peft = folder.resolve("peft");
            adapter.exportPeft(peft, "base");
            try (Adapter again = Adapter.load(model, peft)) {
                assertThat(Logits.of(model, again, TOKENS)).isDeepEqualTo(logits);
            }

            givesTheLogitsOfPeft(model, source.resolve("peft"));
            adaptsByDefaultWhatPeftDoes(model);

            // PEFT's tensors mean in transformers' files what llama.cpp's mean in ours.
            Path foldedThere = folder.resolve("folded.gguf");
            HuggingFaceConverter.convert(folded(source, peft), foldedThere, "F32");
            assertThat(distance(logitsOf(foldedThere), logits)).isLessThan(1e-4);

            Path merged = folder.resolve("merged.gguf");
            ModelFiles.merge(adapter, merged, "F32");
            assertThat(distance(logitsOf(merged), logits)).isLessThan(1e-4);
            Path quantized = folder.resolve("quantized.gguf");
            ModelFiles.quantize(merged, quantized, "Q8_0", 1);
            assertThat(distance(logitsOf(quantized), logits)).isBetween(1e-6, 0.1);

            try (Generator generator = new Generator(model, adapter);
                    Model plain = Model.load(merged, F32);
                    Generator without = new Generator(plain)) {
                GenerationConfig greedy = GenerationConfig.greedy();
                String text =
                        generator.generate("IT-IS-A-TRUTH", greedy).result().text();
                assertThat(text).isNotEmpty();
                assertThat(without.generate("IT-IS-A-TRUTH", greedy).result().text())
                        .isEqualTo(text);
            }
        }
    }

    /** FamiliesInLlamaCppTest has the same texts from llama.cpp; of the families that its release knows. */
    private static void continuesPromptsAsTransformersAndLlamaCppDo(Model model, Path source) throws IOException {
        Path greedy = source.resolve("greedy.json");
        if (!Files.exists(greedy)) {
            return;
        }
        GenerationConfig eight =
                GenerationConfig.builder().maxNewTokens(8).temperature(0).build();
        try (Generator generator = new Generator(model)) {
            for (Map.Entry<String, JsonNode> one :
                    new ObjectMapper().readTree(greedy.toFile()).properties()) {
                assertThat(generator.generate(one.getKey(), eight).result().text())
                        .isEqualTo(one.getValue().asText());
            }
        }
    }

    /** An adapter that PEFT saved, and the logits that it computed; written again, its tensors are PEFT's. */
    private void givesTheLogitsOfPeft(Model model, Path saved) {
        Path again = folder.resolve("again");
        try (Adapter adapter = Adapter.load(model, saved);
                SafetensorsFile golden = SafetensorsFile.open(saved.resolve("logits.safetensors"))) {
            SafetensorsFile.Tensor stored = golden.tensors().get("logits");
            float[] values = golden.read(stored);
            int width = Math.toIntExact(stored.shape().get(1));
            float[][] logits = Logits.of(model, adapter, TOKENS);
            float[][] expected = new float[logits.length][];
            for (int t = 0; t < logits.length; t++) {
                // Rows of the embedding that no token uses are not converted.
                expected[t] = Arrays.copyOfRange(values, t * width, t * width + logits[t].length);
            }
            assertThat(distance(logits, expected)).isLessThan(2e-5); // sums in f32, in other orders on other processors
            assertThat(distance(Logits.of(model, null, TOKENS), expected)).isGreaterThan(1e-2);
            adapter.exportPeft(again, "base");
        }
        try (SafetensorsFile theirs = SafetensorsFile.open(saved.resolve("adapter_model.safetensors"));
                SafetensorsFile ours = SafetensorsFile.open(again.resolve("adapter_model.safetensors"))) {
            assertThat(ours.tensors().keySet())
                    .containsExactlyInAnyOrderElementsOf(theirs.tensors().keySet());
            theirs.tensors().forEach((key, tensor) -> assertThat(
                            ours.read(ours.tensors().get(key)))
                    .as(key)
                    .isEqualTo(theirs.read(tensor)));
        }
    }

    /** Where no target modules are named: in a configuration of PEFT, as a name, and as a name with layers. */
    private void adaptsByDefaultWhatPeftDoes(Model model) throws IOException {
        LoraConfig.Builder named = LoraConfig.builder().rank(2).targetModules(List.of(LoraConfig.DEFAULT_MODULES));
        Path written = folder.resolve("default");
        List<String> names;
        float[][] logits;
        try (Adapter adapter = Adapter.create(model, named.build())) {
            names = adapter.tensors().stream().map(Adapter.Tensor::name).toList();
            for (int i = 1; i < names.size(); i += 2) {
                float[] values = adapter.values(i);
                Arrays.fill(values, 0.1f * i);
                adapter.setValues(i, values);
            }
            logits = Logits.of(model, adapter, TOKENS);
            adapter.exportPeft(written, "base");
        }
        Path config = written.resolve("adapter_config.json");
        ObjectNode json = (ObjectNode) new ObjectMapper().readTree(config.toFile());
        Files.writeString(config, json.putNull("target_modules").toString());
        Files.delete(written.resolve("lorica_adapter.json")); // it has the checksum of what stood there before
        try (Adapter read = Adapter.load(model, written)) {
            assertThat(read.tensors().stream().map(Adapter.Tensor::name)).containsExactlyElementsOf(names);
            assertThat(Logits.of(model, read, TOKENS)).isDeepEqualTo(logits);
        }
        try (Adapter first =
                Adapter.create(model, named.layersToTransform(List.of(0)).build())) {
            assertThat(first.tensors().stream().map(Adapter.Tensor::name))
                    .containsExactlyElementsOf(names.stream()
                            .filter(name -> name.startsWith("blk.0."))
                            .toList());
        }
    }

    private static Adapter adapter(Model model) {
        return Adapter.create(
                model, LoraConfig.builder().rank(2).alpha(8).dropout(0.05).build());
    }

    private void trains(Model model, Adapter adapter) throws IOException {
        TokenizedDataset data = TokenizedDataset.of(
                Dataset.of(List.of(
                        DataRecord.text("IT-IS-A-TRUTH-UNIVERSALLY"),
                        DataRecord.text("ACKNOWLEDGED,THAT-A-SINGLE-MAN"),
                        DataRecord.text("IN-POSSESSION-OF-A-GOOD-FORTUNE"),
                        DataRecord.text("MUST-BE-IN-WANT-OF-A-WIFE"))),
                model.tokenizer(),
                DataConfig.ofMaxLength(40));
        TrainingConfig config = TrainingConfig.builder()
                .maxSteps(STEPS)
                .batchSize(2)
                .learningRate(2e-2)
                .maxLength(40)
                .saveStrategy(IntervalStrategy.STEPS)
                .saveSteps(STEPS / 2)
                .saveTotalLimit(0)
                .build();
        Evaluator evaluator = new Evaluator(model, adapter);
        double before = evaluator.evaluate(data, 2).loss();
        Path checkpoints = Files.createDirectories(folder.resolve("checkpoints"));
        Trainer trainer = new Trainer(model, adapter, config).checkpoints(checkpoints);
        assertThat(trainer.memoryPlan(2, 40).fits()).isTrue();

        TrainingResult result = trainer.train(data);

        assertThat(result.steps()).isEqualTo(STEPS);
        assertThat(evaluator.evaluate(data, 2).loss()).isLessThan(before - 0.2);
        try (Adapter resumed = adapter(model)) {
            new Trainer(model, resumed, config)
                    .resume(Checkpoint.open(Checkpoint.list(checkpoints).get(0)))
                    .train(data);
            for (int i = 0; i < adapter.tensors().size(); i++) {
                assertThat(resumed.values(i)).isEqualTo(adapter.values(i));
            }
        }
    }

    /** The folder of a model with the product of an adapter's matrices added to its weights, as PEFT's merge_and_unload does it. */
    private Path folded(Path source, Path peft) throws IOException {
        Path target = Files.createDirectories(folder.resolve("folded"));
        for (String file :
                List.of("config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json")) {
            Files.copy(source.resolve(file), target.resolve(file));
        }
        JsonNode config =
                new ObjectMapper().readTree(peft.resolve("adapter_config.json").toFile());
        float scale =
                (float) (config.get("lora_alpha").asDouble() / config.get("r").asDouble());
        boolean transposed = config.get("fan_in_fan_out").asBoolean();
        SafetensorsWriter writer = new SafetensorsWriter().metadata("format", "pt");
        int changed = 0;
        try (SafetensorsFile weights = SafetensorsFile.open(source.resolve("model.safetensors"));
                SafetensorsFile adapter = SafetensorsFile.open(peft.resolve("adapter_model.safetensors"))) {
            for (SafetensorsFile.Tensor tensor : weights.tensors().values()) {
                float[] values = weights.read(tensor);
                String layer = "base_model.model." + tensor.name().replaceFirst("\\.weight$", "");
                SafetensorsFile.Tensor a = adapter.tensors().get(layer + ".lora_A.weight");
                if (a != null) {
                    SafetensorsFile.Tensor b = adapter.tensors().get(layer + ".lora_B.weight");
                    add(values, adapter.read(b), adapter.read(a), scale, a.shape(), b.shape(), transposed);
                    changed++;
                }
                writer.add(tensor.name(), tensor.shape(), () -> values);
            }
            assertThat(2 * changed).isEqualTo(adapter.tensors().size());
        }
        writer.write(target.resolve("model.safetensors"));
        return target;
    }

    /** W += scale B A, or its transpose. */
    private static void add(
            float[] w,
            float[] b,
            float[] a,
            float scale,
            List<Long> shapeOfA,
            List<Long> shapeOfB,
            boolean transposed) {
        int rank = shapeOfA.get(0).intValue();
        int in = shapeOfA.get(1).intValue();
        int out = shapeOfB.get(0).intValue();
        for (int o = 0; o < out; o++) {
            for (int i = 0; i < in; i++) {
                double sum = 0;
                for (int r = 0; r < rank; r++) {
                    sum += (double) b[o * rank + r] * a[r * in + i];
                }
                w[transposed ? i * out + o : o * in + i] += (float) (scale * sum);
            }
        }
    }

    private static float[][] logitsOf(Path file) {
        try (Model model = Model.load(file, F32)) {
            return Logits.of(model, null, TOKENS);
        }
    }

    /** In the maximum norm, relative to the largest. */
    private static double distance(float[][] values, float[][] others) {
        double difference = 0;
        double size = 0;
        for (int t = 0; t < values.length; t++) {
            for (int i = 0; i < values[t].length; i++) {
                assertThat((double) values[t][i]).isFinite();
                difference = Math.max(difference, Math.abs((double) values[t][i] - others[t][i]));
                size = Math.max(size, Math.abs(others[t][i]));
            }
        }
        return difference / size;
    }
}
