package dev.lorica.train;

import java.util.List;

/** The one definition of a setting, from which all who speak of it take what they say: checks, command lines, files, help texts. */
public interface SettingDefinition {
    /** Its name on the command line and, with {@code _}, in files: {@code batch-size}; {@code null}: it has none there. */
    String option();

    /** Of its values. */
    Class<?> type();

    /** What it is where nothing is said; {@code null}: that follows from another setting. */
    Object initial();

    /** What stands for its value in a help text: {@code N}. */
    String label();

    /** What it is for, in a sentence for a help text, which names other options in braces: {@code {epochs}}. */
    String help();

    /** Names that Hugging Face, PEFT, TRL, Axolotl, LLaMA-Factory and mlx-lm have for it. */
    List<String> otherNames();
}
