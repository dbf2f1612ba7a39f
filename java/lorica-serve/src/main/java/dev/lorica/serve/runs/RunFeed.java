package dev.lorica.serve.runs;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;

/**
 * What has happened in a run, in order, read from the files that it writes: records of its log, answers to its questions, lines that it
 * said. Whoever has seen so many of them asks for those behind. A run that goes on from a checkpoint cuts what came after that from its
 * log; then all is read again, under another edition, and what was seen of the one before is forgotten.
 */
public final class RunFeed {
    /** The log of {@code lorica train}. */
    static final String LOG = "train_log.jsonl";
    /** The answers to its questions, one a line, with the step. */
    static final String ANSWERS = "train_answers.jsonl";

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int MOST_EVENTS = 200_000;
    private static final int MOST_LINES = 2000;
    private static final int MOST_LETTERS = 1000;
    private static final int READ_AT_ONCE = 4 << 20;

    /**
     * A part of the feed: what came behind what had been seen.
     *
     * @param edition of the feed; another one begins anew
     * @param next    what was seen with these events
     * @param events  the events, in their order
     */
    public record Part(int edition, int next, List<ObjectNode> events) {}

    /** A file that grows. */
    private static final class Tail {
        private final Path file;
        private final String type;
        private long read;
        private byte[] last = new byte[0]; // the last line that was read, to see whether it is still there

        Tail(Path file, String type) {
            this.file = file;
            this.type = type;
        }
    }

    /** No two feeds have an edition in common, also where one run has the name of another that was deleted. */
    private static final AtomicInteger EDITIONS = new AtomicInteger();

    private final List<Tail> tails;
    private final UnaryOperator<String> words;
    private final List<ObjectNode> events = new ArrayList<>();
    private int edition = EDITIONS.incrementAndGet();
    private int lines;

    /**
     * @param folder that the run writes to
     * @param output what it says; {@code null}: nothing of that is kept
     * @param words  how a line that it says is shown
     */
    RunFeed(Path folder, Path output, UnaryOperator<String> words) {
        this.words = words;
        tails = new ArrayList<>(
                List.of(new Tail(folder.resolve(LOG), "record"), new Tail(folder.resolve(ANSWERS), "answer")));
        if (output != null) {
            tails.add(new Tail(output, "line"));
        }
    }

    /** Reads what is new. Returns whether there was anything. */
    synchronized boolean read() {
        for (Tail tail : tails) {
            if (isCut(tail)) {
                edition = EDITIONS.incrementAndGet();
                events.clear();
                lines = 0;
                tails.forEach(one -> {
                    one.read = 0;
                    one.last = new byte[0];
                });
                break;
            }
        }
        int before = events.size();
        int editionBefore = edition;
        tails.forEach(this::read);
        return events.size() != before || edition != editionBefore;
    }

    private static boolean isCut(Tail tail) {
        if (tail.read == 0) {
            return false;
        }
        try (RandomAccessFile open = new RandomAccessFile(tail.file.toFile(), "r")) {
            if (open.length() < tail.read) {
                return true;
            }
            byte[] there = new byte[tail.last.length];
            open.seek(tail.read - there.length);
            open.readFully(there);
            return !Arrays.equals(there, tail.last);
        } catch (IOException e) {
            return true; // it is gone
        }
    }

    private void read(Tail tail) {
        while (true) {
            byte[] bytes;
            try (RandomAccessFile open = new RandomAccessFile(tail.file.toFile(), "r")) {
                bytes = new byte[(int) Math.min(READ_AT_ONCE, Math.max(0, open.length() - tail.read))];
                open.seek(tail.read);
                open.readFully(bytes);
            } catch (IOException e) {
                return; // not there yet
            }
            int from = 0;
            for (int i = 0; i < bytes.length; i++) {
                if (bytes[i] == '\n') {
                    add(tail.type, new String(bytes, from, i - from, StandardCharsets.UTF_8));
                    tail.last = Arrays.copyOfRange(bytes, from, i + 1);
                    from = i + 1;
                }
            }
            tail.read += from;
            if (from == 0 || bytes.length < READ_AT_ONCE) {
                return;
            }
        }
    }

    private void add(String type, String line) {
        if (events.size() >= MOST_EVENTS) {
            return;
        }
        ObjectNode event = JsonNodeFactory.instance.objectNode().put("type", type);
        if (type.equals("line")) {
            if (lines++ < MOST_LINES && !line.isBlank()) {
                String shown = words.apply(line);
                event.put("text", shown.length() <= MOST_LETTERS ? shown : shown.substring(0, MOST_LETTERS) + "…");
                events.add(event);
            }
            return;
        }
        try {
            JsonNode record = JSON.readTree(line);
            if (record.isObject()) {
                event.set("value", record);
                events.add(event);
            }
        } catch (JacksonException e) {
            // a line that a kill has cut, which the run overwrites when it goes on
        }
    }

    /**
     * {@return what came behind what was seen}
     *
     * @param edition which was seen; of another one nothing was
     * @param seen    events of it
     */
    public synchronized Part from(int edition, int seen) {
        int from = edition == this.edition && seen >= 0 && seen <= events.size() ? seen : 0;
        return new Part(this.edition, events.size(), List.copyOf(events.subList(from, events.size())));
    }

    /** The last record that has this field; {@code null}: none. */
    synchronized JsonNode last(String field) {
        for (int i = events.size() - 1; i >= 0; i--) {
            JsonNode value = events.get(i).path("value");
            if (value.has(field)) {
                return value;
            }
        }
        return null;
    }
}
