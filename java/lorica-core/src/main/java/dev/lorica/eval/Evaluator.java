package dev.lorica.eval;

import dev.lorica.Model;
import dev.lorica.TokenizerInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataRecord;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Packer;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.util.Arrays;
import java.util.List;
import java.util.function.BiConsumer;
import java.util.function.BooleanSupplier;
import java.util.function.Function;

/**
 * Measures a model: how well it predicts a data set (loss and perplexity, every token weighted alike, so that the result does not
 * depend on the batch size), how well it predicts a text, how well it answers questions.
 */
public final class Evaluator {
    private final Model model;
    private final Adapter adapter;

    /**
     * Evaluates a model with an adapter of it, which stay the caller's.
     *
     * @param model   the base
     * @param adapter {@code null}: the base alone
     */
    public Evaluator(Model model, Adapter adapter) {
        Arguments.given(model, "model");
        if (adapter != null) {
            adapter.requireModel(model);
        }
        this.model = model;
        this.adapter = adapter;
    }

    /**
     * Measures the loss of all examples, as plain fine-tuning has it.
     *
     * @param data      the examples
     * @param batchSize examples that are processed at once
     * @return the mean of −log p over the tokens that are learned, and what was counted
     */
    public Evaluation evaluate(TokenizedDataset data, int batchSize) {
        Arguments.given(data, "data");
        BatchShape shape = BatchShape.of(Packer.inOrder(data, batchSize));
        return inSession(shape, session -> evaluate(batch -> loss(session, batch, null), data, batchSize, () -> false));
    }

    /**
     * {@return the sum of losses of each of some micro-batches, and how many positions count in it}
     *
     * @param batches the micro-batches
     */
    public List<Loss> losses(List<Batch> batches) {
        BatchShape shape = new BatchShape(1, 1, 1);
        for (Batch batch : Arguments.all(batches, "batches")) {
            shape = shape.max(BatchShape.of(batch));
        }
        return inSession(shape, session -> batches.stream()
                .map(batch -> loss(session, batch, null))
                .toList());
    }

    /**
     * How well the model predicts a text, measured as llama.cpp's {@code perplexity} does it, so that the numbers can be
     * compared: the text is cut into windows of {@code window} tokens that do not overlap, what is left at the end is not used;
     * in each window the second half is predicted from all that stands before it, and if the vocabulary asks for BOS, it takes
     * the place of the first token.
     *
     * @param text   the text
     * @param window tokens of a window, llama.cpp's {@code -c}
     * @return the mean of −log p over the tokens that were predicted, and their number
     * @throws InvalidArgumentException if the text has fewer tokens than two windows, or a window more than the model's context
     */
    public TextEvaluation evaluateText(String text, int window) {
        return evaluateText(text, window, (done, all) -> {});
    }

    /** Hears how many windows of a text are done. */
    public interface Progress {
        /**
         * Is told after each window.
         *
         * @param done windows that are done
         * @param all  windows of the text
         */
        void windows(int done, int all);
    }

    /**
     * As above; {@code progress} is told after each window.
     *
     * @param text     the text
     * @param window   tokens of a window
     * @param progress is told how far it is
     * @return as {@link #evaluateText(String, int)}
     */
    public TextEvaluation evaluateText(String text, int window, Progress progress) {
        Arguments.given(text, "text");
        Arguments.given(progress, "progress");
        if (window < 4) {
            throw new InvalidArgumentException("windows of " + window + " tokens are too short; at least 4 are needed");
        }
        int context = model.info().contextLength();
        if (window > context) {
            throw new InvalidArgumentException("windows of " + window + " tokens are more than the model's context of "
                    + context + ", beyond which it predicts nothing of worth");
        }
        int[] ids = model.tokenizer().encode(text, true, false);
        if (ids.length < 2 * window) {
            throw new InvalidArgumentException("the text has " + ids.length + " tokens; two windows need " + 2 * window
                    + ". Take a longer text or a smaller window");
        }
        TokenizerInfo tokens = model.tokenizer().info();
        return inSession(new BatchShape(window, 1, window), session -> {
            long start = System.nanoTime();
            float[] losses = new float[window];
            double sum = 0;
            double squares = 0;
            long scored = 0;
            int windows = ids.length / window;
            for (int w = 0; w < windows; w++) {
                int[] part = Arrays.copyOfRange(ids, w * window, (w + 1) * window);
                if (tokens.addBos()) {
                    part[0] = tokens.bos();
                }
                int[] labels = new int[window];
                Arrays.fill(labels, Batch.IGNORE);
                System.arraycopy(part, window / 2 + 1, labels, window / 2, window - 1 - window / 2);
                loss(session, Batch.of(part, labels, window), losses);
                for (int t = window / 2; t < window - 1; t++) {
                    sum += losses[t];
                    squares += (double) losses[t] * losses[t];
                }
                scored += window - 1 - window / 2;
                progress.windows(w + 1, windows);
            }
            double mean = sum / scored;
            double variance = Math.max(0, squares / scored - mean * mean);
            return new TextEvaluation(
                    mean,
                    Math.sqrt(variance / (scored - 1)),
                    windows,
                    scored,
                    ids.length,
                    (System.nanoTime() - start) / 1e9);
        });
    }

    /**
     * Asks every question of {@code data}, of a conversation the last one, and compares the answers with those expected.
     *
     * @param data     the questions with the answers expected
     * @param template what stands around a question
     * @param config   how answers are generated; with temperature 0 the result is the same each time
     * @return the shares of answers that are right, and the answers
     * @throws InvalidArgumentException if the records are plain texts, without questions
     */
    public AnswerEvaluation evaluateAnswers(
            Iterable<DataRecord> data, PromptTemplate template, GenerationConfig config) {
        return evaluateAnswers(data, template, config, (question, answer) -> {});
    }

    /**
     * As above; {@code each} hears of every answer as it comes.
     *
     * @param data     the questions with the answers expected
     * @param template what stands around a question
     * @param config   how answers are generated
     * @param each     is given the question and the answer
     * @return as above
     */
    public AnswerEvaluation evaluateAnswers(
            Iterable<DataRecord> data,
            PromptTemplate template,
            GenerationConfig config,
            BiConsumer<DataRecord, String> each) {
        Arguments.given(data, "data");
        Arguments.given(template, "template");
        Arguments.given(config, "config");
        Arguments.given(each, "each");
        long start = System.nanoTime();
        ExampleEncoder encoder = new ExampleEncoder(model.tokenizer(), template, false);
        int matches = 0;
        double f1 = 0;
        int examples = 0;
        try (Generator generator = new Generator(model, adapter)) {
            for (DataRecord question : data) {
                Arguments.check(question != null, "data", "null at one place", "a record everywhere");
                if (question.isText()) {
                    throw new InvalidArgumentException(
                            "answers cannot be compared: the data are plain texts without questions");
                }
                Generation generation = generator.generate(encoder.prompt(question), config);
                StringBuilder answer = new StringBuilder();
                generation.forEach(answer::append);
                each.accept(question, answer.toString());
                matches += AnswerScore.exactMatch(answer.toString(), question.answer()) ? 1 : 0;
                f1 += AnswerScore.f1(answer.toString(), question.answer());
                examples++;
            }
        }
        if (examples == 0) {
            throw new InvalidArgumentException("there are no questions to ask");
        }
        return new AnswerEvaluation(
                (double) matches / examples, f1 / examples, examples, (System.nanoTime() - start) / 1e9);
    }

    private <R> R inSession(BatchShape shape, Function<NativeSession, R> work) {
        try (NativeSession session = adapter == null
                ? new NativeSession(Inner.MODEL.of(model), params(shape))
                : new NativeSession(Inner.ADAPTER.of(adapter), params(shape))) {
            return work.apply(session);
        }
    }

    /** Nothing is kept for a backward pass, so the plan need not have room for it. */
    private static NativeSession.Params params(BatchShape shape) {
        return NativeSession.Params.ofFeatures(shape.tokens(), shape.sequences(), shape.sequenceLength());
    }

    private static Loss loss(NativeSession session, Batch batch, float[] losses) {
        NativeSession.Loss loss =
                session.evaluate(batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), losses);
        return new Loss(loss.sum(), loss.trained());
    }

    /**
     * The loss on a data set, computed by whoever can.
     *
     * @param losses    computes the loss of a batch
     * @param data      the examples
     * @param batchSize examples of a batch
     * @param stop      asked before each batch
     * @return {@code null} when {@code stop} became true before the end
     */
    public static Evaluation evaluate(LossFunction losses, TokenizedDataset data, int batchSize, BooleanSupplier stop) {
        Arguments.given(losses, "losses");
        Arguments.given(data, "data");
        Arguments.given(stop, "stop");
        long start = System.nanoTime();
        Loss total = new Loss(0, 0);
        long tokens = 0;
        for (Batch batch : Packer.inOrder(data, batchSize)) {
            if (stop.getAsBoolean()) {
                return null;
            }
            total = total.plus(losses.of(batch));
            tokens += batch.tokenCount();
        }
        return new Evaluation(total.mean(), total.trained(), tokens, data.size(), (System.nanoTime() - start) / 1e9);
    }
}
