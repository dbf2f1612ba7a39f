package dev.lorica.cli;

import dev.lorica.Lorica;
import dev.lorica.exceptions.LoricaException;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.Consumer;
import java.util.function.Function;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.UsageMessageSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;
import picocli.CommandLine.UnmatchedArgumentException;

/** The program {@code lorica}: {@code lorica COMMAND …}. Exit codes are those of {@link ExitCode}. */
@Command(
        name = "lorica",
        versionProvider = Version.class,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica COMMAND [OPTION]…",
        header = "Fine-tunes quantized language models: a GGUF file goes in, a LoRA adapter comes out.",
        commandListHeading = "%nCommands:%n",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica train --model llama.gguf --data questions.json --output my-adapter",
            "  lorica generate --model llama.gguf --adapter my-adapter -i \"Who is he?\"",
            "",
            "'lorica COMMAND --help' explains a command.",
            "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."
        })
public final class LoricaCli implements Callable<Integer> {
    /** Apart, so that what needs none of them does not wait for their classes. */
    private static final class Commands {
        /** How each command is made, by its name and in the order of the help. */
        static final Map<String, Function<Terminal, Callable<Integer>>> ALL = new LinkedHashMap<>();

        /** Those that tell of all the others. */
        static final Set<String> OF_ALL = Set.of("completion", "man-pages");

        static {
            ALL.put("train", TrainCommand::new);
            ALL.put("sweep", SweepCommand::new);
            ALL.put("plan", PlanCommand::new);
            ALL.put("data", DataCommand::new);
            ALL.put("generate", GenerateCommand::new);
            ALL.put("chat", ChatCommand::new);
            ALL.put("eval", EvalCommand::new);
            ALL.put("classify", ClassifyCommand::new);
            ALL.put("embed", EmbedCommand::new);
            ALL.put("serve", ServeCommand::new);
            ALL.put("report", ReportCommand::new);
            ALL.put("export", ExportCommand::new);
            ALL.put("merge", MergeCommand::new);
            ALL.put("quantize", QuantizeCommand::new);
            ALL.put("add-tokens", AddTokensCommand::new);
            ALL.put("convert", ConvertCommand::new);
            ALL.put("info", InfoCommand::new);
            ALL.put("tokenize", TokenizeCommand::new);
            ALL.put("doctor", DoctorCommand::new);
            ALL.put("completion", CompletionCommand::new);
            ALL.put("man-pages", ManPagesCommand::new);
        }
    }

    /** Those that open a model first of all. */
    private static final Set<String> OF_MODELS = Set.of(
            "train",
            "sweep",
            "plan",
            "generate",
            "chat",
            "eval",
            "classify",
            "embed",
            "serve",
            "merge",
            "info",
            "tokenize");

    @Spec
    private CommandSpec spec;

    @Option(
            names = {"-h", "--help"},
            usageHelp = true,
            description = "Show this help.")
    private boolean help;

    @Option(
            names = {"-V", "--version"},
            versionHelp = true,
            description = "Show the version.")
    private boolean version;

    private LoricaCli() {}

    public static void main(String[] args) {
        loadLibraryAhead(args);
        Terminal terminal = Terminal.system();
        int code = run(terminal, args);
        terminal.flush();
        System.exit(code);
    }

    /** Opens the native library while the options are looked at. Who needs it waits for that, and says what is wrong with it. */
    private static void loadLibraryAhead(String[] args) {
        if (args.length < 2 || !OF_MODELS.contains(args[0]) || List.of(args).contains("--help")) {
            return;
        }
        Thread thread = new Thread(
                () -> {
                    try {
                        Lorica.version();
                    } catch (LoricaException e) {
                        // said again to whoever needs it
                    }
                },
                "lorica-library");
        thread.setDaemon(true);
        thread.start();
    }

    /** Runs one command line on streams of the caller's. Returns the exit code. */
    static int run(InputStream in, PrintStream out, PrintStream err, String... args) {
        return run(new Terminal(in, out, err), args);
    }

    /**
     * Runs {@code lorica train} on the streams of this process, with gradients computed on a cluster.
     *
     * @param options of {@code lorica train}
     * @return the exit code
     */
    public static int train(TrainingCluster cluster, String... options) {
        Terminal terminal = Terminal.system();
        int code = train(terminal, cluster, options);
        terminal.flush();
        return code;
    }

    static int train(Terminal terminal, TrainingCluster cluster, String... options) {
        List<String> args = new ArrayList<>(List.of("train"));
        args.addAll(List.of(options));
        return run(
                terminal, program(terminal, List.of(new TrainCommand(terminal, cluster))), args.toArray(String[]::new));
    }

    /**
     * Runs {@code lorica sweep} on the streams of this process, with runs done on a cluster.
     *
     * @param options of {@code lorica sweep}
     * @return the exit code
     */
    public static int sweep(SweepRun.Cluster cluster, String... options) {
        Terminal terminal = Terminal.system();
        List<String> args = new ArrayList<>(List.of("sweep"));
        args.addAll(List.of(options));
        int code = run(
                terminal, program(terminal, List.of(new SweepCommand(terminal, cluster))), args.toArray(String[]::new));
        terminal.flush();
        return code;
    }

    static int run(Terminal terminal, String... args) {
        if (args.length == 1 && (args[0].equals("--version") || args[0].equals("-V"))) {
            terminal.out().println(new Version().getVersion()[0]);
            return ExitCode.OK;
        }
        String[] asked = asksForHelp(args);
        return run(terminal, commandLine(terminal, asked), asked);
    }

    /** {@code lorica help train} is {@code lorica train --help}. */
    private static String[] asksForHelp(String[] args) {
        if (args.length == 0 || args.length > 2 || !args[0].equals("help")) {
            return args;
        }
        if (args.length == 1) {
            return new String[] {"--help"};
        }
        return commands().containsKey(args[1]) ? new String[] {args[1], "--help"} : new String[] {args[1]};
    }

    private static int run(Terminal terminal, CommandLine program, String... args) {
        try {
            return program.execute(
                    arguments(program, args, line -> terminal.err().println(line)));
        } catch (LoricaException e) {
            terminal.err().println("error: " + oneLine(e.getMessage()));
            if (List.of(args).contains("--json")) {
                terminal.useJson(true);
                terminal.printJson(Map.of("error", oneLine(e.getMessage())));
            }
            return ExitCode.FAILED;
        } catch (OutOfMemoryError e) {
            terminal.err()
                    .println("error: Java's own memory is full (" + e.getMessage()
                            + "); give it more: JAVA_TOOL_OPTIONS=-Xmx4g");
            return ExitCode.FAILED;
        }
    }

    /**
     * Arguments as the commands know them: other tools' spellings taken for what they mean, the file of {@code --config} in them.
     *
     * @param note for what is said of settings that do nothing
     */
    static String[] arguments(CommandLine program, String[] args, Consumer<String> note) {
        String[] ours = Spelling.ours(program, args);
        CommandLine command = Spelling.commandOf(program, ours);
        return command.getCommandSpec().findOption("--config") == null
                ? ours
                : ConfigFile.expand(command.getCommandSpec(), ours, note);
    }

    /** The program with all its commands. */
    static CommandLine commandLine(Terminal terminal) {
        return program(
                terminal,
                commands().values().stream().map(made -> made.apply(terminal)).toList());
    }

    /** The program with what these arguments call for: making all commands would take longer than many a command does. */
    private static CommandLine commandLine(Terminal terminal, String[] args) {
        String first = args.length == 0 ? "" : args[0];
        Function<Terminal, Callable<Integer>> command =
                Commands.OF_ALL.contains(first) ? null : commands().get(first);
        return command == null ? commandLine(terminal) : program(terminal, List.of(command.apply(terminal)));
    }

    /** How each command is made, by its name and in the order of the help. */
    static Map<String, Function<Terminal, Callable<Integer>>> commands() {
        return Commands.ALL;
    }

    /** The program with these commands. */
    static CommandLine program(Terminal terminal, List<Callable<Integer>> commands) {
        CommandLine program = new CommandLine(new LoricaCli());
        commands.forEach(program::addSubcommand);
        for (CommandLine command : program.getSubcommands().values()) {
            command.getHelpSectionMap().put(UsageMessageSpec.SECTION_KEY_OPTION_LIST, OptionSections::render);
            for (CommandSpec mixin : command.getCommandSpec().mixins().values()) {
                if (mixin.userObject() instanceof SettingOptions settings) {
                    settings.addTo(command.getCommandSpec());
                }
            }
        }
        return program.setOut(new PrintWriter(terminal.out(), true, StandardCharsets.UTF_8))
                .setErr(new PrintWriter(terminal.err(), true, StandardCharsets.UTF_8))
                .setUsageHelpWidth(80)
                .setUsageHelpLongOptionsMaxWidth(32)
                .setCaseInsensitiveEnumValuesAllowed(true)
                .setAbbreviatedOptionsAllowed(false)
                .setOverwrittenOptionsAllowed(false)
                .setExpandAtFiles(false) // what begins with @ is a text like any other
                .registerConverter(Path.class, new FileName())
                .setExecutionStrategy(parsed -> {
                    terminal.useJson(has(parsed, "--json"));
                    WrongUsage.refuseTwice(parsed);
                    Integer shown = CommandLine.executeHelpRequest(parsed);
                    if (shown != null) {
                        return shown; // help and version, which have nothing to log
                    }
                    LogLines.to(terminal);
                    return new CommandLine.RunLast().execute(parsed);
                })
                .setParameterExceptionHandler(LoricaCli::wrongUsage)
                .setExecutionExceptionHandler((e, command, parsed) -> failed(terminal, e, parsed));
    }

    /** {@code lorica} alone. */
    @Override
    public Integer call() {
        spec.commandLine().usage(spec.commandLine().getErr());
        return ExitCode.USAGE;
    }

    private static int wrongUsage(ParameterException e, String[] args) {
        CommandLine command = e.getCommandLine();
        PrintWriter err = command.getErr();
        ParameterException cause = WrongUsage.cause(e, args);
        err.println("error: " + oneLine(WrongUsage.inWords(cause)));
        if (cause instanceof UnmatchedArgumentException unmatched) {
            UnmatchedArgumentException.printSuggestions(unmatched, err);
        }
        err.println("Try '" + command.getCommandSpec().qualifiedName() + " --help'.");
        return ExitCode.USAGE;
    }

    private static int failed(Terminal terminal, Throwable e, ParseResult parsed) {
        // Of its own accord the library throws these two; anything else is a defect, and says which.
        boolean expected = e instanceof LoricaException || e instanceof IllegalArgumentException;
        String message = e.getMessage() == null ? e.getClass().getSimpleName() : oneLine(e.getMessage());
        boolean verbose = has(parsed, "--verbose");
        if (verbose) {
            e.printStackTrace(terminal.err());
        }
        terminal.err()
                .println(
                        expected
                                ? "error: " + message
                                : "error: " + e.getClass().getSimpleName() + ": " + message
                                        + (verbose ? "" : " (--verbose shows where)"));
        if (terminal.json()) {
            terminal.printJson(Map.of("error", message));
        }
        return ExitCode.FAILED;
    }

    private static boolean has(ParseResult parsed, String option) {
        for (ParseResult part = parsed; part != null; part = part.subcommand()) {
            if (part.hasMatchedOption(option)) {
                return true;
            }
        }
        return false;
    }

    static String oneLine(String message) {
        return LibraryWords.asOptions(message.strip().replaceAll("\\s*\\R\\s*", " "));
    }
}
