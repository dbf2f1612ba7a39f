package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Tokenizer;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A file several times as large as the heap. With -Dlorica.largeFile=10240 it has 10 GiB, and -Dlorica.largeFileHeap=2g gives the
 * heap.
 */
class LargeFileTest {
    private static final int MEBIBYTES = Integer.getInteger("lorica.largeFile", 120);
    private static final String HEAP = System.getProperty("lorica.largeFileHeap", "48m");
    private static final String FILLER = "x".repeat(1000);

    @TempDir
    Path folder;

    @Test
    void isReadInLessMemoryThanItHasBytes() throws Exception {
        Path file = folder.resolve("large.jsonl");
        long lines = write(file, -1);
        assertThat(Files.size(file)).isGreaterThan((long) MEBIBYTES << 20);

        String output = run(file);

        assertThat(output).contains("examples " + lines + ", ", "in a file true");
        assertThat(output).containsPattern("tokens (\\d+) = \\1, batches " + (lines + 63) / 64 + ",");
        for (int i = 0; i < 5; i++) {
            long line = lines / 5 * i;
            assertThat(output).contains("What is number " + line + "?", "It is " + line + ", and a bit more.");
        }
    }

    @Test
    void namesTheOneBadLine() throws Exception {
        Path file = folder.resolve("bad.jsonl");
        long lines = write(file, 60_000);
        assertThat(lines).isGreaterThan(60_000);

        // What the line lacks is missed at the beginning of the next one.
        assertThat(run(file))
                .startsWith("error: " + file
                        + ", line 60002, column 1, in the record that begins on line 60001: not valid JSON");
    }

    /** What is in a file comes in the same order as what is in memory. */
    @Test
    void givesTheSameBatchesAsMemoryDoes() {
        try (Tokenizer tokenizer = Tokenizer.load(Repository.file("models/austen-7m-q4_0.gguf"))) {
            Dataset data = Dataset.of(IntStream.range(0, 50_000)
                    .mapToObj(i -> DataRecord.of(
                            "What is number " + i + "?", "It is " + i + ", " + "and more ".repeat(i % 20)))
                    .toList());
            ExampleStore inFile = new ExampleStore(0);
            TokenizedDataset filed = TokenizedDataset.of(data, tokenizer, DataConfig.ofMaxLength(256), inFile);
            TokenizedDataset kept =
                    TokenizedDataset.of(data, tokenizer, DataConfig.ofMaxLength(256), new ExampleStore(Long.MAX_VALUE));

            assertThat(inFile.isSpilled()).isTrue();
            List<Batch> a = Packer.shuffled(filed, 16, 42, 1);
            List<Batch> b = Packer.shuffled(kept, 16, 42, 1);
            assertThat(a).hasSameSizeAs(b);
            for (int i = 0; i < a.size(); i += 7) {
                assertThat(a.get(i).tokens()).isEqualTo(b.get(i).tokens());
                assertThat(a.get(i).labels()).isEqualTo(b.get(i).labels());
            }
        }
    }

    private static long write(Path file, long badLine) throws IOException {
        long lines = 0;
        try (BufferedWriter out = Files.newBufferedWriter(file)) {
            for (long bytes = 0; bytes <= (long) MEBIBYTES << 20; lines++) {
                String line = "{\"question\":\"What is number " + lines + "?\",\"answer\":\"It is " + lines
                        + ", and a bit more.\",\"filler\":\"" + FILLER + (lines == badLine ? "\"" : "\"}") + "\n";
                out.write(line);
                bytes += line.length();
            }
        }
        return lines;
    }

    private static String run(Path file) throws Exception {
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-Xmx" + HEAP,
                        "-cp",
                        System.getProperty("java.class.path"),
                        LargeFile.class.getName(),
                        Repository.file("models/austen-7m-q4_0.gguf").toString(),
                        file.toString())
                .redirectErrorStream(true)
                .start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor(1, TimeUnit.HOURS)).isTrue();
        return output;
    }
}
