package dev.lorica.cli;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.hub.HubName;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/** Answers to names that are not what they were meant to be: mistyped, of a folder, of a model on the hub. */
final class Misnamed {
    /** What a name was meant to be the name of. */
    enum What {
        MODEL("a GGUF model"),
        ADAPTER("an adapter"),
        FOLDER("the folder of a Hugging Face model"),
        DATA("a data file"),
        MODEL_OR_ADAPTER("a model or an adapter");

        private final String words;

        What(String words) {
            this.words = words;
        }
    }

    private Misnamed() {}

    /** Throws where the name cannot be what was meant, and says what may have been. */
    static void check(Path path, What what) {
        if (HubName.is(path.toString())) {
            return;
        }
        if (!Files.exists(path)) {
            throw new FileAccessException(path + " does not exist" + meant(path, what));
        }
        boolean isHuggingFace = Files.isDirectory(path)
                && Files.exists(path.resolve("config.json"))
                && !Files.exists(path.resolve("adapter_config.json"));
        if ((what == What.MODEL || what == What.MODEL_OR_ADAPTER) && isHuggingFace) {
            throw new LoricaException(path + " is the folder of a Hugging Face model; make a GGUF file of it with: "
                    + Shell.program() + " convert " + Shell.quote(path.toString()) + " model.gguf");
        }
        if (what == What.MODEL && Files.isDirectory(path) && !holdsAdapter(path)) {
            List<String> models = names(path).stream()
                    .filter(name -> name.endsWith(".gguf"))
                    .sorted()
                    .toList();
            throw new LoricaException(path + " is a folder; a GGUF file is meant"
                    + (models.isEmpty() ? "" : ", such as " + path.resolve(models.get(0))));
        }
        if (what == What.FOLDER && path.toString().endsWith(".gguf")) {
            throw new LoricaException(path + " is a GGUF file already; lorica quantize changes its type");
        }
    }

    private static boolean holdsAdapter(Path path) {
        return Files.exists(path.resolve("adapter.gguf")) || Files.exists(path.resolve("adapter_config.json"));
    }

    private static String meant(Path path, What what) {
        String name = path.toString();
        boolean looksLikeTheHub = name.matches("[A-Za-z0-9][\\w.-]*/[A-Za-z0-9][\\w.-]*(@[\\w.-]+)?(:[\\w./-]+)?")
                && !name.matches(".*\\.(gguf|json|jsonl|csv|parquet|txt|safetensors)")
                && !Files.exists(path.toAbsolutePath().getParent());
        if (looksLikeTheHub && what != What.DATA) {
            return "; if " + what.words + " on Hugging Face's hub is meant: hf:" + name;
        }
        Path folder = path.toAbsolutePath().getParent();
        String last = path.getFileName() == null ? "" : path.getFileName().toString();
        return names(folder).stream()
                .filter(other ->
                        Spelling.distance(last.toLowerCase(), other.toLowerCase()) <= Math.max(2, last.length() / 4))
                .min(Comparator.comparingInt((String other) -> Spelling.distance(last, other))
                        .thenComparing(Comparator.naturalOrder()))
                .map(other -> "; did you mean "
                        + (path.getParent() == null ? other : path.getParent().resolve(other)) + "?")
                .orElse("");
    }

    private static List<String> names(Path folder) {
        if (folder == null || !Files.isDirectory(folder)) {
            return List.of();
        }
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString())
                    .filter(name -> !name.startsWith("."))
                    .toList();
        } catch (IOException e) {
            return List.of();
        }
    }
}
