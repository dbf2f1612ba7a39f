package dev.lorica.adapter;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeAdapter;
import java.util.Locale;

/**
 * Bottleneck adapters (Houlsby et al. 2019; Pfeiffer et al. 2020): small layers up(act(down(x))) of their own behind the branches of
 * each layer. Names and defaults are those of AdapterHub's {@code BnConfig}. They begin without effect: down as torch's linear layers
 * do, without a bias, and up as nothing, AdapterHub's {@code init_weights="mam_adapter"}. They cannot be folded into a model, nor does
 * llama.cpp have such adapters.
 *
 * @param placement       where they stand
 * @param reductionFactor {@code reduction_factor}: the size of the embeddings over that of the bottleneck, which is rounded down, but not
 *                        to nothing
 * @param size            of the bottleneck; 0: as the reduction factor says
 * @param nonLinearity    {@code non_linearity}; {@code null}: that of the placement's paper
 * @param seed            of what they begin as
 */
public record BottleneckConfig(Placement placement, int reductionFactor, int size, NonLinearity nonLinearity, long seed)
        implements AdapterConfig {

    /** Where they stand; f is what a branch of a layer, attention or feed-forward, adds to the stream x. */
    public enum Placement {
        /** Behind both branches, x + f + up(act(down(f))): AdapterHub's {@code double_seq_bn}. */
        HOULSBY(NativeAdapter.PLACEMENT_HOULSBY, NonLinearity.SWISH),
        /** Behind the feed-forward branch, on the stream s = x + f: s + up(act(down(s))): AdapterHub's {@code seq_bn}. */
        PFEIFFER(NativeAdapter.PLACEMENT_PFEIFFER, NonLinearity.RELU);

        final int code;
        private final NonLinearity usual;

        Placement(int code, NonLinearity usual) {
            this.code = code;
            this.usual = usual;
        }

        static Placement of(int code) {
            return code == PFEIFFER.code ? PFEIFFER : HOULSBY;
        }

        @Override
        public String toString() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    /** By AdapterHub's names, which are those of transformers: swish is silu, gelu_new the approximation of gelu with tanh. */
    public enum NonLinearity {
        /** max(x, 0). */
        RELU,
        /** x · sigmoid(x), also called SiLU. */
        SWISH,
        /** x · Φ(x), computed exactly. */
        GELU,
        /** x · Φ(x) by its approximation with tanh, as GPT-2 has it. */
        GELU_NEW,
        /** tanh(x). */
        TANH;

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
    public BottleneckConfig {
        Arguments.given(placement, "placement");
        nonLinearity = nonLinearity == null ? placement.usual : nonLinearity;
        if (size < 0) {
            throw new InvalidArgumentException(
                    "the size of the bottleneck is " + size + "; it must be at least 1, or 0");
        }
        if (reductionFactor < 1) {
            throw new InvalidArgumentException(
                    "the reduction factor is " + reductionFactor + "; it must be at least 1");
        }
    }

    /** {@return Houlsby's, with the reduction factor 16} */
    public static BottleneckConfig defaults() {
        return new BottleneckConfig(Placement.HOULSBY, 16, 0, null, 42);
    }

    /** How wide the bottleneck of embeddings of this size is. */
    int size(int embedding) {
        return size > 0 ? size : Math.max(1, embedding / reductionFactor);
    }

    @Override
    public Method method() {
        return Method.BOTTLENECK;
    }
}
