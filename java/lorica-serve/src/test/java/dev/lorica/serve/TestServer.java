package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.Callable;

/** A server of the small model on a free port, with two adapters, and plain requests to it. */
final class TestServer implements AutoCloseable {
    static final String KEY = "a-secret";
    /** On a machine that has other things to do. */
    static final Duration PATIENCE = Duration.ofSeconds(240);

    final Model model;
    final Adapter one;
    final Adapter other;
    final LoricaServer server;
    private final HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(PATIENCE)
            .build();

    TestServer(ServeConfig.Builder config) {
        this(config, null);
    }

    /** @param tuned where what is tuned is saved; {@code null}: nothing is tuned */
    TestServer(ServeConfig.Builder config, Path tuned) {
        model = model();
        one = adapter(model, 0.03);
        other = adapter(model, -0.05);
        server = new LoricaServer(model, config.port(0).positions(256).build());
        server.add("one", one);
        server.add("other", other);
        if (tuned != null) {
            server.tuning(model, tuned);
        }
        server.start();
    }

    static Model model() {
        Path file = Path.of(System.getProperty("lorica.repository", "../.."), "models/austen-7m-q4_0.gguf");
        return Model.load(file, new ModelConfig("cpu", Precision.F32, 2));
    }

    static Adapter adapter(Model model, double size) {
        Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(2).build());
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] += (float) (Math.sin(i + 0.7 * j) * size);
            }
            adapter.setValues(i, values);
        }
        return adapter;
    }

    /** What came back. */
    record Answer(int status, HttpResponse<String> response) {
        String body() {
            return response.body();
        }

        JsonNode json() {
            try {
                return new ObjectMapper().readTree(body());
            } catch (IOException e) {
                throw new AssertionError("not JSON: " + body(), e);
            }
        }

        JsonNode error() {
            return json().path("error");
        }
    }

    HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(server.uri() + path)).timeout(PATIENCE);
    }

    Answer send(HttpRequest request) throws Exception {
        HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
        return new Answer(response.statusCode(), response);
    }

    Answer get(String path) throws Exception {
        return send(request(path).GET().build());
    }

    /** @param json with ' for " */
    Answer post(String path, String json) throws Exception {
        return send(request(path)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(json.replace('\'', '"')))
                .build());
    }

    /** Waits until it holds; whoever asserts it afterwards says what there is instead. */
    static void await(Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.call() && System.nanoTime() < end) {
            Thread.sleep(50);
        }
    }

    @Override
    public void close() {
        server.close();
        one.close();
        other.close();
        model.close();
    }
}
