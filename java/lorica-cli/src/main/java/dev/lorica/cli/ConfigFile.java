package dev.lorica.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.train.TrainingConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/**
 * A YAML file with options, as {@code --config} takes it: every key is the name of an option, ours or another tool's, with
 * {@code _} or {@code -}. What the command line says too is taken from there. Keys of Hugging Face's, Axolotl's and
 * LLaMA-Factory's files that ask for what is done anyway, or that mean nothing here, are accepted; any other is an error.
 */
final class ConfigFile {
    /** The option on the left, when given on the command line, also sets aside the one on the right in the file. */
    private static final Map<String, List<String>> SETS_ASIDE = Map.ofEntries(
            Map.entry("--warmup-ratio", List.of("--warmup-steps")),
            Map.entry("--eval-steps", List.of("--eval-strategy", "--evals-per-epoch")),
            Map.entry("--save-steps", List.of("--save-strategy", "--saves-per-epoch")),
            Map.entry("--eval-strategy", List.of("--evals-per-epoch")),
            Map.entry("--save-strategy", List.of("--saves-per-epoch")),
            Map.entry("--evals-per-epoch", List.of("--eval-strategy", "--eval-steps")),
            Map.entry("--saves-per-epoch", List.of("--save-strategy", "--save-steps")),
            Map.entry("--layers-to-transform", List.of("--num-layers")),
            Map.entry("--num-layers", List.of("--layers-to-transform")),
            Map.entry("--epochs", List.of("--max-steps")),
            Map.entry("--text-field", List.of("--prompt-field")),
            Map.entry("--prompt-field", List.of("--text-field")),
            Map.entry("--eval-data", List.of("--eval-split")),
            Map.entry("--eval-split", List.of("--eval-data")));

    /** What messages begin with: {@code --config FILE: }, or nothing. */
    private final String where;

    private final CommandSpec command;
    private final List<String> options = new ArrayList<>();
    private final Set<OptionSpec> given;
    private final List<String> meaningless = new ArrayList<>();
    private final List<String> notDone = new ArrayList<>();
    private final List<String> unknown = new ArrayList<>();
    private final List<String> faults = new ArrayList<>();

    private JsonNode settings = MissingNode.getInstance();

    private ConfigFile(String where, CommandSpec command, Set<OptionSpec> given) {
        this.where = where;
        this.command = command;
        this.given = given;
    }

    /**
     * The arguments with what the file of {@code --config} says put before them, and with settings of other programs among them
     * ({@code --bf16}, {@code --bias none}) taken for what they mean.
     *
     * @param args of the program, our names for options in them
     * @param note for what is said of the settings that do nothing
     */
    static String[] expand(CommandSpec command, String[] args, Consumer<String> note) {
        int start = Arrays.asList(args).indexOf(command.name()) + 1;
        List<String> ours = ownOptions(command, Arrays.asList(args).subList(start, args.length), note);
        Path file = null;
        Set<OptionSpec> given = new HashSet<>();
        for (int i = 0; i < ours.size(); i++) {
            int equals = ours.get(i).indexOf('=');
            OptionSpec option =
                    option(command, equals < 0 ? ours.get(i) : ours.get(i).substring(0, equals));
            if (option == null) {
                continue;
            }
            given.add(option);
            for (String name : SETS_ASIDE.getOrDefault(option.longestName(), List.of())) {
                OptionSpec aside = command.findOption(name);
                if (aside != null) {
                    given.add(aside);
                }
            }
            if (option.longestName().equals("--config")) {
                if (file != null || equals < 0 && i + 1 == ours.size()) {
                    return args; // which is then found wrong
                }
                file = FileName.of(equals < 0 ? ours.get(i + 1) : ours.get(i).substring(equals + 1));
            }
            if (equals < 0 && option.arity().min() > 0) {
                i++; // its value is none, whatever it is
            }
        }
        List<String> all = new ArrayList<>(Arrays.asList(args).subList(0, start));
        if (file != null) {
            ConfigFile config = new ConfigFile("--config " + file + ": ", command, given);
            config.read(file);
            config.report(file + ": ", note);
            all.addAll(config.options);
        }
        all.addAll(ours);
        return all.toArray(String[]::new);
    }

    /** Options of other programs, which picocli would not know, as options of ours; {@code --use-dora True} as a flag. */
    private static List<String> ownOptions(CommandSpec command, List<String> args, Consumer<String> note) {
        ConfigFile foreign = new ConfigFile("", command, Set.of());
        foreign.settings = metricForBestModel(args);
        List<String> ours = new ArrayList<>();
        for (int i = 0; i < args.size(); i++) {
            String arg = args.get(i);
            int equals = arg.indexOf('=');
            String written = equals < 0 ? arg : arg.substring(0, equals);
            OptionSpec option = option(command, written);
            String value = equals >= 0 ? arg.substring(equals + 1) : i + 1 < args.size() ? args.get(i + 1) : null;
            boolean isFlag = option != null && option.arity().max() == 0;
            String name =
                    written.replaceFirst("^--?", "").toLowerCase(Locale.ROOT).replace('-', '_');
            if (isFlag && value != null && value.toLowerCase(Locale.ROOT).matches("true|false")) {
                if (value.equalsIgnoreCase("true")) {
                    ours.add(written);
                }
                i += equals < 0 ? 1 : 0;
            } else if (option != null) {
                ours.add(arg);
                if (equals < 0 && !isFlag && option.arity().min() > 0 && value != null) {
                    ours.add(value);
                    i++;
                }
            } else if (arg.startsWith("--") && foreign.understands(name)) {
                boolean hasValue = equals >= 0 || value != null && !value.matches("-[^0-9.].*");
                foreign.takeAll(written, new TextNode(hasValue ? value : "true"));
                i += equals < 0 && hasValue ? 1 : 0;
            } else {
                ours.add(arg);
            }
        }
        foreign.report("", note);
        ours.addAll(foreign.options);
        return ours;
    }

    /** That of a word with dashes; picocli would find {@code -c} by a {@code c} that is somebody's value. */
    private static OptionSpec option(CommandSpec command, String word) {
        return word.startsWith("-") ? command.findOption(word) : null;
    }

    /** What says which way {@code --greater-is-better} goes. */
    private static JsonNode metricForBestModel(List<String> args) {
        String option = "--metric-for-best-model";
        for (int i = 0; i < args.size(); i++) {
            boolean apart = args.get(i).equals(option) && i + 1 < args.size();
            if (apart || args.get(i).startsWith(option + "=")) {
                return new ObjectMapper()
                        .createObjectNode()
                        .put(
                                "metric_for_best_model",
                                apart ? args.get(i + 1) : args.get(i).substring(option.length() + 1));
            }
        }
        return MissingNode.getInstance();
    }

    /** Whether this is a setting of another program that is no option of the command. */
    private boolean understands(String name) {
        return ForeignKeys.isKnown(name) || SPECIAL.contains(name);
    }

    /** Says what does nothing. Everything that is wrong is said at once. */
    private void report(String prefix, Consumer<String> note) {
        if (!unknown.isEmpty()) {
            faults.add(
                    0,
                    (unknown.size() == 1 ? "no option is called " : "no options are called ")
                            + String.join(", ", unknown));
        }
        if (!faults.isEmpty()) {
            throw new FileFormatException(where + String.join("; ", faults));
        }
        if (!notDone.isEmpty()) {
            note.accept("note: " + prefix + "asked for, and will not happen: " + String.join(", ", notDone));
        }
        if (!meaningless.isEmpty()) {
            note.accept("note: " + prefix + "these mean nothing here: " + String.join(", ", meaningless));
        }
    }

    private void read(Path file) {
        JsonNode root = YamlFile.read("--config", file);
        if (!root.isObject()) {
            throw new FileFormatException("--config " + file + " is not a list of options, one \"name: value\" a line");
        }
        settings = root;
        root.fields().forEachRemaining(field -> takeAll(field.getKey(), field.getValue()));
    }

    private void takeAll(String key, JsonNode value) {
        try {
            take(key, value);
        } catch (Fault e) {
            faults.add(e.getMessage());
        }
    }

    /** One of perhaps many things that are wrong. */
    private static final class Fault extends RuntimeException {
        private static final long serialVersionUID = 1;

        Fault(String message) {
            super(message, null, false, false);
        }
    }

    /** Keys that take more than another name. */
    private static final Set<String> SPECIAL = Set.of(
            "adapter",
            "adapter_path",
            "datasets",
            "test_datasets",
            "val_size",
            "val_set_size",
            "lora_target_linear",
            "lora_target",
            "lr_scheduler_kwargs",
            "special_tokens",
            "fine_tune_type",
            "lora_parameters",
            "lr_schedule",
            "optimizer_config",
            "push_to_hub",
            "hub_model_id",
            "greater_is_better",
            "mask_prompt",
            "val_batches");

    private void take(String key, JsonNode value) {
        String name = key.replaceFirst("^--", "").toLowerCase(Locale.ROOT).replace('-', '_');
        if (value.isNull()) {
            return;
        }
        switch (name) {
            case "adapter" -> {
                // Axolotl's word for the kind of adapter, ours for one to begin with.
                if (!Set.of("lora", "qlora").contains(value.asText())) {
                    option(key, "--adapter", value);
                }
            }
            case "adapter_path" -> option(key, "--output", value); // mlx-lm's
            case "data" -> data(key, value);
            case "dataset" -> dataset(key, "--data", value);
            case "eval_dataset" -> dataset(key, "--eval-data", value);
            case "datasets" -> datasets(key, value, "--data");
            case "test_datasets" -> datasets(key, value, "--eval-data");
            case "val_size", "val_set_size" -> {
                double share = value.asDouble();
                if (share >= 1) {
                    throw new Fault(key + " is " + text(key, value) + "; a share of the data is meant, such as 0.1");
                }
                if (share > 0) {
                    option(key, "--eval-split", value);
                }
            }
            case "lora_target_linear" -> {
                if (value.asBoolean()) {
                    option(key, "--target-modules", "all-linear");
                }
            }
            case "lora_target" ->
                option(key, "--target-modules", value.asText().equals("all") ? "all-linear" : text(key, value));
            case "lr_scheduler_kwargs" ->
                each(key, value, (inner, kwarg) -> {
                    switch (inner) {
                        case "min_lr", "lr_end" -> option(key, "--min-learning-rate", kwarg);
                        case "min_lr_rate", "min_lr_ratio" -> {
                            double peak = settings.path("learning_rate")
                                    .asDouble(TrainingConfig.defaults().learningRate());
                            option(key, "--min-learning-rate", Double.toString(peak * kwarg.asDouble()));
                        }
                        case "power" -> option(key, "--lr-scheduler-power", kwarg);
                        case "num_cycles" -> option(key, "--lr-scheduler-num-cycles", kwarg);
                        case "num_decay_steps" -> option(key, "--lr-decay-steps", kwarg);
                        case "timescale" -> option(key, "--lr-timescale", kwarg);
                        case "warmup_type", "decay_type" -> {
                            String only = inner.equals("warmup_type") ? "linear" : "cosine";
                            if (!kwarg.asText().equals(only)) {
                                throw new Fault(
                                        key + "." + inner + " cannot be " + kwarg.asText() + " here, only " + only);
                            }
                        }
                        default -> unknown.add("\"" + key + "." + inner + "\"");
                    }
                });
            case "special_tokens" ->
                each(key, value, (inner, token) -> {
                    if (inner.equals("pad_token")) {
                        meaningless.add(key + "." + inner);
                    } else if (!ForeignKeys.isOff(token)) {
                        throw new Fault(
                                key + "." + inner + " is not supported: the tokens of the model's file are used");
                    }
                });
            case "fine_tune_type" -> {
                switch (value.asText()) {
                    case "lora" -> {}
                    case "dora" -> option(key, "--use-dora", "true");
                    case "full" -> option(key, "--method", "full");
                    default -> throw new Fault(key + " cannot be " + value.asText() + " here, only dora, full or lora");
                }
            }
            case "lora_parameters" -> loraParameters(key, value);
            case "lr_schedule" -> schedule(key, value);
            case "optimizer_config" ->
                each(
                        key,
                        value,
                        (optimizer, settings) -> each(key + "." + optimizer, settings, (inner, setting) -> {
                            switch (inner) {
                                case "weight_decay" -> option(key, "--weight-decay", setting);
                                case "eps" -> option(key, "--adam-epsilon", setting);
                                case "betas" -> {
                                    option(key, "--adam-beta1", setting.path(0));
                                    option(key, "--adam-beta2", setting.path(1));
                                }
                                case "bias_correction" -> {
                                    if (!setting.asBoolean()) {
                                        throw new Fault(key + ".bias_correction cannot be false here");
                                    }
                                }
                                default -> unknown.add("\"" + key + "." + inner + "\"");
                            }
                        }));
            case "push_to_hub" -> push(key, value);
            case "hub_model_id" -> {
                if (!settings.path("push_to_hub").asBoolean(false)) {
                    meaningless.add(key);
                }
            }
            case "greater_is_better" -> {
                String best = settings.path("metric_for_best_model").asText("loss");
                boolean greater = !best.endsWith("loss");
                if (ForeignKeys.isOff(value) == greater) {
                    throw new Fault(key + " cannot be " + value.asText() + " here: of " + best + " the "
                            + (greater ? "greatest" : "smallest") + " is the best");
                }
            }
            case "mask_prompt" -> { // mlx-lm's
                if (ForeignKeys.isOff(value)) {
                    option(key, "--train-on-prompt", "true");
                }
            }
            case "val_batches" -> {
                if (value.asInt() > 0) {
                    int batch = settings.path("batch_size").asInt(4);
                    option(key, "--max-eval-samples", Long.toString((long) value.asInt() * batch));
                }
            }
            default -> plain(key, name, value);
        }
    }

    /** Hugging Face's {@code push_to_hub: true} with {@code hub_model_id} beside it, and ours, which says where. */
    private void push(String key, JsonNode value) {
        boolean isTrue = value.asText().equalsIgnoreCase("true");
        JsonNode where = isTrue ? settings.path("hub_model_id") : value;
        if (ForeignKeys.isOff(value)) {
            return;
        }
        if (ForeignKeys.isOff(where) || where.isMissingNode()) {
            notDone.add(key + " (hub_model_id does not say where)");
        } else {
            option(key, "--push-to-hub", where);
        }
    }

    private interface Entry {
        void take(String key, JsonNode value);
    }

    private static void each(String key, JsonNode object, Entry entry) {
        if (!object.isObject() && !ForeignKeys.isOff(object)) {
            throw new Fault(key + " must have names and values in it");
        }
        object.fields().forEachRemaining(field -> entry.take(field.getKey(), field.getValue()));
    }

    /** What mlx-lm's YAML says of the adapter: its scale multiplies B A itself. */
    private void loraParameters(String key, JsonNode value) {
        double rank = value.path("rank").asDouble(8);
        each(key, value, (inner, setting) -> {
            switch (inner) {
                case "rank" -> option(key, "--lora-r", setting);
                case "scale" -> option(key, "--lora-alpha", Double.toString(setting.asDouble() * rank));
                case "alpha" -> option(key, "--lora-alpha", setting);
                case "dropout" -> option(key, "--lora-dropout", setting);
                case "keys" -> {
                    List<String> names = new ArrayList<>();
                    setting.forEach(name -> names.add(name.asText().replaceFirst("^.*\\.", "")));
                    option(key, "--target-modules", String.join(",", names));
                }
                default -> unknown.add("\"" + key + "." + inner + "\"");
            }
        });
    }

    /** mlx-lm's: {@code {name: cosine_decay, warmup: 100, warmup_init: 0, arguments: [1e-5, 1000, 1e-7]}}. */
    private void schedule(String key, JsonNode value) {
        JsonNode arguments = value.path("arguments");
        String name = value.path("name").asText();
        if (!name.equals("cosine_decay") && !name.equals("linear_schedule")) {
            throw new Fault(key + ".name cannot be " + name + " here, only cosine_decay or linear_schedule");
        }
        if (value.path("warmup_init").asDouble(0) > 1e-6) {
            throw new Fault(key + ".warmup_init is " + value.path("warmup_init").asText() + "; the rate rises from 0");
        }
        boolean cosine = name.equals("cosine_decay");
        option(key, "--lr-scheduler-type", cosine ? "cosine" : "polynomial");
        option(key, "--learning-rate", arguments.path(0));
        if (arguments.path(cosine ? 2 : 1).asDouble(0) > 0) {
            option(key, "--min-learning-rate", arguments.path(cosine ? 2 : 1));
        }
        if (value.path("warmup").asInt(0) > 0) {
            option(key, "--warmup-steps", value.path("warmup"));
        }
    }

    private void plain(String key, String name, JsonNode value) {
        switch (ForeignKeys.of(name, value)) {
            case DONE_ANYWAY -> {}
            case MEANS_NOTHING -> meaningless.add(key);
            case WILL_NOT_HAPPEN -> notDone.add(key);
            case REFUSED -> throw new Fault(ForeignKeys.refusal(key, name, value));
            case UNKNOWN -> {
                if (command.findOption(Spelling.ours(name)) != null
                        && !Spelling.ours(name).equals("--config")) {
                    option(key, Spelling.ours(name), value);
                } else {
                    String meant = closest(name);
                    unknown.add("\"" + key + "\"" + (meant.isEmpty() ? "" : " (did you mean " + meant + "?)"));
                }
            }
        }
    }

    /** Fields of an entry of Axolotl's {@code datasets} that are options of ours. */
    private static final Set<String> OF_A_DATASET = Set.of(
            "field_messages", "field_instruction", "field_input", "field_output", "field_system", "chat_template");

    /** Fields that describe what is found out, or done, anyway. */
    private static final Set<String> NOTHING_NEW_OF_A_DATASET = Set.of(
            "path",
            "data_files",
            "ds_type",
            "split",
            "roles_to_train",
            "train_on_eos",
            "message_field_role",
            "message_field_content",
            "message_property_mappings",
            "roles");

    /** Types of data sets of Axolotl's, all of which are found out by themselves. */
    private static final Set<String> TYPES = Set.of("alpaca", "chat_template", "sharegpt", "completion", "pretrain");

    /** Axolotl's list of data sets, each with {@code path} and {@code type}. */
    private void datasets(String key, JsonNode value, String option) {
        if (!value.isArray() || value.isEmpty()) {
            throw new Fault(key + " must be a list of entries with a path");
        }
        for (JsonNode entry : value) {
            if (!entry.hasNonNull("path")) {
                throw new Fault("an entry of " + key + " has no path");
            }
            // path: json, data_files: chats.jsonl
            JsonNode files = entry.path("data_files");
            boolean isFormat = entry.path("path").asText().matches("json|csv|parquet|text") && !files.isMissingNode();
            option(key, option, isFormat ? files : entry.get("path"));
            entry.fields().forEachRemaining(field -> {
                String name = field.getKey();
                if (name.equals("type")) {
                    type(field.getValue());
                } else if (name.equals("field")) {
                    option(key, "--text-field", field.getValue());
                } else if (OF_A_DATASET.contains(name)) {
                    option(key, Spelling.ours(name), field.getValue());
                } else if (!NOTHING_NEW_OF_A_DATASET.contains(name) && !ForeignKeys.isOff(field.getValue())) {
                    unknown.add("\"" + key + "." + name + "\"");
                }
            });
        }
    }

    private void type(JsonNode type) {
        if (!TYPES.contains(type.asText())) {
            throw new Fault("a data set of type " + type + " is not known, only "
                    + String.join(", ", TYPES.stream().sorted().toList())
                    + "; name its fields with prompt_field, response_field or messages_field");
        }
    }

    /** Where LLaMA-Factory says which columns of a data set are what, and with which option we do. */
    private static final Map<String, String> COLUMNS = Map.of(
            "prompt", "--prompt-field",
            "query", "--input-field",
            "response", "--response-field",
            "system", "--system-field",
            "messages", "--messages-field");

    /** Files, or names in LLaMA-Factory's {@code dataset_info.json}, with commas between them. */
    private void dataset(String key, String option, JsonNode value) {
        if (value.isArray()) {
            value.forEach(one -> dataset(key, option, one));
            return;
        }
        Path folder = Path.of(settings.path("dataset_dir").asText("data"));
        for (String name : value.asText().split(",")) {
            JsonNode known = Files.exists(Path.of(name.strip()))
                    ? MissingNode.getInstance()
                    : info(folder).path(name.strip());
            if (known.isMissingNode()) {
                option(key, option, name.strip());
                continue;
            }
            if (!known.hasNonNull("file_name")) {
                throw new Fault(key + " " + name.strip() + " has no file_name in " + folder.resolve("dataset_info.json")
                        + "; only files of this machine are read");
            }
            if (known.path("ranking").asBoolean(false)) {
                rankingIsForPreferences(key + " " + name.strip());
            }
            option(key, option, folder.resolve(known.get("file_name").asText()).toString());
            known.path("columns").fields().forEachRemaining(column -> {
                String field = COLUMNS.get(column.getKey());
                if (field != null) {
                    option(key, field, column.getValue());
                }
            });
        }
    }

    /** LLaMA-Factory's mark of pairs, which an objective for pairs learns from. */
    private void rankingIsForPreferences(String what) {
        String objective = settings.path("objective").asText("");
        boolean given =
                this.given.stream().anyMatch(option -> option.longestName().equals("--objective"));
        if (objective.isEmpty() && !given) {
            throw new Fault(what + " is for preferences; say with --objective, such as dpo, how they are learned");
        }
    }

    private static JsonNode info(Path folder) {
        Path file = folder.resolve("dataset_info.json");
        try {
            return Files.exists(file) ? new ObjectMapper().readTree(file.toFile()) : MissingNode.getInstance();
        } catch (IOException e) {
            throw new Fault(file + " cannot be read: "
                    + e.getMessage().lines().findFirst().orElse(""));
        }
    }

    /** mlx-lm's folder with {@code train.jsonl} and, if there is one, {@code valid.jsonl}. */
    private void data(String key, JsonNode value) {
        Path folder = Path.of(value.isTextual() ? value.asText() : "");
        if (!value.isTextual() || !Files.exists(folder.resolve("train.jsonl"))) {
            option(key, "--data", value);
            return;
        }
        option(key, "--data", folder.resolve("train.jsonl").toString());
        if (Files.exists(folder.resolve("valid.jsonl"))) {
            option(key, "--eval-data", folder.resolve("valid.jsonl").toString());
        }
    }

    private void option(String key, String name, JsonNode value) {
        OptionSpec option = command.findOption(name);
        if (option == null || value.isMissingNode()) {
            throw new Fault(key + " is not for lorica " + command.name());
        }
        if (value.isObject() && option.typeInfo().isMap()) {
            value.fields()
                    .forEachRemaining(entry -> mapEntry(key, option, entry.getKey(), text(key, entry.getValue())));
        } else if (value.isArray()
                && option.isMultiValue()
                && option.splitRegex().isEmpty()) {
            value.forEach(element -> option(key, name, text(key, element)));
        } else if (option.arity().max() == 0) {
            String flag = text(key, value);
            if (!Set.of("true", "false").contains(flag)) {
                throw new Fault(key + " is " + flag + "; it must be true or false");
            }
            if (flag.equals("true") && !given.contains(option)) {
                options.add(name);
            }
        } else {
            option(key, name, text(key, value));
        }
    }

    private void mapEntry(String key, OptionSpec option, String name, String value) {
        if (name.contains(",")) {
            throw new Fault(key + " has the name \"" + name + "\" with a comma in it");
        }
        if (!given.contains(option)) {
            options.add(option.longestName() + "=" + name + "=" + value);
        }
    }

    private void option(String key, String name, String value) {
        OptionSpec option = command.findOption(name);
        if (option == null) {
            throw new Fault(key + " is not for lorica " + command.name());
        }
        if (given.contains(option)) {
            return;
        }
        boolean same = options.contains(name + "=" + value);
        if (same && !option.isMultiValue()) {
            return;
        }
        boolean twice = !option.isMultiValue() && options.stream().anyMatch(other -> other.startsWith(name + "="));
        if (twice) {
            throw new Fault(key + " sets " + name + ", which another key sets too");
        }
        options.add(name + "=" + value);
    }

    private String text(String key, JsonNode value) {
        if (value.isArray()) {
            List<String> elements = new ArrayList<>();
            value.forEach(element -> elements.add(text(key, element)));
            return String.join(",", elements);
        }
        if (value.isObject()) {
            throw new Fault(key + " must be a value or a list of values");
        }
        return value.asText();
    }

    /** The known name with the fewest letters to change, if these are few. */
    private String closest(String name) {
        Set<String> known = new HashSet<>(Spelling.others());
        command.options().forEach(option -> known.add(option.longestName()));
        known.removeIf(other -> command.findOption(Spelling.ours(other.substring(2))) == null);
        String best = "";
        int fewest = Math.max(2, name.length() / 3) + 1;
        for (String other : known.stream().sorted().toList()) {
            String candidate = other.substring(2).replace('-', '_');
            int changes = Spelling.distance(name, candidate);
            if (changes < fewest) {
                fewest = changes;
                best = candidate;
            }
        }
        return best;
    }
}
