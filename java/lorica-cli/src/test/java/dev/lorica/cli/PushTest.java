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
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Uploads, to a hub on this machine; the program is another process, which has the hub's address in its environment. */
class PushTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    Path folder;

    private final Map<String, byte[]> taken = Collections.synchronizedMap(new TreeMap<>());
    private HttpServer hub;
    private volatile boolean refuses;

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
        if (refuses) {
            exchange.sendResponseHeaders(403, -1);
            return;
        }
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
        String output = runs(
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

        assertThat(output).contains("uploading adapter.gguf", "Uploaded to https://hub.example/me/mine/commit/1");
        assertThat(JSON.readTree(taken.get("/api/repos/create")).path("name").asText())
                .isEqualTo("mine");
        Map<String, String> files = committed("me/mine");
        String card = files.get("README.md");
        assertThat(files)
                .containsOnlyKeys(
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
    void whatIsTrainedIsUploadedOnceItIsSaved() throws Exception {
        Path output = folder.resolve("trained");
        String said = runs(training(output, "--push-to-hub", "me/mine", "--hub-private"));

        assertThat(said).containsSubsequence("Saved", "Uploaded to https://hub.example/me/mine/commit/1");
        assertThat(JSON.readTree(taken.get("/api/repos/create")).path("private").asBoolean())
                .isTrue();
        assertHasTheFilesOf(output, committed("me/mine"));
    }

    /** As files of Hugging Face's Trainer and of LLaMA-Factory say it, and as one of ours. */
    @ParameterizedTest
    @ValueSource(
            strings = {"push_to_hub: true\nhub_model_id: me/mine\nhub_private_repo: true\n", "push_to_hub: me/mine\n"})
    void aConfigFileSaysWhere(String settings) throws Exception {
        Path config = Files.writeString(folder.resolve("config.yaml"), settings);
        Path output = folder.resolve("trained");
        String said = runs(training(output, "--config", config.toString()));

        assertThat(said).containsSubsequence("Saved", "Uploaded to https://hub.example/me/mine/commit/1");
        assertThat(JSON.readTree(taken.get("/api/repos/create")).path("private").asBoolean())
                .isEqualTo(settings.contains("private"));
        assertHasTheFilesOf(output, committed("me/mine"));
    }

    /** An upload that fails is said, with what is left to do; what was trained is there. */
    @Test
    void whatWasTrainedStaysWhereTheHubRefusesIt() throws Exception {
        refuses = true;
        Path output = folder.resolve("trained");
        Process process = program(training(output, "--push-to-hub", "me/mine"));
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

        assertThat(process.waitFor()).as(said).isEqualTo(ExitCode.FAILED);
        assertThat(said)
                .containsSubsequence("Saved", "error: access to hf:me/mine is refused: the account of the token")
                .doesNotContain("\tat ");
        assertThat(output.resolve("adapter.gguf")).exists();
    }

    @Test
    void withoutATokenNothingIsComputed() {
        Program.run("export", "-m", "no.gguf", "-a", "x", "-o", folder.toString(), "--push-to-hub", "me/mine")
                .failsWith(ExitCode.FAILED, "--push-to-hub me/mine cannot be done", "HF_TOKEN");
    }

    private String[] training(Path output, String... more) throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.json"), "[{\"question\": \"Who is he?\", \"answer\": \"A clergyman.\"}]");
        String[] command = {
            "train",
            "-m",
            Program.model(),
            "-d",
            data.toString(),
            "-o",
            output.toString(),
            "--max-steps=1",
            "--lora-r=2"
        };
        return Program.with(command, more);
    }

    /** What the program wrote, which succeeds. */
    private String runs(String... args) throws Exception {
        Process process = program(args);
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as(output).isZero();
        return output;
    }

    /** The files of a commit by name; of those that were uploaded before it, the checksums. */
    private Map<String, String> committed(String repository) throws IOException {
        Map<String, String> files = new TreeMap<>();
        String commit = new String(taken.get("/api/models/" + repository + "/commit/main"), StandardCharsets.UTF_8);
        for (String line : commit.lines().skip(1).toList()) {
            JsonNode value = JSON.readTree(line).path("value");
            boolean isLarge = value.path("content").isMissingNode();
            String content = value.path(isLarge ? "oid" : "content").asText();
            files.put(
                    value.path("path").asText(),
                    isLarge ? content : new String(Base64.getDecoder().decode(content), StandardCharsets.UTF_8));
        }
        return files;
    }

    private void assertHasTheFilesOf(Path output, Map<String, String> files) throws Exception {
        assertThat(files.get("adapter_config.json")).isEqualTo(Files.readString(output.resolve("adapter_config.json")));
        assertThat(files.get("README.md")).isEqualTo(Files.readString(output.resolve("README.md")));
        for (String large : List.of("adapter.gguf", "adapter_model.safetensors")) {
            byte[] bytes = Files.readAllBytes(output.resolve(large));
            String sum = HexFormat.of()
                    .formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
            assertThat(files.get(large)).isEqualTo(sum);
            assertThat(taken.get("/put/" + sum)).isEqualTo(bytes);
        }
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
