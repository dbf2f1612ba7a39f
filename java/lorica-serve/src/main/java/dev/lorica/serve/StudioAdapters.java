package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.serve.runs.Exports;
import dev.lorica.serve.runs.RunFolders;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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
    private static final int MOST_BYTES = 4 << 20;

    private final Model model;
    private final ServedModels models;
    private final RunFolders folders;
    private final Exports exports;
    /** By what is served, the folder that it was loaded from here. */
    private final ConcurrentHashMap<String, Path> loaded = new ConcurrentHashMap<>();

    StudioAdapters(Model model, ServedModels models, RunFolders folders, Exports exports) {
        this.model = model;
        this.models = models;
        this.folders = folders;
        this.exports = exports;
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
            one.set("from", folders.inWords(from));
            one.put("made", metadata.toFile().lastModified());
        }
        JsonNode report = read(folder.resolve(REPORT), one);
        if (report != null && report.path("data").hasNonNull("name")) {
            // Of files that lie elsewhere, where another program was started, the names alone.
            one.put(
                    "data",
                    folders.inWords(report.get("data").get("name").asText()).replaceAll("(^|, )/(?:[^,/]*/)*", "$1"));
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
                throw ApiException.field("path", folders.inWords(e.getMessage()));
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

    /** Lets go of what was loaded from this folder, which is about to have another name or none. */
    void forget(Path folder) {
        loaded.forEach((name, from) -> {
            if (from.startsWith(folder) && loaded.remove(name, from) && models.has(name)) {
                models.remove(name);
            }
        });
    }

    /** Writes one of them in another form, into the output folder. */
    void export(Call call) {
        Fields fields = call.json();
        Path adapter = folders.readable("path", fields.requiredText("path"));
        String format = fields.requiredText("format");
        String name = fields.requiredText("name");
        String type = fields.text("type");
        fields.end();
        call.answer(202, exports.submit(adapter, format, type, name));
    }
}
