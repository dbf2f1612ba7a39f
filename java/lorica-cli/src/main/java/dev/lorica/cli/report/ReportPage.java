package dev.lorica.cli.report;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Lorica;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * A report as one HTML file that loads nothing: curves, memory, data, answers and settings of one run, or several runs
 * over each other with a table, the best first.
 */
public final class ReportPage {
    /** What it is called in the folder of a run. */
    public static final String FILE_NAME = "report.html";

    private static final ObjectMapper JSON = new ObjectMapper();

    private ReportPage() {}

    /** @param runs as {@link RunFolder#read} gives them, at least one */
    public static void write(Path file, List<ObjectNode> runs) {
        write(file, runs, null);
    }

    /**
     * @param runs   as {@link RunFolder#read} gives them, at least one; those of a sweep have {@code varied}, an object
     *               of what they differ in
     * @param metric the fact that runs are ranked by, the smallest first; null: {@code eval_loss} where it is known,
     *               else {@code loss}
     */
    public static void write(Path file, List<ObjectNode> runs, String metric) {
        ObjectNode data = JSON.createObjectNode();
        data.put("lorica_version", Lorica.version());
        if (metric != null) {
            data.put("metric", metric);
        }
        data.set("runs", JSON.valueToTree(runs));
        try {
            // Within a script element only "</" and "<!--" end or change anything, and JSON has "<" in strings alone.
            String json = JSON.writeValueAsString(data).replace("<", "\\u003c");
            AtomicFile.write(file, template().replace("{{DATA}}", json).getBytes(StandardCharsets.UTF_8));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Whether a file is one that {@link #write} made. */
    public static boolean isReport(Path file) {
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
