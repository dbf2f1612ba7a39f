package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataReport;
import dev.lorica.data.Dataset;
import dev.lorica.data.FieldNames;
import dev.lorica.data.Labels;
import dev.lorica.data.Overflow;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TextTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.data.Unshown;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.Setting;
import dev.lorica.train.SettingDefinition;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;
import java.util.stream.Stream;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;

/** Which fields of a data file are used, and how they become tokens. */
@Section("Data")
final class DataOptions extends SettingOptions {
    static final int DEFAULT_MAX_LENGTH = (Integer) Setting.MAX_LENGTH.initial();

    /** Names under which other tools ask for the template that the model carries. */
    private static final List<String> OF_THE_MODEL = List.of("model", "tokenizer_default", "default");

    @Option(
            names = "--prompt-field",
            paramLabel = "NAME",
            description = "Field with the prompt. Default: found by itself.")
    String promptField;

    @Option(
            names = "--input-field",
            paramLabel = "NAME",
            description = "Field with what the prompt is to be applied to. Default: input or context.")
    String inputField;

    @Option(
            names = "--response-field",
            paramLabel = "NAME",
            description = "Field with the response. Default: found by itself.")
    String responseField;

    @Option(
            names = "--system-field",
            paramLabel = "NAME",
            description = "Field with the system prompt. Default: system.")
    String systemField;

    @Option(
            names = "--messages-field",
            paramLabel = "NAME",
            description = "Field with the messages of a conversation. Default: messages or conversations.")
    String messagesField;

    @Option(
            names = "--text-field",
            paramLabel = "NAME",
            description = "Field with plain texts, all of which is learned.")
    String textField;

    @Option(
            names = "--label-field",
            paramLabel = "NAME",
            description = "Train a classifier: field with what is to be said of a text (a name, a number, or a list of"
                    + " several). The text is in --text-field; default: text or sentence.")
    String labelField;

    @Option(
            names = "--text-pair-field",
            paramLabel = "NAME",
            description = "Field with a second text, of a classifier of two.")
    String textPairField;

    @Option(
            names = "--weight-field",
            paramLabel = "NAME",
            description =
                    "Field with how much the loss of a record counts, a number; 0: it is not learned; none: no field is."
                            + " Default: weight, where it is a number. Messages have a weight of their own.")
    String weightField;

    @Option(
            names = "--template",
            paramLabel = "NAME|FILE",
            description =
                    "What stands around a prompt: instruction (### Instruction: … ### Response: …), plain (nothing),"
                            + " chat (the model's chat template), or a YAML file with prompt and prompt_with_input, in"
                            + " which {instruction}, {input} and {system} stand. Default: chat for conversations, plain"
                            + " for texts and for prompts that carry ### Response: already, else instruction.")
    String template;

    @Option(
            names = "--chat-template",
            paramLabel = "NAME|FILE",
            description = "A chat template instead of the model's own: a file with Jinja, or chatml, llama3, zephyr, … "
                    + "(another name shows all). Questions with answers are put into it too; model is the model's own.")
    String chatTemplate;

    @Option(
            names = "--system",
            paramLabel = "TEXT",
            description = "System prompt of conversations that have none; recorded with the adapter.")
    String system;

    @Option(
            names = "--overflow",
            paramLabel = "WAY",
            description = "What becomes of longer examples: drop, truncate or error. They are counted and reported. "
                    + "Default: ${DEFAULT-VALUE}")
    String overflow = "drop";

    @Option(
            names = "--unshown",
            paramLabel = "WAY",
            description = "What becomes of conversations that the chat template cannot show or does not take: skip or "
                    + "error. They are counted and reported. Default: ${DEFAULT-VALUE}")
    String unshown = "skip";

    @Option(names = "--max-samples", paramLabel = "N", description = "Take the first N records of each data file only.")
    Integer maxSamples;

    @Option(names = "--train-on-prompt", description = "Learn the prompts too, not only responses.")
    boolean trainOnPrompt;

    /** What a record is to be. */
    RecordKind records = RecordKind.ANSWERS;

    @Override
    List<Setting> settings() {
        return List.of(Setting.MAX_LENGTH);
    }

    @Override
    void adapt(SettingDefinition setting, OptionSpec.Builder option) {
        option.initialValue(null); // follows from the model
    }

    /** {@code null} where nothing was said. */
    Integer maxLength() {
        return value(Setting.MAX_LENGTH);
    }

    /** Whether records are texts with labels; what makes no sense with them is refused. */
    boolean classifies() {
        if (labelField == null && textPairField != null) {
            throw new InvalidArgumentException("--text-pair-field belongs to a classifier; name its --label-field");
        }
        boolean other = promptField != null
                || inputField != null
                || responseField != null
                || systemField != null
                || messagesField != null
                || template != null
                || chatTemplate != null
                || system != null
                || trainOnPrompt;
        if (labelField != null && other) {
            throw new InvalidArgumentException("--label-field is for texts with labels: only --text-field and"
                    + " --text-pair-field go with it, and no template, prompts or answers");
        }
        if (labelField != null) {
            records = RecordKind.CLASSES;
        }
        return labelField != null;
    }

    /** What texts with labels do not obey: longer ones are cut, and each counts as much as another of its class. */
    static void refuseForClassifiers(CommandSpec command) {
        GivenOptions.refuse(
                command,
                List.of("--overflow", "--unshown", "--weight-field"),
                "is not for texts with labels: longer ones are cut at --max-length, and all count alike"
                        + " but for --class-weights");
    }

    /** What there is to be said of the texts of all these. */
    Labels labels(List<DataSource> sources) {
        return Labels.of(sources.stream().map(source -> load(source.path())).toList());
    }

    /** All files as one, each as often as it weighs. */
    TokenizedDataset classified(
            List<DataSource> sources, Model model, Labels labels, long seed, Consumer<DataReport> each) {
        List<TokenizedDataset> parts = new ArrayList<>();
        for (DataSource source : sources) {
            TokenizedDataset part = classified(load(source.path()), model, labels);
            each.accept(part.report());
            parts.add(part.weighted(source.weight(), seed + parts.size()));
        }
        return TokenizedDataset.concat(parts);
    }

    /** Texts with labels as a classifier of this model reads them. */
    TokenizedDataset classified(Dataset data, Model model, Labels labels) {
        int context = model.info().contextLength();
        int length = maxLength() != null ? Math.min(maxLength(), context) : defaultMaxLength(context);
        return TokenizedDataset.classified(data, model.tokenizer(), labels, length);
    }

    Dataset load(Path file) {
        return load(file, maxSamples, "--max-samples");
    }

    /** @param most records to take; {@code null}: all */
    Dataset load(Path file, Integer most, String option) {
        if (most != null && most < 1) {
            throw new InvalidArgumentException(option + " cannot be " + most + "; it is 1 or more");
        }
        Dataset all = Dataset.load(file, fieldNames(), records);
        return most == null ? all : all.first(most);
    }

    /** Whether such files can be what is meant, before a model is loaded or even downloaded for them. */
    void check(List<Path> files) {
        if (trainOnPrompt && records != RecordKind.ANSWERS) {
            throw new InvalidArgumentException(
                    "--train-on-prompt is for --objective sft; a preference is one of answers to the same prompt");
        }
        files.forEach(file -> Dataset.check(file, fieldNames(), records));
    }

    /** Those of its values that are files. */
    List<Path> files() {
        return Stream.of(template, chatTemplate)
                .filter(Objects::nonNull)
                .map(Path::of)
                .filter(Files::exists)
                .toList();
    }

    private FieldNames fieldNames() {
        return classifies()
                ? FieldNames.classes(textField, textPairField, labelField)
                : new FieldNames(promptField, inputField, responseField, systemField, messagesField, textField)
                        .withWeight("none".equals(weightField) ? "" : weightField);
    }

    static int defaultMaxLength(int modelContext) {
        return Math.min(DEFAULT_MAX_LENGTH, modelContext);
    }

    /** What was asked for; the template is {@code null} where none was. */
    DataConfig config(Model model) {
        return config(model.tokenizer().info(), model.info().contextLength());
    }

    DataConfig config(TokenizerInfo tokenizer, int modelContext) {
        int length = maxLength() != null ? maxLength() : defaultMaxLength(modelContext);
        return new DataConfig(
                template(tokenizer),
                length,
                Choices.of("--overflow", overflow, Overflow.class),
                trainOnPrompt,
                Choices.of("--unshown", unshown, Unshown.class));
    }

    static DataConfig withTemplate(DataConfig config, PromptTemplate template) {
        return config.withTemplate(template);
    }

    /** Several files in one, each as often as it weighs; {@code each} hears of every file. */
    TokenizedDataset examples(
            List<DataSource> sources, Tokenizer tokenizer, DataConfig config, long seed, Consumer<DataReport> each) {
        List<TokenizedDataset> parts = new ArrayList<>();
        for (DataSource source : sources) {
            Dataset data = load(source.path());
            TokenizedDataset part = tokenized(data, tokenizer, configFor(data, tokenizer.info(), config));
            each.accept(part.report());
            parts.add(part.weighted(source.weight(), seed + parts.size()));
        }
        return TokenizedDataset.concat(parts);
    }

    TokenizedDataset tokenized(Dataset data, Tokenizer tokenizer, DataConfig config) {
        return records == RecordKind.PROMPTS
                ? TokenizedDataset.prompts(data, tokenizer, config)
                : TokenizedDataset.of(data, tokenizer, config);
    }

    /** Plain texts stay plain beside data for which a template was chosen; conversations get the system prompt. */
    private DataConfig configFor(Dataset data, TokenizerInfo tokenizer, DataConfig config) {
        if (config.template() != null) {
            return data.fields().isText() ? withTemplate(config, PromptTemplate.PLAIN) : config;
        }
        PromptTemplate own = PromptTemplate.forDataset(data, tokenizer);
        if (system == null) {
            return withTemplate(config, own);
        }
        if (own instanceof ChatTemplate chat) {
            return withTemplate(config, chat.withSystem(system));
        }
        throw new InvalidArgumentException("--system is for conversations; for " + data.name()
                + " take --template chat, or another chat template with --chat-template");
    }

    /** {@code null}: each data set's own. */
    private PromptTemplate template(TokenizerInfo tokenizer) {
        if (template != null
                && chatTemplate == null
                && ChatTemplate.named(template).isPresent()) {
            // LLaMA-Factory's template: llama3
            chatTemplate = template;
            template = null;
        }
        boolean chat = "chat".equals(template);
        if (template != null && !chat && chatTemplate != null) {
            throw new InvalidArgumentException("--template and --chat-template exclude each other");
        }
        if (chat || chatTemplate != null) {
            ChatTemplate found = chatTemplate(tokenizer, chatTemplate == null ? "model" : chatTemplate);
            return system == null ? found : found.withSystem(system);
        }
        if (template == null) {
            return null;
        }
        if (system != null) {
            throw new InvalidArgumentException("--system is for conversations; template \"" + template + "\" has none");
        }
        Path file = Path.of(template);
        if (template.contains(".") || template.contains("/") || Files.exists(file)) {
            template = file.toAbsolutePath().normalize().toString();
            return TemplateFile.read(file);
        }
        return PromptTemplate.named(template);
    }

    private ChatTemplate chatTemplate(TokenizerInfo tokenizer, String name) {
        if (OF_THE_MODEL.contains(name)) {
            return ChatTemplate.of(tokenizer)
                    .orElseThrow(() -> new InvalidArgumentException("the model has no chat template; choose one with "
                            + "--chat-template: a file, or " + ChatTemplate.namesInWords()));
        }
        if (Files.exists(Path.of(name)) || name.contains("/") || name.endsWith(".jinja")) {
            chatTemplate = Path.of(name).toAbsolutePath().normalize().toString();
            return ChatTemplate.load(Path.of(name));
        }
        return ChatTemplate.named(name)
                .orElseThrow(() -> new InvalidArgumentException("no chat template is called \"" + name
                        + "\"; there are model, " + ChatTemplate.namesInWords() + ", and files"));
    }

    /** The template in which a model is asked that no adapter has one for. */
    static PromptTemplate chatTemplate(Model model, String name, String system) {
        DataOptions options = new DataOptions();
        options.chatTemplate = name;
        options.system = system;
        return options.template(model.tokenizer().info());
    }

    static String templateInWords(PromptTemplate template) {
        return template instanceof TextTemplate
                ? "template " + template.name()
                : "chat template " + (template.name().equals("the model's") ? "of the model" : template.name());
    }
}
