package dev.lorica.cli;

import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** What a command reads, none of which may be what it writes: through links, hard links, folders and parts of a split model. */
final class Inputs {
    private static final Pattern PART = Pattern.compile("(.*)-(\\d{5})-of-(\\d{5})\\.gguf");

    private final List<Path> files = new ArrayList<>();

    /** A file, every file of a folder, every part of a model in several; {@code null} and what is not there are none. */
    Inputs add(Path path) {
        if (path == null || !Files.exists(path)) {
            return this;
        }
        if (Files.isDirectory(path)) {
            try (Stream<Path> children = Files.list(path)) {
                children.filter(Files::isRegularFile).forEach(files::add);
            } catch (IOException e) {
                // What cannot be listed cannot be read either, and reading says so.
            }
            return this;
        }
        Matcher part = PART.matcher(path.getFileName().toString());
        if (!part.matches()) {
            files.add(path);
            return this;
        }
        for (int i = 1; i <= Integer.parseInt(part.group(3)); i++) {
            Path other = path.resolveSibling(String.format("%s-%05d-of-%s.gguf", part.group(1), i, part.group(3)));
            if (Files.exists(other)) {
                files.add(other);
            }
        }
        return this;
    }

    /** @param what the output as the user named it */
    void refuse(String what, Path output) {
        for (Path file : files) {
            try {
                if (Files.exists(output) && Files.isSameFile(file, output)) {
                    throw new LoricaException(what + " would replace " + file
                            + ", which is read; choose another name for what is written");
                }
            } catch (IOException e) {
                throw new LoricaException(what + " cannot be compared with " + file + ": " + e.getMessage(), e);
            }
        }
    }

    /** The same for a folder that all inputs below it would be deleted with. */
    void refuseBelow(String what, Path folder) {
        if (!Files.exists(folder)) {
            return;
        }
        try {
            Path real = folder.toRealPath();
            for (Path file : files) {
                if (file.toRealPath().startsWith(real)) {
                    throw new LoricaException(what + " would delete " + file
                            + ", which is read; choose another folder for what is written");
                }
            }
        } catch (IOException e) {
            throw new LoricaException(what + " cannot be compared with what is read: " + e.getMessage(), e);
        }
    }
}
