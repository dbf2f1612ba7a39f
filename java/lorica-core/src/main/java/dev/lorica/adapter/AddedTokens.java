package dev.lorica.adapter;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.Model;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.GgufFile;
import dev.lorica.files.SafetensorsFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Tokens behind those of the base's vocabulary, which an adapter with a trained embedding has learned. */
final class AddedTokens {
    static final String FILE_NAME = "added_tokens.json";
    /** In {@value Adapter#FILE_NAME}. */
    private static final String KEY = "lorica.added_tokens";

    private static final Pattern EMBEDDING =
            Pattern.compile("(.*\\.)?(embed_tokens|embed_in|wte|word_embeddings)(\\.modules_to_save)?\\.weight");

    private static final JsonMapper JSON =
            JsonMapper.builder().enable(SerializationFeature.INDENT_OUTPUT).build();

    private AddedTokens() {}

    /**
     * Refuses an adapter that leaves tokens as they began, which would all be the same.
     *
     * @throws InvalidArgumentException naming what it does not train
     */
    static void requireLearned(Adapter adapter) {
        Model model = adapter.model();
        if (model.addedTokens().isEmpty()) {
            return;
        }
        Set<String> trained =
                adapter.tensors().stream().map(Adapter.Tensor::name).collect(Collectors.toSet());
        boolean tied = model.info().tiedOutput();
        if (trained.contains("token_embd.weight") && (tied || trained.contains("output.weight"))) {
            return;
        }
        throw new InvalidArgumentException(
                "added tokens are learned where " + (tied ? "the embedding is" : "embedding and head are")
                        + " trained whole: LoRA with modules to save "
                        + (tied ? "embed_tokens" : "embed_tokens,lm_head") + ", or full fine-tuning with nothing of "
                        + (tied ? "it" : "them") + " frozen");
    }

    /** @param adapter a folder or a file */
    static List<String> of(Path adapter, Path model) {
        boolean folder = Files.isDirectory(adapter);
        if (folder) {
            AdapterFolder.finish(adapter);
        }
        Path gguf = folder ? adapter.resolve(Adapter.FILE_NAME) : adapter;
        if (folder ? AdapterFolder.has(adapter, Adapter.FILE_NAME) : Files.isRegularFile(gguf) && isGguf(gguf)) {
            try (GgufFile file = GgufFile.open(gguf)) {
                String tokens = file.metadata(-1).get(KEY);
                List<String> texts = new ArrayList<>();
                if (tokens != null) {
                    JSON.readTree(tokens).forEach(token -> texts.add(token.asText()));
                }
                return texts;
            } catch (JsonProcessingException e) {
                throw new IllegalStateException(e);
            }
        }
        Path peft = folder ? adapter : adapter.toAbsolutePath().getParent();
        long before = vocabularySize(model);
        long rows = PeftFolder.is(peft) ? savedRows(peft) : 0;
        return rows > before ? read(peft, before, rows) : List.of();
    }

    /** Of the embedding that was trained whole; 0: there is none. */
    private static long savedRows(Path folder) {
        List<String> modules = new ArrayList<>();
        PeftConfig.parse(folder.resolve(PeftFolder.CONFIG))
                .path("modules_to_save")
                .forEach(name -> modules.add(name.asText()));
        if (modules.stream()
                        .noneMatch(name -> EMBEDDING.matcher(name + ".weight").matches())
                || !Files.exists(folder.resolve(PeftFolder.WEIGHTS))) {
            return 0;
        }
        try (SafetensorsFile weights = SafetensorsFile.open(folder.resolve(PeftFolder.WEIGHTS))) {
            return weights.tensors().values().stream()
                    .filter(tensor -> EMBEDDING.matcher(tensor.name()).matches())
                    .filter(tensor -> tensor.shape().size() == 2)
                    .mapToLong(tensor -> tensor.shape().get(0))
                    .max()
                    .orElse(0);
        }
    }

    private static boolean isGguf(Path file) {
        return !file.getFileName().toString().endsWith(".safetensors");
    }

    private static long vocabularySize(Path model) {
        try (GgufFile file = GgufFile.open(model)) {
            return file.arrayLengths().getOrDefault("tokenizer.ggml.tokens", 0L);
        }
    }

    /**
     * Those that the vocabulary has not: tokenizers of transformers list all in their files that came after their training.
     *
     * @param before size of the vocabulary
     * @param rows   of the embedding
     */
    private static List<String> read(Path folder, long before, long rows) {
        Map<Long, String> byId = new TreeMap<>();
        Path file = folder.resolve(FILE_NAME);
        if (Files.exists(file)) {
            json(file)
                    .fields()
                    .forEachRemaining(token -> byId.put(token.getValue().asLong(-1), token.getKey()));
        } else if (Files.exists(folder.resolve("tokenizer.json"))) {
            file = folder.resolve("tokenizer.json");
            json(file)
                    .path("added_tokens")
                    .forEach(token -> byId.put(
                            token.path("id").asLong(-1), token.path("content").asText()));
        }
        byId.keySet().removeIf(id -> id < before || id >= rows);
        if (byId.size() != rows - before) {
            throw new FileFormatException(folder + " has an embedding of " + rows + " tokens, the model " + before
                    + ", and which they are is not in its " + FILE_NAME + " or tokenizer.json");
        }
        return List.copyOf(byId.values());
    }

    private static JsonNode json(Path file) {
        try {
            return JSON.readTree(Files.readAllBytes(file));
        } catch (JsonProcessingException e) {
            throw new FileFormatException(file + " is damaged: " + e.getOriginalMessage(), e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** Writes {@value #FILE_NAME} of a model that has such tokens. */
    static void write(Model model, Path folder) {
        if (model.addedTokens().isEmpty()) {
            return;
        }
        Map<String, Integer> ids = new LinkedHashMap<>();
        int first = model.info().vocabSize() - model.addedTokens().size();
        for (String token : model.addedTokens()) {
            ids.put(token, first + ids.size());
        }
        try {
            AtomicFile.write(folder.resolve(FILE_NAME), JSON.writeValueAsBytes(ids));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
