package dev.lorica.cli.report;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.dataformat.yaml.YAMLGenerator;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The card of an adapter: {@code README.md} with the metadata that Hugging Face's hub reads, what it was trained on and
 * how, what it reached, and how to use it.
 */
public final class ModelCard {
    /** What the hub reads it from. */
    public static final String FILE_NAME = "README.md";

    private static final YAMLMapper YAML = YAMLMapper.builder()
            .enable(YAMLGenerator.Feature.MINIMIZE_QUOTES)
            .disable(YAMLGenerator.Feature.WRITE_DOC_START_MARKER)
            .disable(YAMLGenerator.Feature.SPLIT_LINES)
            .build();

    private static final String MADE_BY = ", trained with Lorica on the quantized weights of ";

    private ModelCard() {}

    /**
     * Writes the card of a run, unless there is a README.md that somebody wrote by hand.
     *
     * @param run           as {@link RunFolder#read} gives it
     * @param baseModelName the base's name on the hub, or null
     * @param gguf          whether the folder has the adapter as llama.cpp loads it
     * @param peft          whether it has the adapter as PEFT loads it
     */
    public static void write(Path folder, ObjectNode run, String baseModelName, boolean gguf, boolean peft) {
        Path file = folder.resolve(FILE_NAME);
        if (!isOurs(file)) {
            return;
        }
        AtomicFile.write(file, text(run, baseModelName, gguf, peft).getBytes(StandardCharsets.UTF_8));
    }

    static String text(ObjectNode run, String baseModelName, boolean gguf, boolean peft) {
        Map<String, Object> metadata = new LinkedHashMap<>();
        if (baseModelName != null) {
            metadata.put("base_model", baseModelName);
        }
        metadata.put("library_name", peft ? "peft" : "gguf");
        metadata.put("pipeline_tag", "text-generation");
        metadata.put("tags", tags(run, gguf));
        Map<String, Object> result = result(run);
        if (!result.isEmpty()) {
            metadata.put("model-index", List.of(result));
        }
        StringBuilder text = new StringBuilder("---\n").append(yaml(metadata)).append("---\n\n");
        String name = run.path("name").asText();
        text.append("# ").append(name).append("\n\n");
        boolean full = run.path("method").asText().equals("full");
        text.append(full ? "A model made of " : "An adapter for ")
                .append(baseModelName != null ? baseModelName : run.path("base").asText("its base model"))
                .append(MADE_BY)
                .append(code(fileName(run.path("model").asText(run.path("base").asText()))))
                .append(".\n\n");
        data(text, run);
        results(text, run);
        settings(text, run);
        answers(text, run);
        use(text, run, baseModelName, gguf, peft);
        return text.toString();
    }

    /** Whether a file is a card that {@link #write} made, or none at all: one that somebody wrote by hand is kept. */
    public static boolean isOurs(Path file) {
        try {
            return Files.readString(file).contains(MADE_BY);
        } catch (IOException e) {
            return !Files.exists(file);
        }
    }

    private static List<String> tags(JsonNode run, boolean gguf) {
        String method = run.path("method").asText("lora");
        List<String> tags = new ArrayList<>(List.of(method, "lorica"));
        if (run.path("settings").path("lora").path("use_dora").asBoolean()) {
            tags.add("dora");
        }
        if (gguf) {
            tags.add("gguf");
            tags.add("llama.cpp");
        }
        return tags;
    }

    /** The evaluation as the hub's model index has it. */
    private static Map<String, Object> result(JsonNode run) {
        if (!run.path("eval_loss").isNumber()) {
            return Map.of();
        }
        double loss = run.get("eval_loss").asDouble();
        String data = run.path("data").path("name").asText("");
        Map<String, Object> task = Map.of("type", "text-generation");
        Map<String, Object> dataset = new LinkedHashMap<>();
        dataset.put("name", data.isEmpty() ? "held-out examples" : "held-out examples of " + fileName(data));
        dataset.put("type", "custom");
        Map<String, Object> one = new LinkedHashMap<>();
        one.put("task", task);
        one.put("dataset", dataset);
        boolean plain = run.path("objective").isMissingNode();
        one.put(
                "metrics",
                plain
                        ? List.of(metric("loss", "loss", loss), metric("perplexity", "perplexity", Math.exp(loss)))
                        : List.of(metric("loss", "loss", loss)));
        Map<String, Object> index = new LinkedHashMap<>();
        index.put("name", run.path("name").asText());
        index.put("results", List.of(one));
        return index;
    }

    private static Map<String, Object> metric(String type, String name, double value) {
        Map<String, Object> metric = new LinkedHashMap<>();
        metric.put("type", type);
        metric.put("name", name);
        metric.put("value", Math.round(value * 1e4) / 1e4);
        return metric;
    }

    private static void data(StringBuilder text, JsonNode run) {
        JsonNode data = run.path("data");
        if (!data.isObject()) {
            return;
        }
        text.append("## Training data\n\n")
                .append(code(fileName(data.path("name").asText())))
                .append(": ")
                .append(number(data.path("examples")))
                .append(" examples, ")
                .append(number(data.path("tokens")))
                .append(" tokens, of which ")
                .append(number(data.path("trained_tokens")))
                .append(" are trained on; template ")
                .append(code(data.path("template").asText()))
                .append(".\n\n");
    }

    private static void results(StringBuilder text, JsonNode run) {
        List<String> rows = new ArrayList<>();
        if (run.path("eval_loss").isNumber()) {
            double after = run.get("eval_loss").asDouble();
            boolean known = run.path("eval_loss_before").isNumber();
            double before = run.path("eval_loss_before").asDouble();
            rows.add(row("evaluation loss", (known ? fixed(before, 4) + " → " : "") + fixed(after, 4)));
            if (run.path("objective").isMissingNode()) {
                rows.add(row(
                        "perplexity", (known ? fixed(Math.exp(before), 2) + " → " : "") + fixed(Math.exp(after), 2)));
            }
        }
        if (run.path("loss").isNumber()) {
            rows.add(row("mean training loss", fixed(run.get("loss").asDouble(), 4)));
        }
        if (run.path("steps").isNumber()) {
            rows.add(row("optimizer steps", number(run.get("steps"))));
        }
        if (run.path("trainable_params").isNumber()) {
            rows.add(row("trained parameters", number(run.get("trainable_params"))));
        }
        if (!rows.isEmpty()) {
            text.append("## Results\n\n| | |\n| --- | --- |\n");
            rows.forEach(text::append);
            text.append('\n');
        }
    }

    private static void settings(StringBuilder text, JsonNode run) {
        JsonNode settings = run.path("settings");
        if (!settings.isObject() || settings.isEmpty()) {
            return;
        }
        text.append("## Hyper-parameters\n\n| | |\n| --- | --- |\n");
        for (JsonNode part : settings) {
            part.fields().forEachRemaining(field -> {
                JsonNode value = field.getValue();
                if (!value.isNull() && !(value.isContainerNode() && value.isEmpty())) {
                    text.append(
                            row(code(field.getKey()), value.isValueNode() ? value.asText() : code(value.toString())));
                }
            });
        }
        text.append('\n');
    }

    private static void answers(StringBuilder text, JsonNode run) {
        boolean any = false;
        for (JsonNode answer : run.path("answers")) {
            if (!answer.path("after").isTextual()) {
                continue;
            }
            if (!any) {
                text.append("## Answers\n\n");
                any = true;
            }
            text.append("**").append(answer.path("question").asText().strip()).append("**\n\n");
            for (String line : answer.get("after").asText().strip().split("\n", -1)) {
                text.append("> ").append(line).append('\n');
            }
            text.append('\n');
        }
    }

    private static void use(StringBuilder text, JsonNode run, String baseModelName, boolean gguf, boolean peft) {
        String model = fileName(run.path("model").asText("model.gguf"));
        text.append("## Use\n\n```sh\nlorica generate --model ")
                .append(model)
                .append(" --adapter . --instruction \"…\"\n");
        boolean isRead = !run.path("llama_cpp_needs_merge").asBoolean();
        if (run.path("method").asText().equals("full")) {
            text.append("llama-cli -m model.gguf\n");
        } else if (gguf
                && !run.path("settings").has("prompt_tuning")
                && !run.path("settings").has("p_tuning")
                && !run.path("settings").has("prefix_tuning")
                && !run.path("settings").has("bottleneck")) {
            JsonNode lora = run.path("settings").path("lora");
            boolean activated = !lora.path("alora_invocation").asText().isEmpty()
                    || !lora.path("alora_invocation_tokens").isEmpty();
            text.append(!isRead ? "lorica merge --model " : activated ? "llama-server -m " : "llama-cli -m ")
                    .append(model)
                    .append(isRead ? " --lora adapter.gguf\n" : " --adapter . --output merged.gguf\n");
        }
        text.append("```\n");
        if (peft && baseModelName != null && run.path("settings").has("bottleneck")) {
            text.append("\n```python\nimport adapters\nfrom transformers import AutoModelForCausalLM\n\n")
                    .append("model = AutoModelForCausalLM.from_pretrained(\"")
                    .append(baseModelName)
                    .append("\")\nadapters.init(model)\n")
                    .append("model.load_adapter(\".\", use_safetensors=True, set_active=True)\n```\n");
        } else if (peft && baseModelName != null) {
            boolean grown = !run.path("added_tokens").isEmpty();
            text.append(
                            grown
                                    ? "\n```python\nimport json\n\nfrom peft import PeftModel\n"
                                    : "\n```python\nfrom peft import PeftModel\n")
                    .append("from transformers import AutoModelForCausalLM")
                    .append(grown ? ", AutoTokenizer\n\n" : "\n\n")
                    .append("base = AutoModelForCausalLM.from_pretrained(\"")
                    .append(baseModelName)
                    .append("\")\n")
                    .append(grown(run, baseModelName))
                    .append("model = PeftModel.from_pretrained(base, \".\")\n```\n");
        }
    }

    /** What PEFT's users do with tokens that were added, which its files do not have. */
    private static String grown(JsonNode run, String baseModelName) {
        if (run.path("added_tokens").isEmpty()) {
            return "";
        }
        return "tokenizer = AutoTokenizer.from_pretrained(\"" + baseModelName + "\")\n"
                + "tokenizer.add_tokens(list(json.load(open(\"added_tokens.json\", encoding=\"utf-8\"))))\n"
                + "assert len(tokenizer) == " + run.path("vocabulary").asInt() + "\n"
                + "base.resize_token_embeddings(" + run.path("vocabulary").asInt() + ")\n";
    }

    private static String yaml(Map<String, Object> metadata) {
        try {
            return YAML.writeValueAsString(metadata);
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    private static String row(String name, String value) {
        return "| " + name + " | " + value.replace("|", "\\|") + " |\n";
    }

    private static String code(String word) {
        return word.isEmpty() ? "" : "`" + word + "`";
    }

    private static String fileName(String path) {
        return path.substring(path.lastIndexOf('/') + 1);
    }

    private static String number(JsonNode node) {
        return String.format(Locale.ROOT, "%,d", node.asLong());
    }

    private static String fixed(double value, int digits) {
        return String.format(Locale.ROOT, "%." + digits + "f", value);
    }
}
