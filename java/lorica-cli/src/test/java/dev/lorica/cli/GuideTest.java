package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The guide's commands, run as they stand there on small files of the names that it uses, and its links. */
class GuideTest {
    private static final Path GUIDE = Path.of(Program.repository("java/guide"));
    private static final Pattern BLOCK = Pattern.compile("(?s)```sh\n(.*?)```");
    private static final Pattern WORD = Pattern.compile("\"([^\"]*)\"|(\\S+)");
    private static final Pattern LINK = Pattern.compile("\\]\\(([^)#\\s]+)?(#[^)\\s]*)?\\)");
    private static final Pattern HEADING = Pattern.compile("(?m)^#+ (.*)$");
    private static final Pattern FENCED = Pattern.compile("(?ms)^```.*?^```");

    private static final Pattern OF_THE_LIBRARY =
            Pattern.compile("`([A-Z][A-Za-z0-9]+)(?:\\.([a-z][A-Za-z]*)(?:\\(\\))?)?`");

    /** Where they are looked for; that one of Java's own. */
    private static final List<String> PACKAGES = List.of(
            "dev.lorica",
            "dev.lorica.adapter",
            "dev.lorica.data",
            "dev.lorica.eval",
            "dev.lorica.exceptions",
            "dev.lorica.generate",
            "dev.lorica.train",
            "java.lang");

    /** What has a file behind it. */
    private static final Set<String> FILES = Set.of(
            "--model",
            "-m",
            "--teacher-model",
            "--data",
            "--output",
            "-o",
            "--adapter",
            "-a",
            "--config",
            "--prompts",
            "--add-tokens");

    /** Whose arguments are files. */
    private static final Set<String> OF_FILES = Set.of("info", "report", "quantize");

    @TempDir
    private Path folder;

    /** In this order: what a page makes, later ones use. */
    @Test
    void itsCommandsWork() throws IOException {
        files();
        for (String page : List.of("getting-started", "data", "methods", "adapters", "troubleshooting")) {
            Path file = GUIDE.resolve(page + ".md");
            List<String> commands = BLOCK.matcher(Files.readString(file))
                    .results()
                    .flatMap(block -> block.group(1).replace("\\\n", " ").lines())
                    .filter(line -> line.startsWith("lorica "))
                    .toList();
            assertThat(commands).as(page).isNotEmpty();
            for (String command : commands) {
                Program program = Program.run(arguments(command));
                assertThat(program.exitCode())
                        .as(page + ": " + command + "\n" + program.err())
                        .isEqualTo(ExitCode.OK);
            }
        }
    }

    /** Classes and methods of the library that the cookbook names are there. */
    @Test
    void theCookbookNamesWhatThereIs() throws IOException {
        List<String> missing = new ArrayList<>();
        List<MatchResult> names = OF_THE_LIBRARY
                .matcher(Files.readString(GUIDE.resolve("cookbook.md")))
                .results()
                .toList();
        assertThat(names).hasSizeGreaterThan(8);
        for (MatchResult name : names) {
            Class<?> found = PACKAGES.stream()
                    .map(one -> named(one + "." + name.group(1)))
                    .filter(Objects::nonNull)
                    .findFirst()
                    .orElse(null);
            boolean hasMethod = found != null
                    && (name.group(2) == null
                            || Stream.of(found.getMethods())
                                    .anyMatch(method -> method.getName().equals(name.group(2))));
            if (!hasMethod) {
                missing.add(name.group());
            }
        }
        assertThat(missing).isEmpty();
    }

    private static Class<?> named(String name) {
        try {
            return Class.forName(name);
        } catch (ClassNotFoundException e) {
            return null;
        }
    }

    /** Of every page in the repository: what is linked to is there. */
    @Test
    void linksOfAllDocumentsLeadSomewhere() throws IOException {
        Path repository = Path.of(Program.repository("."));
        List<Path> documents;
        try (Stream<Path> all = Files.walk(repository)) {
            documents = all.filter(file -> file.toString().endsWith(".md"))
                    .filter(file -> !repository.relativize(file).toString().matches("(.*/)?(build[^/]*|target)/.*"))
                    .toList();
        }
        assertThat(documents).hasSizeGreaterThan(5);
        List<String> broken = new ArrayList<>();
        for (Path document : documents) {
            for (MatchResult link :
                    LINK.matcher(Files.readString(document)).results().toList()) {
                String target = link.group(1) == null ? "" : link.group(1);
                if (target.matches("[a-z]+:.*")) {
                    continue;
                }
                Path file = target.isEmpty() ? document : document.resolveSibling(target);
                String anchor = link.group(2);
                if (!Files.exists(file) || anchor != null && !anchors(file).contains(anchor)) {
                    broken.add(repository.relativize(document) + " -> " + target + (anchor == null ? "" : anchor));
                }
            }
        }
        assertThat(broken).isEmpty();
        assertThat(anchors(repository.resolve("README.md"))).contains("#from-java", "#the-command-line");
    }

    /** Of a page's headings, as GitHub makes them. */
    private static Set<String> anchors(Path page) throws IOException {
        return HEADING.matcher(FENCED.matcher(Files.readString(page)).replaceAll(""))
                .results()
                .map(heading -> "#"
                        + heading.group(1)
                                .strip()
                                .toLowerCase(Locale.ROOT)
                                .replaceAll("[^\\p{L}\\p{N} _-]", "")
                                .replace(' ', '-'))
                .collect(Collectors.toSet());
    }

    private void files() throws IOException {
        for (String model : List.of("llama.gguf", "small.gguf", "large.gguf")) {
            Files.createSymbolicLink(folder.resolve(model), Path.of(Program.model()));
        }
        String pair = "{\"question\": \"Where is Pemberley, part %d?\", \"answer\": \"In Derbyshire.\"}";
        List<String> pairs = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            pairs.add(String.format(pair, i));
        }
        Files.writeString(folder.resolve("questions.json"), "[" + String.join(",\n", pairs) + "]");
        Files.writeString(folder.resolve("more.jsonl"), String.join("\n", pairs.subList(0, 4)));
        Files.writeString(folder.resolve("faq.csv"), "ask,reply\nWho?,Mr. Darcy.\nWhere?,In Kent.\n");
        Files.writeString(
                folder.resolve("chats.jsonl"),
                "{\"messages\": [{\"role\": \"user\", \"content\": \"Where?\"},"
                        + " {\"role\": \"assistant\", \"content\": \"In Kent.\"}]}\n");
        Files.writeString(
                folder.resolve("pairs.jsonl"),
                "{\"prompt\": \"Where?\", \"chosen\": \"In Derbyshire.\", \"rejected\": \"In Kent.\"}\n");
        Files.writeString(folder.resolve("tools.txt"), "<tool>\n</tool>\n");
        Files.writeString(folder.resolve("recipes.txt"), "Take two eggs, and beat them well. ".repeat(40));
    }

    private String[] arguments(String command) {
        List<String> arguments = new ArrayList<>();
        String before = "";
        for (MatchResult word :
                WORD.matcher(command.substring("lorica ".length())).results().toList()) {
            String given = word.group(1) != null ? word.group(1) : word.group(2);
            boolean file = FILES.contains(before)
                    || !arguments.isEmpty()
                            && OF_FILES.contains(arguments.get(0))
                            && !given.startsWith("-")
                            && !before.startsWith("-");
            arguments.add(file ? folder.resolve(given).toString() : given);
            before = given;
        }
        if (arguments.get(0).equals("train")) {
            arguments.addAll(List.of("--max-steps", "2")); // the rest of a run is tested elsewhere
        }
        return arguments.toArray(String[]::new);
    }
}
