package dev.lorica;

import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.List;
import java.util.function.BooleanSupplier;

/**
 * Measures how well a model predicts a data set: loss and perplexity, every token weighted alike, so that the result does not
 * depend on the batch size.
 */
public final class Evaluator {
    /** The base alone is the base with an adapter that changes nothing: B is zero until it is trained. */
    private static final LoraConfig NO_CHANGE =
            LoraConfig.builder().rank(1).targetModules("q_proj").build();

    private final Model model;
    private final Adapter adapter;

    /** @param adapter {@code null}: the base alone */
    public Evaluator(Model model, Adapter adapter) {
        if (adapter != null && adapter.model() != model) {
            throw new InvalidArgumentException("the adapter belongs to another model; load it with this model's loadAdapter");
        }
        this.model = model;
        this.adapter = adapter;
    }

    /** @param batchSize examples that are processed at once */
    public Evaluation evaluate(TokenizedDataset data, int batchSize) {
        if (adapter != null) {
            return evaluate(adapter, data, batchSize);
        }
        try (Adapter none = model.newAdapter(NO_CHANGE)) {
            return evaluate(none, data, batchSize);
        }
    }

    private Evaluation evaluate(Adapter with, TokenizedDataset data, int batchSize) {
        TrainSession.Shape shape = TrainSession.Shape.largest(Packer.inOrder(data, batchSize));
        // Nothing is kept for a backward pass, so the plan need not have room for it.
        TrainingConfig config = TrainingConfig.builder().checkpointing(Checkpointing.ON).build();
        try (TrainSession session = new TrainSession(model, with, config, shape)) {
            return evaluate(session, data, batchSize, () -> false);
        }
    }

    /** {@code null} when {@code stop} became true before the end. */
    static Evaluation evaluate(TrainSession session, TokenizedDataset data, int batchSize, BooleanSupplier stop) {
        long start = System.nanoTime();
        List<Batch> batches = Packer.inOrder(data, batchSize);
        double sum = 0;
        long trained = 0;
        long tokens = 0;
        for (Batch batch : batches) {
            if (stop.getAsBoolean()) {
                return null;
            }
            TrainSession.Loss loss = session.evaluate(batch);
            sum += loss.sum();
            trained += loss.trained();
            tokens += batch.tokenCount();
        }
        return new Evaluation(sum / trained, trained, tokens, data.size(), (System.nanoTime() - start) / 1e9);
    }
}
