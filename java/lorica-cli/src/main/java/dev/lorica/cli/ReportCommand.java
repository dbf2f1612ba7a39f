package dev.lorica.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.cli.report.ReportPage;
import dev.lorica.cli.report.RunFolder;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica report}: a page that shows runs. */
@Command(
        name = "report",
        header = "Make a page that shows a training run, or compares several.",
        description = {
            "",
            "The page is one HTML file that loads nothing: curves, memory, data, answers, settings. "
                    + "'lorica train' and 'lorica sweep' make one by themselves, 'lorica eval' with --report."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica report DIR… [--output FILE]",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {"  lorica report my-adapter", "  lorica report rank-8 rank-16 rank-32 --output ranks.html"})
final class ReportCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Parameters(paramLabel = "DIR", arity = "1..*", description = "Output folders of 'lorica train'.")
    private List<Path> folders;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "FILE",
            description =
                    "The page. Default: " + ReportPage.FILE_NAME + " in the folder of a single run, here for several.")
    private Path output;

    @Option(names = "--overwrite", description = "Replace a file of that name that is no report.")
    private boolean overwrite;

    @Mixin
    private CommonOptions common;

    ReportCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        List<ObjectNode> runs = folders.stream().map(RunFolder::read).toList();
        Path page = output != null
                ? output
                : folders.size() == 1 ? folders.get(0).resolve(ReportPage.FILE_NAME) : Path.of(ReportPage.FILE_NAME);
        ReportPage.requireReplaceable(page, overwrite);
        ReportPage.write(page, runs);
        if (terminal.json()) {
            terminal.printJson(Map.of("report", page.toString(), "runs", runs.size()));
        } else {
            terminal.out().println(page);
        }
        return ExitCode.OK;
    }
}
