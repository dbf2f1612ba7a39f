package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import com.sun.management.ThreadMXBean;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.convert.HuggingFaceConverter;
import dev.lorica.convert.TokenizerReader;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.SafetensorsFile;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Files from strangers, changed at random: each is one clear line or is read, and none takes memory that its size does not justify.
 * {@code -Dlorica.fuzz.inputs=100000} reads that many of each kind instead of a few.
 */
class FuzzTest {
    private static final long INPUTS = Long.getLong("lorica.fuzz.inputs", 300);
    private static final ThreadMXBean MEMORY = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    private static final Path RESOURCES = TestModels.repository("java/lorica-core/src/test/resources");

    private static Model model;

    @TempDir
    Path folder;

    /** Reads the file that is being tried. */
    private interface Reader {
        void read() throws IOException;
    }

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.repository("native/tests/data/model_goldens/grouped_heads_f32/model.gguf"));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void safetensors() throws IOException {
        Path file = folder.resolve("x.safetensors");
        List<Path> corpus = new ArrayList<>(named("adapter_model.safetensors"));
        corpus.addAll(named("golden.safetensors"));
        fuzz(file, corpus, () -> {
            try (SafetensorsFile opened = SafetensorsFile.open(file)) {
                opened.metadata().toString();
                for (SafetensorsFile.Tensor tensor : opened.tensors().values()) {
                    opened.read(tensor);
                }
            }
        });
    }

    @Test
    void configurationsOfPeft() throws IOException {
        Path weights = RESOURCES.resolve("peft/one_layer/adapter_model.safetensors");
        Files.copy(weights, folder.resolve("adapter_model.safetensors"));
        fuzz(folder.resolve("adapter_config.json"), named("adapter_config.json"), () -> Adapter.load(model, folder)
                .close());
    }

    @Test
    void weightsOfPeft() throws IOException {
        Files.copy(RESOURCES.resolve("peft/one_layer/adapter_config.json"), folder.resolve("adapter_config.json"));
        fuzz(
                folder.resolve("adapter_model.safetensors"),
                List.of(RESOURCES.resolve("peft/one_layer/adapter_model.safetensors")),
                () -> Adapter.load(model, folder).close());
    }

    @Test
    void sideFilesOfAdapters() throws IOException {
        try (Adapter adapter = Adapter.create(
                model,
                LoraConfig.builder().rank(1).targetModules("blk.0.attn_q").build())) {
            adapter.save(folder);
        }
        Path original = Files.copy(folder.resolve(AdapterMetadata.FILE_NAME), folder.resolve("original.json"));
        fuzz(folder.resolve(AdapterMetadata.FILE_NAME), List.of(original), () -> {
            try (Adapter adapter = Adapter.load(model, folder)) {
                adapter.template();
            }
        });
    }

    @Test
    void dataSets() throws IOException {
        Path array = Files.writeString(
                folder.resolve("a.json"),
                "[{\"instruction\": \"Who?\", \"response\": \"He.\"}, {\"instruction\": \"Wh\\u00e9re?\", \"response\": \"Here.\"}]");
        Path lines = Files.writeString(
                folder.resolve("b.jsonl"),
                "{\"question\": \"Who?\", \"answer\": \"He.\", \"n\": 1.5}\n{\"question\": \"Why?\", \"answer\": \"\", \"n\": null}\n");
        Path text = Files.writeString(
                folder.resolve("c.jsonl"), "{\"text\": \"It is a truth\"}\n\n{\"text\": \"universally\"}");
        Path file = folder.resolve("data.json");
        Path chat = Files.writeString(
                folder.resolve("d.jsonl"),
                "{\"messages\": [{\"role\": \"user\", \"content\": \"Who?\"}, {\"role\": \"assistant\", \"content\": \"He.\"}]}\n");
        fuzz(file, List.of(array, lines, text, chat), () -> Dataset.load(file).size());
    }

    @Test
    void tables() throws IOException {
        Path comma = Files.writeString(
                folder.resolve("a.csv"), "question,answer\r\n\"Who, \"\"he\"\"?\",He.\r\nWhy?,\"So\nit is.\"\r\n");
        Path file = folder.resolve("data.csv");
        fuzz(file, List.of(comma), () -> Dataset.load(file).size());
    }

    @Test
    void chatTemplates() throws IOException {
        Path source = Files.writeString(
                folder.resolve("a.jinja"),
                ChatTemplate.named("llama2").orElseThrow().source());
        Path file = folder.resolve("template.jinja");
        DataRecord record = DataRecord.conversation(Message.user("Who?"), Message.assistant("He."));
        fuzz(file, List.of(source), () -> new ExampleEncoder(model.tokenizer(), ChatTemplate.load(file), false)
                .prompt(record));
    }

    @Test
    void tokenizerJson() throws IOException {
        tokenizer("one_kv_head_bf16", "tokenizer.json");
    }

    @Test
    void tokenizerModel() throws IOException {
        tokenizer("llama3_rope_f16", "tokenizer.model");
    }

    @Test
    void configurationsOfModels() throws IOException {
        converted("llama3_rope_f16", "config.json");
    }

    @Test
    void indicesOfModels() throws IOException {
        converted("llama3_rope_f16", "model.safetensors.index.json");
    }

    private void tokenizer(String name, String changed) throws IOException {
        Path original = copied(name);
        fuzz(folder.resolve(changed), List.of(original.resolve(changed)), () -> TokenizerReader.read(folder, 512));
    }

    private Path copied(String name) throws IOException {
        Path original = RESOURCES.resolve("convert").resolve(name);
        try (Stream<Path> files = Files.list(original)) {
            for (Path file : files.toList()) {
                Files.copy(file, folder.resolve(file.getFileName()));
            }
        }
        return original;
    }

    private void converted(String name, String changed) throws IOException {
        Path original = copied(name);
        Path output = folder.resolve("out.gguf");
        fuzz(folder.resolve(changed), List.of(original.resolve(changed)), () -> {
            HuggingFaceConverter.convert(folder, output, "F16");
            // What was written can be read.
            Model.load(output).close();
        });
    }

    // ----

    private static List<Path> named(String name) throws IOException {
        try (Stream<Path> files = Files.walk(RESOURCES)) {
            return files.filter(file -> file.endsWith(name)).sorted().toList();
        }
    }

    private void fuzz(Path file, List<Path> corpus, Reader reader) throws IOException {
        List<byte[]> contents = new ArrayList<>();
        long largest = 0;
        for (Path path : corpus) {
            contents.add(Files.readAllBytes(path));
        }
        for (byte[] one : contents) {
            Files.write(file, one);
            long before = MEMORY.getCurrentThreadAllocatedBytes();
            assertThat(tryToRead(reader) || contents.size() > 1)
                    .as("the unchanged file is read")
                    .isTrue();
            largest = Math.max(largest, MEMORY.getCurrentThreadAllocatedBytes() - before);
        }
        String name = file.getFileName().toString();
        Mutator mutator = new Mutator(contents, name.matches(".*config\\.json|.*index\\.json"));
        long read = 0;
        for (long i = 0; i < INPUTS; i++) {
            byte[] input = mutator.input(i);
            Files.write(file, input);
            long before = MEMORY.getCurrentThreadAllocatedBytes();
            try {
                read += tryToRead(reader) ? 1 : 0;
            } catch (Throwable e) {
                Path kept = Files.createTempFile("lorica-fuzz-", "-" + file.getFileName());
                Files.write(kept, input);
                fail("input " + i + ", kept as " + kept, e);
            }
            assertThat(MEMORY.getCurrentThreadAllocatedBytes() - before)
                    .as("bytes allocated for input %d", i)
                    .isLessThan(2 * largest + 200L * input.length + (4 << 20));
        }
        // Neither all nor nothing is refused: the test would be blind.
        assertThat(read).isBetween(1L, INPUTS - 1);
    }

    private static boolean tryToRead(Reader reader) throws IOException {
        try {
            reader.read();
            return true;
        } catch (LoricaException e) {
            assertThat(e.getMessage()).isNotBlank().doesNotContain("\n").hasSizeLessThan(20_000);
            if (e instanceof FileAccessException) {
                assertThat(e.getMessage()).doesNotContain("Exception");
            }
            return false;
        }
    }
}
