package dev.lorica.cli;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.function.IntSupplier;

/**
 * UTF-8 on its way to a terminal, whose lines it breaks between words where they are too long; what comes after begins two columns further
 * in than the line did. A word is written when what ends it comes, or with {@link #flush()}.
 */
final class WordWrap extends OutputStream {
    private static final int MOST_INDENT = 20;

    private final OutputStream terminal;
    private final IntSupplier terminalWidth;
    private final ByteArrayOutputStream word = new ByteArrayOutputStream();
    private int width;
    private int wordColumns;
    private int column;
    private int spaces;
    private int indent;
    private boolean lineBegins = true;
    private boolean inEscape;

    /** @param width columns; asked for once, when there is a line that might be too long */
    WordWrap(OutputStream terminal, IntSupplier width) {
        this.terminal = terminal;
        this.terminalWidth = width;
    }

    @Override
    public synchronized void write(int b) throws IOException {
        int value = b & 0xff;
        if (inEscape || value == 0x1b) { // ESC [ … a letter: colours, which take no columns
            word.write(value);
            inEscape = value == 0x1b || value == '[' || value < '@';
        } else if (value == '\n' || value == '\r') {
            endWord();
            spaces = 0;
            terminal.write(value);
            column = 0;
            lineBegins = true;
            if (value == '\n') {
                terminal.flush();
            }
        } else if (value == ' ') {
            endWord();
            spaces++;
        } else {
            word.write(value);
            wordColumns += (value & 0xc0) == 0x80 ? 0 : 1; // a character, not the rest of one
        }
    }

    /** What there is of a word and the spaces behind it appear. */
    @Override
    public synchronized void flush() throws IOException {
        endWord();
        writeSpaces(spaces);
        spaces = 0;
        terminal.flush();
    }

    private void endWord() throws IOException {
        if (word.size() == 0) {
            return;
        }
        if (lineBegins) {
            indent = Math.min(spaces + 2, MOST_INDENT);
            lineBegins = false;
        }
        if (column > 0 && isTooWide(column + spaces + wordColumns)) {
            terminal.write('\n');
            column = 0;
            spaces = indent;
        }
        writeSpaces(spaces);
        spaces = 0;
        word.writeTo(terminal);
        column += wordColumns;
        word.reset();
        wordColumns = 0;
    }

    private boolean isTooWide(int columns) {
        if (columns > 40 && width == 0) {
            width = terminalWidth.getAsInt();
        }
        return columns > Math.max(width, 40);
    }

    private void writeSpaces(int n) throws IOException {
        for (int i = 0; i < n; i++) {
            terminal.write(' ');
        }
        column += n;
    }
}
