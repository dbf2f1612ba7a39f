package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_model;
import dev.lorica.internal.c.lorica_model_info;
import dev.lorica.internal.c.lorica_model_params;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;

/** A model, as the native library holds it. */
public final class NativeModel implements AutoCloseable {
    public static final int PRECISION_AUTO = Lorica.LORICA_PRECISION_AUTO;
    public static final int PRECISION_BF16 = Lorica.LORICA_PRECISION_BF16;
    public static final int PRECISION_F32 = Lorica.LORICA_PRECISION_F32;
    public static final int PRECISION_F64 = Lorica.LORICA_PRECISION_F64;

    final NativeHandle<lorica_model> handle;

    private NativeModel(lorica_model pointer) {
        handle = new NativeHandle<>("the model", pointer, Lorica::lorica_model_free);
    }

    /**
     * @param precision   one of the constants above
     * @param addedTokens behind those of its vocabulary
     */
    public static NativeModel load(
            String file, String device, int precision, int threads, boolean useMmap, List<String> addedTokens) {
        NativeLibrary.load();
        lorica_model pointer = new lorica_model();
        try (BytePointer path = Text.copy("the path", file);
                BytePointer on = Text.copy("the device", device);
                BytePointer added = Text.copy("an added token", String.join("\n", addedTokens));
                lorica_model_params params = Structs.defaults(
                        lorica_model_params::new,
                        lorica_model_params::struct_size,
                        Lorica::lorica_model_default_params)) {
            params.device(on)
                    .precision(precision)
                    .n_threads(threads)
                    .use_mmap(useMmap)
                    .added_tokens(added);
            NativeLibrary.reserveHeap();
            check(Lorica.lorica_model_load(path, params, pointer));
        }
        return new NativeModel(pointer);
    }

    /** What becomes of a model's description. */
    public interface Info<R> {
        R of(
                String architecture,
                String name,
                String fileType,
                String device,
                String deviceDetail,
                String deviceReason,
                String fingerprint,
                int layers,
                int embedding,
                int heads,
                int kvHeads,
                int headDim,
                int feedForward,
                int vocabSize,
                int contextLength,
                boolean tiedOutput,
                long parameters,
                long weightBytes);
    }

    public <R> R info(Info<R> info) {
        return handle.shared(model -> {
            try (lorica_model_info i = Structs.sized(lorica_model_info::new, lorica_model_info::struct_size)) {
                check(Lorica.lorica_model_get_info(model, i));
                return info.of(
                        Text.of(i.architecture()),
                        Text.of(i.name()),
                        Text.of(i.file_type()),
                        Text.of(i.device()),
                        Text.of(i.device_detail()),
                        Text.of(i.device_reason()),
                        Text.of(i.fingerprint()),
                        i.n_layer(),
                        i.n_embd(),
                        i.n_head(),
                        i.n_head_kv(),
                        i.head_dim(),
                        i.n_ff(),
                        i.n_vocab(),
                        i.n_ctx_train(),
                        i.tied_output(),
                        i.n_params(),
                        i.weight_bytes());
            }
        });
    }

    /** What becomes of what a model is beside a predictor of tokens. */
    public interface Classifier<R> {
        R of(boolean isEncoder, int outputs, int poolingType, String problem, List<String> labels);
    }

    public <R> R classifier(Classifier<R> classifier) {
        return handle.shared(model -> {
            try (lorica_model_info i = Structs.sized(lorica_model_info::new, lorica_model_info::struct_size)) {
                check(Lorica.lorica_model_get_info(model, i));
                List<String> labels = new ArrayList<>();
                for (int n = 0; n < i.n_outputs(); n++) {
                    BytePointer label = Lorica.lorica_model_label(model, n);
                    if (label != null && !label.isNull()) {
                        labels.add(Text.of(label));
                    }
                }
                return classifier.of(i.is_encoder(), i.n_outputs(), i.pooling_type(), Text.of(i.problem()), labels);
            }
        });
    }

    /** Compares the files of a mapped model with what they were when it was loaded. */
    public void requireUnchanged() {
        check(handle.shared(Lorica::lorica_model_check));
    }

    /** @throws IllegalStateException if it is closed */
    public void requireOpen() {
        handle.shared(model -> null);
    }

    @Override
    public void close() {
        handle.close();
    }
}
