package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** {@code lorica serve} as it is started and ended, and the commands on its page of the guide. */
@Timeout(900)
class ServeCommandTest {
    private static final Pattern CURL =
            Pattern.compile("(?m)^curl http://127\\.0\\.0\\.1:8080(/\\S+)(?: -H '[^']*' -d '([^']*)')?$");
    private static final Pattern SERVE = Pattern.compile("(?m)^lorica (serve .*)$");

    @TempDir
    private Path folder;

    /** The command on a thread of its own, once it serves. */
    static final class Running implements AutoCloseable {
        private final CompletableFuture<String> line = new CompletableFuture<>();
        private final CompletableFuture<Integer> ended = new CompletableFuture<>();
        private final Thread thread;

        Running(String... args) {
            ByteArrayOutputStream out = new ByteArrayOutputStream() {
                @Override
                public synchronized void write(byte[] bytes, int offset, int length) {
                    super.write(bytes, offset, length);
                    String text = toString(StandardCharsets.UTF_8);
                    if (text.endsWith("\n")) {
                        line.complete(text);
                    }
                }
            };
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            thread = new Thread(() -> {
                int code = LoricaCli.run(
                        InputStream.nullInputStream(),
                        new PrintStream(out, true, StandardCharsets.UTF_8),
                        new PrintStream(err, true, StandardCharsets.UTF_8),
                        args);
                ended.complete(code);
                line.complete(err.toString(StandardCharsets.UTF_8));
            });
            thread.start();
        }

        String uri() throws Exception {
            String said = line.get(240, TimeUnit.SECONDS);
            assertThat(said).startsWith("{");
            String url = new ObjectMapper().readTree(said).path("url").asText();
            return url.substring(0, url.length() - "/v1".length());
        }

        @Override
        public void close() throws Exception {
            thread.interrupt();
            assertThat(ended.get(240, TimeUnit.SECONDS)).isEqualTo(ExitCode.OK);
        }
    }

    private static HttpResponse<String> ask(String url, String body) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(240));
        if (body != null) {
            request.header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
        }
        return HttpClient.newHttpClient().send(request.build(), HttpResponse.BodyHandlers.ofString());
    }

    private Path adapter() throws IOException {
        Path data = Files.writeString(folder.resolve("q.jsonl"), "{\"prompt\": \"Who?\", \"response\": \"He.\"}\n");
        return Program.adapter(folder.resolve("my-adapter"), data);
    }

    @Test
    void commandsOfTheGuideWork() throws Exception {
        Path adapter = adapter();
        String page = Files.readString(Path.of(Program.repository("java/guide/serving.md")));
        List<MatchResult> starts = SERVE.matcher(page).results().toList();
        List<MatchResult> requests = CURL.matcher(page).results().toList();
        assertThat(starts).hasSize(1);
        assertThat(requests).hasSize(4);
        String[] args = (starts.get(0).group(1) + " --json --ctx-size 256")
                .replace("llama.gguf", Program.model())
                .replace("my-adapter", adapter.toString())
                .replace("--port 8080", "--port 0")
                .split(" ");
        try (Running running = new Running(args)) {
            for (MatchResult request : requests) {
                HttpResponse<String> answer = ask(running.uri() + request.group(1), request.group(2));
                assertThat(answer.statusCode())
                        .as("%s: %s", request.group(), answer.body())
                        .isEqualTo(200);
            }
            assertThat(ask(running.uri() + "/v1/models", null).body()).contains("\"austen\"", "\"austen-7m-q4_0\"");
        }
    }

    @Test
    void anEncoderIsServedForItsEmbeddings() throws Exception {
        String model = Program.encoder(folder);
        JsonNode expected = Program.run("embed", "--model=" + model, "--text=the the", "--json")
                .succeeds()
                .json()
                .at("/embeddings/0");
        try (Running running = new Running("serve", "--model=" + model, "--port=0", "--json")) {
            HttpResponse<String> answer = ask(running.uri() + "/v1/embeddings", "{\"input\": \"the the\"}");
            JsonNode vector = new ObjectMapper().readTree(answer.body()).at("/data/0/embedding");
            assertThat(vector).hasSameSizeAs(expected).isNotEmpty();
            for (int i = 0; i < expected.size(); i++) {
                assertThat(vector.get(i).asDouble()).isEqualTo(expected.get(i).asDouble(), within(1e-5));
            }
            HttpResponse<String> chat = ask(running.uri() + "/v1/completions", "{\"prompt\": \"the\"}");
            assertThat(chat.statusCode()).isEqualTo(400);
            assertThat(chat.body()).contains("is an encoder");
        }
    }

    @Test
    void whatCannotBeServedIsSaidInOneLine() {
        String[] serve = {"serve", "--model", Program.model(), "--port", "0"};
        Program.run(Program.with(serve, "--host", "0.0.0.0"))
                .failsWith(ExitCode.FAILED, "needs an API key (LORICA_API_KEY, or --api-key)");
        Program.run(Program.with(serve, "--data-folder", "nowhere"))
                .failsWith(ExitCode.FAILED, "--data-folder nowhere is no folder");
        Program.run(Program.with(serve, "--parallel", "0")).failsWith(ExitCode.FAILED, "texts is 0");
        Program.run(Program.with(serve, "-a", "x=a", "-a", "x=b"))
                .failsWith(ExitCode.FAILED, "two adapters are called x");
        Program.run(Program.with(serve, "-a", "late=nowhere")).failsWith(ExitCode.FAILED, "nowhere");
    }
}
