package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.FieldNames;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.Generator;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** {@code lorica generate}: text from a model, with an adapter or without. */
@Command(
        name = "generate",
        header = "Generate text with a model, and an adapter if you like.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis =
                "lorica generate --model FILE (-i TEXT | -p TEXT | --chat | --prompts FILE --output FILE) [OPTION]…",
        optionListHeading = "%nWhat to ask:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica generate --model llama.gguf --adapter my-adapter -i \"Who is he?\"",
            "  lorica generate --model llama.gguf -a austen -a brief:0.5 -i \"Who is he?\"",
            "  lorica generate --model llama.gguf --chat --system \"Answer in one sentence.\"",
            "  lorica generate --model llama.gguf --prompt \"It is a truth\" --temperature 0 -n 40",
            "  lorica generate --model llama.gguf --prompts questions.jsonl --output answers.jsonl --n 4"
        })
final class GenerateCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Spec
    private CommandSpec spec;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ".")
    private Path model;

    @Option(
            names = {"-a", "--adapter"},
            paramLabel = "DIR|FILE[:SCALE]",
            description = "An adapter trained on it: its folder, a GGUF LoRA file" + HubFiles.OR_HUB + ". "
                    + AdapterName.DESCRIPTION)
    private List<String> adapters = new ArrayList<>();

    @Option(
            names = {"-i", "--instruction"},
            paramLabel = "TEXT",
            description = "A question; it is put into the template that the adapter was trained with, or else into the "
                    + "model's chat template.")
    private String instruction;

    @Option(
            names = "--chat",
            description = "A conversation: every line of standard input is a question, until it ends.")
    private boolean chat;

    @Option(
            names = {"-p", "--prompt"},
            paramLabel = "TEXT",
            description = "A beginning, taken as it stands.")
    private String prompt;

    @Option(
            names = "--system",
            paramLabel = "TEXT",
            description = "The system prompt, for what is asked with -i or --chat.")
    private String system;

    @Option(
            names = "--chat-template",
            paramLabel = "NAME|FILE",
            description = "A chat template instead of the adapter's or the model's: a file with Jinja, chatml, llama3,"
                    + " zephyr, …")
    private String chatTemplate;

    @Option(
            names = "--tools",
            paramLabel = "FILE",
            description =
                    "A JSON file with a list of the tools that the assistant may call, described as its chat template"
                            + " wants them, for what is asked with -i or --chat.")
    private Path toolsFile;

    @Option(
            names = "--prompts",
            paramLabel = "FILE",
            description =
                    "Many questions at once: JSON, JSONL, CSV or Parquet with prompt, instruction, question or messages."
                            + " Answers go to --output.")
    private Path prompts;

    @Option(
            names = "--output",
            paramLabel = "FILE",
            description =
                    "Where the answers to --prompts go, one JSON object a line, in their order. The same command goes on"
                            + " with a file that is not complete.")
    private Path output;

    @Option(
            names = "--batch-size",
            paramLabel = "N",
            description = "Texts that are generated at once, of --prompts. Default: ${DEFAULT-VALUE}")
    private int batchSize = 16;

    @Mixin
    private SamplingOptions sampling = new SamplingOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    private ModelInfo info;
    private ExampleEncoder encoder;

    GenerateCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        long ways = Stream.of(instruction != null, chat, prompt != null, prompts != null)
                .filter(given -> given)
                .count();
        if (ways != 1) {
            throw new ParameterException(
                    spec.commandLine(),
                    ways == 0
                            ? "nothing is asked: give --instruction TEXT, --prompt TEXT, --chat or --prompts FILE"
                            : "--instruction, --prompt, --chat and --prompts exclude each other");
        }
        if ((prompts != null) != (output != null)) {
            throw new ParameterException(spec.commandLine(), "--prompts and --output belong together");
        }
        if (prompts != null) {
            if (toolsFile != null) {
                throw new IllegalArgumentException(
                        "--tools is not for --prompts, whose records name tools of their own");
            }
            new Inputs().add(model).add(prompts).refuse("--output " + output, output);
            HubFiles.fetchData(terminal, List.of(prompts));
            Dataset.check(prompts, FieldNames.NONE, RecordKind.PROMPTS);
        }
        sampling.check();
        if (prompt != null && (system != null || chatTemplate != null || toolsFile != null)) {
            throw new IllegalArgumentException(
                    "--system, --tools and --chat-template are not for --prompt, which is taken as it stands");
        }
        Object tools = toolsFile == null ? null : Tools.read(toolsFile);
        try (Model base = Model.load(HubFiles.model(terminal, model), device.config());
                Adapter tuned = AdapterName.load(terminal, base, adapters);
                Generator generator = new Generator(base, tuned)) {
            info = base.info();
            PromptTemplate template = prompt != null
                    ? PromptTemplate.PLAIN
                    : chatTemplate == null ? generator.template() : DataOptions.chatTemplate(base, chatTemplate, null);
            encoder = new ExampleEncoder(base.tokenizer(), template, false);
            terminal.err().println(terminal.faint("device: " + info.deviceInWords()));
            if (tools != null && !Tools.areShown(encoder, tools)) {
                terminal.err()
                        .println("note: template \"" + template.name() + "\" does not show tools; the model does not"
                                + " hear of them");
            }
            if (prompts != null) {
                return new PromptFile(prompts, output, sampling, batchSize, terminal)
                        .answer(base, tuned, encoder, system);
            }
            if (prompt != null) {
                showAll(generator, encoder.prompt(prompt, ""));
                return ExitCode.OK;
            }
            if (chat) {
                ChatHistory history = new ChatHistory(
                        template,
                        system,
                        tools,
                        base.tokenizer(),
                        info.contextLength(),
                        sampling.maxTokens,
                        terminal.err()::println);
                chat(generator, history);
            } else {
                List<Message> messages = new ArrayList<>();
                if (system != null) {
                    messages.add(Message.system(system));
                }
                messages.add(Message.user(instruction));
                showAll(generator, ids(new Conversation(messages, tools)));
            }
        }
        return ExitCode.OK;
    }

    private int[] ids(Conversation conversation) {
        return encoder.prompt(DataRecord.conversation(conversation));
    }

    /** As many texts as were asked for, each with a seed of its own. */
    private void showAll(Generator generator, int[] ids) {
        List<Map<String, Object>> texts = new ArrayList<>();
        for (int i = 0; i < sampling.returnSequences; i++) {
            texts.add(json(show(generator, ids, sampling.seed + i)));
        }
        if (terminal.json()) {
            Map<String, Object> json = texts.get(0);
            if (texts.size() > 1) {
                json.put("texts", texts.stream().map(text -> text.get("text")).toList());
            }
            printJson(json);
        }
    }

    /** Question and answer by turns, until there are no more questions. */
    private void chat(Generator generator, ChatHistory history) {
        BufferedReader in = new BufferedReader(new InputStreamReader(terminal.in(), StandardCharsets.UTF_8));
        try {
            while (true) {
                if (terminal.errIsTerminal()) {
                    terminal.err().print("> ");
                    terminal.err().flush();
                }
                String line = in.readLine();
                if (line == null) {
                    return;
                }
                if (line.isBlank()) {
                    continue;
                }
                Conversation asked = history.ask(line);
                if (asked == null) {
                    continue;
                }
                GenerationResult result = show(generator, ids(asked), sampling.seed);
                if (terminal.json()) {
                    printJson(json(result));
                }
                history.answered(result.text());
            }
        } catch (IOException e) {
            throw new FileAccessException("standard input cannot be read: " + e.getMessage(), e);
        }
    }

    /** Prints a text while it comes. Ctrl-C ends it, where it is one of many in a conversation. */
    @SuppressWarnings("try") // what is open is the handling of Ctrl-C, which nobody calls
    private GenerationResult show(Generator generator, int[] ids, long seed) {
        Generation generation = generator.generate(ids, sampling.config(seed, ids.length));
        try (Interrupt interrupt = chat ? new Interrupt(generation::cancel) : null) {
            for (String piece : generation) {
                terminal.out().print(piece);
                terminal.out().flush();
            }
        }
        terminal.out().println();
        GenerationResult result = generation.result();
        if (!terminal.json() && terminal.errIsTerminal()) {
            terminal.err().println(terminal.faint(summary(result)));
        }
        return result;
    }

    private void printJson(Map<String, Object> json) {
        json.put("device", info.device());
        json.put("device_detail", info.deviceDetail());
        json.put("device_reason", info.deviceReason());
        terminal.printJson(json);
    }

    private static String summary(GenerationResult result) {
        String why =
                switch (result.finishReason()) {
                    case END_OF_TEXT -> "";
                    case STOP_STRING -> ", ended by a stop string";
                    case MAX_NEW_TOKENS -> ", ended by --max-tokens";
                    case CONTEXT_FULL -> ", ended because the model's context is full";
                    case CANCELLED -> ", ended by Ctrl-C";
                };
        return "[" + Format.count(result.generatedTokens(), "token") + " in " + Format.seconds(result.seconds()) + ", "
                + Format.count(Math.round(result.tokensPerSecond())) + " tok/s" + why + "]";
    }

    private static Map<String, Object> json(GenerationResult result) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("text", result.text());
        json.put("finish_reason", Choices.name(result.finishReason()));
        json.put("prompt_tokens", result.promptTokens());
        json.put("generated_tokens", result.generatedTokens());
        json.put("prompt_seconds", result.promptSeconds());
        json.put("seconds", result.seconds());
        json.put("tokens_per_second", result.tokensPerSecond());
        return json;
    }
}
