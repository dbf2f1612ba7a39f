package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
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
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** {@code lorica generate}: text from a model, with an adapter or without. */
@Command(
        name = "generate",
        header = "Generate text with a model, and an adapter if you like.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica generate --model FILE [--adapter DIR|FILE[:SCALE]]… (-i | -p TEXT | --chat) [OPTION]…",
        optionListHeading = "%nWhat to ask:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica generate --model llama.gguf --adapter my-adapter --instruction \"Who is Mr. Collins?\"",
            "  lorica generate --model llama.gguf --adapter austen --adapter brief:0.5 -i \"Who is Mr. Collins?\"",
            "  lorica generate --model llama.gguf --chat --system \"Answer in one sentence.\"",
            "  lorica generate --model llama.gguf --prompt \"It is a truth universally\" --temperature 0 -n 40"
        })
final class GenerateCommand implements Callable<Integer> {
    private final Terminal terminal;

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

    @ArgGroup(multiplicity = "1")
    private Question question;

    /** One of these. */
    static final class Question {
        @Option(
                names = {"-i", "--instruction"},
                paramLabel = "TEXT",
                description =
                        "A question; it is put into the template that the adapter was trained with, or else into the "
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
    }

    @Option(
            names = "--system",
            paramLabel = "TEXT",
            description = "The system prompt, for what is asked with -i or --chat.")
    private String system;

    @Option(
            names = "--chat-template",
            paramLabel = "NAME|FILE",
            description =
                    "A chat template instead of the adapter's or the model's: a file with Jinja, chatml, llama3, zephyr, …")
    private String chatTemplate;

    @ArgGroup(exclusive = false, validate = false, heading = "%nSampling:%n")
    private SamplingOptions sampling = new SamplingOptions();

    @ArgGroup(exclusive = false, validate = false, heading = "%nDevice:%n")
    private DeviceOptions device = new DeviceOptions();

    @ArgGroup(exclusive = false, validate = false, heading = "%nOther:%n")
    private CommonOptions common = new CommonOptions();

    private ModelInfo info;

    GenerateCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        GenerationConfig config = sampling.config();
        if (question.prompt != null && (system != null || chatTemplate != null)) {
            throw new IllegalArgumentException(
                    "--system and --chat-template are not for --prompt, which is taken as it stands");
        }
        try (Model base = Model.load(HubFiles.model(terminal, model), device.config());
                Adapter tuned = AdapterName.load(terminal, base, adapters);
                Generator generator = new Generator(base, tuned)) {
            info = base.info();
            PromptTemplate template = question.prompt != null
                    ? null
                    : chatTemplate == null ? generator.template() : DataOptions.chatTemplate(base, chatTemplate, null);
            terminal.err().println(terminal.faint("device: " + info.deviceInWords()));
            if (question.prompt != null) {
                show(generator.generate(question.prompt, config));
                return ExitCode.OK;
            }
            List<Message> messages = new ArrayList<>();
            if (system != null) {
                messages.add(Message.system(system));
            }
            if (question.chat) {
                ChatHistory history = new ChatHistory(
                        template,
                        system,
                        base.tokenizer(),
                        info.contextLength(),
                        config.maxNewTokens(),
                        terminal.err()::println);
                chat(generator, template, history, config);
            } else {
                messages.add(Message.user(question.instruction));
                show(generator.chat(messages, template, config));
            }
        }
        return ExitCode.OK;
    }

    /** Question and answer by turns, until there are no more questions. */
    private void chat(Generator generator, PromptTemplate template, ChatHistory history, GenerationConfig config) {
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
                if (!line.isBlank()) {
                    history.answered(show(generator.chat(history.ask(line), template, config)));
                }
            }
        } catch (IOException e) {
            throw new FileAccessException("standard input cannot be read: " + e.getMessage(), e);
        }
    }

    /** Prints a text while it comes; returns it. */
    private String show(Generation generation) {
        for (String piece : generation) {
            terminal.out().print(piece);
            terminal.out().flush();
        }
        terminal.out().println();
        GenerationResult result = generation.result();
        if (terminal.json()) {
            Map<String, Object> json = json(result);
            json.put("device", info.device());
            json.put("device_detail", info.deviceDetail());
            json.put("device_reason", info.deviceReason());
            terminal.printJson(json);
        } else if (terminal.errIsTerminal()) {
            terminal.err().println(terminal.faint(summary(result)));
        }
        return result.text();
    }

    private static String summary(GenerationResult result) {
        String why =
                switch (result.finishReason()) {
                    case END_OF_TEXT -> "";
                    case STOP_STRING -> ", ended by a stop string";
                    case MAX_NEW_TOKENS -> ", ended by --max-tokens";
                    case CONTEXT_FULL -> ", ended because the model's context is full";
                    case CANCELLED -> ", cancelled";
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
