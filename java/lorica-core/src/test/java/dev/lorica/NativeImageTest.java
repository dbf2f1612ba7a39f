package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.data.PromptTemplate;
import java.lang.module.ModuleDescriptor;
import java.lang.module.ModuleFinder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** What GraalVM's native images are told of this library: they keep nothing that is only found by name. */
class NativeImageTest {
    private static final Path CLASSES = TestModels.repository("java/lorica-core/target/classes");
    private static final Path METADATA =
            Path.of("META-INF/native-image/dev.lorica/lorica-core/reachability-metadata.json");

    /** Written anew with {@code -Dlorica.write.native.image=true}. */
    @Test
    void namesEveryRecordAndEnumThatIsWrittenAsJsonAndTheTemplatesAmongItsResources() throws Exception {
        Path file = TestModels.repository("java/lorica-core/src/main/resources").resolve(METADATA);
        Set<String> wanted = names();
        if (Boolean.getBoolean("lorica.write.native.image")) {
            Files.writeString(file, json(wanted));
        }
        JsonNode metadata = new ObjectMapper().readTree(Files.readString(file));
        Set<String> said = new TreeSet<>();
        for (JsonNode entry : metadata.get("reflection")) {
            said.add(entry.get("type").asText());
            assertThat(entry.get("allDeclaredConstructors").asBoolean()).isTrue();
            assertThat(entry.get("allDeclaredMethods").asBoolean()).isTrue();
            assertThat(entry.get("allDeclaredFields").asBoolean()).isTrue();
        }
        assertThat(said).isEqualTo(wanted).contains("dev.lorica.adapter.LoraConfig", "dev.lorica.train.TrainingConfig");
        assertThat(metadata.get("resources").findValuesAsText("glob"))
                .containsExactly("dev/lorica/data/chat/*.jinja", "META-INF/maven/dev.lorica/**");
        assertThat(CLASSES.resolve("dev/lorica/data/chat/chatml.jinja")).exists();
    }

    /** Records, enums and what Jackson is told of them, in the packages that are open to it, and templates, which are records of data. */
    private static Set<String> names() throws Exception {
        ModuleDescriptor module =
                ModuleFinder.of(CLASSES).find("dev.lorica").orElseThrow().descriptor();
        Set<String> packages =
                module.opens().stream().map(ModuleDescriptor.Opens::source).collect(Collectors.toSet());
        assertThat(packages).contains("dev.lorica.adapter", "dev.lorica.train");
        List<Path> files;
        try (Stream<Path> all = Files.walk(CLASSES.resolve("dev/lorica"))) {
            files = all.filter(path -> path.toString().endsWith(".class")).toList();
        }
        Set<String> names = new TreeSet<>();
        for (Path path : files) {
            String name = CLASSES.relativize(path).toString().replace('/', '.').replaceFirst("\\.class$", "");
            if (name.endsWith("-info")) {
                continue;
            }
            Class<?> type = Class.forName(name, false, NativeImageTest.class.getClassLoader());
            boolean open = packages.contains(type.getPackageName())
                    && (type.isRecord()
                            || type.isEnum()
                            || Stream.of(type.getAnnotations())
                                    .anyMatch(one ->
                                            one.annotationType().getName().startsWith("com.fasterxml.")));
            if (open || PromptTemplate.class.isAssignableFrom(type) && !type.isInterface()) {
                names.add(name);
            }
        }
        return names;
    }

    private static String json(Set<String> names) {
        List<String> entries = new ArrayList<>();
        for (String name : names) {
            entries.add(
                    "    {\"type\": \"" + name
                            + "\", \"allDeclaredConstructors\": true, \"allDeclaredMethods\": true, \"allDeclaredFields\": true}");
        }
        return "{\n  \"reflection\": [\n" + String.join(",\n", entries) + "\n  ],\n  \"resources\": [\n"
                + "    {\"glob\": \"dev/lorica/data/chat/*.jinja\"},\n"
                + "    {\"glob\": \"META-INF/maven/dev.lorica/**\"}\n  ]\n}\n";
    }
}
