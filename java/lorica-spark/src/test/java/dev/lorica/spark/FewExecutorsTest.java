package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.LibraryLoadException;
import dev.lorica.train.TrainingConfig;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.junit.jupiter.api.Test;

/** On clusters of one and two executors; of four, {@link SparkTrainingTest}. */
class FewExecutorsTest {
    @Test
    void oneAndTwoExecutorsMakeTheSameBytes() {
        TrainingConfig config = Runs.config(3, 6).build();
        byte[] expected = Runs.tree(config, GradientFormat.F32).adapter();
        for (int executors : new int[] {1, 2}) {
            try (JavaSparkContext spark = Clusters.of(executors)) {
                assertThat(Runs.train(new SparkWorkers(spark, Runs.model()), config)
                                .adapter())
                        .as("%d executors", executors)
                        .isEqualTo(expected);
            }
        }
    }

    @Test
    void aLibraryThatDoesNotLoadIsSaidWithTheMachine() {
        Map<String, String> nowhere =
                Map.of("spark.executor.extraJavaOptions", "-Dorg.bytedeco.javacpp.platform=linux-sparc");
        try (JavaSparkContext spark = Clusters.of(1, nowhere)) {
            assertThatThrownBy(() -> Runs.train(
                            new SparkWorkers(spark, Runs.model()),
                            Runs.config(1, 2).build()))
                    .isInstanceOf(LibraryLoadException.class)
                    .hasMessageMatching("on \\S+ \\(executor 0\\): .*linux-sparc.*");
        }
    }
}
