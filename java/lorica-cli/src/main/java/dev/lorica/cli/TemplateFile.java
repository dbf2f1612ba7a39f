package dev.lorica.cli;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.data.TextTemplate;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * A text template in YAML or JSON: {@code prompt} and, for prompts with input, {@code prompt_with_input}. The names that
 * Alpaca-LoRA and Axolotl have for the two are understood.
 */
final class TemplateFile {
    private static final Map<String, String> NAMES = Map.of(
            "prompt", "prompt",
            "prompt_no_input", "prompt",
            "no_input_format", "prompt",
            "prompt_with_input", "prompt_with_input",
            "prompt_input", "prompt_with_input",
            "format", "prompt_with_input",
            "name", "name",
            "description", "",
            "response_split", "",
            "parse_special", "parse_special");

    private TemplateFile() {}

    static TextTemplate read(Path file) {
        JsonNode root = YamlFile.read("--template", file);
        String prompt = null;
        String withInput = null;
        String name = file.getFileName().toString();
        boolean parseSpecial = true;
        List<String> found = new ArrayList<>();
        root.fieldNames().forEachRemaining(found::add);
        for (String key : found) {
            String value = root.get(key).asText();
            switch (NAMES.getOrDefault(key, "unknown")) {
                case "prompt" -> prompt = value;
                case "prompt_with_input" -> withInput = value;
                case "name" -> name = value;
                case "parse_special" -> parseSpecial = root.get(key).asBoolean();
                case "" -> {}
                default ->
                    throw new FileFormatException("--template " + file + ": there is no \"" + key
                            + "\" in a template; prompt and prompt_with_input are meant");
            }
        }
        if (prompt == null && withInput == null) {
            throw new FileFormatException(
                    "--template " + file + " has no prompt in it, such as " + "\"Question: {instruction}\\nAnswer: \"");
        }
        try {
            return new TextTemplate(
                    name,
                    prompt == null ? withInput.replace("{input}", "") : prompt,
                    withInput == null ? prompt.replace("{instruction}", "{instruction}\n\n{input}") : withInput,
                    parseSpecial);
        } catch (InvalidArgumentException e) {
            throw new FileFormatException("--template " + file + ": " + e.getMessage(), e);
        }
    }
}
