package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientWorker;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.Gradients;
import dev.lorica.train.GrpoConfig;
import dev.lorica.train.IntervalStrategy;
import dev.lorica.train.Objective;
import dev.lorica.train.RewardFunction;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingProgress;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/** Small trainings that are compared. */
final class Runs {
    static final ModelConfig F32 = new ModelConfig("cpu", Precision.F32, 1);
    static final Model MODEL = Model.load(Clusters.model(), F32);
    static final TokenizedDataset EXAMPLES = TokenizedDataset.of(
            Dataset.of(IntStream.range(0, 12)
                    .mapToObj(i -> DataRecord.of("Who is number " + i + "?", "Mr. Bennet, " + i + "."))
                    .toList()),
            MODEL.tokenizer(),
            DataConfig.ofMaxLength(64));

    private Runs() {}

    /** What came of a training: the adapter's bytes and the losses of its steps. */
    record Result(byte[] adapter, List<Double> losses) {}

    static TrainingConfig.Builder config(int steps, int accumulation) {
        return TrainingConfig.builder()
                .maxSteps(steps)
                .batchSize(1)
                .gradientAccumulationSteps(accumulation)
                .learningRate(1e-3)
                .neftuneNoiseAlpha(5);
    }

    static Adapter lora() {
        return Adapter.create(
                MODEL, LoraConfig.builder().rank(4).alpha(8).dropout(0.1).build());
    }

    static SparkModel model() {
        return SparkModel.of(Clusters.model(), MODEL, F32);
    }

    /** The tree on this machine alone, without Spark: what every cluster's bytes are compared with. */
    static Result tree(TrainingConfig config, GradientFormat format) {
        return train(new Tree(format), config);
    }

    private static final class Tree implements GradientWorkers {
        private final GradientFormat format;
        private Adapter own;
        private GradientWorker worker;

        Tree(GradientFormat format) {
            this.format = format;
        }

        @Override
        public void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
            own = lora();
            worker = new GradientWorker(own, config, objective, shape);
        }

        @Override
        public Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch) {
            worker.setParameters(parameters);
            return GradientTree.sum(
                    new GradientTree.Node(0, group.size()),
                    one -> {
                        if (one.size() > 1) {
                            return null;
                        }
                        Gradients leaf = worker.compute(group.get(one.from()), first + one.from());
                        if (worker.logProbs() != null) {
                            watch.drewWith(one.from(), worker.logProbs());
                        }
                        return Engine.rounded(leaf, format);
                    },
                    (left, right) -> Engine.rounded(left.plus(right), format));
        }

        @Override
        public List<List<GenerationResult>> generate(
                float[] parameters, List<List<BatchGenerator.Request>> calls, BooleanSupplier stop) {
            worker.setParameters(parameters);
            return calls.stream().map(call -> worker.generate(call, stop)).toList();
        }

        @Override
        public void close() {
            worker.close();
            own.close();
        }
    }

    /** What judges answers, which has a thing that cannot be sent anywhere. */
    private static RewardFunction brevity() {
        Object here = new Object();
        return RewardFunction.of(
                "brevity",
                one -> here.hashCode() * 0
                        - one.tokens()
                        - one.text().chars().filter(c -> ",.;".indexOf(c) >= 0).count());
    }

    /** Two steps with each set of answers that the model draws itself, held to what it was; the metrics of the steps in the place of losses. */
    static Result grpo(GradientWorkers workers, int steps) {
        GrpoConfig grpo = GrpoConfig.builder()
                .numGenerations(2)
                .maxCompletionLength(8)
                .numIterations(2)
                .beta(0.05)
                .build();
        TokenizedDataset prompts = TokenizedDataset.prompts(
                Dataset.of(IntStream.range(0, 12)
                        .mapToObj(i -> DataRecord.of("Who is number " + i + "?", ""))
                        .toList()),
                MODEL.tokenizer(),
                DataConfig.ofMaxLength(64));
        List<Double> metrics = new ArrayList<>();
        try (Adapter adapter = lora()) {
            new Trainer(
                            MODEL,
                            adapter,
                            config(steps, 6)
                                    .evalStrategy(IntervalStrategy.STEPS)
                                    .evalSteps(steps)
                                    .build(),
                            Objective.grpo(grpo, brevity()))
                    .workers(workers)
                    .addListener(new TrainerListener() {
                        @Override
                        public void onStep(TrainingProgress progress) {
                            metrics.addAll(progress.metrics().values());
                        }

                        @Override
                        public void onEvaluate(int step, Evaluation result) {
                            metrics.addAll(result.metrics().values());
                        }
                    })
                    .train(prompts, prompts);
            return new Result(Engine.bytes(adapter), metrics);
        }
    }

    static Result grpoTree(int steps) {
        return grpo(new Tree(GradientFormat.F32), steps);
    }

    /** @param workers {@code null}: this machine alone */
    static Result train(GradientWorkers workers, TrainingConfig config) {
        return train(workers, config, step -> {});
    }

    static Result train(GradientWorkers workers, TrainingConfig config, IntConsumer afterStep) {
        List<Double> losses = new ArrayList<>();
        try (Adapter adapter = lora()) {
            new Trainer(MODEL, adapter, config)
                    .workers(workers)
                    .addListener(new TrainerListener() {
                        @Override
                        public void onStep(TrainingProgress progress) {
                            losses.add(progress.loss());
                            afterStep.accept(progress.step());
                        }
                    })
                    .train(EXAMPLES);
            return new Result(Engine.bytes(adapter), losses);
        }
    }
}
