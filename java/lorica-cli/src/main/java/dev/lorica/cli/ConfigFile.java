package dev.lorica.cli;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.exceptions.FileFormatException;
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
    /** Keys for which only these values describe what is done here. */
    private static final Map<String, Set<String>> ONLY = Map.ofEntries(
            Map.entry("stage", Set.of("sft")),
            Map.entry("finetuning_type", Set.of("lora")),
            Map.entry("do_train", Set.of("true")),
            Map.entry("peft_type", Set.of("lora")),
            Map.entry("task_type", Set.of("causal_lm")),
            Map.entry("bias", Set.of("none")),
            Map.entry("metric_for_best_model", Set.of("loss", "eval_loss")),
            Map.entry("greater_is_better", Set.of("false")),
            Map.entry("assistant_only_loss", Set.of("true")),
            Map.entry("completion_only_loss", Set.of("true")),
            Map.entry("mask_history", Set.of("false")),
            Map.entry("mask_prompt", Set.of("true")),
            Map.entry("train_on_eos", Set.of("turn")),
            Map.entry("roles_to_train", Set.of("assistant", "gpt")),
            Map.entry("label_smoothing_factor", Set.of("0", "0.0")));

    /** Keys that have no meaning here: about graphics cards, processes, other services, the types of the base's weights. */
    private static final Set<String> MEANINGLESS = Set.of(
            "bf16",
            "fp16",
            "tf32",
            "load_in_4bit",
            "load_in_8bit",
            "quantization_bit",
            "quantization_method",
            "do_eval",
            "do_predict",
            "plot_loss",
            "overwrite_cache",
            "preprocessing_num_workers",
            "dataloader_num_workers",
            "dataloader_pin_memory",
            "ddp_timeout",
            "ddp_find_unused_parameters",
            "trust_remote_code",
            "flash_attention",
            "flash_attn",
            "sdp_attention",
            "xformers_attention",
            "attn_implementation",
            "wandb_project",
            "wandb_entity",
            "wandb_watch",
            "wandb_name",
            "wandb_log_model",
            "run_name",
            "hub_model_id",
            "hub_token",
            "push_to_hub",
            "remove_unused_columns",
            "tokenizer_type",
            "model_type",
            "strict",
            "packing",
            "sample_packing",
            "eval_sample_packing",
            "pad_to_sequence_len",
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "local_rank",
            "save_safetensors",
            "disable_tqdm",
            "dataset_prepared_path",
            "gradient_checkpointing_kwargs",
            "use_reentrant",
            "torch_compile",
            "log_level",
            "logging_strategy",
            "logging_first_step",
            "include_num_input_tokens_seen",
            "use_cache");

    /** The option on the left, when given on the command line, also sets aside the one on the right in the file. */
    private static final Map<String, String> SETS_ASIDE = Map.of(
            "--warmup-ratio", "--warmup-steps",
            "--eval-steps", "--eval-strategy",
            "--save-steps", "--save-strategy",
            "--epochs", "--max-steps",
            "--text-field", "--prompt-field",
            "--prompt-field", "--text-field",
            "--eval-data", "--eval-split",
            "--eval-split", "--eval-data");

    private final Path file;
    private final CommandSpec command;
    private final Consumer<String> note;
    private final List<String> options = new ArrayList<>();
    private final List<String> ignored = new ArrayList<>();
    private final Set<OptionSpec> given;

    private ConfigFile(Path file, CommandSpec command, Set<OptionSpec> given, Consumer<String> note) {
        this.file = file;
        this.command = command;
        this.given = given;
        this.note = note;
    }

    /**
     * The arguments with what the file of {@code --config} says put before them.
     *
     * @param args of the program, our names for options in them
     */
    static String[] expand(CommandSpec command, String[] args, Consumer<String> note) {
        Path file = null;
        Set<OptionSpec> given = new HashSet<>();
        int start = Arrays.asList(args).indexOf(command.name()) + 1;
        for (int i = start; i < args.length; i++) {
            int equals = args[i].indexOf('=');
            OptionSpec option = command.findOption(equals < 0 ? args[i] : args[i].substring(0, equals));
            if (option == null) {
                continue;
            }
            given.add(option);
            OptionSpec aside = command.findOption(SETS_ASIDE.getOrDefault(option.longestName(), ""));
            if (aside != null) {
                given.add(aside);
            }
            if (option.longestName().equals("--config")) {
                if (equals < 0 && i + 1 == args.length) {
                    return args;
                }
                file = Path.of(equals < 0 ? args[i + 1] : args[i].substring(equals + 1));
            }
        }
        if (file == null) {
            return args;
        }
        ConfigFile config = new ConfigFile(file, command, given, note);
        config.read();
        List<String> all = new ArrayList<>(Arrays.asList(args).subList(0, start));
        all.addAll(config.options);
        all.addAll(Arrays.asList(args).subList(start, args.length));
        return all.toArray(String[]::new);
    }

    private void read() {
        JsonNode root = YamlFile.read("--config", file);
        if (!root.isObject()) {
            throw new FileFormatException("--config " + file + " is not a list of options, one \"name: value\" a line");
        }
        root.fields().forEachRemaining(field -> take(field.getKey(), field.getValue()));
        if (!ignored.isEmpty()) {
            note.accept("note: " + file + ": these mean nothing here: " + String.join(", ", ignored));
        }
    }

    private void take(String key, JsonNode value) {
        String name = key.toLowerCase(Locale.ROOT).replace('-', '_');
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
            case "datasets" -> datasets(key, value, "--data");
            case "test_datasets" -> datasets(key, value, "--eval-data");
            case "val_size", "val_set_size" -> {
                double share = value.asDouble();
                if (share >= 1) {
                    throw new FileFormatException("--config " + file + ": " + key + " is " + text(key, value)
                            + "; a share of the data is meant, such as 0.1");
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
                value.fields().forEachRemaining(kwarg -> {
                    switch (kwarg.getKey()) {
                        case "min_lr", "lr_end" -> option(key, "--min-learning-rate", kwarg.getValue());
                        case "power" -> option(key, "--lr-scheduler-power", kwarg.getValue());
                        default -> throw unknown(key + "." + kwarg.getKey(), "");
                    }
                });
            default -> plain(key, name, value);
        }
    }

    private void plain(String key, String name, JsonNode value) {
        Set<String> only = ONLY.get(name);
        if (only != null) {
            if (!only.contains(value.asText().toLowerCase(Locale.ROOT))) {
                throw new FileFormatException(
                        "--config " + file + ": " + key + " cannot be " + value.asText() + " here, only "
                                + String.join(" or ", only.stream().sorted().toList()));
            }
        } else if (MEANINGLESS.contains(name)) {
            ignored.add(key);
        } else if (command.findOption(Spelling.ours(name)) != null
                && !Spelling.ours(name).equals("--config")) {
            option(key, Spelling.ours(name), value);
        } else {
            throw unknown(key, closest(name));
        }
    }

    /** Fields of an entry of Axolotl's {@code datasets} that are options of ours. */
    private static final Set<String> OF_A_DATASET = Set.of(
            "field_messages", "field_instruction", "field_input", "field_output", "field_system", "chat_template");

    /** Types of data sets of Axolotl's, all of which are found out by themselves. */
    private static final Set<String> TYPES = Set.of("alpaca", "chat_template", "sharegpt", "completion", "pretrain");

    /** Axolotl's list of data sets, each with {@code path} and {@code type}. */
    private void datasets(String key, JsonNode value, String option) {
        if (!value.isArray() || value.isEmpty()) {
            throw new FileFormatException("--config " + file + ": " + key + " must be a list of entries with a path");
        }
        for (JsonNode entry : value) {
            if (!entry.hasNonNull("path")) {
                throw new FileFormatException("--config " + file + ": an entry of " + key + " has no path");
            }
            option(key, option, text(key, entry.get("path")));
            entry.fields().forEachRemaining(field -> {
                String name = field.getKey();
                if (name.equals("type")) {
                    type(field.getValue());
                } else if (name.equals("field")) {
                    option(key, "--text-field", field.getValue());
                } else if (OF_A_DATASET.contains(name)) {
                    option(key, Spelling.ours(name), field.getValue());
                } else if (!Set.of("path", "ds_type", "split", "roles_to_train", "train_on_eos")
                        .contains(name)) {
                    throw unknown(key + "." + name, "");
                }
            });
        }
    }

    private void type(JsonNode type) {
        if (!TYPES.contains(type.asText())) {
            throw new FileFormatException("--config " + file + ": a data set of type " + type + " is not known, only "
                    + String.join(", ", TYPES.stream().sorted().toList())
                    + "; name its fields with prompt_field, response_field or messages_field");
        }
    }

    private void option(String key, String name, JsonNode value) {
        OptionSpec option = command.findOption(name);
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
                throw new FileFormatException(
                        "--config " + file + ": " + key + " is " + flag + "; it must be true or false");
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
            throw new FileFormatException(
                    "--config " + file + ": " + key + " has the name \"" + name + "\" with a comma in it");
        }
        if (!given.contains(option)) {
            options.add(option.longestName() + "=" + name + "=" + value);
        }
    }

    private void option(String key, String name, String value) {
        OptionSpec option = command.findOption(name);
        if (given.contains(option)) {
            return;
        }
        boolean same = options.contains(name + "=" + value);
        if (same && !option.isMultiValue()) {
            return;
        }
        boolean twice = !option.isMultiValue() && options.stream().anyMatch(other -> other.startsWith(name + "="));
        if (twice) {
            throw new FileFormatException(
                    "--config " + file + ": " + key + " sets " + name + ", which another key sets too");
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
            throw new FileFormatException("--config " + file + ": " + key + " must be a value or a list of values");
        }
        return value.asText();
    }

    private FileFormatException unknown(String key, String meant) {
        return new FileFormatException("--config " + file + ": no option is called \"" + key + "\""
                + (meant.isEmpty() ? "" : "; did you mean " + meant + "?"));
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
            int changes = distance(name, candidate);
            if (changes < fewest) {
                fewest = changes;
                best = candidate;
            }
        }
        return best;
    }

    /** Letters to insert, delete or replace (Levenshtein). */
    private static int distance(String a, String b) {
        int[] row = new int[b.length() + 1];
        for (int j = 0; j <= b.length(); j++) {
            row[j] = j;
        }
        for (int i = 1; i <= a.length(); i++) {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.length(); j++) {
                int replaced = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.min(replaced, 1 + Math.min(row[j], row[j - 1]));
            }
        }
        return row[b.length()];
    }
}
