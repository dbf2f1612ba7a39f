package dev.lorica;

import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeModel;
import java.nio.file.Path;
import java.util.List;

/**
 * A GGUF model, opened: the frozen base that adapters are trained on. Its weights stay in the file's blocks, memory-mapped and
 * shared between processes, so opening one takes next to no time.
 *
 * <pre>{@code
 * try (Model model = Model.load(Path.of("llama-q4_0.gguf"));
 *         Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(16).alpha(32).build())) {
 *     new Trainer(model, adapter, TrainingConfig.defaults()).train(Dataset.load(Path.of("qa.json")));
 *     adapter.save(Path.of("out"));
 * }
 * }</pre>
 *
 * Immutable; any number of threads may use one at the same time. Closing it while adapters or generators made from it are in use
 * is harmless: the file stays mapped until they are closed too.
 */
public final class Model implements AutoCloseable {
    private final Path file;
    private final NativeModel engine;
    private final ModelInfo info;
    private final List<String> addedTokens;
    private Tokenizer tokenizer;

    static {
        Inner.MODEL.of(Model.class, model -> model.engine);
    }

    private Model(Path file, NativeModel engine, List<String> addedTokens) {
        this.file = file;
        this.addedTokens = addedTokens;
        this.engine = engine;
        this.info = engine.info(ModelInfo::new);
    }

    /**
     * Opens a model on the best device.
     *
     * @param file as in {@link #load(Path, ModelConfig)}
     * @return the model, which the caller closes
     */
    public static Model load(Path file) {
        Arguments.given(file, "file");
        return load(file, ModelConfig.defaults());
    }

    /**
     * Opens a model; every header, shape, type and offset of the file is checked first.
     *
     * @param path   a GGUF file, or a name on Hugging Face's hub such as {@code hf:owner/repo:Q4_K_M} (see {@link dev.lorica.hub.Hub})
     * @param config the device, the precision of its products, its threads, whether the file is mapped, and tokens to add
     * @return the model, which the caller closes
     * @throws dev.lorica.exceptions.LoricaException if the file is damaged or cannot be read, a device is not there, or the hub does not
     *     give the file
     */
    public static Model load(Path path, ModelConfig config) {
        Arguments.given(path, "path");
        Arguments.given(config, "config");
        Path file = Hub.model(path);
        return new Model(
                file,
                NativeModel.load(
                        file.toString(),
                        config.device(),
                        config.precision().code,
                        config.threads(),
                        config.useMmap(),
                        config.addedTokens()),
                config.addedTokens());
    }

    /** {@return the file that it was loaded from; that in the cache, if it was named on the hub} */
    public Path file() {
        return file;
    }

    /** {@return what the file says of the model, and what it runs on} */
    public ModelInfo info() {
        return info;
    }

    /** {@return the tokens behind those of its file's vocabulary, in the order of their ids} */
    public List<String> addedTokens() {
        return addedTokens;
    }

    /**
     * Compares the files of a mapped model with what they were when it was loaded: size, time and a sample. Training does so at
     * every checkpoint and at its end.
     *
     * @throws dev.lorica.exceptions.MismatchException if they have changed; what was computed meanwhile may be wrong
     */
    public void requireUnchanged() {
        engine.requireUnchanged();
    }

    /** {@return the model's own tokenizer, read when first asked for and closed with the model} */
    public synchronized Tokenizer tokenizer() {
        engine.requireOpen();
        if (tokenizer == null) {
            tokenizer = Tokenizer.of(engine);
        }
        return tokenizer;
    }

    @Override
    public synchronized void close() {
        engine.close();
        if (tokenizer != null) {
            tokenizer.close();
        }
    }
}
