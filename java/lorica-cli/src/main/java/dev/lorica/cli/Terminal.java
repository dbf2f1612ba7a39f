package dev.lorica.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Where a command reads and writes. Results go to standard output; progress, warnings and errors to standard error.
 * With {@code --json}, standard output carries one JSON object at the end and nothing else.
 */
final class Terminal {
    private static final int DEFAULT_WIDTH = 80;

    /** Apart, because most commands write no JSON, and its library takes a while to load. */
    private static final class Json {
        static final ObjectMapper MAPPER = new ObjectMapper();
    }

    private final InputStream in;
    private final PrintStream out;
    private final PrintStream err;
    private final PrintStream text;
    private final boolean inIsTerminal;
    private final boolean outIsTerminal;
    private final boolean errIsTerminal;
    private boolean json;
    private int outWidth;

    /** For streams that are no terminals. */
    Terminal(InputStream in, PrintStream out, PrintStream err) {
        this(in, out, err, false, false, false);
    }

    private Terminal(
            InputStream in,
            PrintStream out,
            PrintStream err,
            boolean inIsTerminal,
            boolean outIsTerminal,
            boolean errIsTerminal) {
        this.in = in;
        this.inIsTerminal = inIsTerminal;
        this.out = outIsTerminal ? wrapped(out) : out;
        this.err = errIsTerminal ? wrapped(err) : err;
        this.text = out;
        this.outIsTerminal = outIsTerminal;
        this.errIsTerminal = errIsTerminal;
    }

    /** The streams of this process, in UTF-8 whatever the locale says: it is what models speak. */
    static Terminal system() {
        return new Terminal(
                System.in,
                new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8),
                new PrintStream(new FileOutputStream(FileDescriptor.err), true, StandardCharsets.UTF_8),
                isTerminal(0),
                isTerminal(1),
                isTerminal(2));
    }

    private static PrintStream wrapped(PrintStream terminal) {
        return new PrintStream(new WordWrap(terminal, Terminal::width), false, StandardCharsets.UTF_8);
    }

    /** What is still on its way is written; nothing else does that at the end of a process. */
    void flush() {
        out.flush();
        err.flush();
    }

    void useJson(boolean value) {
        json = value;
    }

    boolean json() {
        return json;
    }

    InputStream in() {
        return in;
    }

    /** Whether a person types what is read. */
    boolean inIsTerminal() {
        return inIsTerminal;
    }

    /** For what a person asked for. */
    PrintStream out() {
        return json ? err : out;
    }

    /** For what a model says, on the way to {@link #out()}, piece by piece: its lines are its own, also where they are long. */
    PrintStream text() {
        return json ? err : text;
    }

    /** For progress, warnings and errors. */
    PrintStream err() {
        return err;
    }

    /** Whether what goes to {@link #out()} is read by a person right now. */
    boolean outIsTerminal() {
        return json ? errIsTerminal : outIsTerminal;
    }

    boolean errIsTerminal() {
        return errIsTerminal;
    }

    /** The one object of {@code --json}. */
    void printJson(Map<String, ?> object) {
        try {
            text.println(Json.MAPPER.writeValueAsString(object));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    /**
     * {@code text} broken between words so that it fits a terminal on which {@code indent} columns are taken, lines
     * after the first as list entries. Text that goes into a file or a pipe is left in one piece.
     */
    List<String> wrap(String text, int indent) {
        if (!outIsTerminal()) {
            return List.of(text);
        }
        int columns = Math.max(20, outWidth() - indent);
        List<String> lines = new ArrayList<>();
        int from = 0;
        while (text.length() - from > columns) {
            int space = text.lastIndexOf(' ', from + columns);
            int to = space > from ? space : from + columns;
            lines.add(text.substring(from, to));
            from = space > from ? to + 1 : to;
        }
        lines.add(text.substring(from));
        return lines;
    }

    /** A command line to be copied, of words and of options with their values; on a terminal it is broken as a shell takes it. */
    void commandLine(String... pieces) {
        StringBuilder line = new StringBuilder("  " + pieces[0]);
        for (int i = 1; i < pieces.length; i++) {
            int end = i + 1 < pieces.length ? 2 : 0; // " \\"
            if (outIsTerminal() && line.length() + 1 + pieces[i].length() + end > outWidth()) {
                text().println(line + " \\");
                line = new StringBuilder("     ");
            }
            line.append(' ').append(pieces[i]);
        }
        text().println(line);
    }

    private int outWidth() {
        if (outWidth == 0) {
            outWidth = width();
        }
        return outWidth;
    }

    /** {@code text} in bold where that can be seen. */
    String bold(String text) {
        return styled("1", text);
    }

    /** {@code text} so that it stands back. */
    String faint(String text) {
        return styled("2", text);
    }

    /** {@code text} so that it stands out. */
    String green(String text) {
        return styled("32", text);
    }

    private String styled(String code, String text) {
        boolean plain = !outIsTerminal() || System.getenv("NO_COLOR") != null || "dumb".equals(System.getenv("TERM"));
        return plain ? text : "\u001b[" + code + "m" + text + "\u001b[0m";
    }

    /** Columns of the terminal; asks the terminal itself, so call it seldom. */
    static int width() {
        try {
            Process stty = new ProcessBuilder("stty", "size")
                    .redirectInput(Path.of("/dev/tty").toFile())
                    .redirectError(ProcessBuilder.Redirect.DISCARD)
                    .start();
            try (BufferedReader answer =
                    new BufferedReader(new InputStreamReader(stty.getInputStream(), StandardCharsets.US_ASCII))) {
                String line = answer.readLine();
                if (stty.waitFor(1, TimeUnit.SECONDS) && line != null && line.matches("\\d+ [1-9]\\d*")) {
                    return Integer.parseInt(line.substring(line.indexOf(' ') + 1));
                }
            }
        } catch (IOException e) {
            // No stty here: the default will do.
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return DEFAULT_WIDTH;
    }

    /**
     * Java tells only whether input and output both are terminals, which says nothing about standard error. Linux tells
     * for each; elsewhere Java's answer is taken.
     */
    private static boolean isTerminal(int descriptor) {
        Path link = Path.of("/proc/self/fd/" + descriptor);
        try {
            String target = Files.readSymbolicLink(link).toString();
            return target.startsWith("/dev/pts/") || target.startsWith("/dev/tty") || target.equals("/dev/console");
        } catch (IOException | UnsupportedOperationException e) {
            return System.console() != null;
        }
    }
}
