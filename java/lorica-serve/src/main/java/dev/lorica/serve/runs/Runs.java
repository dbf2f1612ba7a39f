package dev.lorica.serve.runs;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The runs of an output folder. What is kept of one lies in {@code .lorica-runs/NAME} there, its adapter in {@code NAME}. One trains at a
 * time, the others wait in the order in which they came. A server that is started again finds them all: those that waited wait on, one
 * that still runs is watched again, and one whose process has gone is stopped, and can go on from its last checkpoint. Folders there that
 * hold a log and were not trained from here are shown too.
 *
 * <p>Any thread may use this.
 */
public final class Runs implements AutoCloseable {
    static final String HOME = ".lorica-runs";

    private static final Logger LOG = LoggerFactory.getLogger(Runs.class);
    private static final int MOST = 1000;
    private static final int MOST_WAITING = 100;
    private static final long LOOK_MILLIS = 150;
    private static final Duration LAST_WORDS = Duration.ofSeconds(20);

    private final RunFolders folders;
    private final RunProgram program;
    private final String modelName;
    private final Path model;
    private final Path home;
    private final ProgramCall call;
    private final FileChannel lockFile;
    private final Map<String, Run> runs = new LinkedHashMap<>();
    private final Thread thread;
    private long version;
    private boolean closed;

    /**
     * @param modelName what pages call the model that is served
     * @param model     its file
     * @throws FileAccessException if the folder cannot be written to, or another server has it
     */
    public Runs(RunFolders folders, RunProgram program, String modelName, Path model) {
        this.folders = folders;
        this.program = program;
        this.modelName = modelName;
        this.model = model.toAbsolutePath().normalize();
        home = folders.output().resolve(HOME);
        call = new ProgramCall(program, home);
        try {
            if (Files.isSymbolicLink(home)) {
                throw new FileAccessException(home + " is a link; the folder of runs must be a folder", null);
            }
            Files.createDirectories(home);
            lockFile = FileChannel.open(home.resolve("lock"), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        } catch (IOException e) {
            throw new FileAccessException(home + " cannot be written to: " + e.getMessage(), e);
        }
        try {
            lock();
            find();
        } catch (RuntimeException e) {
            closeLock();
            throw e;
        }
        thread = new Thread(this::watch, "lorica-runs");
        thread.setDaemon(true);
        thread.start();
    }

    private void lock() {
        try {
            FileLock lock = lockFile.tryLock();
            if (lock != null) {
                return;
            }
        } catch (OverlappingFileLockException e) {
            // said below
        } catch (IOException e) {
            throw new FileAccessException(home + " cannot be locked: " + e.getMessage(), e);
        }
        throw new FileAccessException(
                "another server has the output folder " + folders.output() + "; give this one another", null);
    }

    private void closeLock() {
        try {
            lockFile.close();
        } catch (IOException e) {
            LOG.debug("the lock of the runs", e);
        }
    }

    /** What a server before this one left, and what was trained from a shell. */
    private void find() {
        List<Run> found = new ArrayList<>();
        for (Path one : list(home)) {
            String name = one.getFileName().toString();
            Run run = isName(name) && Files.isDirectory(one, LinkOption.NOFOLLOW_LINKS)
                    ? Run.load(name, folders.run(name), one)
                    : null;
            if (run == null) {
                continue;
            }
            if (run.state.isLive()) {
                run.process = run.found().orElse(null);
                if (run.process == null) {
                    end(run, "the run ended while no server watched it");
                }
            }
            found.add(run);
        }
        found.sort(Comparator.comparingLong(run -> run.created));
        found.forEach(run -> runs.put(run.name, run));
        others();
    }

    /** Folders with a log that no page started. */
    private void others() {
        for (Path one : list(folders.output())) {
            String name = one.getFileName().toString();
            if (runs.size() < MOST
                    && isName(name)
                    && !runs.containsKey(name)
                    && Files.isDirectory(one, LinkOption.NOFOLLOW_LINKS)
                    && Files.isRegularFile(one.resolve(RunFeed.LOG), LinkOption.NOFOLLOW_LINKS)) {
                Run run = new Run(name, one, null, RunState.FINISHED);
                try {
                    run.created =
                            Files.getLastModifiedTime(one.resolve(RunFeed.LOG)).toMillis();
                } catch (IOException e) {
                    run.created = 0;
                }
                String outcome = run.outcome(0);
                run.state = outcome.equals("done") ? RunState.FINISHED : RunState.STOPPED;
                run.message = "trained from a shell" + (outcome.isEmpty() ? "; it wrote no result" : "");
                runs.put(name, run);
            }
        }
    }

    private static boolean isName(String name) {
        try {
            RunFolders.checkName(name);
            return true;
        } catch (InvalidArgumentException e) {
            return false;
        }
    }

    private static List<Path> list(Path folder) {
        try (Stream<Path> all = Files.list(folder)) {
            return all.sorted().toList();
        } catch (IOException e) {
            return List.of();
        }
    }

    /** The options of a run as a page gives them, checked. */
    public RunOptions options(Map<String, List<String>> given) {
        return RunOptions.of(given, program, folders, modelName, model);
    }

    /** For what is asked of the program beside the runs. */
    public ProgramCall program() {
        return call;
    }

    /** Where a run of this name would write. */
    public Path folder(String name) {
        return folders.run(name);
    }

    /**
     * A run that begins when those before it have ended.
     *
     * @throws InvalidArgumentException if there is one of that name, or a folder with something in it
     */
    public ObjectNode submit(String name, RunOptions options) {
        Path folder = folders.run(name);
        synchronized (this) {
            checkOpen();
            if (runs.containsKey(name) || !list(folder).isEmpty() || Files.isRegularFile(folder)) {
                throw new InvalidArgumentException(
                        "there is something called " + name + " already; another name, please");
            }
            if (runs.size() >= MOST
                    || runs.values().stream()
                                    .filter(run -> run.state == RunState.QUEUED)
                                    .count()
                            >= MOST_WAITING) {
                throw new BusyException("there are too many runs");
            }
            Path kept = home.resolve(name);
            Run run = new Run(name, folder, kept, RunState.QUEUED);
            run.command = options.commandLine(program, folder);
            try {
                Files.createDirectories(kept);
            } catch (IOException e) {
                throw new FileAccessException(kept + " cannot be made: " + e.getMessage(), e);
            }
            AtomicFile.write(kept.resolve(Run.OPTIONS), options.yaml(folder).getBytes(StandardCharsets.UTF_8));
            run.save();
            runs.put(name, run);
            changed();
            return run.json();
        }
    }

    /**
     * Ends a run, which saves what it has; one that waits leaves the queue.
     *
     * @param now do not wait for it to save anything
     */
    public synchronized ObjectNode stop(String name, boolean now) {
        Run run = get(name);
        if (run.state == RunState.QUEUED) {
            run.state = RunState.STOPPED;
            run.message = "taken out of the queue";
            run.ended = System.currentTimeMillis();
            run.save();
        } else if (run.state.isLive() && run.process != null) {
            if (now) {
                run.process.destroyForcibly();
            } else if (run.state == RunState.RUNNING) {
                run.process.destroy(); // SIGTERM, upon which it saves
            }
            run.state = RunState.STOPPING;
            run.message = now ? "ended at once" : "stopping; what was trained so far is being saved";
            run.save();
        } else {
            throw new InvalidArgumentException("the run " + name + " has ended already");
        }
        changed();
        return run.json();
    }

    /** Lets a run that was stopped go on from its last checkpoint, or begin, where there is none. */
    public synchronized ObjectNode resume(String name) {
        checkOpen();
        Run run = get(name);
        if (!run.canResume()) {
            throw new InvalidArgumentException(
                    run.home == null
                            ? "the run " + name + " was not started here; its own command goes on with it"
                            : "the run " + name + " has nothing to go on with");
        }
        run.state = RunState.QUEUED;
        run.resumes = true;
        run.message = "";
        run.ended = 0;
        run.save();
        changed();
        return run.json();
    }

    private Run get(String name) {
        Run run = runs.get(name);
        if (run == null) {
            throw new InvalidArgumentException("there is no run called " + RunFolders.cut(name));
        }
        return run;
    }

    /** All of them, the newest first. */
    public synchronized ArrayNode list() {
        others();
        ArrayNode all = JsonNodeFactory.instance.arrayNode();
        runs.values().stream()
                .sorted(Comparator.comparingLong((Run run) -> run.created).reversed())
                .forEach(run -> {
                    know(run);
                    all.add(run.json());
                });
        return all;
    }

    public synchronized boolean has(String name) {
        return runs.containsKey(name);
    }

    /** What has happened in one of them. */
    public synchronized RunFeed feed(String name) {
        Run run = get(name);
        know(run);
        return run.feed;
    }

    private static void know(Run run) {
        if (!run.known) {
            run.known = true;
            run.feed.read();
        }
    }

    /** Rises whenever something has happened in any of them. */
    public synchronized long version() {
        return version;
    }

    /** Waits until something has happened since, or the time is over. Returns what {@link #version} is now; −1: all is closed. */
    public synchronized long await(long since, long millis) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
        while (version == since && !closed) {
            long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
            if (left <= 0) {
                break;
            }
            wait(left);
        }
        return closed ? -1 : version;
    }

    private void changed() {
        version++;
        notifyAll();
    }

    private void checkOpen() {
        if (closed) {
            throw new BusyException("the server is closing");
        }
    }

    private void watch() {
        while (true) {
            synchronized (this) {
                if (closed) {
                    return;
                }
                try {
                    wait(LOOK_MILLIS); // files are looked at, which nobody tells of
                } catch (InterruptedException e) {
                    return;
                }
                if (closed) {
                    return;
                }
                look();
            }
        }
    }

    private void look() {
        boolean busy = false;
        for (Run run : runs.values()) {
            if (!run.state.isLive()) {
                continue;
            }
            boolean alive = run.process != null && run.process.isAlive();
            run.known = true;
            if (run.feed.read()) {
                changed();
            }
            if (alive) {
                busy = true;
            } else {
                end(run, "the run ended without saying why");
                changed();
            }
        }
        if (!busy) {
            runs.values().stream()
                    .filter(run -> run.state == RunState.QUEUED)
                    .min(Comparator.comparingLong(run -> run.created))
                    .ifPresent(this::start);
        }
    }

    private void start(Run run) {
        List<String> command = new ArrayList<>(program.command());
        command.addAll(
                List.of("train", "--config", run.home.resolve(Run.OPTIONS).toString()));
        if (run.resumes) {
            command.addAll(List.of("--resume", "auto"));
        }
        run.started = System.currentTimeMillis();
        run.ended = 0;
        try {
            Process process = builder(command, run.home)
                    .redirectErrorStream(true)
                    .redirectOutput(ProcessBuilder.Redirect.to(
                            run.home.resolve(Run.OUTPUT).toFile()))
                    .start();
            process.getOutputStream().close();
            run.process = process.toHandle();
            run.pid = process.pid();
            run.pidSince =
                    process.info().startInstant().map(Instant::toEpochMilli).orElse(run.started);
            run.state = RunState.RUNNING;
            run.message = "";
        } catch (IOException e) {
            run.state = RunState.FAILED;
            run.message = "it could not be started: " + e.getMessage();
            run.ended = run.started;
        }
        save(run);
        changed();
    }

    /** Nothing of the server's secrets is for the run, and nothing is fetched from elsewhere. */
    static ProcessBuilder builder(List<String> command, Path folder) {
        ProcessBuilder builder = new ProcessBuilder(command).directory(folder.toFile());
        builder.environment().keySet().removeIf(name -> name.equals("LORICA_API_KEY") || name.startsWith("HF_TOKEN"));
        builder.environment().put("HF_HUB_OFFLINE", "1");
        return builder;
    }

    private void end(Run run, String otherwise) {
        run.feed.read();
        run.known = true;
        run.ended = System.currentTimeMillis();
        run.process = null;
        String outcome = run.outcome(run.started);
        String error = run.error();
        if (outcome.equals("done")) {
            run.state = RunState.FINISHED;
            run.message = "";
        } else if (outcome.equals("interrupted") || run.state == RunState.STOPPING) {
            run.state = RunState.STOPPED;
            run.message = outcome.isEmpty() ? "ended before it had saved an adapter" : "";
        } else if (error != null) {
            run.state = RunState.FAILED;
            run.message = error;
        } else {
            run.state = RunState.STOPPED;
            run.message = otherwise + "; it can go on from its last checkpoint, where it has one";
        }
        save(run);
    }

    private static void save(Run run) {
        try {
            run.save();
        } catch (LoricaException e) {
            LOG.error("what is kept of the run {} could not be written", run.name, e);
        }
    }

    /** Stops the run that goes on, which saves what it has, and waits for that, for a while; one that takes longer goes on by itself. */
    @Override
    public void close() {
        List<Run> live;
        synchronized (this) {
            if (closed) {
                return;
            }
            closed = true;
            changed();
            live = runs.values().stream().filter(run -> run.state.isLive()).toList();
            for (Run run : live) {
                if (run.process != null && run.state == RunState.RUNNING) {
                    run.process.destroy();
                    run.state = RunState.STOPPING;
                    save(run);
                }
            }
        }
        for (Run run : live) {
            try {
                if (run.process != null) {
                    run.process.onExit().get(LAST_WORDS.toSeconds(), TimeUnit.SECONDS);
                }
                synchronized (this) {
                    end(run, "stopped with its server");
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            } catch (ExecutionException | TimeoutException e) {
                LOG.debug("the run {} is still saving", run.name);
            }
        }
        closeLock();
    }
}
