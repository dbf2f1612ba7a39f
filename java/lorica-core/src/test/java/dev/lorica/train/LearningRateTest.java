package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.exceptions.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Expected numbers are those of get_scheduler and Trainer in transformers 5.18, printed with repr. */
class LearningRateTest {
    @Test
    void linearWithoutWarmupFallsFromThePeak() {
        assertRates(
                SchedulerType.LINEAR,
                10,
                0,
                0.0002,
                0.00018,
                0.00016,
                0.00014,
                0.00012,
                0.0001,
                8e-05,
                6e-05,
                4e-05,
                2e-05);
    }

    @Test
    void linearWithWarmupBeginsAtZero() {
        assertRates(
                SchedulerType.LINEAR,
                10,
                3,
                0.0,
                6.666666666666667e-05,
                0.00013333333333333334,
                0.0002,
                0.00017142857142857143,
                0.00014285714285714287,
                0.00011428571428571428,
                8.571428571428571e-05,
                5.714285714285714e-05,
                2.857142857142857e-05);
    }

    @Test
    void cosineWithoutWarmup() {
        assertRates(
                SchedulerType.COSINE,
                10,
                0,
                0.0002,
                0.00019510565162951537,
                0.00018090169943749476,
                0.00015877852522924732,
                0.00013090169943749476,
                0.0001,
                6.909830056250527e-05,
                4.12214747707527e-05,
                1.9098300562505266e-05,
                4.8943483704846475e-06);
    }

    @Test
    void cosineWithWarmup() {
        assertRates(
                SchedulerType.COSINE,
                10,
                3,
                0.0,
                6.666666666666667e-05,
                0.00013333333333333334,
                0.0002,
                0.0001900968867902419,
                0.00016234898018587337,
                0.00012225209339563145,
                7.774790660436858e-05,
                3.7651019814126654e-05,
                9.903113209758096e-06);
    }

    @Test
    void constantWithAndWithoutWarmup() {
        assertRates(SchedulerType.CONSTANT, 4, 0, 0.0002, 0.0002, 0.0002, 0.0002);
        assertRates(
                SchedulerType.CONSTANT,
                6,
                3,
                0.0,
                6.666666666666667e-05,
                0.00013333333333333334,
                0.0002,
                0.0002,
                0.0002);
    }

    @Test
    void warmupMayBeLongerThanTraining() {
        assertRates(SchedulerType.LINEAR, 3, 5, 0.0, 4e-05, 8e-05);
    }

    @ParameterizedTest(name = "{0} examples by {1}, accumulated by {2}, {3} epochs, max {4}")
    @CsvSource({
        // examples, batch size, accumulation, epochs, max steps, warm-up ratio, total steps, rates of the first two and
        // last step
        "10,  4, 1, 3,   -1, 0.1,  9, 0.0,    0.0002,                0.000025",
        "10,  4, 2, 3,   -1, 0.0,  6, 0.0002, 0.0001666666666666667, 0.000033333333333333335",
        "17,  2, 4, 1.5, -1, 0.25, 5, 0.0,    0.0001,                0.00006666666666666667",
        "5,   8, 4, 2,   -1, 0.5,  2, 0.0,    0.0002,                0.0002",
        "100, 8, 3, 0.3, -1, 0.03, 2, 0.0,    0.0002,                0.0002",
        "10,  4, 2, 3,   4,  0.0,  4, 0.0002, 0.00015,               0.00005",
    })
    void countsStepsAndWarmupLikeTheTrainer(
            int examples,
            int batchSize,
            int accumulation,
            double epochs,
            int maxSteps,
            double warmupRatio,
            int totalSteps,
            double first,
            double second,
            double last) {
        TrainingConfig config = TrainingConfig.builder()
                .batchSize(batchSize)
                .gradientAccumulationSteps(accumulation)
                .epochs(epochs)
                .maxSteps(maxSteps)
                .warmupRatio(warmupRatio)
                .learningRate(2e-4)
                .build();
        int microBatches = (examples + batchSize - 1) / batchSize;

        int steps = Trainer.totalSteps(config, Trainer.stepsPerEpoch(config, microBatches));
        LearningRate rate = new LearningRate(config, steps);

        assertThat(steps).isEqualTo(totalSteps);
        assertThat(rate.at(0)).isCloseTo(first, within(1e-18));
        assertThat(rate.at(1)).isCloseTo(second, within(1e-18));
        assertThat(rate.at(steps - 1)).isCloseTo(last, within(1e-18));
    }

    @Test
    void cosineAndPolynomialEndAtTheMinimum() {
        TrainingConfig.Builder config =
                TrainingConfig.builder().learningRate(2e-4).warmupSteps(2).minLearningRate(2e-5);
        assertRates(
                config.schedulerType(SchedulerType.of("cosine_with_min_lr")).build(),
                8,
                0.0,
                0.0001,
                0.0002,
                0.0001879422863405995,
                0.000155,
                0.00011000000000000002,
                6.500000000000002e-05,
                3.205771365940052e-05);
        assertRates(
                config.schedulerType(SchedulerType.POLYNOMIAL).schedulerPower(2).build(),
                8,
                0.0,
                0.0001,
                0.0002,
                0.00014500000000000003,
                0.00010000000000000003,
                6.500000000000001e-05,
                4.000000000000001e-05,
                2.4999999999999998e-05);
    }

    @Test
    void aMinimumThatWouldBeIgnoredIsRefused() {
        assertThatThrownBy(() -> TrainingConfig.builder().minLearningRate(1e-5).build())
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("min learning rate is 1.0E-5")
                .hasMessageContaining("cosine, polynomial and warmup_stable_decay");
    }

    @Test
    void cosineWithRestarts() {
        TrainingConfig.Builder config =
                TrainingConfig.builder().learningRate(1).schedulerType(SchedulerType.of("cosine_with_restarts"));
        assertClose(
                config.warmupSteps(2).schedulerCycles(3).build(),
                0,
                0.5,
                1,
                0.793892626,
                0.345491503,
                0.0244717419,
                0.904508497,
                0.5,
                0.0954915028,
                0.975528258,
                0.654508497,
                0.206107374);
        assertClose(
                config.warmupSteps(0).schedulerCycles(1).build(),
                1,
                0.904508497,
                0.654508497,
                0.345491503,
                0.0954915028);
        assertThat(new LearningRate(config.build(), 5).at(5)).isZero();
    }

    @Test
    void inverseSquareRoot() {
        TrainingConfig.Builder config =
                TrainingConfig.builder().learningRate(1).schedulerType(SchedulerType.of("inverse_sqrt"));
        assertClose(
                config.warmupSteps(3).build(),
                0,
                0.333333333,
                0.666666667,
                1,
                0.866025404,
                0.774596669,
                0.707106781,
                0.654653671,
                0.612372436,
                0.577350269);
        assertClose(
                config.timescale(5).build(),
                0,
                0.333333333,
                0.666666667,
                1,
                0.912870929,
                0.845154255,
                0.790569415,
                0.745355992);
        assertClose(
                config.timescale(0).warmupSteps(0).build(),
                1,
                0.999950004,
                0.999900015,
                0.999850034,
                0.99980006,
                0.999750094);
    }

    @Test
    void warmupStableDecay() {
        TrainingConfig.Builder config = TrainingConfig.builder()
                .learningRate(1)
                .schedulerType(SchedulerType.of("warmup_stable_decay"))
                .warmupSteps(2)
                .decaySteps(4);
        assertClose(config.build(), 0, 0.5, 1, 1, 1, 1, 1, 1, 1, 0.853553391, 0.5, 0.146446609);
        // min_lr_ratio 0.1: what remains of the same curve lies above 0.1
        LearningRate above = new LearningRate(config.minLearningRate(0.1).build(), 12);
        assertThat(above.at(0)).isEqualTo(0.1);
        assertThat(above.at(1)).isCloseTo(0.55, within(1e-12));
        assertThat(above.at(9)).isCloseTo(0.1 + 0.9 * 0.853553391, within(1e-8));
        assertThat(above.at(12)).isCloseTo(0.1, within(1e-12));
        assertThatThrownBy(() -> config.decaySteps(0).build())
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("decay steps is 0; it must be at least 1 for the scheduler warmup_stable_decay");
    }

    /** To the nine digits with which they were printed. */
    private static void assertClose(TrainingConfig config, double... expected) {
        LearningRate rate = new LearningRate(config, expected.length);
        for (int step = 0; step < expected.length; step++) {
            assertThat(rate.at(step)).as("step " + step).isCloseTo(expected[step], within(1e-9));
        }
    }

    private static void assertRates(SchedulerType type, int totalSteps, int warmupSteps, double... expected) {
        TrainingConfig config = TrainingConfig.builder()
                .schedulerType(type)
                .warmupSteps(warmupSteps)
                .learningRate(2e-4)
                .build();
        assertRates(config, totalSteps, expected);
    }

    private static void assertRates(TrainingConfig config, int totalSteps, double... expected) {
        LearningRate rate = new LearningRate(config, totalSteps);
        double[] rates = new double[totalSteps];
        for (int step = 0; step < totalSteps; step++) {
            rates[step] = rate.at(step);
        }
        assertThat(rates).containsExactly(expected, within(1e-18));
    }
}
