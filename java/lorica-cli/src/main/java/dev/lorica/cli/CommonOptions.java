package dev.lorica.cli;

import picocli.CommandLine.Option;

/** What every command understands. */
@Section("Other")
final class CommonOptions {
    @Option(
            names = "--json",
            description = "Print one JSON object on standard output at the end; all else goes to standard error.")
    boolean json;

    @Option(names = "--verbose", description = "Show the stack trace of an error.")
    boolean verbose;

    @Option(
            names = {"-h", "--help"},
            usageHelp = true,
            description = "Show this help.")
    boolean help;
}
