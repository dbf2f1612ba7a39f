package dev.lorica.cli;

import dev.lorica.Adapter;
import dev.lorica.Generation;
import dev.lorica.GenerationConfig;
import dev.lorica.GenerationResult;
import dev.lorica.Generator;
import dev.lorica.Model;
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
        customSynopsis = "lorica generate --model FILE [--adapter DIR|FILE[:SCALE]]… (-i TEXT | -p TEXT) [OPTION]…",
        optionListHeading = "%nWhat to ask:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica generate --model llama.gguf --adapter my-adapter --instruction \"Who is Mr. Collins?\"",
            "  lorica generate --model llama.gguf --adapter austen --adapter brief:0.5 -i \"Who is Mr. Collins?\"",
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
            description = "An adapter trained on it: its folder, a GGUF LoRA file" + HubFiles.OR_HUB + ". " + AdapterName.DESCRIPTION)
    private List<String> adapters = new ArrayList<>();

    @ArgGroup(multiplicity = "1")
    private Question question;

    /** One of the two. */
    static final class Question {
        @Option(
                names = {"-i", "--instruction"},
                paramLabel = "TEXT",
                description = "A question; it is put into the template that the adapter was trained with.")
        private String instruction;

        @Option(
                names = {"-p", "--prompt"},
                paramLabel = "TEXT",
                description = "A beginning, taken as it stands.")
        private String prompt;
    }

    @ArgGroup(exclusive = false, validate = false, heading = "%nSampling:%n")
    private SamplingOptions sampling = new SamplingOptions();

    @ArgGroup(exclusive = false, validate = false, heading = "%nDevice:%n")
    private DeviceOptions device = new DeviceOptions();

    @ArgGroup(exclusive = false, validate = false, heading = "%nOther:%n")
    private CommonOptions common = new CommonOptions();

    GenerateCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        GenerationConfig config = sampling.config();
        try (Model base = Model.load(HubFiles.model(terminal, model), device.config());
                Adapter tuned = AdapterName.load(terminal, base, adapters);
                Generator generator = new Generator(base, tuned)) {
            Generation generation = question.instruction != null
                    ? generator.ask(question.instruction, config)
                    : generator.generate(question.prompt, config);
            for (String piece : generation) {
                terminal.out().print(piece);
                terminal.out().flush();
            }
            terminal.out().println();
            GenerationResult result = generation.result();
            if (terminal.json()) {
                terminal.printJson(json(result));
            } else if (terminal.errIsTerminal()) {
                terminal.err().println(terminal.faint(summary(result)));
            }
        }
        return ExitCode.OK;
    }

    private static String summary(GenerationResult result) {
        String why =
                switch (result.finishReason()) {
                    case END_OF_TEXT -> "";
                    case STOP_STRING -> ", ended by a stop string";
                    case MAX_NEW_TOKENS -> ", ended by --max-tokens";
                    case CONTEXT_FULL -> ", ended because the model's context is full";
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
