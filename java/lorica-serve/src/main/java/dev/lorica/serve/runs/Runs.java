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
import java.io.UncheckedIOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
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
    /** How files begin that a server takes away, or the next one where that was killed. */
    static final String LEFT_OVER = ".left-over-";
    /** Locked in the folder of a run by the process that trains there. */
    private static final String TRAINS_HERE = ".lorica.lock";

    private static final Logger LOG = LoggerFactory.getLogger(Runs.class);
    private static final int MOST = 1000;
    private static final int MOST_WAITING = 100;
    private static final long LOOK_MILLIS = 150;
    private static final Duration LAST_WORDS = Duration.ofSeconds(20);

    private final RunFolders folders;
    private final RunProgram program;
    private final String modelName;
    private final Path home;
    private final ProgramCall call;
    private final Exports exports;
    private final FileChannel lockFile;
    private final Map<String, Run> runs = new LinkedHashMap<>();
    private final Thread thread;
    private long version;
    private boolean closed;

    /**
     * Takes up the runs of the output folder, those that still run among them.
     *
     * @param folders   what may be read, and where results come
     * @param program   what runs are started with
     * @param modelName what pages call the model that is served
     * @throws FileAccessException if the folder cannot be written to, or another server has it
     */
    public Runs(RunFolders folders, RunProgram program, String modelName) {
        this.folders = folders;
        this.program = program;
        this.modelName = modelName;
        home = folders.output().resolve(HOME);
        call = new ProgramCall(program, home, folders::inWords);
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
            list(home).stream().filter(Runs::isLeftOver).forEach(AtomicFile::deleteQuietly);
            find();
        } catch (RuntimeException e) {
            closeLock();
            throw e;
        }
        // with a turn of its own: an export may take minutes, and a plan does not wait for that
        exports = new Exports(folders, new ProgramCall(program, home, folders::inWords), this::tell);
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
                    ? Run.load(name, folders.run(name), one, folders::inWords)
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

    /** Folders with a log that no page started: those that are there now. */
    private void others() {
        runs.values().removeIf(run -> run.home == null && !Files.isRegularFile(run.folder.resolve(RunFeed.LOG)));
        for (Path one : list(folders.output())) {
            String name = one.getFileName().toString();
            if (runs.size() < MOST
                    && isName(name)
                    && !runs.containsKey(name)
                    && Files.isDirectory(one, LinkOption.NOFOLLOW_LINKS)
                    && Files.isRegularFile(one.resolve(RunFeed.LOG), LinkOption.NOFOLLOW_LINKS)) {
                Run run = new Run(name, one, null, folders::inWords, RunState.FINISHED);
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

    /**
     * {@return the options of a run as a page gives them, checked}
     *
     * @param given values by the names of options
     */
    public RunOptions options(Map<String, List<String>> given) {
        return RunOptions.of(given, program, folders, modelName);
    }

    /**
     * {@return a file with this text, for whoever takes it away again; a server that is killed leaves that to the next one}
     *
     * @param text of it
     * @throws IOException if it cannot be written
     */
    public Path temporary(String text) throws IOException {
        Path file = Files.createTempFile(home, LEFT_OVER, ".yaml");
        Files.writeString(file, text);
        return file;
    }

    /** {@return the program, for what is asked of it beside the runs} */
    public ProgramCall program() {
        return call;
    }

    /** {@return adapters that are written in other forms} */
    public Exports exports() {
        return exports;
    }

    /**
     * {@return where a run of this name writes, or would}
     *
     * @param name of the run
     */
    public Path folder(String name) {
        return folders.run(name);
    }

    /**
     * A run that begins when those before it have ended.
     *
     * @param name    of the run
     * @param options as {@link #options} gives them
     * @return the run as pages see it
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
            Run run = new Run(name, folder, kept, folders::inWords, RunState.QUEUED);
            run.command = options.commandLine(program, folder, folders::inWords);
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
     * @param name of the run
     * @param now  do not wait for it to save anything
     * @return the run as pages see it
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

    /**
     * Lets a run that was stopped go on from its last checkpoint, or begin, where there is none.
     *
     * @param name of the run
     * @return the run as pages see it
     */
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

    /**
     * What is kept of a run that has ended: its log, its adapter, its checkpoints, and whatever else lies in its folder.
     *
     * @param files how many
     * @param bytes of all of them
     */
    public record Contents(int files, long bytes) {}

    /**
     * {@return what {@link #delete} would take away}
     *
     * @param name of the run
     */
    public Contents contents(String name) {
        Run run;
        synchronized (this) {
            run = changeable(name);
        }
        int files = 0;
        long bytes = 0;
        for (Path root : run.home == null ? List.of(run.folder) : List.of(run.folder, run.home)) {
            try (Stream<Path> tree = Files.walk(root)) {
                for (Path one : tree.filter(path -> Files.isRegularFile(path, LinkOption.NOFOLLOW_LINKS))
                        .toList()) {
                    files++;
                    bytes += Files.size(one);
                }
            } catch (IOException | UncheckedIOException e) {
                LOG.debug("{} is not counted", root, e); // it is not there, or vanishes just now
            }
        }
        return new Contents(files, bytes);
    }

    /**
     * Takes away a run that has ended, with all that is in its folder. It goes out of sight at once; a server that is killed meanwhile
     * leaves the rest of it to the next one.
     *
     * @param name of the run
     * @throws InvalidArgumentException if it runs or waits
     */
    public void delete(String name) {
        List<Path> gone = new ArrayList<>();
        synchronized (this) {
            Run run = changeable(name);
            try {
                for (Path one : run.home == null ? List.of(run.folder) : List.of(run.folder, run.home)) {
                    if (Files.exists(one, LinkOption.NOFOLLOW_LINKS)) {
                        Path away = home.resolve(LEFT_OVER + name + "-" + System.nanoTime());
                        Files.move(one, away, StandardCopyOption.ATOMIC_MOVE);
                        gone.add(away);
                    }
                }
            } catch (IOException e) {
                throw new FileAccessException("the run " + name + " cannot be deleted: " + AtomicFile.reason(e), e);
            }
            runs.remove(name);
            changed();
        }
        gone.forEach(AtomicFile::deleteQuietly);
    }

    private static boolean isLeftOver(Path path) {
        return path.getFileName().toString().startsWith(LEFT_OVER);
    }

    /**
     * Gives a run that has ended, and its folder, another name.
     *
     * @param name of the run
     * @param to   its new name
     * @return what is known of it now
     * @throws InvalidArgumentException if it runs or waits, or there is something of that name
     */
    public synchronized ObjectNode rename(String name, String to) {
        checkOpen();
        Run run = changeable(name);
        Path folder = folders.run(to);
        Path kept = run.home == null ? null : home.resolve(to);
        if (runs.containsKey(to)
                || Files.exists(folder, LinkOption.NOFOLLOW_LINKS)
                || kept != null && Files.exists(kept, LinkOption.NOFOLLOW_LINKS)) {
            throw new InvalidArgumentException("there is something called " + to + " already; another name, please");
        }
        boolean moved = false;
        try {
            if (Files.exists(run.folder, LinkOption.NOFOLLOW_LINKS)) {
                Files.move(run.folder, folder, StandardCopyOption.ATOMIC_MOVE);
                moved = true;
            }
            if (kept != null) {
                moveKept(run, folder, kept);
            }
        } catch (IOException | LoricaException e) {
            if (moved) {
                folder.toFile().renameTo(run.folder.toFile());
            }
            throw new FileAccessException(
                    "the run " + name + " cannot be renamed: "
                            + (e instanceof IOException io ? AtomicFile.reason(io) : e.getMessage()),
                    e);
        }
        Run renamed = run.renamed(to, folder, kept);
        if (kept != null) {
            renamed.save();
        }
        runs.remove(name);
        runs.put(to, renamed);
        changed();
        return renamed.json();
    }

    /** What the program is told when the run goes on says where, and moves with it. */
    private static void moveKept(Run run, Path folder, Path kept) throws IOException {
        Path options = run.home.resolve(Run.OPTIONS);
        String before = Files.readString(options);
        AtomicFile.write(options, RunOptions.withOutput(before, folder).getBytes(StandardCharsets.UTF_8));
        try {
            Files.move(run.home, kept, StandardCopyOption.ATOMIC_MOVE);
        } catch (IOException e) {
            AtomicFile.write(options, before.getBytes(StandardCharsets.UTF_8));
            throw e;
        }
    }

    /** A run that has ended, and whose folder nobody else writes to. */
    private Run changeable(String name) {
        Run run = get(name);
        if (!run.canChange()) {
            throw new InvalidArgumentException("the run " + name
                    + (run.state == RunState.QUEUED
                            ? " waits; take it out of the queue first"
                            : " is running; stop it first"));
        }
        Path lock = run.folder.resolve(TRAINS_HERE);
        try (FileChannel open = FileChannel.open(lock, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS);
                FileLock free = open.tryLock()) {
            if (free == null) {
                throw inUse(name);
            }
        } catch (OverlappingFileLockException e) {
            throw inUse(name);
        } catch (IOException e) {
            // there is no such file: nobody is at work
        }
        return run;
    }

    private static InvalidArgumentException inUse(String name) {
        return new InvalidArgumentException(
                "the run " + name + " is in use: something trains in its folder; stop that first");
    }

    private Run get(String name) {
        Run run = runs.get(name);
        if (run == null) {
            throw new InvalidArgumentException("there is no run called " + RunFolders.cut(name));
        }
        return run;
    }

    /** {@return all of them, the newest first} */
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

    /**
     * {@return whether there is a run of this name}
     *
     * @param name of the run
     */
    public synchronized boolean has(String name) {
        return runs.containsKey(name);
    }

    /**
     * {@return what has happened in one of them; {@code null}: there is none of that name any more}
     *
     * @param name of the run
     */
    public synchronized RunFeed feed(String name) {
        Run run = runs.get(name);
        if (run != null) {
            know(run);
        }
        return run == null ? null : run.feed;
    }

    private static void know(Run run) {
        if (!run.known) {
            run.known = true;
            run.feed.read();
        }
    }

    /** {@return a number that rises whenever something has happened in any of them} */
    public synchronized long version() {
        return version;
    }

    /**
     * Waits until something has happened since, or the time is over.
     *
     * @param since  what {@link #version} was
     * @param millis to wait at most
     * @return what {@link #version} is now; −1: all is closed
     * @throws InterruptedException if the thread is interrupted while it waits
     */
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

    /** Something else has happened that pages show. */
    private synchronized void tell() {
        changed();
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
        exports.close();
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
