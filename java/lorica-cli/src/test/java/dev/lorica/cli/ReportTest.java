package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What {@code train} and {@code report} show of a run, and how a browser takes it. */
class ReportTest {
    private static final String QUESTION = "Who is </script><b>Mr. Collins</b>?";

    @TempDir
    Path folder;

    @Test
    void trainingLeavesAPageAndACardOfItsRun() throws Exception {
        Path run = train("adapter", "2");

        JsonNode data = data(run.resolve("report.html"));
        JsonNode shown = data.path("runs").get(0);
        assertThat(data.path("runs")).hasSize(1);
        assertThat(shown.path("name").asText()).isEqualTo("adapter");
        assertThat(shown.path("status").asText()).isEqualTo("done");
        assertThat(shown.path("log")).as("three steps, each with an evaluation").hasSize(6);
        assertThat(shown.path("log").get(0).path("loss").asDouble()).isPositive();
        assertThat(shown.path("planned_memory_bytes").path("activations").asLong())
                .isPositive();
        assertThat(shown.path("answers").get(0).path("question").asText()).isEqualTo(QUESTION);
        assertThat(shown.path("answers").get(0).path("before").isTextual()).isTrue();
        assertThat(shown.path("example").findValuesAsText("text")).anyMatch(text -> text.contains("Response"));
        assertThat(shown.path("settings").path("lora").path("rank").asInt()).isEqualTo(2);
        assertThat(shown.path("command").asText()).contains("train --config").contains("train_config.yaml");

        String card = Files.readString(run.resolve("README.md"));
        JsonNode metadata = new YAMLMapper().readTree(card.split("(?m)^---$")[1]);
        assertThat(metadata.path("base_model").asText()).isEqualTo("someone/austen-7m");
        assertThat(metadata.path("library_name").asText()).isEqualTo("peft");
        assertThat(metadata.path("tags")).anyMatch(tag -> tag.asText().equals("lora"));
        assertThat(card)
                .contains(
                        "# adapter\n",
                        "austen-7m-q4_0.gguf",
                        "## Results",
                        "`learning_rate`",
                        "PeftModel.from_pretrained");
    }

    @Test
    void aCardWrittenByHandIsKept() throws IOException {
        Path run = folder.resolve("adapter");
        train("adapter", "2");
        Files.writeString(run.resolve("README.md"), "mine\n");

        Program.run(command(run, "2", "--overwrite-output-dir")).succeeds();

        assertThat(run.resolve("README.md")).hasContent("mine\n");
    }

    @Test
    void severalRunsAreComparedOnOnePage() throws Exception {
        Path two = train("two", "2");
        Path four = train("four", "4");
        Path page = folder.resolve("both.html");

        Program made = Program.run("report", two.toString(), four.toString(), "--output", page.toString());

        assertThat(made.succeeds().out().strip()).isEqualTo(page.toString());
        assertThat(data(page).path("runs").findValuesAsText("name")).contains("two", "four");
        String dom = browse(page);
        assertThat(dom).contains("2 runs compared", "Runs, the best first", "<path");
    }

    @Test
    void aRunWithoutItsResultIsShownAsFarAsItsLogGoes() throws Exception {
        Path run = Files.createDirectories(folder.resolve("killed"));
        Files.writeString(
                run.resolve("train_log.jsonl"),
                "{\"step\":1,\"epoch\":0.5,\"loss\":3.5,\"learning_rate\":0.001}\n"
                        + "{\"step\":2,\"epoch\":1.0,\"loss\":3.25,\"learning_rate\":0.0005}\n{\"step\":3,\"ep");

        Program.run("report", run.toString()).succeeds();

        JsonNode shown = data(run.resolve("report.html")).path("runs").get(0);
        assertThat(shown.path("status").asText()).isEqualTo("not finished");
        assertThat(shown.path("log")).hasSize(2);
        assertThat(browse(run.resolve("report.html"))).contains("killed", "not finished", "<path");
    }

    @Test
    void whatIsNoRunAndWhatIsNoReportIsLeftAlone() throws IOException {
        Program.run("report", folder.toString()).failsWith(ExitCode.FAILED, "holds no training run");

        Path run = Files.createDirectories(folder.resolve("run"));
        Files.writeString(run.resolve("train_log.jsonl"), "{\"step\":1,\"loss\":3.5}\n");
        Path mine = Files.writeString(folder.resolve("mine.html"), "mine");
        Program.run("report", run.toString(), "--output", mine.toString())
                .failsWith(ExitCode.FAILED, "is there already and is no report", "--overwrite");
        assertThat(mine).hasContent("mine");
    }

    @Test
    void thePageShowsEverythingInABrowserWithoutAnErrorOnItsConsole() throws Exception {
        Path run = train("adapter", "2");

        String dom = browse(run.resolve("report.html"));

        assertThat(dom)
                .contains(
                        "Loss</h2>",
                        "Learning rate</h2>",
                        "Memory</h2>",
                        "Answers</h2>",
                        "Configuration</h2>",
                        "<mark>")
                .contains("Who is &lt;/script&gt;&lt;b&gt;Mr. Collins&lt;/b&gt;?")
                .doesNotContain("<b>Mr. Collins</b>")
                .doesNotContainPattern("(src|href)=.?https?:");
        assertThat(browse(run.resolve("README.md"))).contains("# adapter", "## Results");
    }

    @Test
    void onAPhoneNothingIsWiderThanTheScreen() throws Exception {
        Path run = train("adapter", "2");
        Path frame = Files.writeString(
                run.resolve("frame.html"),
                "<iframe id=f src=report.html style='border:0;width:390px;height:800px'></iframe><script>onload = () => {"
                        + " const page = document.getElementById('f').contentDocument.documentElement;"
                        + " document.body.append('width ' + page.clientWidth + ' needs ' + page.scrollWidth);"
                        + " const texts = [...page.querySelectorAll('svg text')], tables = [...page.querySelectorAll('.scroll')];"
                        + " document.body.append(`, ${texts.length > 20 && tables.length > 2}, cut: `,"
                        + " texts.filter(t => t.getBoundingClientRect().left < t.ownerSVGElement.getBoundingClientRect().left)"
                        + ".map(t => t.textContent).join(), ' and ',"
                        + " tables.filter(t => t.scrollWidth > t.clientWidth).map(t => t.parentNode.firstChild.textContent).join(),"
                        + " ' are all'); }</script>");

        // Numbers at the axes, and tables of one run, are there as a whole.
        assertThat(browse(frame)).containsPattern("width (3\\d\\d) needs \\1, true, cut:  and  are all");
    }

    @Test
    void anEvaluationIsAPageTooWithBaseAndTunedBesideEachOther() throws Exception {
        Path run = train("adapter", "2");
        Path page = folder.resolve("eval.html");
        String[] command = {
            "eval",
            "--model",
            Program.model(),
            "--adapter",
            run.toString(),
            "--data",
            questions().toString()
        };
        String[] whole = Program.with(command, "--answers", "1", "-n", "4", "--report", page.toString());
        Program.run(whole).succeeds();

        JsonNode shown = data(page).path("evaluation");
        assertThat(shown.path("name").asText()).isEqualTo(run.toString());
        assertThat(shown.path("results").path("base").path("loss").asDouble()).isPositive();
        assertThat(shown.path("results").path("tuned").path("f1").isNumber()).isTrue();
        assertThat(shown.path("command").asText()).contains("eval --model", "--answers 1", page.toString());
        String dom = browse(page);
        assertThat(dom)
                .contains("Result</h2>", "Answers</h2>", "Data</h2>", "<mark>", "Again</h2>")
                .containsSubsequence("<small>expected", "<small>base", "<small>tuned");

        Path mine = Files.writeString(folder.resolve("mine.html"), "mine");
        Program.run(Program.with(command, "--report", mine.toString()))
                .failsWith(ExitCode.FAILED, "is there already and is no report");
        assertThat(mine).hasContent("mine");
        Program.run(Program.with(command, "--report", questions().toString(), "--overwrite"))
                .failsWith(ExitCode.FAILED, "--report");
    }

    @Test
    void anEvaluatedClassifierShowsWhatIsTakenForWhat() throws Exception {
        Path texts = Files.writeString(
                folder.resolve("texts.jsonl"),
                "{\"text\": \"He is kind.\", \"label\": \"good\"}\n{\"text\": \"He is rude.\", \"label\": \"bad\"}\n"
                        .repeat(4));
        Path run = folder.resolve("classifier");
        String[] data = {"--model", Program.model(), "--data", texts.toString(), "--label-field", "label"};
        String[] train = {"train", "--output", run.toString(), "--max-steps", "2", "--threads", "1"};
        Program.run(Program.with(Program.with(train, "--eval-data", texts.toString()), data))
                .succeeds();
        assertThat(browse(run.resolve("report.html")))
                .contains(
                        "accuracy, held out<",
                        "macro F1, held out<",
                        "Accuracy, held out</h2>",
                        "Macro F1, held out</h2>")
                .doesNotContain("Reward</h2>")
                .doesNotContainPattern(">(NaN|undefined)");
        Path page = folder.resolve("classes.html");
        JsonNode measured = Program.run(Program.with(
                        new String[] {"eval", "--adapter", run.toString(), "--report", page.toString(), "--json"},
                        data))
                .succeeds()
                .json();

        assertThat(measured.path("report").asText()).isEqualTo(page.toString());
        JsonNode shown = data(page).path("evaluation").path("results").path("classifier");
        assertThat(shown.path("accuracy")).isEqualTo(measured.path("accuracy"));
        assertThat(browse(page))
                .contains("accuracy", "What is taken for what</h2>", ">good<", ">bad<")
                .doesNotContainPattern(">(NaN|undefined)");
    }

    private Path train(String name, String rank) {
        Path run = folder.resolve(name);
        Program.run(command(run, rank)).succeeds();
        return run;
    }

    private String[] command(Path run, String rank, String... more) {
        List<String> command = new ArrayList<>(List.of(
                "train", "--model", Program.model(), "--data", questions().toString(), "--output", run.toString()));
        command.addAll(List.of("--max-steps", "3", "--logging-steps", "1", "--lora-r", rank, "--eval-data"));
        command.addAll(List.of(questions().toString(), "--ask", QUESTION, "--base-model-name", "someone/austen-7m"));
        command.addAll(List.of(more));
        return command.toArray(String[]::new);
    }

    private Path questions() {
        try {
            return Files.writeString(
                    folder.resolve("questions.json"),
                    "[{\"question\": \"Who is Mr. Collins?\", \"answer\": \"Mr. Collins is a clergyman.\"}]");
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    /** What the page holds for its script. */
    static JsonNode data(Path page) throws IOException {
        String html = Files.readString(page);
        String start = "<script type=\"application/json\" id=\"data\">";
        int from = html.indexOf(start) + start.length();
        return new ObjectMapper().readTree(html.substring(from, html.indexOf("</script>", from)));
    }

    private String browse(Path page) throws IOException, InterruptedException {
        return browse(folder, page);
    }

    /**
     * The page after its script has run; a message of level error on the console fails the test.
     *
     * @param folder for what the browser writes
     */
    static String browse(Path folder, Path page) throws IOException, InterruptedException {
        String browser = Stream.of("chromium", "chromium-browser", "google-chrome")
                .flatMap(name -> Stream.of(System.getenv("PATH").split(File.pathSeparator))
                        .map(directory -> Path.of(directory, name)))
                .filter(Files::isExecutable)
                .map(Path::toString)
                .findFirst()
                .orElse(null);
        assumeTrue(browser != null, "Chromium is not installed, so no page is looked at");
        Path console = folder.resolve("console.txt");
        Process process = new ProcessBuilder(
                        browser,
                        "--headless",
                        "--no-sandbox",
                        "--disable-gpu",
                        "--disable-dev-shm-usage",
                        "--no-first-run",
                        "--disable-background-networking",
                        "--disable-component-update",
                        "--disable-sync",
                        "--allow-file-access-from-files",
                        "--enable-logging=stderr",
                        "--user-data-dir=" + folder.resolve("browser"),
                        "--virtual-time-budget=2000",
                        "--dump-dom",
                        page.toUri().toString())
                .redirectError(console.toFile())
                .start();
        process.getOutputStream().close();
        String dom = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor(5, TimeUnit.MINUTES)).isTrue();
        assertThat(Files.readAllLines(console, StandardCharsets.ISO_8859_1))
                .noneMatch(line -> line.contains("CONSOLE") && (line.contains("Uncaught") || line.contains("Error")));
        return dom;
    }
}
