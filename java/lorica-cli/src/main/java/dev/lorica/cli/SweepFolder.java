package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.cli.report.RunFolder;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** The folder of a sweep: {@value #FILE_NAME} with what is to be run, and a folder for each run. */
final class SweepFolder {
    static final String FILE_NAME = "sweep.json";
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int LONGEST_NAME = 80;

    /**
     * @param name   of its folder
     * @param varied options, with dashes, and their values
     */
    record Run(String name, Map<String, String> varied) {
        String inWords() {
            StringBuilder words = new StringBuilder();
            varied.forEach((option, value) -> words.append(words.isEmpty() ? "" : ", ")
                    .append(option.substring(2))
                    .append(' ')
                    .append(value));
            return words.toString();
        }
    }

    private final Path path;
    private final List<Run> runs = new ArrayList<>();

    private SweepFolder(Path path, List<Map<String, String>> combinations) {
        this.path = path;
        int digits = Math.max(2, Integer.toString(combinations.size()).length());
        for (Map<String, String> varied : combinations) {
            StringBuilder name = new StringBuilder(String.format("%0" + digits + "d", runs.size() + 1));
            varied.forEach((option, value) ->
                    name.append('-').append(option.substring(2)).append('=').append(value));
            String plain = name.toString().replaceAll("[^A-Za-z0-9.=_-]", "_");
            runs.add(new Run(plain.substring(0, Math.min(LONGEST_NAME, plain.length())), varied));
        }
    }

    /**
     * Makes the folder, or finds in it the sweep that is to go on.
     *
     * @param train     the arguments that all runs have
     * @param overwrite whether another sweep may be deleted
     */
    static SweepFolder open(Path path, List<String> train, List<Map<String, String>> combinations, boolean overwrite) {
        SweepFolder folder = new SweepFolder(path, combinations);
        ObjectNode plan = JSON.createObjectNode();
        plan.set("train", JSON.valueToTree(train));
        ObjectNode varied = plan.putObject("runs");
        folder.runs.forEach(run -> varied.set(run.name(), JSON.valueToTree(run.varied())));
        Path file = path.resolve(FILE_NAME);
        try {
            Files.createDirectories(path);
            JsonNode known = Files.exists(file) ? JSON.readTree(Files.readAllBytes(file)) : null;
            if (known == null && !overwrite && !isEmpty(path)) {
                throw new LoricaException("--output " + path + " has files in it, and they are of no sweep; choose "
                        + "another folder, or write into it with --overwrite");
            }
            if (known != null && !known.equals(plan)) {
                if (!overwrite) {
                    throw new LoricaException("--output " + path + " holds a sweep of other options; choose another "
                            + "folder, or replace it with --overwrite");
                }
                deleteRuns(path, known);
            }
            AtomicFile.write(file, JSON.writerWithDefaultPrettyPrinter().writeValueAsBytes(plan));
            return folder;
        } catch (JacksonException e) {
            throw new FileFormatException(file + " is damaged: it is not valid JSON", e);
        } catch (IOException e) {
            throw new LoricaException("--output " + path + " cannot be written to: " + AtomicFile.reason(e), e);
        }
    }

    private static boolean isEmpty(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.findAny().isEmpty();
        }
    }

    private static void deleteRuns(Path path, JsonNode plan) throws IOException {
        List<String> names = new ArrayList<>();
        plan.path("runs").fieldNames().forEachRemaining(names::add);
        for (String name : names) {
            Path run = path.resolve(name);
            // The plan could have been written by anybody.
            if (name.matches("[0-9]{2,}-[A-Za-z0-9.=_-]*") && Files.isDirectory(run) && !Files.isSymbolicLink(run)) {
                try (Stream<Path> tree = Files.walk(run)) {
                    for (Path one : tree.sorted(Comparator.reverseOrder()).toList()) {
                        Files.delete(one);
                    }
                }
            }
        }
    }

    List<Run> runs() {
        return runs;
    }

    Path of(Run run) {
        return path.resolve(run.name());
    }

    /** What is said while it goes on. */
    Path logOf(Run run) {
        return path.resolve(run.name() + ".log");
    }

    /** What is known of a run that is done, and what it varied; {@code null}: it is not. */
    ObjectNode result(Run run) {
        Path folder = of(run);
        if (!Files.exists(folder.resolve(RunFolder.FILE_NAME))) {
            return null;
        }
        ObjectNode result = RunFolder.read(folder);
        if (!result.path("status").asText().equals("done")) {
            return null;
        }
        Map<String, String> varied = new LinkedHashMap<>();
        run.varied().forEach((option, value) -> varied.put(option.substring(2), value));
        result.set("varied", JSON.valueToTree(varied));
        return result;
    }
}
