package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.grammar.TokenMask;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;

/** The fields that say how texts are drawn, of chat and completions alike; OpenAI's, and of vLLM's top_k, min_p, repetition_penalty. */
final class Sampling {
    private static final int MOST_STOPS = 16;

    private final GenerationConfig.Builder config = GenerationConfig.plain();
    private final long seed;
    private final int texts;
    /** {@code null}: any text. */
    private final TokenMask mask;

    Sampling(Fields fields, Model model, ResponseFormats formats) {
        mask = formats.of(fields);
        texts = fields.integer("n", 1, 128, 1);
        JsonNode given = fields.take("seed");
        if (given != null && !(given.isIntegralNumber() && given.canConvertToLong())) {
            throw fields.wrong("seed", given, "a whole number");
        }
        seed = given == null ? ThreadLocalRandom.current().nextLong() : given.asLong();
        config.temperature(fields.number("temperature", 0, 100, 1))
                .topP(topP(fields))
                .topK(Math.max(0, fields.integer("top_k", -1, Integer.MAX_VALUE, 0)))
                .minP(fields.number("min_p", 0, 1, 0))
                .repetitionPenalty(repetitionPenalty(fields))
                .repetitionWindow(-1)
                .presencePenalty(fields.number("presence_penalty", -2, 2, 0))
                .frequencyPenalty(fields.number("frequency_penalty", -2, 2, 0))
                .logitBias(logitBias(fields, model.info().vocabSize()))
                .stop(stop(fields));
    }

    private static double topP(Fields fields) {
        double value = fields.number("top_p", 0, 1, 1);
        return value == 0 ? Double.MIN_VALUE : value; // OpenAI takes 0, which leaves the likeliest
    }

    private static double repetitionPenalty(Fields fields) {
        double value = fields.number("repetition_penalty", 0, 10, 1);
        if (value == 0) {
            throw ApiException.field("repetition_penalty", "repetition_penalty is 0; it must be more, and 1 is none");
        }
        return value;
    }

    private static Map<Integer, Double> logitBias(Fields fields, int vocabulary) {
        Fields given = fields.object("logit_bias");
        Map<Integer, Double> biases = new LinkedHashMap<>();
        if (given != null) {
            for (String name : given.names()) {
                int token;
                try {
                    token = Integer.parseInt(name);
                } catch (NumberFormatException e) {
                    token = -1;
                }
                if (token < 0 || token >= vocabulary) {
                    throw ApiException.field(
                            "logit_bias",
                            "logit_bias has a name that is no id of a token; there are those from 0 to "
                                    + (vocabulary - 1));
                }
                biases.put(token, given.number(name, -100, 100, 0));
            }
        }
        return biases;
    }

    private static List<String> stop(Fields fields) {
        JsonNode given = fields.take("stop");
        List<String> stops = new ArrayList<>();
        if (given != null && given.isTextual()) {
            stops.add(given.asText());
        } else if (given != null && given.isArray() && given.size() <= MOST_STOPS) {
            given.forEach(one -> stops.add(one.isTextual() ? one.asText() : ""));
        } else if (given != null) {
            throw fields.wrong("stop", given, "a string, or up to " + MOST_STOPS + " of them");
        }
        if (stops.contains("")) {
            throw ApiException.field("stop", "stop has something that is no string of one character at least");
        }
        return stops;
    }

    /** Answers to each prompt. */
    int texts() {
        return texts;
    }

    void logProbs(int likeliest) {
        config.logProbs(likeliest);
    }

    /**
     * The answers to one prompt.
     *
     * @param number    of the prompt
     * @param maxTokens {@code null}: as many as there is room for
     * @param positions of a text
     */
    List<Request> requests(int[] prompt, int number, Integer maxTokens, String field, int positions) {
        int room = positions - prompt.length;
        if (prompt.length == 0) {
            throw ApiException.wrong("the prompt is empty");
        }
        if (room < 1 || maxTokens != null && maxTokens > room) {
            throw ApiException.field(
                    room < 1 ? null : field,
                    "context_length_exceeded",
                    "there is room for " + positions + " tokens; the prompt has " + prompt.length
                            + (maxTokens == null ? "" : ", and " + maxTokens + " were asked for behind it"));
        }
        int most = maxTokens == null ? room : maxTokens;
        if (mask != null && most < mask.shortest()) {
            throw ApiException.field(
                    field,
                    "an answer of the response_format may take " + mask.shortest() + " tokens, and there may be "
                            + most);
        }
        config.maxNewTokens(most);
        List<Request> requests = new ArrayList<>();
        for (int i = 0; i < texts; i++) {
            requests.add(new Request(
                    prompt, config.seed(seed + (long) number * texts + i).build(), mask));
        }
        return requests;
    }
}
