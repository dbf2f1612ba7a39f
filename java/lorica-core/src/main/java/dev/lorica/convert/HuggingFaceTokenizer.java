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
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The tokenizer of a Hugging Face folder as GGUF's metadata. */
final class HuggingFaceTokenizer {
    private static final String TOKENIZER_JSON = "tokenizer.json";
    private static final String TOKENIZER_MODEL = "tokenizer.model";

    private static final String VOCAB_TXT = "vocab.txt";

    private static final String ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    private static final String SPACES = "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    private static final String LLAMA3_SPLIT =
            ENDINGS + "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" + SPACES;
    private static final String QWEN2_SPLIT = LLAMA3_SPLIT.replace("\\p{N}{1,3}", "\\p{N}");
    private static final String QWEN35_SPLIT =
            ENDINGS + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" + SPACES;
    private static final String TEKKEN_SPLIT = cased("", "\\p{N}");
    private static final String GPT4O_SPLIT = cased(ENDINGS + "?", "\\p{N}{1,3}");

    private static String cased(String ending, String digits) {
        String upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
        String lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
        String lead = "[^\\r\\n\\p{L}\\p{N}]?";
        return lead + upper + "*" + lower + "+" + ending + "|" + lead + upper + "+" + lower + "*" + ending + "|"
                + digits + "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" + SPACES;
    }

    private final Path folder;
    private final int limit;
    private final JsonNode config;
    private final JsonNode tokenizer;
    private final JsonNode tokenizerConfig;
    private final JsonNode generationConfig;
    private final Vocabulary vocabulary;

    /** @param limit rows of the embedding: ids must be below it */
    HuggingFaceTokenizer(Path folder, JsonNode config, int limit) {
        this.folder = folder;
        this.limit = limit;
        this.config = config;
        this.tokenizer = JsonFiles.readIfThere(folder.resolve(TOKENIZER_JSON));
        this.tokenizerConfig = JsonFiles.readIfThere(folder.resolve("tokenizer_config.json"));
        this.generationConfig = JsonFiles.readIfThere(folder.resolve("generation_config.json"));
        this.vocabulary = vocabulary();
        addAddedTokens(vocabulary);
    }

    /** Tokens, those that were added among them. */
    int size() {
        return vocabulary.size();
    }

    /** @param rows of the embedding: ids that the tokenizer does not use are filled up to it */
    void writeTo(NativeGgufWriter writer, int rows) {
        if (vocabulary.size() > rows) {
            throw new FileFormatException(
                    folder + ": the tokenizer has " + vocabulary.size() + " tokens, the embedding " + rows + " rows");
        }
        vocabulary.fill(rows);
        vocabulary.writeTo(writer);
        Integer bos = special(writer, vocabulary, "bos");
        Integer eos = special(writer, vocabulary, "eos");
        special(writer, vocabulary, "unk");
        special(writer, vocabulary, "pad");
        if (vocabulary.model.equals("bert")) {
            special(writer, vocabulary, "cls");
            special(writer, vocabulary, "sep");
            special(writer, vocabulary, "mask");
        } else {
            writer.set("tokenizer.ggml.add_bos_token", adds("bos", bos, vocabulary));
            if (adds("eos", eos, vocabulary)) {
                writer.set("tokenizer.ggml.add_eos_token", true);
            }
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
        if (tokenizer.isMissingNode() && Files.exists(folder.resolve(VOCAB_TXT))) {
            return wordPiece(
                    linesOfVocabulary(),
                    tokenizerConfig.path("do_lower_case").asBoolean(true),
                    tokenizerConfig.path("strip_accents"));
        }
        if (tokenizer.isMissingNode()) {
            throw new FileAccessException(folder + " holds neither " + TOKENIZER_JSON + " nor " + TOKENIZER_MODEL);
        }
        JsonNode model = tokenizer.path("model");
        if (model.path("type").asText().equals("WordPiece")) {
            return wordPiece(model);
        }
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

    /**
     * llama.cpp's name for what splits text into words; told by its settings, whose meaning the names stand for. Some names stand for
     * normalization form C too, and some for words that become the token that they are, merges or not.
     */
    private String preTokenizer() {
        JsonNode pre = tokenizer.path("pre_tokenizer");
        List<JsonNode> steps = new ArrayList<>();
        if (pre.path("type").asText().equals("Sequence")) {
            pre.path("pretokenizers").forEach(steps::add);
        } else {
            steps.add(pre);
        }
        boolean composes = composes();
        boolean ignoresMerges = tokenizer.path("model").path("ignore_merges").asBoolean(false);
        boolean ownSplit = steps.stream()
                .anyMatch(step -> isByteLevel(step) && step.path("use_regex").asBoolean(true));
        String name = null;
        if (steps.size() == 1 && isByteLevel(steps.get(0)) && ownSplit) {
            boolean isRoberta =
                    tokenizer.path("post_processor").path("type").asText().equals("RobertaProcessing");
            name = composes ? "olmo" : isRoberta ? "roberta-bpe" : "gpt-2";
        } else if (steps.size() == 2 && isByteLevel(steps.get(1))) {
            JsonNode first = steps.get(0);
            String type = first.path("type").asText();
            if (type.equals("Split") && keepsAll(first) && !ownSplit) {
                name = nameOfSplit(first.path("pattern").path("Regex").asText(), composes, ignoresMerges);
            } else if (type.equals("Digits")
                    && first.path("individual_digits").asBoolean(false)
                    && ownSplit
                    && !composes) {
                name = "smollm";
            }
        } else if (isFalcon(steps) && !composes) {
            name = "falcon";
        }
        if (name == null) {
            throw unsupported("the pre_tokenizer " + pre + (composes ? " behind normalization form C" : ""));
        }
        return name;
    }

    private static String nameOfSplit(String pattern, boolean composes, boolean ignoresMerges) {
        if (pattern.equals(LLAMA3_SPLIT) && !composes) {
            return ignoresMerges ? "llama-bpe" : "dbrx";
        }
        if (pattern.equals(QWEN2_SPLIT)) {
            return composes ? "qwen2" : "deepseek-r1-qwen";
        }
        if (pattern.equals(QWEN35_SPLIT) && composes) {
            return "qwen35";
        }
        if (pattern.equals(TEKKEN_SPLIT) && ignoresMerges && !composes) {
            return "tekken";
        }
        return pattern.equals(GPT4O_SPLIT) && !composes ? "gpt-4o" : null;
    }

    /** The patterns match every text wholly: what lies between matches is nothing. */
    private static boolean keepsAll(JsonNode split) {
        boolean inverted = split.path("invert").asBoolean(false);
        String behavior = split.path("behavior").asText();
        return behavior.equals("Isolated") && !inverted || behavior.equals("Removed") && inverted;
    }

    private static boolean isFalcon(List<JsonNode> steps) {
        List<String> types =
                steps.stream().map(step -> step.path("type").asText()).toList();
        return (types.equals(List.of("Punctuation", "ByteLevel", "Split"))
                        || types.equals(List.of("Punctuation", "ByteLevel", "Digits", "Split")))
                && isByteLevel(steps.get(1))
                && steps.get(0).path("behavior").asText().equals("Contiguous")
                && steps.get(types.size() - 1)
                        .path("pattern")
                        .path("Regex")
                        .asText()
                        .equals("[0-9][0-9][0-9]");
    }

    private boolean composes() {
        JsonNode normalizer = tokenizer.path("normalizer");
        List<JsonNode> steps = new ArrayList<>();
        if (normalizer.path("type").asText().equals("Sequence")) {
            normalizer.path("normalizers").forEach(steps::add);
        } else if (normalizer.isObject()) {
            steps.add(normalizer);
        }
        if (steps.size() > 1
                || steps.stream().anyMatch(step -> !step.path("type").asText().equals("NFC"))) {
            throw unsupported("the normalizer " + normalizer);
        }
        return !steps.isEmpty();
    }

    /** BERT's, of {@code tokenizer.json}. */
    private Vocabulary wordPiece(JsonNode model) {
        JsonNode normalizer = tokenizer.path("normalizer");
        if (!normalizer.path("type").asText().equals("BertNormalizer")
                || !normalizer.path("clean_text").asBoolean(true)
                || !normalizer.path("handle_chinese_chars").asBoolean(true)
                || !tokenizer.path("pre_tokenizer").path("type").asText().equals("BertPreTokenizer")
                || !model.path("continuing_subword_prefix").asText("##").equals("##")
                || model.path("max_input_chars_per_word").asInt(100) != 100) {
            throw unsupported("a WordPiece that is not BERT's: " + normalizer + ", " + tokenizer.path("pre_tokenizer"));
        }
        Map<String, Integer> tokens = new LinkedHashMap<>();
        model.path("vocab")
                .fields()
                .forEachRemaining(entry -> tokens.put(entry.getKey(), id(entry.getValue(), entry.getKey())));
        return wordPiece(tokens, normalizer.path("lowercase").asBoolean(true), normalizer.path("strip_accents"));
    }

    private Map<String, Integer> linesOfVocabulary() {
        Map<String, Integer> tokens = new LinkedHashMap<>();
        String text = new String(JsonFiles.bytes(folder.resolve(VOCAB_TXT)), StandardCharsets.UTF_8);
        for (String line : text.split("\\R")) {
            tokens.put(line, inside(tokens.size(), line));
        }
        return tokens;
    }

    /** GGUF writes the beginning of a word as U+2581, where BERT writes the continuation as {@code ##}. */
    private static Vocabulary wordPiece(Map<String, Integer> tokens, boolean lowercase, JsonNode stripAccents) {
        Vocabulary vocabulary = new Vocabulary();
        vocabulary.model = "bert";
        vocabulary.lowercase = lowercase;
        vocabulary.stripAccents = stripAccents.isBoolean() ? stripAccents.asBoolean() : lowercase;
        tokens.forEach((token, id) -> {
            boolean special = token.matches("\\[(PAD|UNK|CLS|SEP|MASK)]");
            String text = special ? token : token.startsWith("##") ? token.substring(2) : "▁" + token;
            vocabulary.set(id, text, special ? Vocabulary.CONTROL : Vocabulary.NORMAL, Vocabulary.NO_SCORE);
        });
        return vocabulary;
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
        if (id >= limit) {
            throw new FileFormatException(folder + ": the token \"" + JsonFiles.shown(token) + "\" has the id " + id
                    + ", the embedding " + limit + " rows");
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
        // The one with the wrong letter is how GGUF spells it.
        String key =
                Map.of("unk", "unknown", "pad", "padding", "sep", "seperator").getOrDefault(name, name);
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
            if (Set.of("RobertaProcessing", "BertProcessing")
                    .contains(step.path("type").asText())) {
                return true;
            }
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
