package dev.lorica.cli;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * The program, which stops where a line of its messages has {@code TEXT} in it, until it is given a byte to read: whoever has read the line
 * finds it there, however late. Arguments: {@code TEXT}, and the program's.
 */
final class HeldProgram {
    private HeldProgram() {}

    public static void main(String[] args) {
        int code = LoricaCli.run(
                InputStream.nullInputStream(),
                new PrintStream(System.out, true, StandardCharsets.UTF_8),
                new PrintStream(new Held(System.err, args[0]), true, StandardCharsets.UTF_8),
                Arrays.copyOfRange(args, 1, args.length));
        System.exit(code);
    }

    private static final class Held extends OutputStream {
        private final OutputStream messages;
        private final String text;
        private final StringBuilder line = new StringBuilder();
        private boolean held;

        Held(OutputStream messages, String text) {
            this.messages = messages;
            this.text = text;
        }

        @Override
        public void write(int one) throws IOException {
            messages.write(one);
            line.append((char) (one & 0xff));
            if (one != '\n') {
                return;
            }
            messages.flush();
            if (!held && line.indexOf(text) >= 0) {
                held = true;
                await();
            }
            line.setLength(0);
        }

        private static void await() {
            try {
                System.in.read();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }
}
