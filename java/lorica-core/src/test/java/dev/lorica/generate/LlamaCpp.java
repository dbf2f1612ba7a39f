package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import de.kherud.llama.InferenceParameters;
import de.kherud.llama.LlamaModel;
import de.kherud.llama.ModelParameters;
import de.kherud.llama.args.CacheType;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * llama.cpp's greedy continuations of prompts, in a program of its own: its library has a ggml in it, which must not meet the one of
 * ours in one process. One start is enough for many models.
 */
public final class LlamaCpp {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** @param adapter {@code null}: none */
    public record Request(String model, String adapter, List<String> prompts, int newTokens) {}

    /** @param texts of the prompts, in their order; {@code null}: the model could not be loaded */
    public record Answer(List<String> texts) {}

    private LlamaCpp() {}

    /** Skips a test where the binding has no library. */
    public static void assumeItRuns() {
        assumeTrue(System.getProperty("os.name").equals("Linux"), "its binding brings a library for Linux");
        assumeTrue(
                List.of("amd64", "x86_64").contains(System.getProperty("os.arch")),
                "its binding's library is for x86_64");
    }

    /** @param folder for files on the way */
    public static List<Answer> answer(Path folder, List<Request> requests) throws IOException, InterruptedException {
        Path input = folder.resolve("requests.json");
        Path output = folder.resolve("answers.json");
        Path log = folder.resolve("llama.cpp.log");
        JSON.writeValue(input.toFile(), requests);
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        LlamaCpp.class.getName(),
                        input.toString(),
                        output.toString())
                .redirectErrorStream(true)
                .redirectOutput(log.toFile())
                .start();
        boolean ended = process.waitFor(15, TimeUnit.MINUTES);
        if (!ended) {
            process.destroyForcibly();
        }
        assertThat(ended && process.exitValue() == 0)
                .as(() -> "llama.cpp ended: " + tail(log))
                .isTrue();
        return JSON.readValue(output.toFile(), new TypeReference<>() {});
    }

    private static String tail(Path log) {
        try {
            List<String> lines = Files.readAllLines(log, StandardCharsets.ISO_8859_1);
            return String.join("\n", lines.subList(Math.max(0, lines.size() - 20), lines.size()));
        } catch (IOException e) {
            return e.toString();
        }
    }

    /** {@code LlamaCpp REQUESTS.json ANSWERS.json} */
    public static void main(String[] args) throws Exception {
        List<Request> requests = JSON.readValue(Path.of(args[0]).toFile(), new TypeReference<>() {});
        List<Answer> answers = new ArrayList<>();
        for (Request request : requests) {
            System.err.println(request.model());
            answers.add(new Answer(texts(request)));
        }
        JSON.writeValue(Path.of(args[1]).toFile(), answers);
        // Closing a model waits for its threads without end.
        Runtime.getRuntime().halt(0);
    }

    private static List<String> texts(Request request) {
        ModelParameters parameters = new ModelParameters()
                .setModel(request.model())
                .setCtxSize(512)
                .setThreads(1)
                .setCacheTypeK(CacheType.F32)
                .setCacheTypeV(CacheType.F32)
                .disableLog();
        if (request.adapter() != null) {
            parameters.addLoraAdapter(request.adapter());
        }
        LlamaModel model;
        try {
            model = new LlamaModel(parameters);
        } catch (RuntimeException e) { // its own class is not public
            System.err.println(e);
            return null;
        }
        return request.prompts().stream()
                .map(prompt -> model.complete(new InferenceParameters(prompt)
                        .setNPredict(request.newTokens())
                        .setTemperature(0)
                        .setTopK(1)
                        .setRepeatPenalty(1)
                        .setCachePrompt(false)
                        .setSeed(1)))
                .toList();
    }
}
