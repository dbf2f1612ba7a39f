package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.cli.ChatHistory.Turn;
import dev.lorica.data.Conversation;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.generate.Generator;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;

/** A conversation: questions and answers by turns, and commands between them. */
final class Chat implements AutoCloseable {
    /** What a line may begin with, behind a slash. */
    private enum Command {
        HELP("", "show this"),
        ADAPTER(
                "[DIR[:SCALE] … | none]",
                "talk with these adapters from now on, or with the base alone; without a name: which they are"),
        COMPARE("[QUESTION]", "the answers of base and tuned model side by side; without a question: to the last one"),
        SET("[NAME VALUE]", "temperature, top-k, max-tokens, seed, …: another value; without a name: all of them"),
        SYSTEM("[TEXT | none]", "another system prompt, or none; without a text: which it is"),
        RETRY("", "another answer to the last question"),
        UNDO("", "take the last question and its answer back"),
        CLEAR("", "begin a new conversation"),
        SAVE("FILE.jsonl", "add the conversation to a file that 'lorica train --data' reads, as one line"),
        QUIT("", "end; as Ctrl-D does");

        private final String argument;
        private final String does;

        Command(String argument, String does) {
            this.argument = argument;
            this.does = does;
        }

        private String word() {
            return "/" + name().toLowerCase(Locale.ROOT);
        }
    }

    private static final ObjectMapper JSON = new ObjectMapper();

    /** What takes a value away. */
    private static final String NONE = "none";

    private final Terminal terminal;
    private final ChatInput input;
    private final Model base;
    private final SamplingOptions sampling;
    private final ShownText shown;
    private final Generator generator;
    /** Keeps the base's cache beside that of the tuned model; made when it is first needed. */
    private Generator other;

    private List<String> names = List.of();
    private List<ScaledAdapter> adapters = List.of();
    private Object tools;
    private PromptTemplate chosenTemplate;
    private ChatHistory history;
    private int retries;
    private boolean failed;

    Chat(Terminal terminal, ChatInput input, Model base, SamplingOptions sampling) {
        this.terminal = terminal;
        this.input = input;
        this.base = base;
        this.sampling = sampling;
        shown = new ShownText(terminal, base.info());
        generator = new Generator(base);
    }

    /** What the Tab key may complete. */
    static List<List<String>> words() {
        List<List<String>> words = new ArrayList<>();
        for (Command command : Command.values()) {
            words.add(List.of(command.word()));
        }
        settings(new SamplingOptions()).keySet().forEach(name -> words.add(List.of(Command.SET.word(), name)));
        words.add(List.of(Command.ADAPTER.word(), NONE));
        words.add(List.of(Command.SYSTEM.word(), NONE));
        return words;
    }

    Chat begin(List<String> adapterNames, String chatTemplate, String system, Object tools) {
        adapters = AdapterName.loadEach(terminal, base, adapterNames);
        names = List.copyOf(adapterNames);
        this.tools = tools;
        chosenTemplate = chatTemplate == null ? null : DataOptions.chatTemplate(base, chatTemplate, null);
        terminal.err()
                .println(terminal.faint("device: " + base.info().deviceInWords()
                        + (input.isEdited() ? "; /help lists the commands, Ctrl-D ends" : "")));
        history = new ChatHistory(
                template(), system, tools, base.tokenizer(), base.info().contextLength(), terminal.err()::println);
        noteTools();
        return this;
    }

    /** Until there are no more lines. Returns the exit code: where nobody sees what fails, that something did. */
    int run() {
        while (true) {
            String line = input.read();
            if (line == null || line.strip().equals(Command.QUIT.word())) {
                return failed && !input.isEdited() ? ExitCode.FAILED : ExitCode.OK;
            }
            if (line.isBlank()) {
                continue;
            }
            try {
                if (line.startsWith("/") && !line.startsWith("//")) {
                    obey(line.strip());
                } else {
                    retries = 0;
                    ask(line.startsWith("//") ? line.substring(1) : line);
                }
            } catch (LoricaException | IllegalArgumentException e) {
                failed = true;
                terminal.err().println("error: " + LoricaCli.oneLine(e.getMessage()));
            }
        }
    }

    private void obey(String line) {
        int space = line.indexOf(' ');
        String word = space < 0 ? line : line.substring(0, space);
        String argument = space < 0 ? "" : line.substring(space).strip();
        Command command = List.of(Command.values()).stream()
                .filter(one -> one.word().equals(word))
                .findFirst()
                .orElseThrow(() -> unknown(word));
        if (command.argument.isEmpty() && !argument.isEmpty()) {
            throw new IllegalArgumentException(word + " takes nothing behind it");
        }
        switch (command) {
            case HELP -> help();
            case ADAPTER -> adapter(argument);
            case COMPARE -> compare(argument);
            case SET -> set(argument);
            case SYSTEM -> system(argument);
            case RETRY -> retry();
            case UNDO -> undo();
            case CLEAR -> {
                history.clear();
                say("a new conversation begins");
            }
            case SAVE -> save(argument);
            case QUIT -> throw new IllegalStateException("the loop ends with it");
        }
    }

    private static IllegalArgumentException unknown(String word) {
        String near = List.of(Command.values()).stream()
                .map(Command::word)
                .min(Comparator.comparingInt(known -> Spelling.distance(word, known)))
                .filter(known -> Spelling.distance(word, known) <= 2)
                .map(known -> "did you mean " + known + "?")
                .orElse("/help lists what there is; a question that begins with / is written with //");
        return new IllegalArgumentException("there is no " + word + "; " + near);
    }

    private void help() {
        for (Command command : Command.values()) {
            String begin = String.format("  %-34s", command.word() + " " + command.argument);
            String indent = " ".repeat(begin.length());
            for (String part : SideBySide.wrap(command.does, Math.max(30, input.width() - begin.length()))) {
                terminal.out().println(begin + part);
                begin = indent;
            }
        }
        terminal.out().println("  Ctrl-C stops an answer. A question that begins with / is written with //.");
    }

    /** Returns whether an answer came. */
    private boolean ask(String question) {
        Optional<int[]> ids = history.with(question, sampling.maxTokens);
        if (ids.isEmpty()) {
            return false;
        }
        GenerationResult result = answer(ids.get(), adapters, generator, shown::show);
        if (terminal.json()) {
            shown.printJson(ShownText.json(result));
        }
        return keep(question, result);
    }

    /** An answer that was stopped is part of the conversation as far as it came. */
    private boolean keep(String question, GenerationResult result) {
        if (result.text().isEmpty() && result.finishReason() == FinishReason.CANCELLED) {
            return false;
        }
        history.add(new Turn(question, result.text()));
        return true;
    }

    @SuppressWarnings("try") // what is open is the handling of Ctrl-C, which nobody calls
    private GenerationResult answer(
            int[] ids, List<ScaledAdapter> with, Generator by, Function<Generation, GenerationResult> walk) {
        Generation generation = by.generate(ids, sampling.config(sampling.seed + retries, ids.length), with);
        try (Interrupt interrupt = Interrupt.stopping(generation::cancel)) {
            return walk.apply(generation);
        }
    }

    private void compare(String question) {
        if (adapters.isEmpty()) {
            throw new IllegalArgumentException(
                    "there is nothing to compare the base with; /adapter DIR loads an adapter");
        }
        if (question.isEmpty()) {
            Turn last = last();
            history.undo();
            try {
                bothAnswers(last.question());
            } finally {
                history.add(last);
            }
        } else {
            retries = 0;
            GenerationResult tuned = bothAnswers(question);
            if (tuned != null) {
                keep(question, tuned);
            }
        }
    }

    /** Shows both; returns that of the tuned model, {@code null} where there is none. */
    private GenerationResult bothAnswers(String question) {
        int[] ids = history.with(question, sampling.maxTokens).orElse(null);
        if (ids == null) {
            return null;
        }
        other = other == null ? new Generator(base) : other;
        GenerationResult plain = answer(ids, List.of(), other, generation -> count("answer of the base", generation));
        if (plain.finishReason() == FinishReason.CANCELLED) {
            say(terminal.faint("[stopped]"));
            return null;
        }
        GenerationResult tuned =
                answer(ids, adapters, generator, generation -> count("answer of the tuned model", generation));
        if (terminal.json()) {
            Map<String, Object> both = new LinkedHashMap<>();
            both.put("base", ShownText.json(plain));
            both.put("tuned", ShownText.json(tuned));
            shown.printJson(both);
            return tuned;
        }
        SideBySide.lines("base", plain.text(), String.join(" + ", names), tuned.text(), input.width())
                .forEach(terminal.out()::println);
        if (terminal.errIsTerminal()) {
            say(terminal.faint("[base: " + ShownText.summary(plain) + "; tuned: " + ShownText.summary(tuned) + "]"));
        }
        return tuned;
    }

    private GenerationResult count(String what, Generation generation) {
        CountLine line = new CountLine(terminal, what);
        int pieces = 0;
        for (String piece : generation) {
            pieces += piece.isEmpty() ? 0 : 1;
            line.show(Math.min(pieces, sampling.maxTokens), sampling.maxTokens + 1);
        }
        line.end();
        return generation.result();
    }

    private void retry() {
        Turn last = last();
        if (sampling.temperature == 0) {
            say("note: at temperature 0 the likeliest words come again; /set temperature 0.8");
        }
        retries++;
        history.undo();
        boolean answered = false;
        try {
            answered = ask(last.question());
        } finally {
            if (!answered) {
                history.add(last);
            }
        }
    }

    private Turn last() {
        return history.last().orElseThrow(() -> new IllegalArgumentException("nothing was asked yet"));
    }

    private void undo() {
        String question = last().question();
        history.undo();
        say("taken back: " + (question.length() > 60 ? question.substring(0, 59) + "…" : question));
    }

    private void system(String text) {
        if (text.isEmpty()) {
            say(history.system() == null ? "no system prompt" : history.system());
            return;
        }
        history.system(text.equals(NONE) ? null : text);
        say(text.equals(NONE) ? "no system prompt from now on" : "the system prompt is another from now on");
    }

    private void adapter(String argument) {
        if (argument.isEmpty()) {
            say(names.isEmpty() ? "no adapter: the base alone" : String.join("\n", names));
            return;
        }
        List<String> wanted = argument.equals(NONE)
                ? List.of()
                : Files.exists(path(argument))
                        ? List.of(path(argument).toString())
                        : List.of(argument.split("\\s+")).stream()
                                .map(name -> path(name).toString())
                                .toList();
        List<ScaledAdapter> loaded = AdapterName.loadEach(terminal, base, wanted);
        List<ScaledAdapter> before = adapters;
        PromptTemplate templateBefore = template();
        adapters = loaded;
        names = wanted;
        AdapterName.close(before);
        PromptTemplate template = template();
        if (!template.equals(templateBefore)) {
            history.use(template);
            noteTools();
        }
        say(wanted.isEmpty() ? "the base alone from now on" : "from now on with " + String.join(" + ", wanted));
    }

    /** That of the first adapter that has one, else the model's own, unless one was chosen. */
    private PromptTemplate template() {
        if (chosenTemplate != null) {
            return chosenTemplate;
        }
        try (Generator asking = new Generator(base, adapters)) {
            return asking.template();
        }
    }

    private void noteTools() {
        PromptTemplate template = template();
        if (tools != null && !Tools.areShown(new ExampleEncoder(base.tokenizer(), template, false), tools)) {
            terminal.err()
                    .println("note: template \"" + template.name()
                            + "\" does not show tools; the model does not hear of" + " them");
        }
    }

    private void set(String argument) {
        Map<String, OptionSpec> settings = settings(sampling);
        if (argument.isEmpty()) {
            settings.forEach((name, option) -> terminal.out().println("  " + name + " " + value(option)));
            return;
        }
        String[] parts = argument.split("[\\s=]+", 2);
        String name = parts[0].replaceFirst("^--?", "").replace('_', '-');
        OptionSpec option = settings.get(name);
        if (option == null) {
            throw new IllegalArgumentException(
                    "there is no setting " + parts[0] + "; there are " + String.join(", ", settings.keySet()));
        }
        if (parts.length < 2) {
            say(name + " " + value(option));
            return;
        }
        Object before = option.getValue();
        try {
            option.command().commandLine().parseArgs(option.longestName() + "=" + parts[1]);
            sampling.check();
        } catch (ParameterException e) {
            option.setValue(before);
            throw new IllegalArgumentException(WrongUsage.inWords(e));
        } catch (RuntimeException e) {
            option.setValue(before);
            throw e;
        }
        say(name + " " + value(option));
    }

    /** The options of generation that a conversation has, by name without dashes. Their values are those of {@code sampling}. */
    private static Map<String, OptionSpec> settings(SamplingOptions sampling) {
        return new CommandLine(sampling)
                .getCommandSpec().options().stream()
                        .filter(option -> !option.longestName().equals("--num-return-sequences"))
                        .collect(Collectors.toMap(
                                option -> option.longestName().substring(2),
                                option -> option,
                                (first, second) -> first,
                                LinkedHashMap::new));
    }

    private static String value(OptionSpec option) {
        Object value = option.getValue();
        return value == null || List.of().equals(value) ? NONE : value.toString();
    }

    private void save(String name) {
        if (!name.endsWith(".jsonl")) {
            throw new IllegalArgumentException(
                    "/save needs a name that ends in .jsonl: the conversation is added to that" + " file, as one line");
        }
        last();
        Conversation all = history.all();
        Map<String, Object> record = new LinkedHashMap<>();
        record.put(
                "messages",
                all.messages().stream()
                        .map(message -> {
                            Map<String, Object> one = new LinkedHashMap<>();
                            one.put("role", message.role());
                            one.put("content", message.content());
                            return one;
                        })
                        .toList());
        if (tools != null) {
            record.put("tools", tools);
        }
        Path file = path(name);
        try (RandomAccessFile out = new RandomAccessFile(file.toFile(), "rw")) {
            long end = out.length();
            boolean open = false;
            if (end > 0) {
                out.seek(end - 1);
                open = out.read() != '\n';
            }
            out.seek(end);
            out.write(((open ? "\n" : "") + JSON.writeValueAsString(record) + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be written: " + AtomicFile.reason(e), e);
        }
        say("added to " + file);
    }

    /** A name as a shell would read it. */
    private static Path path(String name) {
        return name.startsWith("~/") ? Path.of(System.getProperty("user.home"), name.substring(2)) : Path.of(name);
    }

    private void say(String text) {
        terminal.err().println(text);
    }

    @Override
    public void close() {
        generator.close();
        if (other != null) {
            other.close();
        }
        AdapterName.close(adapters);
    }
}
