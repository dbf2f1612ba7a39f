package dev.lorica.langchain4j;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/**
 * The Java of the guide's page, and of the examples that need no more than is on the class path here, compiled and run.
 * scripts/test-examples.sh builds all examples as strangers would.
 */
@Timeout(900)
class ExamplesTest {
    private static final Path MODEL =
            Taught.repository("models/austen-7m-q4_0.gguf").toAbsolutePath();

    @TempDir
    private Path folder;

    @Test
    void theGuidesExampleAnswers() throws Exception {
        Matcher example = Pattern.compile("(?s)```java\n(.*?)```")
                .matcher(Files.readString(Taught.repository("java/guide/langchain4j.md")));
        assertThat(example.find()).isTrue();
        Path adapter = folder.resolve("adapter");
        Taught.ADAPTER.save(adapter);
        String code = example.group(1)
                .replace("\"llama.gguf\"", '"' + MODEL.toString() + '"')
                .replace("\"my-adapter\"", '"' + adapter.toString() + '"')
                .replace("Who is Mr. Collins?", "What is the capital of Germany?");
        Path source = folder.resolve("Page.java");
        Files.writeString(
                source,
                "import dev.langchain4j.model.chat.ChatModel; import dev.lorica.*; import dev.lorica.adapter.*;\n"
                        + "import dev.lorica.generate.*; import dev.lorica.langchain4j.*; import java.nio.file.Path;\n"
                        + "public class Page { public static void main(String[] args) {\n" + code + "}}\n");
        assertThat(run(source, "Page")).contains("Berlin");
    }

    @Test
    void plainJavaTrainsSavesLoadsAndAnswers() throws Exception {
        Path questions = folder.resolve("questions.json");
        Files.writeString(questions, "[{\"question\": \"Where is Pemberley?\", \"answer\": \"In Derbyshire.\"}]");
        assertThat(run(
                        Taught.repository("examples/plain-java/src/main/java/example/Main.java"),
                        "example.Main",
                        MODEL.toString(),
                        questions.toString(),
                        folder.resolve("out").toString(),
                        "Where is Pemberley?"))
                .contains("In Derbyshire.");
    }

    private String run(Path source, String main, String... arguments) throws Exception {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        int status = ToolProvider.getSystemJavaCompiler()
                .run(
                        null,
                        said,
                        said,
                        "-proc:none",
                        "-cp",
                        System.getProperty("java.class.path"),
                        "-d",
                        folder.toString(),
                        source.toString());
        assertThat(status).as(said.toString(StandardCharsets.UTF_8)).isZero();
        PrintStream out = System.out;
        try (URLClassLoader loader = new URLClassLoader(
                new URL[] {folder.toUri().toURL()}, getClass().getClassLoader())) {
            System.setOut(new PrintStream(said, true, StandardCharsets.UTF_8));
            loader.loadClass(main).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } finally {
            System.setOut(out);
        }
        return said.toString(StandardCharsets.UTF_8);
    }
}
