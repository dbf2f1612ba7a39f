package dev.lorica.train;

import java.util.List;

/** The one definition of a setting, from which all who speak of it take what they say: checks, command lines, files, help texts. */
public interface SettingDefinition {
    /** {@return its name on the command line and, with {@code _}, in files: {@code batch-size}; {@code null}: it has none there} */
    String option();

    /** {@return of its values} */
    Class<?> type();

    /** {@return what it is where nothing is said; {@code null}: that follows from another setting} */
    Object initial();

    /** {@return what stands for its value in a help text: {@code N}} */
    String label();

    /** {@return what it is for, in a sentence for a help text, which names other options in braces: {@code {epochs}}} */
    String help();

    /** {@return names that Hugging Face, PEFT, TRL, Axolotl, LLaMA-Factory and mlx-lm have for it} */
    List<String> otherNames();
}
