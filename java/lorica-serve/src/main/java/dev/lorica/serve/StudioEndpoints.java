package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.serve.runs.RunFeed;
import dev.lorica.serve.runs.RunFolders;
import dev.lorica.serve.runs.RunOptions;
import dev.lorica.serve.runs.RunProgram;
import dev.lorica.serve.runs.Runs;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;

/**
 * The studio: a page at {@code /}, its files below {@code /studio/}, and what it asks for below {@code /studio/api/}. The page loads nothing from
 * anywhere else, which its Content-Security-Policy holds.
 */
final class StudioEndpoints implements AutoCloseable {
    private static final String API = "/studio/api/";
    private static final String RUN = "runs/";
    private static final String EXPORT = "exports/";
    private static final String POLICY =
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
                    + " base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    private static final String SCRIPT = "text/javascript; charset=utf-8";
    private static final String STYLE = "text/css; charset=utf-8";

    /** What there is for everybody: path to file and type. */
    private static final Map<String, List<String>> FILES = Map.ofEntries(
            Map.entry("/", List.of("index.html", "text/html; charset=utf-8")),
            Map.entry("/studio/studio.css", List.of("studio.css", STYLE)),
            Map.entry("/studio/uplot.css", List.of("uplot/uPlot.min.css", STYLE)),
            Map.entry("/studio/uplot.js", List.of("uplot/uPlot.esm.js", SCRIPT)),
            Map.entry("/studio/main.js", List.of("main.js", SCRIPT)),
            Map.entry("/studio/server.js", List.of("server.js", SCRIPT)),
            Map.entry("/studio/elements.js", List.of("elements.js", SCRIPT)),
            Map.entry("/studio/runs.js", List.of("runs.js", SCRIPT)),
            Map.entry("/studio/curves.js", List.of("curves.js", SCRIPT)),
            Map.entry("/studio/train.js", List.of("train.js", SCRIPT)),
            Map.entry("/studio/preview.js", List.of("preview.js", SCRIPT)),
            Map.entry("/studio/chat.js", List.of("chat.js", SCRIPT)),
            Map.entry("/studio/adapters.js", List.of("adapters.js", SCRIPT)));

    private static final List<String> DATA = List.of(".json", ".jsonl", ".csv", ".parquet", ".txt");
    private static final int EVENT_MILLIS = 15_000;
    private static final int MOST_FOLLOWED = 50;

    /** Another one after a restart: what was seen before then counts no more. */
    private final String instance = UUID.randomUUID().toString().substring(0, 8);

    private final Model model;
    private final ServedModels models;
    private final RunProgram program;
    private final RunFolders folders;
    /** {@code null}: nothing is trained from here. */
    private final Runs runs;

    private final StudioAdapters adapters;

    StudioEndpoints(Model model, ServedModels models, RunProgram program, Path data, Path output) {
        this.model = model;
        this.models = models;
        this.program = program;
        if (output == null) {
            folders = null;
            runs = null;
            adapters = null;
            return;
        }
        try {
            folders = new RunFolders(data, output, model.file());
        } catch (IOException e) {
            throw new FileAccessException("the data folder or the output folder cannot be read: " + e.getMessage(), e);
        }
        runs = new Runs(folders, program, models.base().name());
        adapters = new StudioAdapters(model, models, folders, runs.exports());
    }

    /** The page and its files. Returns whether it was one of them that was asked for. */
    boolean answerPage(Call call) {
        List<String> file = call.path() == null ? null : FILES.get(call.path());
        if (file == null || !List.of("GET", "HEAD").contains(call.method())) {
            return false;
        }
        call.answerHeaders().set("Content-Security-Policy", POLICY);
        call.answerHeaders().set("Referrer-Policy", "no-referrer");
        try (InputStream in = StudioEndpoints.class.getResourceAsStream("studio/" + file.get(0))) {
            call.answer(200, file.get(1), in.readAllBytes());
        } catch (IOException e) {
            throw new IllegalStateException("part of the program is missing: " + file.get(0), e);
        }
        return true;
    }

    /** What the page asks for. Returns whether it was that. */
    boolean answer(Call call) {
        String path = call.path();
        if (path == null || !path.startsWith(API)) {
            return false;
        }
        String asked = call.method() + " " + path.substring(API.length());
        if (asked.equals("GET settings")) {
            settings(call);
            return true;
        }
        if (runs == null) {
            throw ApiException.of(
                    403,
                    "permission_error",
                    "no_output_folder",
                    "nothing is trained or kept here: the server was started without a data folder and an output folder");
        }
        try {
            return ofFolders(call, asked);
        } catch (LoricaException e) {
            throw LoricaServer.inWords(e, folders.inWords(e.getMessage()));
        }
    }

    private boolean ofFolders(Call call, String asked) {
        switch (asked) {
            case "GET files" -> files(call);
            case "GET runs" -> call.answer(200, Json.object().set("runs", runs.list()));
            case "GET events" -> events(call);
            case "GET adapters" -> adapters.list(call);
            case "POST read" -> read(call);
            case "POST check" -> check(call);
            case "POST plan" -> plan(call);
            case "POST runs" -> begin(call);
            case "POST adapters/load" -> adapters.load(call);
            case "POST adapters/export" -> adapters.export(call);
            case "GET exports" ->
                call.answer(200, Json.object().set("exports", runs.exports().list()));
            default -> {
                String[] parts = asked.substring(asked.indexOf(' ') + 1).split("/", -1);
                if (parts.length != 3 || !call.method().equals("POST")) {
                    return false;
                }
                return switch (parts[0] + "/") {
                    case RUN -> withRun(call, parts[1], parts[2]);
                    case EXPORT -> withExport(call, parts[1], parts[2]);
                    default -> false;
                };
            }
        }
        return true;
    }

    private boolean withRun(Call call, String name, String verb) {
        if (!List.of("stop", "resume", "rename", "delete").contains(verb)) {
            return false;
        }
        Fields fields = call.json();
        boolean now = verb.equals("stop") && fields.flag("now", false);
        boolean asks = verb.equals("delete") && fields.flag("dry_run", false);
        String to = verb.equals("rename") ? fields.requiredText("to") : null;
        fields.end();
        switch (verb) {
            case "stop" -> call.answer(200, runs.stop(name, now));
            case "resume" -> call.answer(200, runs.resume(name));
            case "rename" -> {
                ObjectNode renamed = runs.rename(name, to);
                adapters.forget(runs.folder(name));
                call.answer(200, renamed);
            }
            default -> {
                Runs.Contents contents = runs.contents(name);
                if (!asks) {
                    runs.delete(name);
                    adapters.forget(runs.folder(name));
                }
                call.answer(
                        200,
                        Json.object()
                                .put("name", name)
                                .put("deleted", !asks)
                                .put("files", contents.files())
                                .put("bytes", contents.bytes()));
            }
        }
        return true;
    }

    private boolean withExport(Call call, String id, String verb) {
        if (!verb.equals("stop") || !id.matches("[0-9]{1,9}")) {
            return false;
        }
        call.json().end();
        call.answer(200, runs.exports().stop(Integer.parseInt(id)));
        return true;
    }

    /** What the page has to know before anything else. */
    private void settings(Call call) {
        ObjectNode answer = Json.object().put("model", models.base().name());
        answer.put("trains", runs != null);
        ArrayNode options = answer.putArray("options");
        for (RunProgram.Option option : runs == null ? List.<RunProgram.Option>of() : program.options()) {
            ObjectNode one = options.addObject()
                    .put("name", option.name())
                    .put("section", option.section())
                    .put("help", option.help())
                    .put("initial", option.initial())
                    .put("flag", option.flag())
                    .put("many", option.many())
                    .put("file", option.file());
            ArrayNode choices = one.putArray("choices");
            option.choices().forEach(choices::add);
        }
        call.answer(200, answer);
    }

    private void files(Call call) {
        ObjectNode answer = Json.object();
        ArrayNode data = answer.putArray("data");
        ArrayNode ggufs = answer.putArray("models");
        for (Path file :
                folders.find(folders.data(), file -> endsWith(file, DATA) || endsWith(file, List.of(".gguf")))) {
            (endsWith(file, List.of(".gguf")) ? ggufs : data).add(folders.shown(file));
        }
        call.answer(200, answer);
    }

    private static boolean endsWith(Path file, List<String> endings) {
        String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
        return endings.stream().anyMatch(name::endsWith);
    }

    /** YAML of this program or of another one, as options. */
    private void read(Call call) {
        Fields fields = call.json();
        String yaml = fields.requiredText("yaml");
        fields.end();
        RunProgram.Meaning meaning = program.read(yaml);
        ObjectNode answer = Json.object();
        ObjectNode options = answer.putObject("options");
        meaning.options().forEach((name, values) -> {
            ArrayNode all = options.putArray(name);
            values.forEach(all::add);
        });
        ArrayNode notes = answer.putArray("notes");
        meaning.notes().forEach(notes::add);
        call.answer(200, answer);
    }

    private static Map<String, List<String>> options(Fields fields) {
        JsonNode given = fields.take("options");
        if (!(given instanceof ObjectNode object)) {
            throw fields.missing("options");
        }
        Map<String, List<String>> options = new LinkedHashMap<>();
        object.fields().forEachRemaining(field -> {
            List<String> values = new ArrayList<>();
            JsonNode value = field.getValue();
            for (JsonNode one : value.isArray() ? value : Json.array().add(value)) {
                if (!one.isValueNode() || one.isNull()) {
                    throw fields.wrong("options", value, "an object of values and lists of them");
                }
                values.add(one.asText());
            }
            options.put(field.getKey(), values);
        });
        return options;
    }

    /** The command line and the YAML that options mean; {@code problem} where they are not yet what a run can begin with. */
    private void check(Call call) {
        Fields fields = call.json();
        String name = fields.requiredText("name");
        Map<String, List<String>> given = options(fields);
        fields.end();
        ObjectNode answer = Json.object();
        try {
            RunOptions options = runs.options(given);
            Path folder = runs.folder(name);
            answer.put("command", options.commandLine(program, folder, folders::inWords))
                    .put("yaml", options.yaml(folder, folders::inWords));
        } catch (InvalidArgumentException e) {
            answer.put("problem", folders.inWords(e.getMessage()));
        }
        call.answer(200, answer);
    }

    /** What a run would do: its data as the model sees them, and what it takes. */
    private void plan(Call call) {
        Fields fields = call.json();
        RunOptions options = runs.options(options(fields));
        int examples = fields.integer("examples", 0, 100, 5);
        fields.end();
        Path yaml = null;
        try {
            yaml = runs.temporary(options.yaml(folders.output().resolve("plan-of-nothing")));
            ObjectNode here = program.plan(model, yaml, examples);
            List<String> arguments =
                    List.of("train", "--config", yaml.toString(), "--dry-run", "--show-examples=" + examples);
            ObjectNode plan = here != null ? here : runs.program().json(arguments, call.millisecondsLeft());
            JsonNode shown = plan.remove("examples"); // what the data say stays as it is
            call.answer(200, ((ObjectNode) folders.inWords(plan)).set("examples", shown));
        } catch (IOException e) {
            throw new FileAccessException("no temporary file can be made: " + e.getMessage(), e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw ApiException.of(503, "server_error", "closing", "that took too long, or the server is closing");
        } finally {
            if (yaml != null) {
                yaml.toFile().delete();
            }
        }
    }

    private void begin(Call call) {
        Fields fields = call.json();
        String name = fields.requiredText("name");
        RunOptions options = runs.options(options(fields));
        fields.end();
        call.answer(201, runs.submit(name, options));
    }

    /** Where somebody is who follows runs: of each, the edition and how many events were seen. */
    private final class Places {
        private final Map<String, int[]> seen = new LinkedHashMap<>();

        /** @param last the id of the last event that was seen; {@code null}: none was */
        Places(List<String> names, String last) {
            names.forEach(name -> seen.put(name, new int[2]));
            if (last == null || !last.startsWith(instance)) {
                return;
            }
            for (String one : last.substring(instance.length()).split(";")) {
                String[] parts = one.split("[:.](?=\\d+(\\.\\d+)?$)"); // NAME:EDITION.SEEN
                if (parts.length == 3
                        && seen.containsKey(parts[0])
                        && parts[1].length() < 10
                        && parts[2].length() < 10) {
                    seen.put(parts[0], new int[] {Integer.parseInt(parts[1]), Integer.parseInt(parts[2])});
                }
            }
        }

        String id() {
            StringBuilder id = new StringBuilder(instance);
            seen.forEach((name, place) -> id.append(';')
                    .append(name)
                    .append(':')
                    .append(place[0])
                    .append('.')
                    .append(place[1]));
            return id.toString();
        }
    }

    /**
     * Server-Sent Events: the list of runs whenever it changes, and of the runs that are named all that has happened and happens. Who
     * comes back with {@code Last-Event-ID} gets what he has missed.
     */
    private void events(Call call) {
        List<String> names = call.query().stream()
                .filter(one -> one.getKey().equals("run"))
                .map(Map.Entry::getValue)
                .filter(runs::has) // a page may remember those of another folder
                .distinct()
                .limit(MOST_FOLLOWED)
                .toList();
        Places places = new Places(names, call.headers().getFirst("Last-Event-ID"));
        try {
            long version = -2;
            ArrayNode shown = null;
            ArrayNode written = null;
            while (call.millisecondsLeft() > 0) {
                version = runs.version();
                ArrayNode list = runs.list();
                if (!list.equals(shown)) {
                    shown = list;
                    ObjectNode event = Json.object().put("type", "runs");
                    event.set("runs", list);
                    call.event(event);
                }
                ArrayNode exports = runs.exports().list();
                if (!exports.equals(written)) {
                    written = exports;
                    ObjectNode event = Json.object().put("type", "exports");
                    event.set("exports", exports);
                    call.event(event);
                }
                for (String name : names) {
                    RunFeed feed = runs.feed(name);
                    if (feed != null) {
                        send(call, name, feed, places);
                    }
                }
                long now = runs.await(version, Math.min(EVENT_MILLIS, Math.max(1, call.millisecondsLeft())));
                if (now == -1) {
                    break;
                }
                if (now == version) {
                    call.stillThere();
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static void send(Call call, String name, RunFeed feed, Places places) {
        int[] place = places.seen.get(name);
        RunFeed.Part part = feed.from(place[0], place[1]);
        if (part.edition() != place[0]) {
            place[0] = part.edition();
            place[1] = 0;
            call.event(places.id(), Json.object().put("type", "begin").put("run", name));
        }
        for (ObjectNode event : part.events()) {
            place[1]++;
            call.event(places.id(), event.deepCopy().put("run", name));
        }
        place[1] = part.next();
    }

    @Override
    public void close() {
        if (runs != null) {
            runs.close();
        }
    }
}
