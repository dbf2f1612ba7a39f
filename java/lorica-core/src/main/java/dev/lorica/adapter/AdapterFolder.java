package dev.lorica.adapter;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.Sha256;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * The files of an adapter's folder, which are replaced together or not at all. They are written into a folder of their own in it,
 * {@code .lorica-staged.tmp-…}, which becomes {@value #COMMITTED} in one rename: that is the moment at which the new adapter is the
 * one that is there. Then each file is moved to its place. Whoever writes or loads afterwards first finishes what was broken off in
 * between.
 *
 * <p>{@value AdapterMetadata#FILE_NAME} records the checksums of the others, and loading compares them: a file that somebody put in
 * or copied halfway is noticed.
 */
final class AdapterFolder {
    static final String COMMITTED = ".lorica-adapter";
    private static final String STAGED = ".lorica-staged";
    private static final List<String> WEIGHTS = List.of(
            Adapter.FILE_NAME,
            Adapter.PEFT_FILE_NAME,
            Adapter.PEFT_CONFIG_NAME,
            Adapter.ADAPTERHUB_FILE_NAME,
            Adapter.ADDED_TOKENS_FILE_NAME);

    private AdapterFolder() {}

    /**
     * Replaces the adapter in {@code folder}.
     *
     * @param metadata of the new one
     * @param kept     names of files in the folder that belong to the new one too
     * @param writer   writes its files into a folder
     */
    static void replace(Path folder, AdapterMetadata metadata, List<String> kept, Consumer<Path> writer) {
        finish(folder);
        AtomicFile.removeAbandoned(folder.resolve(STAGED));
        Path staged = AtomicFile.reserve(folder.resolve(STAGED));
        try {
            Files.createDirectory(staged);
            writer.accept(staged);
            Map<String, String> files = new LinkedHashMap<>();
            for (String name : WEIGHTS) {
                Path file = Files.exists(staged.resolve(name)) ? staged.resolve(name) : folder.resolve(name);
                if (file.startsWith(staged) || kept.contains(name) && Files.exists(file)) {
                    files.put(name, Sha256.of(file));
                }
            }
            metadata.write(staged, files);
            sync(staged);
            try {
                Files.move(staged, folder.resolve(COMMITTED), StandardCopyOption.ATOMIC_MOVE);
            } catch (DirectoryNotEmptyException | FileAlreadyExistsException e) {
                finish(folder); // of another writer
                Files.move(staged, folder.resolve(COMMITTED), StandardCopyOption.ATOMIC_MOVE);
            }
            finish(folder);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be written: " + AtomicFile.reason(e), e);
        } finally {
            AtomicFile.deleteQuietly(staged);
            AtomicFile.release(staged);
        }
    }

    /** Puts the files of an adapter that is there already, and not yet in its place, into their places. */
    static void finish(Path folder) {
        Path committed = folder.resolve(COMMITTED);
        if (!Files.isDirectory(committed)) {
            return;
        }
        try {
            sync(folder);
            Map<String, String> before = AdapterMetadata.files(folder);
            Map<String, String> now = AdapterMetadata.files(
                    Files.exists(committed.resolve(AdapterMetadata.FILE_NAME)) ? committed : folder);
            for (String name : WEIGHTS) {
                move(committed.resolve(name), folder.resolve(name));
                if (before.containsKey(name) && !now.containsKey(name)) {
                    Files.deleteIfExists(folder.resolve(name));
                }
            }
            move(committed.resolve(AdapterMetadata.FILE_NAME), folder.resolve(AdapterMetadata.FILE_NAME));
            AtomicFile.deleteQuietly(committed);
            sync(folder);
        } catch (IOException e) {
            throw new FileAccessException(
                    folder + " holds an adapter that is not in its place yet, and cannot be put there: "
                            + AtomicFile.reason(e),
                    e);
        }
    }

    private static void move(Path from, Path to) throws IOException {
        try {
            Files.move(from, to, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (NoSuchFileException e) {
            // It is none of this adapter's, or was moved already.
        }
    }

    /**
     * Compares the files with the checksums that were recorded when they were written. Files that are missing are not needed.
     *
     * @throws FileFormatException naming the file that is another
     */
    static void verify(Path folder) {
        try {
            for (Map.Entry<String, String> entry : AdapterMetadata.files(folder).entrySet()) {
                String found;
                try {
                    found = Sha256.of(folder.resolve(entry.getKey()));
                } catch (FileNotFoundException e) {
                    continue;
                }
                if (!found.equals(entry.getValue())) {
                    throw new FileFormatException(folder.resolve(entry.getKey()) + " is not the file that "
                            + AdapterMetadata.FILE_NAME
                            + " beside it was written with: it was damaged, or put there by "
                            + "another program; if that is meant, take its checksum out of \"files\" there");
                }
            }
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** Whether the folder's adapter has these weights; without a record of its files, whether they are there. */
    static boolean has(Path folder, String weights) {
        Map<String, String> files = AdapterMetadata.files(folder);
        return Files.exists(folder.resolve(weights)) && (files.isEmpty() || files.containsKey(weights));
    }

    /** Makes what is in the folder last. Some systems cannot open folders, and do not need it. */
    private static void sync(Path folder) {
        try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
            channel.force(true);
        } catch (IOException e) {
            // see above
        }
    }
}
