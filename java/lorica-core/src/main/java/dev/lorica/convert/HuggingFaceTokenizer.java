package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.NativeGgufWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The tokenizer of a Hugging Face folder as GGUF's metadata. */
final class HuggingFaceTokenizer {
    private static final String TOKENIZER_JSON = "tokenizer.json";
    private static final String TOKENIZER_MODEL = "tokenizer.model";

    private static final String LLAMA3_SPLIT =
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    private static final String QWEN2_SPLIT = LLAMA3_SPLIT.replace("\\p{N}{1,3}", "\\p{N}");

    private final Path folder;
    private final int size;
    private final JsonNode config;
    private final JsonNode tokenizer;
    private final JsonNode tokenizerConfig;
    private final JsonNode generationConfig;

    /** @param size rows of the embedding: ids that the tokenizer does not use are filled up to it */
    HuggingFaceTokenizer(Path folder, JsonNode config, int size) {
        this.folder = folder;
        this.size = size;
        this.config = config;
        this.tokenizer = JsonFiles.readIfThere(folder.resolve(TOKENIZER_JSON));
        this.tokenizerConfig = JsonFiles.readIfThere(folder.resolve("tokenizer_config.json"));
        this.generationConfig = JsonFiles.readIfThere(folder.resolve("generation_config.json"));
    }

    void writeTo(NativeGgufWriter writer) {
        Vocabulary vocabulary = vocabulary();
        addAddedTokens(vocabulary);
        if (vocabulary.size() > size) {
            throw new FileFormatException(
                    folder + ": the tokenizer has " + vocabulary.size() + " tokens, the embedding " + size + " rows");
        }
        vocabulary.fill(size);
        vocabulary.writeTo(writer);
        Integer bos = special(writer, vocabulary, "bos");
        Integer eos = special(writer, vocabulary, "eos");
        special(writer, vocabulary, "unk");
        special(writer, vocabulary, "pad");
        writer.set("tokenizer.ggml.add_bos_token", adds("bos", bos, vocabulary));
        if (adds("eos", eos, vocabulary)) {
            writer.set("tokenizer.ggml.add_eos_token", true);
        }
        String template = chatTemplate();
        if (template != null) {
            writer.set("tokenizer.chat_template", template);
        }
    }

    // ---- tokens

    private Vocabulary vocabulary() {
        if (Files.exists(folder.resolve(TOKENIZER_MODEL))) {
            return SentencePieceModel.read(
                    folder.resolve(TOKENIZER_MODEL), JsonFiles.bytes(folder.resolve(TOKENIZER_MODEL)));
        }
        if (tokenizer.isMissingNode()) {
            throw new FileAccessException(folder + " holds neither " + TOKENIZER_JSON + " nor " + TOKENIZER_MODEL);
        }
        JsonNode model = tokenizer.path("model");
        if (!model.path("type").asText("BPE").equals("BPE")
                || !model.path("vocab").isObject()) {
            throw unsupported("a model of type " + model.path("type"));
        }
        return model.path("byte_fallback").asBoolean(false) ? sentencePieceLike(model) : byteLevel(model);
    }

    /** Byte-level BPE, as GPT-2 and Llama 3 have it. */
    private Vocabulary byteLevel(JsonNode model) {
        Vocabulary vocabulary = new Vocabulary();
        vocabulary.model = "gpt2";
        vocabulary.pre = preTokenizer();
        vocabulary.merges = new ArrayList<>();
        if (!tokenizer.path("normalizer").isMissingNode()
                && !tokenizer.path("normalizer").isNull()) {
            throw unsupported("the normalizer " + tokenizer.path("normalizer"));
        }
        readTokens(vocabulary, model, Map.of());
        for (String[] pair : merges(model)) {
            vocabulary.merges.add(pair[0] + " " + pair[1]);
        }
        return vocabulary;
    }

    /**
     * SentencePiece's BPE, converted to {@code tokenizer.json} by transformers. A piece's score is its rank, so that the best score
     * is the first merge.
     */
    private Vocabulary sentencePieceLike(JsonNode model) {
        Vocabulary vocabulary = new Vocabulary();
        vocabulary.model = "llama";
        vocabulary.pre = "default";
        String added = tokenizer.path("normalizer").toString() + tokenizer.path("pre_tokenizer");
        if (!added.contains("▁")) {
            throw unsupported("byte fallback without SentencePiece's ▁ for spaces");
        }
        vocabulary.addSpacePrefix = added.contains("\"Prepend\"")
                || added.contains("\"prepend_scheme\":\"first\"")
                || added.contains("\"prepend_scheme\":\"always\"")
                || added.contains("\"add_prefix_space\":true");
        Map<String, Float> ranks = new HashMap<>();
        for (String[] pair : merges(model)) {
            ranks.putIfAbsent(pair[0] + pair[1], (float) -ranks.size());
        }
        readTokens(vocabulary, model, ranks);
        return vocabulary;
    }

    private void readTokens(Vocabulary vocabulary, JsonNode model, Map<String, Float> scores) {
        boolean bytes = model.path("byte_fallback").asBoolean(false);
        String unknown = model.path("unk_token").asText("");
        model.path("vocab").fields().forEachRemaining(entry -> {
            String token = entry.getKey();
            int type = bytes && token.matches("<0x[0-9A-F]{2}>")
                    ? Vocabulary.BYTE
                    : bytes && token.equals(unknown) ? Vocabulary.UNKNOWN : Vocabulary.NORMAL;
            vocabulary.set(id(entry.getValue(), token), token, type, scores.getOrDefault(token, Vocabulary.NO_SCORE));
        });
    }

    private List<String[]> merges(JsonNode model) {
        List<String[]> merges = new ArrayList<>();
        for (JsonNode merge : model.path("merges")) {
            String[] pair = merge.isArray() && merge.size() == 2
                    ? new String[] {merge.get(0).asText(), merge.get(1).asText()}
                    : merge.asText().split(" ", 2);
            if (pair.length != 2 || pair[0].isEmpty() || pair[1].isEmpty()) {
                throw new FileFormatException(
                        folder.resolve(TOKENIZER_JSON) + ": merge " + merges.size() + " is " + JsonFiles.shown(merge));
            }
            merges.add(pair);
        }
        return merges;
    }

    /** llama.cpp's name for what splits text into words; told by its settings, whose meaning the names stand for. */
    private String preTokenizer() {
        JsonNode pre = tokenizer.path("pre_tokenizer");
        List<JsonNode> steps = new ArrayList<>();
        if (pre.path("type").asText().equals("Sequence")) {
            pre.path("pretokenizers").forEach(steps::add);
        } else {
            steps.add(pre);
        }
        boolean ownSplit = steps.stream()
                .anyMatch(step -> isByteLevel(step) && step.path("use_regex").asBoolean(true));
        if (steps.size() == 1 && isByteLevel(steps.get(0)) && ownSplit) {
            return "gpt-2";
        }
        if (steps.size() == 2 && isByteLevel(steps.get(1))) {
            JsonNode first = steps.get(0);
            String type = first.path("type").asText();
            String split = first.path("pattern").path("Regex").asText();
            boolean isolated = first.path("behavior").asText().equals("Isolated")
                    && !first.path("invert").asBoolean(false);
            if (type.equals("Split") && isolated && !ownSplit && split.equals(LLAMA3_SPLIT)) {
                return "llama-bpe";
            }
            if (type.equals("Split") && isolated && !ownSplit && split.equals(QWEN2_SPLIT)) {
                return "qwen2";
            }
            if (type.equals("Digits") && first.path("individual_digits").asBoolean(false) && ownSplit) {
                return "smollm";
            }
        }
        throw unsupported("the pre_tokenizer " + pre);
    }

    private static boolean isByteLevel(JsonNode step) {
        return step.path("type").asText().equals("ByteLevel")
                && !step.path("add_prefix_space").asBoolean(false);
    }

    private void addAddedTokens(Vocabulary vocabulary) {
        for (JsonNode added : tokenizer.path("added_tokens")) {
            addToken(vocabulary, id(added.path("id"), added.path("content").asText()), added);
        }
        tokenizerConfig.path("added_tokens_decoder").fields().forEachRemaining(entry -> {
            if (!entry.getKey().matches("\\d{1,8}")) {
                throw new FileFormatException(
                        folder + ": tokenizer_config.json has an added token with the id \"" + entry.getKey() + "\"");
            }
            String content = entry.getValue().path("content").asText();
            addToken(vocabulary, inside(Integer.parseInt(entry.getKey()), content), entry.getValue());
        });
    }

    private void addToken(Vocabulary vocabulary, int id, JsonNode added) {
        String content = added.path("content").asText();
        boolean unknown = vocabulary.merges == null && content.equals("<unk>");
        int type = unknown
                ? Vocabulary.UNKNOWN
                : added.path("special").asBoolean(false) ? Vocabulary.CONTROL : Vocabulary.USER_DEFINED;
        boolean known = id < vocabulary.size() && vocabulary.token(id).equals(content);
        vocabulary.set(id, content, type, known ? vocabulary.score(id) : Vocabulary.NO_SCORE);
    }

    private int id(JsonNode value, String token) {
        if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 0) {
            throw new FileFormatException(folder.resolve(TOKENIZER_JSON) + ": the token \"" + JsonFiles.shown(token)
                    + "\" has the id " + JsonFiles.shown(value));
        }
        return inside(value.asInt(), token);
    }

    /** Ids far beyond the embedding would be a vocabulary of fillers. */
    private int inside(int id, String token) {
        if (id >= size) {
            throw new FileFormatException(folder + ": the token \"" + JsonFiles.shown(token) + "\" has the id " + id
                    + ", the embedding " + size + " rows");
        }
        return id;
    }

    // ---- special tokens

    /** The tokenizer's word counts; the model's configuration may list several, of which this is the first. */
    private Integer special(NativeGgufWriter writer, Vocabulary vocabulary, String name) {
        JsonNode token = tokenizerConfig.path(name + "_token");
        String text =
                token.isNull() ? null : token.isObject() ? token.path("content").asText(null) : token.asText(null);
        if (text == null && name.equals("unk")) {
            text = tokenizer.path("model").path("unk_token").asText(null);
        }
        int id = text == null ? -1 : vocabulary.idOf(text);
        for (JsonNode source : new JsonNode[] {config, generationConfig}) {
            JsonNode told = source.path(name + "_token_id");
            if (id < 0) {
                id = (told.isArray() ? told.path(0) : told).asInt(-1);
            }
        }
        if (id < 0 || id >= vocabulary.size()) {
            return null;
        }
        String key = name.equals("unk") ? "unknown" : name.equals("pad") ? "padding" : name;
        writer.set("tokenizer.ggml." + key + "_token_id", id);
        return id;
    }

    private boolean adds(String name, Integer id, Vocabulary vocabulary) {
        if (id == null) {
            return false;
        }
        JsonNode told = tokenizerConfig.path("add_" + name + "_token");
        if (told.isBoolean()) {
            return told.asBoolean();
        }
        JsonNode processor = tokenizer.path("post_processor");
        List<JsonNode> steps = new ArrayList<>();
        steps.add(processor);
        processor.path("processors").forEach(steps::add);
        for (JsonNode step : steps) {
            if (step.path("type").asText().equals("TemplateProcessing")) {
                JsonNode single = step.path("single");
                JsonNode edge = single.path(name.equals("bos") ? 0 : single.size() - 1)
                        .path("SpecialToken")
                        .path("id");
                return edge.asText("").equals(vocabulary.token(id));
            }
        }
        // LlamaTokenizer, of which there is no tokenizer.json: with BOS and without EOS.
        return vocabulary.merges == null && name.equals("bos");
    }

    private String chatTemplate() {
        Path own = folder.resolve("chat_template.jinja");
        if (Files.exists(own)) {
            return new String(JsonFiles.bytes(own), StandardCharsets.UTF_8);
        }
        JsonNode template = tokenizerConfig.path("chat_template");
        if (template.isTextual()) {
            return template.asText();
        }
        for (JsonNode named : template) {
            if (named.path("name").asText().equals("default")) {
                return named.path("template").asText();
            }
        }
        return null;
    }

    private UnsupportedException unsupported(String what) {
        String text = what.length() > 200 ? what.substring(0, 200) + "…" : what;
        return new UnsupportedException(folder.resolve(TOKENIZER_JSON) + " has " + text + ", which is not supported");
    }
}
