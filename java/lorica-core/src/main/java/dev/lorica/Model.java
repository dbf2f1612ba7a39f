package dev.lorica;

import static dev.lorica.internal.Status.check;

import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_model;
import dev.lorica.internal.c.lorica_model_info;
import dev.lorica.internal.c.lorica_model_params;
import java.nio.file.Path;
import org.bytedeco.javacpp.BytePointer;

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
    private final NativeHandle<lorica_model> handle;
    private final ModelInfo info;
    private Tokenizer tokenizer;

    private Model(Path file, NativeHandle<lorica_model> handle) {
        this.file = file;
        this.handle = handle;
        this.info = handle.shared(Model::readInfo);
    }

    /** Opens a model on the best device. */
    public static Model load(Path file) {
        return load(file, ModelConfig.defaults());
    }

    /**
     * Opens a model; every header, shape, type and offset of the file is checked first.
     *
     * @param path a GGUF file, or a name on Hugging Face's hub such as {@code hf:owner/repo:Q4_K_M} (see {@link dev.lorica.hub.Hub})
     */
    public static Model load(Path path, ModelConfig config) {
        Path file = Hub.model(path);
        NativeLibrary.load();
        lorica_model pointer = new lorica_model();
        try (BytePointer name = Text.copy("the path", file.toString());
                BytePointer device = Text.copy("the device", config.device());
                lorica_model_params params = Lorica.lorica_model_default_params()) {
            params.device(device).precision(precision(config.precision())).n_threads(config.threads());
            check(Lorica.lorica_model_load(name, params, pointer));
        }
        return new Model(file, new NativeHandle<>("the model", pointer, Lorica::lorica_model_free));
    }

    public Path file() {
        return file;
    }

    public ModelInfo info() {
        return info;
    }

    /** The model's own tokenizer, read when first asked for and closed with the model. */
    public synchronized Tokenizer tokenizer() {
        if (tokenizer == null) {
            handle.shared(model -> null);
            tokenizer = Tokenizer.load(file);
        }
        return tokenizer;
    }

    @Override
    public synchronized void close() {
        handle.close();
        if (tokenizer != null) {
            tokenizer.close();
        }
    }

    /** For the library's own packages. */
    public NativeHandle<lorica_model> handle() {
        return handle;
    }

    public static int precision(Precision precision) {
        return switch (precision) {
            case AUTO -> Lorica.LORICA_PRECISION_AUTO;
            case BF16 -> Lorica.LORICA_PRECISION_BF16;
            case F32 -> Lorica.LORICA_PRECISION_F32;
            case F64 -> Lorica.LORICA_PRECISION_F64;
        };
    }

    private static ModelInfo readInfo(lorica_model model) {
        try (lorica_model_info info = new lorica_model_info()) {
            check(Lorica.lorica_model_get_info(model, info));
            return new ModelInfo(
                    Text.of(info.architecture()),
                    Text.of(info.name()),
                    Text.of(info.file_type()),
                    Text.of(info.device()),
                    Text.of(info.device_detail()),
                    Text.of(info.device_reason()),
                    Text.of(info.fingerprint()),
                    info.n_layer(),
                    info.n_embd(),
                    info.n_head(),
                    info.n_head_kv(),
                    info.head_dim(),
                    info.n_ff(),
                    info.n_vocab(),
                    info.n_ctx_train(),
                    info.tied_output(),
                    info.n_params(),
                    info.weight_bytes());
        }
    }
}
