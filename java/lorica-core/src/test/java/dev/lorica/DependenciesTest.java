package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What a program gets with lorica-core, as {@code mvn dependency:tree} prints it. */
class DependenciesTest {
    @Test
    void areFewerThanTwelveJars() throws Exception {
        Path tree = TestModels.repository("java/lorica-core/target/dependency-tree.txt");
        assumeTrue(Files.exists(tree), () -> tree + " is not there: Maven writes it");
        List<String> jars = Files.readAllLines(tree).stream()
                .filter(line -> line.contains(":jar:") && !line.contains("(optional)"))
                .toList();
        assertThat(jars.get(0)).startsWith("dev.lorica:lorica-core:jar:");
        assertThat(jars).anyMatch(line -> line.contains("dev.lorica:lorica-native:jar"));
        assertThat(jars.subList(1, jars.size())).hasSizeLessThan(12);
    }
}
