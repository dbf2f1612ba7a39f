package dev.lorica.eval;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Labels;
import dev.lorica.data.TextEncoder;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntFunction;

/**
 * Says what texts are, by the classifier of an adapter or of the model itself. It holds the adapter until it is closed, as training
 * does.
 *
 * <pre>{@code
 * try (TextClassifier classifier = new TextClassifier(model, adapter)) {
 *     TextClassifier.Classification said = classifier.classify(List.of("A gem of a film.")).get(0);
 *     System.out.println(said.label() + " " + said.probability());
 * }
 * }</pre>
 */
public final class TextClassifier implements AutoCloseable {
    private static final int TOKENS_AT_ONCE = 2048;
    private static final int TEXTS_AT_ONCE = 64;

    /**
     * What is said of a text.
     *
     * @param outputs       of the classifier, before anything is made of them
     * @param probabilities of each label; the number itself of a regression
     * @param label         the most probable one; of several at once all above one half, with commas between; {@code null} of a number
     * @param probability   of that one; of several the least of theirs
     */
    public record Classification(float[] outputs, double[] probabilities, String label, double probability) {}

    private final Model model;
    private final Labels labels;
    private final TextEncoder encoder;
    private final NativeSession session;

    /**
     * Classifies with a model and an adapter of it, which stay the caller's.
     *
     * @param model   the model
     * @param adapter {@code null}: the model's own classifier
     * @throws InvalidArgumentException if there is no classifier
     */
    public TextClassifier(Model model, Adapter adapter) {
        Arguments.given(model, "model");
        this.model = model;
        if (adapter != null) {
            adapter.requireModel(model);
        }
        if (adapter != null && RewardModel.isOne(adapter)) {
            throw new InvalidArgumentException(
                    "the adapter is a reward model, which judges answers to prompts and says no labels");
        }
        Labels own = adapter == null ? null : adapter.labels();
        this.labels = own != null ? own : Labels.of(model);
        if (labels == null) {
            throw new InvalidArgumentException(
                    adapter == null
                            ? "there is no classifier in the model; give an adapter that has one"
                            : "there is no classifier, neither in the adapter nor in the model");
        }
        int most = Math.min(TOKENS_AT_ONCE, model.info().contextLength());
        this.encoder = new TextEncoder(model.tokenizer(), most);
        NativeSession.Params params = NativeSession.Params.ofFeatures(TOKENS_AT_ONCE, TEXTS_AT_ONCE, most);
        this.session = adapter == null
                ? new NativeSession(Inner.MODEL.of(model), params)
                : new NativeSession(Inner.ADAPTER.of(adapter), params);
    }

    /** {@return what it says} */
    public Labels labels() {
        return labels;
    }

    /**
     * {@return what is said of each text, in their order}
     *
     * @param texts the texts
     */
    public List<Classification> classify(List<String> texts) {
        return classify(texts, null);
    }

    /**
     * {@return what is said of each text or pair of texts, in their order}
     *
     * @param texts   the texts, or the first of each pair
     * @param seconds the second text of each; {@code null}: they have none
     */
    public List<Classification> classify(List<String> texts, List<String> seconds) {
        Arguments.all(texts, "texts");
        List<Classification> all = new ArrayList<>();
        IntFunction<int[]> encoded = i -> encoder.encode(texts.get(i), seconds == null ? null : seconds.get(i));
        Packed.each(model.tokenizer().info(), texts.size(), encoded, TOKENS_AT_ONCE, TEXTS_AT_ONCE, packed -> {
            float[] outputs = new float[packed.lengths().length * labels.outputs()];
            session.evaluateOutputs(packed.tokens(), packed.positions(), packed.lengths(), packed.types(), outputs);
            for (int i = 0; i < packed.lengths().length; i++) {
                float[] own = new float[labels.outputs()];
                System.arraycopy(outputs, i * own.length, own, 0, own.length);
                all.add(said(own));
            }
        });
        return all;
    }

    private Classification said(float[] outputs) {
        double[] p = new double[outputs.length];
        if (labels.problem() == Labels.Problem.REGRESSION) {
            p[0] = outputs[0];
            return new Classification(outputs, p, null, outputs[0]);
        }
        if (labels.problem() == Labels.Problem.MULTI_LABEL_CLASSIFICATION) {
            List<String> names = new ArrayList<>();
            double least = 1;
            for (int i = 0; i < p.length; i++) {
                p[i] = 1 / (1 + Math.exp(-outputs[i]));
                if (p[i] > 0.5) {
                    names.add(labels.names().get(i));
                    least = Math.min(least, p[i]);
                }
            }
            return new Classification(outputs, p, String.join(",", names), names.isEmpty() ? 0 : least);
        }
        int best = ClassMetrics.best(outputs);
        double sum = 0;
        for (int i = 0; i < p.length; i++) {
            p[i] = Math.exp((double) outputs[i] - outputs[best]);
            sum += p[i];
        }
        for (int i = 0; i < p.length; i++) {
            p[i] /= sum;
        }
        return new Classification(outputs, p, labels.names().get(best), p[best]);
    }

    @Override
    public void close() {
        session.close();
    }
}
