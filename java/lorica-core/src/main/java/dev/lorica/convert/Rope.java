package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.exceptions.FileFormatException;
import java.util.Iterator;
import java.util.Set;
import java.util.TreeSet;

/** How positions are rotated: {@code rope_parameters}, or {@code rope_theta} and {@code rope_scaling} of older configurations. */
final class Rope {
    private final HuggingFaceConfig config;
    private final JsonNode told;
    private final double base;

    private Rope(HuggingFaceConfig config, JsonNode told, double base) {
        this.config = config;
        this.told = told;
        this.base = base;
    }

    static Rope of(HuggingFaceConfig config, double defaultBase) {
        return of(config, "full_attention", "rope_theta", defaultBase);
    }

    /** @param layers of which it is, where layers differ; a configuration without such names is of all */
    static Rope of(HuggingFaceConfig config, String layers, String baseKey, double defaultBase) {
        JsonNode told = config.has("rope_parameters") ? config.node("rope_parameters") : config.node("rope_scaling");
        if (told.has("full_attention") || told.has("sliding_attention")) {
            for (Iterator<String> keys = told.fieldNames(); keys.hasNext(); ) {
                String key = keys.next();
                if (!Set.of("full_attention", "sliding_attention").contains(key)) {
                    config.refuse("the RoPE's " + JsonFiles.shown(key) + " is " + JsonFiles.shown(told.path(key)));
                }
            }
            told = told.path(layers);
        }
        double otherwise = config.number(baseKey, defaultBase);
        double base = told.hasNonNull("rope_theta") ? config.number(told.get("rope_theta"), "rope_theta") : otherwise;
        if (base <= 0) {
            throw new FileFormatException(config.file() + ": rope_theta is " + base);
        }
        return new Rope(config, told, base);
    }

    double base() {
        return base;
    }

    String type() {
        return told.path("rope_type").asText(told.path("type").asText("default"));
    }

    double partialFactor(double otherwise) {
        double factor = config.number("partial_rotary_factor", otherwise);
        return told.hasNonNull("partial_rotary_factor")
                ? config.number(told.get("partial_rotary_factor"), "partial_rotary_factor")
                : factor;
    }

    double number(String key) {
        return config.number(told.path(key), "the RoPE's " + key);
    }

    /** Of layers whose rotations no file can scale. */
    void refuseScaling(String where) {
        if (!type().equals("default")) {
            config.refuse("RoPE scaling of type \"" + JsonFiles.shown(type()) + "\" of " + where);
        }
        if (told.hasNonNull("partial_rotary_factor") && partialFactor(1) != 1) {
            config.refuse("the RoPE's partial_rotary_factor is " + partialFactor(1) + " of " + where);
        }
        known();
    }

    /** Dimensions, base and scaling. Nothing is sized by `dims` that no tensor has. */
    void writeTo(Layout layout, int dims, int contextLength) {
        layout.set("rope.dimension_count", dims).set("rope.freq_base", base);
        switch (type()) {
            case "default" -> known();
            case "linear" -> {
                known("factor");
                layout.set("rope.scaling.type", "linear").set("rope.scaling.factor", number("factor"));
            }
            case "llama3" -> {
                known("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings");
                layout.vector("rope_freqs.weight", llama3Factors(dims));
            }
            case "yarn" -> yarn(layout, contextLength);
            default -> config.refuse("RoPE scaling of type \"" + JsonFiles.shown(type()) + "\"");
        }
    }

    /** Phi-3's: other factors for short and for long contexts. */
    void writeLongRope(Layout layout, int dims, int contextLength, int originalLength) {
        known("short_factor", "long_factor", "original_max_position_embeddings", "factor", "attention_factor");
        layout.set("rope.dimension_count", dims)
                .set("rope.freq_base", base)
                .set("rope.scaling.type", "longrope")
                .set("rope.scaling.original_context_length", originalLength);
        double stretch = told.hasNonNull("factor") ? number("factor") : (double) contextLength / originalLength;
        double attention = told.hasNonNull("attention_factor")
                ? number("attention_factor")
                : stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(originalLength));
        layout.set("rope.scaling.attn_factor", attention);
        for (String length : new String[] {"long", "short"}) {
            JsonNode factors = told.path(length + "_factor");
            if (factors.size() != dims / 2) {
                throw new FileFormatException(config.file() + ": " + length + "_factor has " + factors.size()
                        + " numbers; RoPE has " + dims / 2 + " pairs");
            }
            float[] values = new float[factors.size()];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) config.number(factors.get(i), length + "_factor");
            }
            layout.vector("rope_factors_" + length + ".weight", values);
        }
    }

    /**
     * transformers multiplies cosine and sine by attention_factor, or by a ratio of mscale and mscale_all_dim, or by 1 + 0.1 ln(factor).
     * llama.cpp has the last, divides it by 1 + 0.1 yarn_log_multiplier ln(factor), and multiplies it by attn_factor.
     */
    private void yarn(Layout layout, int contextLength) {
        known(
                "factor",
                "original_max_position_embeddings",
                "beta_fast",
                "beta_slow",
                "attention_factor",
                "mscale",
                "mscale_all_dim",
                "truncate",
                "max_position_embeddings",
                "llama_4_scaling_beta");
        if (told.hasNonNull("truncate") && !told.get("truncate").asBoolean()) {
            config.refuse("YaRN with truncate false");
        }
        double factor = number("factor");
        int original = told.path("original_max_position_embeddings").asInt(contextLength);
        layout.set("rope.scaling.type", "yarn")
                .set("rope.scaling.factor", factor)
                .set("rope.scaling.original_context_length", original);
        for (String beta : new String[] {"beta_fast", "beta_slow"}) {
            if (told.hasNonNull(beta)) {
                layout.set("rope.scaling.yarn_" + beta, number(beta));
            }
        }
        double mscale = told.path("mscale").asDouble(0);
        double mscaleAll = told.path("mscale_all_dim").asDouble(0);
        boolean isRatio = !told.hasNonNull("attention_factor") && mscale != 0 && mscaleAll != 0;
        if (isRatio && mscale == 1) {
            layout.set("rope.scaling.yarn_log_multiplier", mscaleAll);
        } else if (isRatio || told.hasNonNull("attention_factor")) {
            double wanted =
                    isRatio ? magnitude(factor, mscale) / magnitude(factor, mscaleAll) : number("attention_factor");
            layout.set("rope.scaling.attn_factor", wanted / magnitude(factor, 1));
        }
    }

    private static double magnitude(double factor, double mscale) {
        return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
    }

    /** What divides the frequencies, one per pair: transformers' modeling_rope_utils, _compute_llama3_parameters. */
    private float[] llama3Factors(int dims) {
        double factor = told.path("factor").asDouble(8);
        double low = told.path("low_freq_factor").asDouble(1);
        double high = told.path("high_freq_factor").asDouble(4);
        double context = told.path("original_max_position_embeddings").asDouble(8192);
        if (!(factor > 0 && low > 0 && high > low && context > 0)) {
            throw new FileFormatException(
                    config.file() + ": the llama3 RoPE scaling " + JsonFiles.shown(told) + " makes no sense");
        }
        float[] factors = new float[dims / 2];
        for (int i = 0; i < factors.length; i++) {
            double wavelength = 2 * Math.PI * Math.pow((float) base, 2.0 * i / dims);
            double smooth = (context / wavelength - low) / (high - low);
            factors[i] = wavelength < context / high
                    ? 1
                    : wavelength > context / low ? (float) factor : (float) (1 / ((1 - smooth) / factor + smooth));
        }
        return factors;
    }

    /** Everything else that is said of RoPE is refused. */
    private void known(String... keys) {
        Set<String> rest = new TreeSet<>();
        told.fieldNames().forEachRemaining(rest::add);
        rest.removeAll(Set.of("rope_type", "type", "rope_theta", "partial_rotary_factor"));
        rest.removeAll(Set.of(keys));
        if (type().equals("default")) {
            // Left over from defaults that transformers fills in.
            rest.remove("factor");
            rest.remove("original_max_position_embeddings");
        }
        rest.forEach(key -> {
            if (!told.path(key).isNull()) {
                config.refuse("the RoPE's " + JsonFiles.shown(key) + " is " + JsonFiles.shown(told.path(key)));
            }
        });
    }
}
