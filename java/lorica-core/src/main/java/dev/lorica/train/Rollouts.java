package dev.lorica.train;

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
import java.util.stream.IntStream;

/**
 * Where gradients come from when a model learns from its own answers: a group of micro-batches of prompts goes in, answers to all of
 * them are drawn and judged, and micro-batches of these go where gradients are computed: to the session, or to {@link GradientWorkers},
 * which draw the answers too. They are judged here. What is drawn depends on the seed, the step and the adapter alone, so that a run that
 * goes on draws what it would have drawn, and so does another number of workers.
 */
final class Rollouts implements GradientSource, AutoCloseable {
    private static final int MOST_AT_ONCE = 32;

    private final Grpo objective;
    private final GrpoConfig config;
    private final long seed;
    private final LocalSession session;
    /** {@code null}: the workers draw. */
    private final BatchGenerator generator;
    /** {@code null}: the session computes. */
    private final WorkersSource workers;

    private TrainerState state = new TrainerState();

    /** @param shape of micro-batches of answers, as {@link #shape} has it */
    Rollouts(Adapter adapter, Grpo objective, long seed, LocalSession session, BatchShape shape) {
        this(objective, seed, session, generator(adapter, shape), null);
    }

    /** On workers that are opened before the first step. */
    Rollouts(Grpo objective, long seed, LocalSession session, WorkersSource workers) {
        this(objective, seed, session, null, workers);
    }

    private Rollouts(Grpo objective, long seed, LocalSession session, BatchGenerator generator, WorkersSource workers) {
        this.objective = objective;
        this.config = objective.config();
        this.seed = seed;
        this.session = session;
        this.generator = generator;
        this.workers = workers;
    }

    /** What draws answers for micro-batches of this shape. */
    static BatchGenerator generator(Adapter adapter, BatchShape shape) {
        return new BatchGenerator(
                adapter.model(),
                List.of(new ScaledAdapter(adapter, 1)),
                Math.min(MOST_AT_ONCE, shape.sequences()),
                shape.sequenceLength());
    }

    /** A text for each request, in their order. */
    static List<GenerationResult> generate(BatchGenerator generator, List<Request> requests, BooleanSupplier stop) {
        GenerationResult[] results = new GenerationResult[requests.size()];
        generator.generate(requests.iterator(), (i, result) -> results[i] = result, stop);
        for (int i = 0; i < results.length; i++) {
            if (results[i] == null) { // it was stopped before this one began
                int prompt = requests.get(i).prompt().length;
                results[i] =
                        new GenerationResult("", FinishReason.CANCELLED, prompt, 0, 0, 0, 0, new int[0], List.of());
            }
        }
        return Arrays.asList(results);
    }

    /** Whether the next step needs to know with which probabilities these answers were drawn. */
    static boolean keepsLogProbs(Objective objective, Batch batch) {
        return objective instanceof Grpo grpo
                && grpo.config().numIterations() > 1
                && batch.notes().old() == null;
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

    /** Micro-batches of answers in the place of those of prompts that the loop knows; those of which nothing is learned are left out. */
    private record Learned(List<Batch> batches, int[] places, float[][] logProbs) {
        static Learned of(List<Batch> all) {
            int[] places = IntStream.range(0, all.size())
                    .filter(i -> all.get(i).trainedCount() > 0)
                    .toArray();
            List<Batch> batches = Arrays.stream(places).mapToObj(all::get).toList();
            return new Learned(batches, places, new float[places.length][]);
        }

        GradientWorkers.Watch watch(GradientWorkers.Watch loop) {
            return new GradientWorkers.Watch() {
                @Override
                public boolean begins(int number) {
                    return loop.begins(places[number]);
                }

                @Override
                public void drewWith(int number, float[] values) {
                    logProbs[number] = values;
                }

                @Override
                public void ends(int number) {
                    loop.ends(places[number]);
                }

                @Override
                public void fails(int number) {
                    loop.fails(places[number]);
                }
            };
        }

        /** With the probabilities with which they were drawn. */
        List<Batch> drawn() {
            return IntStream.range(0, logProbs.length)
                    .mapToObj(i -> batches.get(i).with(batches.get(i).notes().withOld(logProbs[i])))
                    .toList();
        }
    }

    @Override
    public GradientSums accumulate(List<Batch> group, long first, GradientWorkers.Watch watch) {
        Answers answers = state.iteration > 0 ? state.answers : draw(group, state.step, () -> !watch.begins(0));
        if (answers == null) {
            return null;
        }
        GradientSums sums = new GradientSums(0, 0, 0, 0, answers.metrics);
        Learned learned = Learned.of(answers.batches);
        if (!learned.batches.isEmpty()) {
            // Each step with the same answers has dropout of its own.
            long number = first * config.numIterations() + (long) state.iteration * group.size();
            GradientSource source = workers == null ? session : workers;
            GradientSums of = source.accumulate(learned.batches, number, learned.watch(watch));
            if (of == null) {
                return null;
            }
            sums = sums.plus(of);
        }
        for (int i = learned.places.length; i < answers.batches.size(); i++) {
            watch.ends(i); // there was nothing to do for it
        }
        if (state.iteration == 0 && config.numIterations() > 1) {
            state.answers = new Answers(learned.drawn(), Metrics.NONE);
        }
        // Where nothing is learned from any answer, nothing is divided by nothing.
        return sums.units() > 0 ? sums : sums.plus(new GradientSums(0, 1, 0, 0, Metrics.NONE));
    }

    /** How good the answers to these prompts are that are drawn now; {@code null}: {@code stop} became true. */
    Evaluation evaluate(TokenizedDataset data, int batchSize, BooleanSupplier stop) {
        long start = System.nanoTime();
        GradientSums total = GradientSums.NONE;
        List<Batch> prompts = Packer.inOrder(data, batchSize);
        // Workers have all at once, and share them out.
        int atOnce = workers == null ? 1 : prompts.size();
        for (int from = 0; from < prompts.size(); from += atOnce) {
            List<Asked> asked = new ArrayList<>();
            for (int i = from; i < from + atOnce; i++) {
                asked.addAll(ask(prompts.subList(i, i + 1), -1L - i));
            }
            List<List<GenerationResult>> texts = texts(asked, stop);
            if (texts == null) {
                return null;
            }
            for (int i = 0; i < atOnce; i++) {
                if (stop.getAsBoolean()) {
                    return null;
                }
                Answers answers = judged(asked.subList(i, i + 1), texts.get(i));
                Batch batch = answers.batches.get(0);
                total = total.plus(new GradientSums(0, 0, 0, 0, answers.metrics));
                total = batch.trainedCount() > 0 ? total.plus(session.measure(batch, null)) : total;
            }
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

    /** What is asked of the prompts of a micro-batch, each as often as it gets answers. */
    private record Asked(List<Request> requests, List<DataRecord> records) {}

    private List<Asked> ask(List<Batch> prompts, long number) {
        SplittableRandom random = new SplittableRandom(new SplittableRandom(seed).nextLong() + number);
        List<Asked> all = new ArrayList<>();
        for (Batch batch : prompts) {
            Asked asked = new Asked(new ArrayList<>(), new ArrayList<>());
            int at = 0;
            for (int s = 0; s < batch.sequenceCount(); s++) {
                int[] ids = Arrays.copyOfRange(batch.tokens(), at, at + batch.sequenceLengths()[s]);
                at += ids.length;
                for (int i = 0; i < config.numGenerations(); i++) {
                    asked.requests.add(new Request(ids, sampling(random.nextLong())));
                    asked.records.add(batch.notes().asked().get(s));
                }
            }
            all.add(asked);
        }
        return all;
    }

    /** Texts of each micro-batch; {@code null}: {@code stop} became true. */
    private List<List<GenerationResult>> texts(List<Asked> asked, BooleanSupplier stop) {
        List<List<GenerationResult>> texts = new ArrayList<>();
        if (workers != null) {
            // A micro-batch is what one worker draws at once, however many there are: in f32, what is beside a text
            // tells in its last bits.
            texts = workers.generate(asked.stream().map(Asked::requests).toList(), stop);
        } else {
            List<Request> all =
                    asked.stream().flatMap(one -> one.requests.stream()).toList();
            List<GenerationResult> results = generate(generator, all, stop);
            int next = 0;
            for (Asked one : asked) {
                texts.add(results.subList(next, next += one.requests.size()));
            }
        }
        boolean whole = texts != null
                && texts.stream()
                        .flatMap(List::stream)
                        .noneMatch(text -> text.finishReason() == FinishReason.CANCELLED);
        return whole ? texts : null;
    }

    /** Answers to all prompts of a group; {@code null}: {@code stop} became true. */
    private Answers draw(List<Batch> prompts, long number, BooleanSupplier stop) {
        List<Asked> asked = ask(prompts, number);
        List<List<GenerationResult>> texts = texts(asked, stop);
        return texts == null
                ? null
                : judged(asked, texts.stream().flatMap(List::stream).toList());
    }

    private Answers judged(List<Asked> asked, List<GenerationResult> texts) {
        GenerationResult[] results = texts.toArray(GenerationResult[]::new);
        List<DataRecord> records =
                asked.stream().flatMap(one -> one.records.stream()).toList();
        double[][] rewards = judge(results, records);
        double[] weights =
                objective.rewards().stream().mapToDouble(RewardFunction::weight).toArray();
        Advantages advantages = Advantages.of(rewards, weights, config.numGenerations(), config.scaleRewards());
        List<Batch> batches = new ArrayList<>();
        int next = 0;
        for (Asked one : asked) {
            batches.add(batch(one.requests, results, advantages.values(), next));
            next += one.requests.size();
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
        if (generator != null) {
            generator.close();
        }
    }
}
