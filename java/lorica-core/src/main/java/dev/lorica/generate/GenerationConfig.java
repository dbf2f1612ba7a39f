package dev.lorica.generate;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.List;
import java.util.Map;

/**
 * How text is generated. Names and defaults are llama.cpp's; {@link Sampler} says what exactly they do.
 *
 * @param maxNewTokens      the most tokens that are generated
 * @param temperature       logits are divided by it; 0: always the likeliest token, whatever the rest says
 * @param topK              only this many of the likeliest tokens are considered; 0: all
 * @param topP              only the likeliest tokens that together have this probability; 1: all
 * @param minP              only tokens at least this many times as likely as the likeliest; 0: all
 * @param repetitionPenalty logits of tokens seen are divided by it if positive and multiplied if not; 1: none
 * @param repetitionWindow  how many of the last tokens, those of the prompt included, count as seen; −1: all
 * @param presencePenalty   is taken off the logit of each token that was generated already, those of the prompt not counted; OpenAI's
 * @param frequencyPenalty  likewise, as often as it was generated
 * @param logitBias         what is added to the logits of tokens, by id, before all else
 * @param stop              texts at which generation ends; they are not part of the result
 * @param seed              the same seed gives the same text
 * @param logProbs          how many of the likeliest tokens {@link GenerationResult#logProbs} names at each place; 0: only the token
 *                          that was drawn, −1: nothing is said of probabilities
 */
public record GenerationConfig(
        int maxNewTokens,
        double temperature,
        int topK,
        double topP,
        double minP,
        double repetitionPenalty,
        int repetitionWindow,
        double presencePenalty,
        double frequencyPenalty,
        Map<Integer, Double> logitBias,
        List<String> stop,
        long seed,
        int logProbs)
        implements Serializable {

    public GenerationConfig {
        logitBias = Arguments.all(logitBias, "logitBias");
        stop = Arguments.all(stop, "stop");
        check(maxNewTokens >= 1, "max new tokens", maxNewTokens, "at least 1");
        check(
                temperature >= 0 && Double.isFinite(temperature),
                "temperature",
                temperature,
                "0 (always the likeliest) or more");
        check(topK >= 0, "top-k", topK, "0 (all) or more");
        check(topP > 0 && topP <= 1, "top-p", topP, "more than 0 and at most 1 (all)");
        check(minP >= 0 && minP <= 1, "min-p", minP, "between 0 (all) and 1");
        check(
                repetitionPenalty > 0 && Double.isFinite(repetitionPenalty),
                "repetition penalty",
                repetitionPenalty,
                "more than 0; 1 is none");
        check(repetitionWindow >= -1, "repetition window", repetitionWindow, "-1 (all tokens) or more");
        check(Double.isFinite(presencePenalty), "presence penalty", presencePenalty, "a finite number; 0 is none");
        check(Double.isFinite(frequencyPenalty), "frequency penalty", frequencyPenalty, "a finite number; 0 is none");
        logitBias.forEach((token, bias) -> {
            check(token >= 0, "a token of the logit bias", token, "an id");
            check(Double.isFinite(bias), "the logit bias of token " + token, bias, "a finite number");
        });
        check(logProbs >= -1, "log probs", logProbs, "-1 (none are wanted) or more");
        check(stop.stream().noneMatch(String::isEmpty), "a stop string", "empty", "at least one character");
    }

    private static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    public static GenerationConfig defaults() {
        return builder().build();
    }

    /** Always the likeliest token. */
    public static GenerationConfig greedy() {
        return builder().temperature(0).build();
    }

    /** From all tokens, as likely as the model has them, which is what other programs mean where nothing is said. */
    public static Builder plain() {
        return builder().temperature(1).topK(0).topP(1).minP(0).repetitionWindow(0);
    }

    public static Builder builder() {
        return new Builder();
    }

    /** A builder that has these settings. */
    public Builder toBuilder() {
        return builder()
                .maxNewTokens(maxNewTokens)
                .temperature(temperature)
                .topK(topK)
                .topP(topP)
                .minP(minP)
                .repetitionPenalty(repetitionPenalty)
                .repetitionWindow(repetitionWindow)
                .presencePenalty(presencePenalty)
                .frequencyPenalty(frequencyPenalty)
                .logitBias(logitBias)
                .stop(stop)
                .seed(seed)
                .logProbs(logProbs);
    }

    /** Every setter's meaning is that of the record's component of the same name. */
    public static final class Builder {
        private int maxNewTokens = 256;
        private double temperature = 0.8;
        private int topK = 40;
        private double topP = 0.95;
        private double minP = 0.05;
        private double repetitionPenalty = 1;
        private int repetitionWindow = 64;
        private double presencePenalty = 0;
        private double frequencyPenalty = 0;
        private Map<Integer, Double> logitBias = Map.of();
        private List<String> stop = List.of();
        private long seed = 42;
        private int logProbs = -1;

        private Builder() {}

        public Builder maxNewTokens(int value) {
            maxNewTokens = value;
            return this;
        }

        public Builder temperature(double value) {
            temperature = value;
            return this;
        }

        public Builder topK(int value) {
            topK = value;
            return this;
        }

        public Builder topP(double value) {
            topP = value;
            return this;
        }

        public Builder minP(double value) {
            minP = value;
            return this;
        }

        public Builder repetitionPenalty(double value) {
            repetitionPenalty = value;
            return this;
        }

        public Builder repetitionWindow(int value) {
            repetitionWindow = value;
            return this;
        }

        public Builder presencePenalty(double value) {
            presencePenalty = value;
            return this;
        }

        public Builder frequencyPenalty(double value) {
            frequencyPenalty = value;
            return this;
        }

        public Builder logitBias(Map<Integer, Double> value) {
            logitBias = value;
            return this;
        }

        public Builder logProbs(int value) {
            logProbs = value;
            return this;
        }

        public Builder stop(String... value) {
            stop = Arguments.all("stop", value);
            return this;
        }

        public Builder stop(List<String> value) {
            stop = value;
            return this;
        }

        public Builder seed(long value) {
            seed = value;
            return this;
        }

        public GenerationConfig build() {
            return new GenerationConfig(
                    maxNewTokens,
                    temperature,
                    topK,
                    topP,
                    minP,
                    repetitionPenalty,
                    repetitionWindow,
                    presencePenalty,
                    frequencyPenalty,
                    logitBias,
                    stop,
                    seed,
                    logProbs);
        }
    }
}
