package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.adapter.Adapter;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import javax.tools.ToolProvider;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.RowFactory;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import scala.Console;
import scala.runtime.AbstractFunction0;

/** The Java of the README's section and of the guide's page, compiled and run. */
class PagesTest {
    private static JavaSparkContext spark;

    @TempDir
    private static Path folder;

    @BeforeAll
    static void start() {
        spark = Clusters.of(1);
        List<Row> rows = IntStream.range(0, 4)
                .mapToObj(i -> RowFactory.create("Who is number " + i + "?", "Mr. Bennet, " + i + "."))
                .toList();
        SparkSession.builder()
                .sparkContext(spark.sc())
                .getOrCreate()
                .createDataFrame(
                        rows,
                        new StructType().add("question", DataTypes.StringType).add("answer", DataTypes.StringType))
                .write()
                .parquet(folder.resolve("questions.parquet").toString());
    }

    @AfterAll
    static void stop() {
        if (spark != null) {
            spark.stop();
        }
    }

    /** All blocks of Java between two headings, one after another, with the names of this test. */
    private static String code(String page, String heading, String end) throws Exception {
        String text = Files.readString(Clusters.repository().resolve(page));
        int from = text.indexOf(heading);
        int to = text.indexOf(end, from);
        Matcher blocks = Pattern.compile("(?s)```java\n(.*?)```").matcher(text.substring(from, to));
        StringBuilder code = new StringBuilder();
        while (blocks.find()) {
            code.append(blocks.group(1));
        }
        assertThat(code).isNotEmpty();
        return code.toString()
                .replace("/models/llama.gguf", Clusters.model().toString())
                .replace(
                        "questions.parquet", folder.resolve("questions.parquet").toString())
                .replace("hdfs:///adapters/", folder.resolve("saved") + "/")
                .replace("Path.of(\"austen\")", "Path.of(\"" + folder.resolve("austen") + "\")")
                .replace(".setGradientAccumulationSteps(32)", ".setGradientAccumulationSteps(2).setMaxSteps(1)");
    }

    private static String run(String name, String code) throws Exception {
        Path source = folder.resolve(name + ".java");
        Files.writeString(
                source,
                "import dev.lorica.*; import dev.lorica.adapter.*; import dev.lorica.data.FieldNames;\n"
                        + "import dev.lorica.data.DataConfig; import dev.lorica.data.RecordKind; import dev.lorica.data.TokenizedDataset;\n"
                        + "import dev.lorica.eval.*; import dev.lorica.generate.*; import dev.lorica.spark.*;\n"
                        + "import dev.lorica.train.*; import java.nio.file.Path; import org.apache.spark.api.java.*;\n"
                        + "import org.apache.spark.sql.*;\n"
                        + "public class " + name + " { public static void main(String[] args) throws Exception {\n"
                        + code
                        + "}}\n");
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
        PrintStream before = System.out;
        PrintStream out = new PrintStream(said, true, StandardCharsets.UTF_8);
        try (URLClassLoader loader = new URLClassLoader(
                new URL[] {folder.toUri().toURL()}, Thread.currentThread().getContextClassLoader())) {
            Method main = loader.loadClass(name).getMethod("main", String[].class);
            System.setOut(out);
            // Scala has an output of its own.
            Console.withOut(out, new AbstractFunction0<>() {
                @Override
                public Object apply() {
                    try {
                        return main.invoke(null, (Object) new String[0]);
                    } catch (ReflectiveOperationException e) {
                        throw new AssertionError(e);
                    }
                }
            });
        } finally {
            System.setOut(before);
        }
        return said.toString(StandardCharsets.UTF_8);
    }

    @Test
    void theReadmesNotebookTunesAnswersAndSaves() throws Exception {
        String said = run("Readme", code("README.md", "## More than one machine: Apache Spark", "## What works"));

        assertThat(said).contains("question", "prediction", "Who is number 3?");
        assertThat(LoricaModel.load(folder.resolve("saved/austen").toString())
                        .transformSchema(new StructType())
                        .fieldNames())
                .containsExactly("prediction");
    }

    @Test
    void theGuidesPageRunsFromItsBeginningToItsEnd() throws Exception {
        String said = run("Guide", code("java/guide/spark.md", "# Apache Spark", "## What to mind"));

        assertThat(said).contains("said", "log_prob", "vector", "reward");
        try (Adapter adapter = Adapter.load(Runs.MODEL, folder.resolve("austen"))) {
            assertThat(adapter.hasEffect()).isTrue();
        }
    }
}
