package dev.lorica.generate;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.List;

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
 * @param stop              texts at which generation ends; they are not part of the result
 * @param seed              the same seed gives the same text
 */
public record GenerationConfig(
        int maxNewTokens,
        double temperature,
        int topK,
        double topP,
        double minP,
        double repetitionPenalty,
        int repetitionWindow,
        List<String> stop,
        long seed) {

    public GenerationConfig {
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

    public static Builder builder() {
        return new Builder();
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
        private List<String> stop = List.of();
        private long seed = 42;

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
                    maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, repetitionWindow, stop, seed);
        }
    }
}
