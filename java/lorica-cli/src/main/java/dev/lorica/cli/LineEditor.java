package dev.lorica.cli;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.jline.keymap.KeyMap;
import org.jline.reader.Candidate;
import org.jline.reader.Completer;
import org.jline.reader.EndOfFileException;
import org.jline.reader.LineReader;
import org.jline.reader.LineReaderBuilder;
import org.jline.reader.Reference;
import org.jline.reader.UserInterruptException;
import org.jline.reader.impl.DefaultParser;
import org.jline.terminal.Attributes;
import org.jline.terminal.Attributes.LocalFlag;
import org.jline.terminal.Terminal.Signal;
import org.jline.terminal.Terminal.SignalHandler;
import org.jline.terminal.TerminalBuilder;

/**
 * Lines that a person types and edits, with the keys of Emacs or of {@code ~/.inputrc}; those of earlier conversations come back
 * with the arrow keys and Ctrl-R. Alt-Enter begins a new line, Ctrl-C gives the line up, Ctrl-D ends the conversation.
 */
final class LineEditor implements ChatInput {
    private static final int DEFAULT_WIDTH = 80;

    private final org.jline.terminal.Terminal terminal;
    private final LineReader reader;
    private final Attributes usual;

    private LineEditor(org.jline.terminal.Terminal terminal, List<List<String>> words) {
        this.terminal = terminal;
        usual = terminal.getAttributes();
        // Keys that are pressed before the next line is asked for are not shown until then, and none is lost.
        Attributes silent = new Attributes(usual);
        silent.setLocalFlags(EnumSet.of(LocalFlag.ECHO, LocalFlag.ICANON), false);
        terminal.setAttributes(silent);
        // Between lines, where it stops an answer; JLine itself would have it end the program.
        terminal.handle(Signal.INT, SignalHandler.SIG_IGN);
        DefaultParser parser = new DefaultParser();
        parser.setEscapeChars(new char[0]);
        parser.setQuoteChars(new char[0]);
        reader = LineReaderBuilder.builder()
                .terminal(terminal)
                .appName("lorica")
                .parser(parser)
                .completer(completer(words))
                .option(LineReader.Option.DISABLE_EVENT_EXPANSION, true) // "!" is a character
                .variable(LineReader.SECONDARY_PROMPT_PATTERN, "  ")
                .build();
        historyFile().ifPresent(file -> reader.setVariable(LineReader.HISTORY_FILE, file));
        reader.getWidgets().put("new-line", () -> {
            reader.getBuffer().write('\n');
            return true;
        });
        reader.getKeyMaps().get(LineReader.MAIN).bind(new Reference("new-line"), KeyMap.alt('\r'));
    }

    /**
     * Nothing where lines cannot be edited: without a terminal on both sides, or on one that cannot move its cursor.
     *
     * @param words that the Tab key completes: lines of words that follow each other
     */
    static Optional<ChatInput> open(Terminal streams, List<List<String>> words) {
        if (streams.json() || !streams.inIsTerminal() || !streams.outIsTerminal()) {
            return Optional.empty();
        }
        Logger.getLogger("org.jline").setLevel(Level.OFF);
        try {
            return Optional.of(new LineEditor(
                    TerminalBuilder.builder()
                            .system(true)
                            .dumb(false)
                            .encoding(StandardCharsets.UTF_8)
                            .build(),
                    words));
        } catch (IOException | IllegalStateException e) {
            return Optional.empty();
        }
    }

    @Override
    public String read() {
        try {
            return reader.readLine("> ");
        } catch (UserInterruptException e) {
            return "";
        } catch (EndOfFileException e) {
            return null;
        }
    }

    @Override
    public int width() {
        return terminal.getWidth() > 0 ? terminal.getWidth() : DEFAULT_WIDTH;
    }

    @Override
    public boolean isEdited() {
        return true;
    }

    @Override
    public void close() {
        terminal.setAttributes(usual);
        try {
            terminal.close();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static Completer completer(List<List<String>> words) {
        return (reader, line, candidates) -> words.stream()
                .filter(known -> known.size() > line.wordIndex()
                        && known.subList(0, line.wordIndex())
                                .equals(line.words().subList(0, line.wordIndex())))
                .map(known -> known.get(line.wordIndex()))
                .distinct()
                .forEach(word -> candidates.add(new Candidate(word)));
    }

    /** Where XDG has what programs remember; nobody else reads it. Nothing where it cannot be written. */
    private static Optional<Path> historyFile() {
        String state = System.getenv("XDG_STATE_HOME");
        Path folder = (state == null || state.isEmpty()
                        ? Path.of(System.getProperty("user.home"), ".local", "state")
                        : Path.of(state))
                .resolve("lorica");
        Path file = folder.resolve("chat_history");
        try {
            Files.createDirectories(folder);
            if (!Files.exists(file)) {
                Files.createFile(file);
                if (file.getFileSystem().supportedFileAttributeViews().contains("posix")) {
                    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw-------"));
                }
            }
            return Files.isWritable(file) ? Optional.of(file) : Optional.empty();
        } catch (IOException e) {
            return Optional.empty();
        }
    }
}
