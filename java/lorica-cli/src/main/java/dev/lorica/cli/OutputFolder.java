package dev.lorica.cli;

import dev.lorica.Adapter;
import dev.lorica.Checkpoint;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.log.JsonlLog;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.stream.Stream;

/**
 * The folder that an adapter is to be saved in, looked at before training rather than after it. Closing it takes it
 * away again if it was made here and nothing was saved in it.
 */
record OutputFolder(Path path, boolean isNew, boolean hasAdapter) implements AutoCloseable {

    /** Makes the folder, and sees to it that it can be written to and that nothing of someone else's is in it. */
    static OutputFolder prepare(Path path, boolean overwrite) {
        if (Files.exists(path) && !Files.isDirectory(path)) {
            throw new LoricaException("--output " + path + " is a file; a folder is meant");
        }
        boolean isNew = !Files.exists(path);
        boolean hasAdapter = Files.exists(path.resolve(Adapter.FILE_NAME)) || Files.exists(path.resolve(Adapter.PEFT_FILE_NAME));
        try {
            Files.createDirectories(path);
            if (!hasAdapter && !overwrite && !isEmpty(path) && !isOurs(path)) {
                throw new LoricaException(
                        "--output " + path + " has files in it, and none of them is an adapter; choose another "
                                + "folder, or write into it with --overwrite-output-dir");
            }
            Files.delete(Files.createTempFile(path, ".lorica", ".tmp"));
        } catch (IOException e) {
            throw new LoricaException("--output " + path + " cannot be written to: " + reason(e), e);
        }
        return new OutputFolder(path, isNew, hasAdapter);
    }

    /** The reason without the path, which Java's messages repeat or consist of. */
    private static String reason(IOException e) {
        if (e instanceof AccessDeniedException) {
            return "permission denied";
        }
        if (e instanceof NoSuchFileException) {
            return "no folder can be made there";
        }
        return e instanceof FileSystemException f && f.getReason() != null ? f.getReason() : e.toString();
    }

    @Override
    public void close() {
        try {
            if (isNew && isEmpty(path)) {
                Files.delete(path);
            }
        } catch (IOException e) {
            // An empty folder more or less is not worth an error.
        }
    }

    /** Whether a run that was killed has begun in it. */
    private static boolean isOurs(Path folder) {
        return !Checkpoint.list(folder).isEmpty()
                || Files.exists(folder.resolve(EffectiveConfig.FILE_NAME))
                || Files.exists(folder.resolve(JsonlLog.FILE_NAME));
    }

    private static boolean isEmpty(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.findAny().isEmpty();
        }
    }
}
