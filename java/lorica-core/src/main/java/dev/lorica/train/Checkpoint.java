package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.GgufFile;
import dev.lorica.files.Sha256;
import dev.lorica.internal.Arguments;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.function.BiConsumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * A folder {@code checkpoint-N} with all that a run needs to go on after optimizer step N as if it had never ended: the adapter
 * (a folder like any adapter's, ready to be used), the optimizer's state, the position in the data, in the schedule and in the
 * random numbers.
 *
 * <p>It is written under another name, synced and then renamed, so a folder of that name is whole. {@value #MANIFEST}, in the
 * format of {@code sha256sum}, says what belongs to it; it is checked when the checkpoint is opened.
 */
public final class Checkpoint {
    /** Names the files of a checkpoint and their checksums. */
    public static final String MANIFEST = "SHA256SUMS";

    static final String TRAINING_STATE = "training_state.bin";
    private static final Pattern NAME = Pattern.compile("checkpoint-([1-9][0-9]{0,8})");
    /** Folders that are being written or deleted. */
    private static final Pattern UNFINISHED = Pattern.compile("checkpoint-[0-9]+(\\.old)?\\.tmp");

    private final Path path;
    private final int step;

    private Checkpoint(Path path, int step) {
        this.path = path;
        this.step = step;
    }

    /**
     * Opens a checkpoint and checks that it is whole.
     *
     * @param path its folder, {@code checkpoint-500}
     * @return the checkpoint
     * @throws FileFormatException if it is not; the message names what is wrong
     */
    public static Checkpoint open(Path path) {
        Arguments.given(path, "path");
        verify(path);
        requireFinite(path.resolve(Adapter.FILE_NAME));
        return new Checkpoint(path, TrainerState.read(path.resolve(TrainerState.FILE_NAME)).step);
    }

    /**
     * {@return the checkpoint in {@code folder} with most steps that is whole; empty when there is none}
     *
     * @param folder  where checkpoints were written
     * @param damaged is told of each that was passed over, and why
     */
    public static Optional<Checkpoint> latest(Path folder, BiConsumer<Path, LoricaException> damaged) {
        Arguments.given(folder, "folder");
        Arguments.given(damaged, "damaged");
        List<Path> all = list(folder);
        for (int i = all.size() - 1; i >= 0; i--) {
            try {
                return Optional.of(open(all.get(i)));
            } catch (LoricaException e) {
                damaged.accept(all.get(i), e);
            }
        }
        return Optional.empty();
    }

    /**
     * {@return the checkpoints in {@code folder} by their steps, whole or not}
     *
     * @param folder where checkpoints were written
     */
    public static List<Path> list(Path folder) {
        Arguments.given(folder, "folder");
        return children(folder, NAME).stream()
                .sorted(Comparator.comparingInt(Checkpoint::stepOf))
                .toList();
    }

    /**
     * Deletes all checkpoints in {@code folder}.
     *
     * @param folder where checkpoints were written
     */
    public static void deleteAll(Path folder) {
        Arguments.given(folder, "folder");
        list(folder).forEach(Checkpoint::delete);
        deleteUnfinished(folder);
    }

    /** {@return its folder} */
    public Path path() {
        return path;
    }

    /** {@return optimizer steps done} */
    public int step() {
        return step;
    }

    /** Read anew each time: a run works on it. */
    TrainerState state() {
        return TrainerState.read(path.resolve(TrainerState.FILE_NAME));
    }

    /** Whether the checkpoint of a step is there and whole. */
    static boolean isWhole(Path folder, int step) {
        try {
            open(path(folder, step));
            return true;
        } catch (LoricaException e) {
            return false;
        }
    }

    Path trainingState() {
        return path.resolve(TRAINING_STATE);
    }

    static Path path(Path folder, int step) {
        return folder.resolve("checkpoint-" + step);
    }

    /** Writes the checkpoint of {@code state}; when that fails, what was there before is still there. */
    static Path write(Path folder, TrainerState state, Adapter adapter, LocalSession session) {
        Path target = path(folder, state.step);
        Path temporary = folder.resolve(target.getFileName() + ".tmp");
        try {
            deleteTree(temporary);
            Files.createDirectories(temporary);
            adapter.save(temporary);
            session.saveState(temporary.resolve(TRAINING_STATE));
            state.write(temporary.resolve(TrainerState.FILE_NAME));
            AtomicFile.write(temporary.resolve(MANIFEST), manifest(temporary).getBytes(StandardCharsets.UTF_8));
            sync(temporary);
            if (Files.exists(target)) {
                Path old = folder.resolve(target.getFileName() + ".old.tmp");
                deleteTree(old);
                Files.move(target, old, StandardCopyOption.ATOMIC_MOVE);
                Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
                deleteTree(old);
            } else {
                Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
            }
            sync(folder);
            return target;
        } catch (IOException e) {
            throw new FileAccessException(target + " cannot be written: " + AtomicFile.reason(e), e);
        } finally {
            try {
                deleteTree(temporary);
            } catch (IOException e) {
                // The next start deletes it. What matters is why it was not finished.
            }
        }
    }

    /** Deletes the oldest checkpoints but {@code limit}; that of {@code bestStep} and the newest are never deleted. */
    static void rotate(Path folder, int limit, int bestStep) {
        if (limit == 0) {
            return;
        }
        List<Path> all = list(folder);
        List<Path> candidates =
                all.stream().filter(path -> stepOf(path) != bestStep).toList();
        int others = Math.max(1, limit - (all.size() - candidates.size()));
        for (int i = 0; i < candidates.size() - others; i++) {
            delete(candidates.get(i));
        }
    }

    /** Clears away what a killed process left behind. */
    static void deleteUnfinished(Path folder) {
        children(folder, UNFINISHED).forEach(Checkpoint::delete);
    }

    private static void delete(Path checkpoint) {
        try {
            // Under another name first, so that nobody ever takes half of it for a checkpoint.
            Path doomed = checkpoint;
            if (NAME.matcher(checkpoint.getFileName().toString()).matches()) {
                doomed = checkpoint.resolveSibling(checkpoint.getFileName() + ".old.tmp");
                deleteTree(doomed);
                Files.move(checkpoint, doomed, StandardCopyOption.ATOMIC_MOVE);
            }
            deleteTree(doomed);
        } catch (IOException e) {
            throw new FileAccessException(checkpoint + " cannot be deleted: " + AtomicFile.reason(e), e);
        }
    }

    private static int stepOf(Path checkpoint) {
        Matcher name = NAME.matcher(checkpoint.getFileName().toString());
        if (!name.matches()) {
            throw new InvalidArgumentException(checkpoint + " is not the name of a checkpoint");
        }
        return Integer.parseInt(name.group(1));
    }

    private static List<Path> children(Path folder, Pattern name) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(
                            file -> name.matcher(file.getFileName().toString()).matches())
                    .toList();
        } catch (NoSuchFileException e) {
            return List.of();
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static String manifest(Path folder) throws IOException {
        List<Path> files;
        try (Stream<Path> all = Files.list(folder)) {
            files = all.sorted().toList();
        }
        StringBuilder manifest = new StringBuilder();
        for (Path file : files) {
            manifest.append(Sha256.of(file))
                    .append("  ")
                    .append(file.getFileName())
                    .append('\n');
        }
        return manifest.toString();
    }

    private static void verify(Path folder) {
        if (!Files.isDirectory(folder)) {
            throw new FileAccessException(folder + (Files.exists(folder) ? " is not a folder" : " does not exist"));
        }
        List<String> missing = new ArrayList<>(List.of(Adapter.FILE_NAME, TRAINING_STATE, TrainerState.FILE_NAME));
        try {
            for (String line : Files.readAllLines(folder.resolve(MANIFEST))) {
                String[] parts = line.split(" {2}", 2);
                if (parts.length != 2 || !parts[1].matches("[A-Za-z0-9_.]+")) {
                    throw new FileFormatException(folder.resolve(MANIFEST) + " is damaged");
                }
                Path file = folder.resolve(parts[1]);
                if (!Files.exists(file)) {
                    throw new FileFormatException(folder + " is not whole: " + parts[1] + " is missing");
                }
                if (!Sha256.of(file).equals(parts[0])) {
                    throw new FileFormatException(folder + " is damaged: " + parts[1] + " does not have its checksum");
                }
                missing.remove(parts[1]);
            }
        } catch (NoSuchFileException e) {
            throw new FileFormatException(folder + " is no whole checkpoint: it has no " + MANIFEST, e);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be read: " + AtomicFile.reason(e), e);
        }
        if (!missing.isEmpty()) {
            throw new FileFormatException(folder + " is not whole: " + MANIFEST + " does not name " + missing.get(0));
        }
    }

    /** Of a file of f32 tensors. A run cannot go on from weights that are no numbers, however whole they are. */
    private static void requireFinite(Path weights) {
        try (GgufFile gguf = GgufFile.open(weights);
                RandomAccessFile file = new RandomAccessFile(weights.toFile(), "r")) {
            for (GgufFile.Tensor tensor : gguf.tensors()) {
                byte[] bytes = new byte[Math.toIntExact(tensor.bytes())];
                file.seek(tensor.offset());
                file.readFully(bytes);
                FloatBuffer values =
                        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
                while (tensor.type().equals("F32") && values.hasRemaining()) {
                    if (!Float.isFinite(values.get())) {
                        throw new FileFormatException(
                                weights + ": " + tensor.name() + " holds numbers that are not finite");
                    }
                }
            }
        } catch (IOException e) {
            throw new FileAccessException(weights + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** Makes renames in {@code folder} last. Some systems cannot open folders, and do not need it. */
    private static void sync(Path folder) {
        try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
            channel.force(true);
        } catch (IOException e) {
            // see above
        }
    }

    private static void deleteTree(Path root) throws IOException {
        if (!Files.exists(root)) {
            return;
        }
        Files.walkFileTree(root, new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
                Files.delete(file);
                return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult postVisitDirectory(Path folder, IOException e) throws IOException {
                if (e != null) {
                    throw e;
                }
                Files.delete(folder);
                return FileVisitResult.CONTINUE;
            }
        });
    }
}
