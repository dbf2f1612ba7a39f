package dev.lorica.cli;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;

import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;

/** What the program may use of the library. */
@AnalyzeClasses(packages = "dev.lorica.cli", importOptions = ImportOption.DoNotIncludeTests.class)
class CliArchitectureTest {
    @ArchTest
    static final ArchRule usesWhatTheLibraryExports =
            noClasses().should().dependOnClassesThat().resideInAPackage("dev.lorica.internal..");

    @ArchTest
    static final ArchRule onlyNvmlTouchesJavaCpp = noClasses()
            .that()
            .doNotHaveSimpleName("Nvml")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("org.bytedeco..");

    @ArchTest
    static final ArchRule onlyTheEditorOfLinesTouchesJLine = noClasses()
            .that()
            .doNotHaveSimpleName("LineEditor")
            .and()
            .doNotHaveSimpleName("SideBySide")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("org.jline..");
}
