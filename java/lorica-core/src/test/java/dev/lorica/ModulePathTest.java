package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.lang.module.ModuleDescriptor;
import java.lang.module.ModuleFinder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The library as modules, in a JVM of its own: all other tests have it on the class path. */
class ModulePathTest {
    @Test
    void trainsSavesAndLoadsAndLeavesTheLimitsOfOtherNativeLibrariesAlone(@TempDir Path folder) throws Exception {
        List<String> path = List.of(System.getProperty("java.class.path").split(File.pathSeparator));
        String tests = path.get(0);
        String modules = path.stream()
                .filter(entry -> entry.contains("lorica-native" + File.separator)
                        || entry.contains("lorica-core" + File.separator + "target" + File.separator + "classes")
                        || entry.contains("javacpp")
                        || entry.contains("jackson")
                        || entry.contains("fastcsv")
                        || entry.contains("slf4j-api"))
                .collect(Collectors.joining(File.pathSeparator));
        Process program = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-Dorg.bytedeco.javacpp.maxPhysicalBytes=1",
                        "--module-path",
                        modules,
                        "--add-modules",
                        "dev.lorica",
                        "-cp",
                        tests,
                        embedding.Program.class.getName(),
                        TestModels.austen().toString(),
                        folder.toString())
                .redirectErrorStream(true)
                .start();
        String output = new String(program.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(program.waitFor(5, TimeUnit.MINUTES)).isTrue();

        assertThat(output).contains("module dev.lorica\n", "trained with adamw\n", "JavaCPP's limit is 1\n");
        assertThat(program.exitValue()).isZero();
    }

    @Test
    void exportsTheInterfaceAndNothingElse() {
        Path classes = Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
                .map(Path::of)
                .filter(entry -> entry.endsWith(Path.of("lorica-core", "target", "classes")))
                .findFirst()
                .orElseThrow();
        ModuleDescriptor module =
                ModuleFinder.of(classes).find("dev.lorica").orElseThrow().descriptor();

        assertThat(module.exports().stream().map(ModuleDescriptor.Exports::source))
                .containsExactlyInAnyOrderElementsOf(module.packages().stream()
                        .filter(name -> !name.matches("dev\\.lorica\\.(internal\\..*|jinja|data\\.chat)"))
                        .toList());
        assertThat(module.exports()).noneMatch(ModuleDescriptor.Exports::isQualified);
    }
}
