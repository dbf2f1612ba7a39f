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
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientWorker;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.Gradients;
import dev.lorica.train.Objective;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingProgress;
import java.util.ArrayList;
import java.util.List;
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
        GradientWorkers workers = new GradientWorkers() {
            private Adapter own;
            private GradientWorker worker;

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
                        one -> one.size() > 1
                                ? null
                                : Engine.rounded(worker.compute(group.get(one.from()), first + one.from()), format),
                        (left, right) -> Engine.rounded(left.plus(right), format));
            }

            @Override
            public void close() {
                worker.close();
                own.close();
            }
        };
        return train(workers, config);
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
