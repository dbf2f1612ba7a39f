package dev.lorica.serve.runs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.exceptions.InvalidArgumentException;
import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;
import java.util.regex.Pattern;

/**
 * What runs may read and write: data and models below one folder, results below another. Whatever dots and links are in a path, what it
 * leads to decides, and of what lies elsewhere not even is said whether it is there.
 */
public final class RunFolders {
    /** What a run may be called, which is what its folder is called. */
    public static final String NAMES = "up to 64 letters, digits and . _ -, the first of them a letter or a digit";

    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
    private static final int DEPTH = 6;
    private static final int MOST_FILES = 2000;

    private final Path data;
    private final Path output;
    private final Path model;

    /**
     * Takes two folders, with all links in their paths resolved.
     *
     * @param data   what may be read
     * @param output where results are and come
     * @param model  that is served, and read wherever it lies
     * @throws IOException if one of them is no folder
     */
    public RunFolders(Path data, Path output, Path model) throws IOException {
        this.data = data.toRealPath();
        this.output = output.toRealPath();
        this.model = model.toAbsolutePath().normalize();
    }

    /** {@return the folder of what may be read} */
    public Path data() {
        return data;
    }

    /** {@return the folder of results} */
    public Path output() {
        return output;
    }

    static void checkName(String name) {
        if (name == null || !NAME.matcher(name).matches() || name.endsWith(".tmp")) {
            throw new InvalidArgumentException("a run cannot be called that; a name has " + NAMES);
        }
    }

    /** The folder of a run, which is there or is to be made. */
    Path run(String name) {
        checkName(name);
        Path folder = output.resolve(name);
        if (Files.isSymbolicLink(folder)) {
            throw new InvalidArgumentException("the folder of the run " + name + " is a link; another name, please");
        }
        return folder;
    }

    /**
     * {@return a file or folder that may be read: of data, or of results}
     *
     * @param what  for messages: {@code the data}
     * @param given below the data folder or, beginning with the name of a run, below that of results; or absolute and in one of them
     * @throws InvalidArgumentException for anything else
     */
    public Path readable(String what, String given) {
        for (Path folder : List.of(data, output)) {
            try {
                Path real = folder.resolve(given).toRealPath();
                if (real.startsWith(folder) && !real.equals(folder)) {
                    return real;
                }
            } catch (InvalidPathException | IOException e) {
                // the same answer as for what is there and elsewhere
            }
        }
        throw new InvalidArgumentException(
                what + " names nothing that lies below the data folder or the output folder: " + cut(given));
    }

    /**
     * {@return a file or folder that is to be made in the output folder, with nothing there yet}
     *
     * @param name of a run
     */
    public Path writable(String name) {
        checkName(name);
        Path path = output.resolve(name);
        if (Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
            throw new InvalidArgumentException(name + " is there already, in the output folder; another name, please");
        }
        return path;
    }

    /** The model that is served. */
    Path model() {
        return model;
    }

    /**
     * {@return how a path is called on a page: as seen from the folder that it lies in, and elsewhere by its last name}
     *
     * @param path in one of the folders, or elsewhere
     */
    public String shown(Path path) {
        for (Path folder : innerFirst()) {
            if (path.startsWith(folder) && !path.equals(folder)) {
                return folder.relativize(path).toString();
            }
        }
        return path.equals(data)
                ? "the data folder"
                : path.equals(output) ? "the output folder" : String.valueOf(path.getFileName());
    }

    /**
     * {@return a text as a page may see it: paths in it are called as {@link #shown} calls them}
     *
     * @param text of whatever kind
     */
    public String inWords(String text) {
        String words = text;
        for (Path folder : innerFirst()) {
            String name = "(?<![A-Za-z0-9._~-])" + Pattern.quote(folder.toString());
            words = words.replaceAll(name + "/(?=[^\\s'\"])", "")
                    .replaceAll(name + "(?![^\\s'\",:;)/])/?", shown(folder));
        }
        return words.replace(model.toString(), shown(model));
    }

    /**
     * {@return the same with {@link #inWords(String)} of all texts in it, names of fields aside}
     *
     * @param json of whatever kind
     */
    public JsonNode inWords(JsonNode json) {
        if (json.isTextual()) {
            return TextNode.valueOf(inWords(json.asText()));
        }
        if (json.isArray()) {
            ArrayNode array = JsonNodeFactory.instance.arrayNode();
            json.forEach(one -> array.add(inWords(one)));
            return array;
        }
        if (json.isObject()) {
            ObjectNode object = JsonNodeFactory.instance.objectNode();
            json.fields().forEachRemaining(field -> object.set(field.getKey(), inWords(field.getValue())));
            return object;
        }
        return json;
    }

    /** One of them may lie in the other. */
    private List<Path> innerFirst() {
        return output.startsWith(data) ? List.of(output, data) : List.of(data, output);
    }

    /**
     * {@return files below the data folder, or below that of results, by their relative names; links are not followed}
     *
     * @param root   one of the folders
     * @param wanted which files
     */
    public List<Path> find(Path root, Predicate<Path> wanted) {
        List<Path> found = new ArrayList<>();
        try {
            Files.walkFileTree(root, Set.of(), DEPTH, new SimpleFileVisitor<>() {
                @Override
                public FileVisitResult preVisitDirectory(Path folder, BasicFileAttributes attributes) {
                    boolean hidden = folder.getFileName() != null
                            && folder.getFileName().toString().startsWith(".");
                    return hidden && !folder.equals(root) ? FileVisitResult.SKIP_SUBTREE : FileVisitResult.CONTINUE;
                }

                @Override
                public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
                    if (attributes.isRegularFile() && wanted.test(file)) {
                        found.add(file);
                    }
                    return found.size() < MOST_FILES ? FileVisitResult.CONTINUE : FileVisitResult.TERMINATE;
                }

                @Override
                public FileVisitResult visitFileFailed(Path file, IOException e) {
                    return FileVisitResult.CONTINUE;
                }
            });
        } catch (IOException e) {
            return found; // as far as it could be read
        }
        found.sort(null);
        return found;
    }

    static String cut(String text) {
        return text == null || text.length() <= 80 ? text : text.substring(0, 80) + "…";
    }
}
