package dev.lorica.cli.report;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.log.JsonlLog;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * What a training run left in its output folder, read back for a report. Of a run that was made before there were
 * reports, or that was killed, there is less, and what there is is shown.
 */
public final class RunFolder {
    /** What {@code lorica train} knows at the end of a run and no other file says. */
    public static final String FILE_NAME = "train_report.json";

    private static final ObjectMapper JSON = new ObjectMapper();

    private RunFolder() {}

    /**
     * Writes {@link #FILE_NAME}.
     *
     * @param facts as {@code lorica train --json} prints them
     */
    public static void write(Path folder, Map<String, Object> facts) {
        try {
            AtomicFile.write(
                    folder.resolve(FILE_NAME),
                    JSON.writerWithDefaultPrettyPrinter().writeValueAsBytes(facts));
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
    }

    /**
     * The run as the page reads it: the facts of {@link #FILE_NAME}, {@code name}, {@code log} with the records of
     * {@link JsonlLog}, and {@code settings} of {@link AdapterMetadata}.
     *
     * @throws FileFormatException where the folder holds no run
     */
    public static ObjectNode read(Path folder) {
        Path log = folder.resolve(JsonlLog.FILE_NAME);
        JsonNode facts = json(folder.resolve(FILE_NAME));
        JsonNode metadata = json(folder.resolve(AdapterMetadata.FILE_NAME));
        if (facts == null && metadata == null && !Files.exists(log)) {
            throw new FileFormatException(folder + " holds no training run: neither " + JsonlLog.FILE_NAME + " nor "
                    + AdapterMetadata.FILE_NAME + " is there");
        }
        ObjectNode run = JSON.createObjectNode();
        run.put("name", String.valueOf(folder.toAbsolutePath().normalize().getFileName()));
        if (metadata != null) {
            describe(run, metadata);
        }
        if (facts instanceof ObjectNode known) {
            known.fields().forEachRemaining(field -> run.set(field.getKey(), field.getValue()));
        } else {
            run.put("status", metadata == null ? "not finished" : "done");
        }
        run.set("log", log(log));
        return run;
    }

    private static void describe(ObjectNode run, JsonNode metadata) {
        run.put("method", metadata.path("method").asText("lora"));
        ObjectNode settings = run.putObject("settings");
        for (String part : new String[] {
            "training", "lora", "ia3", "full", "prompt_tuning", "p_tuning", "prefix_tuning", "bottleneck"
        }) {
            if (metadata.hasNonNull(part)) {
                settings.set(part, metadata.get(part));
            }
        }
        JsonNode base = metadata.path("base_model");
        String name = base.path("name").asText("");
        run.put(
                "base",
                (name.isEmpty() ? base.path("file").asText("") : name) + " ("
                        + base.path("file_type").asText("?") + ")");
        JsonNode result = metadata.path("result");
        for (String fact : new String[] {"steps", "loss", "seconds", "tokens"}) {
            if (result.has(fact)) {
                run.set(fact, result.get(fact));
            }
        }
        double seconds = result.path("seconds").asDouble();
        if (seconds > 0) {
            run.put("tokens_per_second", result.path("tokens").asDouble() / seconds);
        }
        if (result.path("evaluation").hasNonNull("loss")) {
            run.set("eval_loss", result.get("evaluation").get("loss"));
        }
    }

    /** The records of the log; a last line that was cut by a kill is left out. */
    private static ArrayNode log(Path file) {
        ArrayNode records = JSON.createArrayNode();
        if (!Files.exists(file)) {
            return records;
        }
        try {
            for (String line : new String(Files.readAllBytes(file), StandardCharsets.UTF_8).split("\n")) {
                try {
                    JsonNode record = JSON.readTree(line);
                    if (record.isObject()) {
                        records.add(record);
                    }
                } catch (JacksonException e) {
                    break;
                }
            }
            return records;
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static JsonNode json(Path file) {
        if (!Files.exists(file)) {
            return null;
        }
        try {
            return JSON.readTree(Files.readAllBytes(file));
        } catch (JacksonException e) {
            throw new FileFormatException(file + " is damaged: it is not valid JSON", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }
}
