package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.FieldNames;
import dev.lorica.data.Overflow;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.GenerationService;
import dev.lorica.train.Objective;
import dev.lorica.train.StepTrainer;
import dev.lorica.train.TrainingConfig;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.regex.Pattern;

/**
 * {@code /v1/tuning}: a loop in any language trains an adapter by forward_backward and optim_step, asks it by sample, and keeps it by
 * save. What a run is at any time is here; what it does next is the client's.
 */
final class TuningEndpoint {
    static final String PATH = "/v1/tuning/";
    private static final int MOST_RUNS = 16;
    private static final int MOST_SEQUENCES = 4096;
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    private static final String NAMES = "up to 64 letters, digits and . _ -, the first of them a letter or a digit";
    private static final TrainingConfig DEFAULTS = TrainingConfig.defaults();

    private final Model model;
    private final GenerationService service;
    private final CompletionEndpoint completions;
    private final Path folder;
    private final Map<String, Run> runs = new LinkedHashMap<>();
    private boolean closed;

    /** @param folder below which adapters are saved */
    TuningEndpoint(Model model, GenerationService service, CompletionEndpoint completions, Path folder) {
        this.model = model;
        this.service = service;
        this.completions = completions;
        this.folder = folder;
    }

    /** An adapter that is being trained. Texts are drawn from it side by side, all else comes one after another. */
    private final class Run {
        private final Adapter adapter;
        private final StepTrainer trainer;
        private final Served served;
        private final DataConfig data;
        private final ReadWriteLock lock = new ReentrantReadWriteLock(true);
        private int savedAs;
        private boolean over;

        Run(String name, Adapter adapter, StepTrainer trainer, DataConfig data) {
            this.adapter = adapter;
            this.trainer = trainer;
            this.data = data;
            served = new Served(name, model, adapter, name, false);
        }

        void close() {
            lock.writeLock().lock();
            try {
                if (!over) {
                    over = true;
                    service.forget(served.adapters());
                    served.close();
                    trainer.close();
                    adapter.close();
                }
            } finally {
                lock.writeLock().unlock();
            }
        }
    }

    private interface Work {
        JsonNode of(Run run);
    }

    void answer(Call call) {
        Fields fields = call.json();
        String verb = call.path().substring(PATH.length());
        switch (verb) {
            case "create" -> call.answer(200, create(fields));
            case "forward_backward" -> call.answer(200, alone(call, fields, run -> forwardBackward(fields, run)));
            case "optim_step" -> call.answer(200, alone(call, fields, run -> optimStep(fields, run)));
            case "sample" -> sample(call, fields);
            case "save" -> call.answer(200, alone(call, fields, run -> save(fields, run)));
            case "close" -> call.answer(200, close(fields));
            default ->
                throw ApiException.of(404, "invalid_request_error", "not_found", "there is nothing of this path");
        }
    }

    private static String name(Fields fields) {
        String name = fields.requiredText("run");
        if (!NAME.matcher(name).matches()) {
            throw ApiException.field("run", "run must be " + NAMES);
        }
        return name;
    }

    private synchronized Run find(String name) {
        Run run = runs.get(name);
        if (run == null) {
            throw ApiException.of(404, "invalid_request_error", "run_not_found", "there is no run called " + name);
        }
        return run;
    }

    private JsonNode alone(Call call, Fields fields, Work work) {
        Run run = find(name(fields));
        Lock lock = take(call, run.lock.writeLock());
        try {
            requireGoingOn(run);
            return work.of(run);
        } finally {
            lock.unlock();
        }
    }

    private static void requireGoingOn(Run run) {
        if (run.over) {
            throw ApiException.of(404, "invalid_request_error", "run_not_found", "the run is closed");
        }
    }

    private static Lock take(Call call, Lock lock) {
        try {
            while (!lock.tryLock(Math.min(1000, call.millisecondsLeft()), TimeUnit.MILLISECONDS)) {
                call.requireClient();
                if (call.millisecondsLeft() == 0) {
                    throw ApiException.of(504, "timeout_error", "timeout", "the time that a request may take is over");
                }
            }
            return lock;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw ApiException.of(503, "server_error", "closing", "the server is closing");
        }
    }

    private JsonNode create(Fields fields) {
        String name = name(fields);
        LoraConfig.Builder lora = LoraConfig.builder()
                .rank(fields.integer("lora_r", 1, 4096, 16))
                .alpha(fields.number("lora_alpha", 0, 1e9, 32))
                .dropout(fields.number("lora_dropout", 0, 1, 0))
                .useRslora(fields.flag("use_rslora", false))
                .useDora(fields.flag("use_dora", false));
        String targets = fields.text("target_modules");
        if (targets != null) {
            lora.targetModules(targets.split(","));
        }
        int seed = fields.integer("seed", 0, Integer.MAX_VALUE, (int) DEFAULTS.seed());
        TrainingConfig config = DEFAULTS.toBuilder()
                .seed(seed)
                .adamBeta1(fields.number("adam_beta1", 0, 1, DEFAULTS.adamBeta1()))
                .adamBeta2(fields.number("adam_beta2", 0, 1, DEFAULTS.adamBeta2()))
                .adamEpsilon(fields.number("adam_epsilon", 0, 1, DEFAULTS.adamEpsilon()))
                .build();
        Objective objective = objective(fields);
        int maxLength = fields.integer(
                "max_length",
                2,
                model.info().contextLength(),
                Math.min(512, model.info().contextLength()));
        BatchShape shape = new BatchShape(
                fields.integer("max_tokens", 2, 1 << 24, Math.max(2048, maxLength)),
                fields.integer("max_sequences", 1, MOST_SEQUENCES, 64),
                maxLength);
        DataConfig data =
                new DataConfig(template(fields), maxLength, Overflow.ERROR, fields.flag("train_on_prompt", false));
        fields.end();
        synchronized (this) {
            requireRoom(name);
        }
        Adapter adapter = Adapter.create(model, lora.seed(seed).build());
        StepTrainer trainer = null;
        try {
            trainer = new StepTrainer(adapter, config, objective, shape);
            synchronized (this) {
                requireRoom(name);
                runs.put(name, new Run(name, adapter, trainer, data));
            }
        } catch (RuntimeException e) {
            if (trainer != null) {
                trainer.close();
            }
            adapter.close();
            throw e;
        }
        return Json.object()
                .put("run", name)
                .put("objective", objective.inWords())
                .put("trained_parameters", adapter.info().parameters())
                .put("max_tokens", shape.tokens())
                .put("max_length", maxLength);
    }

    private void requireRoom(String name) {
        if (closed) {
            throw ApiException.of(503, "server_error", "closing", "the server is closing");
        }
        if (runs.containsKey(name)) {
            throw ApiException.field("run", "there is a run called " + name + " already");
        }
        if (runs.size() >= MOST_RUNS) {
            throw ApiException.of(
                    429, "rate_limit_error", "busy", "there are " + MOST_RUNS + " runs; close one of them");
        }
    }

    private PromptTemplate template(Fields fields) {
        if (!fields.flag("chat_template", false)) {
            return null;
        }
        return ChatTemplate.of(model.tokenizer().info())
                .orElseThrow(() -> ApiException.field("chat_template", "the model has no chat template"));
    }

    private static Objective objective(Fields fields) {
        String name = fields.text("objective");
        double beta = fields.number("beta", 0, 1000, 0.1);
        return switch (name == null ? "sft" : name) {
            case "sft" -> {
                if (fields.names().contains("beta")) {
                    throw ApiException.field("beta", "beta is not for sft");
                }
                yield Objective.sft();
            }
            case "dpo" -> Objective.dpo(beta);
            case "orpo" -> Objective.orpo(beta);
            case "simpo" -> Objective.simpo(fields.number("beta", 0, 1000, 2), fields.number("gamma", 0, 1000, 0.5));
            case "kto" -> Objective.kto(beta);
            default ->
                throw ApiException.field(
                        "objective",
                        "objective must be sft, dpo, orpo, simpo or kto; for any other, give weights of tokens");
        };
    }

    private JsonNode forwardBackward(Fields fields, Run run) {
        JsonNode records = fields.take("records");
        JsonNode sequences = fields.take("sequences");
        if ((records == null) == (sequences == null)) {
            throw ApiException.field("records", "either records or sequences must be given");
        }
        if (records != null) {
            fields.end();
            return answer(run.trainer.forwardBackward(records(records, run), run.data), null);
        }
        boolean wantsLogProbs = fields.flag("logprobs", false);
        boolean backward = fields.flag("backward", true);
        double units = fields.number("units", 0, 1e12, 0);
        Weighted weighted = weighted(fields, sequences, wantsLogProbs || !backward);
        fields.end();
        Batch batch = weighted.batch;
        if (!backward) {
            return answer(null, weighted.bySequence(run.trainer.logProbs(batch)));
        }
        if (weighted.trained == 0) {
            throw ApiException.field("sequences", "no token has a weight; with backward false they are measured alone");
        }
        if (weighted.isPlain
                && !wantsLogProbs
                && units == 0
                && run.trainer.objective().name().equals("sft")) {
            return answer(run.trainer.forwardBackward(batch), null);
        }
        float[] logProbs = new float[batch.tokenCount()];
        StepTrainer.Sums sums =
                run.trainer.forwardBackward(batch, weighted.weights, units == 0 ? weighted.trained : units, logProbs);
        return answer(sums, wantsLogProbs ? weighted.bySequence(logProbs) : null);
    }

    private static ObjectNode answer(StepTrainer.Sums sums, ArrayNode logProbs) {
        ObjectNode answer = Json.object();
        if (sums != null) {
            answer.put("loss", sums.lossSum() / sums.units())
                    .put("loss_sum", sums.lossSum())
                    .put("units", sums.units())
                    .put("trained_tokens", sums.trained())
                    .put("tokens", sums.tokens());
            ObjectNode metrics = answer.putObject("metrics");
            sums.metrics().forEach(metrics::put);
        }
        if (logProbs != null) {
            answer.set("logprobs", logProbs);
        }
        return answer;
    }

    /** A micro-batch with a weight for what each position predicts. */
    private record Weighted(Batch batch, float[] weights, long trained, boolean isPlain) {
        /** Of each token of each sequence; of the first there is none. */
        ArrayNode bySequence(float[] logProbs) {
            ArrayNode all = Json.array();
            int at = 0;
            for (int length : batch.sequenceLengths()) {
                ArrayNode own = all.addArray().addNull();
                for (int t = 0; t + 1 < length; t++) {
                    own.add(logProbs[at + t]);
                }
                at += length;
            }
            return all;
        }
    }

    private Weighted weighted(Fields fields, JsonNode given, boolean all) {
        if (!given.isArray() || given.isEmpty() || given.size() > MOST_SEQUENCES) {
            throw fields.wrong("sequences", given, "a list of up to " + MOST_SEQUENCES + " sequences");
        }
        List<int[]> tokens = new ArrayList<>();
        List<float[]> weights = new ArrayList<>();
        long trained = 0;
        boolean plain = true;
        for (int i = 0; i < given.size(); i++) {
            if (!(given.get(i) instanceof ObjectNode object)) {
                throw fields.wrong("sequences", given.get(i), "a list of objects");
            }
            Fields one = new Fields(object, "sequences[" + i + "].");
            JsonNode ids = one.take("tokens");
            if (ids == null) {
                throw one.missing("tokens");
            }
            int[] own = Ids.of(one, "tokens", ids, model);
            float[] ownWeights = new float[own.length];
            JsonNode numbers = one.take("weights");
            if (numbers == null) {
                Arrays.fill(ownWeights, 1, own.length, 1);
            } else if (!numbers.isArray() || numbers.size() != own.length) {
                throw one.wrong("weights", numbers, "a list of as many numbers as there are tokens");
            }
            for (int t = 0; t < own.length; t++) {
                if (numbers != null) {
                    if (!numbers.get(t).isNumber()) {
                        throw one.wrong("weights", numbers.get(t), "a list of numbers");
                    }
                    ownWeights[t] = (float) numbers.get(t).asDouble();
                }
                if (t == 0 && ownWeights[0] != 0) {
                    throw one.wrong("weights", numbers, "0 for the first token, which nothing predicts");
                }
                trained += ownWeights[t] != 0 ? 1 : 0;
                plain &= ownWeights[t] == 0 || ownWeights[t] == 1;
            }
            one.end();
            tokens.add(own);
            weights.add(ownWeights);
        }
        int[] lengths = tokens.stream().mapToInt(one -> one.length).toArray();
        int total = Math.toIntExact(Arrays.stream(lengths).asLongStream().sum());
        int[] ids = new int[total];
        int[] labels = new int[total];
        float[] shifted = new float[total];
        int at = 0;
        for (int i = 0; i < lengths.length; i++) {
            System.arraycopy(tokens.get(i), 0, ids, at, lengths[i]);
            for (int t = 0; t < lengths[i]; t++) {
                boolean last = t + 1 == lengths[i];
                float weight = last ? 0 : weights.get(i)[t + 1];
                shifted[at + t] = weight;
                labels[at + t] = !last && (all || weight != 0) ? tokens.get(i)[t + 1] : Batch.IGNORE;
            }
            at += lengths[i];
        }
        return new Weighted(Batch.of(ids, labels, lengths), shifted, trained, plain);
    }

    /** Records as data files have them, read as one. */
    private Dataset records(JsonNode records, Run run) {
        if (!records.isArray() || records.isEmpty() || records.size() > MOST_SEQUENCES) {
            throw ApiException.field("records", "records must be a list of up to " + MOST_SEQUENCES + " objects");
        }
        Path file = null;
        try {
            file = Files.createTempFile("lorica-records-", ".json");
            Files.write(file, Json.bytes(records));
            Dataset read =
                    Dataset.load(file, FieldNames.NONE, run.trainer.objective().records());
            List<dev.lorica.data.DataRecord> kept = new ArrayList<>();
            read.forEach(kept::add);
            return Dataset.of(kept);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (LoricaException e) {
            throw ApiException.field("records", e.getMessage().replace(String.valueOf(file), "records"));
        } finally {
            if (file != null) {
                file.toFile().delete();
            }
        }
    }

    private JsonNode optimStep(Fields fields, Run run) {
        double learningRate = fields.number("learning_rate", 0, 1e6, Double.NaN);
        if (Double.isNaN(learningRate)) {
            throw fields.missing("learning_rate");
        }
        double weightDecay = fields.number("weight_decay", 0, 1e6, DEFAULTS.weightDecay());
        double maxGradNorm = fields.number("max_grad_norm", 0, 1e9, DEFAULTS.maxGradNorm());
        fields.end();
        StepTrainer.Step step = run.trainer.optimStep(learningRate, weightDecay, maxGradNorm);
        service.forget(run.served.adapters()); // what is cached is of the adapter before
        return Json.object().put("step", step.number()).put("loss", step.loss()).put("grad_norm", step.gradNorm());
    }

    private void sample(Call call, Fields fields) {
        Run run = find(name(fields));
        Lock lock = take(call, run.lock.readLock());
        try {
            requireGoingOn(run);
            completions.answer(call, fields, run.served);
        } finally {
            lock.unlock();
        }
    }

    private JsonNode save(Fields fields, Run run) {
        String given = fields.text("name");
        String name = given == null ? run.served.name() : given;
        boolean overwrite = fields.flag("overwrite", false);
        fields.end();
        if (!NAME.matcher(name).matches()) {
            throw ApiException.field("name", "name must be " + NAMES);
        }
        Path to = folder.resolve(name);
        if (Files.exists(to) && !overwrite) {
            throw ApiException.field(
                    "name", "there is something called " + name + " already; overwrite replaces an adapter");
        }
        if (Files.exists(to) && !Adapter.isIn(to)) {
            throw ApiException.field("name", name + " is no adapter, and is not replaced");
        }
        run.adapter.save(to);
        return Json.object().put("name", name).put("path", to.toString()).put("step", run.trainer.steps());
    }

    private JsonNode close(Fields fields) {
        String name = name(fields);
        fields.end();
        Run run = find(name);
        synchronized (this) {
            runs.remove(name, run);
        }
        run.close();
        return Json.object().put("run", name).put("step", run.trainer.steps());
    }

    void close() {
        List<Run> left;
        synchronized (this) {
            closed = true;
            left = new ArrayList<>(runs.values());
            runs.clear();
        }
        left.forEach(Run::close);
    }
}
