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
import dev.lorica.generate.Generator;
import java.nio.file.Path;
import java.util.ArrayList;
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
        customSynopsis = "lorica generate --model FILE (-i|-p TEXT | --prompts FILE) [OPTION]…",
        optionListHeading = "%nWhat to ask:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica generate --model llama.gguf --adapter my-adapter -i \"Who is he?\"",
            "  lorica generate --model llama.gguf -a austen -a brief:0.5 -i \"Who is he?\"",
            "  lorica generate --model llama.gguf -i \"Who is he?\" --system \"Answer in one sentence.\"",
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
            names = {"-p", "--prompt"},
            paramLabel = "TEXT",
            description = "A beginning, taken as it stands.")
    private String prompt;

    @Option(
            names = "--system",
            paramLabel = "TEXT",
            description = "The system prompt, for what is asked with -i or --prompts.")
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
                            + " wants them, for what is asked with -i.")
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

    private ShownText shown;
    private ExampleEncoder encoder;

    GenerateCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        long ways = Stream.of(instruction != null, prompt != null, prompts != null)
                .filter(given -> given)
                .count();
        if (ways != 1) {
            throw new ParameterException(
                    spec.commandLine(),
                    ways == 0
                            ? "nothing is asked: give --instruction TEXT, --prompt TEXT or --prompts FILE; for a conversation: "
                                    + Shell.program() + " chat"
                            : "--instruction, --prompt and --prompts exclude each other");
        }
        if ((prompts != null) != (output != null)) {
            throw new ParameterException(spec.commandLine(), "--prompts and --output belong together");
        }
        if (prompts != null) {
            if (toolsFile != null) {
                throw new IllegalArgumentException(
                        "--tools is not for --prompts, whose records name tools of their own");
            }
            OutputFile.requirePlace(output);
            new Inputs().add(model).add(prompts).refuse("--output " + output, output);
            HubFiles.fetchData(terminal, List.of(prompts));
            Dataset.check(prompts, FieldNames.NONE, RecordKind.PROMPTS);
        }
        if (prompts == null) {
            GivenOptions.refuse(spec, List.of("--batch-size"), "is for --prompts");
        }
        sampling.check();
        if (prompt != null && (system != null || chatTemplate != null || toolsFile != null)) {
            throw new IllegalArgumentException(
                    "--system, --tools and --chat-template are not for --prompt, which is taken as it stands");
        }
        Object tools = toolsFile == null ? null : Tools.read(toolsFile);
        try (Model base = AdapterName.base(terminal, model, device.config(), adapters);
                Adapter tuned = AdapterName.load(terminal, base, adapters);
                Generator generator = new Generator(base, tuned)) {
            ModelInfo info = base.info();
            shown = new ShownText(terminal, info);
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
                if (prompt.isEmpty() && base.tokenizer().encode("", true, false).length == 0) {
                    throw new IllegalArgumentException(
                            "--prompt is empty, and this model has no token that begins a text; give a word");
                }
                showAll(generator, encoder.prompt(prompt, ""));
                return ExitCode.OK;
            }
            List<Message> messages = new ArrayList<>();
            if (system != null) {
                messages.add(Message.system(system));
            }
            messages.add(Message.user(instruction));
            showAll(generator, ids(new Conversation(messages, tools)));
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
            long seed = sampling.seed + i;
            texts.add(ShownText.json(shown.show(generator.generate(ids, sampling.config(seed, ids.length)))));
        }
        if (terminal.json()) {
            Map<String, Object> json = texts.get(0);
            if (texts.size() > 1) {
                json.put("texts", texts.stream().map(text -> text.get("text")).toList());
            }
            shown.printJson(json);
        }
    }
}
