package dev.lorica.serve.runs;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * The program that trains, as a command line. A run is a process of its own, not a thread of the server, for four reasons: a run that
 * takes too much memory, or that the system kills, does not take the server and its clients with it; all of its memory is free again when
 * it ends; it goes on when the server is killed, and a new server finds it; and what is shown as its command line is what is run. The
 * price is a start of half a second; the weights are mapped from the file, and both processes share them.
 */
public interface RunProgram {
    /**
     * An option of training that a page may set.
     *
     * @param name    as on the command line, without dashes
     * @param section under which the program lists it
     * @param help    one sentence or two
     * @param initial what it is where nothing is said; {@code null}: nothing
     * @param flag    whether it is there or not, and takes no value
     * @param many    whether it may be there several times
     * @param file    whether it names what is read
     * @param choices what it may be; empty: anything
     */
    record Option(
            String name,
            String section,
            String help,
            String initial,
            boolean flag,
            boolean many,
            boolean file,
            List<String> choices) {}

    /**
     * What a file of options means: by name without dashes the values; of a flag {@code true}.
     *
     * @param options values by the names of options
     * @param notes   what the program has to say of them, a line each
     */
    record Meaning(Map<String, List<String>> options, List<String> notes) {}

    /** {@return how it is started; arguments come behind} */
    List<String> command();

    /** {@return how it is called where a command line is shown} */
    String name();

    /** {@return the options that it has, in the order of its help} */
    List<Option> options();

    /**
     * What a run would do, as the program says it with {@code --dry-run --json}, found in this process where that is quick: a start of
     * the program takes longer than most plans.
     *
     * @param model    that is served, whose weights are there already
     * @param yaml     the options, as a file
     * @param examples so many are shown token by token
     * @return {@code null} where it takes too much for this process: ask the program itself
     * @throws dev.lorica.exceptions.LoricaException for what cannot be trained
     */
    ObjectNode plan(Model model, Path yaml, int examples);

    /**
     * Reads options as YAML, in the spellings that the program knows.
     *
     * @param yaml the text of a file
     * @return what it means
     * @throws dev.lorica.exceptions.LoricaException for what it does not know
     */
    Meaning read(String yaml);
}
