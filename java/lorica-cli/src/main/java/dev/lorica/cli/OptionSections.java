package dev.lorica.cli;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Help;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/**
 * The options in the help, in sections: those of the command itself, then those of every class that is mixed in, below its
 * {@link Section}. Argument groups of picocli are not used for this: an option that is given twice, or a list given in two parts,
 * makes it begin the whole group anew, with all its defaults.
 */
final class OptionSections {
    private OptionSections() {}

    static String render(Help help) {
        Map<String, List<OptionSpec>> sections = of(help.commandSpec());
        StringBuilder text = new StringBuilder();
        sections.forEach((title, options) -> {
            if (!options.isEmpty()) {
                text.append(title.isEmpty() ? "" : help.createHeading("%n" + title + ":%n")); // the first has one
                Help.Layout layout = help.createDefaultLayout(options, List.of(), help.colorScheme());
                layout.addOptions(options, help.parameterLabelRenderer());
                text.append(layout);
            }
        });
        return text.toString();
    }

    /** The options that are shown, by the title of their section; those of the command itself come first, without one. */
    static Map<String, List<OptionSpec>> of(CommandSpec command) {
        Map<String, List<OptionSpec>> sections = new LinkedHashMap<>();
        sections.put("", new ArrayList<>());
        command.mixins().values().forEach(mixin -> sections.put(title(mixin), new ArrayList<>()));
        for (OptionSpec option : command.options()) {
            if (!option.hidden()) {
                sections.get(sectionOf(command, option)).add(option);
            }
        }
        return sections;
    }

    private static String sectionOf(CommandSpec command, OptionSpec option) {
        if (option.userObject() instanceof SettingOptions settings) {
            return title(settings);
        }
        return command.mixins().values().stream()
                .filter(mixin -> mixin.options().contains(option))
                .map(OptionSections::title)
                .findFirst()
                .orElse("");
    }

    private static String title(CommandSpec mixin) {
        return title(mixin.userObject());
    }

    private static String title(Object options) {
        Section section = options.getClass().getAnnotation(Section.class);
        return section == null ? "" : section.value();
    }
}
