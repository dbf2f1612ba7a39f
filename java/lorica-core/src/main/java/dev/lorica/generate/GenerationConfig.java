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

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
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

    /** {@return the settings that {@code lorica generate} has by itself} */
    public static GenerationConfig defaults() {
        return builder().build();
    }

    /** {@return settings with which always the likeliest token is taken} */
    public static GenerationConfig greedy() {
        return builder().temperature(0).build();
    }

    /**
     * {@return a builder whose texts are drawn from all tokens, as likely as the model has them, which is what other programs mean where
     * nothing is said}
     */
    public static Builder plain() {
        return builder().temperature(1).topK(0).topP(1).minP(0).repetitionWindow(0);
    }

    /** {@return a builder that begins with {@link #defaults}} */
    public static Builder builder() {
        return new Builder();
    }

    /** {@return a builder that has these settings} */
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

        /**
         * Sets {@link GenerationConfig#maxNewTokens()}.
         *
         * @param value the most tokens that are generated, 1 or more
         * @return this builder
         */
        public Builder maxNewTokens(int value) {
            maxNewTokens = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#temperature()}.
         *
         * @param value what logits are divided by; 0: always the likeliest token
         * @return this builder
         */
        public Builder temperature(double value) {
            temperature = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#topK()}.
         *
         * @param value how many of the likeliest tokens are drawn from; 0: all
         * @return this builder
         */
        public Builder topK(int value) {
            topK = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#topP()}.
         *
         * @param value the share of the probability that the likeliest tokens together have which are drawn from; 1: all
         * @return this builder
         */
        public Builder topP(double value) {
            topP = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#minP()}.
         *
         * @param value how likely a token must be at least, over the likeliest; 0: all
         * @return this builder
         */
        public Builder minP(double value) {
            minP = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#repetitionPenalty()}.
         *
         * @param value what positive logits of tokens that came are divided by, and negative ones multiplied; 1: nothing
         * @return this builder
         */
        public Builder repetitionPenalty(double value) {
            repetitionPenalty = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#repetitionWindow()}.
         *
         * @param value how many tokens the penalty looks back; −1: all
         * @return this builder
         */
        public Builder repetitionWindow(int value) {
            repetitionWindow = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#presencePenalty()}.
         *
         * @param value what is taken from the logits of tokens that were generated
         * @return this builder
         */
        public Builder presencePenalty(double value) {
            presencePenalty = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#frequencyPenalty()}.
         *
         * @param value what is taken from the logit of a token for each time that it was generated
         * @return this builder
         */
        public Builder frequencyPenalty(double value) {
            frequencyPenalty = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#logitBias()}.
         *
         * @param value what is added to logits, by token ids
         * @return this builder
         */
        public Builder logitBias(Map<Integer, Double> value) {
            logitBias = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#logProbs()}.
         *
         * @param value how many of the likeliest tokens are named at each place; −1: nothing is said of probabilities
         * @return this builder
         */
        public Builder logProbs(int value) {
            logProbs = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#stop()}.
         *
         * @param value texts before which generation ends
         * @return this builder
         */
        public Builder stop(String... value) {
            stop = Arguments.all("stop", value);
            return this;
        }

        /**
         * Sets {@link GenerationConfig#stop()}.
         *
         * @param value texts before which generation ends
         * @return this builder
         */
        public Builder stop(List<String> value) {
            stop = value;
            return this;
        }

        /**
         * Sets {@link GenerationConfig#seed()}.
         *
         * @param value of the draws; the same seed gives the same text
         * @return this builder
         */
        public Builder seed(long value) {
            seed = value;
            return this;
        }

        /**
         * {@return the settings}
         *
         * @throws InvalidArgumentException naming the one that is wrong
         */
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
