package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.LibraryLoadException;
import java.util.Map;
import org.apache.spark.api.java.JavaSparkContext;
import org.junit.jupiter.api.Test;

/** On executors on which the native library does not load. */
class BrokenLibraryTest {
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
