package dev.lorica.serve;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Tokenizer;
import dev.lorica.generate.TokenLogProbs;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** Log-probabilities as OpenAI's two forms have them. */
final class TokenNames {
    private final Tokenizer tokenizer;

    TokenNames(Tokenizer tokenizer) {
        this.tokenizer = tokenizer;
    }

    /** What a token adds to a text; part of a character is U+FFFD. */
    String name(int token) {
        return new String(tokenizer.tokenBytes(token), StandardCharsets.UTF_8);
    }

    /** The form of chats. */
    ObjectNode chat(List<TokenLogProbs> tokens) {
        ObjectNode logProbs = Json.object();
        ArrayNode content = logProbs.putArray("content");
        for (TokenLogProbs one : tokens) {
            ObjectNode entry = entry(one.token(), one.logProb());
            ArrayNode top = entry.putArray("top_logprobs");
            one.likeliest().forEach(likely -> top.add(entry(likely.token(), likely.logProb())));
            content.add(entry);
        }
        logProbs.putNull("refusal");
        return logProbs;
    }

    private ObjectNode entry(int token, double logProb) {
        byte[] bytes = tokenizer.tokenBytes(token);
        ObjectNode entry = Json.object();
        entry.put("token", new String(bytes, StandardCharsets.UTF_8)).put("logprob", logProb);
        ArrayNode numbers = entry.putArray("bytes");
        for (byte one : bytes) {
            numbers.add(one & 0xff);
        }
        return entry;
    }

    /** The form of completions, filled as tokens come. */
    final class Completion {
        private final int likeliest;
        private int offset;

        /**
         * @param likeliest named at each place; 0: none
         * @param offset    of the first token in the text
         */
        Completion(int likeliest, int offset) {
            this.likeliest = likeliest;
            this.offset = offset;
        }

        /** @param first a token before which there is nothing; {@code null}: none */
        ObjectNode of(Integer first, List<TokenLogProbs> tokens) {
            ObjectNode logProbs = Json.object();
            ArrayNode names = logProbs.putArray("tokens");
            ArrayNode values = logProbs.putArray("token_logprobs");
            ArrayNode top = likeliest == 0 ? null : logProbs.putArray("top_logprobs");
            ArrayNode offsets = logProbs.putArray("text_offset");
            if (top == null) {
                logProbs.putNull("top_logprobs");
            }
            if (first != null) {
                add(first, names, offsets);
                values.addNull();
                if (top != null) {
                    top.addNull();
                }
            }
            for (TokenLogProbs one : tokens) {
                add(one.token(), names, offsets);
                values.add(one.logProb());
                if (top != null) {
                    ObjectNode named = top.addObject();
                    // The one that was drawn is always there. Of two that are spelled alike, the likelier one.
                    one.likeliest().forEach(likely -> {
                        String name = name(likely.token());
                        if (!named.has(name)) {
                            named.put(name, likely.logProb());
                        }
                    });
                    String own = names.get(names.size() - 1).asText();
                    if (!named.has(own)) {
                        named.put(own, one.logProb());
                    }
                }
            }
            return logProbs;
        }

        private void add(int token, ArrayNode names, ArrayNode offsets) {
            String name = name(token);
            names.add(name);
            offsets.add(offset);
            offset += tokenizer.isControl(token) ? 0 : name.length();
        }
    }
}
