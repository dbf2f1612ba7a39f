package dev.lorica.hub;

import dev.lorica.exceptions.FileAccessException;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Stream;

/**
 * One repository in the cache, laid out as Hugging Face's programs have it:
 *
 * <pre>
 * models--OWNER--REPO/blobs/CHECKSUM              the files; datasets--OWNER--SET where it is a data set
 *                     refs/REVISION               the commit that a branch or tag was at
 *                     snapshots/COMMIT/PATH       links to the files
 * .locks/models--OWNER--REPO/CHECKSUM.lock        held while a file is downloaded
 * </pre>
 */
final class HubCache {
    /** Locks of files are held by processes; these are those of the threads of this one. */
    private static final Map<Path, ReentrantLock> THREADS = new ConcurrentHashMap<>();

    private final Path root;
    private final Path folder;

    HubCache(Path root, HubName name) {
        this.root = root.toAbsolutePath();
        this.folder =
                this.root.resolve((name.data() ? "datasets--" : "models--") + name.owner() + "--" + name.repository());
    }

    /** The commit that a revision was at when it was last asked for, {@code null} when it never was. */
    String commit(HubName name) {
        if (name.isCommit()) {
            return name.revision();
        }
        try {
            String commit = Files.readString(folder.resolve("refs").resolve(name.revision()))
                    .strip();
            return HubName.isCommit(commit) ? commit : null;
        } catch (NoSuchFileException e) {
            return null;
        } catch (IOException e) {
            return null; // damaged: as if it were not there
        }
    }

    void setCommit(HubName name, String commit) {
        if (name.isCommit() || commit.equals(commit(name))) {
            return;
        }
        Path file = folder.resolve("refs").resolve(name.revision());
        try {
            Files.createDirectories(file.getParent());
            Path temporary = temporaryBeside(file);
            Files.writeString(temporary, commit);
            Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw cannotBeWritten(file, e);
        }
    }

    Path snapshot(String commit) {
        return folder.resolve("snapshots").resolve(commit);
    }

    /** A file of a commit, {@code null} when it is not here. */
    Path find(String commit, String path) {
        if (commit == null) {
            return null;
        }
        Path file = snapshot(commit).resolve(path);
        return Files.isRegularFile(file) ? file : null;
    }

    /** All files of a commit that are here. */
    List<String> files(String commit) {
        Path snapshot = snapshot(commit);
        try (Stream<Path> paths = Files.walk(snapshot)) {
            return paths.filter(Files::isRegularFile)
                    .map(path -> snapshot.relativize(path).toString().replace('\\', '/'))
                    .sorted()
                    .toList();
        } catch (NoSuchFileException e) {
            return List.of();
        } catch (IOException e) {
            throw new FileAccessException(snapshot + " cannot be read: " + e.getMessage(), e);
        }
    }

    /** Whether a blob is here; whole it is when it has its name, unless someone cut it. */
    boolean has(String etag, long size) {
        try {
            return Files.isRegularFile(blob(etag)) && Files.size(blob(etag)) == size;
        } catch (IOException e) {
            return false;
        }
    }

    Path blob(String etag) {
        return folder.resolve("blobs").resolve(etag);
    }

    /** Where a file is while it is not complete. A name of our own: two programs must not write into one file. */
    Path partial(String etag) {
        return folder.resolve("blobs").resolve(etag + ".lorica-incomplete");
    }

    /** Makes {@code path} of a commit the blob; a copy where the file system knows no links. */
    Path link(String commit, String path, String etag) {
        Path file = snapshot(commit).resolve(path);
        try {
            Files.createDirectories(file.getParent());
            Path temporary = temporaryBeside(file);
            try {
                Files.createSymbolicLink(temporary, file.getParent().relativize(blob(etag)));
            } catch (IOException | UnsupportedOperationException e) {
                Files.copy(blob(etag), temporary);
            }
            Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            return file;
        } catch (IOException e) {
            throw cannotBeWritten(file, e);
        }
    }

    /** Work on one blob that no other thread or process does at the same time. */
    void exclusively(String etag, HubListener listener, Runnable work) {
        Path lock = root.resolve(".locks").resolve(folder.getFileName()).resolve(etag + ".lock");
        ReentrantLock threads = THREADS.computeIfAbsent(lock, path -> new ReentrantLock());
        threads.lock();
        try (FileChannel channel = open(lock);
                FileLock held = lock(channel, listener)) {
            work.run();
        } catch (IOException e) {
            throw cannotBeWritten(lock, e);
        } finally {
            threads.unlock();
        }
    }

    private FileChannel open(Path lock) throws IOException {
        Files.createDirectories(folder.resolve("blobs"));
        Files.createDirectories(lock.getParent());
        return FileChannel.open(lock, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
    }

    private static FileLock lock(FileChannel channel, HubListener listener) throws IOException {
        FileLock lock = channel.tryLock();
        if (lock == null) {
            listener.note("another process downloads the same file; waiting for it");
            lock = channel.lock();
        }
        return lock;
    }

    private static Path temporaryBeside(Path file) {
        return file.resolveSibling(
                file.getFileName() + ".tmp-" + ProcessHandle.current().pid() + "-" + System.nanoTime());
    }

    private FileAccessException cannotBeWritten(Path file, IOException e) {
        return new FileAccessException(
                "the cache " + root + " cannot be written (" + file.getFileName() + ": " + e.getMessage()
                        + "); HF_HUB_CACHE names another folder",
                e);
    }
}
