package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import java.util.List;
import java.util.function.BooleanSupplier;

/** Gradients that others compute: parameters go to them, and what they add up goes to the session. */
final class WorkersSource implements GradientSource {
    private final GradientWorkers workers;
    private final GradientWorker.Parameters parameters;
    private final LocalSession session;

    WorkersSource(GradientWorkers workers, Adapter adapter, LocalSession session) {
        this.workers = workers;
        this.parameters = new GradientWorker.Parameters(adapter);
        this.session = session;
    }

    @Override
    public GradientSums accumulate(List<Batch> group, long first, GradientWorkers.Watch watch) {
        Gradients gradients = workers.compute(parameters.get(), group, first, watch);
        if (gradients == null) {
            return null;
        }
        session.setGradients(gradients.values());
        return gradients.sums();
    }

    /** Texts for the requests of each call; {@code null}: {@code stop} became true. */
    List<List<GenerationResult>> generate(List<List<BatchGenerator.Request>> calls, BooleanSupplier stop) {
        return workers.generate(parameters.get(), calls, stop);
    }
}
