package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.ModelConfig;
import dev.lorica.cli.ServeCommandTest.Running;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine.Model.OptionSpec;

/** Runs as jobs of {@code lorica serve}, over HTTP. */
@Timeout(900)
class StudioRunsTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HttpClient CLIENT = HttpClient.newHttpClient();
    private static final String PROMPT = "### Instruction:\nWho is Mr. Collins?\n\n### Response:\n";
    private static final int TOKENS = 10;
    private static final Duration PATIENCE = Duration.ofSeconds(240);
    private static final int TRIES = 10;

    @TempDir
    private Path folder;

    private Path data;
    private Path out;

    @BeforeEach
    void folders() throws IOException {
        data = Files.createDirectories(folder.resolve("data"));
        out = folder.resolve("out");
        Files.writeString(
                data.resolve("q.json"),
                "[{\"question\": \"Who is Mr. Collins?\", \"answer\": \"Mr. Collins is a clergyman.\"}]");
    }

    /** The command of the guide. */
    private String[] command() throws IOException {
        String command = guide("(?m)^lorica (serve .*)$").get(0);
        return (command + " --port 0 --ctx-size 64 --parallel 1 --json")
                .replace("llama.gguf", Program.model())
                .replace("--data-folder data", "--data-folder " + data)
                .replace("--output-folder runs", "--output-folder " + out)
                .split(" ");
    }

    private static List<String> guide(String pattern) throws IOException {
        List<String> found = Pattern.compile(pattern)
                .matcher(Files.readString(Path.of(Program.repository("java/guide/studio.md"))))
                .results()
                .map(result -> result.group(1))
                .toList();
        assertThat(found).as(pattern).isNotEmpty();
        return found;
    }

    @Test
    void theRequestsOfTheGuideAreAnswered() throws Exception {
        Files.move(data.resolve("q.json"), data.resolve("questions.json"));
        try (Running running = new Running(command())) {
            String uri = running.uri();
            Object body =
                    JSON.readTree(guide("(?m)^curl \\S+/runs -H .* -d '(.*)'$").get(0));
            assertThat(send(uri, "runs", body).path("status").asInt()).isEqualTo(201);
            await(uri, "first", is("finished"));
            List<String> said = Files.readAllLines(out.resolve(".lorica-runs/first/output.txt")).stream()
                    .filter(line -> !line.isBlank())
                    .toList();
            int all =
                    1 + Files.readAllLines(out.resolve("first/train_log.jsonl")).size() + said.size();
            List<String> told =
                    events(uri, guide("(?m)^curl -N \\S+run=(\\S+)$").get(0), null, all);
            assertThat(told).hasSize(all);
            assertThat(String.join("\n", said))
                    .as("the program says where it writes")
                    .contains(folder.toString());
            assertThat(String.join("\n", told)).as("no page is told").doesNotContain(folder.toString());
        }
    }

    private static JsonNode send(String uri, String path, Object body) throws Exception {
        HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(uri + "/studio/api/" + path)).timeout(PATIENCE);
        if (body != null) {
            request.header("Content-Type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofString(JSON.writeValueAsString(body)));
        }
        HttpResponse<String> answer = CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofString());
        JsonNode json = JSON.readTree(answer.body());
        return json.isObject() ? ((ObjectNode) json).put("status", answer.statusCode()) : json;
    }

    private static JsonNode begin(String uri, String name, int steps, String... more) throws Exception {
        Map<String, Object> options = new LinkedHashMap<>(Map.of(
                "data",
                List.of("q.json"),
                "max-steps",
                steps,
                "logging-steps",
                1,
                "lora-r",
                2,
                "target-modules",
                List.of("q_proj"),
                "save-steps",
                20));
        for (int i = 0; i < more.length; i += 2) {
            options.put(more[i], more[i + 1]);
        }
        return send(uri, "runs", Map.of("name", name, "options", options));
    }

    private static JsonNode run(String uri, String name) throws Exception {
        for (JsonNode run : send(uri, "runs", null).path("runs")) {
            if (run.path("name").asText().equals(name)) {
                return run;
            }
        }
        return JSON.createObjectNode();
    }

    private static JsonNode await(String uri, String name, Predicate<JsonNode> wanted) throws Exception {
        long end = System.nanoTime() + PATIENCE.toNanos();
        JsonNode run = run(uri, name);
        while (!wanted.test(run)) {
            assertThat(System.nanoTime()).as("%s", run).isLessThan(end);
            Thread.sleep(50);
            run = run(uri, name);
        }
        return run;
    }

    private static Predicate<JsonNode> is(String state) {
        return run -> run.path("state").asText().equals(state);
    }

    /** Events of a run as they come, until there are so many with an id. */
    private static List<String> events(String uri, String name, String last, int count) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(uri + "/studio/api/events?run=" + name));
        if (last != null) {
            request.header("Last-Event-ID", last);
        }
        List<String> found = new ArrayList<>();
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(
                CLIENT.send(request.build(), HttpResponse.BodyHandlers.ofInputStream())
                        .body(),
                StandardCharsets.UTF_8))) {
            String id = null;
            for (String line = lines.readLine(); found.size() < count; line = lines.readLine()) {
                if (line.startsWith("id: ")) {
                    id = line.substring(4);
                } else if (line.startsWith("data: ") && id != null) {
                    found.add(id + " " + line.substring(6));
                    id = null;
                }
            }
        }
        return found;
    }

    private List<Integer> steps(String name) throws IOException {
        List<Integer> steps = new ArrayList<>();
        for (String line : Files.readAllLines(out.resolve(name).resolve("train_log.jsonl"))) {
            JsonNode record = JSON.readTree(line);
            if (record.has("loss")) {
                steps.add(record.path("step").asInt());
            }
        }
        return steps;
    }

    @Test
    void aRunGoesOnWhenItsServerIsKilledAndFromItsCheckpointWhenItIsKilledItself() throws Exception {
        List<String> server = new ArrayList<>(new StudioProgram(ModelConfig.defaults()).command());
        server.addAll(List.of(command()));
        Process killed = new ProcessBuilder(server).redirectErrorStream(true).start();
        try {
            BufferedReader said = new BufferedReader(new InputStreamReader(killed.getInputStream()));
            String line = said.readLine();
            while (!line.startsWith("{")) {
                line = said.readLine();
            }
            String url = JSON.readTree(line).path("url").asText();
            String uri = url.substring(0, url.length() - "/v1".length());
            assertThat(begin(uri, "long", 100_000).path("status").asInt()).isEqualTo(201);
            begin(uri, "next", 2);
            await(uri, "long", run -> run.path("step").asInt() > 5);
            assertThat(run(uri, "next").path("state").asText())
                    .as("one trains at a time")
                    .isEqualTo("queued");
        } finally {
            killed.destroyForcibly().waitFor();
        }
        int before;
        try (Running running = new Running(command())) {
            String uri = running.uri();
            int step = await(uri, "long", is("running")).path("step").asInt();
            await(uri, "long", run -> run.path("step").asInt() > step + 5);
            assertThat(run(uri, "next").path("state").asText()).isEqualTo("queued");
            await(uri, "long", run -> run.path("step").asInt() > 15);

            JsonNode kept = JSON.readTree(Files.readString(out.resolve(".lorica-runs/long/run.json")));
            ProcessHandle.of(kept.path("pid").asLong()).orElseThrow().destroyForcibly();
            JsonNode stopped = await(uri, "long", is("stopped"));
            assertThat(stopped.path("message").asText()).contains("last checkpoint");
            before = steps("long").size();
            await(uri, "next", is("finished"));

            send(uri, "runs/long/resume", Map.of());
            await(uri, "long", is("running"));
            int size = before;
            await(uri, "long", run -> run.path("step").asInt() > size + 5);
            send(uri, "runs/long/stop", Map.of());
            await(uri, "long", is("stopped"));
        }
        List<Integer> steps = steps("long");
        assertThat(steps).as("each step once, in order").isSorted().doesNotHaveDuplicates();
        assertThat(steps.get(0)).isEqualTo(1);
        assertThat(steps.get(steps.size() - 1)).isEqualTo(steps.size());
    }

    /** A run as {@code lorica train} in a shell makes it: without a process of its own, which takes longer than the training. */
    private Path trained(String name, int steps) {
        Path to = out.resolve(name);
        Program.run(
                        "train",
                        "--model=" + Program.model(),
                        "--data=" + data.resolve("q.json"),
                        "--output=" + to,
                        "--max-steps=" + steps,
                        "--logging-steps=1",
                        "--lora-r=4",
                        "--learning-rate=1e-2")
                .succeeds();
        return to;
    }

    @Test
    void whoComesBackGetsWhatWasMissedAndNothingTwice() throws Exception {
        trained("run", 12);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            List<String> all = events(uri, "run", null, 10);
            List<String> rest = events(uri, "run", all.get(5).split(" ")[0], 4);
            assertThat(all.get(0)).contains("\"type\":\"begin\"");
            assertThat(rest).isEqualTo(all.subList(6, 10));
            assertThat(events(uri, "run", "another-server;run:1.5", 10))
                    .as("what an earlier server counted is not gone by")
                    .isEqualTo(all);
        }
    }

    /** All files below a folder, those of the output folder left out, with their sizes and times. */
    private Map<String, String> elsewhere() throws IOException {
        Map<String, String> files = new TreeMap<>();
        try (Stream<Path> tree = Files.walk(folder)) {
            for (Path file : tree.filter(path -> !path.startsWith(out)).toList()) {
                files.put(file.toString(), Files.size(file) + " " + Files.getLastModifiedTime(file));
            }
        }
        return files;
    }

    private static String completion(String uri, String model) throws Exception {
        HttpResponse<String> answer = CLIENT.send(
                HttpRequest.newBuilder(URI.create(uri + "/v1/completions"))
                        .header("Content-Type", "application/json")
                        .POST(HttpRequest.BodyPublishers.ofString(JSON.writeValueAsString(
                                Map.of("model", model, "prompt", PROMPT, "max_tokens", TOKENS, "temperature", 0))))
                        .build(),
                HttpResponse.BodyHandlers.ofString());
        assertThat(answer.statusCode()).as(answer.body()).isEqualTo(200);
        return JSON.readTree(answer.body()).at("/choices/0/text").asText();
    }

    private static JsonNode export(String uri, String adapter, String format, String name, String... more)
            throws Exception {
        Map<String, Object> body = new LinkedHashMap<>(Map.of("path", adapter, "format", format, "name", name));
        for (int i = 0; i < more.length; i += 2) {
            body.put(more[i], more[i + 1]);
        }
        return send(uri, "adapters/export", body);
    }

    private static JsonNode exported(String uri, int id) throws Exception {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (true) {
            for (JsonNode one : send(uri, "exports", null).path("exports")) {
                if (one.path("id").asInt() == id
                        && !List.of("waiting", "writing")
                                .contains(one.path("state").asText())) {
                    return one;
                }
            }
            assertThat(System.nanoTime()).isLessThan(end);
            Thread.sleep(50);
        }
    }

    @Test
    void whatIsExportedLoadsAgainAndAnswersAlike() throws Exception {
        trained("run", 20);
        Map<String, String> before = elsewhere();
        try (Running running = new Running(Program.with(command(), "--precision", "f32"))) {
            String uri = running.uri();
            assertThat(send(uri, "adapters/load", Map.of("path", "run"))
                            .path("model")
                            .asText())
                    .isEqualTo("run");
            String tuned = completion(uri, "run");
            assertThat(tuned).startsWith("Mr. Collins is a clergyman.");
            assertThat(completion(uri, "austen-7m-q4_0")).isNotEqualTo(tuned);

            Map<String, JsonNode> begun = new LinkedHashMap<>();
            begun.put("peft", export(uri, "run", "peft", "as-peft"));
            begun.put("gguf", export(uri, "run", "gguf", "as-gguf"));
            begun.put("merged", export(uri, "run", "merged", "merged.gguf"));
            begun.put("quantized", export(uri, "run", "quantized", "quantized.gguf", "type", "Q8_0"));
            for (Map.Entry<String, JsonNode> one : begun.entrySet()) {
                assertThat(one.getValue().path("status").asInt())
                        .as("%s", one.getValue())
                        .isEqualTo(202);
                JsonNode done = exported(uri, one.getValue().path("id").asInt());
                assertThat(done.path("state").asText()).as("%s", done).isEqualTo("done");
                assertThat(done.path("bytes").asLong()).as("%s", done).isPositive();
                assertThat(done.path("ended").asLong())
                        .isGreaterThanOrEqualTo(done.path("began").asLong());
            }
            assertThat(out.resolve("as-peft/adapter_model.safetensors")).isNotEmptyFile();
            assertThat(out.resolve("as-peft/adapter.gguf")).doesNotExist();
            assertThat(out.resolve("as-gguf/adapter.gguf")).isNotEmptyFile();
            for (String adapter : List.of("as-peft", "as-gguf")) {
                send(uri, "adapters/load", Map.of("path", adapter));
                assertThat(completion(uri, adapter)).as(adapter).isEqualTo(tuned);
            }
            for (String model : List.of("merged.gguf", "quantized.gguf")) {
                Program answer = Program.run(
                                "generate",
                                "--model=" + out.resolve(model),
                                "--prompt=" + PROMPT,
                                "--max-new-tokens=" + TOKENS,
                                "--temperature=0",
                                "--precision=f32",
                                "--json")
                        .succeeds();
                assertThat(answer.json().path("text").asText()).as(model).isEqualTo(tuned);
            }
            assertThat(Program.run("info", out.resolve("quantized.gguf").toString(), "--json")
                            .succeeds()
                            .json()
                            .toString())
                    .contains("Q8_0");

            for (String path : List.of("../run", folder.toString(), "nothing")) {
                assertThat(export(uri, path, "peft", "new").path("status").asInt())
                        .as(path)
                        .isEqualTo(400);
            }
            for (String name : List.of("../y", "/tmp/y", ".hidden", "as-peft", "run", ".lorica-runs", "")) {
                assertThat(export(uri, "run", "peft", name).path("status").asInt())
                        .as(name)
                        .isEqualTo(400);
            }
            assertThat(export(uri, "run", "merged", "model")
                            .at("/error/message")
                            .asText())
                    .contains("ends in .gguf");
            assertThat(export(uri, "run", "onnx", "model").at("/error/message").asText())
                    .contains("peft, gguf, merged, quantized");
            JsonNode failed = exported(
                    uri,
                    export(uri, "run", "quantized", "none.gguf", "type", "Q3_X")
                            .path("id")
                            .asInt());
            assertThat(failed.path("state").asText()).isEqualTo("failed");
            assertThat(failed.path("message").asText()).contains("Q3_X").doesNotContain(folder.toString());
            assertThat(out.resolve("none.gguf")).doesNotExist();
        }
        assertThat(elsewhere()).as("nothing is written elsewhere").isEqualTo(before);
        try (Stream<Path> files = Files.list(out)) {
            assertThat(files.map(file -> file.getFileName().toString()))
                    .containsExactlyInAnyOrder(
                            ".lorica-runs", "run", "as-peft", "as-gguf", "merged.gguf", "quantized.gguf");
        }
        try (Stream<Path> files = Files.list(out.resolve(".lorica-runs"))) {
            assertThat(files.map(file -> file.getFileName().toString())).containsExactly("lock");
        }
    }

    @Test
    void anExportThatIsStoppedLeavesNothing() throws Exception {
        trained("run", 1);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            int tries = 0;
            while (!bothAreStopped(uri, "first-" + tries + ".gguf", "second-" + tries + ".gguf")) {
                assertThat(++tries)
                        .as("what is written before it can be stopped")
                        .isLessThan(TRIES);
            }
        }
        try (Stream<Path> files = Files.list(out)) {
            assertThat(files.map(file -> file.getFileName().toString()))
                    .containsExactlyInAnyOrder(".lorica-runs", "run");
        }
    }

    /** Of two exports, one after the other; false where one was written sooner than it was stopped, and then nothing of it is left either. */
    private boolean bothAreStopped(String uri, String firstName, String secondName) throws Exception {
        int first = export(uri, "run", "merged", firstName).path("id").asInt();
        int second = export(uri, "run", "merged", secondName).path("id").asInt();
        assertThat(export(uri, "run", "merged", secondName).path("status").asInt())
                .as("the name is taken")
                .isEqualTo(400);
        String waited =
                send(uri, "exports/" + second + "/stop", Map.of()).path("state").asText();
        send(uri, "exports/" + first + "/stop", Map.of());
        String written = exported(uri, first).path("state").asText();
        assertThat(exported(uri, second).path("state").asText()).isIn("stopped", "done");
        assertThat(written).isIn("stopped", "done");
        assertThat(send(uri, "exports/" + first + "/stop", Map.of())
                        .path("status")
                        .asInt())
                .isEqualTo(400);
        if (written.equals("stopped") && waited.equals("stopped")) {
            return true;
        }
        Files.deleteIfExists(out.resolve(firstName));
        Files.deleteIfExists(out.resolve(secondName));
        return false;
    }

    @Test
    void runsAreRenamedAndDeletedButNotWhileTheyRun() throws Exception {
        Path kept = Files.writeString(folder.resolve("kept.txt"), "kept");
        Files.createSymbolicLink(trained("shell", 2).resolve("link"), folder);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            assertThat(begin(uri, "long", 100_000).path("status").asInt()).isEqualTo(201);
            begin(uri, "next", 2);
            await(uri, "long", run -> run.path("step").asInt() > 2);
            for (String verb : List.of("delete", "rename")) {
                for (String name : List.of("long", "next")) {
                    JsonNode refused = send(
                            uri, "runs/" + name + "/" + verb, verb.equals("rename") ? Map.of("to", "other") : Map.of());
                    assertThat(refused.path("status").asInt()).as(verb).isEqualTo(400);
                    assertThat(refused.at("/error/message").asText())
                            .contains(name.equals("long") ? "is running; stop it first" : "waits");
                }
                for (String name : List.of("nothing", "..", "%2e%2e", ".lorica-runs", "kept.txt")) {
                    assertThat(send(uri, "runs/" + name + "/" + verb, Map.of("to", "x"))
                                    .path("status")
                                    .asInt())
                            .as(name)
                            .isGreaterThanOrEqualTo(400);
                }
            }
            send(uri, "runs/next/stop", Map.of());
            send(uri, "runs/long/stop", Map.of());
            await(uri, "long", is("stopped"));
            int steps = steps("long").size();

            for (String name : List.of("../x", "shell", "", ".x", "next")) {
                assertThat(send(uri, "runs/long/rename", Map.of("to", name))
                                .path("status")
                                .asInt())
                        .as(name)
                        .isEqualTo(400);
            }
            send(uri, "adapters/load", Map.of("path", "long"));
            assertThat(send(uri, "runs/long/rename", Map.of("to", "longer"))
                            .path("command")
                            .asText())
                    .contains("--output longer");
            assertThat(out.resolve("long")).doesNotExist();
            assertThat(steps("longer")).hasSize(steps);
            assertThat(send(uri, "adapters", null).toString())
                    .contains("\"longer\"")
                    .doesNotContain("\"long\"");
            assertThat(send(uri, "runs/longer/resume", Map.of()).path("status").asInt())
                    .isEqualTo(200);
            await(uri, "longer", run -> run.path("step").asInt() > steps + 2);
            send(uri, "runs/longer/stop", Map.of());
            await(uri, "longer", is("stopped"));
            assertThat(steps("longer")).isSorted().doesNotHaveDuplicates();
            assertThat(out.resolve("long")).as("it goes on under its new name").doesNotExist();

            JsonNode asked = send(uri, "runs/longer/delete", Map.of("dry_run", true));
            assertThat(asked.path("files").asInt()).isGreaterThan(3);
            assertThat(asked.path("bytes").asLong()).isGreaterThan(1000);
            assertThat(out.resolve("longer")).exists();
            for (String name : List.of("longer", "shell", "next")) {
                assertThat(send(uri, "runs/" + name + "/delete", Map.of())
                                .path("deleted")
                                .asBoolean())
                        .isTrue();
            }
            assertThat(send(uri, "runs", null).path("runs")).isEmpty();
        }
        assertThat(kept).as("links are not followed").hasContent("kept");
        assertThat(data.resolve("q.json")).isNotEmptyFile();
        try (Stream<Path> files = Files.list(out)) {
            assertThat(files.map(file -> file.getFileName().toString())).containsExactly(".lorica-runs");
        }
        try (Stream<Path> files = Files.list(out.resolve(".lorica-runs"))) {
            assertThat(files.map(file -> file.getFileName().toString())).containsExactly("lock");
        }
    }

    @Test
    void aRunThatAShellTrainsJustNowIsNotDeleted() throws Exception {
        Path shell = trained("shell", 1);
        Process holds = new ProcessBuilder(
                        "python3",
                        "-c",
                        "import fcntl,sys\nf=open(sys.argv[1],'w')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\nsys.stdin.read()",
                        shell.resolve(".lorica.lock").toString())
                .start();
        try (Running running = new Running(command())) {
            assertThat(holds.getInputStream().read()).isEqualTo('h');
            for (String verb : List.of("delete", "rename")) {
                assertThat(send(
                                        running.uri(),
                                        "runs/shell/" + verb,
                                        verb.equals("rename") ? Map.of("to", "x") : Map.of())
                                .at("/error/message")
                                .asText())
                        .contains("the run shell is in use");
            }
            holds.destroy();
            holds.waitFor();
            assertThat(send(running.uri(), "runs/shell/delete", Map.of())
                            .path("deleted")
                            .asBoolean())
                    .isTrue();
        } finally {
            holds.destroyForcibly();
        }
        assertThat(shell).doesNotExist();
    }

    @Test
    void aPlanTakesLessThanASecondAndSaysWhatTheProgramSays() throws Exception {
        Map<String, Object> options = Map.of("data", List.of("q.json"), "max-steps", 3, "max-length", 64);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            send(uri, "plan", Map.of("options", options)); // whose classes are loaded for the next ones
            Duration quickest = PATIENCE;
            JsonNode plan = null;
            for (int i = 0; i < TRIES && quickest.toMillis() >= 1000; i++) { // the machine has other things to do too
                long start = System.nanoTime();
                plan = send(uri, "plan", Map.of("options", options, "examples", 1));
                Duration taken = Duration.ofNanos(System.nanoTime() - start);
                quickest = taken.compareTo(quickest) < 0 ? taken : quickest;
            }
            assertThat(quickest).isLessThan(Duration.ofSeconds(1));
            ObjectNode said = (ObjectNode) Program.run(
                            "train",
                            "--model=" + Program.model(),
                            "--data=" + data.resolve("q.json"),
                            "--output=" + out.resolve("plan-of-nothing"),
                            "--max-steps=3",
                            "--max-length=64",
                            "--dry-run",
                            "--show-examples=1",
                            "--json")
                    .succeeds()
                    .json();
            assertThat(plan.at("/planned_memory_bytes/total")).isEqualTo(said.at("/planned_memory_bytes/total"));
            List<String> changing = List.of("status", "words", "planned_memory_bytes"); // how much memory can be had
            for (String name : changing) {
                assertThat(plan.has(name)).as(name).isTrue();
            }
            said.with("data").put("name", "q.json"); // on a page as seen from the data folder
            assertThat((JsonNode) ((ObjectNode) plan).remove(changing)).isEqualTo(said.remove(changing));
            JsonNode wrong =
                    send(uri, "plan", Map.of("options", Map.of("data", List.of("q.json"), "learning-rate", "much")));
            assertThat(wrong.path("status").asInt()).isEqualTo(400);
            assertThat(wrong.at("/error/message").asText()).contains("learning-rate", "much");
            Files.writeString(data.resolve("empty.json"), "[]");
            JsonNode empty = send(uri, "plan", Map.of("options", Map.of("data", List.of("empty.json"))));
            assertThat(empty.path("status").asInt()).isEqualTo(400);
            assertThat(empty.at("/error/message").asText())
                    .contains("empty.json")
                    .doesNotContain(folder.toString());
        }
        assertThat(out.resolve("plan-of-nothing")).doesNotExist();
    }

    @Test
    void noPageIsToldWhereTheFoldersAre() throws Exception {
        trained("run", 1);
        Path elsewhere = Files.copy(data.resolve("q.json"), folder.resolve("elsewhere.json"));
        Program.adapter(data.resolve("brought"), elsewhere);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            assertThat(begin(uri, "wrong", 1, "learning-rate", "much")
                            .path("status")
                            .asInt())
                    .as("the program itself judges values")
                    .isEqualTo(201);
            assertThat(await(uri, "wrong", is("failed")).path("message").asText())
                    .contains("learning-rate", "much");
            JsonNode meant = send(
                    uri, "check", Map.of("name", "x", "options", Map.of("data", List.of("q.json"), "max-steps", 3)));
            assertThat(meant.path("command").asText())
                    .contains("--model austen-7m-q4_0.gguf", "--data q.json", "--output x");
            assertThat(meant.path("yaml").asText()).contains("data: q.json", "output: x");
            JsonNode read = send(uri, "read", Map.of("yaml", meant.path("yaml").asText()));
            assertThat(send(uri, "check", Map.of("name", "x", "options", read.path("options")))
                            .path("command"))
                    .as("the YAML means the same when it is read")
                    .isEqualTo(meant.path("command"));
            StringBuilder told = new StringBuilder();
            for (String path : List.of("settings", "files", "runs", "adapters", "exports")) {
                told.append(send(uri, path, null));
            }
            assertThat(told).contains("\"elsewhere.json\"");
            told.append(meant).append(read);
            told.append(events(uri, "wrong", null, 2));
            told.append(send(uri, "plan", Map.of("options", Map.of("data", List.of("q.json")))));
            told.append(send(uri, "adapters/load", Map.of("path", "wrong")));
            told.append(send(uri, "runs/run/resume", Map.of()));
            assertThat(told.toString())
                    .doesNotContain(
                            folder.toString(),
                            folder.toRealPath().toString(),
                            Path.of(Program.model())
                                    .toAbsolutePath()
                                    .normalize()
                                    .getParent()
                                    .toString());
        }
    }

    @Test
    void nothingOutsideOfItsFoldersIsReadOrWritten() throws Exception {
        Path secret = Files.writeString(folder.resolve("secret.json"), Files.readString(data.resolve("q.json")));
        Files.createSymbolicLink(data.resolve("link.json"), secret);
        try (Running running = new Running(command())) {
            String uri = running.uri();
            for (String path : List.of(
                    "../secret.json",
                    secret.toString(),
                    "link.json",
                    "x/../../secret.json",
                    ".",
                    "",
                    "hf:owner/set",
                    "\0")) {
                JsonNode answer = begin(uri, "run", 1, "data", path);
                assertThat(answer.path("status").asInt()).as(path).isEqualTo(400);
                assertThat(answer.path("error").path("message").asText())
                        .contains("data names nothing that lies below");
            }
            for (String name : List.of("../run", ".run", "a/b", "", "x".repeat(65), "..")) {
                assertThat(begin(uri, name, 1).path("error").path("message").asText())
                        .as(name)
                        .contains("a run cannot be called that");
            }
            for (String option : List.of("output", "config", "logging-dir", "push-to-hub", "resume", "overwrite")) {
                assertThat(begin(uri, "run", 1, option, "x")
                                .path("error")
                                .path("message")
                                .asText())
                        .contains("the option " + option + " cannot be set here");
            }
            assertThat(begin(uri, "run", 1, "chat-template", "../secret.json")
                            .path("status")
                            .asInt())
                    .isEqualTo(400);
            assertThat(send(uri, "adapters/load", Map.of("path", folder.toString()))
                            .path("status")
                            .asInt())
                    .isEqualTo(400);
            assertThat(send(uri, "adapters/export", Map.of("path", "x", "format", "peft", "name", "../y"))
                            .path("status")
                            .asInt())
                    .isEqualTo(400);
            assertThat(send(uri, "runs", null).path("runs")).isEmpty();
        }
    }

    @Test
    void thePageIsForAllAndWhatItAsksForIsForThoseWithTheKey() throws Exception {
        String[] command = {
            "serve", "--model", Program.model(), "--port", "0", "--ctx-size", "64", "--api-key", "secret", "--json"
        };
        try (Running running = new Running(command)) {
            HttpResponse<String> page = CLIENT.send(
                    HttpRequest.newBuilder(URI.create(running.uri() + "/")).build(),
                    HttpResponse.BodyHandlers.ofString());
            assertThat(page.statusCode()).isEqualTo(200);
            assertThat(page.headers().firstValue("Content-Security-Policy"))
                    .hasValueSatisfying(
                            policy -> assertThat(policy).contains("default-src 'none'", "script-src 'self'"));
            assertThat(send(running.uri(), "settings", null).path("status").asInt())
                    .isEqualTo(401);

            Pattern named = Pattern.compile("[\"'](?:/studio/|\\./)([\\w.]+)[\"']");
            Set<String> files = new LinkedHashSet<>();
            Deque<String> unread = new ArrayDeque<>(List.of(page.body()));
            long bytes = 0;
            while (!unread.isEmpty()) {
                String text = unread.poll();
                bytes += text.getBytes(StandardCharsets.UTF_8).length;
                for (MatchResult match : named.matcher(text).results().toList()) {
                    if (files.add(match.group(1))) {
                        HttpResponse<String> got = CLIENT.send(
                                HttpRequest.newBuilder(URI.create(running.uri() + "/studio/" + match.group(1)))
                                        .build(),
                                HttpResponse.BodyHandlers.ofString());
                        assertThat(got.statusCode()).as(match.group(1)).isEqualTo(200);
                        unread.add(got.body());
                    }
                }
            }
            assertThat(files).as("all that the page is made of").contains("uplot.js", "preview.js", "studio.css");
            assertThat(bytes).isBetween(100_000L, 1_000_000L);

            HttpResponse<String> settings = CLIENT.send(
                    HttpRequest.newBuilder(URI.create(running.uri() + "/studio/api/settings"))
                            .header("Authorization", "Bearer secret")
                            .build(),
                    HttpResponse.BodyHandlers.ofString());
            assertThat(settings.body()).contains("\"trains\":false");
            HttpResponse<String> runs = CLIENT.send(
                    HttpRequest.newBuilder(URI.create(running.uri() + "/studio/api/runs"))
                            .header("Authorization", "Bearer secret")
                            .build(),
                    HttpResponse.BodyHandlers.ofString());
            assertThat(runs.statusCode()).as("it was started without folders").isEqualTo(403);
            HttpResponse<String> foreign = CLIENT.send(
                    HttpRequest.newBuilder(URI.create(running.uri() + "/studio/api/settings"))
                            .header("Authorization", "Bearer secret")
                            .header("Origin", "https://example.org")
                            .build(),
                    HttpResponse.BodyHandlers.ofString());
            assertThat(foreign.statusCode()).isEqualTo(403);
        }
    }

    @Test
    void everyOptionThatNamesAFileIsKnownToNameOne() {
        for (OptionSpec option : LoricaCli.commandLine(
                        new Terminal(InputStream.nullInputStream(), System.out, System.err))
                .getSubcommands()
                .get("train")
                .getCommandSpec()
                .options()) {
            boolean names = option.paramLabel().matches(".*(FILE|DIR|PATH).*");
            assertThat(StudioProgram.isFile(option)
                            || StudioProgram.KEPT_FROM_PAGES.contains(option.longestName())
                            || !names)
                    .as(option.longestName())
                    .isTrue();
        }
    }
}
