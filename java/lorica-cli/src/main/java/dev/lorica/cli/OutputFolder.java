package dev.lorica.cli;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.log.JsonlLog;
import dev.lorica.train.Checkpoint;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The folder that an adapter is to be saved in, looked at before training rather than after it, and locked so that no other run
 * writes into it at the same time. Closing it takes it away again if it was made here and nothing was saved in it.
 */
record OutputFolder(Path path, boolean isNew, boolean hasAdapter, FileChannel lock) implements AutoCloseable {
    /** There while a run writes into the folder. */
    private static final String LOCK = ".lorica.lock";

    /** The files that a run writes, its checkpoints aside. */
    static final List<String> WRITTEN = List.of(
            Adapter.FILE_NAME,
            Adapter.PEFT_FILE_NAME,
            Adapter.PEFT_CONFIG_NAME,
            Adapter.ADAPTERHUB_FILE_NAME,
            Adapter.ADDED_TOKENS_FILE_NAME,
            AdapterMetadata.FILE_NAME,
            EffectiveConfig.FILE_NAME,
            JsonlLog.FILE_NAME);

    /** What a run that was killed leaves half written; no file of someone else's is called so. */
    private static final Pattern LEFT_OVER = Pattern.compile(
            "(adapter\\.gguf|model\\.gguf|adapter_config\\.json|adapter_model\\.safetensors|added_tokens\\.json|lorica_adapter\\.json|README\\.md|report\\.html|train_report\\.json|train_config\\.yaml)"
                    + "\\.tmp(-\\d+-\\d+)?|checkpoint-\\d+(\\.old)?\\.tmp|\\.lorica.*\\.tmp(-\\d+-\\d+)?");

    /**
     * Makes the folder, and sees to it that it can be written to and that nothing is in it that would be lost. What a killed run
     * left half written is taken away.
     *
     * @param overwrite whether an adapter may be replaced, and files of others may lie in the folder
     * @param resume    whether a run in it is to go on
     */
    static OutputFolder prepare(Path path, boolean overwrite, boolean resume) {
        refuseFile(path);
        boolean isNew = !Files.exists(path);
        boolean hasAdapter = Adapter.isIn(path);
        try {
            Files.createDirectories(path);
            if (hasAdapter && !overwrite && !resume) {
                throw new LoricaException(
                        "--output " + path + " holds a finished adapter: go on from its checkpoints with "
                                + "--resume auto, replace it with --overwrite, or choose another folder");
            }
            if (!hasAdapter && !overwrite && !isEmpty(path) && !isOurs(path)) {
                throw new LoricaException(
                        "--output " + path + " has files in it, and none of them is an adapter; choose another "
                                + "folder, or write into it with --overwrite");
            }
            Files.delete(Files.createTempFile(path, ".lorica", ".tmp"));
            FileChannel lock = lock(path);
            removeLeftOvers(path);
            return new OutputFolder(path, isNew, hasAdapter, lock);
        } catch (IOException e) {
            throw new LoricaException("--output " + path + " cannot be written to: " + reason(e), e);
        }
    }

    static void refuseFile(Path path) {
        if (Files.exists(path) && !Files.isDirectory(path)) {
            throw new LoricaException("--output " + path + " is a file; a folder is meant");
        }
    }

    private static FileChannel lock(Path folder) throws IOException {
        Path file = folder.resolve(LOCK);
        while (true) {
            FileChannel channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
            if (!tryLock(channel)) {
                channel.close();
                throw new LoricaException("--output " + folder + " is in use: another run writes into it"
                        + "; choose another folder, or wait until it is done");
            }
            // A run that ended just now may have taken the file away between our opening and our locking it; ours has a
            // size that hardly
            // another has. It must not be opened to see that: closing it again would give up the lock.
            long size = 1 + (System.nanoTime() & 0x7fff);
            channel.truncate(0).write(ByteBuffer.wrap(new byte[1]), size - 1);
            if (Files.exists(file) && Files.size(file) == size) {
                return channel;
            }
            channel.close();
        }
    }

    private static boolean tryLock(FileChannel channel) throws IOException {
        try {
            return channel.tryLock() != null;
        } catch (OverlappingFileLockException e) {
            return false; // of another run in this process
        }
    }

    /** What training ends with must find room, which is looked at before it: afterwards there would be nothing to save it to. */
    void requireSpace(long bytes) {
        // Not its FileStore, which Java does not find in a root of its own.
        File disk = path.toFile();
        if (disk.getTotalSpace() == 0) {
            return; // it does not tell
        }
        long free = disk.getUsableSpace();
        if (free < bytes) {
            throw new LoricaException("--output " + path + " has room for " + Format.bytes(free)
                    + "; the adapter takes " + Format.bytes(bytes) + ": choose another folder, or make room");
        }
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
        try (lock) {
            Files.deleteIfExists(path.resolve(LOCK));
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
            return files.map(file -> file.getFileName().toString())
                    .allMatch(
                            name -> name.equals(LOCK) || LEFT_OVER.matcher(name).matches());
        }
    }

    private static void removeLeftOvers(Path folder) throws IOException {
        List<Path> found;
        try (Stream<Path> files = Files.list(folder)) {
            found = files.filter(file ->
                            LEFT_OVER.matcher(file.getFileName().toString()).matches())
                    .toList();
        }
        for (Path file : found) {
            try (Stream<Path> tree = Files.walk(file)) {
                for (Path one : tree.sorted(Comparator.reverseOrder()).toList()) {
                    Files.deleteIfExists(one);
                }
            }
        }
    }
}
