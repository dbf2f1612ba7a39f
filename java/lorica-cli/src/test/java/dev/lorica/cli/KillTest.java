package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.convert.ModelFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Programs that write are killed at any moment, and whatever is left is loaded. How often: {@code -DargLine=-Dlorica.kills=100};
 * {@link ResumeTest} does the same to training.
 */
class KillTest {
    private static final int KILLS = Integer.getInteger("lorica.kills", 6);
    private static final int LONGEST_MILLIS = 150;

    @TempDir
    Path folder;

    @Test
    void whateverIsLeftOfAnAdapterLoadsAsOneThatWasSaved() throws Exception {
        Path home = folder.resolve("adapter");
        long seed = System.nanoTime();
        Random random = new Random(seed);
        int[] found = new int[3];
        try (Model model = Model.load(Path.of(Program.model()))) {
            for (int kill = 0; kill < KILLS; kill++) {
                killSomewhere(Saves.class, random, home);
                try (Adapter left = Adapter.load(model, home)) {
                    float kind = left.values(1)[0];
                    assertThat(kind).as("seed " + seed).isIn(1f, 2f);
                    for (int i = 1; i < left.tensors().size(); i += 2) {
                        assertThat(left.values(i)).as("seed " + seed).containsOnly(kind);
                    }
                    found[(int) kind]++;
                }
                Path peft = folder.resolve("peft-" + kill);
                Files.createDirectory(peft);
                for (String name : List.of(Adapter.PEFT_FILE_NAME, Adapter.PEFT_CONFIG_NAME)) {
                    Files.copy(home.resolve(name), peft.resolve(name));
                }
                try (Adapter other = Adapter.load(model, peft);
                        Adapter left = Adapter.load(model, home)) {
                    assertThat(other.values(1)).as("seed " + seed).isEqualTo(left.values(1));
                }
            }
            try (Adapter last = Saves.adapter(model, 1)) {
                last.save(home);
            }
        }
        // Only the last one is there, and nothing that was half written.
        assertThat(names(home)).containsExactly(Adapter.FILE_NAME, "lorica_adapter.json");
    }

    @Test
    void whateverIsLeftOfAModelIsAWholeOneOrNoneAndTheNextRunCleans() throws Exception {
        Path output = folder.resolve("out.gguf");
        Random random = new Random(System.nanoTime());
        for (int kill = 0; kill < KILLS; kill++) {
            killSomewhere(Quantizes.class, random, output);
            if (Files.exists(output)) {
                Model.load(output).close();
            }
        }
        Program.run("quantize", Program.model(), output.toString(), "--type", "Q8_0", "--overwrite")
                .succeeds();
        assertThat(names(folder)).containsExactly("out.gguf");
    }

    @Test
    void ctrlCTakesAwayWhatIsHalfWritten() throws Exception {
        Random random = new Random(System.nanoTime());
        for (int round = 0; round < Math.max(2, KILLS / 3); round++) {
            Path output =
                    Files.createDirectory(folder.resolve("round-" + round)).resolve("out.gguf");
            List<String> command = new ArrayList<>(List.of("env", "--default-signal=INT"));
            command.addAll(java(Quantizes.class, output));
            Process process = new ProcessBuilder(command).start();
            assertThat(process.getInputStream().read()).isEqualTo('.');
            Thread.sleep(random.nextInt(LONGEST_MILLIS));
            new ProcessBuilder("kill", "-INT", Long.toString(process.pid()))
                    .start()
                    .waitFor();
            assertThat(process.waitFor()).isEqualTo(ExitCode.INTERRUPTED);
            assertThat(names(output.getParent())).isSubsetOf("out.gguf");
        }
    }

    private static void killSomewhere(Class<?> program, Random random, Path argument) throws Exception {
        Process process = new ProcessBuilder(java(program, argument)).start();
        assertThat(process.getInputStream().read()).isEqualTo('.');
        Thread.sleep(random.nextInt(LONGEST_MILLIS));
        process.destroyForcibly().waitFor();
    }

    private static List<String> java(Class<?> program, Path argument) {
        return List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dlorica.repository=" + System.getProperty("lorica.repository", "../.."),
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                program.getName(),
                argument.toString());
    }

    private static List<String> names(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        }
    }

    /** A program that saves two adapters into one folder by turns until it is killed; says a dot when the first is there. */
    static final class Saves {
        private Saves() {}

        public static void main(String[] args) {
            try (Model model = Model.load(Path.of(Program.model()));
                    Adapter one = adapter(model, 1);
                    Adapter two = adapter(model, 2)) {
                for (int i = 0; ; i++) {
                    (i % 2 == 0 ? one : two)
                            .save(Path.of(args[0]), Set.of(Adapter.Format.GGUF, Adapter.Format.PEFT), "base");
                    if (i == 0) {
                        System.out.print('.');
                        System.out.flush();
                    }
                }
            }
        }

        /** With every B full of {@code kind}. */
        static Adapter adapter(Model model, int kind) {
            Adapter adapter = Adapter.create(
                    model, LoraConfig.builder().rank(8).seed(kind).build());
            for (int i = 1; i < adapter.tensors().size(); i += 2) {
                float[] b = new float[adapter.values(i).length];
                java.util.Arrays.fill(b, kind);
                adapter.setValues(i, b);
            }
            return adapter;
        }
    }

    /** A program that writes one model again and again until it is killed; says a dot before. */
    static final class Quantizes {
        private Quantizes() {}

        public static void main(String[] args) {
            Path output = Path.of(args[0]);
            for (int i = 0; ; i++) {
                try (OutputFile file = OutputFile.prepare(output, true, new Inputs())) {
                    if (i == 0) {
                        System.out.print('.');
                        System.out.flush();
                    }
                    ModelFiles.quantize(Path.of(Program.model()), output, i % 2 == 0 ? "F32" : "Q8_0", 1);
                }
            }
        }
    }
}
