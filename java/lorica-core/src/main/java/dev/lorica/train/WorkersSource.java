package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import java.util.List;

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
}
