package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.adapter.Adapter;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.PrintStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The README's Java, compiled and run as it stands there; only its file names are others. */
class ReadmeTest {
    private static final Pattern JAVA = Pattern.compile("(?s)```java\n(.*?)```");

    @TempDir
    private Path temp;

    @Test
    void namesTheJdkThatTheScriptsAskForAndTheJavaThatItsClassesRunOn() throws Exception {
        MatchResult said = Pattern.compile("a JDK (\\d+) \\(what it builds runs on Java (\\d+)\\)")
                .matcher(Files.readString(TestModels.repository("README.md")))
                .results()
                .findFirst()
                .orElseThrow();

        assertThat(Files.readString(TestModels.repository("scripts/common.sh")))
                .contains("-ge " + said.group(1) + " ] || echo \"JDK " + said.group(1) + "\"");
        assertThat(Runtime.version().feature()).isGreaterThanOrEqualTo(Integer.parseInt(said.group(2)));
        try (DataInputStream library = new DataInputStream(Model.class.getResourceAsStream("Model.class"))) {
            library.readInt();
            library.readUnsignedShort();
            assertThat(library.readUnsignedShort()).isEqualTo(44 + Integer.parseInt(said.group(2)));
        }
    }

    @Test
    void itsExamplesTrainSaveAndAnswer() throws Exception {
        Path readme = TestModels.repository("README.md");
        List<MatchResult> examples =
                JAVA.matcher(Files.readString(readme)).results().toList();
        assertThat(examples).hasSize(6); // the last one, of Spark, is run in lorica-spark
        Path data = temp.resolve("data.json");
        Files.writeString(data, "[{\"question\": \"Where is Pemberley?\", \"answer\": \"In Derbyshire.\"}]");
        Path output = temp.resolve("adapter");

        run(examples.get(0)
                .group(1)
                .replace("\"llama.gguf\"", literal(TestModels.austen()))
                .replace("\"questions.json\"", literal(data))
                .replace("\"my-adapter\"", literal(output)));

        assertThat(output.resolve(Adapter.FILE_NAME)).isNotEmptyFile();

        run(examples.get(1)
                .group(1)
                .replace("\"llama.gguf\"", literal(TestModels.austen()))
                .replace("\"austen\"", literal(output))
                .replace("\"brief\"", literal(output)));

        Path labelled = temp.resolve("labelled.jsonl");
        Files.writeString(
                labelled, "{\"text\": \"good\", \"label\": \"up\"}\n{\"text\": \"bad\", \"label\": \"down\"}\n");
        run("TrainingConfig config = TrainingConfig.defaults();\n"
                + "Path file = Path.of(" + literal(labelled) + ");\n"
                + "try (Model model = Model.load(Path.of(" + literal(TestModels.austen()) + "))) {\n"
                + examples.get(2).group(1) + "}");

        Path pairs = temp.resolve("pairs.json");
        Files.writeString(
                pairs,
                "[{\"prompt\": \"Where is Pemberley?\", \"chosen\": \"In Derbyshire.\", \"rejected\": \"In Kent.\"}]");
        run("try (Model model = Model.load(Path.of(" + literal(TestModels.austen()) + "));\n"
                + "Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {\n"
                + "TrainingConfig config = TrainingConfig.defaults();\n"
                + "Path file = Path.of(" + literal(pairs) + ");\n"
                + examples.get(3).group(1) + "System.out.println(mine.name());}");

        Path prompts = temp.resolve("prompts.json");
        Files.writeString(prompts, "[{\"prompt\": \"Where is Pemberley?\"}]");
        run("try (Model model = Model.load(Path.of(" + literal(TestModels.austen()) + "));\n"
                + "Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {\n"
                + "TrainingConfig config = TrainingConfig.builder().maxSteps(1).build();\n"
                + "Path file = Path.of(" + literal(prompts) + ");\n"
                + examples.get(4).group(1) + "System.out.println(brief.name());}");
    }

    private static String literal(Path path) {
        return '"' + path.toString().replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private void run(String example) throws Exception {
        Path source = temp.resolve("Example.java");
        Files.writeString(
                source,
                "import dev.lorica.*; import dev.lorica.adapter.*; import dev.lorica.data.*; import dev.lorica.eval.*;\n"
                        + "import dev.lorica.generate.*; import dev.lorica.train.*; import java.nio.file.Path; import java.util.List;\n"
                        + "class Example { public static void main(String[] args) {\n" + example + "}}\n");

        ByteArrayOutputStream messages = new ByteArrayOutputStream();
        int status = ToolProvider.getSystemJavaCompiler()
                .run(
                        null,
                        messages,
                        messages,
                        "-cp",
                        System.getProperty("java.class.path"),
                        "-d",
                        temp.toString(),
                        source.toString());
        assertThat(status).as(messages.toString(StandardCharsets.UTF_8)).isZero();

        PrintStream out = System.out;
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        try (URLClassLoader loader =
                new URLClassLoader(new URL[] {temp.toUri().toURL()}, getClass().getClassLoader())) {
            System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
            var main = loader.loadClass("Example").getDeclaredMethod("main", String[].class);
            main.setAccessible(true);
            main.invoke(null, (Object) new String[0]);
        } finally {
            System.setOut(out);
        }
        assertThat(printed.toString(StandardCharsets.UTF_8)).isNotBlank();
    }
}
