package dev.lorica.cli;

import dev.lorica.train.Setting;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import picocli.CommandLine;

/**
 * Understands the spellings of other tools: {@code _} for {@code -} as in Hugging Face's scripts, and the names that
 * Hugging Face, PEFT, TRL, Axolotl, LLaMA-Factory and llama.cpp give to options of ours. They are kept out of the help.
 */
final class Spelling {
    private static final Map<String, String> OURS = new HashMap<>();

    static {
        for (Setting setting : Setting.values()) {
            setting.otherNames().forEach(other -> others("--" + setting.option(), "--" + other));
        }

        others("--model", "--model-name-or-path", "--base-model");
        others("--data", "--train-file", "--dataset", "--dataset-path", "--dataset-name");
        others("--output", "--output-dir", "--save-path", "--gguf-path");
        others("--overwrite", "--overwrite-output-dir", "--overwrite-output");
        others(
                "--adapter",
                "--adapter-name-or-path",
                "--lora",
                "--adapter-path",
                "--resume-adapter-file",
                "--lora-model-dir");
        others("--eval-data", "--validation-file", "--eval-file", "--eval-dataset");

        others("--eval-split", "--val-set-size", "--val-size", "--test-size");

        others("--teacher-model", "--teacher-model-name-or-path");

        others("--prompt-field", "--field-instruction", "--prompt-feature");
        others("--input-field", "--field-input");
        others("--response-field", "--field-output", "--completion-feature");
        others("--system-field", "--field-system");
        others("--messages-field", "--field-messages", "--chat-feature");
        others("--text-field", "--dataset-text-field", "--text-feature");
        others("--chat-template", "--chat-template-path");
        others("--system", "--default-system", "--system-prompt");
        others("--train-on-prompt", "--train-on-prompts", "--train-on-inputs");

        others("--lora-r", "--lora-rank", "--rank", "--r");
        others("--lora-alpha", "--alpha");
        others("--target-modules", "--lora-target-modules", "--lora-target");
        others("--layers-to-transform", "--lora-layers-to-transform", "--peft-layers-to-transform");
        others("--use-rslora", "--peft-use-rslora");
        others("--use-dora", "--peft-use-dora");
        others("--init-lora-weights", "--peft-init-lora-weights");
        others("--modules-to-save", "--lora-modules-to-save", "--additional-target");
        others("--method", "--finetuning-type");

        others("--max-samples", "--max-train-samples");

        others("--hub-private", "--hub-private-repo");
        others("--resume", "--resume-from-checkpoint", "--auto-resume-from-checkpoints");
        others("--overflow", "--excess-length-strategy");

        others("--ctx-size", "--n-ctx");

        others("--max-tokens", "--max-new-tokens", "--n-predict", "--max-gen-length");
        others("--temperature", "--temp");
        others("--repetition-penalty", "--repeat-penalty");
        others("--repetition-window", "--repeat-last-n");
        others("--stop", "--stop-string", "--stop-strings");
    }

    private Spelling() {}

    private static void others(String ours, String... theirs) {
        for (String other : theirs) {
            OURS.put(other, ours);
        }
    }

    /** Our name for an option, given without dashes and with {@code _} or {@code -}. */
    static String ours(String name) {
        String dashed = "--" + name.replace('_', '-');
        return OURS.getOrDefault(dashed, dashed);
    }

    /** Every name that stands for an option of ours, with dashes. */
    static Set<String> others() {
        return OURS.keySet();
    }

    /** The arguments with our own names in them. What is no option of the command meant is left as it is. */
    static String[] ours(CommandLine program, String[] args) {
        CommandLine command = commandOf(program, args);
        return Arrays.stream(args).map(arg -> ours(command, arg)).toArray(String[]::new);
    }

    static CommandLine commandOf(CommandLine program, String[] args) {
        return Arrays.stream(args)
                .filter(program.getSubcommands()::containsKey)
                .findFirst()
                .map(program.getSubcommands()::get)
                .orElse(program);
    }

    private static String ours(CommandLine command, String arg) {
        if (!arg.startsWith("--")) {
            return arg;
        }
        int end = arg.indexOf('=') < 0 ? arg.length() : arg.indexOf('=');
        String dashed = arg.substring(0, end).replace('_', '-');
        // Where mlx-lm trains, this is what is written; elsewhere it is what is read.
        boolean written =
                dashed.equals("--adapter-path") && command.getCommandName().equals("train");
        String name = written ? "--output" : OURS.getOrDefault(dashed, dashed);
        return command.getCommandSpec().findOption(name) == null ? arg : name + arg.substring(end);
    }

    /** Letters to insert, delete or replace (Levenshtein). */
    static int distance(String a, String b) {
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
