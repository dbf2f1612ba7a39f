package dev.lorica.convert;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeGgufWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Makes a GGUF model from the folder of a model as Hugging Face publishes it: {@code config.json}, {@code model.safetensors} in one
 * piece or several, {@code tokenizer.json}, {@code tokenizer.model} or {@code vocab.txt}. The file is laid out as llama.cpp's
 * converter does it. A setting that changes what the model computes is obeyed, or refused by name.
 */
public final class HuggingFaceConverter implements AutoCloseable {
    private static final Map<String, Integer> FILE_TYPES = Map.of("F32", 0, "F16", 1, "BF16", 32);

    private final Path folder;
    private final HuggingFaceConfig config;
    private final Map<String, SafetensorsFile> files = new LinkedHashMap<>();
    private final Map<String, SafetensorsFile> fileOf = new HashMap<>();

    private HuggingFaceConverter(Path folder) {
        this.folder = folder;
        this.config =
                new HuggingFaceConfig(folder.resolve("config.json"), JsonFiles.read(folder.resolve("config.json")));
    }

    /**
     * Writes the GGUF file.
     *
     * @param input  the folder, or {@code hf:OWNER/REPO}
     * @param output the GGUF file; one that is there is replaced when the new one is complete
     * @param type   of the matrices: {@code F16}, {@code BF16}, {@code F32}, or any that {@link ModelFiles#quantize} knows
     * @throws dev.lorica.exceptions.LoricaException naming the file or the setting that cannot be converted
     */
    public static void convert(Path input, Path output, String type) {
        Arguments.given(input, "input");
        Arguments.given(output, "output");
        Arguments.given(type, "type");
        Path folder = Hub.folder(input);
        if (!Files.isDirectory(folder)) {
            throw new FileAccessException(folder + " is no folder; that of a Hugging Face model is meant");
        }
        try (HuggingFaceConverter converter = new HuggingFaceConverter(folder)) {
            Families.Family family = converter.family();
            converter.openFiles();
            Layout layout = new Layout(folder, converter.fileOf);
            HuggingFaceTokenizer tokenizer = converter.describe(family, layout);
            String plain = type.toUpperCase(Locale.ROOT);
            if (FILE_TYPES.containsKey(plain)) {
                converter.write(layout, tokenizer, output, plain);
                return;
            }
            Path beside = output.resolveSibling(output.getFileName() + ".f32");
            AtomicFile.removeAbandoned(beside);
            Path scratch = AtomicFile.reserve(beside);
            try {
                converter.write(layout, tokenizer, scratch, "F32");
                ModelFiles.quantize(scratch, output, type, 0);
            } finally {
                AtomicFile.deleteQuietly(scratch);
                AtomicFile.release(scratch);
            }
        }
    }

    // ---- what is there

    private Families.Family family() {
        String architecture = config.json().path("architectures").path(0).asText("");
        Families.Family family = Families.of(architecture);
        if (family == null) {
            throw new UnsupportedException(
                    folder + " holds a model of the architecture \"" + JsonFiles.shown(architecture)
                            + "\", which is not supported; supported are " + String.join(", ", Families.names()));
        }
        if (config.has("quantization_config")) {
            throw new UnsupportedException(folder + ": the model is quantized ("
                    + JsonFiles.shown(config.json()
                            .path("quantization_config")
                            .path("quant_method")
                            .asText())
                    + "); convert the original one");
        }
        return family;
    }

    private HuggingFaceTokenizer describe(Families.Family family, Layout layout) {
        HuggingFaceTokenizer tokenizer = new HuggingFaceTokenizer(folder, config.json(), embeddingRows());
        layout.vocabulary(tokenizer.size());
        try {
            family.describe(config, layout);
        } catch (ArithmeticException e) {
            throw new FileFormatException(config.file() + ": its numbers are too large", e);
        }
        config.refuseRest();
        if (!layout.unused().isEmpty()) {
            String name = layout.unused().iterator().next();
            throw new UnsupportedException(folder + ": tensor \"" + JsonFiles.shown(name) + "\""
                    + (layout.unused().size() > 1 ? " and " + (layout.unused().size() - 1) + " others" : "")
                    + " cannot be converted; a model of " + layout.architecture() + " has no such tensor");
        }
        return tokenizer;
    }

    /** Ids that a token can have; ids beyond it would be a vocabulary of fillers. */
    private int embeddingRows() {
        long rows = 0;
        for (Map.Entry<String, SafetensorsFile> entry : fileOf.entrySet()) {
            if (entry.getKey().matches("(.*\\.)?(embed_tokens|wte|word_embeddings|embed_in)\\.weight")) {
                List<Long> shape =
                        entry.getValue().tensors().get(entry.getKey()).shape();
                rows = Math.max(rows, shape.isEmpty() ? 0 : shape.get(0));
            }
        }
        return (int) Math.min(rows, Integer.MAX_VALUE);
    }

    private void openFiles() {
        Path index = folder.resolve("model.safetensors.index.json");
        if (Files.exists(index)) {
            Set<String> names = new TreeSet<>();
            JsonFiles.read(index).path("weight_map").forEach(name -> names.add(name.asText()));
            for (String name : names) {
                // The index comes from a stranger: nothing outside the folder.
                if (!name.matches("[\\w][\\w.-]*\\.safetensors")) {
                    throw new FileFormatException(
                            index + " names the file \"" + name.replaceAll("\\p{Cntrl}", " ") + "\"");
                }
                files.put(name, SafetensorsFile.open(folder.resolve(name)));
            }
        } else {
            files.put("model.safetensors", SafetensorsFile.open(folder.resolve("model.safetensors")));
        }
        files.values().forEach(file -> file.tensors().keySet().forEach(name -> {
            if (fileOf.put(name, file) != null) {
                throw new FileFormatException(file.path() + ": tensor \"" + name + "\" is in another file too");
            }
        }));
    }

    @Override
    public void close() {
        files.values().forEach(SafetensorsFile::close);
    }

    // ---- the new file

    private void write(Layout layout, HuggingFaceTokenizer tokenizer, Path output, String type) {
        try (NativeGgufWriter writer = new NativeGgufWriter()) {
            writer.set("general.architecture", layout.architecture());
            writer.set("general.name", name());
            writer.set("general.file_type", FILE_TYPES.get(type));
            layout.metadata().forEach(writer::set);
            tokenizer.writeTo(writer, layout.tensors().get(0).shape()[0]);
            layout.vectors().forEach(writer::add);
            layout.tensors().forEach(tensor -> tensor.writeTo(writer, type));
            writer.write(output.toString());
        }
    }

    private String name() {
        String told = config.json().path("_name_or_path").asText("");
        String name = told.substring(told.lastIndexOf('/') + 1);
        return name.isEmpty()
                ? folder.toAbsolutePath().normalize().getFileName().toString()
                : name;
    }
}
