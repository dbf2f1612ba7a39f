package dev.lorica.cli;

import dev.lorica.Model;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica chat}: a conversation with a model. */
@Command(
        name = "chat",
        header = "Talk with a model, and an adapter if you like.",
        description = {
            "",
            "Every line is a question; lines that begin with / are commands, and /help lists them. Ctrl-C stops an answer, Ctrl-D"
                    + " ends. Alt-Enter begins a new line of the same question. Without a terminal the questions are the"
                    + " lines of standard input."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica chat --model FILE [OPTION]…",
        optionListHeading = "%nWith whom:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica chat --model llama.gguf --adapter my-adapter",
            "  lorica chat --model llama.gguf --system \"Answer in one sentence.\"",
            "  lorica chat --model llama.gguf --temperature 0 < questions.txt > answers.txt"
        })
final class ChatCommand implements Callable<Integer> {
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

    @Option(names = "--system", paramLabel = "TEXT", description = "The system prompt.")
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
                            + " wants them.")
    private Path toolsFile;

    @Mixin
    private SamplingOptions sampling = new SamplingOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    ChatCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        sampling.check();
        if (sampling.returnSequences > 1) {
            throw new IllegalArgumentException(
                    "--n is not for a conversation, which goes on with one answer; /retry makes" + " another one");
        }
        Object tools = toolsFile == null ? null : Tools.read(toolsFile);
        try (Model base = AdapterName.base(terminal, model, device.config(), adapters);
                ChatInput input = LineEditor.open(terminal, Chat.words()).orElseGet(() -> new PlainLines(terminal));
                Chat chat = new Chat(terminal, input, base, sampling)) {
            return chat.begin(adapters, chatTemplate, system, tools).run();
        }
    }
}
