package dev.lorica.cli.report;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Lorica;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * A report as one HTML file that loads nothing: curves, memory, data, answers and settings of one run, several runs over
 * each other with a table, the best first, or what a model was measured to be, base and tuned beside each other.
 */
public final class ReportPage {
    /** What it is called in the folder of a run. */
    public static final String FILE_NAME = "report.html";

    private static final ObjectMapper JSON = new ObjectMapper();

    private ReportPage() {}

    /** @param runs as {@link RunFolder#read} gives them, at least one */
    public static void write(Path file, List<ObjectNode> runs) {
        write(file, JSON.createObjectNode(), runs);
    }

    /**
     * The page of a sweep.
     *
     * @param runs    as {@link RunFolder#read} gives them, the best first, with {@code varied}, an object of what they
     *                differ in, and {@code page}, where the page of the run itself is
     * @param metric  the fact that they are ranked by
     * @param command that repeats it
     */
    public static void writeSweep(Path file, List<ObjectNode> runs, String metric, String command) {
        ObjectNode data = JSON.createObjectNode();
        data.put("metric", metric);
        data.put("command", command);
        write(file, data, runs);
    }

    /** @param evaluation what {@code lorica eval} measured, and what it knows of that */
    public static void writeEvaluation(Path file, Map<String, Object> evaluation) {
        ObjectNode data = JSON.createObjectNode();
        data.set("evaluation", JSON.valueToTree(evaluation));
        write(file, data, List.of());
    }

    private static void write(Path file, ObjectNode data, List<ObjectNode> runs) {
        data.put("lorica_version", Lorica.version());
        data.set("runs", JSON.valueToTree(runs));
        try {
            // Within a script element only "</" and "<!--" end or change anything, and JSON has "<" in strings alone.
            String json = JSON.writeValueAsString(data).replace("<", "\\u003c");
            AtomicFile.write(file, template().replace("{{DATA}}", json).getBytes(StandardCharsets.UTF_8));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Throws where a file is there that is no report, unless it may be replaced. */
    public static void requireReplaceable(Path file, boolean overwrite) {
        if (Files.exists(file) && !overwrite && !isReport(file)) {
            throw new LoricaException(file + " is there already and is no report; choose another name, or replace it "
                    + "with --overwrite");
        }
    }

    /** Whether a file is one that {@link #write} made. */
    private static boolean isReport(Path file) {
        try (InputStream in = Files.newInputStream(file)) {
            return new String(in.readNBytes(400), StandardCharsets.UTF_8)
                    .contains("name=\"generator\" content=\"Lorica\"");
        } catch (IOException e) {
            return false;
        }
    }

    private static String template() {
        try (InputStream in = ReportPage.class.getResourceAsStream("report.html")) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
