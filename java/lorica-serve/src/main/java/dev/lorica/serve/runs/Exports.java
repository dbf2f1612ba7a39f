package dev.lorica.serve.runs;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.stream.Stream;

/**
 * Adapters that are written in other forms, into the output folder: jobs of the server, which pages follow, one at a time in their
 * order. What was not written to its end leaves nothing behind. They are forgotten with the server.
 *
 * <p>Any thread may use this.
 */
public final class Exports implements AutoCloseable {
    /** What an adapter can be written as. */
    public static final List<String> FORMATS = List.of("peft", "gguf", "merged", "quantized");

    private static final String TYPE = "Q4_K_M";
    private static final int MOST_WAITING = 20;
    private static final int MOST_KEPT = 50;

    /** What an export is doing. */
    private enum State {
        WAITING,
        WRITING,
        DONE,
        FAILED,
        STOPPED;

        boolean isLive() {
            return this == WAITING || this == WRITING;
        }
    }

    private final class Export {
        private final int id;
        private final String format;
        private final String type;
        private final Path adapter;
        private final Path target;
        private State state = State.WAITING;
        private String message = "";
        private long bytes;
        private long began;
        private long ended;
        private boolean stopped;

        Export(int id, Path adapter, String format, String type, Path target) {
            this.id = id;
            this.adapter = adapter;
            this.format = format;
            this.type = type;
            this.target = target;
        }

        ObjectNode json() {
            ObjectNode json = JsonNodeFactory.instance.objectNode();
            json.put("id", id)
                    .put("adapter", folders.shown(adapter))
                    .put("format", format)
                    .put("type", type)
                    .put("path", folders.shown(target))
                    .put("state", state.name().toLowerCase(Locale.ROOT))
                    .put("message", message)
                    .put("bytes", bytes)
                    .put("began", began)
                    .put("ended", ended);
            return json;
        }
    }

    private final RunFolders folders;
    private final ProgramCall program;
    private final Runnable changed;
    private final Deque<Export> all = new ArrayDeque<>();
    private int count;
    private boolean closed;
    /** {@code null}: there is nothing to do. */
    private Thread thread;

    /** @param changed is told when anything has happened, outside of any lock */
    Exports(RunFolders folders, ProgramCall program, Runnable changed) {
        this.folders = folders;
        this.program = program;
        this.changed = changed;
    }

    /**
     * Writes an adapter in another form, as soon as those before it are done.
     *
     * @param adapter its folder
     * @param format  one of {@link #FORMATS}
     * @param type    of the weights where it is quantized; {@code null}: Q4_K_M
     * @param name    of the file or folder that is made in the output folder; nothing there has it yet
     * @return what {@link #list} has of it
     * @throws InvalidArgumentException for what cannot be
     * @throws BusyException            if as many wait as may
     */
    public ObjectNode submit(Path adapter, String format, String type, String name) {
        if (!FORMATS.contains(format)) {
            throw new InvalidArgumentException("format is one of " + String.join(", ", FORMATS));
        }
        boolean quantized = format.equals("quantized");
        if (type != null && (!quantized || !type.matches("[A-Za-z0-9_]{1,16}"))) {
            throw new InvalidArgumentException(
                    "type is the name of a type of weights, such as " + TYPE + ", and for what is quantized");
        }
        Path target = folders.writable(name);
        if (isFile(format) && !name.endsWith(".gguf")) {
            throw new InvalidArgumentException("a whole model is a file that ends in .gguf");
        }
        ObjectNode json;
        synchronized (this) {
            if (closed || all.stream().filter(one -> one.state.isLive()).count() >= MOST_WAITING) {
                throw new BusyException("too many exports wait already");
            }
            if (all.stream().anyMatch(one -> one.state.isLive() && one.target.equals(target))) {
                throw new InvalidArgumentException(name + " is being written already; another name, please");
            }
            Export export = new Export(++count, adapter, format, quantized && type == null ? TYPE : type, target);
            all.addFirst(export);
            while (all.size() > MOST_KEPT) {
                all.removeLast();
            }
            if (thread == null) {
                thread = new Thread(this::work, "lorica-exports");
                thread.setDaemon(true);
                thread.start();
            }
            json = export.json();
        }
        changed.run();
        return json;
    }

    private static boolean isFile(String format) {
        return format.equals("merged") || format.equals("quantized");
    }

    /**
     * Ends one that is being written, or takes it out of those that wait.
     *
     * @param id of the export
     * @return what is known of it now
     * @throws InvalidArgumentException if there is none, or it has ended
     */
    public ObjectNode stop(int id) {
        ObjectNode json;
        synchronized (this) {
            Export export = all.stream()
                    .filter(one -> one.id == id)
                    .findFirst()
                    .orElseThrow(() -> new InvalidArgumentException("there is no export " + id));
            if (!export.state.isLive()) {
                throw new InvalidArgumentException("the export " + id + " has ended already");
            }
            export.stopped = true;
            if (export.state == State.WAITING) {
                end(export, State.STOPPED, "taken out of the queue");
            }
            json = export.json();
        }
        changed.run();
        return json;
    }

    /** {@return all that are known, the newest first; times in milliseconds since 1970, 0: not yet} */
    public synchronized ArrayNode list() {
        ArrayNode list = JsonNodeFactory.instance.arrayNode();
        all.forEach(export -> list.add(export.json()));
        return list;
    }

    private synchronized Export next() {
        Export next = null;
        for (Export export : all) {
            next = export.state == State.WAITING ? export : next; // the last is the oldest
        }
        if (next == null || closed) {
            thread = null;
            return null;
        }
        next.state = State.WRITING;
        next.began = System.currentTimeMillis();
        return next;
    }

    private void work() {
        for (Export next = next(); next != null; next = next()) {
            Export export = next;
            changed.run();
            try {
                ObjectNode said = program.json(arguments(export), Long.MAX_VALUE / 2_000_000, () -> look(export));
                synchronized (this) {
                    export.bytes = said.path("bytes").asLong(size(export.target));
                    end(export, State.DONE, "");
                }
            } catch (CancelledException e) {
                undo(export, State.STOPPED, "stopped; nothing was kept");
            } catch (LoricaException e) {
                undo(export, State.FAILED, folders.inWords(e.getMessage()));
            } catch (InterruptedException e) {
                undo(export, State.STOPPED, "stopped with its server");
            }
            changed.run();
        }
    }

    private List<String> arguments(Export export) {
        boolean toFile = isFile(export.format);
        List<String> arguments = new ArrayList<>(List.of(toFile ? "merge" : "export"));
        arguments.addAll(List.of("--model", folders.model().toString(), "--adapter", export.adapter.toString()));
        arguments.addAll(List.of("--output", export.target.toString()));
        if (!toFile) {
            arguments.addAll(List.of("--format", export.format));
        } else if (export.type != null) {
            arguments.addAll(List.of("--type", export.type));
        }
        return arguments;
    }

    private boolean look(Export export) {
        long bytes = size(export.target);
        boolean more;
        synchronized (this) {
            more = bytes != export.bytes;
            export.bytes = bytes;
            if (export.stopped || closed) {
                return false;
            }
        }
        if (more) {
            changed.run();
        }
        return true;
    }

    /** Of what is written so far, under its name or the one that it has until it is whole. */
    private static long size(Path target) {
        long bytes = 0;
        for (Path part : parts(target)) {
            try (Stream<Path> tree = Files.walk(part)) {
                bytes += tree.filter(one -> Files.isRegularFile(one, LinkOption.NOFOLLOW_LINKS))
                        .mapToLong(one -> one.toFile().length())
                        .sum();
            } catch (IOException | UncheckedIOException e) {
                continue; // it has just got its name
            }
        }
        return bytes;
    }

    private static List<Path> parts(Path target) {
        String name = target.getFileName().toString();
        try (Stream<Path> files = Files.list(target.getParent())) {
            return files.filter(file -> {
                        String other = file.getFileName().toString();
                        return other.equals(name) || other.startsWith(name + ".tmp-");
                    })
                    .toList();
        } catch (IOException e) {
            return List.of();
        }
    }

    /** Nothing had the name before. */
    private void undo(Export export, State state, String message) {
        parts(export.target).forEach(AtomicFile::deleteQuietly);
        synchronized (this) {
            export.bytes = 0;
            end(export, state, message);
        }
    }

    private static void end(Export export, State state, String message) {
        export.state = state;
        export.message = message;
        export.ended = System.currentTimeMillis();
    }

    /** Stops those that are being written, and waits for that. */
    @Override
    public void close() {
        Thread writing;
        synchronized (this) {
            closed = true;
            writing = thread;
        }
        try {
            if (writing != null) {
                writing.join();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
