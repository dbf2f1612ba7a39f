package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_tokenizer;
import dev.lorica.internal.c.lorica_tokenizer_info;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.BytePointer;

/** A vocabulary, as the native library holds it. Texts are UTF-8. */
public final class NativeTokenizer implements AutoCloseable {
    final NativeHandle<lorica_tokenizer> handle;

    private NativeTokenizer(String name, lorica_tokenizer pointer) {
        handle = new NativeHandle<>(name, pointer, Lorica::lorica_tokenizer_free);
    }

    public static NativeTokenizer load(String file) {
        NativeLibrary.load();
        lorica_tokenizer pointer = new lorica_tokenizer();
        try (BytePointer path = Text.copy("the path", file)) {
            check(Lorica.lorica_tokenizer_load(path, pointer));
        }
        return new NativeTokenizer("the tokenizer", pointer);
    }

    /** That of a model, with which it is closed. */
    public static NativeTokenizer of(NativeModel model) {
        lorica_tokenizer pointer = new lorica_tokenizer();
        check(model.handle.shared(m -> Lorica.lorica_tokenizer_of_model(m, pointer)));
        return new NativeTokenizer("the model", pointer);
    }

    /** What becomes of a vocabulary's description. */
    public interface Info<R> {
        R of(
                String model,
                String pre,
                String chatTemplate,
                int vocabSize,
                int bos,
                int eos,
                int eot,
                int unk,
                int pad,
                boolean addBos,
                boolean addEos);
    }

    public <R> R info(Info<R> info) {
        return handle.shared(tokenizer -> {
            try (lorica_tokenizer_info i =
                    Structs.sized(lorica_tokenizer_info::new, lorica_tokenizer_info::struct_size)) {
                check(Lorica.lorica_tokenizer_get_info(tokenizer, i));
                return info.of(
                        Text.of(i.model()),
                        Text.of(i.pre()),
                        Text.of(i.chat_template()),
                        i.n_vocab(),
                        i.bos(),
                        i.eos(),
                        i.eot(),
                        i.unk(),
                        i.pad(),
                        i.add_bos(),
                        i.add_eos());
            }
        });
    }

    public int[] encode(byte[] utf8, boolean addSpecial, boolean parseSpecial) {
        // A byte is at least as long as a token, but for the specials and SentencePiece's leading space.
        int[] ids = new int[arrayLength(utf8.length + 8L)];
        long[] count = new long[1];
        try (BytePointer bytes = Memory.of(utf8)) {
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

    /** Encodes texts on all cores, without BOS and EOS. */
    public List<int[]> encodeBatch(byte[][] utf8, boolean[] parseSpecial) {
        int n = utf8.length;
        long[] offsets = new long[n + 1];
        for (int i = 0; i < n; i++) {
            offsets[i + 1] = offsets[i] + utf8[i].length;
        }
        int[] ids = new int[arrayLength(offsets[n] + 8L * n)];
        long[] idOffsets = new long[n + 1];
        try (BytePointer bytes = Memory.bytes(offsets[n]);
                BoolPointer flags = Memory.booleans(n)) {
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

    /** @param special whether control tokens are written out */
    public byte[] decode(int[] ids, boolean special) {
        byte[] bytes = new byte[arrayLength(16L * ids.length)];
        long[] count = new long[1];
        decode(ids, special, bytes, count);
        if (count[0] > bytes.length) {
            bytes = new byte[arrayLength(count[0])];
            decode(ids, special, bytes, count);
        }
        return Arrays.copyOf(bytes, (int) count[0]);
    }

    private void decode(int[] ids, boolean special, byte[] bytes, long[] count) {
        check(handle.shared(
                t -> Lorica.lorica_tokenizer_decode(t, ids, ids.length, special, bytes, bytes.length, count)));
    }

    public String tokenText(int id) {
        return handle.shared(t -> Text.of(Lorica.lorica_tokenizer_token_text(t, id)));
    }

    public boolean isControl(int id) {
        return handle.shared(t -> Lorica.lorica_tokenizer_is_control(t, id));
    }

    public boolean isEndOfGeneration(int id) {
        return handle.shared(t -> Lorica.lorica_tokenizer_is_end_of_generation(t, id));
    }

    @Override
    public void close() {
        handle.close();
    }

    private static int arrayLength(long length) {
        if (length > Integer.MAX_VALUE - 8) {
            throw new InvalidArgumentException("too much text at once; give it in pieces");
        }
        return (int) length;
    }
}
