package dev.lorica.eval;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.TextEncoder;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.IntFunction;

/** Makes a vector of a text, of the hidden states behind the model's last layer, so that texts of like meaning lie near each other. */
public final class Embedder implements AutoCloseable {
    private static final int TOKENS_AT_ONCE = 2048;
    private static final int TEXTS_AT_ONCE = 64;

    /** How the states of a text's tokens become one. */
    public enum Pooling {
        /** The mean over all of them, special ones too. */
        MEAN(NativeSession.POOLING_MEAN),
        /** That of the first. */
        CLS(NativeSession.POOLING_FIRST),
        /** That of the last. */
        LAST(NativeSession.POOLING_LAST);

        private final int code;

        Pooling(int code) {
            this.code = code;
        }

        /**
         * {@return what the file says; where it says nothing, the mean of an encoder's and the last of a decoder's}
         *
         * @param model the model
         */
        public static Pooling of(Model model) {
            Arguments.given(model, "model");
            return Inner.MODEL
                    .of(model)
                    .classifier((isEncoder, outputs, type, problem, labels) ->
                            type == 2 ? CLS : type == 3 || type != 1 && !isEncoder ? LAST : MEAN);
        }

        @Override
        public String toString() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    private final Model model;
    private final TextEncoder encoder;
    private final NativeSession session;

    /**
     * Embeds with the model alone.
     *
     * @param model which stays the caller's
     */
    public Embedder(Model model) {
        this(model, null);
    }

    /**
     * Embeds with a model and an adapter of it, which stay the caller's.
     *
     * @param model   the model
     * @param adapter {@code null}: the model alone
     */
    public Embedder(Model model, Adapter adapter) {
        Arguments.given(model, "model");
        this.model = model;
        if (adapter != null) {
            adapter.requireModel(model);
        }
        int most = Math.min(TOKENS_AT_ONCE, model.info().contextLength());
        encoder = new TextEncoder(model.tokenizer(), most);
        NativeSession.Params params = NativeSession.Params.ofFeatures(TOKENS_AT_ONCE, TEXTS_AT_ONCE, most);
        session = adapter == null
                ? new NativeSession(Inner.MODEL.of(model), params)
                : new NativeSession(Inner.ADAPTER.of(adapter), params);
    }

    /**
     * {@return a vector of each text, as long as the model is wide, in the order of the texts}
     *
     * @param texts      the texts; what is longer than the model's context is cut
     * @param pooling    which tokens make the vector
     * @param normalized whether vectors have length 1, so that their products are cosines
     */
    public List<float[]> embed(List<String> texts, Pooling pooling, boolean normalized) {
        Arguments.all(texts, "texts");
        Arguments.given(pooling, "pooling");
        int size = model.info().embedding();
        List<float[]> all = new ArrayList<>();
        IntFunction<int[]> encoded = i -> encoder.encode(texts.get(i), null);
        Packed.each(model.tokenizer().info(), texts.size(), encoded, TOKENS_AT_ONCE, TEXTS_AT_ONCE, packed -> {
            float[] together = new float[packed.lengths().length * size];
            session.embed(
                    packed.tokens(), packed.positions(), packed.lengths(), packed.types(), pooling.code, together);
            for (int i = 0; i < packed.lengths().length; i++) {
                float[] own = new float[size];
                System.arraycopy(together, i * size, own, 0, size);
                all.add(normalized ? normalized(own) : own);
            }
        });
        return all;
    }

    /**
     * {@return how many tokens of these texts are read, special ones included}
     *
     * @param texts the texts
     */
    public int tokens(List<String> texts) {
        return Arguments.all(texts, "texts").stream()
                .mapToInt(text -> encoder.encode(text, null).length)
                .sum();
    }

    private static float[] normalized(float[] vector) {
        double squares = 0;
        for (float value : vector) {
            squares += (double) value * value;
        }
        for (int i = 0; i < vector.length && squares > 0; i++) {
            vector[i] = (float) (vector[i] / Math.sqrt(squares));
        }
        return vector;
    }

    @Override
    public void close() {
        session.close();
    }
}
