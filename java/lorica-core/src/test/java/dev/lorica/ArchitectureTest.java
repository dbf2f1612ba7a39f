package dev.lorica;

import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Which package may use which. */
@AnalyzeClasses(packages = "dev.lorica", importOptions = ImportOption.DoNotIncludeTests.class)
class ArchitectureTest {
    /** Each package may use those that stand before it, and none that stands behind it. */
    private static final List<String> ORDER = List.of(
            "dev.lorica.exceptions",
            "dev.lorica.internal.c.presets",
            "dev.lorica.internal.c",
            "dev.lorica.internal",
            "dev.lorica.hub",
            "dev.lorica.files",
            "dev.lorica",
            "dev.lorica.jinja",
            "dev.lorica.data",
            "dev.lorica.internal.json",
            "dev.lorica.adapter",
            "dev.lorica.grammar",
            "dev.lorica.generate",
            "dev.lorica.eval",
            "dev.lorica.train",
            "dev.lorica.log",
            "dev.lorica.convert");

    @ArchTest
    static void arrowsPointOneWay(JavaClasses classes) {
        for (int i = 0; i + 1 < ORDER.size(); i++) {
            noClasses()
                    .that()
                    .resideInAPackage(ORDER.get(i))
                    .should()
                    .dependOnClassesThat()
                    .resideInAnyPackage(ORDER.subList(i + 1, ORDER.size()).toArray(String[]::new))
                    .check(classes);
        }
    }

    @ArchTest
    static void everyPackageHasItsPlaceInTheOrder(JavaClasses classes) {
        TreeSet<String> packages = new TreeSet<>();
        classes.forEach(one -> packages.add(one.getPackageName()));

        assertThat(packages).containsExactlyInAnyOrderElementsOf(ORDER);
    }

    @Test
    void noMessageOfTheLibraryNamesAnOptionOfTheProgram() throws IOException {
        Pattern option = Pattern.compile("\"[^\"\n]*(?:^|[ (\"'])--[a-z][^\"\n]*\"");
        List<String> found = new ArrayList<>();
        int read = 0;
        for (String sources : List.of("java/lorica-core/src/main", "java/lorica-native/src/main", "native/src")) {
            try (Stream<Path> files = Files.walk(TestModels.repository(sources))) {
                for (Path file : files.filter(file -> file.toString().matches(".*\\.(java|cpp|cu|h|cuh)"))
                        .toList()) {
                    read++;
                    Files.readAllLines(file).stream()
                            .filter(line -> !line.strip().matches("(\\*|//|/\\*).*"))
                            .filter(line -> option.matcher(line).find())
                            .forEach(line -> found.add(file + ": " + line.strip()));
                }
            }
        }
        assertThat(found).isEmpty();
        assertThat(read).isGreaterThan(200);
    }

    @ArchTest
    static final ArchRule onlyTheInternalPackageTouchesJavaCpp = noClasses()
            .that()
            .resideOutsideOfPackages("dev.lorica.internal", "dev.lorica.internal.c..")
            .should()
            .dependOnClassesThat(resideInAnyPackage("org.bytedeco..", "dev.lorica.internal.c.."));
}
