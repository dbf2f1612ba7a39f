package dev.lorica.cli;

import dev.lorica.ModelInfo;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationResult;
import java.util.LinkedHashMap;
import java.util.Map;

/** Texts of a model as they are shown, and what is said of them. */
final class ShownText {
    private final Terminal terminal;
    private final ModelInfo model;

    ShownText(Terminal terminal, ModelInfo model) {
        this.terminal = terminal;
        this.model = model;
    }

    /** Prints a text while it comes. */
    GenerationResult show(Generation generation) {
        for (String piece : generation) {
            terminal.text().print(piece);
            terminal.text().flush();
        }
        terminal.text().println();
        GenerationResult result = generation.result();
        if (!terminal.json() && terminal.errIsTerminal()) {
            terminal.err().println(terminal.faint("[" + summary(result) + "]"));
        }
        return result;
    }

    static String summary(GenerationResult result) {
        String why =
                switch (result.finishReason()) {
                    case END_OF_TEXT -> "";
                    case STOP_STRING -> ", ended by a stop string";
                    case MAX_NEW_TOKENS -> ", ended by --max-tokens";
                    case CONTEXT_FULL -> ", ended because the model's context is full";
                    case CANCELLED -> ", ended by Ctrl-C";
                };
        return Format.count(result.generatedTokens(), "token") + " in " + Format.seconds(result.seconds()) + ", "
                + Format.count(Math.round(result.tokensPerSecond())) + " tok/s" + why;
    }

    static Map<String, Object> json(GenerationResult result) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("text", result.text());
        json.put("finish_reason", Choices.name(result.finishReason()));
        json.put("prompt_tokens", result.promptTokens());
        json.put("generated_tokens", result.generatedTokens());
        json.put("prompt_seconds", result.promptSeconds());
        json.put("seconds", result.seconds());
        json.put("tokens_per_second", result.tokensPerSecond());
        return json;
    }

    /** Prints the object, with the device. */
    void printJson(Map<String, Object> json) {
        json.put("device", model.device());
        json.put("device_detail", model.deviceDetail());
        json.put("device_reason", model.deviceReason());
        terminal.printJson(json);
    }
}
