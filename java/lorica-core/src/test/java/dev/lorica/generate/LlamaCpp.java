package dev.lorica.generate;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import de.kherud.llama.InferenceParameters;
import de.kherud.llama.LlamaModel;
import de.kherud.llama.ModelParameters;
import de.kherud.llama.args.CacheType;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * A program of its own that runs llama.cpp: greedy continuations of prompts. Its library has a ggml in it, which must not meet the
 * one of ours in one process.
 *
 * <pre>LlamaCpp MODEL.gguf ADAPTER.gguf|none PROMPTS.json TEXTS.json TOKENS</pre>
 */
final class LlamaCpp {
    private LlamaCpp() {}

    public static void main(String[] args) throws Exception {
        ObjectMapper json = new ObjectMapper();
        ModelParameters parameters = new ModelParameters()
                .setModel(args[0])
                .setCtxSize(512)
                .setThreads(1)
                .setCacheTypeK(CacheType.F32)
                .setCacheTypeV(CacheType.F32)
                .disableLog();
        if (!args[1].equals("none")) {
            parameters.addLoraAdapter(args[1]);
        }
        List<String> texts = new ArrayList<>();
        LlamaModel model = new LlamaModel(parameters);
        for (JsonNode prompt : json.readTree(Path.of(args[2]).toFile())) {
            texts.add(model.complete(new InferenceParameters(prompt.asText())
                    .setNPredict(Integer.parseInt(args[4]))
                    .setTemperature(0)
                    .setTopK(1)
                    .setRepeatPenalty(1)
                    .setCachePrompt(false)
                    .setSeed(1)));
        }
        Files.writeString(Path.of(args[3]), json.writeValueAsString(texts));
        // Closing the model waits for its threads without end.
        Runtime.getRuntime().halt(0);
    }
}
