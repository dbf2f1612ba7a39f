package dev.lorica.eval;

import dev.lorica.Model;
import dev.lorica.TokenizerInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataException;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.Overflow;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.data.Unshown;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/**
 * Says how good answers are: an adapter that was trained with the objective {@code reward}. It holds the adapter until it is closed,
 * as training does; the model may be the one that gives the answers.
 *
 * <pre>{@code
 * try (RewardModel judge = new RewardModel(model, adapter)) {
 *     double[] rewards = judge.rewards(List.of(DataRecord.of("Who is Mr. Collins?", "A clergyman.")));
 * }
 * }</pre>
 */
public final class RewardModel implements AutoCloseable {
    private static final int TOKENS_AT_ONCE = 2048;
    private static final int ANSWERS_AT_ONCE = 64;

    private final Model model;
    private final DataConfig config;
    private final NativeSession session;

    /**
     * Judges with the template that stands in the adapter's side file.
     *
     * @param model   the base, which stays the caller's
     * @param adapter an adapter with a classifier of one output
     * @throws InvalidArgumentException if it is no adapter of one output, or its side file does not say what stood around the prompts
     *     that it was trained on
     */
    public RewardModel(Model model, Adapter adapter) {
        this(Arguments.given(model, "model"), adapter, known(adapter));
    }

    /**
     * Judges with a template of the caller's.
     *
     * @param model    the base, which stays the caller's
     * @param adapter  an adapter with a classifier of one output
     * @param template what stands around prompts, as in training
     */
    public RewardModel(Model model, Adapter adapter, PromptTemplate template) {
        this.model = Arguments.given(model, "model");
        Arguments.given(adapter, "adapter");
        Arguments.given(template, "template");
        adapter.requireModel(model);
        if (adapter.labels() == null || adapter.labels().outputs() != 1) {
            throw new InvalidArgumentException("the adapter is no reward model: it has "
                    + (adapter.labels() == null
                            ? "no classifier"
                            : "a classifier of " + adapter.labels().outputs() + " outputs"));
        }
        int most = Math.min(TOKENS_AT_ONCE, model.info().contextLength());
        this.config = new DataConfig(template, most, Overflow.TRUNCATE, false, Unshown.SKIP);
        this.session = new NativeSession(
                Inner.ADAPTER.of(adapter), NativeSession.Params.ofFeatures(TOKENS_AT_ONCE, ANSWERS_AT_ONCE, most));
    }

    private static PromptTemplate known(Adapter adapter) {
        PromptTemplate template = Arguments.given(adapter, "adapter").template();
        if (template == null) {
            throw new InvalidArgumentException(
                    "the adapter does not say what stood around the prompts that it was trained on; give the template");
        }
        return template;
    }

    /** Whether the adapter was trained as a reward model. */
    static boolean isOne(Adapter adapter) {
        AdapterMetadata metadata = adapter.metadata();
        return metadata != null
                && metadata.training() != null
                && metadata.training().get("objective") instanceof Map<?, ?> objective
                && "reward".equals(objective.get("name"));
    }

    /**
     * {@return the reward of each answer to its prompt, or of the last answer of each conversation, in their order; NaN for one in which
     * there is no answer, or whose prompt alone is longer than the model's context}
     *
     * @param answers prompts with answers, or conversations
     */
    public double[] rewards(List<DataRecord> answers) {
        Arguments.all(answers, "answers");
        double[] rewards = new double[answers.size()];
        Arrays.fill(rewards, Double.NaN);
        List<int[]> sequences = new ArrayList<>();
        List<Integer> places = new ArrayList<>();
        for (int i = 0; i < rewards.length; i++) {
            int[] ids = encode(answers.get(i));
            if (ids != null) {
                sequences.add(ids);
                places.add(i);
            }
        }
        Iterator<Integer> place = places.iterator();
        TokenizerInfo info = model.tokenizer().info();
        Packed.each(info, sequences.size(), sequences::get, TOKENS_AT_ONCE, ANSWERS_AT_ONCE, packed -> {
            float[] outputs = new float[packed.lengths().length];
            session.evaluateOutputs(packed.tokens(), packed.positions(), packed.lengths(), packed.types(), outputs);
            for (float output : outputs) {
                rewards[place.next()] = output;
            }
        });
        return rewards;
    }

    /** As in training; {@code null}: there is nothing to be judged. */
    private int[] encode(DataRecord answer) {
        try {
            List<Example> examples = TokenizedDataset.of(Dataset.of(List.of(answer)), model.tokenizer(), config)
                    .examples();
            return examples.get(examples.size() - 1).ids();
        } catch (DataException e) {
            return null;
        }
    }

    @Override
    public void close() {
        session.close();
    }
}
