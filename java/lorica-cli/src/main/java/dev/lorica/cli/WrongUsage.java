package dev.lorica.cli;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.MissingParameterException;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;
import picocli.CommandLine.OverwrittenOptionException;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.TypeConversionException;
import picocli.CommandLine.UnmatchedArgumentException;

/** What is wrong with a command line, in words that say nothing of how it is read. */
final class WrongUsage {
    private WrongUsage() {}

    /** An option that does not exist is to blame for what is said of its value, and of what is missing then. */
    static ParameterException cause(ParameterException e, String... args) {
        CommandLine command = e.getCommandLine();
        // llama.cpp's -ngl is no option here, and neither is it -n with the value gl.
        for (String word : args) {
            if (word.matches("-[A-Za-z]{2,}") && word.substring(2).equals(e.getValue())) {
                return new UnmatchedArgumentException(command, List.of(word));
            }
        }
        if (command.getParent() == null) {
            return e; // what is no command is to blame for all that stands behind it
        }
        List<String> unknown = command.getUnmatchedArguments().stream()
                .filter(word -> word.startsWith("-"))
                .toList();
        return unknown.isEmpty() ? e : new UnmatchedArgumentException(command, unknown);
    }

    static String inWords(ParameterException e) {
        if (e instanceof OverwrittenOptionException twice) {
            return name(twice.getOverwritten()) + " is given twice";
        }
        if (e instanceof MissingParameterException missing) {
            ArgSpec arg = missing.getMissing().get(0);
            return isValue(missing)
                    ? name(arg) + " needs " + (arg.arity().max() > 1 ? "values: " : "a value: ") + label(arg)
                    : "missing: "
                            + missing.getMissing().stream()
                                    .map(WrongUsage::withLabel)
                                    .collect(Collectors.joining(", "));
        }
        if (e instanceof UnmatchedArgumentException unmatched) {
            String words = unmatched.getUnmatched().stream()
                    .limit(1)
                    .map(word -> "'" + word + "'")
                    .collect(Collectors.joining());
            return unmatched.isUnknownOption()
                    ? "Unknown option: " + words
                    : e.getCommandLine().getParent() == null
                                    && !e.getCommandLine().getSubcommands().isEmpty()
                            ? "there is no command " + words
                            : "what is " + words + " meant to be?";
        }
        ArgSpec arg = e.getArgSpec();
        if (arg == null) {
            return e.getMessage();
        }
        String value = e.getValue() == null ? "" : " '" + e.getValue() + "'";
        return "'" + name(arg) + "'" + value + meant(arg, said(e));
    }

    private static String meant(ArgSpec arg, String message) {
        if (arg.typeInfo().isMap()) {
            return ": " + label(arg) + " is meant";
        }
        Class<?> type = arg.auxiliaryTypes()[0];
        if (type == int.class || type == Integer.class || type == long.class || type == Long.class) {
            return " is not a whole number" + (type == int.class || type == Integer.class ? " below 2147483648" : "");
        }
        if (type == double.class || type == Double.class) {
            return " is not a number";
        }
        if (type == boolean.class || type == Boolean.class) {
            return " must be true or false";
        }
        return ": " + message;
    }

    private static String said(ParameterException e) {
        return e.getCause() instanceof TypeConversionException reason ? reason.getMessage() : e.getMessage();
    }

    /** Names of a map, as in {@code --rank-pattern}, are given once as options are. */
    static void refuseTwice(ParseResult parsed) {
        for (ParseResult part = parsed; part != null; part = part.subcommand()) {
            for (OptionSpec option : part.matchedOptions()) {
                Set<String> names = new HashSet<>();
                if (!option.typeInfo().isMap()) {
                    continue;
                }
                for (String entry :
                        String.join(",", option.originalStringValues()).split(",")) {
                    String name = entry.substring(0, Math.max(0, entry.indexOf('=')));
                    if (!names.add(name)) {
                        throw new ParameterException(
                                part.commandSpec().commandLine(),
                                option.longestName() + " gives \"" + name + "\" twice");
                    }
                }
            }
        }
    }

    /** Whether the option is there and its value is not. */
    private static boolean isValue(MissingParameterException e) {
        return e.getMissing().size() == 1
                && !e.getMessage().startsWith("Missing required option")
                && !(e.getMissing().get(0) instanceof PositionalParamSpec);
    }

    private static String name(ArgSpec arg) {
        return arg instanceof OptionSpec option ? option.longestName() : arg.paramLabel();
    }

    private static String withLabel(ArgSpec arg) {
        return arg.isOption() ? name(arg) + "=" + label(arg) : label(arg);
    }

    private static String label(ArgSpec arg) {
        return arg.paramLabel();
    }
}
