package dev.lorica;

import static dev.lorica.internal.Status.check;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_detokenizer;
import dev.lorica.internal.c.lorica_tokenizer;
import dev.lorica.internal.c.lorica_tokenizer_info;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.BytePointer;

/**
 * Text to token ids and back, with the vocabulary of a GGUF file. Its ids are those of llama.cpp.
 *
 * <p>Immutable; any number of threads may use one at the same time.
 */
public final class Tokenizer implements AutoCloseable {
    private final NativeHandle<lorica_tokenizer> handle;
    private final TokenizerInfo info;

    private Tokenizer(NativeHandle<lorica_tokenizer> handle) {
        this.handle = handle;
        this.info = handle.shared(Tokenizer::readInfo);
    }

    /** Reads the vocabulary of a GGUF file, which may be one that holds nothing else. */
    public static Tokenizer load(Path file) {
        NativeLibrary.load();
        lorica_tokenizer pointer = new lorica_tokenizer();
        try (BytePointer path = Text.copy("the path", Hub.model(file).toString())) {
            check(Lorica.lorica_tokenizer_load(path, pointer));
        }
        return new Tokenizer(new NativeHandle<>("the tokenizer", pointer, Lorica::lorica_tokenizer_free));
    }

    public TokenizerInfo info() {
        return info;
    }

    /**
     * @param addSpecial   whether BOS and EOS are put where the vocabulary asks for them
     * @param parseSpecial whether control tokens written out in the text ({@code <|im_end|>}) become these tokens instead of
     *                     plain text; false for text from strangers
     */
    public int[] encode(String text, boolean addSpecial, boolean parseSpecial) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        // A byte is at least as long as a token, but for the specials and SentencePiece's leading space.
        int[] ids = new int[utf8.length + 8];
        long[] count = new long[1];
        try (BytePointer bytes = new BytePointer(utf8)) {
            encode(bytes, utf8.length, addSpecial, parseSpecial, ids, count);
            if (count[0] > ids.length) {
                ids = new int[arrayLength(count[0])];
                encode(bytes, utf8.length, addSpecial, parseSpecial, ids, count);
            }
        }
        return Arrays.copyOf(ids, (int) count[0]);
    }

    private void encode(
            BytePointer bytes, int length, boolean addSpecial, boolean parseSpecial, int[] ids, long[] count) {
        check(handle.shared(t ->
                Lorica.lorica_tokenizer_encode(t, bytes, length, addSpecial, parseSpecial, ids, ids.length, count)));
    }

    /**
     * Encodes many texts at once, on all cores, without BOS and EOS.
     *
     * @param parseSpecial as in {@link #encode}, for each text
     */
    public List<int[]> encodeBatch(List<String> texts, boolean[] parseSpecial) {
        int n = texts.size();
        if (parseSpecial.length != n) {
            throw new InvalidArgumentException(n + " texts but " + parseSpecial.length + " flags");
        }
        if (n == 0) {
            return List.of();
        }
        byte[][] utf8 = new byte[n][];
        long[] offsets = new long[n + 1];
        for (int i = 0; i < n; i++) {
            utf8[i] = texts.get(i).getBytes(StandardCharsets.UTF_8);
            offsets[i + 1] = offsets[i] + utf8[i].length;
        }
        int[] ids = new int[arrayLength(offsets[n] + 8L * n)];
        long[] idOffsets = new long[n + 1];
        try (BytePointer bytes = new BytePointer(offsets[n]);
                BoolPointer flags = new BoolPointer(n)) {
            for (int i = 0; i < n; i++) {
                flags.put(i, parseSpecial[i]);
                bytes.position(offsets[i]).put(utf8[i]);
            }
            bytes.position(0);
            encodeBatch(bytes, offsets, flags, n, ids, idOffsets);
            if (idOffsets[n] > ids.length) {
                ids = new int[arrayLength(idOffsets[n])];
                encodeBatch(bytes, offsets, flags, n, ids, idOffsets);
            }
        }
        List<int[]> all = new ArrayList<>(n);
        for (int i = 0; i < n; i++) {
            all.add(Arrays.copyOfRange(ids, (int) idOffsets[i], (int) idOffsets[i + 1]));
        }
        return all;
    }

    private void encodeBatch(BytePointer bytes, long[] offsets, BoolPointer flags, int n, int[] ids, long[] idOffsets) {
        check(handle.shared(
                t -> Lorica.lorica_tokenizer_encode_batch(t, bytes, offsets, flags, n, 0, ids, ids.length, idOffsets)));
    }

    /** The text that ids stand for, without control tokens. Bytes that are no character come as U+FFFD. */
    public String decode(int... ids) {
        return decode(ids, false);
    }

    /**
     * The text that ids stand for.
     *
     * @param special whether control tokens are written out
     */
    public String decode(int[] ids, boolean special) {
        byte[] bytes = new byte[arrayLength(16L * ids.length)];
        long[] count = new long[1];
        decode(ids, special, bytes, count);
        if (count[0] > bytes.length) {
            bytes = new byte[arrayLength(count[0])];
            decode(ids, special, bytes, count);
        }
        return new String(bytes, 0, (int) count[0], StandardCharsets.UTF_8);
    }

    private void decode(int[] ids, boolean special, byte[] bytes, long[] count) {
        check(handle.shared(
                t -> Lorica.lorica_tokenizer_decode(t, ids, ids.length, special, bytes, bytes.length, count)));
    }

    /** The text of one token as the vocabulary spells it. */
    public String tokenText(int id) {
        requireId(id);
        return handle.shared(t -> Text.of(Lorica.lorica_tokenizer_token_text(t, id)));
    }

    /** Whether this is a control token: never produced from plain text, hidden by {@link #decode(int...)}. */
    public boolean isControl(int id) {
        requireId(id);
        return handle.shared(t -> Lorica.lorica_tokenizer_is_control(t, id));
    }

    /** Whether this token ends a text or a turn. */
    public boolean isEndOfGeneration(int id) {
        requireId(id);
        return handle.shared(t -> Lorica.lorica_tokenizer_is_end_of_generation(t, id));
    }

    /**
     * A stream from ids to text.
     *
     * @param special whether control tokens are written out
     */
    public Detokenizer detokenizer(boolean special) {
        lorica_detokenizer pointer = new lorica_detokenizer();
        check(handle.shared(t -> Lorica.lorica_detokenizer_create(t, special, pointer)));
        return new Detokenizer(new NativeHandle<>("the detokenizer", pointer, Lorica::lorica_detokenizer_free, handle));
    }

    @Override
    public void close() {
        handle.close();
    }

    private void requireId(int id) {
        if (id < 0 || id >= info.vocabSize()) {
            throw new InvalidArgumentException(
                    "token id " + id + " is not in the vocabulary, which has " + info.vocabSize() + " tokens");
        }
    }

    private static int arrayLength(long length) {
        if (length > Integer.MAX_VALUE - 8) {
            throw new InvalidArgumentException("too much text at once; give it in pieces");
        }
        return (int) length;
    }

    private static TokenizerInfo readInfo(lorica_tokenizer tokenizer) {
        try (lorica_tokenizer_info info = new lorica_tokenizer_info()) {
            check(Lorica.lorica_tokenizer_get_info(tokenizer, info));
            return new TokenizerInfo(
                    Text.of(info.model()),
                    Text.of(info.pre()),
                    Text.of(info.chat_template()),
                    info.n_vocab(),
                    info.bos(),
                    info.eos(),
                    info.eot(),
                    info.unk(),
                    info.pad(),
                    info.add_bos(),
                    info.add_eos());
        }
    }
}
