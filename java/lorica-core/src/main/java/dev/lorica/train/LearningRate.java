package dev.lorica.train;

import dev.lorica.internal.Arguments;

/**
 * The learning rate of each step, as Hugging Face's {@code get_scheduler} gives it. Warm-up rises from 0, so that with warm-up
 * the first step has rate 0.
 *
 * <p>{@link SchedulerType#CONSTANT} warms up too when it is told to; theirs needs {@code constant_with_warmup} for that and
 * ignores the warm-up otherwise.
 */
public final class LearningRate {
    /** Of transformers, where neither a timescale nor a warm-up is given. */
    private static final int DEFAULT_TIMESCALE = 10_000;

    private final SchedulerType type;
    private final double peak;
    private final double end;
    private final double power;
    private final double cycles;
    private final int decaySteps;
    private final int timescale;
    private final int warmupSteps;
    private final int totalSteps;

    /**
     * The rates of a run.
     *
     * @param config     peak, schedule and warm-up
     * @param totalSteps optimizer steps of the whole run
     */
    public LearningRate(TrainingConfig config, int totalSteps) {
        Arguments.given(config, "config");
        this.type = config.schedulerType();
        this.peak = config.learningRate();
        this.end = config.minLearningRate();
        this.power = config.schedulerPower();
        this.cycles = config.schedulerCycles();
        this.decaySteps = config.decaySteps();
        this.timescale = config.timescale();
        this.warmupSteps = warmupSteps(config, totalSteps);
        this.totalSteps = totalSteps;
    }

    private static double halfCosine(double progress) {
        return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
    }

    static int warmupSteps(TrainingConfig config, int totalSteps) {
        return config.warmupSteps() > 0 ? config.warmupSteps() : (int) Math.ceil(totalSteps * config.warmupRatio());
    }

    /** {@return steps in which the rate rises from 0} */
    public int warmupSteps() {
        return warmupSteps;
    }

    /**
     * {@return the rate of a step}
     *
     * @param step optimizer steps done before it, so 0 for the first
     */
    public double at(int step) {
        if (step < warmupSteps) {
            double share = (double) step / warmupSteps;
            return type == SchedulerType.WARMUP_STABLE_DECAY ? end + (peak - end) * share : peak * step / warmupSteps;
        }
        double span = Math.max(1, totalSteps - warmupSteps);
        double remaining = Math.max(0, (totalSteps - step) / span);
        return switch (type) {
            case CONSTANT -> peak;
            case LINEAR -> peak * remaining;
            case COSINE ->
                end + (peak - end) * Math.max(0, 0.5 * (1 + Math.cos(Math.PI * (step - warmupSteps) / span)));
            case COSINE_WITH_RESTARTS -> {
                double progress = (step - warmupSteps) / span;
                yield progress >= 1 ? 0 : peak * halfCosine(cycles * progress % 1);
            }
            case INVERSE_SQRT -> {
                double scale = timescale > 0 ? timescale : warmupSteps > 0 ? warmupSteps : DEFAULT_TIMESCALE;
                yield peak / Math.sqrt((step + scale - warmupSteps) / scale);
            }
            case WARMUP_STABLE_DECAY -> {
                int begins = Math.max(warmupSteps, totalSteps - decaySteps);
                double progress = Math.min(1, Math.max(0, (double) (step - begins) / decaySteps));
                yield end + (peak - end) * halfCosine(progress);
            }
            case POLYNOMIAL -> end + (peak - end) * Math.pow(remaining, power);
        };
    }
}
