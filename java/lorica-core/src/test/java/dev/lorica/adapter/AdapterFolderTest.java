package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.exceptions.FileFormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** An adapter's files, which are one adapter's at every moment. */
class AdapterFolderTest {
    private static final List<String> FILES =
            List.of("adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "lorica_adapter.json");
    private static final Set<Adapter.Format> BOTH = Set.of(Adapter.Format.GGUF, Adapter.Format.PEFT);

    private static Model model;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen());
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void brokenOffAnywhereBehindTheRenameTheNewAdapterIsThere() throws IOException {
        for (int moved = 0; moved <= FILES.size(); moved++) {
            Path home = folder.resolve("at-" + moved);
            save(home, 1);
            Path other = folder.resolve("new-" + moved);
            save(other, 2);
            Path committed = Files.createDirectory(home.resolve(AdapterFolder.COMMITTED));
            for (String name : FILES) {
                Files.move(other.resolve(name), committed.resolve(name));
            }
            for (String name : List.of(
                            "adapter.gguf", "adapter_model.safetensors", "adapter_config.json", "lorica_adapter.json")
                    .subList(0, moved)) {
                Files.move(committed.resolve(name), home.resolve(name), StandardCopyOption.REPLACE_EXISTING);
            }
            assertHolds(home, 2);
            assertThat(names(home)).containsExactlyElementsOf(FILES);
        }
    }

    @Test
    void brokenOffBeforeTheRenameTheOldAdapterIsThereAndTheNextSaveClears() throws IOException {
        save(folder, 1);
        for (String left : List.of(
                ".lorica-staged.tmp-999999999-0",
                ".lorica-staged.tmp-" + ProcessHandle.current().pid() + "-99999999")) {
            Files.writeString(Files.createDirectory(folder.resolve(left)).resolve("adapter.gguf"), "half");
        }
        assertHolds(folder, 1);
        save(folder, 2);
        assertHolds(folder, 2);
        assertThat(names(folder)).containsExactlyElementsOf(FILES);
    }

    @Test
    void aFileOfAnotherAdapterIsNoticed() throws IOException {
        Path other = folder.resolve("other");
        save(other, 2);
        for (String name : List.of("adapter.gguf", "adapter_model.safetensors", "adapter_config.json")) {
            Path home = folder.resolve("with-" + name);
            save(home, 1);
            Files.write(home.resolve(name), Files.readAllBytes(other.resolve(name)));
            if (name.equals("adapter_config.json")) {
                Files.writeString(home.resolve(name), "{}");
            }
            assertThatThrownBy(() -> Adapter.load(model, home))
                    .isInstanceOf(FileFormatException.class)
                    .hasMessageContaining(home.resolve(name) + " is not the file that lorica_adapter.json");
            Files.delete(home.resolve(name));
            if (!name.equals("adapter_config.json")) {
                assertHolds(home, 1);
            }
        }
    }

    @Test
    void formatsSavedOneAfterTheOtherAreOneAdapterAndNoOthers() throws IOException {
        try (Adapter adapter = adapter(1)) {
            adapter.save(folder);
            adapter.exportPeft(folder, "base");
            assertThat(names(folder)).containsExactlyElementsOf(FILES);
            adapter.setValues(0, new float[adapter.values(0).length]);
            adapter.save(folder);
            // What PEFT would load is another adapter by now.
            assertThat(names(folder)).containsExactly("adapter.gguf", "lorica_adapter.json");
        }
        save(folder, 2);
        try (Adapter adapter = adapter(3)) {
            adapter.save(folder, Set.of(Adapter.Format.PEFT), "base");
        }
        assertThat(names(folder))
                .containsExactly("adapter_config.json", "adapter_model.safetensors", "lorica_adapter.json");
        assertHolds(folder, 3);
    }

    @Test
    void whatIsLoadedMayBeSavedBesideItself() throws IOException {
        try (Adapter adapter = adapter(1)) {
            adapter.save(folder, Set.of(Adapter.Format.PEFT), "base");
        }
        Files.delete(folder.resolve("lorica_adapter.json"));
        try (Adapter peft = Adapter.load(model, folder)) {
            peft.save(folder);
        }
        assertThat(names(folder)).containsExactlyElementsOf(FILES);
        assertHolds(folder, 1);
    }

    @Test
    void theSameAdapterIsTheSameBytes() throws IOException {
        save(folder.resolve("a"), 1);
        save(folder.resolve("b"), 1);
        for (String name : FILES) {
            assertThat(folder.resolve("a").resolve(name))
                    .hasSameBinaryContentAs(folder.resolve("b").resolve(name));
        }
    }

    @Test
    void anInterruptedThreadSavesAllTheSame() throws IOException {
        try (Adapter adapter = adapter(1)) {
            Thread.currentThread().interrupt();
            adapter.save(folder, BOTH, "base");
            assertThat(Thread.interrupted()).isTrue();
        }
        assertHolds(folder, 1);
    }

    private static Adapter adapter(int kind) {
        Adapter adapter = Adapter.create(
                model,
                LoraConfig.builder().rank(2).targetModules("q_proj").seed(kind).build());
        for (int i = 1; i < adapter.tensors().size(); i += 2) {
            float[] b = adapter.values(i);
            for (int j = 0; j < b.length; j++) {
                b[j] = kind + 0.001f * j;
            }
            adapter.setValues(i, b);
        }
        return adapter;
    }

    private static void save(Path folder, int kind) {
        try (Adapter adapter = adapter(kind)) {
            adapter.save(folder, BOTH, "base");
        }
    }

    private static void assertHolds(Path folder, int kind) {
        try (Adapter loaded = Adapter.load(model, folder);
                Adapter expected = adapter(kind)) {
            for (int i = 0; i < expected.tensors().size(); i++) {
                assertThat(loaded.values(i)).isEqualTo(expected.values(i));
            }
        }
    }

    private static List<String> names(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(Files::isRegularFile)
                    .map(file -> file.getFileName().toString())
                    .sorted()
                    .toList();
        }
    }
}
