package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeAdapter;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * What a new LoRA adapter looks like; names and meanings are those of PEFT's {@code LoraConfig}.
 *
 * @param rank          {@code r}: columns of B and rows of A
 * @param alpha         {@code lora_alpha}: the product B A is scaled by alpha / rank
 * @param dropout       {@code lora_dropout}: probability that an element of the input is zeroed before A, while training
 * @param useRslora     {@code use_rslora}: scale by alpha / √rank instead
 * @param useDora       {@code use_dora}: train the direction of the weights with B A and their norms, row by row, with a vector of
 *                      magnitudes (DoRA, Liu et al. 2024). llama.cpp cannot load such an adapter; {@code ModelFiles.merge} folds it
 *                      into a model that it can.
 * @param init          {@code init_lora_weights}: how A and B begin
 * @param pissaIterations of {@link Init#PISSA}, PEFT's {@code pissa_niter_N}: of the search for the principal parts of each weight, of which
 *                      few are faster and less exact; 0: until they are found
 * @param seed          of A's first values; the same seed gives the same A on every device and platform
 * @param targetModules {@code target_modules}: {@code q_proj}, {@code k_proj}, {@code v_proj}, {@code o_proj},
 *                      {@code gate_proj}, {@code up_proj}, {@code down_proj}, GGUF's names for them, full tensor names such as
 *                      {@code blk.3.attn_q}, or {@link #ALL_LINEAR}, or {@link #DEFAULT_MODULES}.
 *                      A name with other signs than letters, digits, {@code .}, {@code _}, {@code -} and {@code :} is a regular
 *                      expression for the whole of a layer's name, Hugging Face's or GGUF's.
 * @param excludeModules {@code exclude_modules}: which of them are not adapted, by names or regular expressions
 * @param layersToTransform {@code layers_to_transform}: the layers, from 0, in which they are adapted; empty: all
 * @param rankPattern   {@code rank_pattern}: ranks of modules whose name ends with the key, a name or a regular expression; the
 *                      first that fits counts
 * @param alphaPattern  {@code alpha_pattern}: the same for alpha
 * @param modulesToSave {@code modules_to_save}: embeddings, norms, linear layers and the head ({@code embed_tokens}, {@code lm_head},
 *                      {@code norm}, or GGUF's names) that are trained whole and stored with the adapter; {@code ModelFiles.merge} folds
 *                      them in for llama.cpp
 * @param bias          {@code bias}: which biases are trained; not with DoRA
 * @param aloraInvocation of an activated LoRA (aLoRA, Greenewald et al. 2025), which is added to the tokens of a text from the first of the
 *                      last occurrence of its invocation on, and to none of a text without it: the invocation as a text, of which
 *                      the model's tokenizer makes tokens, special ones too; {@code ""}: see below. So the keys and values of all that
 *                      stands before the invocation are those of the base. A decoder's, and not with DoRA.
 * @param aloraInvocationTokens {@code alora_invocation_tokens}: the same as tokens; empty, without a text: a LoRA for all tokens
 */
public record LoraConfig(
        int rank,
        double alpha,
        double dropout,
        boolean useRslora,
        boolean useDora,
        Init init,
        int pissaIterations,
        long seed,
        List<String> targetModules,
        List<String> excludeModules,
        List<Integer> layersToTransform,
        Map<String, Integer> rankPattern,
        Map<String, Double> alphaPattern,
        List<String> modulesToSave,
        Bias bias,
        String aloraInvocation,
        List<Integer> aloraInvocationTokens)
        implements AdapterConfig {

    /** Every linear layer but the output head, which is named by itself ({@code lm_head}). */
    public static final String ALL_LINEAR = "all-linear";
    /** What PEFT adapts where no target modules are named: q_proj and v_proj, or the layer that is q, k and v in one. */
    public static final String DEFAULT_MODULES = "default";

    /** How A begins. */
    public enum Init {
        /** A ~ U(−1/√in, 1/√in): PEFT's {@code True}. */
        DEFAULT(NativeAdapter.INIT_DEFAULT),
        /** A ~ N(0, 1/r²): PEFT's {@code "gaussian"}. */
        GAUSSIAN(NativeAdapter.INIT_GAUSSIAN),
        /**
         * A and B from the even and the odd rows of an orthogonal matrix, so that B A is zero and neither of them is: PEFT's
         * {@code "orthogonal"}. Needs even ranks.
         */
        ORTHOGONAL(NativeAdapter.INIT_DEFAULT),
        /**
         * A and B from the largest singular values of the weight (Meng et al. 2024): PEFT's {@code "pissa"}. The weight stays as it is,
         * quantized or not; what A and B began as is taken away by a second half of each pair, which is not trained. So the adapter has
         * twice the rank, and is a LoRA for the base as it is. No dropout.
         */
        PISSA(NativeAdapter.INIT_PISSA);

        final int code;

        Init(int code) {
            this.code = code;
        }

        @Override
        public String toString() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    /** Which biases are trained. */
    public enum Bias {
        /** No bias is trained. */
        NONE(NativeAdapter.BIASES_NONE),
        /** Those of the layers that are adapted. */
        LORA_ONLY(NativeAdapter.BIASES_LORA_ONLY),
        /** All biases of the model are trained. */
        ALL(NativeAdapter.BIASES_ALL);

        final int code;

        Bias(int code) {
            this.code = code;
        }

        @Override
        public String toString() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public LoraConfig {
        Arguments.given(init, "init");
        Arguments.given(bias, "bias");
        Arguments.given(aloraInvocation, "aloraInvocation");
        aloraInvocationTokens = Arguments.all(aloraInvocationTokens, "aloraInvocationTokens");
        modulesToSave = Arguments.all(modulesToSave, "modulesToSave");
        targetModules = TargetModules.split(Arguments.all(targetModules, "targetModules"));
        excludeModules = Arguments.all(excludeModules, "excludeModules");
        layersToTransform = Arguments.all(layersToTransform, "layersToTransform");
        rankPattern = Arguments.all(rankPattern, "rankPattern");
        alphaPattern = Arguments.all(alphaPattern, "alphaPattern");
        check(rank >= 1, "rank", rank, "at least 1");
        check(Double.isFinite(alpha) && alpha > 0, "alpha", alpha, "more than 0");
        check(pissaIterations >= 0, "PiSSA iterations", pissaIterations, "at least 0");
        check(pissaIterations == 0 || init == Init.PISSA, "init", init, Init.PISSA + ", of which there are iterations");
        check(dropout == 0 || init != Init.PISSA, "dropout", dropout, "0 with init pissa");
        check(dropout >= 0 && dropout < 1, "dropout", dropout, "at least 0 and below 1");
        rankPattern.forEach((name, value) -> check(value >= 1, "rank of \"" + name + "\"", value, "at least 1"));
        alphaPattern.forEach((name, value) ->
                check(Double.isFinite(value) && value > 0, "alpha of \"" + name + "\"", value, "more than 0"));
        check(
                aloraInvocation.isEmpty() || aloraInvocationTokens.isEmpty(),
                "the invocation",
                "a text and tokens",
                "one of both");
        check(
                !useDora || aloraInvocation.isEmpty() && aloraInvocationTokens.isEmpty(),
                "use dora",
                true,
                "false with an invocation: magnitudes are of all tokens");
        check(!targetModules.isEmpty(), "target modules", "empty", "at least one, or " + ALL_LINEAR);
    }

    private static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    /** The tokens with which it begins in a text of this model's; none: it is added to all. */
    int[] invocation(Model model) {
        return aloraInvocation.isEmpty()
                ? aloraInvocationTokens.stream().mapToInt(Integer::intValue).toArray()
                : model.tokenizer().encode(aloraInvocation, false, true);
    }

    @Override
    public Method method() {
        return Method.LORA;
    }

    /** {@return rank 16, alpha 32, no dropout, {@link #ALL_LINEAR}} */
    public static LoraConfig defaults() {
        return builder().build();
    }

    /** {@return a builder that begins with {@link #defaults}} */
    public static Builder builder() {
        return new Builder();
    }

    /** {@return a builder that begins with these settings} */
    public Builder toBuilder() {
        return builder()
                .rank(rank)
                .alpha(alpha)
                .dropout(dropout)
                .useRslora(useRslora)
                .useDora(useDora)
                .init(init)
                .pissaIterations(pissaIterations)
                .seed(seed)
                .targetModules(targetModules)
                .excludeModules(excludeModules)
                .layersToTransform(layersToTransform)
                .rankPattern(rankPattern)
                .alphaPattern(alphaPattern)
                .modulesToSave(modulesToSave)
                .bias(bias)
                .aloraInvocation(aloraInvocation)
                .aloraInvocationTokens(aloraInvocationTokens);
    }

    /** Every setter's meaning is that of the record's component of the same name. */
    public static final class Builder {
        private int rank = 16;
        private double alpha = 32;
        private double dropout = 0;
        private boolean useRslora = false;
        private boolean useDora = false;
        private Init init = Init.DEFAULT;
        private int pissaIterations = 0;
        private long seed = 42;
        private List<String> targetModules = List.of(ALL_LINEAR);
        private List<String> excludeModules = List.of();
        private List<Integer> layersToTransform = List.of();
        private Map<String, Integer> rankPattern = Map.of();
        private Map<String, Double> alphaPattern = Map.of();
        private List<String> modulesToSave = List.of();
        private Bias bias = Bias.NONE;
        private String aloraInvocation = "";
        private List<Integer> aloraInvocationTokens = List.of();

        private Builder() {}

        /**
         * Sets {@link LoraConfig#rank()}.
         *
         * @param value the number of rows of A and of columns of B, 1 or more
         * @return this builder
         */
        public Builder rank(int value) {
            rank = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#alpha()}.
         *
         * @param value what the product of B and A is multiplied by, over the rank
         * @return this builder
         */
        public Builder alpha(double value) {
            alpha = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#dropout()}.
         *
         * @param value the share of the inputs of A that is zero at a step, 0 to below 1
         * @return this builder
         */
        public Builder dropout(double value) {
            dropout = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#useRslora()}.
         *
         * @param value whether alpha is divided by the root of the rank instead of the rank
         * @return this builder
         */
        public Builder useRslora(boolean value) {
            useRslora = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#useDora()}.
         *
         * @param value whether the magnitude of each row of the weight is trained beside its direction
         * @return this builder
         */
        public Builder useDora(boolean value) {
            useDora = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#init()}.
         *
         * @param value what A and B begin with
         * @return this builder
         */
        public Builder init(Init value) {
            init = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#pissaIterations()}.
         *
         * @param value steps of the search of {@link Init#PISSA} for principal parts; 0: until they are found
         * @return this builder
         */
        public Builder pissaIterations(int value) {
            pissaIterations = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#seed()}.
         *
         * @param value what random beginnings follow from
         * @return this builder
         */
        public Builder seed(long value) {
            seed = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#targetModules()}.
         *
         * @param value names of modules, {@code q_proj}
         * @return this builder
         */
        public Builder targetModules(String... value) {
            targetModules = Arguments.all("targetModules", value);
            return this;
        }

        /**
         * Sets {@link LoraConfig#targetModules()}.
         *
         * @param value names of modules, {@code q_proj}
         * @return this builder
         */
        public Builder targetModules(List<String> value) {
            targetModules = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#excludeModules()}.
         *
         * @param value names of modules that are left out of those targeted
         * @return this builder
         */
        public Builder excludeModules(List<String> value) {
            excludeModules = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#layersToTransform()}.
         *
         * @param value indices of layers, from 0; empty: all
         * @return this builder
         */
        public Builder layersToTransform(List<Integer> value) {
            layersToTransform = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#rankPattern()}.
         *
         * @param value ranks that differ, by names of modules
         * @return this builder
         */
        public Builder rankPattern(Map<String, Integer> value) {
            rankPattern = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#alphaPattern()}.
         *
         * @param value alphas that differ, by names of modules
         * @return this builder
         */
        public Builder alphaPattern(Map<String, Double> value) {
            alphaPattern = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#modulesToSave()}.
         *
         * @param value names of modules that are trained whole beside the LoRA
         * @return this builder
         */
        public Builder modulesToSave(List<String> value) {
            modulesToSave = value;
            return this;
        }

        /**
         * Sets {@link LoraConfig#bias()}.
         *
         * @param value which biases are trained
         * @return this builder
         */
        public Builder bias(Bias value) {
            bias = value;
            return this;
        }

        /**
         * An activated LoRA, which is added to the tokens of a text from the last occurrence of its invocation on.
         *
         * @param value the invocation as text
         * @return this builder
         */
        public Builder aloraInvocation(String value) {
            aloraInvocation = value;
            return this;
        }

        /**
         * The same invocation as tokens, as PEFT's files have it.
         *
         * @param value ids of the model's vocabulary
         * @return this builder
         */
        public Builder aloraInvocationTokens(List<Integer> value) {
            aloraInvocationTokens = value;
            return this;
        }

        /**
         * {@return the settings}
         *
         * @throws InvalidArgumentException naming the one that is wrong
         */
        public LoraConfig build() {
            return new LoraConfig(
                    rank,
                    alpha,
                    dropout,
                    useRslora,
                    useDora,
                    init,
                    pissaIterations,
                    seed,
                    targetModules,
                    excludeModules,
                    layersToTransform,
                    rankPattern,
                    alphaPattern,
                    modulesToSave,
                    bias,
                    aloraInvocation,
                    aloraInvocationTokens);
        }
    }
}
