package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.serve.runs.ProgramCall;
import dev.lorica.serve.runs.RunFolders;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** The adapters that lie in the folders of the studio: where they come from, served on demand, written in other forms. */
final class StudioAdapters {
    private static final String METADATA = "lorica_adapter.json";
    /** What {@code lorica train} writes at the end. */
    private static final String REPORT = "train_report.json";

    private static final List<String> MARKS = List.of("adapter.gguf", "adapter_config.json");
    private static final List<String> FORMATS = List.of("peft", "gguf", "merged", "quantized");
    private static final int MOST_BYTES = 4 << 20;

    private final Model model;
    private final ServedModels models;
    private final RunFolders folders;
    private final ProgramCall program;
    /** By what is served, the folder that it was loaded from here. */
    private final ConcurrentHashMap<String, Path> loaded = new ConcurrentHashMap<>();

    StudioAdapters(Model model, ServedModels models, RunFolders folders, ProgramCall program) {
        this.model = model;
        this.models = models;
        this.folders = folders;
        this.program = program;
    }

    void list(Call call) {
        Set<Path> found = new LinkedHashSet<>();
        for (Path root : List.of(folders.output(), folders.data())) {
            folders.find(root, file -> MARKS.contains(file.getFileName().toString())).stream()
                    .map(Path::getParent)
                    .filter(folder -> !folder.getFileName().toString().startsWith("checkpoint-"))
                    .forEach(found::add);
        }
        ObjectNode answer = Json.object();
        ArrayNode all = answer.putArray("adapters");
        for (Path folder : found) {
            all.add(describe(folder));
        }
        call.answer(200, answer);
    }

    private ObjectNode describe(Path folder) {
        ObjectNode one = Json.object().put("path", folders.shown(folder));
        String served = models.list().stream()
                .map(Served::name)
                .filter(name -> folder.equals(loaded.get(name)))
                .findFirst()
                .orElse(null);
        one.put("served_as", served);
        Path metadata = folder.resolve(METADATA);
        JsonNode from = read(metadata, one);
        if (from != null) {
            one.set("from", from);
            one.put("made", metadata.toFile().lastModified());
        }
        JsonNode report = read(folder.resolve(REPORT), one);
        if (report != null && report.path("data").hasNonNull("name")) {
            one.set("data", report.get("data").get("name"));
        }
        return one;
    }

    /** {@code null}: it is not there, or not to be read, which is said. */
    private static JsonNode read(Path file, ObjectNode about) {
        try {
            return Files.isRegularFile(file) && Files.size(file) < MOST_BYTES
                    ? Json.parse(Files.readAllBytes(file))
                    : null;
        } catch (IOException | ApiException e) {
            about.put("problem", file.getFileName() + " cannot be read");
            return null;
        }
    }

    /** Serves one of them under a name, so that chats can ask for it. */
    void load(Call call) {
        Fields fields = call.json();
        Path folder = folders.readable("path", fields.requiredText("path"));
        fields.end();
        String name = folders.shown(folder);
        if (!Served.isName(name)) {
            throw ApiException.field("path", "it cannot be called " + name + "; a name has " + Served.NAMES);
        }
        if (!models.has(name)) {
            Adapter adapter;
            try {
                adapter = Adapter.load(model, folder);
            } catch (LoricaException e) {
                throw ApiException.field("path", e.getMessage());
            }
            try {
                models.add(name, adapter, name, true);
                loaded.put(name, folder);
            } catch (RuntimeException e) {
                adapter.close();
                throw e;
            }
        }
        call.answer(200, Json.object().put("model", name));
    }

    /** Writes one of them in another form, into the output folder. */
    void export(Call call) {
        Fields fields = call.json();
        Path adapter = folders.readable("path", fields.requiredText("path"));
        String format = fields.requiredText("format");
        Path target = folders.writable(fields.requiredText("name"));
        String type = fields.text("type");
        fields.end();
        if (!FORMATS.contains(format)) {
            throw ApiException.field("format", "format is one of " + String.join(", ", FORMATS));
        }
        if (type != null && !type.matches("[A-Za-z0-9_]{1,16}")) {
            throw ApiException.field("type", "type is the name of a type of weights, such as Q4_K_M");
        }
        boolean toFile = format.equals("merged") || format.equals("quantized");
        if (toFile && !target.toString().endsWith(".gguf")) {
            throw ApiException.field("name", "a whole model is a file that ends in .gguf");
        }
        List<String> arguments = new ArrayList<>(List.of(toFile ? "merge" : "export"));
        arguments.addAll(List.of("--model", model.file().toAbsolutePath().toString(), "--adapter", adapter.toString()));
        arguments.addAll(List.of("--output", target.toString()));
        if (!toFile) {
            arguments.addAll(List.of("--format", format));
        } else if (format.equals("quantized")) {
            arguments.addAll(List.of("--type", type == null ? "Q4_K_M" : type));
        }
        try {
            ObjectNode said = program.json(arguments, call.millisecondsLeft());
            ObjectNode answer = Json.object().put("path", folders.shown(target)).put("file", target.toString());
            answer.set("said", said);
            call.answer(200, answer);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw ApiException.of(503, "server_error", "closing", "that took too long, or the server is closing");
        }
    }
}
