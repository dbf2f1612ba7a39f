package dev.lorica.serve;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.generate.GenerationResult;

/** Tokens of a request, as they are charged elsewhere: a prompt counts once, however many answers it gets. */
final class Usage {
    private final long prompt;
    private long reused = Long.MAX_VALUE;
    private long generated;

    Usage(long prompt) {
        this.prompt = prompt;
    }

    void add(GenerationResult result) {
        reused = Math.min(reused, result.reusedTokens());
        generated += result.generatedTokens();
    }

    ObjectNode json() {
        ObjectNode json = Json.object();
        json.put("prompt_tokens", prompt)
                .put("completion_tokens", generated)
                .put("total_tokens", prompt + generated)
                .putObject("prompt_tokens_details")
                .put("cached_tokens", reused == Long.MAX_VALUE ? 0 : Math.min(reused, prompt));
        return json;
    }
}
