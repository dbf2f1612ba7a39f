package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_detokenizer;
import java.nio.charset.StandardCharsets;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;

/** A stream from ids to text, as the native library holds it. */
public final class NativeDetokenizer implements AutoCloseable {
    private final NativeHandle<lorica_detokenizer> handle;

    /** @param special whether control tokens are written out */
    public NativeDetokenizer(NativeTokenizer tokenizer, boolean special) {
        lorica_detokenizer pointer = new lorica_detokenizer();
        check(tokenizer.handle.shared(t -> Lorica.lorica_detokenizer_create(t, special, pointer)));
        handle = new NativeHandle<>("the detokenizer", pointer, Lorica::lorica_detokenizer_free, tokenizer.handle);
    }

    public String push(int id) {
        return read((detokenizer, text, count) -> Lorica.lorica_detokenizer_push(detokenizer, id, text, count));
    }

    public String finish() {
        return read(Lorica::lorica_detokenizer_finish);
    }

    @Override
    public void close() {
        handle.close();
    }

    private interface Call {
        int on(lorica_detokenizer detokenizer, BytePointer text, LongPointer count);
    }

    private String read(Call call) {
        return handle.exclusive(detokenizer -> {
            try (LongPointer count = Memory.longs(1)) {
                BytePointer text = new BytePointer();
                check(call.on(detokenizer, text, count));
                if (count.get() == 0) {
                    return "";
                }
                byte[] utf8 = new byte[Math.toIntExact(count.get())];
                text.get(utf8);
                return new String(utf8, StandardCharsets.UTF_8);
            }
        });
    }
}
