package dev.lorica.train;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Example;
import dev.lorica.data.Message;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.RewardException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.train.RewardFunction.Completion;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.BooleanSupplier;

/**
 * Where gradients come from when a model learns from its own answers: a group of micro-batches of prompts goes in, answers to all of
 * them are drawn and judged, and micro-batches of these go to the session. What is drawn depends on the seed, the step and the adapter
 * alone, so that a run that goes on draws what it would have drawn.
 */
final class Rollouts implements GradientSource, AutoCloseable {
    private static final int MOST_AT_ONCE = 32;

    private final Grpo objective;
    private final GrpoConfig config;
    private final long seed;
    private final LocalSession session;
    private final BatchGenerator generator;
    private TrainerState state = new TrainerState();

    /** @param shape of micro-batches of answers, as {@link #shape} has it */
    Rollouts(Model model, Adapter adapter, Grpo objective, long seed, LocalSession session, BatchShape shape) {
        this.objective = objective;
        this.config = objective.config();
        this.seed = seed;
        this.session = session;
        generator = new BatchGenerator(
                model,
                List.of(new ScaledAdapter(adapter, 1)),
                Math.min(MOST_AT_ONCE, shape.sequences()),
                shape.sequenceLength());
    }

    /** Of the micro-batches that micro-batches of prompts of this shape become, as far as an int counts. */
    static BatchShape shape(GrpoConfig config, BatchShape prompts) {
        double tokens = config.numGenerations()
                * (prompts.tokens() + (double) prompts.sequences() * config.maxCompletionLength());
        return new BatchShape((int) tokens, (int) ((double) prompts.sequences() * config.numGenerations()), (int)
                ((double) prompts.sequenceLength() + config.maxCompletionLength()));
    }

    @Override
    public void at(TrainerState now) {
        state = now;
    }

    @Override
    public GradientSums accumulate(List<Batch> group, long first, GradientWorkers.Watch watch) {
        Answers answers = state.iteration > 0 ? state.answers : draw(group, state.step, () -> !watch.begins(0));
        if (answers == null) {
            return null;
        }
        GradientSums sums = new GradientSums(0, 0, 0, 0, answers.metrics);
        List<Batch> done = new ArrayList<>();
        for (int i = 0; i < answers.batches.size(); i++) {
            if (!watch.begins(i)) {
                return null;
            }
            Batch batch = answers.batches.get(i);
            if (batch.trainedCount() > 0) {
                sums = sums.plus(session.gradients(batch, -1));
                done.add(batch.with(batch.notes().withOld(session.lastLogProbs())));
            }
            watch.ends(i);
        }
        if (state.iteration == 0 && config.numIterations() > 1) {
            state.answers = new Answers(done, Metrics.NONE);
        }
        // Where nothing is learned from any answer, nothing is divided by nothing.
        return sums.units() > 0 ? sums : sums.plus(new GradientSums(0, 1, 0, 0, Metrics.NONE));
    }

    /** How good the answers to these prompts are that are drawn now; {@code null}: {@code stop} became true. */
    Evaluation evaluate(TokenizedDataset data, int batchSize, BooleanSupplier stop) {
        long start = System.nanoTime();
        GradientSums total = GradientSums.NONE;
        List<Batch> prompts = Packer.inOrder(data, batchSize);
        for (int i = 0; i < prompts.size(); i++) {
            Answers answers = draw(prompts.subList(i, i + 1), -1L - i, stop);
            if (answers == null) {
                return null;
            }
            Batch batch = answers.batches.get(0);
            total = total.plus(new GradientSums(0, 0, 0, 0, answers.metrics));
            total = batch.trainedCount() > 0 ? total.plus(session.measure(batch, null)) : total;
        }
        return new Evaluation(
                total.units() > 0 ? total.lossSum() / total.units() : 0,
                total.trained(),
                total.tokens(),
                data.size(),
                (System.nanoTime() - start) / 1e9,
                total.metrics().means());
    }

    /**
     * Answers that have been judged.
     *
     * @param batches of them, with their advantages
     * @param metrics of their lengths and rewards
     */
    record Answers(List<Batch> batches, Metrics metrics) {}

    /** Answers to all prompts of a group; {@code null}: {@code stop} became true. */
    private Answers draw(List<Batch> prompts, long number, BooleanSupplier stop) {
        SplittableRandom random = new SplittableRandom(new SplittableRandom(seed).nextLong() + number);
        List<Request> requests = new ArrayList<>();
        List<DataRecord> asked = new ArrayList<>();
        for (Batch batch : prompts) {
            int at = 0;
            for (int s = 0; s < batch.sequenceCount(); s++) {
                int[] ids = Arrays.copyOfRange(batch.tokens(), at, at + batch.sequenceLengths()[s]);
                at += ids.length;
                for (int i = 0; i < config.numGenerations(); i++) {
                    requests.add(new Request(ids, sampling(random.nextLong())));
                    asked.add(batch.notes().asked().get(s));
                }
            }
        }
        GenerationResult[] results = new GenerationResult[requests.size()];
        generator.generate(requests.iterator(), (i, result) -> results[i] = result, stop);
        for (GenerationResult result : results) {
            if (result == null || result.finishReason() == FinishReason.CANCELLED) {
                return null;
            }
        }
        double[][] rewards = judge(results, asked);
        double[] weights =
                objective.rewards().stream().mapToDouble(RewardFunction::weight).toArray();
        Advantages advantages = Advantages.of(rewards, weights, config.numGenerations(), config.scaleRewards());
        List<Batch> batches = new ArrayList<>();
        int next = 0;
        for (Batch batch : prompts) {
            int n = batch.sequenceCount() * config.numGenerations();
            batches.add(batch(requests.subList(next, next + n), results, advantages.values(), next));
            next += n;
        }
        return new Answers(batches, metrics(results, rewards, advantages));
    }

    /** From all tokens, as likely as the model has them. */
    private GenerationConfig sampling(long seed) {
        return GenerationConfig.plain()
                .maxNewTokens(config.maxCompletionLength())
                .seed(seed)
                .build();
    }

    private Batch batch(List<Request> requests, GenerationResult[] results, double[] advantages, int first) {
        List<Example> examples = new ArrayList<>();
        float[] values = new float[requests.size()];
        for (int i = 0; i < requests.size(); i++) {
            int[] prompt = requests.get(i).prompt();
            GenerationResult result = results[first + i];
            int[] ids = Arrays.copyOf(prompt, prompt.length + result.tokens().length);
            System.arraycopy(result.tokens(), 0, ids, prompt.length, result.tokens().length);
            boolean[] trained = new boolean[ids.length];
            Arrays.fill(trained, prompt.length, ids.length, ended(result) || !config.maskTruncatedCompletions());
            examples.add(new Example(ids, trained));
            values[i] = (float) advantages[first + i];
        }
        return Packer.pack(examples).with(new Batch.Notes(1, values, null, null));
    }

    private static boolean ended(GenerationResult result) {
        return result.finishReason() == FinishReason.END_OF_TEXT;
    }

    private double[][] judge(GenerationResult[] results, List<DataRecord> asked) {
        List<Completion> completions = new ArrayList<>();
        for (int i = 0; i < results.length; i++) {
            completions.add(new Completion(
                    asked.get(i),
                    question(asked.get(i)),
                    results[i].text(),
                    results[i].tokens().length,
                    ended(results[i])));
        }
        double[][] rewards = new double[objective.rewards().size()][];
        for (int f = 0; f < rewards.length; f++) {
            rewards[f] = judge(objective.rewards().get(f), List.copyOf(completions));
        }
        return rewards;
    }

    private static double[] judge(RewardFunction function, List<Completion> completions) {
        double[] rewards;
        try {
            rewards = function.rewards(completions);
        } catch (LoricaException e) {
            throw e instanceof RewardException ? e : failed(function, "failed: " + e.getMessage(), e);
        } catch (RuntimeException e) {
            throw failed(function, "failed: " + e, e);
        }
        if (rewards == null || rewards.length != completions.size()) {
            throw failed(
                    function,
                    "gave " + (rewards == null ? "nothing" : rewards.length + " numbers") + " for " + completions.size()
                            + " answers",
                    null);
        }
        for (double reward : rewards) {
            if (Double.isInfinite(reward)) {
                throw failed(function, "gave " + reward + "; a number is meant, or NaN", null);
            }
        }
        return rewards;
    }

    private static RewardException failed(RewardFunction function, String how, Exception cause) {
        return new RewardException("the reward \"" + function.name() + "\" " + how, cause);
    }

    /** The prompt, or what the user said last. */
    private static String question(DataRecord record) {
        if (!record.isConversation()) {
            return record.prompt();
        }
        List<Message> messages = record.conversation().messages();
        for (int i = messages.size() - 1; i >= 0; i--) {
            if (messages.get(i).role().equals("user")) {
                return messages.get(i).content();
            }
        }
        return "";
    }

    private Metrics metrics(GenerationResult[] results, double[][] rewards, Advantages advantages) {
        double[] all = Arrays.stream(results)
                .mapToDouble(result -> result.tokens().length)
                .toArray();
        double[] whole = Arrays.stream(results)
                .filter(Rollouts::ended)
                .mapToDouble(result -> result.tokens().length)
                .toArray();
        Metrics metrics = Metrics.NONE;
        for (int f = 0; f < rewards.length; f++) {
            String name = "rewards/" + objective.rewards().get(f).name();
            metrics = known(metrics, name + "/mean", Advantages.mean(rewards[f]));
            metrics = known(metrics, name + "/std", Advantages.deviation(rewards[f]));
        }
        metrics = known(metrics, "reward", Advantages.mean(advantages.rewards()));
        metrics = known(metrics, "reward_std", Advantages.deviation(advantages.rewards()));
        metrics = known(metrics, "frac_reward_zero_std", advantages.sameAll());
        metrics = lengths(metrics, "", all);
        metrics = known(metrics, "completions/clipped_ratio", 1 - (double) whole.length / all.length);
        return lengths(metrics, "terminated_", whole.length > 0 ? whole : new double[1]);
    }

    private static Metrics lengths(Metrics metrics, String which, double[] lengths) {
        Metrics with = known(
                metrics,
                "completions/mean_" + which + "length",
                Arrays.stream(lengths).average().orElse(0));
        with = known(
                with,
                "completions/min_" + which + "length",
                Arrays.stream(lengths).min().orElse(0));
        return known(
                with,
                "completions/max_" + which + "length",
                Arrays.stream(lengths).max().orElse(0));
    }

    private static Metrics known(Metrics metrics, String name, double value) {
        return Double.isNaN(value) ? metrics : metrics.plus(name, value, 1);
    }

    @Override
    public void close() {
        generator.close();
    }
}
