package dev.lorica.adapter;

import static dev.lorica.internal.Status.check;

import dev.lorica.Model;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.files.AtomicFile;
import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_adapter;
import dev.lorica.internal.c.lorica_adapter_info;
import dev.lorica.internal.c.lorica_adapter_params;
import dev.lorica.internal.c.lorica_adapter_tensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerPointer;

/**
 * A LoRA adapter: what is trained. Made by {@link #create} or {@link #load}.
 *
 * <p>It is saved as a folder with {@value #FILE_NAME}, which llama.cpp loads with {@code --lora}, and
 * {@value AdapterMetadata#FILE_NAME}, which says how it was trained; {@link #exportPeft} writes the files of Hugging Face PEFT.
 */
public final class Adapter implements AutoCloseable {
    /** Name of the weights in an adapter's folder. */
    public static final String FILE_NAME = "adapter.gguf";
    /** Names of PEFT's files in an adapter's folder. */
    public static final String PEFT_FILE_NAME = PeftFolder.WEIGHTS;

    public static final String PEFT_CONFIG_NAME = PeftFolder.CONFIG;

    /**
     * One of the trainable matrices.
     *
     * @param name    {@code blk.0.attn_q.weight.lora_a}
     * @param rows    of A the rank, of B and of DoRA's magnitudes what comes out
     * @param columns of A what goes in, of B the rank, of magnitudes 1
     * @param alpha   of its pair: B A is scaled by alpha / rank, or by alpha / √rank for rsLoRA
     */
    public record Tensor(String name, long rows, long columns, double alpha) {
        /** Whether it is an A, which keeps the plain learning rate under LoRA+. */
        public boolean isA() {
            return name.endsWith(".lora_a");
        }
    }

    private final Model model;
    private final NativeHandle<lorica_adapter> handle;
    private volatile AdapterMetadata metadata;
    private volatile long changes;

    private Adapter(Model model, NativeHandle<lorica_adapter> handle, AdapterMetadata metadata) {
        this.model = model;
        this.handle = handle;
        this.metadata = metadata;
    }

    /** A new adapter, which changes nothing until it is trained. */
    public static Adapter create(Model model, LoraConfig config) {
        lorica_adapter pointer = new lorica_adapter();
        try (BytePointer targets = Text.copy(
                        "target modules", TargetModules.of(config, model.info().layers()));
                lorica_adapter_params params = Lorica.lorica_adapter_default_params()) {
            params.rank(config.rank())
                    .alpha((float) config.alpha())
                    .dropout((float) config.dropout())
                    .use_rslora(config.useRslora())
                    .use_dora(config.useDora())
                    .init(
                            switch (config.init()) {
                                case DEFAULT -> Lorica.LORICA_LORA_INIT_DEFAULT;
                                case GAUSSIAN -> Lorica.LORICA_LORA_INIT_GAUSSIAN;
                            })
                    .seed(config.seed())
                    .target_modules(targets);
            check(model.handle().shared(m -> Lorica.lorica_adapter_create(m, params, pointer)));
        }
        return new Adapter(model, own(model, pointer), AdapterMetadata.of(model, config));
    }

    /**
     * An adapter that was saved.
     *
     * @param name its folder, the folder of a PEFT adapter, a GGUF LoRA file of Lorica's or llama.cpp's, or the name of such on
     *             Hugging Face's hub
     */
    public static Adapter load(Model model, Path name) {
        Path path = Hub.adapter(name);
        boolean folder = Files.isDirectory(path);
        if (!folder && path.endsWith(PeftFolder.WEIGHTS)) {
            return load(model, path.toAbsolutePath().getParent());
        }
        Path weights = folder ? path.resolve(FILE_NAME) : path;
        boolean peft = folder && !Files.exists(weights) && PeftFolder.is(path);
        if (!peft && !Files.exists(weights)) {
            throw new FileAccessException(
                    folder
                            ? path + " holds no " + FILE_NAME + ": it is not an adapter's folder"
                            : path + " does not exist");
        }
        AdapterMetadata metadata = folder || weights.endsWith(FILE_NAME)
                ? AdapterMetadata.read(weights.toAbsolutePath().getParent())
                : null;
        AdapterMetadata.BaseModel base = AdapterMetadata.BaseModel.of(model);
        if (metadata != null && !base.fingerprint().equals(metadata.baseModel().fingerprint())) {
            throw new MismatchException(
                    path + " was trained on " + metadata.baseModel().inWords() + ", not on " + base.inWords()
                            + ": load it with the model that it was trained on");
        }
        if (peft) {
            Adapter adapter = PeftFolder.read(model, path);
            adapter.metadata = metadata != null ? metadata : adapter.metadata;
            return adapter;
        }
        lorica_adapter pointer = new lorica_adapter();
        try (BytePointer file = Text.copy("the path", weights.toString())) {
            check(model.handle().shared(m -> Lorica.lorica_adapter_load(m, file, pointer)));
        }
        NativeHandle<lorica_adapter> handle = own(model, pointer);
        return new Adapter(model, handle, metadata != null ? metadata : AdapterMetadata.of(model, null));
    }

    /**
     * The sum of adapters as one new adapter: each times its scale. It can be run, merged and saved as any other; later changes to
     * its parts are not seen. It answers in the template of the first of them that has one.
     */
    public static Adapter stack(Model model, List<ScaledAdapter> adapters) {
        if (adapters.isEmpty()) {
            throw new InvalidArgumentException("there are no adapters to stack");
        }
        requireOf(model, adapters);
        lorica_adapter pointer = AdapterArray.with(adapters, (pointers, scales, n) -> {
            try (PointerPointer<lorica_adapter> out = new PointerPointer<>(1)) {
                check(Lorica.lorica_adapter_stack(pointers, scales, n, out));
                return out.get(lorica_adapter.class);
            }
        });
        AdapterMetadata metadata = AdapterMetadata.of(model, null);
        for (ScaledAdapter one : adapters) {
            if (metadata.template() == null && one.adapter().template() != null) {
                metadata = metadata.trained(
                        one.adapter().template(), one.adapter().metadata().special(), null, null);
            }
        }
        return new Adapter(model, own(model, pointer), metadata);
    }

    public static void requireOf(Model model, List<ScaledAdapter> adapters) {
        if (adapters.stream().anyMatch(one -> one.adapter().model() != model)) {
            throw new InvalidArgumentException(
                    "the adapter belongs to another model; load it with Adapter.load and this model");
        }
    }

    private static NativeHandle<lorica_adapter> own(Model model, lorica_adapter pointer) {
        return new NativeHandle<>("the adapter", pointer, Lorica::lorica_adapter_free, model.handle());
    }

    /** The base that it belongs to. */
    public Model model() {
        return model;
    }

    public AdapterInfo info() {
        return handle.shared(adapter -> {
            try (lorica_adapter_info info = new lorica_adapter_info()) {
                check(Lorica.lorica_adapter_get_info(adapter, info));
                return new AdapterInfo(
                        info.rank(),
                        info.alpha(),
                        info.scale(),
                        info.dropout(),
                        info.use_rslora(),
                        info.use_dora(),
                        info.n_pairs(),
                        info.n_params(),
                        List.of(Text.of(info.target_modules()).split(",")),
                        Text.of(info.base_fingerprint()));
            }
        });
    }

    /** How it came to be, as far as is known. */
    public AdapterMetadata metadata() {
        return metadata;
    }

    /** What stood around the prompts that it was trained on, {@code null} when that is not known. */
    public PromptTemplate template() {
        return metadata.template();
    }

    /**
     * Saves it in {@code folder}, which is made when it does not exist. Each of the two files is replaced as a whole or not at
     * all.
     */
    public void save(Path folder) {
        makeFolder(folder);
        try (BytePointer file = Text.copy("the path", folder.resolve(FILE_NAME).toString())) {
            check(handle.shared(adapter -> Lorica.lorica_adapter_save(adapter, file)));
        }
        metadata.write(folder);
    }

    /**
     * Writes it into {@code folder} as Hugging Face PEFT loads it: {@code adapter_config.json} and
     * {@code adapter_model.safetensors}, with {@value AdapterMetadata#FILE_NAME} beside them. A folder may hold this and what
     * {@link #save} writes.
     *
     * @param baseModel what {@code base_model_name_or_path} is to say, a name on Hugging Face's hub or a path; {@code null}: the
     *                  name that the model's file gives
     */
    public void exportPeft(Path folder, String baseModel) {
        makeFolder(folder);
        PeftFolder.write(this, folder, baseModel != null ? baseModel : PeftFolder.baseModelOf(model));
        metadata.write(folder);
    }

    /** {@link #exportPeft(Path, String)} with the base model's own name. */
    public void exportPeft(Path folder) {
        exportPeft(folder, null);
    }

    private static void makeFolder(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw new FileAccessException(
                    folder
                            + (Files.isRegularFile(folder)
                                    ? " is a file; a folder is meant"
                                    : " cannot be made: " + AtomicFile.reason(e)),
                    e);
        }
    }

    /** Multiplies its effect: 1 is as trained, 0 is the base. Not saved. */
    public void setScale(double factor) {
        changing(adapter -> {
            check(Lorica.lorica_adapter_set_scale(adapter, (float) factor));
            return null;
        });
    }

    /** The trainable matrices in a fixed order, A and B of a pair next to each other, the magnitudes of a DoRA behind all pairs. */
    public List<Tensor> tensors() {
        return handle.shared(adapter -> {
            List<Tensor> tensors = new ArrayList<>();
            try (lorica_adapter_tensor tensor = new lorica_adapter_tensor()) {
                for (int i = 0; i < Lorica.lorica_adapter_n_tensors(adapter); i++) {
                    check(Lorica.lorica_adapter_tensor_info(adapter, i, tensor));
                    tensors.add(new Tensor(Text.of(tensor.name()), tensor.rows(), tensor.cols(), tensor.alpha()));
                }
            }
            return tensors;
        });
    }

    /** False for one that leaves the base as it is because every B is zero, as before training. */
    public boolean hasEffect() {
        List<Tensor> tensors = tensors();
        for (int i = 0; i < tensors.size(); i++) {
            if (tensors.get(i).name().endsWith(".lora_b")) {
                for (float value : values(i)) {
                    if (value != 0) {
                        return true;
                    }
                }
            }
        }
        return false;
    }

    /** A copy of the matrix at {@code index} of {@link #tensors}, [rows, columns]. */
    public float[] values(int index) {
        float[] values = new float[size(index)];
        check(handle.shared(adapter -> Lorica.lorica_adapter_get_tensor(adapter, index, values, values.length)));
        return values;
    }

    /** Replaces the matrix at {@code index} of {@link #tensors}, [rows, columns]. */
    public void setValues(int index, float[] values) {
        if (values.length != size(index)) {
            throw new InvalidArgumentException(
                    tensors().get(index).name() + " has " + size(index) + " values, not " + values.length);
        }
        changing(adapter -> {
            check(Lorica.lorica_adapter_set_tensor(adapter, index, values, values.length));
            return null;
        });
    }

    @Override
    public void close() {
        handle.close();
    }

    public NativeHandle<lorica_adapter> handle() {
        return handle;
    }

    /** A call during which nobody else uses the adapter, and after which it is another one. */
    public <R> R changing(Function<lorica_adapter, R> call) {
        return handle.exclusive(adapter -> {
            changes++;
            return call.apply(adapter);
        });
    }

    /** Grows whenever the adapter changes: what was computed with another value is out of date. */
    public long changes() {
        return changes;
    }

    public void trained(AdapterMetadata by) {
        metadata = by;
    }

    private int size(int index) {
        List<Tensor> tensors = tensors();
        if (index < 0 || index >= tensors.size()) {
            throw new InvalidArgumentException("there is no matrix " + index + "; the adapter has " + tensors.size());
        }
        return Math.toIntExact(tensors.get(index).rows() * tensors.get(index).columns());
    }
}
