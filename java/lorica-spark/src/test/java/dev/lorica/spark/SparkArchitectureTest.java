package dev.lorica.spark;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;

import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.junit.AnalyzeClasses;
import com.tngtech.archunit.junit.ArchTest;
import com.tngtech.archunit.lang.ArchRule;

/** Spark stays in this module, and this module uses what the others show. */
@AnalyzeClasses(packages = "dev.lorica", importOptions = ImportOption.DoNotIncludeTests.class)
class SparkArchitectureTest {
    @ArchTest
    static final ArchRule sparkIsUsedNowhereElse = noClasses()
            .that()
            .resideOutsideOfPackage("dev.lorica.spark..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("org.apache.spark..", "scala..", "dev.lorica.spark..");

    @ArchTest
    static final ArchRule usesWhatTheLibraryExports = noClasses()
            .that()
            .resideInAPackage("dev.lorica.spark..")
            .should()
            .dependOnClassesThat()
            .resideInAnyPackage("dev.lorica.internal..", "org.bytedeco..");
}
