package dev.lorica.files;

import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeGguf;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** What is inside a GGUF file (model, adapter, vocabulary), without loading it. */
public final class GgufFile implements AutoCloseable {
    private final NativeGguf engine;

    /**
     * A tensor of the file.
     *
     * @param name   its name
     * @param type   ggml's name of its type: {@code Q4_0}
     * @param shape  in ggml's order: the contiguous dimension first
     * @param offset bytes from the start of the file that it lies in
     * @param bytes  bytes that it takes
     */
    public record Tensor(String name, String type, List<Long> shape, long offset, long bytes) {
        /** {@return the number of values: the product of the shape} */
        public long elements() {
            return shape.stream().reduce(1L, Math::multiplyExact);
        }
    }

    private GgufFile(NativeGguf engine) {
        this.engine = engine;
    }

    /**
     * Opens and checks a GGUF file. Of a model in several files ({@code NAME-00001-of-00003.gguf}) the first is given, and the others are
     * found beside it.
     *
     * @param file the file
     * @return the open file, which the caller closes
     * @throws dev.lorica.exceptions.LoricaException naming what is damaged, and where
     */
    public static GgufFile open(Path file) {
        Arguments.given(file, "file");
        return new GgufFile(new NativeGguf(Hub.model(file).toString()));
    }

    /** {@return its size in bytes, of all files of a model in several} */
    public long bytes() {
        return engine.bytes();
    }

    /**
     * {@return the metadata in the file's order, each value as JSON text}
     *
     * @param maxArray elements that are given of an array, −1 for all
     */
    public Map<String, String> metadata(long maxArray) {
        return engine.metadata(maxArray);
    }

    /** {@return lengths of the metadata entries that are arrays} */
    public Map<String, Long> arrayLengths() {
        return engine.arrayLengths();
    }

    /** {@return the tensors in the file's order} */
    public List<Tensor> tensors() {
        return engine.tensors(Tensor::new);
    }

    @Override
    public void close() {
        engine.close();
    }
}
