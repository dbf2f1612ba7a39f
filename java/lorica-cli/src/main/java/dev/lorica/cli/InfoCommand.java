package dev.lorica.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.GgufFile;
import dev.lorica.files.SafetensorsFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica info}: what is inside a model or an adapter. */
@Command(
        name = "info",
        header = "Show what is inside a model or an adapter.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {"  lorica info llama.gguf", "  lorica info my-adapter --json"})
final class InfoCommand implements Callable<Integer> {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int SHOWN_ARRAY = 8;
    private static final int SHOWN_TEXT = 100;

    private final Terminal terminal;

    @Parameters(
            paramLabel = "FILE",
            description = "A GGUF model, a GGUF adapter, or the folder of an adapter, PEFT's or Lorica's.")
    private Path file;

    @Option(names = "--metadata", description = "List the file's metadata too.")
    private boolean metadata;

    @Option(names = "--tensors", description = "List the file's tensors too.")
    private boolean tensors;

    @Mixin
    private CommonOptions common;

    InfoCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        file = HubFiles.modelOrAdapter(terminal, file);
        boolean folder = Files.isDirectory(file);
        Path gguf = folder ? file.resolve(Adapter.FILE_NAME) : file;
        if (folder && !Files.exists(gguf) && Files.exists(file.resolve(Adapter.PEFT_CONFIG_NAME))) {
            Map<String, Object> facts = peft(file);
            if (terminal.json()) {
                terminal.printJson(facts);
            } else {
                print(facts);
            }
            return ExitCode.OK;
        }
        if (folder && !Files.exists(gguf)) {
            throw new LoricaException(file + " is a folder without " + Adapter.FILE_NAME
                    + " in it; a GGUF file or the folder of an " + "adapter is meant");
        }
        try (GgufFile contents = GgufFile.open(gguf)) {
            Map<String, JsonNode> values = parsed(contents.metadata(SHOWN_ARRAY));
            boolean adapter = "adapter".equals(text(values, "general.type", "")) || values.containsKey("adapter.type");
            Map<String, Object> facts = new LinkedHashMap<>();
            facts.put("file", gguf.toString());
            facts.put("kind", adapter ? "adapter" : contents.tensors().isEmpty() ? "vocabulary" : "model");
            facts.put("file_bytes", contents.bytes());
            if (adapter) {
                describeAdapter(contents, values, folder ? file : gguf, facts);
            } else {
                describeModel(contents, values, gguf, facts);
            }
            if (terminal.json()) {
                if (metadata) {
                    facts.put("metadata", parsed(contents.metadata(-1)));
                }
                if (tensors) {
                    facts.put("tensors", contents.tensors());
                }
                terminal.printJson(facts);
            } else {
                print(contents, values, facts);
            }
        }
        return ExitCode.OK;
    }

    private static void describeModel(
            GgufFile contents, Map<String, JsonNode> values, Path gguf, Map<String, Object> facts) {
        String architecture = text(values, "general.architecture", "?");
        facts.put("architecture", architecture);
        facts.put("name", text(values, "general.name", ""));
        if (!contents.tensors().isEmpty()) {
            facts.put(
                    "parameters",
                    contents.tensors().stream()
                            .mapToLong(GgufFile.Tensor::elements)
                            .sum());
            facts.put("types", types(contents));
        }
        describeClassifier(contents, facts);
        copy(values, architecture + ".classifier.output_labels", facts, "labels");
        copy(values, "lorica.classifier.problem", facts, "problem");
        copy(values, architecture + ".block_count", facts, "layers");
        copy(values, architecture + ".embedding_length", facts, "embedding");
        copy(values, architecture + ".attention.head_count", facts, "heads");
        copy(values, architecture + ".attention.head_count_kv", facts, "kv_heads");
        copy(values, architecture + ".feed_forward_length", facts, "feed_forward");
        copy(values, architecture + ".context_length", facts, "context_length");
        copy(values, architecture + ".rope.freq_base", facts, "rope_freq_base");
        copy(values, architecture + ".rope.scaling.type", facts, "rope_scaling");
        Long vocabulary = contents.arrayLengths().get("tokenizer.ggml.tokens");
        if (vocabulary != null) {
            String pre = text(values, "tokenizer.ggml.pre", "");
            facts.put("tokenizer", text(values, "tokenizer.ggml.model", "?") + (pre.isEmpty() ? "" : " (" + pre + ")"));
            facts.put("vocabulary", vocabulary);
            facts.put("chat_template", values.containsKey("tokenizer.chat_template"));
        }
        if (contents.tensors().isEmpty()) {
            return;
        }
        try (Model model = Model.load(gguf)) {
            facts.put("fingerprint", model.info().fingerprint());
            facts.put("can_train", true);
        } catch (LoricaException e) {
            facts.put("can_train", false);
            facts.put("reason", e.getMessage());
        }
    }

    private static void describeClassifier(GgufFile contents, Map<String, Object> facts) {
        contents.tensors().stream()
                .filter(tensor -> tensor.name().equals("cls.output.weight"))
                .findFirst()
                .ifPresent(
                        tensor -> facts.put("classifier_outputs", tensor.shape().get(1)));
    }

    private static void describeAdapter(
            GgufFile contents, Map<String, JsonNode> values, Path path, Map<String, Object> facts) {
        facts.put("architecture", text(values, "general.architecture", "?"));
        copy(values, "adapter.type", facts, "type");
        Set<Long> ranks = new LinkedHashSet<>();
        Set<String> modules = new LinkedHashSet<>();
        for (GgufFile.Tensor tensor : contents.tensors()) {
            if (tensor.name().endsWith(".lora_a") && tensor.shape().size() > 1) {
                ranks.add(tensor.shape().get(1));
                modules.add(tensor.name().replaceFirst("^blk\\.\\d+\\.", "").replaceFirst("\\.weight\\.lora_a$", ""));
            }
        }
        Optional<GgufFile.Tensor> prompt = contents.tensors().stream()
                .filter(tensor -> tensor.name().matches("prompt_embeddings|blk\\.0\\.prefix_k"))
                .findFirst();
        if (prompt.isPresent()) {
            facts.put("virtual_tokens", prompt.get().shape().get(1));
        } else if (ranks.isEmpty()) {
            contents.tensors()
                    .forEach(tensor -> modules.add(
                            tensor.name().replaceFirst("^blk\\.\\d+\\.", "").replaceFirst("\\.weight\\.ia3_l$", "")));
            facts.put("modules", List.copyOf(modules));
            facts.put(
                    text(values, "adapter.type", "").matches("full|bottleneck") ? "matrices_and_vectors" : "vectors",
                    contents.tensors().size());
        } else {
            facts.put("rank", ranks.size() == 1 ? ranks.iterator().next() : List.copyOf(ranks));
            copy(values, "adapter.lora.alpha", facts, "alpha");
            copy(values, "adapter.alora.invocation_tokens", facts, "invocation_tokens");
            copy(values, "lorica.added_tokens", facts, "added_tokens");
            facts.put("modules", List.copyOf(modules));
            facts.put(
                    "pairs",
                    contents.tensors().stream()
                            .filter(tensor -> tensor.name().endsWith(".lora_a"))
                            .count());
            List<String> whole = contents.tensors().stream()
                    .map(GgufFile.Tensor::name)
                    .filter(name -> !name.contains(".lora_"))
                    .toList();
            if (!whole.isEmpty()) {
                facts.put("trained_whole", whole);
            }
        }
        facts.put(
                "parameters",
                contents.tensors().stream().mapToLong(GgufFile.Tensor::elements).sum());
        facts.put("types", types(contents));
        describeClassifier(contents, facts);
        describeTraining(path, facts);
        values.forEach((key, value) -> {
            if (key.startsWith("lorica.")) {
                facts.put(key.substring("lorica.".length()).replace('.', '_'), value);
            }
        });
    }

    /** An adapter as PEFT writes it: what its configuration and the names of its tensors say. */
    private Map<String, Object> peft(Path folder) {
        JsonNode config;
        Path file = folder.resolve(Adapter.PEFT_CONFIG_NAME);
        try {
            config = JSON.readTree(file.toFile());
        } catch (IOException e) {
            throw new LoricaException(
                    file + " is damaged: " + e.getMessage().lines().findFirst().orElse(""), e);
        }
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("file", folder.toString());
        facts.put("kind", "adapter");
        facts.put("format", "PEFT");
        facts.put("base", config.path("base_model_name_or_path").asText(""));
        facts.put(
                "type",
                config.path("use_dora").asBoolean()
                        ? "dora"
                        : config.path("peft_type").asText("?").toLowerCase(Locale.ROOT));
        if (!config.has("peft_type") && config.path("config").isObject()) {
            facts.put("format", "AdapterHub");
            facts.put("base", config.path("model_name").asText(""));
            facts.put("type", "bottleneck");
            for (String key : List.of("mh_adapter", "output_adapter", "reduction_factor", "non_linearity")) {
                facts.put(key, config.path("config").path(key));
            }
            return facts;
        }
        boolean isLora = config.has("r");
        if (config.has("num_virtual_tokens")) {
            facts.put("virtual_tokens", config.get("num_virtual_tokens"));
        }
        if (isLora) {
            facts.put("rank", config.path("r"));
            facts.put("alpha", config.path("lora_alpha"));
        }
        if (config.hasNonNull("alora_invocation_tokens")) {
            facts.put("invocation_tokens", config.get("alora_invocation_tokens"));
        }
        if (config.path("use_rslora").asBoolean()) {
            facts.put("rslora", true);
        }
        JsonNode modules = config.path("target_modules");
        List<String> names = new ArrayList<>();
        modules.forEach(module -> names.add(module.asText()));
        facts.put("modules", modules.isArray() ? names.stream().sorted().toList() : modules.asText());
        Path weights = folder.resolve(Adapter.PEFT_FILE_NAME);
        if (!Files.exists(weights)) {
            facts.put("weights", "missing: " + weights.getFileName());
        } else {
            try (SafetensorsFile tensorsOf = SafetensorsFile.open(weights)) {
                facts.put("file_bytes", weights.toFile().length());
                String part = isLora ? ".lora_A" : ".ia3_l";
                if (!facts.containsKey("virtual_tokens")) {
                    facts.put(
                            isLora ? "pairs" : "vectors",
                            tensorsOf.tensors().keySet().stream()
                                    .filter(name -> name.contains(part))
                                    .count());
                }
                facts.put(
                        "parameters",
                        tensorsOf.tensors().values().stream()
                                .mapToLong(tensor -> tensor.shape().stream().reduce(1L, Math::multiplyExact))
                                .sum());
                Map<String, Long> types = new TreeMap<>();
                tensorsOf.tensors().values().forEach(tensor -> types.merge(tensor.type(), 1L, Long::sum));
                facts.put("types", types);
                if (tensors) {
                    Map<String, Object> shapes = new LinkedHashMap<>();
                    tensorsOf.tensors().forEach((name, tensor) -> shapes.put(name, tensor.shape()));
                    facts.put("tensors", shapes);
                }
            }
        }
        describeTraining(folder, facts);
        return facts;
    }

    /** What the side file next to the weights says, if there is one. */
    private static void describeTraining(Path path, Map<String, Object> facts) {
        Path side =
                (Files.isDirectory(path) ? path : path.toAbsolutePath().getParent()).resolve(AdapterMetadata.FILE_NAME);
        if (!Files.exists(side)) {
            return;
        }
        try {
            JsonNode told = JSON.readTree(side.toFile());
            JsonNode base = told.path("base_model");
            facts.put(
                    "base",
                    base.path("name").asText() + " (" + base.path("file").asText() + ")");
            if (told.hasNonNull("template")) {
                facts.put("template", told.path("template").path("name").asText());
            }
            JsonNode result = told.path("result");
            if (result.isObject()) {
                facts.put("steps", result.path("steps"));
                facts.put("epochs", result.path("epochs"));
                facts.put("loss", result.path("loss"));
            }
        } catch (IOException e) {
            throw new LoricaException(
                    side + " is damaged: " + e.getMessage().lines().findFirst().orElse(""), e);
        }
    }

    private void print(Map<String, Object> facts) {
        Map<String, String> rows = new LinkedHashMap<>();
        facts.forEach((name, value) -> {
            String shown = value instanceof Map<?, ?> && name.equals("tensors") ? "" : shown(name, value);
            if (!shown.isEmpty()) {
                rows.put(name.replace('_', ' '), shown);
            }
        });
        table(rows);
        if (facts.get("tensors") instanceof Map<?, ?> shapes) {
            terminal.out().println();
            terminal.out().println(terminal.bold("Tensors"));
            Map<String, String> entries = new LinkedHashMap<>();
            shapes.forEach((name, shape) -> entries.put(name.toString(), shape.toString()));
            table(entries);
        }
    }

    private void print(GgufFile contents, Map<String, JsonNode> values, Map<String, Object> facts) {
        print(facts);
        if (metadata) {
            terminal.out().println();
            terminal.out().println(terminal.bold("Metadata"));
            Map<String, Long> lengths = contents.arrayLengths();
            Map<String, String> entries = new LinkedHashMap<>();
            values.forEach((key, value) -> {
                Long length = lengths.get(key);
                String tail = length != null && length > SHOWN_ARRAY ? " … " + Format.count(length, "element") : "";
                entries.put(key, shorten(value.isTextual() ? value.asText() : value.toString()) + tail);
            });
            table(entries);
        }
        if (tensors) {
            terminal.out().println();
            terminal.out().println(terminal.bold("Tensors"));
            Map<String, String> entries = new LinkedHashMap<>();
            for (GgufFile.Tensor tensor : contents.tensors()) {
                entries.put(
                        tensor.name(),
                        String.format("%-7s %-18s %s", tensor.type(), tensor.shape(), Format.bytes(tensor.bytes())));
            }
            table(entries);
        }
    }

    private void table(Map<String, String> rows) {
        int width = rows.keySet().stream().mapToInt(String::length).max().orElse(0);
        rows.forEach((name, value) -> terminal.out().println(name + " ".repeat(width - name.length() + 2) + value));
    }

    private static String shown(String name, Object value) {
        return switch (name) {
            case "file_bytes" -> Format.bytes((Long) value);
            case "parameters" -> Format.count((Long) value);
            case "epochs", "loss" -> Format.fixed(((JsonNode) value).asDouble(), 4);
            case "can_train", "chat_template" -> Boolean.TRUE.equals(value) ? "yes" : "no";
            case "types" -> {
                List<String> parts = new ArrayList<>();
                ((Map<?, ?>) value).forEach((type, count) -> parts.add(count + " × " + type));
                yield String.join(", ", parts);
            }
            default -> {
                if (value instanceof List<?> list) {
                    yield String.join(", ", list.stream().map(Object::toString).toList());
                }
                yield value instanceof JsonNode node && node.isTextual()
                        ? shorten(node.asText())
                        : shorten(value.toString());
            }
        };
    }

    /** Tensors of each type, the most frequent first. */
    private static Map<String, Long> types(GgufFile contents) {
        Map<String, Long> counts = new TreeMap<>();
        contents.tensors().forEach(tensor -> counts.merge(tensor.type(), 1L, Long::sum));
        Map<String, Long> sorted = new LinkedHashMap<>();
        counts.entrySet().stream()
                .sorted(Map.Entry.comparingByValue(Comparator.reverseOrder()))
                .forEach(entry -> sorted.put(entry.getKey(), entry.getValue()));
        return sorted;
    }

    private static Map<String, JsonNode> parsed(Map<String, String> metadata) {
        Map<String, JsonNode> values = new LinkedHashMap<>();
        metadata.forEach((key, json) -> {
            try {
                values.put(key, JSON.readTree(json));
            } catch (JsonProcessingException e) {
                throw new IllegalStateException("metadata \"" + key + "\" is not JSON: " + json, e);
            }
        });
        return values;
    }

    private static void copy(Map<String, JsonNode> values, String key, Map<String, Object> facts, String name) {
        if (values.containsKey(key)) {
            facts.put(name, values.get(key));
        }
    }

    private static String text(Map<String, JsonNode> values, String key, String otherwise) {
        return values.containsKey(key) ? values.get(key).asText() : otherwise;
    }

    private static String shorten(String text) {
        String line = text.replaceAll("\\R", "⏎");
        return line.length() <= SHOWN_TEXT ? line : line.substring(0, SHOWN_TEXT - 1) + "…";
    }
}
