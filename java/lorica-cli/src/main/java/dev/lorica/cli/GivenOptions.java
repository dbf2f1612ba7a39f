package dev.lorica.cli;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.stream.Stream;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParseResult;

/** What a user gave, as opposed to what is so by default: an option that would change nothing is refused. */
final class GivenOptions {
    private GivenOptions() {}

    /** The options of a class that a command mixes in. */
    static List<OptionSpec> of(CommandSpec command, Object mixedIn) {
        return Stream.concat(
                        command.mixins().values().stream()
                                .filter(mixin -> mixin.userObject() == mixedIn)
                                .flatMap(mixin -> mixin.options().stream()),
                        command.options().stream().filter(option -> option.userObject() == mixedIn))
                .toList();
    }

    /**
     * Refuses the first of these that was given.
     *
     * @param why what stands behind the option's name
     * @throws InvalidArgumentException if one was given
     */
    static void refuse(CommandSpec command, Collection<String> names, String why) {
        ParseResult parsed = command.commandLine().getParseResult();
        for (String name : names) {
            if (parsed.hasMatchedOption(name)) {
                throw new InvalidArgumentException(name + " " + why);
            }
        }
    }

    /** Names of those of a class that a command mixes in, with others. */
    static List<String> names(CommandSpec command, Object mixedIn, String... others) {
        List<String> names = new ArrayList<>(List.of(others));
        of(command, mixedIn).forEach(option -> names.add(option.longestName()));
        return names;
    }
}
