package dev.lorica.cli;

import dev.lorica.exceptions.FileAccessException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/** Lines as standard input has them. */
final class PlainLines implements ChatInput {
    private static final int WIDTH = 80;

    private final Terminal terminal;
    private final BufferedReader in;

    PlainLines(Terminal terminal) {
        this.terminal = terminal;
        in = new BufferedReader(new InputStreamReader(terminal.in(), StandardCharsets.UTF_8));
    }

    @Override
    public String read() {
        if (terminal.errIsTerminal()) {
            terminal.err().print("> ");
            terminal.err().flush();
        }
        try {
            return in.readLine();
        } catch (IOException e) {
            throw new FileAccessException("standard input cannot be read: " + e.getMessage(), e);
        }
    }

    @Override
    public int width() {
        return WIDTH;
    }

    @Override
    public boolean isEdited() {
        return false;
    }

    @Override
    public void close() {}
}
