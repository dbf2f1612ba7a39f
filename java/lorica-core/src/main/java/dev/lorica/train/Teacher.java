package dev.lorica.train;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.Example;
import dev.lorica.data.Packer;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.Sha256;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.function.BooleanSupplier;
import java.util.function.DoubleConsumer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A model that another one of the same vocabulary is to resemble, for {@link Objective#distill}. It is asked once about a data set,
 * before training, and what it says is kept in a file, so that it need not be in memory while the other one learns:
 *
 * <pre>{@code
 * try (TeacherLogProbs said = new Teacher(large, null, 64, 1).logProbs(data, folder)) {
 *     new Trainer(small, adapter, config, Objective.distill(0.5)).train(data.withTeacher(said));
 * }
 * }</pre>
 *
 * @param model       is larger, as a rule
 * @param adapter     of it; {@code null}: the model as it is
 * @param topK        tokens at each position whose log-probabilities are kept; 0: the whole vocabulary. Of the others their
 *                    probability together is known
 * @param temperature by which the logits of both models are divided
 */
public record Teacher(Model model, Adapter adapter, int topK, double temperature) {
    private static final Logger LOG = LoggerFactory.getLogger(Teacher.class);
    private static final int TOKENS_AT_ONCE = 2048;

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     * @throws MismatchException if the adapter is another model's
     */
    public Teacher {
        Arguments.given(model, "model");
        if (adapter != null) {
            adapter.requireModel(model);
        }
        ObjectiveSetting.LOSS_TOP_K.check(topK);
        ObjectiveSetting.TEMPERATURE.check(temperature);
        if (topK > model.info().vocabSize()) {
            throw new InvalidArgumentException("loss top k is " + topK + "; the teacher's vocabulary has "
                    + model.info().vocabSize() + " tokens");
        }
    }

    /**
     * Refuses a model of another vocabulary: both must have the same tokens under the same ids.
     *
     * @param student the model that learns
     * @throws MismatchException if a token is another one there
     */
    public void requireVocabularyOf(Model student) {
        Arguments.given(student, "student");
        Tokenizer own = model.tokenizer();
        Tokenizer other = student.tokenizer();
        String both = "the teacher " + model.file() + " has another vocabulary than " + student.file() + ": ";
        String meant = "; a teacher has the vocabulary of the model that learns from it";
        int n = model.info().vocabSize();
        if (n != student.info().vocabSize()
                || own.info().vocabSize() != other.info().vocabSize()) {
            throw new MismatchException(
                    both + n + " tokens, not " + student.info().vocabSize() + meant);
        }
        for (int id = 0; id < own.info().vocabSize(); id++) {
            String here = own.tokenText(id);
            String there = other.tokenText(id);
            if (!here.equals(there)) {
                throw new MismatchException(
                        both + "token " + id + " is \"" + here + "\" and not \"" + there + "\"" + meant);
            }
        }
    }

    /**
     * {@return what it says of a data set, as {@link #logProbs(TokenizedDataset, Path, DoubleConsumer, BooleanSupplier)} has it}
     *
     * @param data   whose positions with labels are asked about
     * @param folder is made where it does not exist
     */
    public TeacherLogProbs logProbs(TokenizedDataset data, Path folder) {
        return logProbs(data, folder, share -> {}, () -> false);
    }

    /**
     * What it says of a data set: from a file in {@code folder}, where it was asked before, by the same teacher, about the same data
     * and in the same way; else it is asked, and the file is made. Its name has a fingerprint of all that, so that no other is taken
     * for it.
     *
     * @param data     whose positions with labels are asked about
     * @param folder   is made where it does not exist
     * @param progress hears what share of the data was asked about
     * @param stop     asked from time to time
     * @return what it says, to be closed; {@code null} when {@code stop} became true before the end
     */
    public TeacherLogProbs logProbs(TokenizedDataset data, Path folder, DoubleConsumer progress, BooleanSupplier stop) {
        Arguments.given(data, "data");
        Arguments.given(folder, "folder");
        Arguments.given(progress, "progress");
        Arguments.given(stop, "stop");
        int n = topK == 0 ? model.info().vocabSize() : topK;
        TeacherLogProbs.Header header = new TeacherLogProbs.Header(
                fingerprint(data), inWords(), n, n == model.info().vocabSize(), temperature);
        Path file = folder.resolve("teacher-" + header.fingerprint() + ".logprobs");
        TeacherLogProbs known = known(file, header);
        if (known != null) {
            return known;
        }
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be made: " + AtomicFile.reason(e), e);
        }
        try {
            ask(data, n, file, header, progress, stop);
        } catch (Stopped e) {
            return null;
        }
        return TeacherLogProbs.open(file);
    }

    private static TeacherLogProbs known(Path file, TeacherLogProbs.Header header) {
        if (!Files.exists(file)) {
            return null;
        }
        try {
            TeacherLogProbs known = TeacherLogProbs.open(file);
            if (known.header().equals(header)) {
                return known;
            }
            known.close();
            LOG.warn("{} is about something else than its name says; the teacher is asked again", file);
        } catch (FileFormatException e) {
            LOG.warn("{} is damaged; the teacher is asked again", file);
        }
        return null;
    }

    /** {@return for people: {@code Llama 3.2 3B (fingerprint 1234…), top 64, temperature 1.0}} */
    public String inWords() {
        String name = model.info().name().isEmpty()
                ? model.info().architecture()
                : model.info().name();
        return name + " (fingerprint " + model.info().fingerprint() + ")"
                + (adapter == null ? "" : " with an adapter (" + checksum(adapter) + ")")
                + (topK == 0 ? ", whole vocabulary" : ", top " + topK) + ", temperature " + temperature;
    }

    private static String checksum(Adapter adapter) {
        MessageDigest digest = Sha256.digest();
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            ByteBuffer bytes = ByteBuffer.allocate(values.length * Float.BYTES);
            bytes.asFloatBuffer().put(values);
            digest.update(adapter.tensors().get(i).name().getBytes(StandardCharsets.UTF_8));
            digest.update(bytes.array());
        }
        return HexFormat.of().formatHex(digest.digest(), 0, 8);
    }

    private String fingerprint(TokenizedDataset data) {
        MessageDigest digest = Sha256.digest();
        // Products in another precision give other numbers.
        boolean bf16 = model.info().deviceDetail().contains("bf16");
        String all = String.join(
                "\n",
                inWords(),
                model.file().toFile().length() + " bytes",
                bf16 ? "bf16" : "not bf16",
                TrainerState.checksum(data));
        digest.update(all.getBytes(StandardCharsets.UTF_8));
        return HexFormat.of().formatHex(digest.digest(), 0, 8);
    }

    /** Leaves the writing of a file, which is not made then. */
    private static final class Stopped extends RuntimeException {
        private static final long serialVersionUID = 1;

        Stopped() {
            super(null, null, false, false);
        }
    }

    private void ask(
            TokenizedDataset data,
            int n,
            Path file,
            TeacherLogProbs.Header header,
            DoubleConsumer progress,
            BooleanSupplier stop) {
        List<Example> examples = data.examples();
        int[] positions = new int[examples.size()];
        int longest = 1;
        for (int i = 0; i < positions.length; i++) {
            Example example = examples.get(i);
            positions[i] = example.trainedTokens();
            longest = Math.max(longest, example.length());
        }
        int most = Math.max(longest, TOKENS_AT_ONCE);
        NativeSession.Params params = NativeSession.Params.ofLikeliest(most, most, longest);
        try (NativeSession session = adapter == null
                ? new NativeSession(Inner.MODEL.of(model), params)
                : new NativeSession(Inner.ADAPTER.of(adapter), params)) {
            TeacherLogProbs.write(file, header, positions, sink -> {
                List<Example> together = new ArrayList<>();
                int tokens = 0;
                for (int i = 0; i < positions.length; i++) {
                    Example example = examples.get(i);
                    if (tokens + example.length() > most) {
                        ask(session, n, together, sink);
                        progress.accept((double) i / positions.length);
                        together.clear();
                        tokens = 0;
                    }
                    if (stop.getAsBoolean()) {
                        throw new Stopped();
                    }
                    if (positions[i] > 0) {
                        together.add(example);
                        tokens += example.length();
                    }
                }
                ask(session, n, together, sink);
                progress.accept(1);
            });
        }
        model.requireUnchanged();
    }

    private void ask(NativeSession session, int n, List<Example> examples, TeacherLogProbs.Sink sink)
            throws IOException {
        if (examples.isEmpty()) {
            return;
        }
        Batch batch = Packer.pack(examples);
        int positions = batch.trainedCount();
        int[] ids = new int[Math.multiplyExact(positions, n)];
        float[] logProbs = new float[ids.length];
        session.evaluateLikeliest(
                batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), temperature, ids, logProbs);
        for (int i = 0; i < positions; i++) {
            sink.position(ids, logProbs, i * n);
        }
    }
}
