package dev.lorica.convert;

import dev.lorica.internal.NativeGgufWriter;
import java.nio.file.Path;

/** Reads the tokenizer of a folder as a conversion does, without the rest of it. */
public final class TokenizerReader {
    private TokenizerReader() {}

    /** @param size rows of the embedding */
    public static void read(Path folder, int size) {
        try (NativeGgufWriter writer = new NativeGgufWriter()) {
            new HuggingFaceTokenizer(folder, JsonFiles.read(folder.resolve("config.json")), size).writeTo(writer, size);
        }
    }
}
