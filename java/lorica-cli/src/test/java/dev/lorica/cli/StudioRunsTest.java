package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
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
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine.Model.OptionSpec;

/** Runs as jobs of {@code lorica serve}, over HTTP. */
@Timeout(240)
class StudioRunsTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

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
            assertThat(events(uri, guide("(?m)^curl -N \\S+run=(\\S+)$").get(0), null, 5))
                    .hasSize(5);
        }
    }

    private static JsonNode send(String uri, String path, Object body) throws Exception {
        HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(uri + "/studio/api/" + path)).timeout(Duration.ofSeconds(60));
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
        long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
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
        List<String> server = new ArrayList<>(new StudioProgram().command());
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

    @Test
    void whoComesBackGetsWhatWasMissedAndNothingTwice() throws Exception {
        try (Running running = new Running(command())) {
            String uri = running.uri();
            begin(uri, "run", 3);
            await(uri, "run", is("finished"));

            List<String> all = events(uri, "run", null, 10);
            List<String> rest = events(uri, "run", all.get(5).split(" ")[0], 4);
            assertThat(all.get(0)).contains("\"type\":\"begin\"");
            assertThat(rest).isEqualTo(all.subList(6, 10));
            assertThat(events(uri, "run", "another-server;run:1.5", 10))
                    .as("what an earlier server counted is not gone by")
                    .isEqualTo(all);
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

            JsonNode wrong = begin(uri, "wrong", 1, "learning-rate", "much");
            assertThat(wrong.path("status").asInt())
                    .as("the program itself judges values")
                    .isEqualTo(201);
            assertThat(await(uri, "wrong", is("failed")).path("message").asText())
                    .contains("learning-rate", "much");
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

            long bytes = 0;
            for (String file :
                    List.of("studio.css", "uplot.css", "uplot.js", "main.js", "server.js", "elements.js", "runs.js")) {
                HttpResponse<byte[]> got = CLIENT.send(
                        HttpRequest.newBuilder(URI.create(running.uri() + "/studio/" + file))
                                .build(),
                        HttpResponse.BodyHandlers.ofByteArray());
                assertThat(got.statusCode()).as(file).isEqualTo(200);
                bytes += got.body().length;
            }
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
