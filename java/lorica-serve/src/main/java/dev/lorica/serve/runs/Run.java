package dev.lorica.serve.runs;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Locale;
import java.util.Optional;
import java.util.function.UnaryOperator;

/** A run, and what is kept of it in a file. Its fields are under the lock of {@link Runs}. */
final class Run {
    static final String FILE = "run.json";
    static final String OPTIONS = "run.yaml";
    static final String OUTPUT = "output.txt";

    private static final ObjectMapper JSON = new ObjectMapper();

    final String name;
    /** Where its adapter comes to be. */
    final Path folder;
    /** What is kept of it; {@code null}: it was not started here, and only its logs are shown. */
    final Path home;

    final RunFeed feed;
    RunState state;
    String message = "";
    String command = "";
    long created;
    long started;
    long ended;
    long pid;
    /** When that process began, so that another one of the same number is not taken for it; milliseconds. */
    long pidSince;

    boolean resumes;
    /** Whether its feed was read once. */
    boolean known;

    ProcessHandle process;

    private final UnaryOperator<String> words;

    /** @param words how what is said of it is shown */
    Run(String name, Path folder, Path home, UnaryOperator<String> words, RunState state) {
        this.name = name;
        this.folder = folder;
        this.home = home;
        this.words = words;
        this.state = state;
        created = System.currentTimeMillis();
        feed = new RunFeed(folder, home == null ? null : home.resolve(OUTPUT), words);
    }

    /** What was kept of it; {@code null}: that cannot be read. */
    static Run load(String name, Path folder, Path home, UnaryOperator<String> words) {
        try {
            JsonNode json = JSON.readTree(Files.readAllBytes(home.resolve(FILE)));
            Run run = new Run(
                    name,
                    folder,
                    home,
                    words,
                    RunState.valueOf(json.path("state").asText().toUpperCase(Locale.ROOT)));
            run.message = json.path("message").asText();
            run.command = json.path("command").asText();
            run.created = json.path("created").asLong();
            run.started = json.path("started").asLong();
            run.ended = json.path("ended").asLong();
            run.pid = json.path("pid").asLong();
            run.pidSince = json.path("pid_since").asLong();
            run.resumes = json.path("resumes").asBoolean();
            return run;
        } catch (IOException | IllegalArgumentException e) {
            return null;
        }
    }

    /** The same under another name. */
    Run renamed(String to, Path folder, Path home) {
        Run run = new Run(to, folder, home, words, state);
        run.message = message;
        run.command = RunOptions.commandTo(command, name, to);
        run.created = created;
        run.started = started;
        run.ended = ended;
        run.pid = pid;
        run.pidSince = pidSince;
        run.resumes = resumes;
        return run;
    }

    void save() {
        ObjectNode json = json();
        json.put("pid", pid).put("pid_since", pidSince).put("resumes", resumes);
        try {
            AtomicFile.write(home.resolve(FILE), JSON.writeValueAsBytes(json));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    /** The process that a server before this one started, if it still runs. */
    Optional<ProcessHandle> found() {
        return ProcessHandle.of(pid).filter(ProcessHandle::isAlive).filter(handle -> handle.info()
                .startInstant()
                .map(Instant::toEpochMilli)
                .map(since -> Math.abs(since - pidSince) < 1000)
                .orElse(false));
    }

    boolean canResume() {
        return home != null && (state == RunState.STOPPED || state == RunState.FAILED);
    }

    /** Whether it may be renamed and deleted. */
    boolean canChange() {
        return !state.isLive() && state != RunState.QUEUED;
    }

    /** As pages see it; times in milliseconds since 1970, 0: not yet. */
    ObjectNode json() {
        ObjectNode json = JSON.createObjectNode();
        json.put("name", name)
                .put("state", state.name().toLowerCase(Locale.ROOT))
                .put("message", words.apply(message))
                .put("command", words.apply(command))
                .put("created", created)
                .put("started", started)
                .put("ended", ended)
                .put("can_resume", canResume())
                .put("can_change", canChange());
        JsonNode record = feed.last("loss");
        if (record != null) {
            json.set("step", record.get("step"));
            json.set("epoch", record.get("epoch"));
            json.set("loss", record.get("loss"));
        }
        JsonNode evaluation = feed.last("eval_loss");
        if (evaluation != null) {
            json.set("eval_loss", evaluation.get("eval_loss"));
        }
        return json;
    }

    /** What the program wrote at the end: {@code done}, {@code interrupted}, or {@code ""} where it wrote nothing since {@code since}. */
    String outcome(long since) {
        Path report = folder.resolve("train_report.json");
        try {
            if (Files.getLastModifiedTime(report).toMillis() + 1000 < since) {
                return "";
            }
            return JSON.readTree(Files.readAllBytes(report)).path("status").asText();
        } catch (IOException e) {
            return "";
        }
    }

    /** What the program said of its failure; {@code null}: nothing. */
    String error() {
        return feed.from(0, 0).events().stream()
                .map(event -> event.path("text").asText())
                .filter(text -> text.startsWith("error: "))
                .reduce((first, second) -> second)
                .map(text -> text.substring("error: ".length()))
                .orElse(null);
    }
}
