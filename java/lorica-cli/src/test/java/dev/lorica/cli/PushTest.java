package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Uploads, to a hub on this machine; the program is another process, which has the hub's address in its environment. */
class PushTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    Path folder;

    private final Map<String, byte[]> taken = Collections.synchronizedMap(new TreeMap<>());
    private HttpServer hub;

    @BeforeEach
    void start() throws IOException {
        hub = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        hub.createContext("/", exchange -> {
            try (exchange) {
                answer(exchange);
            }
        });
        hub.start();
    }

    @AfterEach
    void stop() {
        hub.stop(0);
    }

    private String address() {
        return "http://localhost:" + hub.getAddress().getPort();
    }

    /** Takes weights as large files and all else in the commit. */
    private void answer(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        byte[] body = exchange.getRequestBody().readAllBytes();
        taken.put(path, body);
        Object answer = Map.of();
        if (path.endsWith("/preupload/main")) {
            List<Object> files = new ArrayList<>();
            for (JsonNode file : JSON.readTree(body).path("files")) {
                String name = file.path("path").asText();
                boolean large = name.matches(".*\\.(gguf|safetensors)");
                files.add(Map.of("path", name, "uploadMode", large ? "lfs" : "regular"));
            }
            answer = Map.of("files", files);
        } else if (path.endsWith("/objects/batch")) {
            List<Object> objects = new ArrayList<>();
            for (JsonNode object : JSON.readTree(body).path("objects")) {
                String oid = object.path("oid").asText();
                objects.add(Map.of("oid", oid, "actions", Map.of("upload", Map.of("href", address() + "/put/" + oid))));
            }
            answer = Map.of("objects", objects);
        } else if (path.endsWith("/commit/main")) {
            answer = Map.of("commitUrl", "https://hub.example/me/mine/commit/1");
        } else if (path.contains("/revision/")) {
            answer = Map.of("sha", "0".repeat(40), "siblings", List.of(Map.of("rfilename", ".gitattributes")));
        }
        byte[] bytes = JSON.writeValueAsBytes(answer);
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
    }

    @Test
    void anAdapterIsUploadedWithItsCardInOneCommit() throws Exception {
        Path adapter = folder.resolve("adapter");
        try (Model model = Model.load(Path.of(Program.model()));
                Adapter made = Adapter.create(
                        model,
                        LoraConfig.builder().rank(2).targetModules("q_proj").build())) {
            made.save(adapter);
        }
        Process process = program(
                "export",
                "-m",
                Program.model(),
                "-a",
                adapter.toString(),
                "-o",
                folder.resolve("out").toString(),
                "--base-model-name",
                "austen/base",
                "--push-to-hub",
                "me/mine");
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

        assertThat(process.waitFor()).as(output).isZero();
        assertThat(output).contains("uploading adapter.gguf", "Uploaded to https://hub.example/me/mine/commit/1");
        assertThat(JSON.readTree(taken.get("/api/repos/create")).path("name").asText())
                .isEqualTo("mine");
        List<String> paths = new ArrayList<>();
        String card = "";
        for (String line : new String(taken.get("/api/models/me/mine/commit/main"), StandardCharsets.UTF_8)
                .lines()
                .skip(1)
                .toList()) {
            JsonNode value = JSON.readTree(line).path("value");
            paths.add(value.path("path").asText());
            if (value.path("path").asText().equals("README.md")) {
                card = new String(
                        Base64.getDecoder().decode(value.path("content").asText()), StandardCharsets.UTF_8);
            }
        }
        assertThat(paths)
                .containsExactlyInAnyOrder(
                        "adapter.gguf",
                        "adapter_model.safetensors",
                        "adapter_config.json",
                        "lorica_adapter.json",
                        "README.md");
        assertThat(card)
                .startsWith("---\nbase_model: austen/base\nlibrary_name: peft\n")
                .contains("# mine");
        assertThat(taken.keySet().stream().filter(path -> path.startsWith("/put/")))
                .hasSize(2);
    }

    @Test
    void withoutATokenNothingIsComputed() {
        Program.run("export", "-m", "no.gguf", "-a", "x", "-o", folder.toString(), "--push-to-hub", "me/mine")
                .failsWith(ExitCode.FAILED, "--push-to-hub me/mine cannot be done", "HF_TOKEN");
    }

    private Process program(String... args) throws IOException {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                LoricaCli.class.getName()));
        command.addAll(List.of(args));
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
        builder.environment().put("HF_ENDPOINT", address());
        builder.environment().put("HF_TOKEN", "hf_secret");
        builder.environment().put("HF_HUB_CACHE", folder.resolve("cache").toString());
        return builder.start();
    }
}
