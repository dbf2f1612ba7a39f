package dev.lorica.cli;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** The program that {@link TerminalWidthTest} runs on a terminal: command lines of a file, one after the other, arguments between tabs. */
final class CommandLines {
    private CommandLines() {}

    public static void main(String[] args) throws Exception {
        Terminal terminal = Terminal.system();
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            List<String> command = List.of(line.split("\t"));
            int code = LoricaCli.run(terminal, command.toArray(new String[0]));
            terminal.flush();
            System.out.println(command.get(0) + " ended with " + code);
        }
        System.exit(0);
    }
}
