package dev.lorica.files;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.internal.Arguments;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Writes a file so that, whatever happens, either the old or the new contents are there in full.
 *
 * <p>It is written under the name {@code FILE.tmp-PROCESS-NUMBER}, as the native library does, synced and renamed. What a killed
 * process left under such a name is taken away by the next one that writes the same file: whoever is at work holds a lock. An
 * interrupt of the thread does not disturb writing, as it would on a channel.
 */
public final class AtomicFile {
    private static final Pattern TEMPORARY =
            Pattern.compile("(?:\\.tmp-\\d{1,9}-\\d{1,19})?\\.tmp-(\\d{1,9})-\\d{1,19}");
    /** Between its making and its lock there is a moment. */
    private static final long NEW_MILLIS = 5000;

    /** Those that this process is at work on. */
    private static final Set<Path> ACTIVE = ConcurrentHashMap.newKeySet();

    private static final AtomicLong NUMBER = new AtomicLong();

    private AtomicFile() {}

    /** Gives a file its contents. */
    public interface Writer {
        /**
         * Writes the contents, from the first byte to the last.
         *
         * @param out where they go; it is buffered, and closed by the caller
         * @throws IOException if they cannot be written, after which nothing is replaced
         */
        void write(OutputStream out) throws IOException;
    }

    /**
     * Writes a file as a whole: under a temporary name, synced, renamed.
     *
     * @param file     the file, which is replaced if it is there
     * @param contents its bytes
     * @throws FileAccessException if it cannot be written; the old file is there then
     */
    public static void write(Path file, byte[] contents) {
        Arguments.given(contents, "contents");
        write(file, out -> out.write(contents));
    }

    /**
     * Writes a file as a whole: under a temporary name, synced, renamed.
     *
     * @param file   the file, which is replaced if it is there
     * @param writer writes the contents
     * @throws FileAccessException if it cannot be written; the old file is there then
     */
    public static void write(Path file, Writer writer) {
        Arguments.given(file, "file");
        Arguments.given(writer, "writer");
        removeAbandoned(file);
        Path temporary = reserve(file);
        try {
            try (FileOutputStream out = new FileOutputStream(temporary.toFile())) {
                lock(out.getChannel(), true);
                writer.write(out);
                out.getFD().sync();
            }
            Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be written: " + reason(e), e);
        } finally {
            deleteQuietly(temporary);
            release(temporary);
        }
    }

    /**
     * {@return a name beside {@code target} for a file or folder of that becomes it; nobody else takes it before {@link #release}}
     *
     * @param target what it becomes
     */
    public static Path reserve(Path target) {
        Arguments.given(target, "target");
        Path temporary = target.toAbsolutePath()
                .resolveSibling(target.getFileName() + ".tmp-"
                        + ProcessHandle.current().pid() + "-" + NUMBER.getAndIncrement());
        ACTIVE.add(temporary);
        return temporary;
    }

    /**
     * Gives back a name of {@link #reserve}, after the file was renamed or deleted: if it is still there, the next one who writes there
     * takes it away.
     *
     * @param temporary the name
     */
    public static void release(Path temporary) {
        Arguments.given(temporary, "temporary");
        ACTIVE.remove(temporary);
    }

    /**
     * Takes away what killed processes left on the way to {@code target}.
     *
     * @param target the file or folder that they were to become
     */
    public static void removeAbandoned(Path target) {
        Arguments.given(target, "target");
        String name = target.getFileName().toString();
        List<Path> found;
        try (Stream<Path> files = Files.list(target.toAbsolutePath().getParent())) {
            found = files.filter(file -> file.getFileName().toString().startsWith(name) && writer(file, name) != 0)
                    .toList();
        } catch (IOException e) {
            return; // whoever writes there will say what is wrong
        }
        for (Path file : found) {
            if (!ACTIVE.contains(file) && isAbandoned(file, writer(file, name))) {
                deleteQuietly(file);
            }
        }
    }

    /** The process in the name, 0 where it is no such name. */
    private static long writer(Path file, String name) {
        Matcher matcher = TEMPORARY.matcher(file.getFileName().toString().substring(name.length()));
        return matcher.matches() ? Long.parseLong(matcher.group(1)) : 0;
    }

    /** Numbers of processes alone do not tell: they come again, and are others in a container. */
    private static boolean isAbandoned(Path file, long process) {
        boolean isGone = ProcessHandle.of(process).isEmpty();
        try {
            if (Files.isDirectory(file, LinkOption.NOFOLLOW_LINKS)) {
                return isGone || process == ProcessHandle.current().pid();
            }
            boolean isNew =
                    System.currentTimeMillis() - Files.getLastModifiedTime(file).toMillis() < NEW_MILLIS;
            try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS)) {
                return lock(channel, isGone) && (isGone || !isNew);
            }
        } catch (IOException e) {
            return false;
        }
    }

    /** False when somebody else has the lock; {@code otherwise} where the file system knows no locks. */
    private static boolean lock(FileChannel channel, boolean otherwise) {
        try {
            return channel.tryLock() != null;
        } catch (OverlappingFileLockException e) {
            return false;
        } catch (IOException e) {
            return otherwise;
        }
    }

    /**
     * {@return the reason without the path, which Java's messages repeat or consist of}
     *
     * @param e what was thrown
     */
    public static String reason(IOException e) {
        Arguments.given(e, "e");
        if (e instanceof AccessDeniedException) {
            return "permission denied";
        }
        if (e instanceof NoSuchFileException) {
            return "no such folder";
        }
        if (e instanceof NotDirectoryException) {
            return "a file is where a folder is meant";
        }
        if (e instanceof FileSystemException f && f.getReason() != null) {
            return f.getReason();
        }
        // FileOutputStream's: "/a/b (No space left on device)"
        String message = e.getMessage() == null ? "" : e.getMessage();
        int open = message.lastIndexOf(" (");
        if (open >= 0 && message.endsWith(")")) {
            return message.substring(open + 2, message.length() - 1);
        }
        return e.getClass() == IOException.class && !message.isEmpty() ? message : e.toString();
    }

    /**
     * Deletes a file or a folder with all that is in it. What cannot be deleted stays.
     *
     * @param path the file or folder; one that is not there is no error
     */
    public static void deleteQuietly(Path path) {
        Arguments.given(path, "path");
        if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
            return;
        }
        try (Stream<Path> tree = Files.walk(path)) {
            for (Path one : tree.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(one);
            }
        } catch (IOException e) {
            // The next one who writes the file tries again.
        }
    }
}
