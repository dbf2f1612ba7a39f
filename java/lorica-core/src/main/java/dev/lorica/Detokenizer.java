package dev.lorica;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_detokenizer;
import java.nio.charset.StandardCharsets;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;

/** Turns a stream of ids into a stream of text that never ends inside a character. Made by {@link Tokenizer#detokenizer}. */
public final class Detokenizer implements AutoCloseable {
    private final NativeHandle<lorica_detokenizer> handle;

    Detokenizer(NativeHandle<lorica_detokenizer> handle) {
        this.handle = handle;
    }

    /** Takes one id and gives the text that is complete now, possibly none. */
    public String push(int id) {
        return read((detokenizer, text, count) -> Lorica.lorica_detokenizer_push(detokenizer, id, text, count));
    }

    /** The end of the stream: what is still held back, each byte that is no character given as U+FFFD. */
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
            try (LongPointer count = new LongPointer(1)) {
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
